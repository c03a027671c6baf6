//! Who is served when not all can be: a pace kept to the nanosecond, and shared out by turns.

use std::time::Duration;

use fanout_core::limits::LimitOptions;
use fanout_core::retry::Backoff;
use fanout_testing::api::{Down, Reply, Rules};
use fanout_testing::crowd::{Group, Log, Member, Wanted};

use super::{MANY, answer, ms, paced, patient, played, run, secs, starts, words};

/// The time that so many calls take at this pace, and five percent more.
#[track_caller]
fn check_duration(log: &Log, calls: u32, rate: u32) {
    let least = secs(1) * calls / rate;
    let took = starts(log).last().unwrap().0;
    assert!(took <= least.mul_f64(1.05), "{took:?} for {least:?}");
}

#[test]
fn a_thousand_runs_of_fifty_calls_keep_a_pace_of_twenty_and_are_served_by_turns() {
    let group = paced(20, 5);
    let members: Vec<Member> = (0..1000).map(|_| run("a", 50)).collect();
    let log = played(&group, &members);
    assert_eq!((words(&log).as_str(), log.apis[0].violations), ("50000 ok", 0));
    check_duration(&log, 50_000, 20);
    // The burst went to whoever was there first. From then on all wait, and none is more than a call ahead of another until
    // those of the burst have nothing left to wait for.
    let starts = starts(&log).into_iter().skip_while(|(at, _)| at.is_zero());
    let (mut count, mut least, mut of_least) = (vec![0_usize; 1000], 0, 1000);
    for (at, run) in starts.take(44 * 1000) {
        of_least -= usize::from(count[run] == least);
        count[run] += 1;
        if of_least == 0 {
            least += 1;
            of_least = count.iter().filter(|count| **count == least).count();
        }
        assert!(count[run] <= least + 1, "at {at:?} run {run} has {}, another {least}", count[run]);
    }
    assert_eq!(least, 44);
}

#[test]
fn a_run_of_eight_hundred_calls_does_not_hold_up_fifty_small_ones() {
    let group = paced(20, 1);
    let mut members = vec![run("a", 800)];
    members.extend((0..50).map(|_| run("a", 5)));
    let log = played(&group, &members);
    assert_eq!((words(&log).as_str(), log.apis[0].violations), ("1050 ok", 0));
    check_duration(&log, 1050, 20);
    let last_small = starts(&log).into_iter().filter(|(_, run)| *run > 0).map(|(at, _)| at).max().unwrap();
    // Five rounds of 51 runs.
    assert!(last_small <= secs(1) * (5 * 51) / 20, "{last_small:?}");
}

#[test]
fn eight_hundred_runs_of_one_caller_leave_every_other_turn_to_another_caller() {
    let group = paced(20, 1);
    let mut members: Vec<Member> = (0..800).map(|_| run("a", 5)).collect();
    members.push(run("b", 100));
    let log = played(&group, &members);
    assert_eq!((words(&log).as_str(), log.apis[0].violations), ("4100 ok", 0));
    let turns: Vec<usize> =
        starts(&log).iter().enumerate().filter(|(_, (_, run))| *run == 800).map(|(turn, _)| turn).collect();
    assert!(turns.iter().enumerate().all(|(call, turn)| *turn <= 2 * call + 2), "{turns:?}");
}

/// A call that comes at that time and can wait for nothing.
fn hasty(arrives: Duration) -> Member {
    let call = Wanted { deadline: secs(10), ..Wanted::of(0, arrives) };
    Member { caller: "late".to_owned(), calls: vec![call], cancels: None }
}

/// Plays them; those calls of the first run are refused at the moment of their arrival. Then one who comes back exactly
/// when each was told to starts at once.
#[track_caller]
fn check_refused(group: &Group, members: &[Member], refused: &[usize]) {
    let log = played(group, members);
    let came_to: Vec<usize> =
        (0..members[0].calls.len()).filter(|call| answer(&log, 0, *call).word == "rate_limited").collect();
    assert_eq!(came_to, refused, "{:#?}", log.calls);
    for call in refused {
        let (arrived, answer) = (members[0].calls[*call].arrives, answer(&log, 0, *call));
        assert_eq!(answer.at, arrived, "call {call} waits in vain");
        let back = arrived + answer.retry_after.unwrap();
        let again = [members, &[hasty(back)]].concat();
        let log = played(group, &again);
        let tries = &log.calls[&(members.len(), 0)].tries;
        assert_eq!(tries.first().map(|attempt| attempt.started), Some(back), "call {call} was told {answer:?}");
    }
}

#[test]
fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let mut group = paced(1, 1);
    group.options.queue_max = 3;
    check_refused(&group, &[run("a", 6)], &[4, 5]);
}

#[test]
fn who_would_wait_longer_than_he_may_is_refused_at_once() {
    let mut group = paced(1, 2);
    group.options.wait_max = ms(2500);
    check_refused(&group, &[run("a", 7)], &[4, 5, 6]);
    // Another run waits for more, so that there is still no room when one's own wait would have been over.
    group.options.wait_max = secs(20);
    let mut short = run("a", 6);
    short.calls.iter_mut().for_each(|call| (call.arrives, call.deadline) = (ms(1), secs(5)));
    check_refused(&group, &[short, run("a", 15)], &[2, 3, 4, 5]);
}

