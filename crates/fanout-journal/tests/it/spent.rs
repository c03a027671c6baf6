//! What every store of spending does. `other` is a store on the same database, of another process.

use fanout_journal::spending::{Cap, NoRoom, SpendingStore};

fn caps(all: &[(&str, u64)]) -> Vec<Cap> {
    all.iter().map(|(scope, max_nano_usd)| Cap { scope: (*scope).into(), max_nano_usd: *max_nano_usd }).collect()
}

/// What is left of a cap of 100 of a scope, told by what has no room.
async fn left(store: &dyn SpendingStore, day: u64, scope: &str) -> u64 {
    match store.add(day, caps(&[(scope, 100)]), 101).await.unwrap() {
        Err(NoRoom { left_nano_usd, .. }) => left_nano_usd,
        Ok(()) => panic!("101 of 100"),
    }
}

/// All caps or none; each day for itself; what is given back is there again.
pub async fn a_day_has_its_room_and_no_more(store: &dyn SpendingStore, other: &dyn SpendingStore) {
    assert_eq!(store.add(7, caps(&[("a", 100), ("b", 50)]), 40).await.unwrap(), Ok(()));
    let full = Err(NoRoom { cap: 1, left_nano_usd: 10 });
    assert_eq!(other.add(7, caps(&[("a", 100), ("b", 50)]), 11).await.unwrap(), full);
    assert_eq!((left(other, 7, "a").await, left(other, 7, "b").await), (60, 60), "nothing was added");
    assert_eq!((left(store, 8, "a").await, left(store, 7, "c\u{0}").await), (100, 100));
    other.give_back(7, vec!["a".into(), "b".into()], 15).await.unwrap();
    assert_eq!((left(store, 7, "a").await, left(store, 7, "b").await), (75, 75));
    store.give_back(7, vec!["a".into()], 1_000).await.unwrap();
    assert_eq!(left(other, 7, "a").await, 100, "never less than nothing");
    assert_eq!(store.add(7, Vec::new(), 5).await.unwrap(), Ok(()));
}

/// Many at once, in whatever order they name the scopes, do not overshoot together, and all come to an end.
pub async fn many_at_once_do_not_overshoot(store: &dyn SpendingStore, other: &dyn SpendingStore) {
    let one = |at: u64| async move {
        let store = if at.is_multiple_of(2) { store } else { other };
        let mut caps = caps(&[("x", 100), ("y", 70)]);
        if at.is_multiple_of(3) {
            caps.reverse();
        }
        store.add(9, caps, 3).await.unwrap().is_ok()
    };
    let [a, b, c, d] = [0, 1, 2, 3].map(|first| async move {
        let mut added = 0;
        for at in 0..10 {
            added += u64::from(one(first + at).await);
        }
        added
    });
    let (a, b, c, d) = tokio::join!(a, b, c, d);
    assert_eq!(a + b + c + d, 23, "of 70, by threes");
    assert_eq!((left(store, 9, "x").await, left(store, 9, "y").await), (31, 31));
}
