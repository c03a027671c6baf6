//! What every store does: each test runs over all of them.

use std::sync::Arc;
use std::time::Duration;

use fanout_core::call::RunId;
use fanout_core::event::{Event, Recorder, RunKind, What};
use fanout_journal::approvals::ApprovalStore;
use fanout_journal::deeds::{Action, Deed};
use fanout_journal::store::{Entry, NewRun, RunState, Store, Used, Wanted};
use fanout_journal::{Journal, JournalOptions};
use serde_json::json;

pub fn new(run: &str, state: RunState) -> NewRun {
    NewRun {
        run: run.into(),
        kind: RunKind::Agent,
        state,
        caller: "local".to_owned(),
        project: None,
        title: format!("title of {run}"),
    }
}

pub fn event(run: &str, fence: u64, text: &str) -> Entry {
    Entry::Event { run: run.into(), fence, at_us: 5, text: text.to_owned() }
}

pub fn end(run: &str, fence: u64) -> Entry {
    let used = Used { turns: 2, calls: 3, failed: 1, tokens: 40, cost_usd: 0.5, elapsed: Duration::from_micros(9) };
    let text = "over".to_owned();
    Entry::End { run: run.into(), fence, at_us: 9, text, state: RunState::Done, reason: Some("why".to_owned()), used }
}

async fn texts(store: &dyn Store, run: &str) -> Vec<String> {
    store.events(run.into(), 0, 100).await.unwrap().into_iter().map(|stored| stored.text).collect()
}

fn wanted() -> Wanted {
    Wanted { max: 100, ..Wanted::default() }
}

/// What is appended is there, in order, and runs are listed newest first.
pub async fn appends_and_lists(store: &dyn Store) {
    let entries = vec![
        Entry::Begin(new("one", RunState::Running)),
        event("one", 0, "a"),
        Entry::Begin(new("two", RunState::Running)),
        event("two", 0, "x"),
        event("one", 0, "b"),
    ];
    assert!(store.append(entries).await.unwrap().is_empty());
    assert!(store.append(vec![event("one", 0, "c"), end("one", 0)]).await.unwrap().is_empty());
    assert_eq!(
        (texts(store, "one").await, texts(store, "two").await),
        (vec!["a".into(), "b".into(), "c".into(), "over".into()], vec!["x".into()])
    );
    let numbers =
        |stored: Vec<fanout_journal::store::Stored>| stored.into_iter().map(|stored| stored.number).collect::<Vec<_>>();
    let (one, two) = (store.events("one".into(), 0, 9).await.unwrap(), store.events("two".into(), 0, 9).await.unwrap());
    let (one, two) = (numbers(one), numbers(two));
    assert!(one[0] < two[0] && two[0] < one[1], "one order of all runs: {one:?} {two:?}");
    assert_eq!(
        numbers(store.events("one".into(), one[0], 1).await.unwrap()),
        [one[1]],
        "from behind a number, so many"
    );
    let rows = store.runs(wanted()).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.run.as_str()).collect::<Vec<_>>(), ["two", "one"]);
    let ended = &rows[1];
    assert_eq!((ended.state, ended.reason.as_deref(), ended.used.tokens), (RunState::Done, Some("why"), 40));
    assert!(ended.ended_ms >= Some(ended.began_ms) && rows[0].ended_ms.is_none());
    let only = Wanted { state: Some(RunState::Running), ..wanted() };
    assert_eq!(store.runs(only).await.unwrap().len(), 1);
    let after = Wanted { after: Some("two".into()), ..wanted() };
    assert_eq!(store.runs(after).await.unwrap()[0].run.as_str(), "one");
    let others = Wanted { caller: Some("nobody".to_owned()), ..wanted() };
    assert!(store.runs(others).await.unwrap().is_empty());
}

/// `other` is a store on the same database, of a process that lives.
pub async fn only_the_owner_writes(store: &dyn Store, other: &dyn Store) {
    store.append(vec![Entry::Begin(new("mine", RunState::Running))]).await.unwrap();
    assert!(other.adopt(10).await.unwrap().is_empty(), "its owner lives");
    let lost = other.append(vec![event("mine", 0, "theirs")]).await.unwrap();
    assert_eq!(lost, [RunId::from("mine")]);
    assert!(texts(store, "mine").await.is_empty());
}

