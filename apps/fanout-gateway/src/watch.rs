//! What happened in one run, counted, logged and told.
//!
//! From the events of the run. To [`metrics`](crate::metrics), to whoever `[[notify]]` names, and to the log: with run, call and attempt, and never with
//! what a call was given or gave back, which may be secret.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fanout_core::call::{CallId, CallerId, RunId, ToolName};
use fanout_core::event::{Event, Recorder, Wait, What, outcome_word};
use fanout_core::outcome::Outcome;
use fanout_host::notify::Notices;

use crate::metrics::Metrics;

/// Listens to one run for as long as it lives; the run counts as active until this is dropped.
pub(crate) struct RunWatch {
    run: RunId,
    caller: CallerId,
    metrics: Arc<Metrics>,
    notices: Notices,
    calls: Mutex<HashMap<CallId, Seen>>,
}

/// One call so far. Times count from the start of the run.
struct Seen {
    tool: ToolName,
    waits: Arc<[Wait]>,
    /// Without a declaration it needs no locks: nothing of it excludes between runs.
    declared: bool,
    arrived_at: Duration,
    /// From when people were asked about it.
    asked_at: Option<Duration>,
    ready_at: Option<Duration>,
    /// Since when it waits for its first permit.
    asking_since: Option<Duration>,
    /// Whether the metrics count it as waiting.
    is_counted: bool,
    started_at: Option<Duration>,
    /// When its latest attempt ended.
    attempt_ended_at: Option<Duration>,
    /// From when it backs off, and for how long.
    backoff: Option<(Duration, Duration)>,
    ended_at: Option<Duration>,
}

