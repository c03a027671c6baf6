//! What one run is to do: its turns, their calls, and every mishap, all from a seed.
//!
//! To [`stage`](crate::stage), which plays it, and to [`foretell`](crate::foretell), which says what must come of it.
//! Times are virtual, counted from the opening of the turn, and random to the nanosecond, so that two things happen at
//! one moment only where one causes the other.

use std::time::Duration;

use crate::seed::Rng;
use crate::touches::Touches;

/// One run.
#[derive(Clone, Debug)]
pub struct Script {
    /// Who began it.
    pub caller: u8,
    /// When its first turn opens.
    pub opens: Duration,
    /// Its turns; the next opens as soon as every call of the last is answered.
    pub turns: Vec<Turn>,
}

/// One turn.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Its calls in program order.
    pub calls: Vec<Planned>,
    /// When the response ends, after its last call arrived.
    pub commits: Duration,
    /// When the turn is cancelled, if that happens before it ends.
    pub cancels: Option<Duration>,
    /// The response broke off: when it would have ended, its outcomes are thrown away.
    pub discarded: bool,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Planned {
    /// What it touches.
    pub touches: Touches,
    /// What it is known to touch before its references are filled; `None`: all is known from the start.
    pub wide: Option<Touches>,
    /// The earlier calls that it names.
    pub needs: Vec<(usize, Needs)>,
    /// When it arrives.
    pub arrives: Duration,
    /// How long its attempt takes, if it may.
    pub takes: Duration,
    /// How long its work goes on after it answered or was stopped.
    pub lingers: Duration,
    /// How its attempt ends.
    pub fate: Fate,
    /// The longest attempt.
    pub timeout: Duration,
    /// The longest time from entering the locks.
    pub deadline: Duration,
    /// Running it again does no harm.
    pub repeatable: bool,
    /// It takes no locks and no permits.
    pub nested: bool,
}

/// What an earlier call is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Its output.
    Output,
    /// Its good end.
    Success,
    /// Its end.
    Order,
}

/// How a call ends if it gets that far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// With an output.
    Well,
    /// With an output that calls itself an error.
    SaysError,
    /// With the tool's error.
    Fails,
    /// With a panic.
    Panics,
    /// It is refused on arrival: an unknown tool, a bad input.
    Refused,
    /// Its references point at nothing.
    Unresolved,
}

/// What a generated script may hold.
#[derive(Clone, Copy, Debug)]
pub struct Flavour {
    /// The most turns.
    pub turns: usize,
    /// The most calls a turn.
    pub calls: usize,
    /// Failures, time-outs, strays, cancellations: in so many calls of a hundred.
    pub mishaps: usize,
    /// References and declared order: in so many calls of a hundred.
    pub links: usize,
}

impl Planned {
    /// A call that touches this, takes so long, ends well and names nobody.
    pub fn plain(touches: Touches, takes: Duration) -> Self {
        Self {
            touches,
            wide: None,
            needs: Vec::new(),
            arrives: Duration::ZERO,
            takes,
            lingers: Duration::ZERO,
            fate: Fate::Well,
            timeout: Duration::from_secs(30),
            deadline: Duration::from_secs(120),
            repeatable: false,
            nested: false,
        }
    }

    /// Whether it may enter while the response still streams.
    pub fn early(&self) -> bool {
        self.repeatable && self.wide.as_ref().unwrap_or(&self.touches).only_reads()
    }

    fn random(rng: &mut Rng, at: usize, flavour: Flavour) -> Self {
        let mut call = Self::plain(Touches::random(rng), millis(rng, 10, 400));
        call.repeatable = rng.percent(50);
        call.nested = rng.percent(3);
        if at > 0 && rng.percent(flavour.links) {
            for _ in 0..=rng.below(2) {
                let kind = *rng.pick(&[Needs::Output, Needs::Output, Needs::Success, Needs::Order]);
                call.needs.push((rng.below(at), kind));
            }
            if call.needs.iter().any(|(_, kind)| *kind == Needs::Output) {
                call.wide = Some(call.touches.widened(rng));
            }
        }
        if rng.percent(flavour.mishaps) {
            call.fate = *rng.pick(&[Fate::SaysError, Fate::Fails, Fate::Panics, Fate::Refused]);
        }
        if call.wide.is_some() && rng.percent(flavour.mishaps) {
            call.fate = Fate::Unresolved;
        }
        if rng.percent(flavour.mishaps) {
            call.timeout = millis(rng, 5, 300);
        }
        if rng.percent(flavour.mishaps) {
            call.deadline = millis(rng, 5, 500);
        }
        if rng.percent(flavour.mishaps) {
            call.lingers = millis(rng, 1, 900);
        }
        if call.fate == Fate::Refused {
            (call.touches, call.wide) = (Touches::nothing(), None);
        }
        call
    }
}

impl Script {
    /// A run of random turns.
    pub fn random(rng: &mut Rng, flavour: Flavour) -> Self {
        let turns = (0..=rng.below(flavour.turns)).map(|_| Turn::random(rng, flavour)).collect();
        Self { caller: rng.below(3) as u8, opens: millis(rng, 0, 200), turns }
    }
}

impl Turn {
    /// A turn of these calls, all there at once.
    pub fn of(calls: Vec<Planned>) -> Self {
        Self { calls, commits: Duration::ZERO, cancels: None, discarded: false }
    }

    fn random(rng: &mut Rng, flavour: Flavour) -> Self {
        let len = 1 + rng.below(flavour.calls);
        let mut calls: Vec<Planned> = (0..len).map(|at| Planned::random(rng, at, flavour)).collect();
        let mut now = Duration::ZERO;
        if rng.percent(60) {
            for call in &mut calls {
                now += millis(rng, 0, 80);
                call.arrives = now;
            }
        }
        let commits = now + millis(rng, 0, 100);
        let cancels = rng.percent(flavour.mishaps).then(|| millis(rng, 1, 900));
        Self { calls, commits, cancels, discarded: cancels.is_none() && rng.percent(flavour.mishaps / 3) }
    }
}

/// A time between so many milliseconds, random to the nanosecond.
fn millis(rng: &mut Rng, from: u64, to: u64) -> Duration {
    Duration::from_nanos(from * 1_000_000 + rng.below(((to - from) * 1_000_000) as usize) as u64)
}
