//! The rules that hold whatever happens, read off a log: outcomes, attempts, waits, locks, permits, paces, breakers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fanout_testing::api::{Rate, Reply, Span};
use fanout_testing::crowd::{Group, Id, Log, Member, Played, Seen, Try, Wanted};

/// Holds a log to all rules.
///
/// # Panics
/// With the rule that was broken, and by whom.
#[track_caller]
pub fn judge(groups: &[Group], members: &[Member], log: &Log, in_flight_max: usize, stray_hold: Duration) {
    assert_eq!(log.leaked, 0, "places, permits or wishes that nobody gave back");
    for (run, member) in members.iter().enumerate() {
        for (at, wanted) in member.calls.iter().enumerate() {
            judge_call((run, at), wanted, &log.calls[&(run, at)], groups, stray_hold);
        }
    }
    judge_locks(members, log);
    judge_in_flight(log, in_flight_max);
    for (at, group) in groups.iter().enumerate() {
        judge_group(group, log, at);
    }
}

/// Whether the caller must think that an attempt may have been carried out.
fn may_be_done(attempt: &Try) -> bool {
    !attempt.heard || attempt.reply.may_be_done()
}

fn judge_call(id: Id, wanted: &Wanted, call: &Played, groups: &[Group], stray_hold: Duration) {
    let [answer] = call.answers[..] else { panic!("{id:?} has the outcomes {:?}", call.answers) };
    if let Some(entered) = call.entered {
        assert!(answer.at <= entered + wanted.deadline, "{id:?} is answered after its deadline: {call:?}");
    }
    let attempts = wanted.group.map_or(4, |group| groups[group].options.retry.attempts) as usize;
    assert!(call.tries.len() <= attempts, "{id:?} had {} attempts", call.tries.len());
    if !wanted.repeatable {
        let done = call.tries.iter().position(may_be_done);
        assert!(done.is_none_or(|at| at + 1 == call.tries.len()), "{id:?} was repeated: {call:?}");
    }
    for (at, pair) in call.tries.windows(2).enumerate() {
        let (before, next) = (&pair[0], &pair[1]);
        let (begun, wait) = call.backoffs[at];
        assert!(before.gone.is_some_and(|gone| gone <= next.started), "{id:?}: two attempts at once: {call:?}");
        assert!(begun + wait <= next.started, "{id:?} went again too early: {call:?}");
        if let (true, Reply::TooMany(Some(named)) | Reply::Unavailable(Some(named))) = (before.heard, before.reply) {
            assert!(wait >= named, "{id:?} did not wait as long as it was asked to: {call:?}");
        }
    }
    if let (Some(held), Some(left)) = (call.held, call.left) {
        let inside = |attempt: &Try| {
            let ended = attempt.ended.expect("every attempt ends").min(answer.at) + wanted.lingers.min(stray_hold);
            held <= attempt.started && ended <= left
        };
        assert!(call.tries.iter().all(inside), "{id:?} ran without its locks: {call:?}");
        assert!(left <= answer.at + stray_hold, "{id:?} kept its locks for too long: {call:?}");
    }
    judge_word(id, wanted, call);
}

fn judge_word(id: Id, wanted: &Wanted, call: &Played) {
    let answer = call.answers[0];
    let later = ["rate_limited", "circuit_open", "cancelled"];
    let may_be: Vec<&str> = match call.tries.last() {
        None => [&later[..], &["timeout"]].concat(),
        Some(last) if may_be_done(last) && !wanted.repeatable => match last.reply {
            Reply::Well if last.heard => vec!["ok"],
            Reply::No if last.heard => vec!["upstream"],
            _ => vec!["outcome_unknown"],
        },
        Some(Try { heard: false, .. }) => [&later[..], &["timeout", "upstream"]].concat(),
        Some(last) => match last.reply {
            Reply::Well => vec!["ok"],
            Reply::No => vec!["upstream"],
            Reply::TooMany(_) => later.to_vec(),
            Reply::Unavailable(_) | Reply::Broken | Reply::Unreachable => [&later[..], &["upstream"]].concat(),
            Reply::Silence => panic!("{id:?} heard silence"),
        },
    };
    assert!(may_be.contains(&answer.word), "{id:?} is {answer:?}, not one of {may_be:?}: {call:?}");
    if ["rate_limited", "circuit_open"].contains(&answer.word) && wanted.group.is_some() {
        assert!(answer.retry_after.is_some(), "{id:?} is not told when to come back: {call:?}");
    }
}

