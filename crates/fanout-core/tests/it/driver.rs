//! The real driver under everything that tools can do to it: panics, blocked threads, floods, dropped futures.
//!
//! Time is paused, but for the tests whose tools block a thread; those wait on events and never on a duration.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use fanout_core::call::{Call, Link, Need};
use fanout_core::effects::{EffectsSpec, Source, Template};
use fanout_core::outcome::{ErrorCode, Outcome, Output};
use fanout_core::run::{Run, RunOptions, Scheduler, SchedulerOptions};
use fanout_core::tool::{Attempt, BoxFuture, Hold, Tool, ToolError, ToolSpec};
use fanout_core::toolbox::Toolbox;
use serde_json::{Value, json};
use tokio::time::Instant;

/// What a tool does.
type Act = dyn Fn(Attempt) -> BoxFuture<'static, Result<Output, ToolError>> + Send + Sync;

/// A tool that does what a closure says. `{key}` of its input is what it writes.
#[derive(Clone)]
pub struct Does {
    spec: ToolSpec,
    act: Arc<Act>,
}

impl Does {
    pub fn new(
        name: &str,
        act: impl Fn(Attempt) -> BoxFuture<'static, Result<Output, ToolError>> + Send + Sync + 'static,
    ) -> Self {
        let mut spec = ToolSpec::new(name, Source::function());
        spec.effects = EffectsSpec { writes: Some(vec![Template::parse("k/{key}").unwrap()]), ..spec.effects };
        spec.policy.timeout = Duration::from_secs(1);
        Self { spec, act: Arc::new(act) }
    }

    pub fn with(mut self, change: impl FnOnce(&mut ToolSpec)) -> Self {
        change(&mut self.spec);
        self
    }
}

impl Tool for Does {
    fn spec(&self) -> ToolSpec {
        self.spec.clone()
    }

    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        (self.act)(attempt)
    }
}

/// Sleeps as long as its input says, and answers its input.
fn sleeper(name: &str) -> Does {
    Does::new(name, |attempt| {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(attempt.input["ms"].as_u64().unwrap_or(100))).await;
            Ok(Output::json((*attempt.input).clone()))
        })
    })
}

/// Answers at its time-out, but its work goes on for as long as its input says.
fn straggler() -> Does {
    Does::new("stray", |attempt| {
        let hold = attempt.hold();
        Box::pin(async move {
            let ms = attempt.input["ms"].as_u64().unwrap_or(100);
            tokio::spawn(work_on(hold, Duration::from_millis(ms)));
            std::future::pending().await
        })
    })
}

pub async fn work_on(hold: Hold, for_so_long: Duration) {
    tokio::time::sleep(for_so_long).await;
    drop(hold);
}

pub fn toolbox(tools: impl IntoIterator<Item = Does>) -> Arc<Toolbox> {
    let mut toolbox = Toolbox::new();
    for tool in tools {
        toolbox.add(tool).unwrap();
    }
    Arc::new(toolbox)
}

pub fn words(outcomes: &[Arc<Outcome>]) -> String {
    let word = |outcome: &Arc<Outcome>| outcome.error_code().map_or("ok", ErrorCode::as_str);
    outcomes.iter().map(word).collect::<Vec<_>>().join(" ")
}

