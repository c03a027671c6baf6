//! The suite over SQLite, and what only a file can suffer.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use fanout_journal::approvals::ApprovalStore;
use fanout_journal::store::{Entry, RunState, Store, StoreError, Wanted};
use fanout_journal::{MemoryApprovals, SqliteStore};
use tempfile::TempDir;

use crate::{asked, remembered, spent, suite};

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("fanout.db")
    }

    fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.file()).unwrap()
    }
}

#[tokio::test]
async fn what_is_appended_is_there_in_order() {
    suite::appends_and_lists(&Place::new().open()).await;
}

#[tokio::test]
async fn nobody_writes_to_a_run_of_another_who_lives() {
    let place = Place::new();
    suite::only_the_owner_writes(&place.open(), &place.open()).await;
}

#[tokio::test]
async fn an_id_is_one_runs() {
    suite::an_id_is_one_runs(&Place::new().open()).await;
}

#[tokio::test]
async fn the_runs_of_who_is_gone_are_taken_over_once() {
    let place = Place::new();
    suite::a_run_is_taken_over_once(Box::new(place.open()), &place.open(), &place.open()).await;
}

#[tokio::test]
async fn a_question_is_one_calls_and_the_first_decision_counts() {
    let place = Place::new();
    let (store, other) = (place.open(), place.open());
    asked::questions_are_listed(&store, &other).await;
    asked::a_call_finds_its_question(&store, &other).await;
    asked::the_first_decision_counts(&store, &other).await;
    store.prune(1_999).await.unwrap();
    assert!(store.get("apr_la".into()).await.unwrap().is_some());
    store.prune(2_001).await.unwrap();
    assert!(store.get("apr_la".into()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_question_in_memory_is_one_calls_and_the_first_decision_counts() {
    for test in 0..3 {
        let store = MemoryApprovals::default();
        match test {
            0 => asked::questions_are_listed(&store, &store).await,
            1 => asked::a_call_finds_its_question(&store, &store).await,
            _ => asked::the_first_decision_counts(&store, &store).await,
        }
    }
}

#[tokio::test]
async fn what_a_day_may_cost_is_shared_by_processes() {
    let place = Place::new();
    let (store, other) = (place.open(), place.open());
    spent::a_day_has_its_room_and_no_more(&store, &other).await;
    spent::many_at_once_do_not_overshoot(&store, &other).await;
    // Days that are over by then are forgotten.
    store.prune(10 * 24 * 60 * 60 * 1000).await.unwrap();
    spent::many_at_once_do_not_overshoot(&store, &other).await;
}

#[tokio::test]
async fn what_is_remembered_outlives_the_process() {
    let place = Place::new();
    let (store, other) = (place.open(), place.open());
    remembered::the_newest_of_a_key_counts(&store, &other).await;
    remembered::a_run_that_ended_goes_on(&store, &other).await;
    remembered::there_is_a_bound(&store).await;
}

#[tokio::test]
async fn queued_runs_are_taken_once() {
    let place = Place::new();
    suite::queued_runs_are_taken_once(&place.open(), &place.open()).await;
}

#[tokio::test]
async fn runs_are_decided_stopped_and_forgotten() {
    suite::runs_are_changed(&Place::new().open()).await;
}

#[tokio::test]
async fn deeds_are_kept() {
    let place = Place::new();
    suite::deeds_are_kept(&place.open(), &place.open()).await;
}

#[tokio::test]
async fn who_had_paused_before_deeds_were_kept_still_has() {
    let place = Place::new();
    drop(place.open());
    let connection = rusqlite::Connection::open(place.file()).unwrap();
    let back = "drop table fanout_deed; pragma user_version = 4; insert into fanout_setting values ('paused', 'me')";
    connection.execute_batch(back).unwrap();
    drop(connection);
    let standing = place.open().standing().await.unwrap();
    assert_eq!((standing[0].action.as_str(), standing[0].who.as_str()), ("pause", "me"));
}

#[tokio::test]
async fn a_journal_keeps_what_is_recorded() {
    let place = Place::new();
    suite::a_journal_keeps_what_is_recorded(Arc::new(place.open())).await;
}

#[tokio::test]
async fn nobody_else_can_read_the_file_or_those_beside_it() {
    let place = Place::new();
    let store = place.open();
    store.append(vec![Entry::Begin(suite::new("a", RunState::Running))]).await.unwrap();
    let mut seen = 0;
    for entry in fs::read_dir(place.0.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        let wanted = if entry.file_type().unwrap().is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, wanted, "{:?}", entry.path());
        seen += 1;
    }
    assert!(seen >= 3, "the file, its log, the owners");
}

#[tokio::test]
async fn a_file_that_is_torn_is_refused_and_left_as_it_is() {
    let place = Place::new();
    fs::write(place.file(), b"SQLite format 3\0 and then something else entirely".repeat(200)).unwrap();
    let before = fs::read(place.file()).unwrap();
    let error = SqliteStore::open(&place.file()).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("fanout.db") && error.to_string().contains("move it away"), "{error}");
    assert_eq!(fs::read(place.file()).unwrap(), before);
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused() {
    let place = Place::new();
    drop(place.open());
    let connection = rusqlite::Connection::open(place.file()).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    let error = SqliteStore::open(&place.file()).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
}

#[tokio::test]
async fn a_file_of_the_first_version_still_opens() {
    let place = Place::new();
    let connection = rusqlite::Connection::open(place.file()).unwrap();
    connection.execute_batch(include_str!("old/1.sql")).unwrap();
    drop(connection);
    let store = place.open();
    let rows = store.runs(Wanted { max: 10, ..Wanted::default() }).await.unwrap();
    assert_eq!((rows[0].run.as_str(), rows[0].state, rows[0].used.calls), ("run_old", RunState::Done, 1));
    let events = store.events("run_old".into(), 0, 100).await.unwrap();
    assert!(!events.is_empty());
    for stored in events {
        fanout_journal::record::read(stored.form, &stored.text).unwrap();
    }
}
