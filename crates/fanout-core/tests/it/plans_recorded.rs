//! Recorded call graphs as plans: each input is exactly the values that it names, at exactly the time when they are there.
//!
//! `FANOUT_WORKLOADS` names the folder of recorded sets, as for `workloads`. How their names become references, and a text in
//! which they are embedded the array of its pieces, is in [`written`](fanout_testing::written).
//!
//! An output is made of its tool, its exact input and its version: wrong input anywhere is another output there and in all that
//! follows. It holds what later calls name of it, and more; some of that looks like a reference and must stay as it is. The
//! oracle makes all inputs and outputs one by one, from the recorded names, and asks no code of the scheduler.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanout_core::call::Call;
use fanout_core::effects::{EffectsSpec, Source};
use fanout_core::outcome::{Content, Output};
use fanout_core::run::{RunOptions, Scheduler};
use fanout_core::tool::{Attempt, BoxFuture, Tool, ToolError, ToolSpec};
use fanout_core::toolbox::Toolbox;
use fanout_testing::recorded::{Case, critical_path, load};
use fanout_testing::seed::{Rng, schedules};
use fanout_testing::written::{Named, Step, Written, answer_of, plan, put};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

/// The seed of all latencies and outputs here.
const SEED: u64 = 7;

/// One case, played once: what each call takes and answers with, by its label, and what it was given.
#[derive(Debug, Default)]
struct Stage {
    calls: BTreeMap<String, (u64, Maker)>,
    inputs: BTreeMap<String, Value>,
}

/// Makes the output of one call.
#[derive(Clone, Debug)]
struct Maker {
    tool: String,
    version: u64,
    /// What is named of the output.
    paths: Vec<Vec<Step>>,
}

impl Maker {
    fn output(&self, input: &Value) -> Value {
        let mut rng = Rng::new(hash(&format!("{}\n{input}\n{}", self.tool, self.version)));
        let mut output = json!({ "made": rng.bits(), "more": odd(&mut rng) });
        for path in &self.paths {
            put(&mut output, path, &json!("an element before"), odd(&mut rng));
        }
        output
    }
}

/// A value of any kind; now and then one that looks like a reference.
fn odd(rng: &mut Rng) -> Value {
    let bits = rng.bits();
    match bits % 6 {
        0 => json!(bits),
        1 => json!(format!("{bits:x} \u{e9}\n")),
        2 => json!([bits, null, { "x": [] }]),
        3 => json!({ "$ref": "var1#", "x": bits }),
        4 => json!([bits, { "$ref": "var1#" }, { "$ref": "1#" }]),
        _ => json!({ "": { "~/": bits } }),
    }
}

