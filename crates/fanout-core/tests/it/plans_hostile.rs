//! Hostile plans and hostile outputs: no panic, an answer each, and never more memory than is allowed.
//!
//! The promises of the parser and of the filler are in [`hostile`](fanout_testing::hostile), which a fuzzer drives too (`fuzz/`).
//! Here seeds do; and whole plans go through a real batch, with tools that answer with what they were given.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fanout_core::call::Call;
use fanout_core::effects::{EffectsSpec, Source};
use fanout_core::event::{Event, Recorder, What};
use fanout_core::outcome::{Content, ErrorCode, Outcome, Output};
use fanout_core::plan::CALLS_MAX;
use fanout_core::run::{RunOptions, Scheduler};
use fanout_core::tool::{Attempt, BoxFuture, Tool, ToolError, ToolSpec};
use fanout_core::toolbox::Toolbox;
use fanout_testing::hostile::{self, Echo, RESULT_MAX};
use fanout_testing::seed::{Rng, each_seed};
use serde_json::{Value, json};

/// How often each call arrived and was answered.
#[derive(Default)]
struct Counted(Mutex<BTreeMap<String, (usize, usize)>>);

impl Recorder for Counted {
    fn record(&self, event: &Event) {
        let mut calls = self.0.lock().unwrap();
        match &event.what {
            What::CallArrived { call, .. } | What::BundleArrived { call, .. } => {
                calls.entry(call.as_str().to_owned()).or_default().0 += 1;
            }
            What::CallEnded { outcome } | What::BundleEnded { outcome } => {
                calls.entry(outcome.call.as_str().to_owned()).or_default().1 += 1;
            }
            _ => {}
        }
    }
}

/// Runs one call of `plan`; it and each of its calls is answered once.
fn run(toolbox: Toolbox, plan: Value) -> Arc<Outcome> {
    let counted = Arc::new(Counted::default());
    let recorder: Arc<dyn Recorder> = Arc::clone(&counted) as _;
    let options = RunOptions { recorder: Some(recorder), ..RunOptions::new("run") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut run = Scheduler::default().run(Arc::new(toolbox), options);
        let mut batch = run.batch();
        batch.call(Call::new(0, "p", "plan", plan)).unwrap();
        let outcomes = batch.finish().await;
        let [outcome] = outcomes.as_slice() else { panic!("one call, and {} outcomes", outcomes.len()) };
        let counted = counted.0.lock().unwrap();
        let odd: Vec<_> = counted.iter().filter(|(_, counts)| **counts != (1, 1)).collect();
        assert!(odd.is_empty(), "these did not arrive and end once: {odd:?}");
        Arc::clone(outcome)
    })
}

/// What became of the plan, as the model reads it.
fn answer(answer: &Outcome) -> Value {
    let [Content::Text(text)] = &*answer.shown else { panic!("{answer:?}") };
    serde_json::from_str(text).unwrap()
}

/// How many members ended so.
fn ended_as(answer: &Value, code: ErrorCode) -> usize {
    answer.as_object().unwrap().values().filter(|member| member["error"]["code"] == code.as_str()).count()
}

/// The most memory that this process ever had, in MiB; 0 where the kernel does not say.
fn resident_max() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok()).unwrap_or_default() / 1024
}

/// Answers with the same every time, and counts what others are given.
struct Large(Value);

impl Tool for Large {
    fn spec(&self) -> ToolSpec {
        let mut spec = ToolSpec::new("large", Source::from("large"));
        spec.effects = EffectsSpec { reads: Some(Vec::new()), writes: Some(Vec::new()), ..EffectsSpec::default() };
        spec
    }

    fn call(&self, _: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        let output = Output { structured: Some(self.0.clone()), ..Output::text("large") };
        Box::pin(async move { Ok(output) })
    }
}

