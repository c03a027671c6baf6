//! When everything happened, and what it would have taken otherwise.
//!
//! From the events of one run, in order. To whoever shows them: a waterfall, the closing figures, a dashboard.
//! Pure: the same events give the same picture, live or from a journal.

use std::collections::BTreeMap;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::call::{CallId, Position, ToolName};
use crate::event::{Event, Tokens, Wait, What, Why};
use crate::outcome::ErrorCode;

/// One run as it was.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    turns: Vec<Turn>,
    /// The turn and the bar of each call. What was stopped can end in a later turn.
    places: FxHashMap<CallId, (usize, usize)>,
    ended_at: Duration,
    status: Option<&'static str>,
}

/// One model response and the calls of its batch. A batch that no model asked for is a turn whose model took no time.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    /// Counted from 1; 0 for a batch that no model asked for.
    pub number: u32,
    /// When the model was asked; the first time, if it was asked again after a failure.
    pub asked_at: Duration,
    /// When its response was whole.
    pub answered_at: Option<Duration>,
    /// What its response took.
    pub tokens: Tokens,
    /// What that cost in US dollars, where the price is known.
    pub cost_usd: Option<f64>,
    /// Its calls, in program order.
    pub bars: Vec<Bar>,
}

/// One call as it was. Times count from the start of the run.
#[derive(Clone, Debug)]
pub struct Bar {
    /// The call.
    pub call: CallId,
    /// Its tool.
    pub tool: ToolName,
    /// The bundle that it is a part of.
    pub part_of: Option<CallId>,
    /// It stands for others, its parts, and takes no time of its own.
    pub is_bundle: bool,
    /// Its place in program order.
    pub position: Position,
    /// Whether what it writes is declared.
    pub declared: bool,
    /// What it waited for in its batch.
    pub waits: Vec<Wait>,
    /// When it arrived.
    pub arrived_at: Duration,
    /// When people were asked about it, the first time.
    pub asked_at: Option<Duration>,
    /// When they decided, the last time.
    pub decided_at: Option<Duration>,
    /// When nothing in its batch, and nobody, held it back any longer.
    pub ready_at: Option<Duration>,
    /// When it held its locks.
    pub locked_at: Option<Duration>,
    /// Its attempts, in order; none for a call that never ran.
    pub attempts: Vec<AttemptBar>,
    /// When it had its outcome.
    pub ended_at: Option<Duration>,
    /// Why it failed, if it did.
    pub error: Option<ErrorCode>,
}

/// One attempt at a call as it was, and the wait that its failure called for. Times count from the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptBar {
    /// When it had its permits and began.
    pub started_at: Duration,
    /// When it was gone; one that was stopped can end after its call.
    pub ended_at: Option<Duration>,
    /// Whether it ended with an error.
    pub failed: bool,
    /// How long its call was to wait after it, and from when, before it asks for a permit again.
    pub backoff: Option<(Duration, Duration)>,
}

impl AttemptBar {
    /// From when its call asked for a permit again: the backoff is over, and the attempt is gone.
    fn asked_again_at(&self) -> Option<Duration> {
        let (from, wait) = self.backoff?;
        Some(from.saturating_add(wait).max(self.ended_at?))
    }
}

impl Bar {
    fn new(
        call: &CallId,
        tool: &ToolName,
        part_of: &Option<CallId>,
        position: &Position,
        waits: &[Wait],
        arrived_at: Duration,
    ) -> Self {
        Self {
            call: call.clone(),
            tool: tool.clone(),
            part_of: part_of.clone(),
            is_bundle: false,
            position: position.clone(),
            declared: true,
            waits: waits.to_vec(),
            arrived_at,
            asked_at: None,
            decided_at: None,
            ready_at: None,
            locked_at: None,
            attempts: Vec::new(),
            ended_at: None,
            error: None,
        }
    }

    fn declared(self, declared: bool) -> Self {
        Self { declared, ..self }
    }

    fn bundle(self) -> Self {
        Self { is_bundle: true, ..self }
    }

    /// When its first attempt began.
    pub fn started_at(&self) -> Option<Duration> {
        self.attempts.first().map(|first| first.started_at)
    }

    /// From when it waited for its first permit: it held its locks, if it needed any.
    pub fn queued_at(&self) -> Option<Duration> {
        self.locked_at.or(self.ready_at)
    }

