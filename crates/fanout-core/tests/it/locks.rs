//! The locks and the permits by themselves, under random comings and goings.
//!
//! The oracle for locks is one sentence: a place is held once nothing that entered earlier and clashes with it is left.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fanout_core::limits::{Asked, Cost, Grant, Limits, NO_GROUP, News, Wish};
use fanout_core::locks::{Locks, Ticket};
use fanout_testing::seed::{Rng, each_seed};
use fanout_testing::touches::Touches;

/// A place as the oracle sees it.
struct Place {
    ticket: Ticket,
    touches: Touches,
    held: bool,
    abandoned: bool,
}

/// What the rules say is held now, of those that wait; places that were left while they waited go when they would be held.
fn now_held(places: &mut Vec<Place>) -> Vec<Ticket> {
    let mut granted = Vec::new();
    let mut at = 0;
    while at < places.len() {
        let free = !places[..at].iter().any(|earlier| earlier.touches.clash(&places[at].touches));
        if free && places[at].abandoned {
            places.remove(at);
            continue;
        }
        if free && !places[at].held {
            places[at].held = true;
            granted.push(places[at].ticket);
        }
        at += 1;
    }
    granted
}

#[test]
fn a_place_is_held_once_no_earlier_one_that_clashes_is_left() {
    each_seed(200, |seed| {
        let mut rng = Rng::new(seed);
        let (mut locks, mut places) = (Locks::default(), Vec::<Place>::new());
        let (mut comings, steps) = (0, 10 + rng.below(60));
        while comings < steps || !places.is_empty() {
            if comings < steps && rng.percent(55) {
                comings += 1;
                let touches = Touches::random(&mut rng).between_runs();
                let (ticket, held) = locks.enter(&touches.effects());
                places.push(Place { ticket, touches, held: false, abandoned: false });
                assert_eq!(Vec::from_iter(held.then_some(ticket)), now_held(&mut places));
            } else if let Some(at) = (!places.is_empty()).then(|| rng.below(places.len())) {
                // Mostly those that hold go; now and then one that waits gives up.
                if !places[at].held && !rng.percent(20) {
                    continue;
                }
                let (ticket, mut granted) = (places[at].ticket, Vec::new());
                if places[at].held {
                    places.remove(at);
                } else {
                    places[at].abandoned = true;
                }
                locks.leave(ticket, &mut granted);
                assert_eq!(granted, now_held(&mut places));
            }
            assert_eq!(locks.len(), places.len());
        }
        assert!(locks.is_empty());
        let left = format!("{locks:?}");
        assert!(!left.contains("children: {\""), "keys are left in the index: {left}");
    });
}

#[test]
fn permits_are_never_too_many_never_idle_never_lost_and_go_round() {
    each_seed(200, |seed| {
        let mut rng = Rng::new(seed);
        let max = 1 + rng.below(4);
        let (mut permits, mut out) = (Limits::new(max, []), 0);
        let mut grants: Vec<Grant> = Vec::new();
        // Who waits: for every caller its runs, with how many wishes each has.
        let mut waiting: BTreeMap<(u64, u64), usize> = BTreeMap::new();
        // Whom the others were served since somebody began to wait.
        let mut passed: BTreeMap<(u64, u64), VecDeque<(u64, u64)>> = BTreeMap::new();
        for _ in 0..200 {
            let (caller, run) = (rng.below(3) as u64, rng.below(3) as u64);
            let name = format!("caller{caller}").as_str().into();
            match rng.below(5) {
                0 | 1 => {
                    let asker = caller * 10 + run;
                    let wish = Wish { group: NO_GROUP, caller: &name, asker, again: false, cost: Cost::new() };
                    let asked = permits.ask(wish, Duration::ZERO, &mut Vec::new());
                    if let Asked::Granted(grant) = asked {
                        grants.push(grant);
                        out += 1;
                        assert!(waiting.is_empty(), "overtook those that wait");
                    } else {
                        assert_eq!(out, max, "a permit lies idle");
                        *waiting.entry((caller, run)).or_default() += 1;
                        passed.entry((caller, run)).or_default();
                    }
                }
                2 => {
                    permits.withdraw(NO_GROUP, caller * 10 + run);
                    if let Some(wishes) = waiting.get_mut(&(caller, run)) {
                        *wishes -= 1;
                    }
                }
                _ if out > 0 => {
                    out -= 1;
                    let mut told = Vec::new();
                    permits.give_back(grants.pop().expect("one is out"), Duration::ZERO, &mut told);
                    match told.pop().map(|notice| (notice.asker, notice.news)) {
                        None => assert!(waiting.is_empty(), "nobody was served, and {waiting:?} wait"),
                        Some((asker, News::Granted(grant))) => {
                            out += 1;
                            grants.push(grant);
                            let served = (asker / 10, asker % 10);
                            *waiting.get_mut(&served).expect("served without a wish") -= 1;
                            passed.insert(served, VecDeque::new());
                            passed.values_mut().for_each(|seen| seen.push_back(served));
                            passed.insert(served, VecDeque::new());
                        }
                        Some(other) => panic!("no group, no {other:?}"),
                    }
                }
                _ => {}
            }
            waiting.retain(|_, wishes| *wishes > 0);
            passed.retain(|who, _| waiting.contains_key(who));
            judge_fair(&passed);
        }
        assert!(out <= max);
    });
}

/// While one run waits, each other run of its caller is served at most once, and each other caller at most once for every
/// time that its own caller is, and once more.
fn judge_fair(passed: &BTreeMap<(u64, u64), VecDeque<(u64, u64)>>) {
    for ((caller, run), seen) in passed {
        for other in 0..3 {
            let times = seen.iter().filter(|who| **who == (*caller, other)).count();
            assert!(times <= 1, "run {other} of caller {caller} passed run {run} {times} times");
            let own = seen.iter().filter(|who| who.0 == *caller).count();
            let others = seen.iter().filter(|who| who.0 == other).count();
            assert!(other == *caller || others <= own + 1, "caller {other} passed caller {caller}: {seen:?}");
        }
    }
}
