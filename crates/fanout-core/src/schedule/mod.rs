//! What to start, wait for or end next, for the calls of one batch.
//!
//! From [`run`](crate::run): calls as they arrive, what became of what was asked for, and the time.
//! To it: [`Step`]s. The schedule *asks* for locks and permits and is told; it never takes one.
//!
//! A pure state machine: no clock, no task, the same steps for the same story. That is what lets a property test play
//! thousands of turns from a seed. Times are durations since a start that the caller chose.

mod attempts;
mod bundles;
mod consent;
mod permits;
mod ready;
mod terms;

pub use terms::{Limit, NewPart, ScheduleOptions, Step, Terms, Treatment};

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::call::{CallId, ToolName};
use crate::effects::{Effects, Source};
use crate::event::Why;
use crate::graph::{Change, Edge, Graph, Ix};
use crate::outcome::{CallError, ErrorCode, Output};
use crate::retry;
use crate::timers::{Due, Timers};
use crate::tool::ToolError;
use consent::Consent;
use ready::Ready;

/// The schedule of one batch.
#[derive(Debug)]
pub struct Schedule {
    options: ScheduleOptions,
    graph: Graph,
    items: Vec<Item>,
    steps: VecDeque<Step>,
    committed: bool,
    unanswered: usize,
    timers: Timers,
    ready: Ready,
    /// What calls that never run are limited by.
    unlimited: Arc<Limit>,
    /// Where the jitter stands.
    random: u64,
}

#[derive(Debug)]
struct Item {
    treatment: Treatment,
    phase: Phase,
    settled: bool,
    consent: Consent,
    /// When the deadline passes; set on entering the locks.
    deadline_at: Duration,
    /// The only valid timer of this call; others that were set are stale.
    timer: Option<Duration>,
    /// How many attempts were started.
    attempts: u32,
    /// What is left of an attempt that failed and goes again.
    failed: Option<Box<Failed>>,
    /// The bundle that it is a part of.
    bundle: Option<Ix>,
    /// How many parts of it are unanswered, if it is a bundle; one more while not all of them are there.
    parts_open: usize,
}

/// An attempt that failed, and whose call goes again.
#[derive(Debug)]
struct Failed {
    error: ToolError,
    again_at: Duration,
    /// Nothing of it is left.
    is_gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For earlier calls of the batch, or for the response to end.
    Waiting,
    /// For its locks.
    Locking,
    /// For a permit; it holds its locks.
    Queued,
    /// An attempt runs.
    Running,
    /// An attempt failed. It holds its locks and no permit.
    Backoff,
    /// For its parts: it is an open bundle.
    Open,
    /// Answered, but its work goes on.
    Stray,
    /// Nothing of it is left.
    Done,
}

impl Schedule {
    /// An empty batch whose response is still streaming.
    pub fn new(options: ScheduleOptions) -> Self {
        Self {
            options,
            graph: Graph::default(),
            items: Vec::new(),
            steps: VecDeque::new(),
            committed: false,
            unanswered: 0,
            timers: Timers::default(),
            ready: Ready::default(),
            unlimited: Arc::new(Limit::none()),
            random: options.seed,
        }
    }

    /// The next call in program order. `edges` are those that it names itself; `settled` says that its keys are final.
    pub fn arrive(
        &mut self,
        treatment: Treatment,
        effects: Effects,
        settled: bool,
        edges: Vec<Edge>,
        now: Duration,
    ) -> Ix {
        self.arrive_in(None, treatment, effects, settled, edges, now)
    }

    /// The same for a part of a bundle that is not whole yet. Where its keys are not final, the answer to its
    /// [`Step::Prepare`] may also be that it is a bundle itself: [`Schedule::opened`].
    pub fn arrive_in(
        &mut self,
        bundle: Option<Ix>,
        treatment: Treatment,
        effects: Effects,
        settled: bool,
        edges: Vec<Edge>,
        now: Duration,
    ) -> Ix {
        let mut changes = Vec::new();
        self.push(treatment, Phase::Waiting, settled, bundle);
        let call = self.graph.add(effects, settled, edges, &mut changes);
        self.apply(changes, now);
        self.ask_beside(call, now);
        call
    }

