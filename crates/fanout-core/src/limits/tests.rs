//! The rules of permits, group by group and over all groups.

use std::num::NonZeroU32;

use super::*;

const A: &str = "a";

const NOBODY: [Asker; 0] = [];

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn limits(in_flight_max: usize, options: LimitOptions) -> (Limits, GroupId) {
    let mut limits = Limits::new(in_flight_max, [("api".into(), options)]);
    let group = limits.group(&"api".into(), || panic!("it is set up"));
    (limits, group)
}

fn paced(calls: u32, burst: u32) -> LimitOptions {
    let rate = Rate { calls: NonZeroU32::new(calls).unwrap(), per: Duration::from_secs(1) };
    LimitOptions { rate: Some(rate), burst: NonZeroU32::new(burst).unwrap(), ..LimitOptions::default() }
}

fn wish(group: GroupId, caller: &CallerId, asker: Asker) -> Wish<'_> {
    Wish { group, caller, asker, again: false, cost: Cost::new() }
}

fn ask(limits: &mut Limits, group: GroupId, caller: &str, asker: Asker, now: Duration) -> Asked {
    let mut told = Vec::new();
    let asked = limits.ask(wish(group, &caller.into(), asker), now, &mut told);
    assert!(told.is_empty(), "{told:?}");
    asked
}