/// What is told of a run whose id is taken goes nowhere, and what stands beside it is kept.
pub async fn an_id_is_one_runs(store: &dyn Store) {
    let begin = |run: &str| Entry::Begin(new(run, RunState::Running));
    store.append(vec![begin("same"), event("same", 0, "first"), end("same", 0)]).await.unwrap();
    let group = vec![begin("same"), event("same", 0, "second"), begin("next"), event("next", 0, "x"), end("same", 0)];
    assert_eq!(store.append(group).await.unwrap(), [RunId::from("same")]);
    assert_eq!(texts(store, "same").await, ["first", "over"]);
    assert_eq!(texts(store, "next").await, ["x"]);
}

/// `next` opens the same database after `gone` is no more.
pub async fn a_run_is_taken_over_once(gone: Box<dyn Store>, next: &dyn Store, third: &dyn Store) {
    let entries = ["old", "older"].map(|run| Entry::Begin(new(run, RunState::Running)));
    gone.append(entries.to_vec()).await.unwrap();
    drop(gone);
    let (one, two) = tokio::join!(next.adopt(10), third.adopt(10));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.len() + two.len(), 2, "each by one of them");
    let (winner, loser, rows) = if one.is_empty() { (third, next, two) } else { (next, third, one) };
    assert!(rows.iter().all(|row| row.fence == 1));
    assert_eq!(loser.append(vec![event("old", 1, "no")]).await.unwrap().len(), 1, "not with the fence alone");
    assert_eq!(winner.append(vec![event("old", 0, "no")]).await.unwrap().len(), 1, "not under the old fence");
    assert!(winner.append(vec![event("old", 1, "yes"), end("old", 1)]).await.unwrap().is_empty());
    assert_eq!(texts(next, "old").await, ["yes", "over"]);
    assert_eq!(winner.append(vec![event("old", 1, "late")]).await.unwrap().len(), 1, "nothing comes after the end");
}

/// Queued runs are taken in order, each once, whoever asks.
pub async fn queued_runs_are_taken_once(store: &dyn Store, other: &dyn Store) {
    let names: Vec<String> = (0..20).map(|n| format!("queued-{n:02}")).collect();
    store.append(names.iter().map(|name| Entry::Begin(new(name, RunState::Queued))).collect()).await.unwrap();
    let mut taken = Vec::new();
    loop {
        let (one, two) = tokio::join!(store.take_queued(3), other.take_queued(2));
        let (one, two) = (one.unwrap(), two.unwrap());
        if one.is_empty() && two.is_empty() {
            break;
        }
        taken.extend(one.into_iter().chain(two).map(|row| row.run.to_string()));
    }
    taken.sort();
    assert_eq!(taken, names);
}

/// Proposed, decided, asked to stop, pruned.
pub async fn runs_are_changed(store: &dyn Store) {
    store
        .append(vec![Entry::Begin(new("idea", RunState::Proposed)), Entry::Begin(new("busy", RunState::Running))])
        .await
        .unwrap();
    let mut open = store.open_runs().await.unwrap();
    open.sort_by_key(|(state, _)| state.as_str());
    assert_eq!(open, [(RunState::Proposed, 1), (RunState::Running, 1)]);
    let change = |from, to| store.change("idea".into(), from, to, None);
    assert!(change(RunState::Proposed, RunState::Queued).await.unwrap());
    assert!(!change(RunState::Proposed, RunState::Cancelled).await.unwrap(), "it was decided");
    assert!(change(RunState::Queued, RunState::Cancelled).await.unwrap());
    assert_eq!(store.ask_to_stop(Some("busy".into()), "enough".to_owned()).await.unwrap(), 1);
    assert_eq!(store.ask_to_stop(None, "too late".to_owned()).await.unwrap(), 1);
    assert_eq!(store.beat().await.unwrap(), [("busy".into(), "enough".to_owned())], "the first word counts");
    store.append(vec![end("busy", 0)]).await.unwrap();
    assert!(store.beat().await.unwrap().is_empty());
    assert_eq!(store.prune(0).await.unwrap(), 0);
    assert_eq!(store.prune(u64::MAX >> 1).await.unwrap(), 2);
    assert!(store.runs(wanted()).await.unwrap().is_empty());
}