    /// Whether a call waits for earlier calls of the batch, or for the response to end.
    pub fn is_waiting(&self, call: Ix) -> bool {
        self.items[call].phase == Phase::Waiting
    }

    /// A call that cannot run: an unknown tool, a bad input, a used-up budget. It is answered at once and touches nothing.
    pub fn refuse(&mut self, bundle: Option<Ix>, call: CallId, tool: ToolName, error: CallError) -> Ix {
        let mut changes = Vec::new();
        self.push(Treatment::inert(call, tool, Arc::clone(&self.unlimited)), Phase::Done, true, bundle);
        let call = self.graph.add(Effects::none(Source::function()), true, Vec::new(), &mut changes);
        self.is_answered(call, Err(error));
        self.graph.bypass(call, &mut changes);
        call
    }

    /// A call that has its outcome from before. It touches nothing any more.
    pub fn recalled(&mut self, call: CallId, tool: ToolName, result: Result<Arc<Output>, CallError>) -> Ix {
        let mut changes = Vec::new();
        self.push(Treatment::inert(call, tool, Arc::clone(&self.unlimited)), Phase::Done, true, None);
        let call = self.graph.add(Effects::none(Source::function()), true, Vec::new(), &mut changes);
        let ok = matches!(&result, Ok(output) if !output.is_error);
        self.is_answered(call, result);
        self.graph.answer(call, ok, &mut changes);
        self.graph.leave(call, &mut changes);
        call
    }

    /// So many attempts at the call had begun before. Another is made, whatever their number.
    pub fn resume(&mut self, call: Ix, attempts: u32) {
        let item = &mut self.items[call];
        item.attempts = attempts;
        item.treatment.in_doubt = attempts > 0 && item.treatment.resumable && !item.treatment.terms.repeatable;
    }

    /// The answer to [`Step::Lock`] for a call that has its outcome from before: it needs no locks.
    pub fn recall(&mut self, call: Ix, result: Result<Arc<Output>, CallError>, now: Duration) {
        if self.items[call].phase == Phase::Locking {
            self.answer(call, result, now);
            self.gone(call, now);
        }
    }

    /// Work of an earlier batch that still goes on: calls that conflict with it wait for [`Schedule::gone`], at most
    /// until `until`.
    pub fn stray(&mut self, call: CallId, tool: ToolName, effects: Effects, until: Duration) -> Ix {
        let mut changes = Vec::new();
        self.push(Treatment::inert(call, tool, Arc::clone(&self.unlimited)), Phase::Stray, true, None);
        self.unanswered -= 1;
        let call = self.graph.add(effects, true, Vec::new(), &mut changes);
        self.graph.answer(call, false, &mut changes);
        self.set_timer(call, until);
        call
    }

    /// The response ended and asks for its tools: whatever was held back for that may enter.
    pub fn commit(&mut self, now: Duration) {
        self.committed = true;
        for call in self.in_order() {
            self.try_enter(call, now);
        }
    }

    /// References are filled and these are the exact keys; or they could not be filled, or what came out is not valid.
    /// Answers the calls that wait for less now.
    pub fn prepared(&mut self, call: Ix, result: Result<Effects, CallError>, now: Duration) -> Vec<Ix> {
        if self.items[call].phase != Phase::Waiting {
            return Vec::new();
        }
        let mut changes = Vec::new();
        let mut freed = Vec::new();
        match result {
            Ok(effects) => {
                self.items[call].settled = true;
                self.ready.forget();
                freed = self.graph.narrow(call, effects, &mut changes);
            }
            Err(error) => self.bypass(call, error, &mut changes),
        }
        self.apply(changes, now);
        self.try_enter(call, now);
        freed
    }

