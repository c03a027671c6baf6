//! What every store remembers. `other` is a store on the same database, of another process.

use std::time::Duration;

use fanout_journal::memo::Memo;
use fanout_journal::store::{Entry, RunState, Store};

use crate::suite;

const LONG: Duration = Duration::from_secs(3_600);

fn memo(caller: &str, keys: &[&str], text: &str, keep: Duration) -> Entry {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    Entry::Memo(Memo { caller: caller.to_owned(), keys, text: text.to_owned(), keep })
}

/// What is found by the first of these keys that is known: a text, `over`, or `-`.
async fn found(store: &dyn Store, caller: &str, keys: &[&str]) -> String {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    let mut found = store.recall(caller.to_owned(), vec![Vec::new(), keys]).await.unwrap();
    let (last, first) = (found.pop().unwrap(), found.pop().unwrap());
    assert_eq!((first, found.len()), (None, 0), "no key, nothing found");
    last.map_or_else(|| "-".to_owned(), |memo| memo.text.unwrap_or_else(|| "over".to_owned()))
}

/// Found by each key, by its own caller only; what comes later takes the place, and what is over was there.
pub async fn the_newest_of_a_key_counts(store: &dyn Store, other: &dyn Store) {
    let entries = vec![
        memo("ann", &["a", "b", "b"], "first", LONG),
        memo("ann", &["b"], "second", LONG),
        memo("bob", &["a"], "bob's", LONG),
        memo("ann", &["c\u{0}"], "gone", Duration::ZERO),
    ];
    assert!(store.append(entries).await.unwrap().is_empty());
    assert_eq!(found(other, "ann", &["a"]).await, "first");
    assert_eq!(found(other, "ann", &["x", "b", "a"]).await, "second");
    assert_eq!(found(other, "bob", &["b", "a"]).await, "bob's");
    assert_eq!(found(other, "eve", &["a"]).await, "-");
    assert_eq!(found(other, "ann", &["c\u{0}", "a"]).await, "over");
    other.append(vec![memo("ann", &["a"], "third", LONG)]).await.unwrap();
    assert_eq!(found(store, "ann", &["a"]).await, "third");
    assert_eq!(found(store, "ann", &["b"]).await, "second");
}

/// Only what has ended, only for its caller, and under a new fence.
pub async fn a_run_that_ended_goes_on(store: &dyn Store, other: &dyn Store) {
    let caller = suite::new("again", RunState::Running).caller;
    store.append(vec![Entry::Begin(suite::new("again", RunState::Running))]).await.unwrap();
    assert_eq!(other.reopen("again".into(), caller.clone()).await.unwrap(), None, "it has not ended");
    store.append(vec![suite::end("again", 0)]).await.unwrap();
    assert_eq!(other.reopen("again".into(), "somebody else".to_owned()).await.unwrap(), None);
    assert_eq!(other.reopen("none".into(), caller.clone()).await.unwrap(), None);
    let row = other.reopen("again".into(), caller.clone()).await.unwrap().unwrap();
    assert_eq!((row.state, row.fence, row.ended_ms, row.reason), (RunState::Running, 1, None, None));
    assert_eq!(store.append(vec![suite::event("again", 0, "late")]).await.unwrap(), ["again".into()]);
    assert!(other.append(vec![suite::end("again", 1)]).await.unwrap().is_empty());
    assert_eq!(store.reopen("again".into(), caller).await.unwrap().unwrap().fence, 2);
}

/// Many large ones: the newest are there, the oldest are over.
pub async fn there_is_a_bound(store: &dyn Store) {
    let text = "x".repeat(1_200_000);
    for at in 0..1_100_u32 {
        // Small ones between, so that the count comes to where the bytes are added up.
        let text = if at % 4 == 0 { text.as_str() } else { "small" };
        store.append(vec![memo("big", &[&format!("{at}")], text, LONG)]).await.unwrap();
    }
    assert!(found(store, "big", &["0"]).await == "over");
    assert_eq!(found(store, "big", &["1096"]).await.len(), text.len());
    assert_eq!(found(store, "big", &["1099"]).await, "small");
}
