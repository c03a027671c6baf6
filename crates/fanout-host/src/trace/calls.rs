//! The calls of a run as slices: where each is drawn, and what its time was made of.
//!
//! From the bars of a timeline. To [`entry`](super::entry). A call's slice holds those of its parts, one after another without a gap or
//! an overlap: what it waited for, its attempts, its backoffs. What went on after its end stands behind it in its track.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::time::Duration;

use fanout_core::call::CallId;
use fanout_core::event::{Wait, outcome_word};
use fanout_core::timeline::{Bar, Turn};
use serde_json::{Value, json};

use super::entry::{End, Lane, Process, micros};

/// Inside a slice, at its end: what stands at the end itself is outside.
const JUST_BEFORE: Duration = Duration::from_nanos(1);

/// The calls of a run, each in its track.
pub(super) struct Calls<'t> {
    placed: Vec<Placed<'t>>,
    lanes: usize,
}

/// A call and where it is drawn.
struct Placed<'t> {
    bar: &'t Bar,
    turn: &'t Turn,
    lane: Lane,
    /// The end of its slice; for a call that has not ended, that of the run so far.
    until: Duration,
    /// When the last of its work was gone.
    gone_at: Duration,
}

impl<'t> Calls<'t> {
    /// Each call gets the first track that is free from its arrival until the last of its work is gone.
    pub(super) fn of(turns: &'t [Turn], given_up: &HashMap<CallId, Duration>, end: Duration) -> Self {
        let bars = turns.iter().flat_map(|turn| turn.bars.iter().map(move |bar| (bar, turn)));
        let mut placed: Vec<Placed<'t>> = bars
            .map(|(bar, turn)| {
                let until = bar.ended_at.unwrap_or(end).max(bar.arrived_at);
                let gone = bar.attempts.iter().filter_map(|attempt| attempt.ended_at);
                let gone_at = gone.chain(given_up.get(&bar.call).copied()).max().unwrap_or(until).max(until);
                Placed { bar, turn, lane: Lane::MODEL, until, gone_at }
            })
            .collect();
        placed.sort_by_key(|call| call.bar.arrived_at);
        let (mut free, mut busy, mut lanes) = (BTreeSet::new(), BinaryHeap::new(), 0);
        for call in &mut placed {
            while let Some(Reverse((until, lane))) = busy.peek().copied()
                && until <= call.bar.arrived_at
            {
                busy.pop();
                free.insert(lane);
            }
            let lane = free.pop_first().unwrap_or_else(|| {
                lanes += 1;
                lanes - 1
            });
            busy.push(Reverse((call.gone_at, lane)));
            call.lane = Lane::of_calls(lane);
        }
        Self { placed, lanes }
    }

    pub(super) fn draw(&self, process: &mut Process<'_>) {
        for lane in 0..self.lanes {
            process.lane(Lane::of_calls(lane), &format!("calls {}", lane + 1));
        }
        // The turn is a part of the name: an API may give an id again in another one.
        let places: HashMap<(u32, &CallId), &Placed<'_>> =
            self.placed.iter().map(|call| ((call.turn.number, &call.bar.call), call)).collect();
        for call in &self.placed {
            call.draw(process);
            for wait in call.bar.waits.iter() {
                if let Some(cause) = places.get(&(call.turn.number, &wait.on)) {
                    arrow(process, cause, call, wait);
                }
            }
        }
    }
}

impl Placed<'_> {
    fn draw(&self, process: &mut Process<'_>) {
        let bar = self.bar;
        let kind = if bar.is_bundle { "bundle" } else { "call" };
        process.slice(self.lane, kind, bar.tool.as_str(), bar.arrived_at, self.until, &self.args());
        if bar.is_bundle {
            return;
        }
        let mut pieces = Pieces { call: self, process, at: bar.arrived_at };
        pieces.waits();
        pieces.attempts();
        if self.gone_at > self.until {
            process.slice(self.lane, "stray", "stray", self.until, self.gone_at, &json!({ "call": bar.call.as_str() }));
        }
    }

    fn args(&self) -> Value {
        let bar = self.bar;
        let waits: Vec<Value> = bar.waits.iter().map(crate::explain::wait_json).collect();
        let outcome = bar.ended_at.map(|_| outcome_word(bar.error));
        json!({
            "call": bar.call.as_str(), "tool": bar.tool.as_str(), "turn": self.turn.number,
            "position": bar.position.to_string(), "part_of": bar.part_of.as_ref().map(CallId::as_str),
            "outcome": outcome, "attempts": bar.attempts.len(), "declared": bar.declared, "waits": waits,
            "took_us": micros(bar.took()),
        })
    }
}