fn hash(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

/// A tool of the recorded ones. It touches nothing that others touch: what a plan waits for is what it names.
struct Recorded {
    name: String,
    stage: Arc<Mutex<Stage>>,
}

impl Tool for Recorded {
    fn spec(&self) -> ToolSpec {
        let mut spec = ToolSpec::new(self.name.as_str(), Source::from("recorded"));
        spec.effects = EffectsSpec { reads: Some(Vec::new()), writes: Some(Vec::new()), ..EffectsSpec::default() };
        spec.policy.result_max = usize::MAX;
        spec
    }

    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        let stage = Arc::clone(&self.stage);
        Box::pin(async move {
            let label = attempt.call.as_str().strip_prefix("p/").unwrap_or_default().to_owned();
            let input = (*attempt.input).clone();
            let call = stage.lock().unwrap().calls.get(&label).cloned();
            let Some((ms, maker)) = call else { return Err(ToolError::Failed(format!("no call `{label}`"))) };
            let output = maker.output(&input);
            let before = stage.lock().unwrap().inputs.insert(label, input);
            if before.is_some() {
                return Err(ToolError::Failed("called twice".to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok(Output::json(output))
        })
    }
}

/// What came of a case.
#[derive(Debug, PartialEq)]
struct Came {
    inputs: Vec<Value>,
    answer: Value,
}

struct Rig {
    toolbox: Arc<Toolbox>,
    stage: Arc<Mutex<Stage>>,
    scheduler: Scheduler,
}

impl Rig {
    fn new(cases: &[Case]) -> Self {
        let stage = Arc::new(Mutex::new(Stage::default()));
        let mut names: Vec<&str> = cases.iter().flat_map(|case| &case.calls).map(|call| call.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let mut toolbox = Toolbox::new();
        for name in names {
            toolbox.add(Recorded { name: name.to_owned(), stage: Arc::clone(&stage) }).unwrap();
        }
        toolbox.add_plan(usize::MAX).unwrap();
        Self { toolbox: Arc::new(toolbox), stage, scheduler: Scheduler::default() }
    }

    /// Runs the plan of a case; answers what came of it, and how many milliseconds it took.
    async fn play(&self, case: &Case, takes: &[u64], makers: &[Maker], shown: Option<&[String]>) -> (Came, u64) {
        let calls = case.calls.iter().zip(takes.iter().zip(makers));
        let calls = calls.map(|(call, (ms, maker))| (call.id.clone(), (*ms, maker.clone()))).collect();
        *self.stage.lock().unwrap() = Stage { calls, inputs: BTreeMap::new() };
        let mut run = self.scheduler.run(Arc::clone(&self.toolbox), RunOptions::new("run"));
        let mut batch = run.batch();
        batch.call(Call::new(0, "p", "plan", plan(case, shown))).unwrap();
        let started = Instant::now();
        let outcomes = batch.finish().await;
        let took = started.elapsed().as_millis() as u64;
        let answer = outcomes.iter().find(|outcome| outcome.call.as_str() == "p").unwrap();
        assert!(!answer.is_error(), "{}: {answer:?}", case.id);
        let [Content::Text(text)] = &*answer.shown else { panic!("{}: {answer:?}", case.id) };
        let answer = serde_json::from_str(text).unwrap();
        let inputs = &self.stage.lock().unwrap().inputs;
        let input = |call: &fanout_testing::recorded::Recorded| inputs.get(&call.id).cloned().unwrap_or_default();
        (Came { inputs: case.calls.iter().map(input).collect(), answer }, took)
    }
}

/// How the oracle fills an input: as it is right, or wrong in one of the ways in which a filler can be wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fills {
    Right,
    /// The output of the call before the one that is named.
    TheOneBefore,
    /// The whole output where a part of it is named, and in an array where all of it is.
    TooMuch,
    /// The value's text.
    AsText,
    /// The last of the references stays as it is written.
    AllButTheLast,
    /// What is filled in is looked through for references, too.
    Again,
}

/// The oracle: all inputs and outputs one by one.
fn one_by_one(case: &Case, makers: &[Maker], fills: Fills, shown: Option<&[Named]>) -> Came {
    let mut outputs: Vec<Value> = Vec::new();
    let mut inputs = Vec::new();
    for (at, maker) in makers.iter().enumerate() {
        let written = Written::input(case, at);
        let input = match fills {
            Fills::Right => written.filled(&outputs),
            wrong => fill_wrongly(case, &written, &outputs, wrong),
        };
        outputs.push(maker.output(&input));
        inputs.push(input);
    }
    let whole = |call: usize| Named { call, path: Vec::new() };
    let all: Vec<Named> = (0..case.calls.len()).map(whole).collect();
    let mut answer = Map::new();
    for named in shown.unwrap_or(&all) {
        let name = named.reference(case);
        answer.insert(name.trim_end_matches('#').to_owned(), named.of(&outputs[named.call]).clone());
    }
    let is_shown = |at: &usize| shown.unwrap_or(&all).iter().any(|named| named.call == *at);
    let left_out = (0..case.calls.len()).filter(|at| !is_shown(at));
    let sizes: Map<_, _> =
        left_out.map(|at| (case.calls[at].id.clone(), json!(outputs[at].to_string().len()))).collect();
    if !sizes.is_empty() {
        answer.insert("$left_out_bytes".to_owned(), Value::Object(sizes));
    }
    Came { inputs, answer: Value::Object(answer) }
}

fn fill_wrongly(case: &Case, written: &Written, outputs: &[Value], wrong: Fills) -> Value {
    let named = written.named();
    written.with(&|one| {
        let right = one.of(&outputs[one.call]);
        match wrong {
            Fills::TheOneBefore => outputs[one.call.checked_sub(1).unwrap_or(outputs.len() - 1)].clone(),
            Fills::TooMuch if one.path.is_empty() => json!([right]),
            Fills::TooMuch => outputs[one.call].clone(),
            Fills::AsText => json!(right.to_string()),
            Fills::AllButTheLast if named.last().is_some_and(|last| std::ptr::eq(*last, one)) => {
                json!({ "$ref": one.reference(case) })
            }
            Fills::Again => again(right, &outputs[0]),
            Fills::Right | Fills::AllButTheLast => right.clone(),
        }
    })
}

/// Whatever looks like a reference becomes this.
fn again(value: &Value, found: &Value) -> Value {
    match value {
        Value::Object(fields) if fields.len() == 1 && fields.contains_key("$ref") => found.clone(),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), again(value, found))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| again(item, found)).collect()),
        other => other.clone(),
    }
}

