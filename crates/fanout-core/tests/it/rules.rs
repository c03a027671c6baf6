//! The rules on virtual time, over the pure parts: one outcome each, exclusion, order, no barrier, nothing leaked.
//!
//! One run alone with permits enough must do what [`foretell`] says, to the nanosecond. Many runs that share locks and
//! few permits are held against what may never be and what must have been.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fanout_core::event::Why;
use fanout_core::limits::NO_GROUP;
use fanout_core::schedule::{Limit, Schedule, ScheduleOptions, Terms, Treatment};
use fanout_testing::foretell::foretell;
use fanout_testing::script::{Flavour, Needs, Planned, Script, Turn};
use fanout_testing::seed::{Rng, each_seed};
use fanout_testing::stage::{Entered, Id, Log, play};
use fanout_testing::touches::Touches;

const STRAY_HOLD: Duration = Duration::from_millis(500);
const MANY: usize = 1_000_000;

#[track_caller]
fn check_alone(script: &Script, order: Rng) {
    let log = play(std::slice::from_ref(script), MANY, STRAY_HOLD, order);
    for (turn, (told, closes)) in foretell(script, STRAY_HOLD).into_iter().enumerate() {
        for (at, told) in told.iter().enumerate() {
            let played = &log.calls[&(0, turn, at)];
            let story =
                || format!("call {turn}.{at}\ntold {told:#?}\nplayed {played:#?}\nturn {:#?}", script.turns[turn]);
            assert_eq!(played.answers, [(told.answered, told.word)], "{}", story());
            assert_eq!(played.started, Vec::from_iter(told.started), "{}", story());
            if told.started.is_some() {
                assert_eq!(played.released, Some(told.gone), "{}", story());
            }
        }
        assert_eq!(log.turns[&(0, turn)].1, Some(closes), "turn {turn} of {script:#?}");
    }
    assert_eq!(log.leaked, 0);
}

#[test]
fn a_turn_takes_its_critical_path_and_nothing_more() {
    each_seed(200, |seed| {
        let mut rng = Rng::new(seed);
        let flavour = Flavour { turns: 1, calls: 14, mishaps: 0, links: 30 };
        check_alone(&Script::random(&mut rng, flavour), rng);
    });
}

#[test]
fn every_call_ends_when_and_how_the_rules_say_whatever_happens() {
    each_seed(300, |seed| {
        let mut rng = Rng::new(seed);
        let flavour = Flavour { turns: 3, calls: 12, mishaps: 15, links: 35 };
        check_alone(&Script::random(&mut rng, flavour), rng);
    });
}

#[test]
fn runs_that_share_locks_and_permits_never_break_a_rule() {
    each_seed(100, |seed| {
        let mut rng = Rng::new(seed);
        let flavour = Flavour { turns: 3, calls: 8, mishaps: rng.below(20), links: 25 };
        let scripts: Vec<Script> = (0..2 + rng.below(5)).map(|_| Script::random(&mut rng, flavour)).collect();
        let permits = if rng.percent(50) { 1 + rng.below(6) } else { MANY };
        let log = play(&scripts, permits, STRAY_HOLD, rng);
        assert!(log.peak <= permits, "{} permits were out of {permits}", log.peak);
        assert_eq!(log.leaked, 0, "places and permits that nobody gave back");
        judge_outcomes(&scripts, &log);
        judge_exclusion(&scripts, &log);
        judge_sequence(&log);
        judge_order(&scripts, &log);
    });
}

fn plan(scripts: &[Script], (run, turn, at): Id) -> &Planned {
    &scripts[run].turns[turn].calls[at]
}

/// Rules 1 and 7: one outcome each, at most one start each. Rule 6: nothing enters early that may not.
fn judge_outcomes(scripts: &[Script], log: &Log) {
    for (run, script) in scripts.iter().enumerate() {
        for (turn, of) in script.turns.iter().enumerate() {
            let opened = log.turns[&(run, turn)].0;
            for (at, call) in of.calls.iter().enumerate() {
                let played = &log.calls[&(run, turn, at)];
                assert_eq!(played.answers.len(), 1, "{:?}: {played:?}", (run, turn, at));
                assert!(played.started.len() <= 1, "sent twice: {played:?}");
                let (answered, word) = played.answers[0];
                let Some(started) = played.started.first() else {
                    assert_ne!(word, "outcome_unknown", "never sent: {played:?}");
                    continue;
                };
                let before = *started < opened + of.commits;
                assert!(call.early() || !before, "started before the response ended: {call:?}");
                assert!(answered - *started <= call.timeout.min(call.deadline), "late: {played:?} of {call:?}");
                assert!(played.waits.iter().all(|(on, _)| on.is_none_or(|on| on < at)), "{played:?}");
            }
        }
    }
}

