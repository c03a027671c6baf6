//! Several runs over one store on the real driver: rule 3 between runs, and rule 6 while a response streams.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanout_core::approval::{Approval, Approver, Asked, Decision, Question, Said};
use fanout_core::call::Call;
use fanout_core::outcome::{ErrorCode, Output};
use fanout_core::run::{RunOptions, Scheduler, SchedulerOptions};
use fanout_core::tool::{Attempt, BoxFuture, Tool, ToolError, ToolSpec};
use fanout_core::toolbox::Toolbox;
use fanout_testing::seed::{Rng, each_seed};
use fanout_testing::store::{Declares, Store, StoreTool};
use fanout_testing::touches::overlap;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep};

/// One call of a generated run.
#[derive(Clone, Debug)]
struct Planned {
    /// Its run, its turn and its place, as text: what the store logs.
    what: String,
    reads: Vec<String>,
    writes: Vec<String>,
    ms: u64,
    /// How long after the one before it arrives.
    after_ms: u64,
    /// Somebody has to agree: after how long they decide, and whether they do.
    asks: Option<(u64, bool)>,
}

impl Planned {
    fn clashes(&self, other: &Self) -> bool {
        let meet = |a: &[String], b: &[String]| a.iter().any(|mine| b.iter().any(|theirs| overlap(mine, theirs)));
        meet(&self.writes, &other.writes) || meet(&self.writes, &other.reads) || meet(&self.reads, &other.writes)
    }

    fn tool(&self) -> &'static str {
        match (self.writes.is_empty(), self.asks) {
            (true, None) => "read",
            (false, None) => "write",
            (true, Some(_)) => "read_asking",
            (false, Some(_)) => "write_asking",
        }
    }

    fn call(&self, index: usize) -> Call {
        let input = StoreTool::input(0, &self.what, &self.reads, &self.writes, self.ms);
        Call::new(index as u32, self.what.as_str(), self.tool(), input)
    }
}

type Turns = Vec<Vec<Planned>>;

fn random_run(rng: &mut Rng, run: usize) -> Turns {
    let key = |rng: &mut Rng| match rng.below(10) {
        0 => "t/*".to_owned(),
        at => format!("{}/{}", if at < 7 { "t" } else { "u" }, rng.below(4)),
    };
    let call = |rng: &mut Rng, turn: usize, at: usize| Planned {
        what: format!("{run}-{turn}-{at}"),
        reads: (0..rng.below(3)).map(|_| key(rng)).collect(),
        writes: (0..rng.below(3)).map(|_| key(rng)).collect(),
        ms: 1 + rng.below(60) as u64,
        after_ms: rng.below(20) as u64,
        asks: rng.percent(30).then(|| (rng.below(100) as u64, rng.percent(80))),
    };
    (0..1 + rng.below(3)).map(|turn| (0..1 + rng.below(6)).map(|at| call(rng, turn, at)).collect()).collect()
}

fn rig(in_flight_max: usize) -> (Scheduler, Arc<Toolbox>, Store) {
    let keys: Vec<String> = ["t", "u"].iter().flat_map(|table| (0..4).map(move |at| format!("{table}/{at}"))).collect();
    let store = Store::of(&keys);
    let stores = Arc::new(Mutex::new(vec![store.clone()]));
    let mut toolbox = Toolbox::new();
    toolbox.add(StoreTool::new("read", &stores, Declares::Reads)).unwrap();
    toolbox.add(StoreTool::new("write", &stores, Declares::All)).unwrap();
    toolbox.add(Asking(StoreTool::new("read_asking", &stores, Declares::Reads))).unwrap();
    toolbox.add(Asking(StoreTool::new("write_asking", &stores, Declares::All))).unwrap();
    let options = SchedulerOptions { in_flight_max, ..SchedulerOptions::default() };
    (Scheduler::new(options), Arc::new(toolbox), store)
}

/// A tool that runs when somebody agrees.
struct Asking(StoreTool);

impl Tool for Asking {
    fn spec(&self) -> ToolSpec {
        let mut spec = self.0.spec();
        spec.policy.approval = Approval::Always;
        spec
    }

    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        self.0.call(attempt)
    }
}

/// Decides as the calls of the run say.
struct People(BTreeMap<String, (u64, bool)>);

impl Approver for People {
    fn ask(&self, question: Question) -> BoxFuture<'static, Result<Asked, String>> {
        let (after, agrees) = self.0[question.call.as_str()];
        let decision = Box::pin(async move {
            sleep(Duration::from_millis(after)).await;
            if agrees { Decision::Approved(Said::default()) } else { Decision::Denied(Said::default()) }
        });
        Box::pin(async move { Ok(Asked { approval: "apr".into(), decision }) })
    }
}

async fn play(scheduler: Scheduler, toolbox: Arc<Toolbox>, id: usize, turns: Turns) -> BTreeMap<String, u64> {
    let asking = turns.iter().flatten().filter_map(|call| Some((call.what.clone(), call.asks?)));
    let people: Arc<dyn Approver> = Arc::new(People(asking.collect()));
    let mut run = scheduler.run(toolbox, RunOptions { approver: Some(people), ..RunOptions::new(id.to_string()) });
    let mut outputs = BTreeMap::new();
    for turn in turns {
        let mut batch = run.batch();
        for (at, call) in turn.iter().enumerate() {
            // The response streams on while calls that entered early run.
            let arrives = Instant::now() + Duration::from_millis(call.after_ms);
            while tokio::time::timeout_at(arrives, batch.progress()).await.is_ok() {}
            batch.call(call.call(at)).unwrap();
        }
        for outcome in batch.finish().await {
            match &outcome.result {
                Ok(output) => drop(outputs.insert(outcome.call.to_string(), output.value().as_u64().unwrap())),
                Err(error) => assert_eq!((error.code, outcome.attempts), (ErrorCode::Denied, 0)),
            }
        }
    }
    outputs
}

