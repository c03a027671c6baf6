//! Runs of the real scheduler as traces: every document is a good one and tells the events' own numbers.
//!
//! Time is paused. What is drawn is judged by `judge`.

mod judge;

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanout_core::approval::{Approval, Approver, Asked, Decision, Question, Said};
use fanout_core::call::Call;
use fanout_core::effects::{EffectsSpec, Source, Template};
use fanout_core::event::{Event, Recorder, RunKind, Tokens, What};
use fanout_core::limits::LimitOptions;
use fanout_core::outcome::Output;
use fanout_core::run::{Run, RunOptions, Scheduler, SchedulerOptions};
use fanout_core::tool::{Attempt, BoxFuture, Tool, ToolError, ToolSpec};
use fanout_core::toolbox::Toolbox;
use fanout_testing::seed::{Rng, each_seed};
use serde_json::{Value, json};
use tokio::runtime::Builder;

use judge::{judged, nanos, of};

const HOSTILE: [&str; 4] = ["", "\u{1b}[2J\"},{\"ph\":\"X\"", "a\nb\u{0}c\\", "../../\u{202e}ö\u{1f980}"];

/// Takes `ms`, fails so often (`fails`), writes `k/{key}`; at its time-out `stray` ms of its work are left.
struct Does(ToolSpec);

impl Does {
    fn new(name: &str) -> Self {
        let mut spec = ToolSpec::new(name, Source::function());
        spec.effects = EffectsSpec { writes: Some(vec![Template::parse("k/{key}").unwrap()]), ..spec.effects };
        (spec.policy.timeout, spec.policy.idempotent) = (Duration::from_secs(1), true);
        spec.policy.limit = Some("api".into());
        if name == "pays" {
            spec.policy.approval = Approval::Always;
        }
        Self(spec)
    }
}

impl Tool for Does {
    fn spec(&self) -> ToolSpec {
        self.0.clone()
    }

    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        Box::pin(async move {
            let number = |field: &str| attempt.input[field].as_u64().unwrap_or(0);
            let hold = attempt.hold();
            if let stray @ 1.. = number("stray") {
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(stray)).await;
                    drop(hold);
                });
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(number("ms"))).await;
            if u64::from(attempt.number) <= number("fails") {
                return Err(ToolError::Broken("\"reset\u{7}".into()));
            }
            Ok(Output::json(json!([{"key": "x", "ms": 5}, {"key": "y", "ms": 7}])))
        })
    }
}

/// Agrees after 80 ms.
struct People;

impl Approver for People {
    fn ask(&self, question: Question) -> BoxFuture<'static, Result<Asked, String>> {
        let decision = Box::pin(async {
            tokio::time::sleep(Duration::from_millis(80)).await;
            Decision::Approved(Said::default())
        });
        Box::pin(async move { Ok(Asked { approval: format!("apr_{}", question.call).into(), decision }) })
    }
}

#[derive(Default)]
struct Kept(Mutex<Vec<Event>>);