    /// The call holds its locks.
    pub fn locked(&mut self, call: Ix, now: Duration) {
        if self.items[call].phase != Phase::Locking {
            return;
        }
        if self.items[call].deadline_at <= now {
            self.time_over(call, now);
        } else {
            self.queue(call, now);
        }
    }

    /// The call has ended, but its work goes on: whoever conflicts with it waits, at most `stray_hold`.
    pub fn linger(&mut self, call: Ix, now: Duration) {
        if self.items[call].phase == Phase::Stray && self.items[call].timer.is_none() {
            self.set_timer(call, now.saturating_add(self.options.stray_hold));
        }
    }

    /// Nothing of the call's work is left; whoever conflicts with it goes on, and a call in backoff may go again.
    pub fn gone(&mut self, call: Ix, now: Duration) {
        if let Some(failed) = &mut self.items[call].failed {
            failed.is_gone = true;
        }
        match self.items[call].phase {
            Phase::Backoff => self.wait_to_go_again(call),
            Phase::Stray => {
                self.items[call].phase = Phase::Done;
                self.items[call].timer = None;
                let mut changes = Vec::new();
                self.graph.leave(call, &mut changes);
                self.apply(changes, now);
            }
            Phase::Waiting | Phase::Locking | Phase::Queued | Phase::Running | Phase::Open | Phase::Done => {}
        }
    }

    /// Ends every call that has no outcome, for this reason. What was never sent is `cancelled`; of what runs and is not
    /// repeatable, nobody knows.
    pub fn cancel(&mut self, reason: &str, now: Duration) {
        // Last first: to end a call frees those after it, and none of them may start for that.
        for call in self.in_order().into_iter().rev() {
            self.cancel_call(call, reason, now);
        }
    }

    /// Ends one call for this reason, as [`Schedule::cancel`] does with all; those that waited for it alone go on. Of a bundle
    /// all parts end. An ended call stays as it is.
    pub fn cancel_call(&mut self, call: Ix, reason: &str, now: Duration) {
        match self.items[call].phase {
            Phase::Open => {
                let mut parts = self.in_order();
                parts.retain(|part| self.items[*part].bundle == Some(call));
                for part in parts.into_iter().rev() {
                    self.cancel_call(part, reason, now);
                }
            }
            Phase::Running => {
                let error = self.stopped(call);
                self.stop(call, error, now);
            }
            Phase::Waiting | Phase::Locking | Phase::Queued | Phase::Backoff => {
                let item = &self.items[call];
                let error = match &item.failed {
                    // What is not repeatable goes again only if nothing was carried out.
                    Some(_) if item.treatment.terms.repeatable || item.treatment.in_doubt => self.stopped(call),
                    _ => CallError::new(ErrorCode::Cancelled, format!("{reason}; nothing was carried out")),
                };
                self.end(call, error, now);
            }
            Phase::Stray | Phase::Done => {}
        }
    }

    /// Ends what has run out of time.
    pub fn advance(&mut self, now: Duration) {
        while let Some((_, call)) = self.first_timer().filter(|(at, _)| *at <= now) {
            self.items[call].timer = None;
            self.time_over(call, now);
        }
    }

    /// When [`Schedule::advance`] has something to do next.
    pub fn wake_at(&mut self) -> Option<Duration> {
        self.first_timer().map(|(at, _)| at)
    }

    /// What to do next; `None` until something happens.
    pub fn next_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// How many calls have no outcome yet.
    pub fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// What a call waits for or waited for, as it arrived.
    pub fn edges(&self, call: Ix) -> &[Edge] {
        self.graph.edges(call)
    }

    /// The keys of a call, as they are known now.
    pub fn effects(&self, call: Ix) -> &Effects {
        self.graph.effects(call)
    }

    /// The calls whose work outlived them, with their keys and until when they hold them.
    pub fn strays(&self) -> impl Iterator<Item = (Ix, &Effects, Duration)> {
        let stray = |(call, item): (Ix, &Item)| {
            let until = item.timer.filter(|_| item.phase == Phase::Stray)?;
            Some((call, until))
        };
        self.items.iter().enumerate().filter_map(stray).map(|(call, until)| (call, self.graph.effects(call), until))
    }

