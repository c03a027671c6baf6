//! A store that fails for a while: nothing is lost, nothing that must not happen twice begins, and the order stays.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanout_core::call::RunId;
use fanout_core::event::{Event, Recorder, What};
use fanout_core::tool::BoxFuture;
use fanout_journal::deeds::Deed;
use fanout_journal::memo::Remembered;
use fanout_journal::store::{Entry, Row, RunState, Store, StoreError, Stored, Wanted};
use fanout_journal::{Journal, JournalOptions};

use crate::suite;

/// Keeps the texts that were appended, while it is not full.
#[derive(Default)]
struct Flaky {
    is_full: AtomicBool,
    kept: Mutex<Vec<String>>,
}

impl Store for Flaky {
    fn append(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Vec<RunId>, StoreError>> {
        Box::pin(async move {
            if self.is_full.load(Ordering::SeqCst) {
                return Err(StoreError::Full { place: "here".to_owned() });
            }
            let text = |entry: Entry| match entry {
                Entry::Event { text, .. } | Entry::End { text, .. } => Some(text),
                Entry::Begin(_) | Entry::Memo(_) => None,
            };
            self.kept.lock().unwrap().extend(entries.into_iter().filter_map(text));
            Ok(Vec::new())
        })
    }

    fn runs(&self, _: Wanted) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn open_runs(&self) -> BoxFuture<'_, Result<Vec<(RunState, usize)>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn events(&self, _: RunId, _: u64, _: usize) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn adopt(&self, _: usize) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn take_queued(&self, _: usize) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn change(&self, _: RunId, _: RunState, _: RunState, _: Option<String>) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async { Ok(false) })
    }

    fn ask_to_stop(&self, _: Option<RunId>, _: String) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(async { Ok(0) })
    }

    fn beat(&self) -> BoxFuture<'_, Result<Vec<(RunId, String)>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn prune(&self, _: u64) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(async { Ok(0) })
    }

    fn reopen(&self, _: RunId, _: String) -> BoxFuture<'_, Result<Option<Row>, StoreError>> {
        Box::pin(async { Ok(None) })
    }

    fn recall(&self, _: String, _: Vec<Vec<String>>) -> BoxFuture<'_, Result<Vec<Option<Remembered>>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn keep_deed(&self, _: Deed) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async { Ok(1) })
    }

    fn standing(&self) -> BoxFuture<'_, Result<Vec<Deed>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn deeds(&self, _: Option<u64>, _: usize) -> BoxFuture<'_, Result<Vec<Deed>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_said_at_once_and_written_later_in_its_order() {
    let store = Arc::new(Flaky::default());
    let (journal, writing) = Journal::new(Arc::clone(&store) as _, JournalOptions::default());
    let recorder = journal.begin(suite::new("r", RunState::Running));
    let tell = |turn| {
        let what = What::TurnStarted { turn };
        recorder.record(&Event { run: "r".into(), at: Duration::ZERO, what });
    };
    tell(1);
    journal.kept().await.unwrap();
    store.is_full.store(true, Ordering::SeqCst);
    tell(2);
    let error = recorder.kept().unwrap().await.unwrap_err();
    assert!(error.to_string().contains("no room left"), "{error}");
    tell(3);
    // Known by now, so nobody waits to hear it again.
    assert!(recorder.kept().unwrap().await.is_err());
    assert!(journal.failing().is_some());
    store.is_full.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(recorder.kept().is_none() && journal.failing().is_none());
    let kept = store.kept.lock().unwrap().clone();
    assert_eq!(kept, [1, 2, 3].map(|turn| format!("{{\"e\":\"turn_started\",\"turn\":{turn}}}")));
    journal.close();
    writing.await.unwrap();
}