impl Recorder for Kept {
    fn record(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

struct Rig {
    scheduler: Scheduler,
    kept: Arc<Kept>,
}

impl Rig {
    fn new(concurrency: u32) -> Self {
        let limit = LimitOptions { concurrency: NonZeroU32::new(concurrency), ..LimitOptions::default() };
        let options = SchedulerOptions {
            limits: [("api".into(), limit)].into(),
            stray_hold: Duration::from_secs(3),
            ..SchedulerOptions::default()
        };
        Self { scheduler: Scheduler::new(options), kept: Arc::default() }
    }

    fn run(&self, id: &str) -> Run {
        let mut toolbox = Toolbox::new();
        toolbox.add(Does::new("does")).unwrap();
        toolbox.add(Does::new("pays")).unwrap();
        toolbox.add_plan(1_000_000).unwrap();
        let recorder: Arc<dyn Recorder> = Arc::clone(&self.kept) as _;
        self.scheduler.run(
            Arc::new(toolbox),
            RunOptions { recorder: Some(recorder), approver: Some(Arc::new(People)), ..RunOptions::new(id) },
        )
    }

    fn events(&self) -> Vec<Event> {
        self.kept.0.lock().unwrap().clone()
    }
}

/// One turn: the model is asked, answers after so long, and its calls run.
async fn turn(run: &mut Run, number: u32, model_ms: u64, calls: Vec<(String, Value)>, ends: Ends) {
    run.record(|| What::TurnStarted { turn: number });
    tokio::time::sleep(Duration::from_millis(model_ms)).await;
    if matches!(ends, Ends::Discarded) {
        let mut batch = run.batch();
        for (at, (tool, input)) in calls.into_iter().enumerate() {
            batch.call(Call::new(at as u32, format!("t{number}c{at}"), tool.as_str(), input)).unwrap();
        }
        batch.discard("the stream broke off");
        run.record(|| What::TurnDiscarded { turn: number, reason: "the stream broke off".into() });
        return;
    }
    let stop_reason = "tool_use".to_owned();
    run.record(|| What::ModelEnded {
        turn: number,
        stop_reason,
        tokens: Tokens::default(),
        cost_usd: None,
        state: None,
    });
    let mut batch = run.batch();
    for (at, (tool, input)) in calls.into_iter().enumerate() {
        batch.call(Call::new(at as u32, format!("t{number}c{at}"), tool.as_str(), input)).unwrap();
    }
    batch.commit();
    if let Ends::Cancelled(ms) = ends {
        let until = tokio::time::Instant::now() + Duration::from_millis(ms);
        while batch.unanswered() > 0 && tokio::time::timeout_at(until, batch.progress()).await.is_ok() {}
        batch.cancel("stopped");
    }
    batch.finish().await;
    run.record(|| What::TurnEnded { turn: number });
}

enum Ends {
    Well,
    Cancelled(u64),
    Discarded,
}

fn random_call(rng: &mut Rng) -> (String, Value) {
    let key = format!("k{}", rng.below(3));
    match rng.below(12) {
        0 => ("nobody".into(), json!({})),
        1 => ((*rng.pick(&HOSTILE)).into(), json!({})),
        2 => ("plan".into(), json!({"calls": "not a list"})),
        3 => ("plan".into(), plan()),
        7 => ("pays".into(), json!({"key": key, "ms": rng.below(90)})),
        4 => ("does".into(), json!({"key": key, "stray": 500 + rng.below(6_000)})),
        5 | 6 => ("does".into(), json!({"key": key, "ms": rng.below(90), "fails": 1 + rng.below(5)})),
        _ => ("does".into(), json!({"key": key, "ms": rng.below(200)})),
    }
}

fn plan() -> Value {
    json!({"calls": [
        {"label": "first", "tool": "does", "input": {"key": "p", "ms": 20}},
        {"label": "each", "tool": "does", "for_each": {"$ref": "first#"}, "input": {"key": {"$ref": "item#/key"}, "ms": {"$ref": "item#/ms"}}},
        {"label": "last", "tool": "does", "input": {"key": "z", "ms": 10}, "needs": ["each"]},
    ]})
}

fn on_paused_time(play: impl Future<Output = ()>) {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(play);
}

#[test]
fn every_run_is_a_good_trace_that_tells_the_numbers_of_its_events() {
    each_seed(10, |seed| {
        on_paused_time(async {
            let mut rng = Rng::new(seed);
            let rig = Rig::new(1 + rng.below(4) as u32);
            let mut run = rig.run(["run_1", HOSTILE[1], HOSTILE[3]][rng.below(3)]);
            run.record(|| What::RunStarted { kind: RunKind::Agent, given: "".into() });
            for number in 1..=1 + rng.below(3) as u32 {
                let calls = (0..rng.below(9)).map(|_| random_call(&mut rng)).collect();
                let ends = match rng.below(5) {
                    0 => Ends::Cancelled(rng.below(300) as u64),
                    1 => Ends::Discarded,
                    _ => Ends::Well,
                };
                turn(&mut run, number, rng.below(100) as u64, calls, ends).await;
            }
            run.record(|| What::RunEnded { status: "done", reason: None });
            let events = rig.events();
            judged(&events);
            // A run that was killed anywhere is one too.
            judged(&events[..rng.below(events.len())]);
        });
    });
}

#[test]
fn a_call_is_drawn_with_what_it_waited_for_and_the_arrow_to_it() {
    on_paused_time(async {
        let rig = Rig::new(10);
        let does = |key: &str, ms: u64| ("does".to_owned(), json!({"key": key, "ms": ms}));
        turn(&mut rig.run("run_1"), 1, 200, vec![does("a", 100), does("b", 30), does("a", 50)], Ends::Well).await;
        let document = judged(&rig.events());
        let model = &of(&document, "X", "model")[0];
        assert_eq!((model["name"].as_str(), nanos(&model["dur"])), (Some("turn 1"), 200_000_000));
        let calls = of(&document, "X", "call");
        let tracks: Vec<u64> = calls.iter().map(|call| call["tid"].as_u64().unwrap()).collect();
        assert_eq!(tracks, [2, 3, 4], "a track each, since they are there at once");
        assert_eq!(calls[2]["args"]["waits"], json!([{"on": "t1c0", "why": "conflict", "key": "k/a"}]));
        let waits = of(&document, "X", "wait");
        assert_eq!((waits.len(), &waits[0]["name"], nanos(&waits[0]["dur"])), (1, &json!("batch"), 100_000_000));
        let (start, finish) = (of(&document, "s", "waits"), of(&document, "f", "waits"));
        assert_eq!((start.len(), &start[0]["tid"], &finish[0]["tid"]), (1, &json!(2), &json!(4)));
        assert_eq!((nanos(&start[0]["ts"]), nanos(&finish[0]["ts"])), (299_999_999, 300_000_000));
        let about = &document["otherData"]["runs"][0];
        assert_eq!((&about["run"], about["elapsed_us"].as_f64()), (&json!("run_1"), Some(350_000.0)));
    });
}

#[test]
fn the_wait_for_a_person_is_drawn_between_its_other_waits() {
    on_paused_time(async {
        let rig = Rig::new(10);
        let call = |tool: &str, key: &str, ms: u64| (tool.to_owned(), json!({"key": key, "ms": ms}));
        turn(&mut rig.run("run_1"), 1, 200, vec![call("does", "a", 100), call("pays", "a", 30)], Ends::Well).await;
        let document = judged(&rig.events());
        let waits = of(&document, "X", "wait");
        let waits: Vec<(&str, i64)> =
            waits.iter().map(|wait| (wait["name"].as_str().unwrap(), nanos(&wait["dur"]) / 1_000_000)).collect();
        assert_eq!(waits, [("approval", 80), ("batch", 20)]);
    });
}

#[test]
fn tracks_are_used_again() {
    on_paused_time(async {
        let rig = Rig::new(10);
        let mut run = rig.run("run_1");
        for number in 1..=20 {
            let calls = (0..3).map(|at| ("does".to_owned(), json!({"key": format!("k{at}"), "ms": 5}))).collect();
            turn(&mut run, number, 1, calls, Ends::Well).await;
        }
        let document = judged(&rig.events());
        assert_eq!(of(&document, "X", "call").len(), 60);
        let tracks = of(&document, "M", "").into_iter().filter(|entry| entry["name"] == "thread_name");
        assert_eq!(tracks.count(), 1 + 3);
    });
}

#[test]
fn a_stray_is_drawn_behind_its_call_and_its_end_is_told() {
    on_paused_time(async {
        let rig = Rig::new(10);
        let mut run = rig.run("run_1");
        turn(&mut run, 1, 0, vec![("does".into(), json!({"key": "a", "stray": 9_000}))], Ends::Well).await;
        turn(&mut run, 2, 0, vec![("does".into(), json!({"key": "a", "ms": 5}))], Ends::Well).await;
        let document = judged(&rig.events());
        let stray = &of(&document, "X", "stray")[0];
        assert!(nanos(&stray["dur"]) > 0 && stray["args"]["call"] == "t1c0", "{stray}");
        let told = of(&document, "i", "moment");
        assert_eq!(told.iter().filter(|moment| moment["name"] == "stray given up").count(), 1);
    });
}

#[test]
fn runs_are_a_process_each_and_no_events_are_no_entries() {
    on_paused_time(async {
        let rig = Rig::new(10);
        for id in ["run_1", "run_2"] {
            turn(&mut rig.run(id), 1, 10, vec![("does".into(), json!({"key": "a", "ms": 5}))], Ends::Well).await;
        }
        let document = fanout_host::trace::trace(rig.events());
        let processes: Vec<&Value> = of(&document, "X", "call").into_iter().map(|call| &call["pid"]).collect();
        assert_eq!(processes, [&json!(1), &json!(2)]);
        assert_eq!(judged(&[])["traceEvents"], json!([]));
    });
}
