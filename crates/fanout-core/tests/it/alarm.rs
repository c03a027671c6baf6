//! Permits that come with time alone, on the real driver: several groups, several runs, and runtimes that go away.
//!
//! Time is paused, but for the tests with several runtimes; those wait on events, and end whatever happens because each
//! of their waits has its own bound.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanout_core::limits::{GroupState, LimitOptions, Rate};
use fanout_core::outcome::Output;
use fanout_core::run::{RunOptions, Scheduler, SchedulerOptions};
use fanout_core::toolbox::Toolbox;
use fanout_testing::api::{self, Span};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use super::driver::{Does, all, ms, toolbox, words};

type Starts = Arc<Mutex<Vec<(Duration, &'static str)>>>;

/// One start in so long.
fn every(per: Duration) -> LimitOptions {
    LimitOptions { rate: Some(Rate { calls: NonZeroU32::MIN, per }), ..LimitOptions::default() }
}

fn scheduler(limits: impl IntoIterator<Item = (&'static str, LimitOptions)>) -> Scheduler {
    let limits = limits.into_iter().map(|(name, options)| (name.into(), options)).collect();
    Scheduler::new(SchedulerOptions { limits, ..SchedulerOptions::default() })
}

/// One tool for each of these groups, named like it, that ends at once.
fn tools(groups: &[&'static str], starts: &Starts) -> Arc<Toolbox> {
    let epoch = Instant::now();
    toolbox(groups.iter().map(|group| {
        let (starts, group) = (Arc::clone(starts), *group);
        let tool = Does::new(group, move |_| {
            starts.lock().unwrap().push((epoch.elapsed(), group));
            Box::pin(async { Ok(Output::text("done")) })
        });
        tool.with(|spec| spec.policy.limit = Some(group.into()))
    }))
}

/// So many calls of one tool, none in the way of another or of another run.
async fn call(scheduler: &Scheduler, toolbox: Arc<Toolbox>, tool: &'static str, calls: usize) -> String {
    static KEYS: AtomicUsize = AtomicUsize::new(0);
    let mut run = scheduler.run(toolbox, RunOptions::new("run"));
    let key = || json!({ "key": KEYS.fetch_add(1, Ordering::Relaxed) });
    words(&all(&mut run, (0..calls).map(|_| (tool, key()))).await)
}

#[tokio::test(start_paused = true)]
async fn runs_and_batches_on_different_tasks_keep_one_pace() {
    let per = ms(100);
    let options = LimitOptions { burst: NonZeroU32::new(3).unwrap(), ..every(per) };
    let (scheduler, starts) = (scheduler([("api", options)]), Starts::default());
    let toolbox = tools(&["api"], &starts);
    let tasks = (0..4_u64).map(|at| {
        let mut run = scheduler.run(Arc::clone(&toolbox), RunOptions::new(format!("run{at}")));
        tokio::spawn(async move {
            tokio::time::sleep(ms(at * 30)).await;
            for batch in 0..3 {
                // The runs write keys of their own, and each batch those of the one before.
                let calls = (0..5).map(|call| ("api", json!({ "key": format!("{at}-{call}") })));
                assert_eq!(words(&all(&mut run, calls).await), "ok ok ok ok ok", "batch {batch}");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let starts = starts.lock().unwrap();
    let mut span = Span::new(Some(api::Rate { calls: 1, per, burst: 3 }));
    assert!(starts.iter().all(|(at, _)| span.arrive(*at).is_ok()), "{starts:?}");
    // Sixty calls; somebody always waits, so that the pace is also kept from below.
    assert_eq!((starts.len(), starts[59].0), (60, per * 57));
}

#[tokio::test(start_paused = true)]
async fn two_groups_wake_each_at_its_own_time_also_when_the_earlier_is_set_later() {
    let (scheduler, starts) = (scheduler([("slow", every(ms(10_000))), ("fast", every(ms(1000)))]), Starts::default());
    let toolbox = tools(&["slow", "fast"], &starts);
    let slow = {
        let (scheduler, toolbox) = (scheduler.clone(), Arc::clone(&toolbox));
        tokio::spawn(async move { call(&scheduler, toolbox, "slow", 2).await })
    };
    tokio::time::sleep(ms(500)).await;
    assert_eq!(call(&scheduler, toolbox, "fast", 4).await, "ok ok ok ok");
    assert_eq!(slow.await.unwrap(), "ok ok");
    let expected = [(0, "slow"), (500, "fast"), (1500, "fast"), (2500, "fast"), (3500, "fast"), (10_000, "slow")];
    assert_eq!(*starts.lock().unwrap(), expected.map(|(at, group)| (ms(at), group)));
}

#[tokio::test(start_paused = true)]
async fn a_batch_dropped_while_it_waits_leaves_its_turns_to_others() {
    let (scheduler, starts) = (scheduler([("api", every(ms(1000)))]), Starts::default());
    let toolbox = tools(&["api"], &starts);
    let dropped = tokio::time::timeout(ms(1500), call(&scheduler, Arc::clone(&toolbox), "api", 5)).await;
    assert!(dropped.is_err());
    assert_eq!(call(&scheduler, toolbox, "api", 2).await, "ok ok");
    assert_eq!(starts.lock().unwrap().iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1000, 2000, 3000].map(ms));
    let state = scheduler.limits().remove(0);
    assert_eq!((state.waiting, state.running), (0, 0));
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

/// Tells when a call waits, on a thread and a runtime of its own; answers what they came to.
fn on_a_thread(scheduler: &Scheduler, toolbox: &Arc<Toolbox>, calls: usize, told: Sender<String>) {
    let (scheduler, toolbox) = (scheduler.clone(), Arc::clone(toolbox));
    std::thread::spawn(move || {
        let words = runtime().block_on(call(&scheduler, toolbox, "api", calls));
        let _ = told.send(words);
    });
}

/// Waits until so many calls wait for permits.
fn await_waiting(scheduler: &Scheduler, count: usize) {
    while scheduler.limits().first().is_none_or(|state| state.waiting < count) {
        std::thread::yield_now();
    }
}

#[test]
fn a_runtime_that_goes_away_with_the_alarm_leaves_it_to_another() {
    // Long enough that the first runtime is gone before anything is due; after ten seconds a call that nobody wakes would
    // give up as `rate_limited`.
    let options = LimitOptions { wait_max: ms(10_000), ..every(ms(1000)) };
    let (scheduler, starts) = (scheduler([("api", options)]), Starts::default());
    let toolbox = tools(&["api"], &starts);
    let first = runtime();
    {
        let (scheduler, toolbox) = (scheduler.clone(), Arc::clone(&toolbox));
        first.spawn(async move { call(&scheduler, toolbox, "api", 3).await });
    }
    // One starts, two wait, and the alarm is a task of this runtime.
    while scheduler.limits().first().is_none_or(|state| state.waiting < 2) {
        first.block_on(tokio::task::yield_now());
    }
    let (told, heard) = channel();
    on_a_thread(&scheduler, &toolbox, 2, told);
    await_waiting(&scheduler, 4);
    drop(first);
    assert_eq!(heard.recv().unwrap(), "ok ok");
}

#[test]
fn a_runtime_can_shut_down_while_calls_run_and_wait() {
    let options = LimitOptions { wait_max: ms(600_000), ..every(ms(30_000)) };
    let (scheduler, starts) = (scheduler([("api", options)]), Starts::default());
    let quick = tools(&["api"], &starts);
    let endless = Does::new("endless", |_| Box::pin(std::future::pending()));
    let endless = toolbox([endless.with(|spec| spec.policy.limit = Some("other".into()))]);
    let (told, heard) = channel();
    // It ends by itself, on a thread that this test can do without.
    std::thread::spawn(move || {
        let runtime = runtime();
        let begin = |toolbox: &Arc<Toolbox>, tool: &'static str, calls: usize, waiting: usize, running: usize| {
            let (other, toolbox) = (scheduler.clone(), Arc::clone(toolbox));
            runtime.spawn(async move { call(&other, toolbox, tool, calls).await });
            let sum = |of: fn(&GroupState) -> usize| scheduler.limits().iter().map(of).sum::<usize>();
            while (sum(|state| state.waiting), sum(|state| state.running)) != (waiting, running) {
                runtime.block_on(tokio::task::yield_now());
            }
        };
        // Tasks go in the order of their coming: the alarm before an attempt whose permit somebody else may wait for.
        begin(&quick, "api", 2, 1, 0);
        begin(&endless, "endless", 1, 1, 1);
        begin(&quick, "api", 1, 2, 1);
        drop(runtime);
        let left = scheduler.limits().iter().map(|state| state.waiting + state.running).sum::<usize>();
        let _ = told.send(left);
    });
    assert_eq!(heard.recv_timeout(Duration::from_secs(60)), Ok(0), "the runtime does not shut down");
}