/// Takes anything, and answers with one word.
#[derive(Clone, Default)]
struct Taker {
    calls: Arc<AtomicUsize>,
    inputs: Arc<Mutex<Vec<Arc<Value>>>>,
}

impl Tool for Taker {
    fn spec(&self) -> ToolSpec {
        let mut spec = ToolSpec::new("take", Source::from("taker"));
        spec.effects = EffectsSpec { reads: Some(Vec::new()), writes: Some(Vec::new()), ..EffectsSpec::default() };
        spec
    }

    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        // All inputs are held until the end: the worst that tools can do.
        self.inputs.lock().unwrap().push(Arc::clone(&attempt.input));
        Box::pin(async { Ok(Output::text("taken")) })
    }
}

/// 999 calls refer to one large output; few get it, the others are told that it is too much, and memory stays small.
#[track_caller]
fn check_many_of_one(large: Value, at_most: usize, mib: usize) {
    let taker = Taker::default();
    let mut toolbox = Toolbox::new();
    toolbox.add(Large(large)).unwrap();
    toolbox.add(taker.clone()).unwrap();
    toolbox.add_plan(RESULT_MAX).unwrap();
    let mut calls = vec![json!({ "label": "large", "tool": "large" })];
    let take = |at: usize| json!({ "label": format!("t{at}"), "tool": "take", "input": { "x": { "$ref": "large#" } } });
    calls.extend((1..1000).map(take));
    let before = resident_max();
    let answer = answer(&run(toolbox, json!({ "calls": calls })));
    let grown = resident_max() - before;
    let taken = taker.calls.load(Ordering::Relaxed);
    assert!(taken <= at_most, "{taken} calls were given all of it");
    assert_eq!(ended_as(&answer, ErrorCode::TooLarge), 999 - taken, "{answer}");
    assert!(grown < mib, "{grown} MiB more than before, and {mib} may be");
}

#[test]
fn whatever_is_sent_as_a_plan_is_read_or_refused_in_bounds() {
    each_seed(300, |seed| {
        let mut rng = Rng::new(seed);
        hostile::parse(hostile::plan_text(&mut rng).as_bytes());
        hostile::parse(hostile::json_text(&mut rng, &["c0".to_owned()]).as_bytes());
    });
}

#[test]
fn whatever_is_filled_in_is_what_stands_there_and_in_bounds() {
    each_seed(500, |seed| {
        hostile::fill_in(hostile::filler_text(&mut Rng::new(seed)).as_bytes());
    });
}

#[test]
fn hostile_cases_reach_far() {
    let count = |reaches: &dyn Fn(u64) -> bool| (0..1000).filter(|seed| reaches(*seed)).count();
    let plans = count(&|seed| hostile::parse(hostile::plan_text(&mut Rng::new(seed)).as_bytes()));
    let filled = count(&|seed| hostile::fill_in(hostile::filler_text(&mut Rng::new(seed)).as_bytes()));
    eprintln!("of 1,000 each, {plans} plans are well formed and {filled} templates are filled");
    assert!(plans > 300 && filled > 150, "{plans} plans, {filled} templates: the cases are too hostile to say much");
}

#[test]
fn a_whole_hostile_plan_is_answered_once_and_in_bounds() {
    each_seed(200, |seed| {
        let Ok(plan) = serde_json::from_str::<Value>(&hostile::plan_text(&mut Rng::new(seed))) else { return };
        let answer = run(hostile::toolbox(), plan);
        assert_ne!(answer.error_code(), Some(ErrorCode::Internal), "{answer:?}");
        let bytes: usize =
            answer.shown.iter().map(|one| if let Content::Text(text) = one { text.len() } else { 0 }).sum();
        // Failures and elements are told beyond the bound, in a few words each.
        assert!(bytes <= hostile::MESSAGE_MAX + RESULT_MAX + 100 * CALLS_MAX, "{bytes} bytes");
    });
}