    /// From the first permit to the outcome, waits for further permits left out; nothing for a call that never ran.
    ///
    /// Backoff counts: the far side or the failure asked for it, and running the calls one by one would not have spared it.
    /// A wait for a permit is only there because others hold them.
    pub fn took(&self) -> Duration {
        match (self.started_at(), self.ended_at) {
            (Some(start), Some(end)) => end.saturating_sub(start).saturating_sub(self.waited_again()),
            _ => Duration::ZERO,
        }
    }

    /// How long it was in backoff, all in all, once it has ended.
    pub fn backed_off(&self) -> Duration {
        let ended_at = self.ended_at.unwrap_or_default();
        let waits = self.attempts.iter().filter_map(|one| {
            let (from, _) = one.backoff?;
            Some(one.asked_again_at().unwrap_or(ended_at).min(ended_at).saturating_sub(from))
        });
        waits.sum()
    }

    /// How long it waited for permits after its first attempt, all in all.
    pub fn waited_again(&self) -> Duration {
        let next = self.attempts.iter().skip(1).map(|next| Some(next.started_at)).chain([self.ended_at]);
        let waits = self.attempts.iter().zip(next).filter_map(|(one, next)| {
            let asked_at = one.asked_again_at()?;
            Some(next?.saturating_sub(asked_at))
        });
        waits.sum()
    }
}

/// The closing figures of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// From start to end.
    pub elapsed: Duration,
    /// The model's time and each call's time from its first permit to its outcome ([`Bar::took`]: limit waits left out,
    /// backoff not), one after another.
    pub one_by_one: Duration,
    /// The longest path through the model's time, references, conflicts and order, with the same durations: no schedule
    /// could have been faster.
    pub critical_path: Duration,
}

impl Figures {
    /// How much of the one-by-one time was saved, in whole percent, rounded down: 100 would mean that it took no time.
    pub fn saved_percent(&self) -> u32 {
        let (all, took) = (self.one_by_one.as_micros(), self.elapsed.as_micros());
        let saved = all.saturating_sub(took) * 100;
        u32::try_from(saved.checked_div(all).unwrap_or(0)).unwrap_or(0)
    }
}

impl Timeline {
    /// Takes the next event of the run.
    pub fn take(&mut self, event: &Event) {
        self.ended_at = self.ended_at.max(event.at);
        match &event.what {
            What::TurnStarted { turn } => self.turn(*turn, event.at),
            What::ModelEnded { turn, tokens, cost_usd, .. } => {
                if let Some(turn) = self.turns.iter_mut().find(|other| other.number == *turn) {
                    turn.answered_at = Some(event.at);
                    (turn.tokens, turn.cost_usd) = (*tokens, *cost_usd);
                }
            }
            What::CallArrived { call, tool, part_of, position, declared, waits, .. } => {
                self.arrive(Bar::new(call, tool, part_of, position, waits, event.at).declared(*declared));
            }
            What::BundleArrived { call, tool, part_of, position, waits } => {
                self.arrive(Bar::new(call, tool, part_of, position, waits, event.at).bundle());
            }
            What::CallWaits { call, waits } => self.mark(call, |bar| bar.waits = waits.to_vec()),
            What::ApprovalAsked { call, .. } => self.mark(call, |bar| bar.asked_at = bar.asked_at.or(Some(event.at))),
            What::ApprovalDecided { call, .. } => self.mark(call, |bar| bar.decided_at = Some(event.at)),
            What::CallReady { call, .. } => self.mark(call, |bar| bar.ready_at = Some(event.at)),
            What::CallLocked { call } => self.mark(call, |bar| bar.locked_at = Some(event.at)),
            What::AttemptStarted { call, .. } => self.mark(call, |bar| {
                bar.attempts.push(AttemptBar { started_at: event.at, ended_at: None, failed: false, backoff: None });
            }),
            // A failed attempt is gone before its call goes again, so the latest one is meant.
            What::AttemptEnded { call, error, .. } => self.mark(call, |bar| {
                if let Some(latest) = bar.attempts.last_mut() {
                    (latest.ended_at, latest.failed) = (Some(event.at), error.is_some());
                }
            }),
            What::CallBackoff { call, wait, .. } => self.mark(call, |bar| {
                if let Some(latest) = bar.attempts.last_mut() {
                    latest.backoff = Some((event.at, *wait));
                }
            }),
            What::CallEnded { outcome } | What::BundleEnded { outcome } => self.mark(&outcome.call, |bar| {
                bar.ended_at = Some(event.at);
                bar.error = outcome.error_code();
            }),
            What::TurnDiscarded { turn, .. } => {
                if let Some(at) = self.turns.iter().position(|other| other.number == *turn) {
                    self.turns[at].bars.clear();
                    self.places.retain(|_, (turn, _)| *turn != at);
                }
            }
            What::RunEnded { status, .. } => self.status = Some(status),
            What::RunStarted { .. }
            | What::RunResumed
            | What::Appended { .. }
            | What::ModelFailed { .. }
            | What::CallProgress { .. }
            | What::LimitPaused { .. }
            | What::BreakerOpened { .. }
            | What::StrayGivenUp { .. }
            | What::TurnEnded { .. } => {}
        }
    }