impl RunWatch {
    pub(crate) fn begin(run: RunId, caller: CallerId, metrics: Arc<Metrics>, notices: Notices) -> Self {
        metrics.run_began();
        tracing::info!(run = run.as_str(), caller = caller.as_str(), "run began");
        Self { run, caller, metrics, notices, calls: Mutex::default() }
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
            if !seen.declared {
                seen.asking_since = Some(at);
                seen.is_counted = self.metrics.queued(&seen.tool);
            }
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
                seen.is_counted = self.metrics.queued(&seen.tool);
            }
        });
    }

    fn attempt_started(&self, call: &CallId, number: u32, at: Duration) {
        self.seen(call, |seen| {
            let asking_since = seen.asking_since.take();
            self.unqueued(seen);
            if number > 1 {
                self.backed_off(seen, at);
            } else {
                let since = asking_since.or(seen.ready_at).unwrap_or(at);
                self.metrics.waited("limit", at.saturating_sub(since));
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

    /// A call that backed off runs again or ends: its wait was backoff until it asked for a permit again, and a limit's
    /// from then on.
    fn backed_off(&self, seen: &mut Seen, at: Duration) {
        let Some((from, wait)) = seen.backoff.take() else { return };
        let ended_at = seen.attempt_ended_at.unwrap_or(at);
        let asked_at = from.saturating_add(wait).max(ended_at).min(at);
        self.metrics.waited("backoff", asked_at.saturating_sub(from));
        self.metrics.waited("limit", at.saturating_sub(asked_at));
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
            if let Some(since) = seen.asking_since.take() {
                self.unqueued(seen);
                self.metrics.waited("limit", at.saturating_sub(since));
            }
            self.backed_off(seen, at);
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
        self.calls().drain().for_each(|(_, mut seen)| self.unqueued(&mut seen));
    }

    fn unqueued(&self, seen: &mut Seen) {
        if std::mem::take(&mut seen.is_counted) {
            self.metrics.unqueued();
        }
    }
}

impl Recorder for RunWatch {
    fn record(&self, event: &Event) {
        let at = event.at;
        self.notices.record(event);
        match &event.what {
            What::CallArrived { call, tool, declared, waits, .. } => {
                let seen = Seen {
                    tool: tool.clone(),
                    waits: Arc::clone(waits),
                    declared: *declared,
                    arrived_at: at,
                    asked_at: None,
                    ready_at: None,
                    asking_since: None,
                    is_counted: false,
                    started_at: None,
                    attempt_ended_at: None,
                    backoff: None,
                    ended_at: None,
                };
                self.calls().insert(call.clone(), seen);
            }
            What::ModelFailed { turn, error, again_after } => {
                let again_ms = again_after.map(|wait| wait.as_millis());
                tracing::warn!(run = self.run.as_str(), turn, error, again_ms, "model request failed");
            }
            What::ApprovalAsked { call, approval, .. } => {
                let (run, approval) = (self.run.as_str(), approval.as_str());
                self.seen(call, |seen| seen.asked_at = seen.asked_at.or(Some(at)));
                tracing::info!(run, call = call.as_str(), approval, "approval asked");
            }
            What::ApprovalDecided { call, approval, decision } => {
                let (run, decision) = (self.run.as_str(), decision.as_str());
                self.seen(call, |seen| {
                    let since = seen.asked_at.replace(at).unwrap_or(at);
                    self.metrics.waited("approval", at.saturating_sub(since));
                });
                tracing::info!(run, call = call.as_str(), approval = approval.as_str(), decision, "approval decided");
            }
            What::CallReady { call, .. } => self.ready(call, at),
            What::CallLocked { call } => self.locked(call, at),
            What::AttemptStarted { call, number } => self.attempt_started(call, *number, at),
            What::AttemptEnded { call, number, error } => self.attempt_ended(call, *number, error.is_some(), at),
            What::CallBackoff { call, attempts, wait } => {
                self.seen(call, |seen| seen.backoff = Some((at, *wait)));
                let (run, ms) = (self.run.as_str(), millis(*wait));
                tracing::debug!(run, call = call.as_str(), attempts, ms, "goes again later");
            }
            What::LimitPaused { group, wait } => {
                let (run, group, ms) = (self.run.as_str(), group.as_str(), millis(*wait));
                tracing::info!(run, group, ms, "limit group paused: asked by the far side");
            }
            What::BreakerOpened { group, wait } => {
                let (run, group, ms) = (self.run.as_str(), group.as_str(), millis(*wait));
                tracing::warn!(run, group, ms, "breaker opened: nothing is sent to this API");
            }
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

#[cfg(test)]
mod tests {
    use fanout_core::call::Position;
    use fanout_core::effects::Source;
    use fanout_core::outcome::Output;
    use fanout_core::tool::{Attempt, BoxFuture, Tool, ToolError, ToolSpec};
    use fanout_core::toolbox::Toolbox;

    use super::*;

    /// The sum and the number of waits for this reason.
    fn waits(metrics: &Metrics, why: &str) -> (f64, u64) {
        let text = metrics.print(&[]);
        let value = |kind: &str| {
            let start = format!("fanout_call_wait_seconds_{kind}{{why=\"{why}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_default().to_owned()
        };
        (value("sum").parse().unwrap_or(-1.0), value("count").parse().unwrap_or_default())
    }

    /// Tells a watch of one undeclared call: ready at 0 and then these events, at these seconds.
    fn after(events: Vec<(u64, What)>) -> Arc<Metrics> {
        let metrics = Arc::new(Metrics::new(&Toolbox::new()));
        let watch = waiting(&metrics);
        for (at, what) in events {
            watch.record(&Event { run: "r".into(), at: Duration::from_secs(at), what });
        }
        metrics
    }

    /// A watch of one undeclared call that waits.
    fn waiting(metrics: &Arc<Metrics>) -> RunWatch {
        let watch = RunWatch::begin("r".into(), "nobody".into(), Arc::clone(metrics), Notices::default());
        let (tool, position) = (ToolName::from("t"), Position::block(0));
        let arrived = What::CallArrived {
            call: "a".into(),
            tool,
            part_of: None,
            position,
            declared: false,
            input: Arc::default(),
            waits: Arc::from([]),
        };
        for what in [arrived, What::CallReady { call: "a".into(), filled: None }] {
            watch.record(&Event { run: "r".into(), at: Duration::ZERO, what });
        }
        watch
    }

    fn started(number: u32) -> What {
        What::AttemptStarted { call: "a".into(), number }
    }

    fn failed(number: u32) -> [What; 2] {
        let error = Some("503".to_owned());
        let backoff = What::CallBackoff { call: "a".into(), attempts: number, wait: Duration::from_secs(5) };
        [What::AttemptEnded { call: "a".into(), number, error }, backoff]
    }

    fn ended() -> What {
        let result = Ok(Arc::new(Output::text("x")));
        let outcome = Outcome { call: "a".into(), part_of: None, result, shown: Vec::new().into(), attempts: 2 };
        What::CallEnded { outcome: Arc::new(outcome) }
    }

    #[test]
    fn a_wait_between_attempts_is_backoff_until_a_permit_is_asked_for_again() {
        let [gone, backoff] = failed(1);
        let again = vec![(3, started(1)), (4, gone), (4, backoff), (11, started(2)), (12, ended())];
        let metrics = after(again);
        assert_eq!((waits(&metrics, "limit"), waits(&metrics, "backoff")), ((3.0 + 2.0, 2), (5.0, 1)));
    }

    #[test]
    fn a_call_that_ends_while_it_waits_waited_all_the_same() {
        assert_eq!(waits(&after(vec![(7, ended())]), "limit"), (7.0, 1), "never started");
        let [gone, backoff] = failed(1);
        let metrics = after(vec![(3, started(1)), (4, gone), (4, backoff), (6, ended())]);
        assert_eq!((waits(&metrics, "limit"), waits(&metrics, "backoff")), ((3.0, 2), (2.0, 1)));
    }

    #[test]
    fn a_call_without_a_declaration_is_counted_while_it_waits() {
        let depth = |metrics: &Metrics| metrics.print(&[]).contains("queue_depth{group=\"in_flight\"} 1");
        let metrics = Arc::new(Metrics::new(&Toolbox::new()));
        let watch = waiting(&metrics);
        assert!(depth(&metrics));
        drop(watch);
        assert!(!depth(&metrics), "a run that is gone waits for nothing");
    }

    #[test]
    fn a_tool_that_gets_a_limit_group_while_its_call_waits_leaves_nothing_behind() {
        struct Limited;
        impl Tool for Limited {
            fn spec(&self) -> ToolSpec {
                ToolSpec::new("t", Source::http("api.example.com"))
            }
            fn call(&self, _: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
                Box::pin(async { Ok(Output::text("")) })
            }
        }
        let depth = |metrics: &Metrics| metrics.print(&[]).contains("queue_depth{group=\"in_flight\"} 1");
        let metrics = after(Vec::new());
        assert!(!depth(&metrics), "the watch is gone");
        let watch = waiting(&metrics);
        assert!(depth(&metrics));
        let mut toolbox = Toolbox::new();
        toolbox.add(Limited).unwrap();
        metrics.know(&toolbox);
        watch.record(&Event { run: "r".into(), at: Duration::ZERO, what: started(1) });
        assert!(!depth(&metrics));
    }
}
