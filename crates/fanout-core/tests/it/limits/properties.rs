//! Random groups, runs and mishaps: what holds for every seed.

use std::num::NonZeroU32;
use std::time::Duration;

use fanout_core::limits::{BreakerOptions, LimitOptions, Rate};
use fanout_core::retry::Backoff;
use fanout_testing::api::{self, Down, Reply, Rules};
use fanout_testing::crowd::{Group, Member, Wanted, play};
use fanout_testing::seed::{Rng, each_seed};

use super::judge::judge;
use super::{MANY, secs};

/// A time between so many milliseconds, random to the nanosecond.
fn millis(rng: &mut Rng, from: usize, to: usize) -> Duration {
    Duration::from_nanos((from * 1_000_000 + rng.below((to - from) * 1_000_000)) as u64)
}

fn count(rng: &mut Rng, most: usize) -> NonZeroU32 {
    NonZeroU32::new(1 + rng.below(most) as u32).unwrap()
}

fn random_group(rng: &mut Rng) -> Group {
    let rate = rng.percent(50).then(|| Rate { calls: count(rng, 30), per: millis(rng, 500, 2000) });
    let options = LimitOptions {
        rate,
        burst: count(rng, 6),
        concurrency: rng.percent(60).then(|| count(rng, 8)),
        ramp: None,
        queue_max: if rng.percent(50) { rng.below(40) } else { MANY },
        wait_max: millis(rng, 100, 20_000),
        retry: Backoff { attempts: 1 + rng.below(6) as u32, base: millis(rng, 0, 500), max: millis(rng, 50, 3000) },
        breaker: BreakerOptions {
            failure_ratio: rng.unit(),
            window: millis(rng, 500, 30_000),
            calls_min: 2 + rng.below(12) as u32,
            cool_down: millis(rng, 200, 8000),
        },
    };
    let down = |rng: &mut Rng| {
        let from = millis(rng, 0, 4000);
        let named = rng.percent(50).then(|| millis(rng, 0, 5000));
        let says =
            [Reply::TooMany(named), Reply::Unavailable(named), Reply::Broken, Reply::Unreachable, Reply::Silence];
        Down { from, until: from + millis(rng, 0, 6000), says: *rng.pick(&says) }
    };
    let strict = api::Rate { calls: 1 + rng.below(20) as u32, per: secs(1), burst: 1 + rng.below(5) as u32 };
    let rules = Rules {
        rate: rng.percent(40).then_some(strict),
        at_once: if rng.percent(30) { vec![(Duration::ZERO, 1 + rng.below(5))] } else { Vec::new() },
        takes: (millis(rng, 5, 50), millis(rng, 50, 800)),
        down: (0..rng.below(3)).map(|_| down(rng)).collect(),
        trouble: rng.below(50),
    };
    Group { options, rules }
}

fn random_member(rng: &mut Rng, groups: usize) -> Member {
    let mut arrives = millis(rng, 0, 1000);
    let mut call = |rng: &mut Rng| {
        arrives += if rng.percent(50) { Duration::ZERO } else { millis(rng, 0, 300) };
        Wanted {
            group: (!rng.percent(10)).then(|| rng.below(groups)),
            writes: rng.percent(40).then(|| format!("k/{}", rng.below(4))),
            timeout: millis(rng, 20, 2000),
            deadline: if rng.percent(50) { millis(rng, 50, 3000) } else { millis(rng, 3000, 20_000) },
            repeatable: rng.percent(50),
            lingers: if rng.percent(20) { millis(rng, 1, 3000) } else { Duration::ZERO },
            withdrawn: rng.percent(10).then(|| arrives + millis(rng, 0, 3000)),
            ..Wanted::of(0, arrives)
        }
    };
    let calls = (0..=rng.below(25)).map(|_| call(rng)).collect();
    Member { caller: format!("caller{}", rng.below(3)), calls, cancels: rng.percent(10).then(|| millis(rng, 0, 6000)) }
}

#[test]
fn every_call_has_one_outcome_in_its_time_and_no_limit_is_passed() {
    each_seed(100, |seed| {
        let mut rng = Rng::new(seed);
        let groups: Vec<Group> = (0..=rng.below(3)).map(|_| random_group(&mut rng)).collect();
        let members: Vec<Member> = (0..=rng.below(8)).map(|_| random_member(&mut rng, groups.len())).collect();
        let in_flight_max = if rng.percent(50) { 1 + rng.below(12) } else { MANY };
        let stray_hold = secs(1);
        let log = play(&groups, &members, in_flight_max, stray_hold, seed);
        judge(&groups, &members, &log, in_flight_max, stray_hold);
        if seed.is_multiple_of(16) {
            let again = play(&groups, &members, in_flight_max, stray_hold, seed);
            assert_eq!(format!("{log:?}"), format!("{again:?}"), "the same seed tells another story");
        }
    });
}