#[test]
fn a_bound_on_what_runs_at_once_says_when_to_come_back_by_what_it_has_learned() {
    let options = LimitOptions { queue_max: 2, ..LimitOptions::at_once(1) };
    let group = Group { options, rules: Rules { takes: (ms(100), ms(100)), ..patient() } };
    let mut member = run("a", 6);
    member.calls[1..].iter_mut().for_each(|call| call.arrives = secs(1));
    check_refused(&group, &[member], &[4, 5]);
}

#[test]
fn a_pause_longer_than_the_deadline_or_the_longest_wait_is_refused_at_once() {
    let mut group = paced(10, 10);
    group.options.wait_max = secs(20);
    let says = Reply::TooMany(Some(secs(60)));
    group.rules.down = vec![Down { from: Duration::ZERO, until: ms(10), says }];
    let call = |at, deadline| Wanted { deadline, ..Wanted::of(0, at) };
    let waits = vec![call(ms(0), secs(600)), call(secs(1), secs(600)), call(secs(2), secs(5))];
    let member = Member { caller: "a".to_owned(), calls: waits, cancels: None };
    let log = played(&group, std::slice::from_ref(&member));
    // The far side named a longer wait than the group allows anyone.
    assert_eq!(answer(&log, 0, 0).word, "rate_limited");
    assert!(answer(&log, 0, 0).retry_after >= Some(secs(60)));
    let later = Member { calls: member.calls[1..].to_vec(), ..member.clone() };
    check_refused(&group, &[later.clone(), Member { calls: member.calls[..1].to_vec(), ..later }], &[0, 1]);
    // One that can wait for the end of the pause does; another of its own run that cannot is told so.
    group.options.wait_max = secs(300);
    let waits = vec![call(secs(1), secs(600)), call(secs(2), secs(5))];
    let members = [Member { calls: waits, ..member.clone() }, Member { calls: member.calls[..1].to_vec(), ..member }];
    check_refused(&group, &members, &[1]);
    // Also if it is not the last in its run's order: what it held back makes its path longer than that of the patient one.
    let writes = |call: Wanted| Wanted { writes: Some("k".to_owned()), ..call };
    let at_once = Wanted { group: None, ..call(secs(2), secs(600)) };
    let waits =
        [call(secs(1), secs(600)), writes(at_once), writes(call(secs(2), secs(5))), writes(call(secs(2), secs(600)))];
    let log = played(&group, &[Member { calls: waits.to_vec(), ..members[0].clone() }, members[1].clone()]);
    assert_eq!((answer(&log, 0, 2).word, answer(&log, 0, 2).at), ("rate_limited", ms(2001)));
    // One that waits already when the pause comes is told so then.
    let mut group = paced(10, 1);
    group.rules.down = vec![Down { from: Duration::ZERO, until: ms(10), says }];
    let calls = vec![call(ms(0), secs(600)), call(ms(0), secs(600)), call(ms(0), secs(30))];
    let log = played(&group, &[Member { caller: "a".to_owned(), calls, cancels: None }]);
    let (paused, refused) = (log.calls[&(0, 0)].tries[0].ended.unwrap(), answer(&log, 0, 2));
    assert_eq!((refused.word, refused.at), ("rate_limited", paused), "{:#?}", log.calls);
}

#[test]
fn what_runs_at_once_settles_near_what_the_api_bears_and_rises_with_it() {
    let retry = Backoff { attempts: 100, ..Backoff::default() };
    let options = LimitOptions { queue_max: MANY, wait_max: secs(10_000), retry, ..LimitOptions::at_once(32) };
    let at_once = vec![(Duration::ZERO, 7), (secs(120), 24)];
    let group = Group { options, rules: Rules { at_once, takes: (ms(80), ms(120)), ..patient() } };
    let members: Vec<Member> = (0..20).map(|_| run("a", 1200)).collect();
    let log = played(&group, &members);
    assert_eq!(words(&log), "24000 ok");
    // How long each bound held, by phase.
    let mean = |from: Duration, until: Duration| {
        let learned = &log.learned[0];
        let ends = learned.iter().skip(1).map(|(at, _)| *at).chain([log.ended]);
        let held = learned.iter().zip(ends).map(|((at, bound), end)| {
            let span = end.min(until).saturating_sub((*at).max(from)).as_secs_f64();
            (span, span * bound.unwrap() as f64)
        });
        let (spans, sum) = held.fold((0.0, 0.0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
        sum / spans
    };
    let (few, many) = (mean(secs(10), secs(120)), mean(secs(150), secs(200)));
    eprintln!(
        "bears 7: {few:.2} at once; bears 24: {many:.2}; {} refusals of {}",
        log.apis[0].violations, log.apis[0].arrivals
    );
    assert!((4.0..=9.0).contains(&few), "{few}");
    assert!((13.0..=26.0).contains(&many), "{many}");
    assert!(log.apis[0].violations * 10 < log.apis[0].arrivals, "{} refusals", log.apis[0].violations);
}
