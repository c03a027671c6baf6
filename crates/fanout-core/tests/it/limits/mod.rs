//! Limit groups, retries and breakers on virtual time, against APIs that keep their own limits.

mod judge;
mod outages;
mod properties;
mod shares;

use std::num::NonZeroU32;
use std::time::Duration;

use fanout_core::limits::{LimitOptions, Rate};
use fanout_testing::api::{self, Rules};
use fanout_testing::crowd::{Answer, Group, Log, Member, Wanted, play};

/// Room enough for all attempts of a test.
const MANY: usize = 100_000;

/// How long work that outlives its call keeps its locks.
const STRAY_HOLD: Duration = Duration::from_secs(5);

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// An API that bears whatever comes.
fn patient() -> Rules {
    Rules { rate: None, at_once: Vec::new(), takes: (ms(50), ms(300)), down: Vec::new(), trouble: 0 }
}

/// So many a second and a group that knows it; calls wait as long as it takes.
fn paced(calls: u32, burst: u32) -> Group {
    let per = secs(1);
    let options = LimitOptions {
        rate: Some(Rate { calls: NonZeroU32::new(calls).unwrap(), per }),
        burst: NonZeroU32::new(burst).unwrap(),
        queue_max: MANY,
        wait_max: secs(100_000),
        ..LimitOptions::default()
    };
    Group { options, rules: Rules { rate: Some(api::Rate { calls, per, burst }), ..patient() } }
}

/// A run of so many calls of the first group, all there at once and with all the time in the world.
fn run(caller: &str, calls: usize) -> Member {
    let call = Wanted { deadline: secs(100_000), ..Wanted::of(0, Duration::ZERO) };
    Member { caller: caller.to_owned(), calls: vec![call; calls], cancels: None }
}

/// Plays them against one API, and holds what came of it to all rules.
#[track_caller]
fn played(group: &Group, members: &[Member]) -> Log {
    let groups = [group.clone()];
    let log = play(&groups, members, MANY, STRAY_HOLD, 7);
    judge::judge(&groups, members, &log, MANY, STRAY_HOLD);
    log
}

/// The starts at the first API in order: when, and of which run.
fn starts(log: &Log) -> Vec<(Duration, usize)> {
    let all = log.calls.iter().flat_map(|((run, _), call)| call.tries.iter().map(|attempt| (attempt.started, *run)));
    let mut all: Vec<_> = all.collect();
    all.sort_unstable();
    all
}

fn answer(log: &Log, run: usize, call: usize) -> Answer {
    log.calls[&(run, call)].answers[0]
}

/// How many calls came to what.
fn words(log: &Log) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for call in log.calls.values() {
        *counts.entry(call.answers[0].word).or_insert(0) += 1;
    }
    counts.iter().map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}
