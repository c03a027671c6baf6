//! The journal that a process holds.
//!
//! From whoever begins, lists or resumes runs. To the store, directly for what is asked, through [`writer`](crate::writer) for
//! what happens.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fanout_core::call::RunId;
use fanout_core::event::{NotKept, What};
use tokio::task::JoinHandle;

use crate::memo::Memo;
use crate::record::read;
use crate::recorder::{RunRecorder, count};
use crate::store::{Entry, NewRun, Row, Store, StoreError, Used, Wanted};
use crate::writer::{KillAfter, Writer};

/// So many events are read at once: a long run is never in memory twice.
const PAGE: usize = 4096;

/// How a journal is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct JournalOptions {
    /// Ends the process, as SIGKILL does, once so many events are kept; for tests.
    pub kill_after: Option<u64>,
}

/// The journal of a process. Cloning it copies a pointer; what was recorded is written until [`Journal::close`].
#[derive(Clone)]
pub struct Journal {
    store: Arc<dyn Store>,
    writer: Arc<Writer>,
}

/// An event of a run, as the journal tells it.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its number among those of all runs.
    pub number: u64,
    /// When, since the run began.
    pub at: Duration,
    /// What happened.
    pub what: What,
}

impl Journal {
    /// Keeps what is recorded in this store. Answers the task that writes, too: it ends after [`Journal::close`], when all is
    /// kept. Needs a runtime.
    pub fn new(store: Arc<dyn Store>, options: JournalOptions) -> (Self, JoinHandle<()>) {
        let writer = Writer::new();
        let writing = tokio::spawn(Arc::clone(&writer).write(Arc::clone(&store), KillAfter(options.kill_after)));
        (Self { store, writer }, writing)
    }

    /// Begins a run: the recorder of all that happens in it.
    pub fn begin(&self, new: NewRun) -> RunRecorder {
        RunRecorder::begin(Arc::clone(&self.writer), new)
    }

    /// Goes on with a run that [`Store::adopt`] or [`Store::take_queued`] gave to this process, after these events.
    pub fn resume(&self, row: &Row, told: &[Told]) -> RunRecorder {
        let mut used = Used::default();
        for event in told {
            used.elapsed = used.elapsed.max(event.at);
            count(&mut used, &event.what);
        }
        RunRecorder::resume(Arc::clone(&self.writer), row.run.clone(), row.fence, used)
    }

    /// Waits until all that was recorded by now is kept.
    ///
    /// # Errors
    /// [`NotKept`]: it cannot be written now. It is tried again, and nothing is lost while the process lives.
    pub async fn kept(&self) -> Result<(), NotKept> {
        match self.writer.kept(None) {
            Some(kept) => kept.await,
            None => Ok(()),
        }
    }

    /// Remembers something for a caller: among all that is recorded, in the one order. [`Journal::kept`] says when it is kept.
    pub fn keep(&self, memo: Memo) {
        self.writer.push([Entry::Memo(memo)]);
    }

    /// Why nothing can be written, for as long as it is so.
    pub fn failing(&self) -> Option<StoreError> {
        self.writer.failing()
    }

    /// The store, for what is asked of it.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// One run.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn run(&self, run: &RunId) -> Result<Option<Row>, StoreError> {
        let wanted = Wanted { run: Some(run.clone()), max: 1, ..Wanted::default() };
        Ok(self.store.runs(wanted).await?.pop())
    }

    /// All events of a run, in order.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Event`] for one that cannot be read.
    pub async fn events(&self, run: &RunId) -> Result<Vec<Told>, StoreError> {
        self.events_after(run, 0).await
    }

    /// Those behind this number.
    ///
    /// # Errors
    /// As for [`Journal::events`].
    pub async fn events_after(&self, run: &RunId, mut after: u64) -> Result<Vec<Told>, StoreError> {
        let mut told = Vec::new();
        loop {
            let page = self.store.events(run.clone(), after, PAGE).await?;
            let is_last = page.len() < PAGE;
            for stored in page {
                after = stored.number;
                let what = read(stored.form, &stored.text).map_err(|error| StoreError::event(after, &error))?;
                told.push(Told { number: after, at: Duration::from_micros(stored.at_us), what });
            }
            if is_last {
                return Ok(told);
            }
        }
    }

    /// Writes what was recorded by now, and takes nothing more.
    pub fn close(&self) {
        self.writer.close();
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").finish_non_exhaustive()
    }
}