/// Rule 2: whoever clashes is never at work at the same time, strays included for as long as they may hold on.
fn judge_exclusion(scripts: &[Script], log: &Log) {
    let worked: Vec<(Id, Duration, Duration)> =
        log.calls.iter().filter_map(|(id, played)| Some((*id, *played.started.first()?, played.released?))).collect();
    for (at, (id, start, end)) in worked.iter().enumerate() {
        for (other, other_start, other_end) in &worked[at + 1..] {
            let (mine, theirs) = (plan(scripts, *id), plan(scripts, *other));
            let clash = if id.0 == other.0 {
                mine.touches.clash(&theirs.touches)
            } else if mine.nested || theirs.nested {
                false
            } else {
                mine.touches.between_runs().clash(&theirs.touches.between_runs())
            };
            let apart = end <= other_start || other_end <= start;
            assert!(apart || !clash, "{id:?} and {other:?} work at once: {mine:#?} {theirs:#?}");
            // In one run the earlier one goes first.
            assert!(!clash || id.0 != other.0 || end <= other_start, "{other:?} overtook {id:?}");
        }
    }
}

/// Rule 2: first in, first out. A place is held at the very moment when the last earlier place that clashes is left.
fn judge_sequence(log: &Log) {
    let mut clear: Vec<Duration> = Vec::new();
    for (at, entry) in log.entered.iter().enumerate() {
        let before =
            |(earlier, cleared): (&Entered, &Duration)| earlier.touches.clash(&entry.touches).then_some(*cleared);
        let free = log.entered[..at].iter().zip(&clear).filter_map(before).max().unwrap_or_default().max(entry.at);
        let left = entry.left.expect("a place that nobody left");
        match entry.held {
            Some(held) => assert_eq!(held, free, "{entry:?}"),
            None => assert!(left <= free, "{entry:?} was free at {free:?} and never held"),
        }
        // One that was left before it was held still stands for those before it.
        clear.push(left.max(free));
    }
}

/// Between runs, results equal some one-by-one order: who came before whom has no cycle.
fn judge_order(scripts: &[Script], log: &Log) {
    let mut worked: Vec<(Duration, Duration, Id)> =
        log.calls.iter().filter_map(|(id, played)| Some((*played.started.first()?, played.released?, *id))).collect();
    worked.sort_unstable();
    let mut order: BTreeMap<Id, usize> = BTreeMap::new();
    for (at, (_, _, id)) in worked.iter().enumerate() {
        order.insert(*id, at);
    }
    for (id, place) in &order {
        for (on, why) in &log.calls[id].waits {
            let Some(on) = on.map(|on| (id.0, id.1, on)) else { continue };
            if *why == Why::Conflict && plan(scripts, on).touches.clash(&plan(scripts, *id).touches) {
                assert!(order.get(&on).is_none_or(|earlier| earlier < place), "{id:?} ran before {on:?}");
            }
        }
    }
}

fn at_most(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn what_never_ran_is_not_started_by_a_cancellation() {
    // The nested call waits for the plain one only; ending that one must not let it go.
    let plain = Planned::plain(Touches::nothing(), at_most(100));
    let nested = Planned { nested: true, needs: vec![(0, Needs::Order)], ..plain.clone() };
    let turn = Turn { cancels: Some(at_most(50)), ..Turn::of(vec![plain, nested]) };
    let script = Script { caller: 0, opens: Duration::ZERO, turns: vec![turn] };
    let log = play(&[script], MANY, STRAY_HOLD, Rng::new(0));
    assert_eq!(log.calls[&(0, 0, 1)].started, []);
    assert_eq!(log.calls[&(0, 0, 1)].answers, [(at_most(50), "cancelled")]);
}

#[test]
fn a_call_whose_deadline_passed_before_its_permit_came_is_never_sent() {
    let mut schedule = Schedule::new(ScheduleOptions { stray_hold: STRAY_HOLD, seed: 0 });
    for deadline in [50, 500] {
        let mut treatment =
            Treatment::inert(format!("within {deadline}").into(), "tool".into(), Arc::new(Limit::none()));
        let (timeout, deadline) = (at_most(1000), at_most(deadline));
        treatment.terms = Arc::new(Terms { timeout, deadline, ..(*treatment.terms).clone() });
        schedule.arrive(treatment, Touches::nothing().effects(), true, Vec::new(), Duration::ZERO);
    }
    schedule.commit(Duration::ZERO);
    (0..2).for_each(|call| schedule.locked(call, Duration::ZERO));
    while schedule.next_step().is_some() {}
    // One permit comes for two calls, at the very moment when the first has to give up: the second has it.
    assert!(schedule.permitted(NO_GROUP, at_most(50)));
    let steps: Vec<String> = std::iter::from_fn(|| schedule.next_step()).map(|step| format!("{step:?}")).collect();
    let heads: Vec<&str> =
        steps.iter().map(|step| step.split([',', '(', '{']).next().unwrap_or_default().trim()).collect();
    assert_eq!(heads, ["WithdrawPermit", "Answer", "Start"], "{steps:?}");
    assert!(steps[1].contains("Timeout") && steps[2].contains("call: 1"), "{steps:?}");
    assert!(!schedule.permitted(NO_GROUP, at_most(600)), "nobody is left to use a second permit");
}
