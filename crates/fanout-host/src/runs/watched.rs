//! What a run in the background is doing, for whoever watches over it.
//!
//! From the run's events. To [`Worker`](super::Worker): since when nothing happened, whether it waits for people only, and whether
//! it can be left where it is.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fanout_agent::Parking;
use fanout_core::call::CallId;
use fanout_core::event::{Event, Recorder, What};
use tokio::sync::Notify;
use tokio::time::Instant;

/// A recorder of one run.
pub(super) struct Watched {
    parking: Parking,
    doing: Mutex<Doing>,
    /// Told when the run is parked, or is left with nothing under way.
    stirred: Arc<Notify>,
}

struct Doing {
    /// When something happened last.
    at: Instant,
    /// The model is asked, and its answer is not kept yet.
    asks: bool,
    /// The calls of which an attempt is under way.
    attempts: HashSet<CallId>,
}

impl Watched {
    pub(super) fn new(stirred: Arc<Notify>) -> Self {
        let doing = Doing { at: Instant::now(), asks: false, attempts: HashSet::new() };
        Self { parking: Parking::default(), doing: Mutex::new(doing), stirred }
    }

    /// When something happened last.
    pub(super) fn at(&self) -> Instant {
        self.doing().at
    }

    /// Whether it waits for people and for nothing else.
    pub(super) fn is_parked(&self) -> bool {
        self.parking.is_parked()
    }

    /// Whether nothing is under way that would be lost if it broke off here.
    pub(super) fn is_idle(&self) -> bool {
        let doing = self.doing();
        !doing.asks && doing.attempts.is_empty()
    }

    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder for Watched {
    fn record(&self, event: &Event) {
        self.parking.record(event);
        let mut doing = self.doing();
        doing.at = Instant::now();
        match &event.what {
            What::TurnStarted { .. } => doing.asks = true,
            What::Appended { .. } | What::TurnDiscarded { .. } | What::ModelFailed { .. } | What::RunEnded { .. } => {
                doing.asks = false;
            }
            What::AttemptStarted { call, .. } => {
                doing.attempts.insert(call.clone());
            }
            What::CallBackoff { call, .. } => {
                doing.attempts.remove(call);
            }
            What::CallEnded { outcome } => {
                doing.attempts.remove(&outcome.call);
            }
            _ => {}
        }
        drop(doing);
        if self.is_parked() || self.is_idle() {
            self.stirred.notify_waiters();
        }
    }
}
