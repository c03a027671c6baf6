//! The real driver when attempts fail: what goes again, when, and what is kept and given back meanwhile.
//!
//! Time is paused. The jitter is real, so tests bound it and never name it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanout_core::call::Call;
use fanout_core::event::{Event, Recorder, What};
use fanout_core::limits::{BreakerOptions, LimitOptions};
use fanout_core::outcome::{ErrorCode, Outcome, Output};
use fanout_core::retry::Backoff;
use fanout_core::run::{RunOptions, Scheduler, SchedulerOptions};
use fanout_core::tool::ToolError;
use serde_json::json;
use tokio::time::Instant;

use super::driver::{Does, all, ms, toolbox, words, work_on};

/// When attempts started: time, run, number and idempotency key.
type Starts = Arc<Mutex<Vec<(Duration, String, u32, String)>>>;

/// A tool of the group `api` that fails so many times, then takes 100 ms and ends well. Each call counts for itself by its
/// attempt's number.
fn flaky(failures: u32, error: ToolError, starts: &Starts) -> Does {
    let (starts, epoch) = (Arc::clone(starts), Instant::now());
    let tool = Does::new("flaky", move |attempt| {
        let key = attempt.idempotency_key.to_string();
        starts.lock().unwrap().push((epoch.elapsed(), attempt.run.to_string(), attempt.number, key));
        let error = (attempt.number <= failures).then(|| error.clone());
        Box::pin(async move {
            tokio::time::sleep(ms(100)).await;
            error.map_or_else(|| Ok(Output::text("done")), Err)
        })
    });
    tool.with(|spec| spec.policy.limit = Some("api".into()))
}

fn scheduler(options: LimitOptions) -> Scheduler {
    Scheduler::new(SchedulerOptions { limits: [("api".into(), options)].into(), ..SchedulerOptions::default() })
}

fn retry_after(outcome: &Outcome) -> Option<Duration> {
    outcome.result.as_ref().err()?.retry_after
}

fn busy(retry_after: Option<Duration>) -> ToolError {
    ToolError::Busy { message: "slow down".into(), retry_after }
}

fn overloaded(retry_after: Option<Duration>) -> ToolError {
    ToolError::Overloaded { message: "too much".into(), retry_after }
}