/// Whoever writes a key is alone with it from the moment when it holds its lock until it has let go.
fn judge_locks(members: &[Member], log: &Log) {
    let mut by_key: BTreeMap<&str, Vec<(Duration, Duration, Id)>> = BTreeMap::new();
    for (id, call) in &log.calls {
        let key = &members[id.0].calls[id.1].writes;
        if let (Some(key), Some(held), Some(left)) = (key, call.held, call.left) {
            by_key.entry(key).or_default().push((held, left, *id));
        }
    }
    for (key, mut spans) in by_key {
        spans.sort_unstable();
        for pair in spans.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "`{key}` had two owners: {pair:?}");
        }
    }
}

/// Never more permits out than there are.
fn judge_in_flight(log: &Log, most: usize) {
    let mut changes = Vec::new();
    for attempt in log.calls.values().flat_map(|call| &call.tries) {
        changes.extend([(attempt.started, 1), (attempt.released.expect("every permit comes back"), -1)]);
    }
    changes.sort_unstable();
    let mut out = 0;
    for (at, change) in changes {
        out += change;
        assert!(usize::try_from(out).unwrap() <= most, "{out} attempts at {at:?}");
    }
}

/// A breaker, as far as it shows from outside.
struct Open {
    since: Duration,
    until: Duration,
    probe: Option<(Id, usize)>,
}

fn judge_group(group: &Group, log: &Log, at: usize) {
    let options = &group.options;
    let rate = options.rate.map(|rate| Rate { calls: rate.calls.get(), per: rate.per, burst: options.burst.get() });
    let most = options.concurrency.map_or(usize::MAX, |most| most.get() as usize);
    let (mut span, mut live, mut open) = (Span::new(rate), BTreeSet::new(), None::<Open>);
    let (mut paused_at, mut paused_until) = (Duration::ZERO, Duration::ZERO);
    for (now, seen) in log.seen[at].iter().copied() {
        match seen {
            Seen::Started(id, number) => {
                // What was granted at the moment when it changed is on its way.
                assert!(now >= paused_until || now == paused_at, "{id:?} starts at {now:?}, in a pause");
                assert!(span.arrive(now).is_ok(), "{id:?} starts at {now:?}, above the rate");
                live.insert((id, number));
                assert!(live.len() <= most, "{id:?} starts at {now:?} as one of {}", live.len());
                if let Some(open) = open.as_mut().filter(|open| now != open.since) {
                    assert!(now >= open.until, "{id:?} starts at {now:?}, while the breaker is open");
                    let other = open.probe.replace((id, number)).filter(|probe| live.contains(probe));
                    assert_eq!(other, None, "{id:?} starts at {now:?} beside a probe");
                }
            }
            Seen::Answered(id, number, is_bad) => {
                let is_probe = open.as_ref().is_some_and(|open| open.probe == Some((id, number)));
                if is_probe && !is_bad {
                    open = None;
                }
            }
            Seen::Released(id, number) => assert!(live.remove(&(id, number)), "{id:?} is gone twice"),
            Seen::Paused(until) => (paused_at, paused_until) = (now, paused_until.max(until)),
            Seen::Opened(until) => open = Some(Open { since: now, until, probe: None }),
        }
    }
    assert!(live.is_empty(), "attempts that never end: {live:?}");
    for (at, learned) in &log.learned[at] {
        let learned = learned.unwrap_or(0);
        assert!(learned <= most, "at {at:?} it let {learned} start at once");
    }
}