/// Draws the parts of a call's slice from left to right. Whatever the events say, none leaves the slice or overlaps another.
struct Pieces<'p, 't, 'e> {
    call: &'p Placed<'t>,
    process: &'p mut Process<'e>,
    /// Until where it is drawn.
    at: Duration,
}

impl Pieces<'_, '_, '_> {
    /// What it waited for before its first attempt: the response, its batch, people, its locks, its permits.
    fn waits(&mut self) {
        let bar = self.call.bar;
        let ready = bar.ready_at;
        // One that may enter early does not wait for the response.
        let answered = self.call.turn.answered_at.filter(|answered| ready.is_none_or(|ready| *answered <= ready));
        if let Some(answered) = answered {
            self.wait("response", Some(answered));
        }
        if let (Some(asked), Some(decided)) = (bar.asked_at, bar.decided_at.or(bar.ended_at)) {
            // People are asked beside its other waits.
            self.wait("batch", Some(asked));
            self.wait("approval", Some(decided));
        }
        self.wait("batch", ready);
        if ready.is_some() && bar.locked_at.is_some() {
            self.wait("lock", bar.locked_at);
        }
        if bar.attempts.is_empty() && bar.queued_at().is_none() {
            return;
        }
        self.wait("permit", bar.started_at());
    }

    /// A wait until then; until the end, if nothing ended it.
    fn wait(&mut self, what: &str, until: Option<Duration>) {
        self.piece("wait", what, until.unwrap_or(self.call.until), &json!({}));
    }

    fn attempts(&mut self) {
        let bar = self.call.bar;
        for (at, attempt) in bar.attempts.iter().enumerate() {
            let answered = attempt.backoff.map(|(from, _)| from).or(attempt.ended_at);
            let outcome = match (bar.attempts.len() == at + 1, attempt.failed || attempt.backoff.is_some()) {
                (_, true) => Some("failed"),
                (true, false) => bar.ended_at.map(|_| outcome_word(bar.error)),
                (false, false) => None,
            };
            let args = json!({ "call": bar.call.as_str(), "attempt": at + 1, "outcome": outcome });
            self.piece("attempt", &format!("attempt {}", at + 1), answered.unwrap_or(self.call.until), &args);
            if let Some((from, wait)) = attempt.backoff {
                let asked_again = attempt.ended_at.unwrap_or(self.call.until).max(from.saturating_add(wait));
                self.piece("wait", "backoff", asked_again, &json!({ "wait_us": micros(wait) }));
                let next = bar.attempts.get(at + 1).map(|next| next.started_at);
                self.wait("permit", next);
            }
        }
    }

    fn piece(&mut self, kind: &str, name: &str, until: Duration, args: &Value) {
        let until = until.min(self.call.until);
        if until > self.at {
            self.process.slice(self.call.lane, kind, name, self.at, until, args);
            self.at = until;
        } else if kind == "attempt" {
            // An attempt that took no time is one all the same.
            self.process.slice(self.call.lane, kind, name, self.at, self.at, args);
        }
    }
}

/// From the end of what was waited for to the end of the wait.
fn arrow(process: &mut Process<'_>, cause: &Placed<'_>, call: &Placed<'_>, wait: &Wait) {
    let last = |placed: &Placed<'_>| placed.until.saturating_sub(JUST_BEFORE).max(placed.bar.arrived_at);
    let to = call.bar.ready_at.unwrap_or(call.until).min(last(call)).max(call.bar.arrived_at);
    // One that left before what it waited for ended has its arrow from the middle of that.
    let from = last(cause).min(to);
    let args = crate::explain::wait_json(wait);
    process.arrow(wait.why.as_str(), End { lane: cause.lane, at: from }, End { lane: call.lane, at: to }, &args);
}