pub async fn all(run: &mut Run, calls: impl IntoIterator<Item = (&'static str, Value)>) -> Vec<Arc<Outcome>> {
    let mut batch = run.batch();
    for (at, (tool, input)) in calls.into_iter().enumerate() {
        batch.call(Call::new(at as u32, format!("c{at}"), tool, input)).unwrap();
    }
    batch.finish().await
}

pub fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Panics when it is dropped.
struct Trap;

impl Drop for Trap {
    fn drop(&mut self) {
        panic!("in drop");
    }
}

/// Answers at once, and panics when it is taken down.
struct Trapped(Trap);

impl Future for Trapped {
    type Output = Result<Output, ToolError>;

    fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::task::Poll::Ready(Ok(Output::text("done")))
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_anywhere_in_a_tool_is_one_outcome_and_hurts_nobody_else() {
    let tools = [
        Does::new("in_call", |_| panic!("in call")),
        Does::new("in_poll", |_| Box::pin(async { panic!("in poll") })),
        Does::new("in_drop", |_| Box::pin(Trapped(Trap))),
        Does::new("stopped", |_| {
            Box::pin(async {
                let _trap = Trap;
                std::future::pending().await
            })
        }),
        sleeper("fine"),
    ];
    let scheduler = Scheduler::new(SchedulerOptions { in_flight_max: 1, ..SchedulerOptions::default() });
    let mut run = scheduler.run(toolbox(tools), RunOptions::new("run"));
    let key = json!({"key": "a"});
    let calls = ["in_call", "in_poll", "in_drop", "stopped", "fine"].map(|tool| (tool, key.clone()));
    assert_eq!(words(&all(&mut run, calls).await), "internal internal ok outcome_unknown ok");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_at_once_take_as_long_as_one() {
    let scheduler = Scheduler::new(SchedulerOptions::default());
    let mut run = scheduler.run(toolbox([sleeper("sleep")]), RunOptions::new("run"));
    let started = Instant::now();
    let outcomes = all(&mut run, (0..1000).map(|at| ("sleep", json!({"key": at})))).await;
    assert_eq!(started.elapsed(), ms(100));
    assert!(outcomes.iter().enumerate().all(|(at, outcome)| outcome.call.as_str() == format!("c{at}")));
    assert!(outcomes.iter().all(|outcome| outcome.error_code().is_none()));
}

#[tokio::test(start_paused = true)]
async fn five_hundred_runs_share_one_key_in_the_order_of_their_coming() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    let tool = Does::new("write", move |attempt| {
        let seen = Arc::clone(&seen);
        Box::pin(async move {
            seen.lock().unwrap().push(attempt.run.to_string());
            tokio::time::sleep(ms(10)).await;
            Ok(Output::text("done"))
        })
    });
    let (scheduler, toolbox) = (Scheduler::new(SchedulerOptions::default()), toolbox([tool]));
    let started = Instant::now();
    let mut runs: Vec<Run> =
        (0..500).map(|at| scheduler.run(Arc::clone(&toolbox), RunOptions::new(at.to_string()))).collect();
    let tasks: Vec<_> = runs
        .drain(..)
        .map(|mut run| tokio::spawn(async move { words(&all(&mut run, [("write", json!({"key": "one"}))]).await) }))
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), "ok");
    }
    assert_eq!(started.elapsed(), ms(5000));
    assert_eq!(*order.lock().unwrap(), (0..500).map(|at| at.to_string()).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn with_one_slot_calls_take_turns_and_none_is_lost() {
    let scheduler = Scheduler::new(SchedulerOptions { in_flight_max: 1, ..SchedulerOptions::default() });
    let mut run = scheduler.run(toolbox([sleeper("sleep")]), RunOptions::new("run"));
    let started = Instant::now();
    let outcomes = all(&mut run, (0..20).map(|at| ("sleep", json!({"key": at})))).await;
    assert_eq!((started.elapsed(), outcomes.len()), (ms(2000), 20));
}

#[tokio::test(start_paused = true)]
async fn a_stray_keeps_its_locks_until_it_is_gone_also_into_the_next_batch() {
    for (work, expected) in [(300, 1000), (1500, 1500), (60_000, 6000)] {
        let scheduler = Scheduler::new(SchedulerOptions::default());
        let mut run = scheduler.run(toolbox([straggler(), sleeper("sleep")]), RunOptions::new("run"));
        let started = Instant::now();
        let outcomes =
            all(&mut run, [("stray", json!({"key": "a", "ms": work})), ("sleep", json!({"key": "b"}))]).await;
        assert_eq!((words(&outcomes).as_str(), started.elapsed()), ("outcome_unknown ok", ms(1000)));
        let outcomes = all(&mut run, [("sleep", json!({"key": "a", "ms": 0})), ("sleep", json!({"key": "b"}))]).await;
        assert_eq!(words(&outcomes), "ok ok");
        assert_eq!(started.elapsed(), ms(expected.max(1100)), "work of {work} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stray_of_a_dropped_batch_holds_its_locks_no_longer_than_stray_hold() {
    let scheduler = Scheduler::new(SchedulerOptions::default());
    let toolbox = toolbox([straggler(), sleeper("sleep")]);
    let mut run = scheduler.run(Arc::clone(&toolbox), RunOptions::new("run"));
    let mut batch = run.batch();
    batch.call(Call::new(0, "c0", "stray", json!({"key": "a", "ms": 600_000}))).unwrap();
    batch.commit();
    while batch.unanswered() > 0 {
        batch.progress().await;
    }
    // Answered at its time-out of one second, and dropped instead of finished.
    drop(batch);
    let started = Instant::now();
    let mut other = scheduler.run(toolbox, RunOptions::new("other"));
    assert_eq!(words(&all(&mut other, [("sleep", json!({"key": "a", "ms": 0}))]).await), "ok");
    assert_eq!(started.elapsed(), ms(5000));
    let same = all(&mut run, [("sleep", json!({"key": "a", "ms": 0}))]).await;
    assert_eq!(words(&same), "ok");
}

#[tokio::test(start_paused = true)]
async fn dropping_a_batch_gives_everything_back() {
    let options = SchedulerOptions { in_flight_max: 2, ..SchedulerOptions::default() };
    let scheduler = Scheduler::new(options);
    let toolbox = toolbox([sleeper("sleep")]);
    for _ in 0..50 {
        let mut run = scheduler.run(Arc::clone(&toolbox), RunOptions::new("run"));
        let calls = (0..10).map(|at| ("sleep", json!({"key": at % 3, "ms": 1000})));
        let dropped = tokio::time::timeout(ms(10), all(&mut run, calls)).await;
        assert!(dropped.is_err());
    }
    let started = Instant::now();
    let mut run = scheduler.run(toolbox, RunOptions::new("last"));
    assert_eq!(words(&all(&mut run, (0..4).map(|at| ("sleep", json!({"key": at})))).await), "ok ok ok ok");
    assert_eq!(started.elapsed(), ms(200));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_batch_has_an_outcome_for_every_call_that_came_and_comes() {
    let scheduler = Scheduler::new(SchedulerOptions { in_flight_max: 1, ..SchedulerOptions::default() });
    let toolbox = toolbox([sleeper("sleep"), sleeper("read").with(|spec| spec.policy.idempotent = true)]);
    let mut run = scheduler.run(toolbox, RunOptions::new("run"));
    let mut batch = run.batch();
    for (at, tool) in ["sleep", "sleep", "read", "nobody"].into_iter().enumerate() {
        batch.call(Call::new(at as u32, format!("c{at}"), tool, json!({"key": "a"}))).unwrap();
    }
    batch.commit();
    batch.progress().await;
    batch.cancel("the run was stopped");
    batch.call(Call::new(4, "c4", "sleep", json!({"key": "a"}))).unwrap();
    let started = Instant::now();
    assert_eq!(words(&batch.finish().await), "ok outcome_unknown cancelled unknown_tool cancelled");
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_time_without_end_is_no_reason_to_panic() {
    let patient = sleeper("patient").with(|spec| {
        (spec.policy.timeout, spec.policy.deadline) = (Duration::MAX, Duration::MAX);
    });
    let scheduler = Scheduler::new(SchedulerOptions { stray_hold: Duration::MAX, ..SchedulerOptions::default() });
    let mut run = scheduler.run(toolbox([patient, straggler()]), RunOptions::new("run"));
    let calls = [("patient", json!({"key": "a"})), ("stray", json!({"key": "b", "ms": 5000}))];
    assert_eq!(words(&all(&mut run, calls).await), "ok outcome_unknown");
    let started = Instant::now();
    assert_eq!(words(&all(&mut run, [("patient", json!({"key": "b", "ms": 0}))]).await), "ok");
    assert_eq!(started.elapsed(), ms(4000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_blocks_its_thread_is_answered_on_time_and_keeps_its_locks() {
    let (release, blocked) = mpsc::channel::<()>();
    let (blocked, done) = (Arc::new(Mutex::new(blocked)), Arc::new(AtomicUsize::new(0)));
    let after = Arc::clone(&done);
    let block = Does::new("block", move |_| {
        let (blocked, done) = (Arc::clone(&blocked), Arc::clone(&done));
        Box::pin(async move {
            let _ = blocked.lock().unwrap().recv();
            done.fetch_add(1, Ordering::SeqCst);
            Ok(Output::text("late"))
        })
    })
    .with(|spec| spec.policy.timeout = ms(20));
    let look = Does::new("look", move |_| {
        let seen = after.load(Ordering::SeqCst);
        Box::pin(async move { Ok(Output::json(json!(seen))) })
    });
    let free = Does::new("free", move |_| {
        let release = release.clone();
        Box::pin(async move {
            let _ = release.send(());
            Ok(Output::text("released"))
        })
    });
    let scheduler =
        Scheduler::new(SchedulerOptions { stray_hold: Duration::from_secs(600), ..SchedulerOptions::default() });
    let mut run = scheduler.run(toolbox([block, look, free]), RunOptions::new("run"));
    let first = all(&mut run, [("block", json!({"key": "a"}))]).await;
    assert_eq!(words(&first), "outcome_unknown");
    // The next batch looks at what the blocked call wrote; it may only do so once that is really over.
    let next = all(&mut run, [("look", json!({"key": "a"})), ("free", json!({"key": "b"}))]).await;
    assert_eq!(next[0].result.as_ref().unwrap().value(), json!(1));
}

#[tokio::test(start_paused = true)]
async fn references_are_filled_once_and_a_failure_skips_by_name() {
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let sink = Arc::clone(&seen);
    let echo = Does::new("echo", move |attempt| {
        sink.lock().unwrap().insert(attempt.call.to_string(), (*attempt.input).clone());
        Box::pin(async move { Ok(Output::json(attempt.input["out"].clone())) })
    });
    let fail = Does::new("fail", |_| Box::pin(async { Err(ToolError::Failed("no such order".into())) }));
    let scheduler = Scheduler::new(SchedulerOptions::default());
    let mut run = scheduler.run(toolbox([echo, fail]), RunOptions::new("run"));
    let mut batch = run.batch();
    let output = |on: &str| Link { on: on.into(), need: Need::Output { label: on.to_owned() } };
    let trick = json!({"id": 7, "trick": {"$ref": "a#/id"}});
    let calls = [
        ("a", "echo", json!({"key": "a", "out": trick}), vec![]),
        ("b", "echo", json!({"key": {"$ref": "a#/id"}, "out": {"$ref": "a#/trick"}}), vec![output("a")]),
        ("c", "echo", json!({"key": "c", "out": {"$ref": "a#/nope"}}), vec![output("a")]),
        ("d", "fail", json!({"key": "d"}), vec![]),
        ("e", "echo", json!({"key": {"$ref": "d#"}}), vec![output("d")]),
        ("f", "echo", json!({"key": "f"}), vec![Link { on: "e".into(), need: Need::Success }]),
        ("g", "echo", json!({"key": "g"}), vec![Link { on: "f".into(), need: Need::Order }]),
    ];
    for (at, (id, tool, input, links)) in calls.into_iter().enumerate() {
        batch.call(Call { links, ..Call::new(at as u32, id, tool, input) }).unwrap();
    }
    let outcomes = batch.finish().await;
    assert_eq!(words(&outcomes), "ok ok unresolved_reference upstream skipped skipped ok");
    assert_eq!(seen.lock().unwrap()["b"], json!({"key": 7, "out": {"$ref": "a#/id"}}));
    let message = |at: usize| outcomes[at].result.as_ref().unwrap_err().message.clone();
    assert_eq!(message(4), "not run: it uses the output of `d` (`fail`), which failed");
    assert_eq!(message(5), "not run: it needs `e` (`echo`), which failed");
}

#[tokio::test(start_paused = true)]
async fn a_filled_reference_frees_whoever_waited_for_nothing() {
    let scheduler = Scheduler::new(SchedulerOptions::default());
    let mut run = scheduler.run(toolbox([sleeper("sleep")]), RunOptions::new("run"));
    let mut batch = run.batch();
    let started = Instant::now();
    let link = Link { on: "a".into(), need: Need::Output { label: "a".to_owned() } };
    batch.call(Call::new(0, "a", "sleep", json!({"key": "a", "ms": 100, "id": 7}))).unwrap();
    let narrowing = Call::new(1, "b", "sleep", json!({"key": {"$ref": "a#/id"}, "ms": 900}));
    batch.call(Call { links: vec![link], ..narrowing }).unwrap();
    // It would wait for all of `b`, had `b` not turned out to write `k/7` alone.
    batch.call(Call::new(2, "c", "sleep", json!({"key": "c", "ms": 900}))).unwrap();
    assert_eq!(words(&batch.finish().await), "ok ok ok");
    assert_eq!(started.elapsed(), ms(1000));
}

#[tokio::test(start_paused = true)]
async fn declared_order_and_stop_on_failure_hold_back_their_own_and_nobody_else() {
    let fail = |name: &str| {
        Does::new(name, |_| {
            Box::pin(async {
                tokio::time::sleep(ms(100)).await;
                Err(ToolError::Failed("no such order".into()))
            })
        })
    };
    let of_set = |spec: &mut ToolSpec| {
        (spec.source, spec.policy.stop_on_failure) = (Source::http("set.test"), true);
        spec.effects.inferred_writes = EffectsSpec::writes_all_of(&spec.source).inferred_writes;
    };
    let tools = [
        fail("fail").with(of_set),
        sleeper("step").with(of_set),
        sleeper("follower").with(|spec| spec.policy.after = vec!["fail".into(), "step".into()]),
        sleeper("other"),
    ];
    let scheduler = Scheduler::new(SchedulerOptions::default());
    let mut run = scheduler.run(toolbox(tools), RunOptions::new("run"));
    let started = Instant::now();
    let calls = ["other", "step", "fail", "step", "follower", "other", "step"];
    let calls = calls.iter().enumerate().map(|(at, tool)| (*tool, json!({ "key": at })));
    // The two steps after the failure are skipped; who is only declared to follow goes on, and the others never waited.
    assert_eq!(words(&all(&mut run, calls).await), "ok ok upstream skipped ok ok skipped");
    assert_eq!(started.elapsed(), ms(300));
}

#[tokio::test(start_paused = true)]
async fn one_call_can_be_cancelled_and_the_others_keep_their_order() {
    let scheduler = Scheduler::new(SchedulerOptions::default());
    let toolbox = toolbox([sleeper("sleep"), sleeper("read").with(|spec| spec.policy.idempotent = true)]);
    // The call that is cancelled, what all came to, and how long it took: the last waits for the first all the same.
    for (cancelled, outcomes, took) in [
        ("c0", "outcome_unknown ok ok", 200),
        ("c1", "ok cancelled ok", 200),
        ("c2", "ok ok cancelled", 200),
        ("nobody", "ok ok ok", 300),
    ] {
        let mut run = scheduler.run(Arc::clone(&toolbox), RunOptions::new("run"));
        let mut batch = run.batch();
        let started = Instant::now();
        batch.commit();
        for (at, tool) in ["sleep", "read", "sleep"].into_iter().enumerate() {
            batch.call(Call::new(at as u32, format!("c{at}"), tool, json!({"key": "a"}))).unwrap();
        }
        batch.cancel_call(&cancelled.into(), "not wanted any more");
        // Once more changes nothing.
        batch.cancel_call(&cancelled.into(), "not wanted any more");
        assert_eq!(words(&batch.finish().await), outcomes, "{cancelled}");
        assert_eq!(started.elapsed(), ms(took), "{cancelled}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_batch_hands_over_each_outcome_once() {
    let scheduler = Scheduler::new(SchedulerOptions::default());
    let mut run = scheduler.run(toolbox([sleeper("sleep")]), RunOptions::new("run"));
    let mut batch = run.batch();
    batch.commit();
    for at in 0..2 {
        batch.call(Call::new(at, format!("c{at}"), "sleep", json!({"key": "a"}))).unwrap();
    }
    assert!(batch.take(&"c0".into()).is_none(), "it has not ended");
    while batch.unanswered() > 1 {
        batch.progress().await;
    }
    assert_eq!(batch.take(&"c0".into()).map(|outcome| outcome.error_code()), Some(None));
    assert!(batch.take(&"c0".into()).is_none(), "it was handed over");
    let rest = batch.finish().await;
    assert_eq!(rest.iter().map(|outcome| outcome.call.as_str()).collect::<Vec<_>>(), ["c1"]);
}

#[tokio::test(start_paused = true)]
async fn calls_that_have_nothing_to_do_with_each_other_need_not_stop_at_a_failure() {
    let of_set = |spec: &mut ToolSpec| (spec.source, spec.policy.stop_on_failure) = (Source::http("set.test"), true);
    let fail = Does::new("fail", |_| Box::pin(async { Err(ToolError::Failed("no such order".into())) }));
    let scheduler = Scheduler::new(SchedulerOptions::default());
    let toolbox = toolbox([fail.with(of_set), sleeper("step").with(of_set)]);
    for (stop_on_failure, outcomes) in [(true, "upstream skipped"), (false, "upstream ok")] {
        let options = RunOptions { stop_on_failure, ..RunOptions::new("run") };
        let mut run = scheduler.run(Arc::clone(&toolbox), options);
        let calls = [("fail", json!({"key": "a"})), ("step", json!({"key": "b"}))];
        assert_eq!(words(&all(&mut run, calls).await), outcomes);
    }
}