    fn nested(&self, call: Ix) -> bool {
        self.items[call].treatment.terms.nested
    }

    /// Lets a call go on to its locks if nothing in the batch holds it back.
    fn try_enter(&mut self, call: Ix, now: Duration) {
        let item = &mut self.items[call];
        if item.phase != Phase::Waiting || !item.settled {
            return;
        }
        // Nobody is asked about a response that may yet be thrown away.
        if self.committed && item.consent == Consent::Needed {
            item.consent = Consent::Asked;
            self.steps.push_back(Step::Ask(call));
        }
        let treatment = &item.treatment;
        let may_enter = match item.consent {
            Consent::Free => self.committed || treatment.early,
            Consent::Needed | Consent::Asked => false,
            Consent::Given => true,
        };
        if !may_enter || !self.graph.is_free(call) {
            return;
        }
        item.phase = Phase::Locking;
        item.deadline_at = now.saturating_add(treatment.terms.deadline);
        let (deadline_at, nested) = (item.deadline_at, treatment.terms.nested);
        self.set_timer(call, deadline_at);
        if nested {
            self.locked(call, now);
        } else {
            self.steps.push_back(Step::Lock(call));
        }
    }

    fn start(&mut self, call: Ix, now: Duration) {
        let item = &mut self.items[call];
        item.phase = Phase::Running;
        item.attempts += 1;
        item.failed = None;
        let number = item.attempts;
        let at = now.saturating_add(item.treatment.terms.timeout).min(item.deadline_at);
        self.set_timer(call, at);
        self.steps.push_back(Step::Start { call, number });
    }

    fn time_over(&mut self, call: Ix, now: Duration) {
        let item = &self.items[call];
        let terms = &item.treatment.terms;
        let by_deadline = item.deadline_at <= now;
        match item.phase {
            Phase::Stray => self.give_up(call, now),
            Phase::Running => self.steps.push_back(Step::TimedOut(call)),
            Phase::Backoff if !by_deadline => self.queue(call, now),
            Phase::Queued if !by_deadline => {
                let why = format!("it did not come within {}", self.patience_of(call));
                let error = self.rate_limited(call, &why, None);
                self.end(call, error, now);
            }
            Phase::Locking | Phase::Queued | Phase::Backoff => {
                let error = match &item.failed {
                    Some(failed) => self.verdict(call, &failed.error),
                    None => {
                        let message = format!(
                            "`{}` was not started within its deadline of {:?}; nothing was carried out, so it can be tried \
                             again",
                            terms.tool, terms.deadline
                        );
                        CallError::new(ErrorCode::Timeout, message)
                    }
                };
                self.end(call, error, now);
            }
            Phase::Waiting | Phase::Open | Phase::Done => {}
        }
    }

    fn give_up(&mut self, call: Ix, now: Duration) {
        self.steps.push_back(Step::GiveUp(call));
        self.gone(call, now);
    }

    fn stopped(&self, call: Ix) -> CallError {
        let terms = &self.items[call].treatment.terms;
        retry::verdict(terms.tool.as_str(), &ToolError::Stopped, terms.repeatable)
    }

    /// Ends a running call now; its work may go on for a while.
    fn stop(&mut self, call: Ix, error: CallError, now: Duration) {
        self.steps.push_back(Step::Stop(call));
        self.answer(call, Err(error), now);
        self.set_timer(call, now.saturating_add(self.options.stray_hold));
    }

    /// Ends a call of which nothing runs; it leaves all queues at once.
    fn end(&mut self, call: Ix, error: CallError, now: Duration) {
        if self.items[call].phase == Phase::Queued {
            self.steps.push_back(Step::WithdrawPermit(self.items[call].treatment.limit.group));
        }
        self.end_unasked(call, error, now);
    }