    /// The turns so far.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// The call; of several with one id, the latest.
    pub fn bar(&self, call: &CallId) -> Option<&Bar> {
        let (turn, bar) = self.places.get(call)?;
        self.turns.get(*turn)?.bars.get(*bar)
    }

    /// The final state, once there is one.
    pub fn status(&self) -> Option<&'static str> {
        self.status
    }

    /// The figures so far.
    pub fn figures(&self) -> Figures {
        let mut figures = Figures { elapsed: self.ended_at, ..Figures::default() };
        for turn in &self.turns {
            figures.one_by_one += turn.model_time() + turn.bars.iter().map(Bar::took).sum::<Duration>();
            figures.critical_path += turn.critical_path(&|_| true);
        }
        figures
    }

    /// What want of a declaration cost: per tool without one, how much shorter the critical path would have been without
    /// the conflicts that its inferred effects made. Dearest first.
    pub fn undeclared(&self) -> Vec<(ToolName, Duration)> {
        let mut costs: BTreeMap<ToolName, Duration> = BTreeMap::new();
        for turn in &self.turns {
            let with = turn.critical_path(&|_| true);
            let cost = with.saturating_sub(turn.critical_path(&|wait| !wait.undeclared));
            if cost.is_zero() {
                continue;
            }
            for tool in turn.undeclared_tools() {
                *costs.entry(tool).or_default() += cost;
            }
        }
        let mut costs: Vec<_> = costs.into_iter().collect();
        costs.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        costs
    }

    fn turn(&mut self, number: u32, at: Duration) {
        if self.turns.last().is_none_or(|last| last.number != number) {
            self.turns.push(Turn { number, asked_at: at, ..Turn::default() });
        }
    }

    fn arrive(&mut self, bar: Bar) {
        if self.turns.is_empty() {
            self.turn(0, bar.arrived_at);
        }
        let latest = self.turns.len().saturating_sub(1);
        let Some(turn) = self.turns.last_mut() else { return };
        self.places.insert(bar.call.clone(), (latest, turn.bars.len()));
        turn.bars.push(bar);
    }

    fn mark(&mut self, call: &CallId, mark: impl FnOnce(&mut Bar)) {
        if let Some((turn, bar)) = self.places.get(call)
            && let Some(bar) = self.turns.get_mut(*turn).and_then(|turn| turn.bars.get_mut(*bar))
        {
            mark(bar);
        }
    }
}

impl Turn {
    /// From the request to the whole response.
    pub fn model_time(&self) -> Duration {
        self.answered_at.map_or(Duration::ZERO, |at| at.saturating_sub(self.asked_at))
    }

    /// The bars in program order, each bundle behind its parts.
    pub fn in_order(&self) -> Vec<&Bar> {
        self.order().into_iter().map(|at| &self.bars[at]).collect()
    }

    /// The calls on the longest path through the batch, first to last. Bundles are not among them: they take no time.
    pub fn critical_calls(&self) -> Vec<&Bar> {
        let graph = Graph::of(self);
        let ends = graph.earliest_ends(&|_| true);
        let mut path = Vec::new();
        // Of several that end last it is the first in program order.
        let mut next = graph.order.iter().copied().rev().max_by_key(|at| ends[*at]);
        while let Some(at) = next {
            path.push(&self.bars[at]);
            let from = ends[at].saturating_sub(self.bars[at].took());
            next = graph.before(at, &|_| true).into_iter().find(|on| ends[*on] == from);
        }
        path.reverse();
        path.retain(|bar| !bar.is_bundle);
        path
    }