/// Plays random runs on this runtime, all at once, and judges what they came to.
fn check(seed: u64, runtime: &Runtime, ms_max: u64) {
    let mut rng = Rng::new(seed);
    let mut runs: Vec<Turns> = (0..2 + rng.below(5)).map(|run| random_run(&mut rng, run)).collect();
    for call in runs.iter_mut().flatten().flatten() {
        (call.ms, call.after_ms) = (call.ms % ms_max, call.after_ms % ms_max);
        call.asks = call.asks.map(|(after, agrees)| (after % ms_max, agrees));
    }
    let (scheduler, toolbox, store) = rig(if rng.percent(50) { 1 + rng.below(4) } else { 1000 });
    let outputs = runtime.block_on(async {
        let tasks: Vec<_> = runs
            .iter()
            .enumerate()
            .map(|(id, turns)| tokio::spawn(play(scheduler.clone(), Arc::clone(&toolbox), id, turns.clone())))
            .collect();
        let mut outputs = BTreeMap::new();
        for task in tasks {
            outputs.extend(task.await.unwrap());
        }
        outputs
    });
    judge(&runs, &store, &outputs);
}

#[test]
fn several_runs_come_to_what_some_one_by_one_order_comes_to() {
    each_seed(40, |seed| {
        check(seed, &Builder::new_current_thread().enable_time().start_paused(true).build().unwrap(), 60);
    });
}

#[test]
fn several_runs_on_several_threads_come_to_the_same() {
    // Real threads and real time: here the messages between runs race each other.
    each_seed(5, |seed| check(seed, &Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap(), 3));
}

/// The order in which calls began is such an order: replayed one by one it gives the same outputs and state, and it keeps
/// the turns of each run and, within a turn, the order of its conflicting calls.
fn judge(runs: &[Turns], store: &Store, outputs: &BTreeMap<String, u64>) {
    let calls: BTreeMap<&str, (usize, usize, usize)> = runs
        .iter()
        .enumerate()
        .flat_map(|(run, turns)| turns.iter().enumerate().map(move |(turn, calls)| (run, turn, calls)))
        .flat_map(|(run, turn, calls)| {
            calls.iter().enumerate().map(move |(at, call)| (call.what.as_str(), (run, turn, at)))
        })
        .collect();
    let begun = store.begun();
    let denied = |call: &&Planned| call.asks.is_some_and(|(_, agrees)| !agrees);
    let denied: Vec<&str> = runs.iter().flatten().flatten().filter(denied).map(|call| call.what.as_str()).collect();
    assert!(begun.iter().all(|what| !denied.contains(&what.as_str())), "nothing begins that was denied");
    assert_eq!(begun.len(), calls.len() - denied.len(), "every other call begins once");
    let (_, _, replayed) = rig(1);
    let mut before: Vec<(usize, usize, usize)> = Vec::new();
    for what in &begun {
        let (run, turn, at) = calls[what.as_str()];
        let call = &runs[run][turn][at];
        let returned = replayed.begin(call.tool(), &call.what, &call.reads);
        replayed.end(returned, &call.writes);
        assert_eq!(outputs[what], returned, "{what} of {begun:?}");
        for (other, other_turn, other_at) in before.iter().filter(|other| other.0 == run) {
            assert!(*other_turn <= turn, "{what} began before a turn that came earlier");
            let clash = *other_turn == turn && call.clashes(&runs[*other][*other_turn][*other_at]);
            assert!(!clash || *other_at < at, "{what} was overtaken by call {other_at}");
        }
        before.push((run, turn, at));
    }
    assert_eq!(replayed.versions(), store.versions());
}

#[tokio::test(start_paused = true)]
async fn while_a_response_streams_only_reads_enter_and_a_broken_one_leaves_nothing() {
    for broken in [false, true] {
        let (scheduler, toolbox, store) = rig(1000);
        let mut run = scheduler.run(toolbox, RunOptions::new("run"));
        let mut batch = run.batch();
        let call = |what: &str, reads: &[&str], writes: &[&str]| Planned {
            what: what.to_owned(),
            reads: reads.iter().map(ToString::to_string).collect(),
            writes: writes.iter().map(ToString::to_string).collect(),
            ms: 100,
            after_ms: 0,
            asks: None,
        };
        let calls = [
            call("early", &["t/1"], &[]),
            call("write", &[], &["t/2"]),
            call("behind", &["t/2"], &[]),
            call("beside", &["t/3"], &[]),
        ];
        for (at, call) in calls.iter().enumerate() {
            batch.call(call.call(at)).unwrap();
        }
        let streams = Instant::now() + Duration::from_millis(500);
        while tokio::time::timeout_at(streams, batch.progress()).await.is_ok() {}
        assert_eq!(store.begun(), ["early", "beside"]);
        if broken {
            batch.discard("the stream broke off");
            sleep(Duration::from_secs(5)).await;
            assert_eq!(store.begun(), ["early", "beside"]);
            assert!(store.versions().values().all(|version| *version == 0));
        } else {
            let values: Vec<Value> =
                batch.finish().await.iter().map(|outcome| outcome.result.as_ref().unwrap().value()).collect();
            assert_eq!((values.len(), store.begun().len()), (4, 4));
            assert_eq!(Instant::now(), streams + Duration::from_millis(200));
        }
    }
}