/// What every call of the case answers with in this schedule.
fn makers(case: &Case, schedule: u64) -> Vec<Maker> {
    let inputs: Vec<Written> = (0..case.calls.len()).map(|at| Written::input(case, at)).collect();
    let result = Written::read(&case.result, case);
    let named: Vec<&Named> = inputs.iter().chain([&result]).flat_map(Written::named).collect();
    let maker = |(at, call): (usize, &fanout_testing::recorded::Recorded)| Maker {
        tool: call.name.clone(),
        version: (schedule << 16) | at as u64,
        paths: named.iter().filter(|one| one.call == at).map(|one| one.path.clone()).collect(),
    };
    case.calls.iter().enumerate().map(maker).collect()
}

fn takes(rng: &mut Rng, case: &Case) -> Vec<u64> {
    case.calls.iter().map(|_| rng.log_normal(300.0, 0.5).round().max(1.0) as u64).collect()
}

fn needs(case: &Case) -> Vec<Vec<usize>> {
    case.calls.iter().map(|call| call.depends_on.clone()).collect()
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Plays every case 20 times where `FANOUT_SCHEDULES` asks for 1,000, every other time with a `return` of what its answer is
/// made of.
#[track_caller]
fn check(stem: &str) {
    let Some(cases) = load(stem) else { return };
    let rig = Rig::new(&cases);
    paused().block_on(async {
        for (at, case) in cases.iter().enumerate() {
            let shown = answer_of(case);
            let names: Vec<String> =
                shown.iter().map(|one| one.reference(case).trim_end_matches('#').to_owned()).collect();
            for schedule in 0..schedules().div_ceil(50) as u64 {
                let seed = (SEED << 32) ^ (at as u64 * 1_000_003 + schedule);
                let (takes, makers) = (takes(&mut Rng::new(seed), case), makers(case, seed));
                let (shown, names) = if schedule % 2 == 1 { (Some(&*shown), Some(&*names)) } else { (None, None) };
                let (came, took) = rig.play(case, &takes, &makers, names).await;
                let truth = one_by_one(case, &makers, Fills::Right, shown);
                assert_eq!(came, truth, "{}, schedule {schedule}", case.id);
                assert_eq!(took, critical_path(&needs(case), &takes), "{}, schedule {schedule}, {takes:?}", case.id);
            }
        }
    });
    eprintln!("{stem}: {} cases, each as {} plans", cases.len(), schedules().div_ceil(50));
}

/// The same comparison with an oracle that fills wrongly must see it in so many cases of a hundred.
#[track_caller]
fn check_alive(stem: &str, least: &[(Fills, f64)]) {
    let Some(cases) = load(stem) else { return };
    let rig = Rig::new(&cases);
    for (fills, least) in least {
        let mut differ = 0;
        for (at, case) in cases.iter().enumerate() {
            let (takes, makers) = (vec![1; case.calls.len()], makers(case, at as u64));
            let (came, _) = paused().block_on(rig.play(case, &takes, &makers, None));
            differ += usize::from(came.inputs != one_by_one(case, &makers, *fills, None).inputs);
        }
        let share = 100.0 * differ as f64 / cases.len() as f64;
        eprintln!("{stem}, {fills:?}: {share:.1}% of the cases differ (at least {least}%)");
        assert!(share >= *least, "{stem}, {fills:?}: only {share:.1}% differ: the comparison is asleep");
    }
}

#[test]
fn every_recorded_graph_as_a_plan_gets_exactly_what_it_names_and_takes_its_critical_path() {
    check("nestful");
    check("parallelqa");
}

#[test]
fn a_filler_that_is_wrong_would_be_seen() {
    let everywhere = [Fills::TheOneBefore, Fills::TooMuch, Fills::AsText, Fills::AllButTheLast];
    for stem in ["nestful", "parallelqa"] {
        // Not every value that is named looks like a reference.
        let mut least = everywhere.map(|fills| (fills, 100.0)).to_vec();
        least.push((Fills::Again, 10.0));
        check_alive(stem, &least);
    }
}

#[test]
fn what_a_recorded_call_names_is_what_it_depends_on() {
    for stem in ["nestful", "parallelqa"] {
        let Some(cases) = load(stem) else { return };
        for case in &cases {
            for (at, call) in case.calls.iter().enumerate() {
                let written = Written::input(case, at);
                let mut named: Vec<usize> = written.named().into_iter().map(|one| one.call).collect();
                named.sort_unstable();
                named.dedup();
                let mut depends_on = call.depends_on.clone();
                depends_on.sort_unstable();
                assert_eq!(named, depends_on, "{}, `{}`", case.id, call.id);
            }
        }
    }
}