    /// The least time from the request to the last outcome, keeping those waits.
    fn critical_path(&self, keep: &dyn Fn(&Wait) -> bool) -> Duration {
        let last = Graph::of(self).earliest_ends(keep).into_iter().max().unwrap_or_default();
        last.max(self.answered_at.unwrap_or_default()).saturating_sub(self.asked_at)
    }

    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.bars.len()).collect();
        if self.bars.iter().any(|bar| bar.is_bundle) {
            order.sort_by(|a, b| self.bars[*a].position.cmp_closing(&self.bars[*b].position));
        }
        order
    }

    /// The tools without a declaration that made a conflict.
    fn undeclared_tools(&self) -> Vec<ToolName> {
        let mut tools = Vec::new();
        for bar in &self.bars {
            for wait in bar.waits.iter().filter(|wait| wait.undeclared && wait.why == Why::Conflict) {
                let other = self.bars.iter().find(|other| other.call == wait.on);
                tools.extend([Some(bar), other].into_iter().flatten().filter(|bar| !bar.declared).map(|bar| &bar.tool));
            }
        }
        tools.sort_unstable();
        tools.dedup();
        tools.into_iter().cloned().collect()
    }
}

/// What waits for what in one turn.
struct Graph<'t> {
    turn: &'t Turn,
    /// In program order, each bundle behind its parts.
    order: Vec<usize>,
    places: FxHashMap<&'t CallId, usize>,
    parts: FxHashMap<usize, Vec<usize>>,
}

impl<'t> Graph<'t> {
    fn of(turn: &'t Turn) -> Self {
        let places: FxHashMap<&CallId, usize> = turn.bars.iter().enumerate().map(|(at, bar)| (&bar.call, at)).collect();
        let mut parts: FxHashMap<usize, Vec<usize>> = FxHashMap::default();
        for (at, bar) in turn.bars.iter().enumerate() {
            if let Some(bundle) = bar.part_of.as_ref().and_then(|bundle| places.get(bundle)) {
                parts.entry(*bundle).or_default().push(at);
            }
        }
        Self { turn, order: turn.order(), places, parts }
    }

    /// When each call could have ended at the earliest: from the moment when it was known and allowed to run.
    fn earliest_ends(&self, keep: &dyn Fn(&Wait) -> bool) -> Vec<Duration> {
        let mut ends = vec![Duration::ZERO; self.turn.bars.len()];
        for at in &self.order {
            let bar = &self.turn.bars[*at];
            let answered_at = self.turn.answered_at;
            let early = match (bar.started_at(), answered_at) {
                (Some(started), Some(answered)) => started < answered,
                _ => false,
            };
            let known = match (early, answered_at) {
                (false, Some(answered)) => answered,
                _ => self.outermost(bar).arrived_at,
            };
            let after = self.before(*at, keep).into_iter().map(|on| ends[on]).max().unwrap_or_default();
            ends[*at] = known.max(after) + bar.took();
        }
        ends
    }

    /// What a bar is a part of, and that in its turn. One of a `for_each` could have been known as soon as what that refers to
    /// was there; when it came says nothing.
    fn outermost<'b>(&'b self, bar: &'b Bar) -> &'b Bar {
        let bundle = bar.part_of.as_ref().and_then(|bundle| self.places.get(bundle));
        bundle.map_or(bar, |bundle| self.outermost(&self.turn.bars[*bundle]))
    }