#[test]
fn what_looks_like_a_reference_in_an_output_stays_as_it_is() {
    let trick = json!([{ "$ref": "first#" }, { "$ref": "item#" }, { "x": { "$ref": "first#/a" } }]);
    let mut toolbox = hostile::toolbox();
    toolbox.add(Large(json!({ "a": trick, "items": trick }))).unwrap();
    let plan = json!({ "calls": [
        { "label": "first", "tool": "large" },
        { "label": "second", "tool": "echo", "input": { "a": { "$ref": "first#/a" } } },
        { "label": "third", "tool": "echo", "input": { "a": [{ "$ref": "second#" }] } },
        { "label": "each", "tool": "echo", "for_each": { "$ref": "first#/items" }, "input": { "a": { "$ref": "item#" } } },
        { "label": "last", "tool": "echo", "input": { "a": { "$ref": "each#/*/a" } } },
    ] });
    let answer = answer(&run(toolbox, plan));
    assert_eq!(answer["second"], json!({ "a": trick }));
    assert_eq!(answer["third"], json!({ "a": [{ "a": trick }] }));
    assert_eq!(answer["each"], json!([{ "a": trick[0] }, { "a": trick[1] }, { "a": trick[2] }]));
    assert_eq!(answer["last"], json!({ "a": trick }));
}

#[test]
fn a_thousand_calls_that_take_a_large_output_do_not_take_gigabytes() {
    const MIB: usize = 1024 * 1024;
    // One more byte than may be filled in.
    check_many_of_one(json!("x".repeat(16 * MIB + 1)), 0, 512);
    check_many_of_one(json!("x".repeat(15 * MIB)), 4, 512);
    // What is short as text and long in memory.
    check_many_of_one(Value::Array(vec![json!([]); MIB]), 8, 1024);
    check_many_of_one(Value::Array(vec![json!({ "": 0 }); MIB / 8]), 7, 1536);
}

#[test]
fn a_chain_that_nests_deeper_each_time_ends_as_too_large() {
    let call = |at: usize| match at {
        0 => json!({ "label": "c0", "tool": "echo" }),
        _ => {
            json!({ "label": format!("c{at}"), "tool": "echo", "input": { "a": { "$ref": format!("c{}#", at - 1) } } })
        }
    };
    let calls: Vec<Value> = (0..300).map(call).collect();
    let answer = answer(&run(hostile::toolbox(), json!({ "calls": calls, "return": ["c0"] })));
    let code = |at: usize| answer[format!("c{at}")]["error"]["code"].as_str();
    let deep = (0..300).find(|at| code(*at).is_some()).unwrap();
    assert_eq!(code(deep), Some(ErrorCode::TooLarge.as_str()));
    assert!((deep + 1..300).all(|at| code(at) == Some(ErrorCode::Skipped.as_str())));
    // What ran could be read again from its text.
    assert!((100..=127).contains(&deep), "call {deep} was the first that was too deep");
}

#[test]
fn a_chain_that_doubles_each_time_ends_as_too_large() {
    let mut toolbox = Toolbox::new();
    toolbox.add(Echo::new("echo")).unwrap();
    toolbox.add_plan(RESULT_MAX).unwrap();
    let call = |at: usize| match at {
        0 => json!({ "label": "c0", "tool": "echo", "input": { "a": "x".repeat(1000) } }),
        _ => {
            let one = json!({ "$ref": format!("c{}#", at - 1) });
            json!({ "label": format!("c{at}"), "tool": "echo", "input": { "a": one, "b": one } })
        }
    };
    let calls: Vec<Value> = (0..60).map(call).collect();
    let before = resident_max();
    let answer = answer(&run(toolbox, json!({ "calls": calls })));
    let grown = resident_max() - before;
    assert_eq!(ended_as(&answer, ErrorCode::TooLarge), 1, "{answer}");
    assert!(ended_as(&answer, ErrorCode::Skipped) > 40, "{answer}");
    assert!(grown < 1024, "{grown} MiB more than before");
}
