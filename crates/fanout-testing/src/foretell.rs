//! What must come of a run that nobody disturbs: when each call starts, is answered and is gone, and with what.
//!
//! From [`script`](crate::script), for one run alone with permits enough. To tests, which hold it against the stage's log
//! and the real driver. All waits point backward, so one pass in program order knows everything: a call starts at the
//! latest end of what it waits for, and not a nanosecond later.

use std::time::Duration;

use crate::script::{Fate, Needs, Planned, Script, Turn};
use crate::touches::Touches;

/// What must become of one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Foretold {
    /// When its attempt starts, if ever.
    pub started: Option<Duration>,
    /// When it is answered.
    pub answered: Duration,
    /// With what: `ok`, `error` or a code.
    pub word: &'static str,
    /// When nothing of it is left, so that whoever clashes with it goes on.
    pub gone: Duration,
    /// When its keys were final; never, for one whose references were not filled.
    known: Duration,
    /// Until when its work holds back the next turn; nothing, for one that never ran.
    stray_until: Duration,
}

/// Never.
const NEVER: Duration = Duration::MAX;

/// The outcomes of every turn, and the moment each turn ends.
pub fn foretell(script: &Script, stray_hold: Duration) -> Vec<(Vec<Foretold>, Duration)> {
    let mut opens = script.opens;
    let mut strays: Vec<(Touches, Duration)> = Vec::new();
    let mut turns = Vec::new();
    for turn in &script.turns {
        let told = foretell_turn(turn, opens, &strays, stray_hold);
        let commits = opens + turn.commits + Duration::from_nanos(1);
        let closes = told.iter().map(|call| call.answered).max().unwrap_or_default().max(commits);
        let left = turn.calls.iter().zip(&told).filter(|(_, told)| told.stray_until > closes);
        let own = left.map(|(call, told)| (call.touches.clone(), told.stray_until));
        strays.retain(|(_, until)| *until > closes);
        strays.extend(own);
        turns.push((told, closes));
        opens = closes;
    }
    turns
}

fn foretell_turn(turn: &Turn, opens: Duration, strays: &[(Touches, Duration)], stray_hold: Duration) -> Vec<Foretold> {
    let commits = opens + turn.commits + Duration::from_nanos(1);
    let broken_off = if turn.discarded { commits } else { NEVER };
    let stops = turn.cancels.map_or(NEVER, |at| opens + at).min(broken_off);
    let mut told: Vec<Foretold> = Vec::new();
    for call in &turn.calls {
        let arrives = opens + call.arrives;
        let next = if arrives > stops {
            never_ran("cancelled", arrives, arrives)
        } else if call.fate == Fate::Refused {
            never_ran("invalid_input", arrives, arrives)
        } else {
            let held = held_back(call, arrives, &turn.calls, &told, strays);
            foretell_call(call, &held, arrives, commits, stops, stray_hold)
        };
        told.push(next);
    }
    told
}

/// What holds a call back.
struct Held {
    /// When the calls that it names are answered.
    named: Duration,
    /// When a call that it needs failed, if one does.
    skipped: Option<Duration>,
    /// When its keys are final.
    known: Duration,
    /// When everything that clashes with its final keys is gone.
    clashes: Duration,
    /// The same for the keys as they were before they were known.
    clashes_wide: Duration,
}

fn held_back(
    call: &Planned,
    arrives: Duration,
    calls: &[Planned],
    told: &[Foretold],
    strays: &[(Touches, Duration)],
) -> Held {
    let mut held = Held { named: arrives, skipped: None, known: arrives, clashes: arrives, clashes_wide: arrives };
    for (on, needs) in &call.needs {
        let earlier = &told[*on];
        held.named = held.named.max(earlier.answered);
        // Its references are filled once nothing that it needs can fail any more.
        if *needs != Needs::Order {
            held.known = held.known.max(earlier.answered);
        }
        if *needs != Needs::Order && earlier.word != "ok" {
            let at = earlier.answered.max(arrives);
            held.skipped = Some(held.skipped.map_or(at, |first: Duration| first.min(at)));
        }
    }
    let wide = call.wide.as_ref().unwrap_or(&call.touches);
    for (earlier, told) in calls.iter().zip(told) {
        let earlier_wide = earlier.wide.as_ref().unwrap_or(&earlier.touches);
        let until = |mine: &Touches| {
            if earlier.touches.clash(mine) {
                told.gone
            } else if earlier_wide.clash(mine) {
                told.gone.min(told.known)
            } else {
                Duration::ZERO
            }
        };
        held.clashes = held.clashes.max(until(&call.touches));
        held.clashes_wide = held.clashes_wide.max(until(wide));
    }
    for (touches, until) in strays {
        if touches.clash(&call.touches) {
            held.clashes = held.clashes.max(*until);
        }
        if touches.clash(wide) {
            held.clashes_wide = held.clashes_wide.max(*until);
        }
    }
    held
}

fn foretell_call(
    call: &Planned,
    held: &Held,
    arrives: Duration,
    commits: Duration,
    stops: Duration,
    stray_hold: Duration,
) -> Foretold {
    // One that never runs stands for those before it until its own waits are over, by the keys that were known then.
    let bypassed = |word, at: Duration, known: bool| {
        let waits = if known { held.clashes } else { held.clashes_wide }.max(held.named);
        Foretold { known: if known { held.known } else { NEVER }, ..never_ran(word, at, waits) }
    };
    let skipped = held.skipped.unwrap_or(NEVER);
    if call.fate == Fate::Unresolved && call.wide.is_some() && held.known < stops && held.known < skipped {
        return bypassed("unresolved_reference", held.known, false);
    }
    if skipped < stops {
        return bypassed("skipped", skipped, held.known < skipped);
    }
    let gate = if call.early() { arrives } else { commits };
    let starts = gate.max(held.named).max(held.clashes);
    if starts >= stops {
        return bypassed("cancelled", stops, held.known < stops);
    }
    let (takes, limit) = (call.takes, call.timeout.min(call.deadline));
    let (ends, in_time) = (starts + takes.min(limit), takes <= limit);
    let (answered, word) = if ends > stops {
        (stops, if call.repeatable { "cancelled" } else { "outcome_unknown" })
    } else if !in_time {
        (ends, if call.repeatable { "timeout" } else { "outcome_unknown" })
    } else {
        let word = match call.fate {
            Fate::Well => "ok",
            Fate::SaysError => "error",
            Fate::Panics => "internal",
            Fate::Fails | Fate::Refused | Fate::Unresolved => "upstream",
        };
        (ends, word)
    };
    let gone = answered + call.lingers.min(stray_hold);
    Foretold { started: Some(starts), answered, word, gone, known: held.known, stray_until: gone }
}

fn never_ran(word: &'static str, answered: Duration, waits: Duration) -> Foretold {
    let gone = answered.max(waits);
    Foretold { started: None, answered, word, gone, known: NEVER, stray_until: Duration::ZERO }
}
