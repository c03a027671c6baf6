//! What to start, wait for or end next, for the calls of one batch.
//!
//! From [`run`](crate::run): calls as they arrive, what became of what was asked for, and the time.
//! To it: [`Step`]s. The schedule *asks* for locks and permits and is told; it never takes one.
//!
//! A pure state machine: no clock, no task, the same steps for the same story. That is what lets a property test play
//! thousands of turns from a seed. Times are durations since a start that the caller chose.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
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

/// What the driver of a batch is to do next.
#[derive(Debug)]
pub enum Step {
    /// Fill the references of this call and find its exact keys; answer with [`Schedule::prepared`].
    Prepare(Ix),
    /// Enter the locks for this call; answer with [`Schedule::locked`] once they are held.
    Lock(Ix),
    /// Ask for one permit; answer with [`Schedule::permitted`] once it is there.
    Permit,
    /// Take back one wish for a permit.
    WithdrawPermit,
    /// Give up this call's place in the locks, held or waited for.
    Unlock(Ix),
    /// Start an attempt; answer with [`Schedule::ended`], and with [`Schedule::gone`] when nothing of it is left.
    Start {
        /// Which call.
        call: Ix,
        /// Which try; the first is 1.
        number: u32,
    },
    /// Stop the running attempt. [`Schedule::gone`] is still awaited.
    Stop(Ix),
    /// Work of an ended call went on for longer than `stray_hold`: take its locks away.
    GiveUp(Ix),
    /// This is the call's one outcome.
    Answer(Ix, Result<Arc<Output>, Box<CallError>>),
}

/// How one call is to be treated.
#[derive(Clone, Debug)]
pub struct Treatment {
    /// The call, for messages.
    pub call: CallId,
    /// What holds for every call of its tool.
    pub terms: Arc<Terms>,
    /// It may enter before the response has ended.
    pub early: bool,
    /// How long it is expected to take, for the order in which permits are used.
    pub expected: Duration,
}

/// How the calls of one tool are to be treated.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// The tool, for messages.
    pub tool: ToolName,
    /// The longest that one attempt may take.
    pub timeout: Duration,
    /// The longest that a call may take from entering the locks.
    pub deadline: Duration,
    /// Running a call again does no harm.
    pub repeatable: bool,
    /// It runs calls itself: no locks, no permits.
    pub nested: bool,
}

impl Treatment {
    /// That of a call which never runs.
    pub fn inert(call: CallId, tool: ToolName) -> Self {
        let terms = Terms { tool, timeout: Duration::ZERO, deadline: Duration::ZERO, repeatable: false, nested: false };
        Self { call, terms: Arc::new(terms), early: false, expected: Duration::ZERO }
    }
}

/// Bounds of one schedule.
#[derive(Clone, Copy, Debug)]
pub struct ScheduleOptions {
    /// The longest that work which outlives its call keeps its locks.
    pub stray_hold: Duration,
}

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
}

#[derive(Debug)]
struct Item {
    treatment: Treatment,
    phase: Phase,
    settled: bool,
    /// When the deadline passes; set on entering the locks.
    deadline_at: Duration,
    /// The only valid timer of this call; others that were set are stale.
    timer: Option<Duration>,
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
    /// Answered, but its work goes on.
    Stray,
    /// Nothing of it is left.
    Done,
}