/// One call whose tool fails so often: what it comes to, after how many attempts, and within which time.
async fn check(error: ToolError, failures: u32, repeatable: bool, word: &str, attempts: u32, within: (u64, u64)) {
    let starts = Starts::default();
    let tool = flaky(failures, error.clone(), &starts).with(|spec| spec.policy.idempotent = repeatable);
    let mut run = scheduler(LimitOptions::default()).run(toolbox([tool]), RunOptions::new("run"));
    let begun = Instant::now();
    let outcomes = all(&mut run, [("flaky", json!({"key": "a"}))]).await;
    let what = format!("{error:?} {failures} times, repeatable: {repeatable}");
    assert_eq!((words(&outcomes).as_str(), outcomes[0].attempts), (word, attempts), "{what}");
    let took = begun.elapsed();
    assert!(ms(within.0) <= took && took <= ms(within.1), "{what}: {took:?}");
    let starts = starts.lock().unwrap();
    let numbers: Vec<u32> = starts.iter().map(|(_, _, number, _)| *number).collect();
    assert_eq!(numbers, (1..=attempts).collect::<Vec<_>>(), "{what}");
    assert!(starts.iter().all(|(_, _, _, key)| key == "run/c0"), "{what}: {starts:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_carried_out_or_may_be_repeated_goes_again_and_nothing_else() {
    let not_sent = || ToolError::NotSent("connection refused".into());
    let broken = || ToolError::Broken("connection reset".into());
    let minute = Duration::from_secs(60);
    // The waits are at most 200, 400 and 800 ms.
    check(busy(None), 2, false, "ok", 3, (300, 900)).await;
    check(busy(Some(ms(2000))), 1, false, "ok", 2, (2200, 2400)).await;
    check(busy(None), 9, false, "rate_limited", 4, (400, 1800)).await;
    check(not_sent(), 3, false, "ok", 4, (400, 1800)).await;
    check(not_sent(), 4, true, "upstream", 4, (400, 1800)).await;
    check(broken(), 2, true, "ok", 3, (300, 900)).await;
    check(broken(), 1, false, "outcome_unknown", 1, (100, 100)).await;
    check(overloaded(Some(ms(2000))), 1, true, "ok", 2, (2200, 2400)).await;
    check(overloaded(Some(ms(2000))), 1, false, "outcome_unknown", 1, (100, 100)).await;
    check(ToolError::Failed("404".into()), 1, true, "upstream", 1, (100, 100)).await;
    check(ToolError::Conflict("changed".into()), 1, true, "conflict", 1, (100, 100)).await;
    check(ToolError::Panicked("oh".into()), 1, true, "internal", 1, (100, 100)).await;
    // No wait is as long as that, and none of these may overflow.
    check(busy(Some(minute + ms(1))), 1, true, "rate_limited", 1, (100, 100)).await;
    check(busy(Some(Duration::MAX)), 1, true, "rate_limited", 1, (100, 100)).await;
}

#[tokio::test(start_paused = true)]
async fn a_tool_without_a_group_goes_again_too_and_no_named_wait_overflows() {
    for (wait, word, attempts) in [(Some(Duration::MAX), "rate_limited", 1), (Some(ms(10)), "ok", 2)] {
        let tool = flaky(1, busy(wait), &Starts::default()).with(|spec| spec.policy.limit = None);
        let mut run = scheduler(LimitOptions::default()).run(toolbox([tool]), RunOptions::new("run"));
        let outcomes = all(&mut run, [("flaky", json!({"key": "a"}))]).await;
        assert_eq!((words(&outcomes).as_str(), outcomes[0].attempts), (word, attempts));
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_attempt_waits_until_the_work_of_a_timed_out_one_is_gone() {
    let (starts, epoch) = (Starts::default(), Instant::now());
    let seen = Arc::clone(&starts);
    let deaf = Does::new("deaf", move |attempt| {
        seen.lock().unwrap().push((epoch.elapsed(), String::new(), attempt.number, String::new()));
        Box::pin(async move {
            if attempt.number > 1 {
                return Ok(Output::text("done"));
            }
            tokio::spawn(work_on(attempt.hold(), ms(3000)));
            std::future::pending().await
        })
    });
    let deaf = deaf.with(|spec| spec.policy.idempotent = true);
    let mut run = scheduler(LimitOptions::default()).run(toolbox([deaf]), RunOptions::new("run"));
    assert_eq!(words(&all(&mut run, [("deaf", json!({"key": "a"}))]).await), "ok");
    let starts = starts.lock().unwrap();
    // Its time-out was at one second, and no jitter is longer than the work that went on.
    assert_eq!(starts.iter().map(|(at, _, number, _)| (*at, *number)).collect::<Vec<_>>(), [(ms(0), 1), (ms(3000), 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_would_pass_the_deadline_is_not_begun() {
    let tool = flaky(1, busy(Some(ms(10_000))), &Starts::default()).with(|spec| spec.policy.deadline = ms(5000));
    let mut run = scheduler(LimitOptions::default()).run(toolbox([tool]), RunOptions::new("run"));
    let begun = Instant::now();
    let outcomes = all(&mut run, [("flaky", json!({"key": "a"}))]).await;
    assert_eq!((words(&outcomes).as_str(), begun.elapsed()), ("rate_limited", ms(100)));
    assert_eq!(retry_after(&outcomes[0]), Some(ms(10_000)));
}

#[tokio::test(start_paused = true)]
async fn a_call_cancelled_in_its_backoff_ends_at_once_and_goes_no_more() {
    for (repeatable, error) in [(false, busy(Some(ms(10_000)))), (true, overloaded(Some(ms(10_000))))] {
        let starts = Starts::default();
        let tool = flaky(9, error, &starts).with(|spec| spec.policy.idempotent = repeatable);
        let mut run = scheduler(LimitOptions::default()).run(toolbox([tool]), RunOptions::new("run"));
        let mut batch = run.batch();
        batch.call(Call::new(0, "c0", "flaky", json!({"key": "a"}))).unwrap();
        batch.commit();
        let waited = tokio::time::timeout(ms(5000), async {
            while batch.unanswered() > 0 {
                batch.progress().await;
            }
        });
        assert!(waited.await.is_err(), "it is in its backoff");
        batch.cancel("the run was stopped");
        let begun = Instant::now();
        assert_eq!(words(&batch.finish().await), "cancelled");
        tokio::time::sleep(ms(60_000)).await;
        assert_eq!((begun.elapsed(), starts.lock().unwrap().len()), (ms(60_000), 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_in_backoff_keeps_its_locks_and_gives_up_its_permit() {
    let starts = Starts::default();
    let options = LimitOptions { retry: Backoff { base: ms(3000), ..Backoff::default() }, ..LimitOptions::at_once(1) };
    let (scheduler, epoch) = (scheduler(options), Instant::now());
    let again = flaky(1, ToolError::NotSent("connection refused".into()), &starts);
    let well = flaky(0, ToolError::Stopped, &starts);
    // The first fails once on `a`; the second wants `a` too; the third wants only the permit.
    let runs = [("first", "a", again), ("second", "a", well.clone()), ("third", "c", well)];
    let mut tasks = Vec::new();
    for (name, key, tool) in runs {
        let mut run = scheduler.run(toolbox([tool]), RunOptions::new(name));
        tasks.push(tokio::spawn(async move { words(&all(&mut run, [("flaky", json!({ "key": key }))]).await) }));
        tokio::task::yield_now().await;
    }
    for task in tasks {
        assert_eq!(task.await.unwrap(), "ok");
    }
    let starts = starts.lock().unwrap();
    let order: Vec<String> = starts.iter().map(|(_, run, number, _)| format!("{run} {number}")).collect();
    assert_eq!(order, ["first 1", "third 1", "first 2", "second 1"]);
    assert_eq!(starts[1].0, ms(100), "the permit is free as soon as the attempt has failed");
    assert_eq!(starts[3].0, starts[2].0 + ms(100), "the lock is kept to the end, and no longer");
    assert_eq!(epoch.elapsed(), starts[3].0 + ms(100));
}

/// Remembers the words of what happened to its group.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Recorder for Heard {
    fn record(&self, event: &Event) {
        let word = match &event.what {
            What::CallBackoff { call, attempts, .. } => format!("{call} backs off after {attempts}"),
            What::LimitPaused { group, wait } => format!("{group} pauses for {wait:?}"),
            What::BreakerOpened { group, wait } => format!("{group} is open for {wait:?}"),
            _ => return,
        };
        self.0.lock().unwrap().push(word);
    }
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_opens_ends_those_who_wait_in_every_run_and_is_an_event() {
    let options = LimitOptions {
        breaker: BreakerOptions { calls_min: 4, ..BreakerOptions::default() },
        retry: Backoff { attempts: 1, ..Backoff::default() },
        ..LimitOptions::at_once(2)
    };
    let (scheduler, starts, heard) = (scheduler(options), Starts::default(), Arc::new(Heard::default()));
    let begun = Instant::now();
    let runs = ["one", "two"].map(|name| {
        let tool = flaky(9, ToolError::NotSent("connection refused".into()), &starts);
        let options = RunOptions { recorder: Some(Arc::clone(&heard) as _), ..RunOptions::new(name) };
        let mut run = scheduler.run(toolbox([tool]), options);
        tokio::spawn(async move {
            all(&mut run, (0..10).map(|at| ("flaky", json!({ "key": format!("{name}/{at}") })))).await
        })
    });
    let mut codes = Vec::new();
    for run in runs {
        for outcome in run.await.unwrap() {
            let code = outcome.error_code().unwrap();
            if code == ErrorCode::CircuitOpen {
                assert_eq!(retry_after(&outcome), Some(Duration::from_secs(15)));
            }
            codes.push(code);
        }
    }
    // Two at once, and the fourth opened it, perhaps just after the third had let another start.
    let sent = codes.iter().filter(|code| **code == ErrorCode::Upstream).count();
    assert!(sent == starts.lock().unwrap().len() && (4..=5).contains(&sent), "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == ErrorCode::CircuitOpen).count(), 20 - sent, "{codes:?}");
    assert!(begun.elapsed() <= ms(300), "{:?}", begun.elapsed());
    assert_eq!(*heard.0.lock().unwrap(), ["api is open for 15s"]);
}

#[tokio::test(start_paused = true)]
async fn a_backoff_and_a_pause_are_events_and_the_pause_holds_for_other_runs() {
    let (scheduler, starts, heard) =
        (scheduler(LimitOptions::default()), Starts::default(), Arc::new(Heard::default()));
    let tool = flaky(1, busy(Some(ms(2000))), &starts);
    let options = RunOptions { recorder: Some(Arc::clone(&heard) as _), ..RunOptions::new("first") };
    let mut first = scheduler.run(toolbox([tool]), options);
    let first = tokio::spawn(async move { words(&all(&mut first, [("flaky", json!({"key": "a"}))]).await) });
    tokio::time::sleep(ms(500)).await;
    let well = flaky(0, ToolError::Stopped, &starts);
    let mut other = scheduler.run(toolbox([well]), RunOptions::new("other"));
    let begun = Instant::now();
    assert_eq!(words(&all(&mut other, [("flaky", json!({"key": "b"}))]).await), "ok");
    // The pause began at 100 ms.
    assert_eq!(begun.elapsed(), ms(1600 + 100));
    assert_eq!(first.await.unwrap(), "ok");
    assert_eq!(*heard.0.lock().unwrap(), ["api pauses for 2s", "c0 backs off after 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_in_its_second_wait_is_told_of_the_first_failure() {
    let options = LimitOptions { wait_max: ms(500), ..LimitOptions::at_once(1) };
    let (scheduler, starts, count) = (scheduler(options), Starts::default(), Arc::new(AtomicUsize::new(0)));
    let broken = flaky(1, ToolError::Broken("connection reset".into()), &starts);
    let broken = broken.with(|spec| spec.policy.idempotent = true);
    let long = Does::new("long", move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {
            tokio::time::sleep(ms(5000)).await;
            Ok(Output::text("done"))
        })
    });
    let long = long.with(|spec| (spec.policy.limit, spec.policy.timeout) = (Some("api".into()), ms(9000)));
    let mut run = scheduler.run(toolbox([broken, long]), RunOptions::new("run"));
    let outcomes = all(&mut run, [("flaky", json!({"key": "a"})), ("long", json!({"key": "b"}))]).await;
    assert_eq!(words(&outcomes), "rate_limited ok");
    let message = &outcomes[0].result.as_ref().unwrap_err().message;
    assert!(message.contains("connection reset") && !message.contains("nothing was carried out"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn in_a_pause_a_short_deadline_is_told_so_at_once_whatever_else_its_run_waits_for() {
    let (scheduler, starts) = (scheduler(LimitOptions::default()), Starts::default());
    let paused = flaky(9, busy(Some(ms(50_000))), &starts).with(|spec| spec.policy.deadline = ms(5000));
    let mut first = scheduler.run(toolbox([paused]), RunOptions::new("first"));
    assert_eq!(words(&all(&mut first, [("flaky", json!({"key": "a"}))]).await), "rate_limited");
    let well = |name: &str, deadline| {
        let tool = Does::new(name, |_| Box::pin(async { Ok(Output::text("done")) }));
        tool.with(|spec| (spec.policy.limit, spec.policy.deadline) = (Some("api".into()), ms(deadline)))
    };
    let opens = well("opens", 5000).with(|spec| spec.policy.limit = None);
    let tools = toolbox([well("patient", 120_000), opens, well("hasty", 5000)]);
    let mut run = scheduler.run(tools, RunOptions::new("second"));
    let mut batch = run.batch();
    // The hasty call has the longer path: another one waits for it.
    for (at, (tool, key)) in
        [("patient", "b"), ("opens", "k"), ("hasty", "k"), ("patient", "k")].into_iter().enumerate()
    {
        batch.call(Call::new(at as u32, format!("c{at}"), tool, json!({ "key": key }))).unwrap();
    }
    batch.commit();
    let begun = Instant::now();
    while batch.unanswered() > 2 {
        batch.progress().await;
    }
    assert_eq!(begun.elapsed(), ms(0));
    assert_eq!(words(&batch.finish().await), "ok ok rate_limited ok");
}