/// Deeds stay in their order; the last one about each thing is the order that stands, at every process.
pub async fn deeds_are_kept<S: Store + ApprovalStore>(store: &S, other: &S) {
    let deed = |action, target: &str, detail| Deed {
        number: 0,
        at_ms: 7,
        who: "ann\u{0}".to_owned(),
        project: Some("support".to_owned()),
        action,
        target: target.to_owned(),
        detail,
    };
    assert!(store.standing().await.unwrap().is_empty() && store.deeds(None, 9).await.unwrap().is_empty());
    let done = [
        deed(Action::DisableTool, "pay", json!({"reason": "it \u{0} pays twice"})),
        deed(Action::DisableTool, "mail", json!({})),
        deed(Action::Reload, "", json!(["x"])),
        deed(Action::Pause, "", json!(null)),
        deed(Action::EnableTool, "pay", json!({})),
        deed(Action::OpenBreaker, "pay", json!({"until_ms": u64::MAX})),
    ];
    for deed in &done {
        store.keep_deed(deed.clone()).await.unwrap();
    }
    let shown = |deeds: Vec<Deed>| -> Vec<String> {
        deeds.iter().map(|deed| format!("{} {}", deed.action.as_str(), deed.target)).collect()
    };
    let standing = ["tools disable mail", "pause ", "tools enable pay", "breaker open pay"];
    assert_eq!(shown(other.standing().await.unwrap()), standing);
    let all = other.deeds(None, 9).await.unwrap();
    assert!(all.iter().zip(done.iter().rev()).all(|(kept, done)| {
        (kept.at_ms, kept.action, &kept.target, &kept.project, &kept.detail)
            == (7, done.action, &done.target, &done.project, &done.detail)
    }));
    assert!(all.windows(2).all(|pair| pair[0].number > pair[1].number), "newest first");
    assert_eq!(shown(other.deeds(Some(all[1].number), 2).await.unwrap()), ["pause ", "reload "]);

    let id = store.ask(super::asked::asked("d", "a", "dan")).await.unwrap().id;
    for (is_approved, by) in [(false, "kim"), (true, "lee")] {
        store.decide(id.clone(), super::asked::ruling(is_approved, by)).await.unwrap();
    }
    let decided = other.deeds(None, 2).await.unwrap();
    assert_eq!(shown(decided.clone()), [format!("approvals deny {id}"), "breaker open pay".to_owned()], "once");
    assert_eq!((decided[0].who.as_str(), &decided[0].detail["tool"]), ("kim", &json!("charge")));
}

/// What is recorded is kept when `kept` says so, and comes back.
pub async fn a_journal_keeps_what_is_recorded(store: Arc<dyn Store>) {
    let (journal, writing) = Journal::new(store, JournalOptions::default());
    let recorder = journal.begin(new("told", RunState::Running));
    let tell = |at: u64, what| recorder.record(&Event { run: "told".into(), at: Duration::from_micros(at), what });
    tell(1, What::RunStarted { kind: RunKind::Agent, given: "{}".into() });
    for turn in 1..=5_000 {
        tell(u64::from(turn), What::TurnStarted { turn });
    }
    if let Some(kept) = recorder.kept() {
        kept.await.unwrap();
    }
    assert!(recorder.kept().is_none(), "nothing to wait for");
    let told = journal.events(&"told".into()).await.unwrap();
    assert_eq!(told.len(), 5_001);
    assert!(matches!(told[5_000].what, What::TurnStarted { turn: 5_000 }));
    tell(9_000, What::RunEnded { status: "done", reason: None });
    tell(9_001, What::TurnEnded { turn: 1 });
    journal.kept().await.unwrap();
    let row = journal.run(&"told".into()).await.unwrap().unwrap();
    assert_eq!((row.state, row.used.elapsed), (RunState::Done, Duration::from_micros(9_000)));
    assert_eq!(journal.events(&"told".into()).await.unwrap().len(), 5_002, "nothing comes after the end");
    journal.close();
    writing.await.unwrap();
}
