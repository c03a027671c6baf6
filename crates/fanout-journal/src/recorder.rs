//! Writes the events of one run to the journal.
//!
//! From the run: events, in order. To [`writer`](crate::writer), in their stored form; with the last one goes what the run used.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use fanout_core::call::RunId;
use fanout_core::event::{Event, NotKept, Recorder, What};
use fanout_core::tool::BoxFuture;

use crate::record::{micros, write};
use crate::store::{Entry, NewRun, RunState, Used};
use crate::writer::Writer;

/// The recorder of one run.
pub struct RunRecorder {
    writer: Arc<Writer>,
    run: RunId,
    fence: u64,
    /// What it used; `None` once it is over.
    used: Mutex<Option<Used>>,
}

impl RunRecorder {
    /// A run that begins with its first event.
    pub(crate) fn begin(writer: Arc<Writer>, new: NewRun) -> Self {
        let run = new.run.clone();
        writer.push([Entry::Begin(new)]);
        Self { writer, run, fence: 0, used: Mutex::new(Some(Used::default())) }
    }

    /// A run that goes on, under this fence; so much it used by now.
    pub(crate) fn resume(writer: Arc<Writer>, run: RunId, fence: u64, used: Used) -> Self {
        Self { writer, run, fence, used: Mutex::new(Some(used)) }
    }
}

/// Adds what an event says of what its run used.
pub(crate) fn count(used: &mut Used, what: &What) {
    match what {
        What::ModelEnded { tokens, cost_usd, .. } => {
            used.turns += 1;
            used.tokens += tokens.input + tokens.output + tokens.cache_read + tokens.cache_write;
            used.cost_usd += cost_usd.unwrap_or_default();
        }
        What::CallEnded { outcome } => {
            used.calls += 1;
            used.failed += u64::from(outcome.is_error());
        }
        _ => {}
    }
}

impl Recorder for RunRecorder {
    fn record(&self, event: &Event) {
        let Some(text) = write(&event.what) else { return };
        let mut open = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        // Work that outlives its run can still be told of; there is nobody to take it up for.
        let Some(used) = open.as_mut() else { return };
        used.elapsed = used.elapsed.max(event.at);
        count(used, &event.what);
        let (run, fence) = (self.run.clone(), self.fence);
        let entry = Entry::Event { run: run.clone(), fence, at_us: micros(event.at), text };
        match &event.what {
            What::RunEnded { status, reason } => {
                let state = RunState::of(status).unwrap_or(RunState::Failed);
                let end = Entry::End { run, fence, state, reason: reason.clone(), used: *used };
                self.writer.push([entry, end]);
                *open = None;
            }
            _ => self.writer.push([entry]),
        }
    }

    fn kept(&self) -> Option<BoxFuture<'static, Result<(), NotKept>>> {
        self.writer.kept(Some(&self.run))
    }
}

impl fmt::Debug for RunRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunRecorder").field("run", &self.run).finish_non_exhaustive()
    }
}
