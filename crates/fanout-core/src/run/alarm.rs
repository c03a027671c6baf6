//! Who watches the clock for permits that come with time alone: a rate, the end of a pause.
//!
//! From `shared`: when something is due. To it: that it is.
//!
//! There is at most one task for it, and only while somebody waits. It may die with the runtime that it was started in;
//! then those who wait are told, and start another in theirs.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::shared::Shared;

/// The one task, if there is any.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    /// When it rings.
    due: Arc<Mutex<Option<Instant>>>,
    earlier: Arc<Notify>,
}

impl Alarm {
    /// Rings at `at`, or before it.
    pub(super) fn set(&self, shared: &Arc<Shared>, at: Instant) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            // Outside of a runtime nobody can wait; whoever waits is told and looks for himself.
            shared.unwatched();
            return;
        };
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        match *due {
            Some(before) if before <= at => {}
            Some(_) => {
                *due = Some(at);
                self.earlier.notify_one();
            }
            None => {
                *due = Some(at);
                // A runtime that is shutting down drops the task at once, and that takes the mutex.
                drop(due);
                let (due, earlier) = (Arc::clone(&self.due), Arc::clone(&self.earlier));
                runtime.spawn(Watch { shared: Arc::downgrade(shared), due, earlier, is_mine: true }.run());
            }
        }
    }
}

/// The task.
struct Watch {
    shared: Weak<Shared>,
    due: Arc<Mutex<Option<Instant>>>,
    earlier: Arc<Notify>,
    /// Whether the time that is due is this task's to watch.
    is_mine: bool,
}

impl Watch {
    async fn run(mut self) {
        loop {
            let Some(at) = *self.due.lock().unwrap_or_else(PoisonError::into_inner) else { return };
            tokio::select! {
                () = sleep_until(at) => {}
                () = self.earlier.notified() => continue,
            }
            // From here on whoever sets another time starts another task, so that no time is lost while this one rings.
            self.is_mine = false;
            *self.due.lock().unwrap_or_else(PoisonError::into_inner) = None;
            let Some(next) = self.shared.upgrade().and_then(|shared| shared.ring()) else { return };
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            match *due {
                Some(other) => {
                    *due = Some(other.min(next));
                    self.earlier.notify_one();
                    return;
                }
                None => {
                    *due = Some(next);
                    self.is_mine = true;
                }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.is_mine {
            return;
        }
        let was_due = self.due.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(_), Some(shared)) = (was_due, self.shared.upgrade()) {
            shared.unwatched();
        }
    }
}