    /// The bars that the one at this place waited for: what it names and conflicts with; for a part also what its bundle
    /// to know, and for a bundle its parts.
    fn before(&self, at: usize, keep: &dyn Fn(&Wait) -> bool) -> Vec<usize> {
        let bar = &self.turn.bars[at];
        let of = |bar: &'t Bar, wanted: &dyn Fn(&Wait) -> bool| -> Vec<usize> {
            let waits = bar.waits.iter().filter(|wait| wanted(wait));
            waits.filter_map(|wait| self.places.get(&wait.on).copied()).collect()
        };
        // What a bundle conflicts with holds back its parts, as far as they do so themselves.
        let mut before = of(bar, &|wait| keep(wait) && !(bar.is_bundle && wait.why == Why::Conflict));
        if let Some(bundle) = bar.part_of.as_ref().and_then(|bundle| self.places.get(bundle)) {
            before.extend(of(&self.turn.bars[*bundle], &|wait| keep(wait) && wait.why != Why::Conflict));
        }
        before.extend(self.parts.get(&at).into_iter().flatten());
        before
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::outcome::{CallError, Outcome, Output};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// One call that fails at first: it arrives at 0, its attempts run as told, and it ends.
    fn story(events: &[(u64, What)], ended_at: u64, fails: bool) -> Timeline {
        let mut timeline = Timeline::default();
        let mut at = |ms_: u64, what: What| timeline.take(&Event { run: "r".into(), at: ms(ms_), what });
        let (tool, position) = ("t".into(), Position::block(0));
        let arrived = What::CallArrived {
            call: "c".into(),
            tool,
            part_of: None,
            position,
            declared: true,
            input: Arc::default(),
            waits: Arc::from([]),
        };
        at(0, arrived);
        at(0, What::CallReady { call: "c".into(), filled: None });
        for (ms, what) in events {
            at(*ms, what.clone());
        }
        let result =
            if fails { Err(CallError::new(ErrorCode::RateLimited, "no")) } else { Ok(Arc::new(Output::text("x"))) };
        let outcome = Outcome { call: "c".into(), part_of: None, result, shown: Vec::new().into(), attempts: 1 };
        at(ended_at, What::CallEnded { outcome: Arc::new(outcome) });
        timeline
    }

    fn started(number: u32) -> What {
        What::AttemptStarted { call: "c".into(), number }
    }

    fn failed(number: u32) -> What {
        What::AttemptEnded { call: "c".into(), number, error: Some("503".to_owned()) }
    }

    fn backoff(attempts: u32, wait: u64) -> What {
        What::CallBackoff { call: "c".into(), attempts, wait: ms(wait) }
    }

    /// What a call took, how long it backed off, and how long it waited for permits after its first attempt.
    #[track_caller]
    fn check(timeline: &Timeline, took: u64, backed_off: u64, waited_again: u64) {
        let bar = &timeline.turns()[0].bars[0];
        assert_eq!((bar.took(), bar.backed_off(), bar.waited_again()), (ms(took), ms(backed_off), ms(waited_again)));
        assert_eq!(timeline.figures().one_by_one, ms(took));
    }

    #[test]
    fn waits_for_permits_are_left_out_and_backoff_is_not() {
        // Waits 50 for its first permit, runs 100, backs off 200, waits 300 for its second permit, runs 100.
        let events = [(50, started(1)), (150, failed(1)), (150, backoff(1, 200)), (650, started(2))];
        check(&story(&events, 750, false), 100 + 200 + 100, 200, 300);
    }

    #[test]
    fn a_call_that_never_runs_took_nothing() {
        check(&story(&[], 60, true), 0, 0, 0);
    }

    #[test]
    fn a_call_that_ends_while_it_backs_off_or_waits_took_what_came_before_and_its_backoff() {
        let events = [(0, started(1)), (100, failed(1)), (100, backoff(1, 200))];
        check(&story(&events, 250, true), 250, 150, 0);
        check(&story(&events, 1_300, true), 300, 200, 1_000);
    }

    #[test]
    fn work_that_outlives_its_turn_is_gone_when_it_says_so() {
        let mut timeline = story(&[(0, started(1))], 100, true);
        let mut at = |ms_: u64, what: What| timeline.take(&Event { run: "r".into(), at: ms(ms_), what });
        at(150, What::TurnStarted { turn: 2 });
        at(400, failed(1));
        let attempt = timeline.turns()[0].bars[0].attempts[0];
        assert_eq!((attempt.ended_at, attempt.failed), (Some(ms(400)), true));
    }

    #[test]
    fn work_that_outlives_its_attempt_is_no_wait_for_a_permit() {
        // Its time is over at 100; it is gone at 400, long after the backoff.
        let events = [(0, started(1)), (100, backoff(1, 50)), (400, failed(1)), (430, started(2))];
        check(&story(&events, 500, false), 470, 300, 30);
    }
}
