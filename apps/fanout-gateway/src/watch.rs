//! What happened in one run, counted and logged.
//!
//! From the events of the run. To [`metrics`](crate::metrics), and to the log: with run, call and attempt, and never with
//! what a call was given or gave back, which may be secret.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fanout_core::call::{CallId, CallerId, RunId, ToolName};
use fanout_core::event::{Event, Recorder, Wait, What, outcome_word};
use fanout_core::outcome::Outcome;

use crate::keys::Caller;
use crate::metrics::Metrics;

/// Listens to one run for as long as it lives; the run counts as active until this is dropped.
pub(crate) struct RunWatch {
    run: RunId,
    caller: CallerId,
    metrics: Arc<Metrics>,
    calls: Mutex<HashMap<CallId, Seen>>,
}

/// One call so far. Times count from the start of the run.
struct Seen {
    tool: ToolName,
    waits: Arc<[Wait]>,
    arrived_at: Duration,
    ready_at: Option<Duration>,
    /// Since when it waits for a permit.
    asking_since: Option<Duration>,
    started_at: Option<Duration>,
    /// When its latest attempt ended.
    attempt_ended_at: Option<Duration>,
    ended_at: Option<Duration>,
}

impl RunWatch {
    pub(crate) fn begin(run: RunId, caller: &Caller, metrics: Arc<Metrics>) -> Self {
        metrics.run_began();
        tracing::info!(run = run.as_str(), caller = caller.id.as_str(), "run began");
        Self { run, caller: caller.id.clone(), metrics, calls: Mutex::default() }
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<CallId, Seen>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self, call: &CallId, see: impl FnOnce(&mut Seen)) {
        if let Some(seen) = self.calls().get_mut(call) {
            see(seen);
        }
    }

    /// Its waits in the batch are over: the one that ended last is what it waited for.
    fn ready(&self, call: &CallId, at: Duration) {
        let mut calls = self.calls();
        let Some(seen) = calls.get(call) else { return };
        let ended = |wait: &Wait| calls.get(&wait.on).and_then(|on| on.ended_at).unwrap_or_default();
        let last = seen.waits.iter().max_by_key(|wait| ended(wait)).map(|wait| wait.why.as_str());
        let waited = at.saturating_sub(seen.arrived_at);
        if let Some(seen) = calls.get_mut(call) {
            seen.ready_at = Some(at);
        }
        drop(calls);
        if let Some(why) = last {
            self.metrics.waited(why, waited);
        }
    }

    fn locked(&self, call: &CallId, at: Duration) {
        self.seen(call, |seen| {
            self.metrics.waited("lock", at.saturating_sub(seen.ready_at.unwrap_or(at)));
            if seen.asking_since.replace(at).is_none() {
                self.metrics.queued();
            }
        });
    }

    fn attempt_started(&self, call: &CallId, number: u32, at: Duration) {
        self.seen(call, |seen| {
            let asking_since = seen.asking_since.take();
            if asking_since.is_some() {
                self.metrics.unqueued();
            }
            match seen.attempt_ended_at {
                Some(ended_at) => self.metrics.waited("backoff", at.saturating_sub(ended_at)),
                None => {
                    let since = asking_since.or(seen.ready_at).unwrap_or(at);
                    self.metrics.waited("limit", at.saturating_sub(since));
                }
            }
            seen.started_at.get_or_insert(at);
            tracing::debug!(
                run = self.run.as_str(),
                call = call.as_str(),
                tool = seen.tool.as_str(),
                attempt = number,
                "attempt started"
            );
        });
    }

    fn attempt_ended(&self, call: &CallId, number: u32, failed: bool, at: Duration) {
        self.seen(call, |seen| {
            seen.attempt_ended_at = Some(at);
            tracing::debug!(
                run = self.run.as_str(),
                call = call.as_str(),
                tool = seen.tool.as_str(),
                attempt = number,
                failed,
                "attempt ended"
            );
        });
    }

    fn call_ended(&self, outcome: &Outcome, at: Duration) {
        let word = outcome_word(outcome.error_code());
        self.seen(&outcome.call, |seen| {
            if seen.asking_since.take().is_some() {
                self.metrics.unqueued();
            }
            seen.ended_at = Some(at);
            let took = seen.started_at.map(|started| at.saturating_sub(started));
            self.metrics.call_ended(&seen.tool, word, took);
            tracing::info!(
                run = self.run.as_str(),
                call = outcome.call.as_str(),
                tool = seen.tool.as_str(),
                attempts = outcome.attempts,
                outcome = word,
                ms = took.map(millis),
                "call ended"
            );
        });
    }

    /// Forgets the calls of a turn that is over: ids are unique within a turn only.
    fn forget(&self) {
        let asking = self.calls().drain().filter(|(_, seen)| seen.asking_since.is_some()).count();
        (0..asking).for_each(|_| self.metrics.unqueued());
    }
}

impl Recorder for RunWatch {
    fn record(&self, event: &Event) {
        let at = event.at;
        match &event.what {
            What::CallArrived { call, tool, waits, .. } => {
                let seen = Seen {
                    tool: tool.clone(),
                    waits: Arc::clone(waits),
                    arrived_at: at,
                    ready_at: None,
                    asking_since: None,
                    started_at: None,
                    attempt_ended_at: None,
                    ended_at: None,
                };
                self.calls().insert(call.clone(), seen);
            }
            What::ModelFailed { turn, error, again_after } => {
                let again_ms = again_after.map(|wait| wait.as_millis());
                tracing::warn!(run = self.run.as_str(), turn, error, again_ms, "model request failed");
            }
            What::CallReady { call } => self.ready(call, at),
            What::CallLocked { call } => self.locked(call, at),
            What::AttemptStarted { call, number } => self.attempt_started(call, *number, at),
            What::AttemptEnded { call, number, error } => self.attempt_ended(call, *number, error.is_some(), at),
            What::CallEnded { outcome } => self.call_ended(outcome, at),
            What::StrayGivenUp { call } => {
                tracing::warn!(run = self.run.as_str(), call = call.as_str(), "still working after its end");
            }
            What::TurnDiscarded { turn, reason } => {
                self.forget();
                tracing::info!(run = self.run.as_str(), turn, reason, "early results thrown away");
            }
            What::TurnEnded { .. } => self.forget(),
            _ => {}
        }
    }
}

impl Drop for RunWatch {
    fn drop(&mut self) {
        self.forget();
        self.metrics.run_ended();
        tracing::info!(run = self.run.as_str(), caller = self.caller.as_str(), "run ended");
    }
}

impl fmt::Debug for RunWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunWatch").field("run", &self.run).finish_non_exhaustive()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