/// Calls that want a permit. The one with the longest remaining path goes first, ties in program order.
#[derive(Debug, Default)]
struct Ready {
    fresh: Vec<Ix>,
    /// The best last: most calls are sorted once and then taken from the end.
    sorted: Vec<(Duration, Reverse<Ix>)>,
    /// Those that came since.
    late: BinaryHeap<(Duration, Reverse<Ix>)>,
    remaining: Vec<Duration>,
    len: usize,
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
        let mut changes = Vec::new();
        self.unanswered += 1;
        self.ready.remaining.clear();
        self.push(treatment, Phase::Waiting, settled);
        let call = self.graph.add(effects, settled, edges, &mut changes);
        self.apply(changes, now);
        call
    }

    /// A call that cannot run: an unknown tool, a bad input, a used-up budget. It is answered at once and touches nothing.
    pub fn refuse(&mut self, call: CallId, tool: ToolName, error: CallError) -> Ix {
        let mut changes = Vec::new();
        self.push(Treatment::inert(call, tool), Phase::Done, true);
        let call = self.graph.add(Effects::none(Source::function()), true, Vec::new(), &mut changes);
        self.steps.push_back(Step::Answer(call, Err(Box::new(error))));
        self.graph.bypass(call, &mut changes);
        call
    }

    /// Work of an earlier batch that still goes on: calls that conflict with it wait for [`Schedule::gone`], at most
    /// until `until`.
    pub fn stray(&mut self, call: CallId, tool: ToolName, effects: Effects, until: Duration) -> Ix {
        let mut changes = Vec::new();
        self.push(Treatment::inert(call, tool), Phase::Stray, true);
        let call = self.graph.add(effects, true, Vec::new(), &mut changes);
        self.graph.answer(call, false, &mut changes);
        self.set_timer(call, until);
        call
    }

    /// The response ended and asks for its tools: whatever was held back for that may enter.
    pub fn commit(&mut self, now: Duration) {
        self.committed = true;
        for call in 0..self.items.len() {
            self.try_enter(call, now);
        }
    }

    /// References are filled and these are the exact keys; or they could not be filled, or what came out is not valid.
    pub fn prepared(&mut self, call: Ix, result: Result<Effects, CallError>, now: Duration) -> Vec<Ix> {
        if self.items[call].phase != Phase::Waiting {
            return Vec::new();
        }
        let mut changes = Vec::new();
        let mut freed_from = Vec::new();
        match result {
            Ok(effects) => {
                self.items[call].settled = true;
                self.ready.remaining.clear();
                freed_from = self.graph.narrow(call, effects, &mut changes);
            }
            Err(error) => self.bypass(call, error, &mut changes),
        }
        self.apply(changes, now);
        self.try_enter(call, now);
        freed_from
    }

    /// The call holds its locks.
    pub fn locked(&mut self, call: Ix, now: Duration) {
        if self.items[call].phase != Phase::Locking {
            return;
        }
        if self.items[call].deadline_at <= now {
            self.time_over(call, now);
        } else if self.nested(call) {
            self.start(call, now);
        } else {
            self.items[call].phase = Phase::Queued;
            self.ready.fresh.push(call);
            self.ready.len += 1;
            self.steps.push_back(Step::Permit);
        }
    }

    /// A permit is there. Starts the call that it is best used for; answers `false` if nobody wants it any more. A call
    /// whose deadline has passed by now ends here, unsent: to start and stop it at one moment could still send it.
    pub fn permitted(&mut self, now: Duration) -> bool {
        while self.ready.len > 0 {
            let Some(call) = self.best() else { return false };
            if self.items[call].deadline_at <= now {
                self.time_over(call, now);
                continue;
            }
            self.ready.len -= 1;
            self.start(call, now);
            return true;
        }
        self.ready.fresh.clear();
        self.ready.sorted.clear();
        self.ready.late.clear();
        false
    }

    /// An attempt ended. The call's locks are kept until [`Schedule::gone`].
    pub fn ended(&mut self, call: Ix, result: Result<Output, ToolError>, now: Duration) {
        if self.items[call].phase != Phase::Running {
            return;
        }
        let terms = &self.items[call].treatment.terms;
        let result =
            result.map(Arc::new).map_err(|error| retry::verdict(terms.tool.as_str(), &error, terms.repeatable));
        self.answer(call, result, now);
    }

    /// The call has ended, but its work goes on: whoever conflicts with it waits, at most `stray_hold`.
    pub fn linger(&mut self, call: Ix, now: Duration) {
        if self.items[call].phase == Phase::Stray && self.items[call].timer.is_none() {
            self.set_timer(call, now.saturating_add(self.options.stray_hold));
        }
    }

    /// Nothing of the call's work is left; whoever conflicts with it goes on.
    pub fn gone(&mut self, call: Ix, now: Duration) {
        if self.items[call].phase != Phase::Stray {
            return;
        }
        self.items[call].phase = Phase::Done;
        self.items[call].timer = None;
        let mut changes = Vec::new();
        self.graph.leave(call, &mut changes);
        self.apply(changes, now);
    }

    /// Ends every call that has no outcome, for this reason. What was never sent is `cancelled`; of what runs and is not
    /// repeatable, nobody knows.
    pub fn cancel(&mut self, reason: &str, now: Duration) {
        // Last first: to end a call frees those after it, and none of them may start for that.
        for call in (0..self.items.len()).rev() {
            self.cancel_call(call, reason, now);
        }
    }

    /// Ends one call for this reason, as [`Schedule::cancel`] does with all; those that waited for it alone go on. An ended
    /// call stays as it is.
    pub fn cancel_call(&mut self, call: Ix, reason: &str, now: Duration) {
        match self.items[call].phase {
            Phase::Running => {
                let error = self.stopped(call);
                self.stop(call, error, now);
            }
            Phase::Waiting | Phase::Locking | Phase::Queued => {
                let message = format!("{reason}; nothing was carried out");
                self.end_unsent(call, CallError::new(ErrorCode::Cancelled, message), now);
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
        let treatment = &item.treatment;
        let may_enter = self.committed || treatment.early;
        if item.phase != Phase::Waiting || !item.settled || !may_enter || !self.graph.is_free(call) {
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
        let at = now.saturating_add(item.treatment.terms.timeout).min(item.deadline_at);
        self.set_timer(call, at);
        self.steps.push_back(Step::Start { call, number: 1 });
    }

    fn best(&mut self) -> Option<Ix> {
        let Ready { fresh, sorted, late, remaining, .. } = &mut self.ready;
        let is_queued = |call: &Ix| self.items[*call].phase == Phase::Queued;
        if sorted.is_empty() && late.is_empty() && fresh.len() == 1 {
            return fresh.pop().filter(is_queued);
        }
        if remaining.is_empty() {
            *remaining = self.graph.remaining(|call| self.items[call].treatment.expected);
            fresh.extend(sorted.drain(..).chain(late.drain()).map(|(_, Reverse(call))| call));
            sorted.extend(fresh.drain(..).map(|call| (remaining[call], Reverse(call))));
            sorted.sort_unstable();
        }
        late.extend(fresh.drain(..).map(|call| (remaining[call], Reverse(call))));
        loop {
            let best = if sorted.last() >= late.peek() { sorted.pop() } else { late.pop() };
            let (_, Reverse(call)) = best?;
            if is_queued(&call) {
                return Some(call);
            }
        }
    }

    fn time_over(&mut self, call: Ix, now: Duration) {
        let item = &self.items[call];
        let terms = &item.treatment.terms;
        match item.phase {
            Phase::Stray => self.give_up(call, now),
            Phase::Running => {
                let by_deadline = item.deadline_at <= now;
                let (after, what) = if by_deadline { (terms.deadline, "deadline") } else { (terms.timeout, "timeout") };
                let error = retry::timed_out(terms.tool.as_str(), after, what, terms.repeatable);
                self.stop(call, error, now);
            }
            Phase::Locking | Phase::Queued => {
                let message = format!(
                    "`{}` was not started within its deadline of {:?}; nothing was carried out, so it can be tried again",
                    terms.tool, terms.deadline
                );
                self.end_unsent(call, CallError::new(ErrorCode::Timeout, message), now);
            }
            Phase::Waiting | Phase::Done => {}
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

    /// Ends a call that was never sent; it leaves all queues at once.
    fn end_unsent(&mut self, call: Ix, error: CallError, now: Duration) {
        match self.items[call].phase {
            Phase::Locking => self.steps.push_back(Step::Unlock(call)),
            Phase::Queued => {
                self.ready.len -= 1;
                self.steps.push_back(Step::WithdrawPermit);
                self.steps.push_back(Step::Unlock(call));
            }
            Phase::Waiting | Phase::Running | Phase::Stray | Phase::Done => {}
        }
        let mut changes = Vec::new();
        self.bypass(call, error, &mut changes);
        self.apply(changes, now);
    }

    fn bypass(&mut self, call: Ix, error: CallError, changes: &mut Vec<Change>) {
        let item = &mut self.items[call];
        item.phase = Phase::Done;
        item.timer = None;
        self.unanswered -= 1;
        self.steps.push_back(Step::Answer(call, Err(Box::new(error))));
        self.graph.bypass(call, changes);
    }

    fn answer(&mut self, call: Ix, result: Result<Arc<Output>, CallError>, now: Duration) {
        let ok = matches!(&result, Ok(output) if !output.is_error);
        let item = &mut self.items[call];
        item.phase = Phase::Stray;
        item.timer = None;
        self.unanswered -= 1;
        self.steps.push_back(Step::Answer(call, result.map_err(Box::new)));
        let mut changes = Vec::new();
        self.graph.answer(call, ok, &mut changes);
        self.apply(changes, now);
    }

    fn push(&mut self, treatment: Treatment, phase: Phase, settled: bool) {
        self.items.push(Item { treatment, phase, settled, deadline_at: Duration::ZERO, timer: None });
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