    /// The same for one whose wish for a permit, if it had one, is gone already.
    fn end_unasked(&mut self, call: Ix, error: CallError, now: Duration) {
        let item = &self.items[call];
        if item.phase == Phase::Queued {
            self.ready.left(item.treatment.limit.group);
        }
        match &item.failed {
            None => {
                let mut changes = Vec::new();
                self.bypass(call, error, &mut changes);
                self.apply(changes, now);
            }
            Some(failed) => {
                let is_gone = failed.is_gone;
                self.answer(call, Err(error), now);
                if is_gone {
                    self.gone(call, now);
                } else {
                    self.set_timer(call, now.saturating_add(self.options.stray_hold));
                }
            }
        }
    }

    fn bypass(&mut self, call: Ix, error: CallError, changes: &mut Vec<Change>) {
        let item = &mut self.items[call];
        item.phase = Phase::Done;
        item.timer = None;
        self.is_answered(call, Err(error));
        self.graph.bypass(call, changes);
    }

    fn answer(&mut self, call: Ix, result: Result<Arc<Output>, CallError>, now: Duration) {
        let ok = matches!(&result, Ok(output) if !output.is_error);
        let item = &mut self.items[call];
        item.phase = Phase::Stray;
        item.timer = None;
        self.is_answered(call, result);
        let mut changes = Vec::new();
        self.graph.answer(call, ok, &mut changes);
        self.apply(changes, now);
    }

    /// Counts an outcome, and hands it out.
    fn is_answered(&mut self, call: Ix, result: Result<Arc<Output>, CallError>) {
        self.unanswered -= 1;
        let Treatment { terms, in_doubt, .. } = &self.items[call].treatment;
        let told = |error| if *in_doubt { retry::in_doubt(terms.tool.as_str(), error) } else { error };
        let result = result.map_err(|error| Box::new(told(error)));
        self.steps.push_back(Step::Answer(call, result));
        if let Some(bundle) = self.items[call].bundle {
            self.part_answered(bundle);
        }
    }

    fn in_order(&self) -> Vec<Ix> {
        self.graph.in_order().collect()
    }

    fn push(&mut self, treatment: Treatment, phase: Phase, settled: bool, bundle: Option<Ix>) {
        self.ready.forget();
        self.unanswered += 1;
        if let Some(bundle) = bundle {
            self.items[bundle].parts_open += 1;
        }
        self.items.push(Item {
            bundle,
            parts_open: 0,
            consent: if treatment.asks { Consent::Needed } else { Consent::Free },
            treatment,
            phase,
            settled,
            deadline_at: Duration::ZERO,
            timer: None,
            attempts: 0,
            failed: None,
        });
    }

    fn apply(&mut self, changes: Vec<Change>, now: Duration) {
        let mut open = VecDeque::from(changes);
        while let Some(change) = open.pop_front() {
            match change {
                Change::Free(call) => self.try_enter(call, now),
                Change::Known(call) => {
                    if self.items[call].phase == Phase::Waiting && !self.items[call].settled {
                        self.steps.push_back(Step::Prepare(call));
                    }
                }
                Change::Skip { call, cause } => {
                    if self.items[call].phase != Phase::Waiting {
                        continue;
                    }
                    let mut more = Vec::new();
                    self.bypass(call, self.skipped(call, cause), &mut more);
                    open.extend(more);
                }
            }
        }
    }

    fn skipped(&self, call: Ix, cause: Ix) -> CallError {
        let because = self.graph.edges(call).iter().find(|edge| edge.on == cause).map_or(Why::Order, |edge| edge.why);
        let what = if because == Why::Reference { "uses the output of" } else { "needs" };
        let Treatment { call, terms, .. } = &self.items[cause].treatment;
        let tool = &terms.tool;
        CallError::new(ErrorCode::Skipped, format!("not run: it {what} `{call}` (`{tool}`), which failed"))
    }

    fn first_timer(&mut self) -> Option<Due> {
        let Self { timers, items, .. } = self;
        timers.first(|(at, call)| items[call].timer == Some(at))
    }

    fn set_timer(&mut self, call: Ix, at: Duration) {
        self.items[call].timer = Some(at);
        self.timers.set((at, call));
    }
}