#[track_caller]
fn granted(asked: Asked) -> Grant {
    match asked {
        Asked::Granted(grant) => grant,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn queued(asked: Asked, at_least: Duration) {
    assert_eq!(asked, Asked::Queued { at_least });
}

/// Who is granted something by `act`.
fn served(act: impl FnOnce(&mut Vec<Notice>)) -> Vec<(Asker, Grant)> {
    let mut told = Vec::new();
    act(&mut told);
    let grant = |notice: Notice| match notice.news {
        News::Granted(grant) => (notice.asker, grant),
        other => panic!("{other:?}"),
    };
    told.into_iter().map(grant).collect()
}

fn askers(served: &[(Asker, Grant)]) -> Vec<Asker> {
    served.iter().map(|(asker, _)| *asker).collect()
}

#[test]
fn a_group_takes_no_more_than_its_own_and_none_waits_for_another() {
    let (mut limits, group) = limits(10, LimitOptions::at_once(1));
    let first = granted(ask(&mut limits, group, A, 1, at(0)));
    queued(ask(&mut limits, group, A, 2, at(0)), at(0));
    granted(ask(&mut limits, NO_GROUP, A, 3, at(0)));
    assert_eq!(limits.wake_at(), None, "only a permit that comes back helps");
    assert_eq!(askers(&served(|told| limits.give_back(first, at(5), told))), [2]);
}

#[test]
fn the_bound_on_all_is_shared_by_the_callers_of_all_groups() {
    let (mut limits, group) = limits(1, LimitOptions::default());
    let mut running = granted(ask(&mut limits, NO_GROUP, A, 1, at(0)));
    for _ in 0..3 {
        queued(ask(&mut limits, group, A, 2, at(0)), at(0));
    }
    queued(ask(&mut limits, NO_GROUP, A, 3, at(0)), at(0));
    queued(ask(&mut limits, NO_GROUP, "b", 4, at(0)), at(0));
    let mut order = Vec::new();
    while let [(asker, grant)] = served(|told| limits.give_back(running, at(1), told))[..] {
        order.push(asker);
        running = grant;
    }
    // Of caller a's two groups one is first; then it is caller b's turn in its group, before a's further wishes.
    assert_eq!(order.len(), 5);
    assert!(order.iter().position(|asker| *asker == 4) < Some(3), "{order:?}");
    assert_eq!(limits.in_flight(), (0, 1));
}

#[test]
fn a_wait_is_foretold_and_comes_true() {
    let (mut limits, group) = limits(100, paced(10, 2));
    granted(ask(&mut limits, group, A, 1, at(0)));
    granted(ask(&mut limits, group, A, 1, at(0)));
    queued(ask(&mut limits, group, A, 1, at(0)), at(100));
    queued(ask(&mut limits, group, A, 1, at(0)), at(200));
    queued(ask(&mut limits, group, "b", 2, at(0)), at(200));
    assert_eq!(limits.come_back(group, at(0)), at(400));
    assert_eq!(limits.wake_at(), Some(at(100)));
    assert!(served(|told| limits.advance(at(99), told)).is_empty());
    assert_eq!(askers(&served(|told| limits.advance(at(100), told))), [1]);
    assert_eq!(askers(&served(|told| limits.advance(at(300), told))), [2, 1]);
    assert_eq!(limits.wake_at(), None);
}

#[test]
fn a_full_queue_refuses_with_the_time_to_come_back() {
    let (mut limits, group) = limits(100, LimitOptions { queue_max: 2, ..paced(10, 1) });
    granted(ask(&mut limits, group, A, 1, at(0)));
    queued(ask(&mut limits, group, A, 1, at(0)), at(100));
    queued(ask(&mut limits, group, A, 1, at(0)), at(200));
    let full = Refusal::Full { come_back: at(300) };
    assert_eq!(ask(&mut limits, group, A, 1, at(0)), Asked::Refused(full));
    let mut told = Vec::new();
    let asked = limits.ask(wish(group, &"b".into(), 2), at(0), &mut told);
    queued(asked, at(200));
    let pushed_out = Notice { asker: 1, group, news: News::Refused(full) };
    assert_eq!(told, [pushed_out], "who wants far more than others makes room for them");
    assert_eq!(ask(&mut limits, group, "b", 2, at(0)), Asked::Refused(full), "now both want as much");
    limits.withdraw(group, 1);
    queued(ask(&mut limits, group, "b", 2, at(0)), at(200));
}

#[test]
fn a_pause_holds_for_all_and_those_who_wait_are_told() {
    let (mut limits, group) = limits(100, LimitOptions::at_once(1));
    let first = granted(ask(&mut limits, group, A, 1, at(0)));
    queued(ask(&mut limits, group, A, 2, at(0)), at(0));
    let mut told = Vec::new();
    assert!(limits.pause(group, at(500), at(10), &mut told));
    assert_eq!(told, [Notice { asker: 2, group, news: News::Paused(at(500)) }]);
    told.clear();
    assert!(!limits.pause(group, at(400), at(20), &mut told), "a shorter one is no news");
    assert!(told.is_empty());
    assert!(served(|told| limits.give_back(first, at(20), told)).is_empty());
    queued(ask(&mut limits, group, "b", 3, at(20)), at(490));
    assert_eq!(limits.wake_at(), Some(at(510)));
    assert_eq!(askers(&served(|told| limits.advance(at(510), told))), [2]);
    assert!(!limits.pause(NO_GROUP, at(500), at(10), &mut told), "what is no API cannot ask for it");
}

#[test]
fn no_pause_is_longer_than_an_hour() {
    let (mut limits, group) = limits(1, LimitOptions::default());
    limits.pause(group, Duration::MAX, at(0), &mut Vec::new());
    queued(ask(&mut limits, group, A, 1, at(0)), Duration::from_secs(3600));
}

#[test]
fn a_breaker_that_opens_ends_all_waiting_in_its_group() {
    let breaker = BreakerOptions { calls_min: 2, ..BreakerOptions::default() };
    let (mut limits, group) = limits(100, LimitOptions { breaker, ..LimitOptions::at_once(2) });
    let grants = [1, 2].map(|asker| granted(ask(&mut limits, group, A, asker, at(0))));
    queued(ask(&mut limits, group, A, 3, at(0)), at(0));
    queued(ask(&mut limits, group, A, 3, at(0)), at(0));
    let mut told = Vec::new();
    assert!(!limits.observe(grants[0], Signal::Failed, at(1), &mut told));
    assert!(limits.observe(grants[1], Signal::Overloaded, at(1), &mut told));
    let come_back = Duration::from_secs(15);
    let refused = Notice { asker: 3, group, news: News::Refused(Refusal::Open { come_back }) };
    assert_eq!(told, [refused.clone(), refused]);
    told.clear();
    for grant in grants {
        limits.give_back(grant, at(2), &mut told);
    }
    assert!(told.is_empty());
    let open = Refusal::Open { come_back: come_back - at(1) };
    assert_eq!(ask(&mut limits, group, A, 4, at(2)), Asked::Refused(open));
    let probe = granted(ask(&mut limits, group, A, 5, at(16_000)));
    let busy = Refusal::Open { come_back: at(0) };
    assert_eq!(ask(&mut limits, group, A, 6, at(16_000)), Asked::Refused(busy), "one finds out");
    assert!(!limits.observe(probe, Signal::Answered, at(16_001), &mut told));
    limits.give_back(probe, at(16_001), &mut told);
    granted(ask(&mut limits, group, A, 6, at(16_002)));
}

#[test]
fn retries_are_a_share_of_what_went_well() {
    let (mut limits, group) = limits(1000, LimitOptions::default());
    let mut told = Vec::new();
    let mut spend = |limits: &mut Limits, now| {
        let mut spent = 0;
        while limits.has_retry(group, now) && spent < 1000 {
            let asked = limits.ask(Wish { again: true, ..wish(group, &A.into(), 1) }, now, &mut told);
            limits.give_back(granted(asked), now, &mut told);
            spent += 1;
        }
        spent
    };
    assert_eq!(spend(&mut limits, at(0)), 10);
    assert_eq!(spend(&mut limits, at(9_000)), 0);
    assert_eq!(spend(&mut limits, at(30_000)), 3, "one for every ten seconds");
    for _ in 0..50 {
        let grant = granted(ask(&mut limits, group, A, 1, at(30_000)));
        limits.observe(grant, Signal::Answered, at(30_000), &mut Vec::new());
        limits.give_back(grant, at(30_000), &mut Vec::new());
    }
    assert!((4..=5).contains(&spend(&mut limits, at(30_000))), "one for every ten that went well");
    assert!(limits.has_retry(NO_GROUP, at(0)));
}

#[test]
fn a_group_that_is_set_up_otherwise_forgets_nothing_of_the_far_side() {
    let (mut limits, group) = limits(1000, LimitOptions { concurrency: NonZeroU32::new(1), ..paced(10, 1) });
    let set = |limits: &mut Limits, options: &LimitOptions, now| {
        served(|told| limits.set_options(|name| (name.as_str() == "api").then(|| options.clone()), now, told))
    };
    let first = granted(ask(&mut limits, group, A, 1, at(0)));
    queued(ask(&mut limits, group, A, 2, at(0)), at(100));
    queued(ask(&mut limits, group, A, 3, at(0)), at(200));
    // More at once, at the old pace: the second start still waits for its time.
    let two = LimitOptions { concurrency: NonZeroU32::new(2), ..paced(10, 1) };
    assert_eq!(askers(&set(&mut limits, &two, at(50))), NOBODY);
    let second = served(|told| limits.advance(at(100), told));
    assert_eq!(askers(&second), [2]);
    // No pace any more, and room for all: who waited may start in that very step.
    let free = LimitOptions { breaker: two.breaker, ..LimitOptions::default() };
    assert_eq!(askers(&set(&mut limits, &free, at(101))), [3]);
    // A slower pace begins behind what started before, and fewer at once hold until the others are back.
    assert_eq!(
        askers(&set(&mut limits, &LimitOptions { concurrency: NonZeroU32::new(1), ..free.clone() }, at(102))),
        NOBODY
    );
    queued(ask(&mut limits, group, A, 4, at(102)), at(0));
    assert_eq!(askers(&served(|told| limits.give_back(first, at(103), told))), NOBODY);
    assert_eq!(askers(&served(|told| limits.give_back(second[0].1, at(104), told))), NOBODY, "the third still runs");
    // A pause is the far side's word, whatever we set up.
    assert!(limits.pause(group, at(500), at(105), &mut Vec::new()));
    assert_eq!(askers(&set(&mut limits, &LimitOptions::default(), at(106))), NOBODY);
    assert_eq!(askers(&served(|told| limits.advance(at(605), told))), [4]);
}
