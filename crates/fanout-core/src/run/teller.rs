//! Tells the recorder of a run what happened, with the run's clock.
//!
//! From whoever sees something happen. To the run's [`Recorder`]; without one nothing is even made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::RunOptions;
use crate::call::RunId;
use crate::event::{Event, NotKept, Recorder, What};
use crate::tool::BoxFuture;

/// Tells the recorder of one run. Clones tell the same one.
#[derive(Clone)]
pub struct Teller {
    recorder: Option<Arc<dyn Recorder>>,
    run: RunId,
    epoch: Instant,
    /// How long the run went on before this process.
    before: Duration,
}

impl Teller {
    pub(super) fn new(options: &RunOptions) -> Self {
        let recorder = options.recorder.clone();
        Self { recorder, run: options.run.clone(), epoch: Instant::now(), before: options.elapsed }
    }

    /// The time since the run began, in all its processes.
    pub fn elapsed(&self) -> Duration {
        self.before.saturating_add(self.epoch.elapsed())
    }

    /// Tells what happened. `what` is only made if somebody listens.
    pub fn tell(&self, what: impl FnOnce() -> What) {
        if let Some(recorder) = &self.recorder {
            recorder.record(&Event { run: self.run.clone(), at: self.elapsed(), what: what() });
        }
    }

    /// Waits until all that was told so far outlives the process; see [`Recorder::kept`].
    pub fn kept(&self) -> Option<BoxFuture<'static, Result<(), NotKept>>> {
        self.recorder.as_ref()?.kept()
    }
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Teller").field("run", &self.run).finish_non_exhaustive()
    }
}
