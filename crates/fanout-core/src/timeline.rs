//! When everything happened, and what it would have taken otherwise.
//!
//! From the events of one run, in order. To whoever shows them: a waterfall, the closing figures, a dashboard.
//! Pure: the same events give the same picture, live or from a journal.

use std::collections::BTreeMap;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::call::{CallId, Position, ToolName};
use crate::event::{Event, Wait, What, Why};
use crate::outcome::ErrorCode;

/// One run as it was.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    turns: Vec<Turn>,
    /// Where each call of the present turn stands.
    places: FxHashMap<CallId, usize>,
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
    /// Its place in program order.
    pub position: Position,
    /// Whether what it writes is declared.
    pub declared: bool,
    /// What it waited for in its batch.
    pub waits: Vec<Wait>,
    /// When it arrived.
    pub arrived_at: Duration,
    /// When nothing in its batch held it back any longer.
    pub ready_at: Option<Duration>,
    /// When it held its locks.
    pub locked_at: Option<Duration>,
    /// When its first attempt began.
    pub started_at: Option<Duration>,
    /// When it had its outcome.
    pub ended_at: Option<Duration>,
    /// Why it failed, if it did.
    pub error: Option<ErrorCode>,
}

impl Bar {
    /// From the first permit to the outcome; nothing for a call that never ran.
    pub fn took(&self) -> Duration {
        match (self.started_at, self.ended_at) {
            (Some(start), Some(end)) => end.saturating_sub(start),
            _ => Duration::ZERO,
        }
    }
}

/// The closing figures of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// From start to end.
    pub elapsed: Duration,
    /// The model's time and each call's time from its first permit to its outcome, one after another.
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
            What::ModelEnded { turn, .. } => {
                if let Some(turn) = self.turns.iter_mut().find(|other| other.number == *turn) {
                    turn.answered_at = Some(event.at);
                }
            }
            What::CallArrived { call, tool, position, declared, waits } => {
                if self.turns.is_empty() {
                    self.turn(0, event.at);
                }
                self.arrive(call, tool, position, *declared, waits, event.at);
            }
            What::CallReady { call } => self.mark(call, |bar| bar.ready_at = Some(event.at)),
            What::CallLocked { call } => self.mark(call, |bar| bar.locked_at = Some(event.at)),
            What::AttemptStarted { call, .. } => self.mark(call, |bar| {
                bar.started_at.get_or_insert(event.at);
            }),
            What::CallEnded { outcome } => self.mark(&outcome.call, |bar| {
                bar.ended_at = Some(event.at);
                bar.error = outcome.error_code();
            }),
            What::TurnDiscarded { turn, .. } => {
                if let Some(turn) = self.turns.iter_mut().find(|other| other.number == *turn) {
                    turn.bars.clear();
                }
                self.places.clear();
            }
            What::RunEnded { status, .. } => self.status = Some(status),
            What::RunStarted
            | What::ModelFailed { .. }
            | What::CallNarrowed { .. }
            | What::AttemptEnded { .. }
            | What::CallBackoff { .. }
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

    /// The call of the present turn.
    pub fn bar(&self, call: &CallId) -> Option<&Bar> {
        let place = self.places.get(call)?;
        self.turns.last()?.bars.get(*place)
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
        self.places.clear();
        if self.turns.last().is_none_or(|last| last.number != number) {
            self.turns.push(Turn { number, asked_at: at, ..Turn::default() });
        }
    }

    fn arrive(
        &mut self,
        call: &CallId,
        tool: &ToolName,
        position: &Position,
        declared: bool,
        waits: &[Wait],
        at: Duration,
    ) {
        let Some(turn) = self.turns.last_mut() else { return };
        self.places.insert(call.clone(), turn.bars.len());
        turn.bars.push(Bar {
            call: call.clone(),
            tool: tool.clone(),
            position: position.clone(),
            declared,
            waits: waits.to_vec(),
            arrived_at: at,
            ready_at: None,
            locked_at: None,
            started_at: None,
            ended_at: None,
            error: None,
        });
    }

    fn mark(&mut self, call: &CallId, mark: impl FnOnce(&mut Bar)) {
        if let Some(place) = self.places.get(call)
            && let Some(bar) = self.turns.last_mut().and_then(|turn| turn.bars.get_mut(*place))
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

    /// The calls on the longest path through the batch, first to last.
    pub fn critical_calls(&self) -> Vec<&Bar> {
        let ends = self.earliest_ends(&|_| true);
        let mut path = Vec::new();
        let latest = (0..self.bars.len()).rev().max_by_key(|at| ends[*at]);
        let mut next = latest;
        while let Some(at) = next {
            path.push(&self.bars[at]);
            let from = ends[at].saturating_sub(self.bars[at].took());
            next = self.waits_of(at, &|_| true).find(|on| ends[*on] == from);
        }
        path.reverse();
        path
    }

    /// The least time from the request to the last outcome, keeping those waits.
    fn critical_path(&self, keep: &dyn Fn(&Wait) -> bool) -> Duration {
        let last = self.earliest_ends(keep).into_iter().max().unwrap_or_default();
        last.max(self.answered_at.unwrap_or_default()).saturating_sub(self.asked_at)
    }

    /// When each call could have ended at the earliest: from the moment when it was known and allowed to run.
    fn earliest_ends(&self, keep: &dyn Fn(&Wait) -> bool) -> Vec<Duration> {
        let mut ends: Vec<Duration> = Vec::with_capacity(self.bars.len());
        for (at, bar) in self.bars.iter().enumerate() {
            let early = match (bar.started_at, self.answered_at) {
                (Some(started), Some(answered)) => started < answered,
                _ => false,
            };
            let known = if early { bar.arrived_at } else { self.answered_at.unwrap_or(bar.arrived_at) };
            let after = self.waits_of(at, keep).map(|on| ends[on]).max().unwrap_or_default();
            ends.push(known.max(after) + bar.took());
        }
        ends
    }

    /// The earlier calls of the batch that the call at this place waited for.
    fn waits_of<'a>(&'a self, at: usize, keep: &'a dyn Fn(&Wait) -> bool) -> impl Iterator<Item = usize> + 'a {
        let waits = self.bars[at].waits.iter().filter(move |wait| keep(wait));
        waits.filter_map(move |wait| self.bars[..at].iter().position(|other| other.call == wait.on))
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
