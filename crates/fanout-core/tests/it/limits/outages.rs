//! An API that fails: what is sent to it meanwhile, and what comes of the calls.

use std::time::Duration;

use fanout_core::limits::LimitOptions;
use fanout_testing::api::{Down, Reply, Rules};
use fanout_testing::crowd::{Group, Member, Wanted};

use super::{MANY, ms, paced, patient, played, run, secs, words};

/// Fifty calls of a thousand runs, a little slower than the API's pace, and ten minutes of outage in the middle. Half of
/// the runs' calls are repeatable.
#[track_caller]
fn check_outage(says: Reply, attempts_max: usize, others: &[&str]) {
    let (from, until) = (secs(1000), secs(1600));
    let mut group = paced(20, 5);
    group.rules.down = vec![Down { from, until, says }];
    let call = |run: usize, at: u32| {
        let arrives = ms(56) * (at * 1000 + run as u32);
        Wanted { deadline: secs(3000), repeatable: run.is_multiple_of(2), ..Wanted::of(0, arrives) }
    };
    let calls = |run| (0..50).map(|at| call(run, at)).collect();
    let members: Vec<Member> = (0..1000)
        .map(|run| Member { caller: format!("caller{}", run % 7), calls: calls(run), cancels: None })
        .collect();
    let log = played(&group, &members);
    let tries = log.calls.values().flat_map(|call| &call.tries);
    let attempts = tries.filter(|attempt| from <= attempt.started && attempt.started < until).count();
    eprintln!("{says:?}: {attempts} attempts in the outage; {}", words(&log));
    assert!(attempts <= attempts_max, "{attempts} attempts in the outage");
    assert_eq!(log.apis[0].violations, 0);
    // The last probe of the outage may have taken a whole time-out; then the breaker stays open once more, and the probe
    // after that takes less than a second.
    let is_over = until + secs(30) + group.options.breaker.cool_down + secs(1);
    let mut failed = 0;
    for ((run, at), call) in &log.calls {
        let (arrived, answer) = (members[*run].calls[*at].arrives, call.answers[0]);
        if answer.word == "ok" {
            continue;
        }
        failed += 1;
        assert!(answer.at >= from && arrived < is_over, "call {at} of run {run} came at {arrived:?} and is {answer:?}");
        if answer.word == "circuit_open" {
            let come_back = answer.retry_after.unwrap();
            assert!(come_back > Duration::ZERO && come_back <= group.options.breaker.cool_down, "{answer:?}");
        } else {
            assert!(others.contains(&answer.word), "{answer:?}");
        }
    }
    assert!(failed < 13_000, "{failed} calls, more than came in those minutes");
}

/// What an outage of ten minutes may cost: the breaker needs up to a window of thirty seconds at twenty a second to see it,
/// then there is one probe every fifteen seconds; the retries are ten at once, one every ten seconds, and a tenth of those
/// that went well while the outage began and ended (of which no more than ten are kept).
const ATTEMPTS_MAX: usize = 30 * 20 + 600 / 15 + 1 + 10 + 600 / 10 + 10;

#[test]
fn an_outage_of_refused_connections_is_not_multiplied_and_is_over_when_it_is_over() {
    check_outage(Reply::Unreachable, ATTEMPTS_MAX, &["upstream"]);
}

#[test]
fn an_outage_of_errors_is_not_multiplied_and_what_nobody_knows_is_said_to_be_unknown() {
    check_outage(Reply::Broken, ATTEMPTS_MAX, &["upstream", "outcome_unknown"]);
}

#[test]
fn an_outage_that_names_its_end_is_waited_out() {
    // A pause of half a minute after each attempt, or those few that ran beside it.
    check_outage(Reply::Unavailable(Some(secs(30))), 600 / 30 * 5, &["upstream", "outcome_unknown"]);
}

#[test]
fn an_outage_of_silence_is_found_out_by_time_outs() {
    // Each attempt lasts for its time-out of thirty seconds, so the breaker hears of the first when it is over.
    check_outage(Reply::Silence, ATTEMPTS_MAX + 30 * 20, &["timeout", "outcome_unknown"]);
}

#[test]
fn retries_stay_a_tenth_of_what_goes_well_however_many_fail_at_one_moment() {
    let options = LimitOptions { queue_max: MANY, wait_max: secs(10_000), ..LimitOptions::at_once(100) };
    // A fourth of the attempts ends as an error or not at all: not enough for the breaker.
    let group = Group { options, rules: Rules { trouble: 30, takes: (ms(100), ms(100)), ..patient() } };
    let mut members: Vec<Member> = (0..50).map(|_| run("a", 200)).collect();
    for call in members.iter_mut().flat_map(|member| &mut member.calls) {
        (call.repeatable, call.timeout) = (true, ms(500));
    }
    let log = played(&group, &members);
    let (mut retries, mut well) = (0, 0);
    for call in log.calls.values() {
        well += usize::from(call.answers[0].word == "ok");
        // A 429 goes again because the far side asked for it.
        let asked = |reply| matches!(reply, Reply::TooMany(_));
        retries += call.tries.windows(2).filter(|pair| !(pair[0].heard && asked(pair[0].reply))).count();
    }
    let took = log.calls.values().map(|call| call.answers[0].at.as_secs()).max().unwrap();
    let earned = 10 + well / 10 + took as usize / 10;
    eprintln!("{retries} retries, {earned} earned, {}", words(&log));
    // Those that fail in one moment decide together; that happens once, and is paid for.
    assert!(retries <= earned + 100, "{retries} retries, {earned} earned");
    assert!(retries >= earned / 2, "{retries} retries, {earned} earned");
}
