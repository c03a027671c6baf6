//! Group commit: what all runs record goes to the store in one order, as much at once as there is.
//!
//! From [`recorder`](crate::recorder): entries, never waited for. To the store, one append after another; and to whoever must know
//! that what was recorded is kept. Since everything stands in one order, what is kept is always a beginning of it: nothing
//! that is kept can depend on something that is lost.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fanout_core::call::RunId;
use fanout_core::event::NotKept;
use fanout_core::tool::BoxFuture;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::store::{Entry, Store, StoreError};

/// So many entries go into one append at most: a group is as large as what came in the meantime, and no reader of the
/// journal waits long for one.
const GROUP_MAX: usize = 1024;

/// How long the first pause is after an append that failed, and the longest: a disk that was full is looked at again.
const AGAIN_AFTER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What waits to be written.
pub(crate) struct Writer {
    queue: Mutex<Queue>,
    more: Notify,
    progress: watch::Sender<Progress>,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    /// How many were ever queued.
    queued: u64,
    /// Nothing more comes.
    closed: bool,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    /// How many are kept.
    kept: u64,
    /// Why the last append failed; what waits is tried again.
    failing: Option<StoreError>,
    /// Runs that others have taken over.
    lost: Arc<Vec<RunId>>,
}

impl Writer {
    pub(crate) fn new() -> Arc<Self> {
        let (queue, more) = (Mutex::default(), Notify::new());
        Arc::new(Self { queue, more, progress: watch::Sender::new(Progress::default()) })
    }

    /// Queues entries, in this order.
    pub(crate) fn push(&self, entries: impl IntoIterator<Item = Entry>) {
        let mut queue = self.queue();
        let before = queue.entries.len();
        queue.entries.extend(entries);
        let new = queue.entries.len() - before;
        queue.queued += new as u64;
        drop(queue);
        self.more.notify_one();
    }

    /// Waits until all that was queued by now is kept; `None`: it is. Of a run that others have taken over nothing is.
    pub(crate) fn kept(&self, run: Option<&RunId>) -> Option<BoxFuture<'static, Result<(), NotKept>>> {
        let wanted = self.queue().queued;
        let mut progress = self.progress.subscribe();
        let run = run.cloned();
        let settled = move |progress: &Progress| -> Option<Result<(), NotKept>> {
            if let Some(run) = run.as_ref().filter(|run| progress.lost.contains(run)) {
                return Some(Err(NotKept(format!("the run `{run}` is kept by another process, or was before").into())));
            }
            if progress.kept >= wanted {
                return Some(Ok(()));
            }
            progress.failing.as_ref().map(|error| Err(NotKept(error.to_string().into())))
        };
        let now = settled(&progress.borrow());
        match now {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(Box::pin(async move { Err(error) })),
            None => Some(Box::pin(async move {
                let gone = || NotKept("the journal is closed".into());
                let settled = progress.wait_for(|progress| settled(progress).is_some()).await;
                let progress = settled.map_err(|_| gone())?.clone();
                match progress.failing {
                    Some(error) if progress.kept < wanted => Err(NotKept(error.to_string().into())),
                    _ if progress.kept < wanted => {
                        Err(NotKept("the run is kept by another process, or was before".into()))
                    }
                    _ => Ok(()),
                }
            })),
        }
    }

    /// Why nothing can be written, for as long as it is so.
    pub(crate) fn failing(&self) -> Option<StoreError> {
        self.progress.borrow().failing.clone()
    }

    /// Writes until nothing more comes and all of it is kept.
    pub(crate) async fn write(self: Arc<Self>, store: Arc<dyn Store>, mut kill: KillAfter) {
        let mut pause = AGAIN_AFTER.0;
        loop {
            let Some(group) = self.next().await else { return };
            let count = group.len();
            let (group, last) = kill.cut(group);
            let appended = loop {
                match store.append(group.clone()).await {
                    Ok(lost) => break lost,
                    Err(error) => {
                        self.progress.send_modify(|progress| progress.failing = Some(error));
                        sleep(pause).await;
                        pause = (pause * 2).min(AGAIN_AFTER.1);
                    }
                }
            };
            pause = AGAIN_AFTER.0;
            if last {
                kill.now();
            }
            self.progress.send_modify(|progress| {
                progress.kept += count as u64;
                progress.failing = None;
                if !appended.is_empty() {
                    let lost = progress.lost.iter().cloned().chain(appended);
                    progress.lost = Arc::new(lost.collect());
                }
            });
        }
    }

    /// Nothing more comes.
    pub(crate) fn close(&self) {
        self.queue().closed = true;
        self.more.notify_one();
    }

    async fn next(&self) -> Option<Vec<Entry>> {
        loop {
            let more = self.more.notified();
            {
                let mut queue = self.queue();
                let count = queue.entries.len().min(GROUP_MAX);
                if count > 0 {
                    return Some(queue.entries.drain(..count).collect());
                }
                if queue.closed {
                    return None;
                }
            }
            more.await;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the process, as SIGKILL does, once so many events are kept: for the tests that do it at every one of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KillAfter(pub(crate) Option<u64>);

impl KillAfter {
    /// What of a group is still written, and whether that is the last.
    fn cut(&mut self, mut group: Vec<Entry>) -> (Vec<Entry>, bool) {
        let Some(left) = &mut self.0 else { return (group, false) };
        let mut count = 0;
        for (at, entry) in group.iter().enumerate() {
            count += u64::from(matches!(entry, Entry::Event { .. } | Entry::End { .. }));
            if count == *left {
                group.truncate(at + 1);
                return (group, true);
            }
        }
        *left -= count;
        (group, false)
    }

    fn now(self) {
        // It cannot fail: the process may always signal itself, and nothing comes after.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
