//! Recorded call graphs, and our own, on the real scheduler with a paused clock.
//!
//! `FANOUT_WORKLOADS` names the folder of recorded sets; without it only our own graphs are played, and a loud line says
//! so. A case is played with 20 schedules where `FANOUT_SCHEDULES` asks for 1,000, and with more or fewer in proportion:
//! 50,000 give 1,000 a case. Latencies are log-normal, median 300 ms, sigma 0.5, in whole milliseconds, from the seed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use fanout_core::call::{Call, Link, Need};
use fanout_core::run::{RunOptions, Scheduler, SchedulerOptions};
use fanout_core::toolbox::Toolbox;
use fanout_testing::recorded::{Case, critical_path, load, own};
use fanout_testing::seed::{Rng, schedules};
use fanout_testing::store::{Declares, Store, StoreTool};
use serde_json::Value;
use tokio::time::Instant;

const MANY: usize = 1_000_000;

/// The seed of all latencies and orders here.
const SEED: u64 = 1;

/// A toolbox over one store a case: tools keep what they learned of their latency from case to case.
struct Rig {
    toolbox: Arc<Toolbox>,
    stores: Arc<Mutex<Vec<Store>>>,
    scheduler: Scheduler,
}

/// What a case came to: outputs, and the versions of all keys.
type State = (Vec<u64>, BTreeMap<String, u64>);

impl Rig {
    fn new(cases: &[Case], in_flight_max: usize, declares: Declares) -> Self {
        let stores = Arc::new(Mutex::new(vec![Store::default()]));
        let mut names: Vec<&str> = cases.iter().flat_map(|case| &case.calls).map(|call| call.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let mut toolbox = Toolbox::new();
        for name in names {
            toolbox.add(StoreTool::new(name, &stores, declares)).unwrap();
        }
        let options = SchedulerOptions { in_flight_max, ..SchedulerOptions::default() };
        Self { toolbox: Arc::new(toolbox), stores, scheduler: Scheduler::new(options) }
    }

    /// Plays the calls in the order given; answers what they came to, and how many milliseconds they took.
    async fn play(&self, case: &Case, order: &[usize], takes: &[u64], links: bool) -> (State, u64) {
        let store = store(case);
        self.stores.lock().unwrap()[0] = store.clone();
        let mut run = self.scheduler.run(Arc::clone(&self.toolbox), RunOptions::new("run"));
        let mut batch = run.batch();
        for (index, at) in order.iter().enumerate() {
            let call = &case.calls[*at];
            let input = StoreTool::input(0, &call.input, &call.reads, &call.writes, takes[*at]);
            let mut given = Call::new(index as u32, format!("c{at}"), call.name.as_str(), input);
            if links {
                let link =
                    |on: &usize| Link { on: format!("c{on}").into(), need: Need::Output { label: on.to_string() } };
                given.links = call.depends_on.iter().map(link).collect();
            }
            batch.call(given).unwrap();
        }
        let started = Instant::now();
        let outcomes = batch.finish().await;
        let took = started.elapsed().as_millis() as u64;
        let mut outputs = vec![0; case.calls.len()];
        for (at, outcome) in order.iter().zip(outcomes) {
            let output = outcome.result.as_ref().map(|output| output.value());
            outputs[*at] = output.as_ref().ok().and_then(Value::as_u64).unwrap_or_else(|| panic!("{outcome:?}"));
        }
        ((outputs, store.versions()), took)
    }
}

fn store(case: &Case) -> Store {
    Store::of(case.calls.iter().flat_map(|call| call.reads.iter().chain(&call.writes)))
}

/// The oracle: the calls one by one, without any scheduler.
fn one_by_one(case: &Case) -> State {
    let store = store(case);
    let run = |call: &fanout_testing::recorded::Recorded| {
        let returned = store.begin(&call.name, &call.input, &call.reads);
        store.end(returned, &call.writes);
        returned
    };
    (case.calls.iter().map(run).collect(), store.versions())
}

fn takes(rng: &mut Rng, case: &Case) -> Vec<u64> {
    case.calls.iter().map(|_| rng.log_normal(300.0, 0.5).round().max(1.0) as u64).collect()
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// How many schedules a case: 20 of 1,000.
fn per_case() -> usize {
    schedules().div_ceil(50)
}

fn own_cases() -> Vec<Case> {
    let mut rng = Rng::new(SEED);
    (0..60).map(|_| own(&mut rng)).collect()
}

/// Plays every case with many latencies: outputs and state equal those of one by one, and the time is exactly the
/// critical path of the footprint graph.
#[track_caller]
fn check_equal_to_one_by_one(cases: &[Case]) {
    let rig = Rig::new(cases, MANY, Declares::All);
    paused().block_on(async {
        for (at, case) in cases.iter().enumerate() {
            let (truth, graph) = (one_by_one(case), case.footprint_graph());
            let order: Vec<usize> = (0..case.calls.len()).collect();
            for schedule in 0..per_case() {
                let takes = takes(&mut Rng::new((SEED << 32) ^ (at * 1_000_003 + schedule) as u64), case);
                let (state, took) = rig.play(case, &order, &takes, true).await;
                assert_eq!(state, truth, "{}, schedule {schedule}, {takes:?}", case.id);
                assert_eq!(took, critical_path(&graph, &takes), "{}, schedule {schedule}, {takes:?}", case.id);
            }
        }
    });
}

/// With no edges at all and 20 random orders the same comparison must see differences in so many cases of a hundred.
#[track_caller]
fn check_alive(cases: &[Case], at_least: f64) {
    let rig = Rig::new(cases, 1, Declares::Nothing);
    let mut rng = Rng::new(SEED);
    let differ = paused().block_on(async {
        let mut differ = 0;
        for case in cases {
            let (truth, takes) = (one_by_one(case), vec![1; case.calls.len()]);
            let mut differs = false;
            for _ in 0..20 {
                let order = rng.order(case.calls.len());
                differs |= rig.play(case, &order, &takes, false).await.0 != truth;
            }
            differ += usize::from(differs);
        }
        differ
    });
    let share = 100.0 * differ as f64 / cases.len() as f64;
    eprintln!("without edges {differ} of {} cases differ: {share:.1}% (at least {at_least}%)", cases.len());
    assert!(share >= at_least, "only {share:.1}% differ: the comparison is asleep");
}

/// The mean over all cases of makespan / bound, with so many slots and latencies learned from the cases before.
fn mean_ratio(cases: &[Case], slots: usize, bound: impl Fn(&Case, &[u64]) -> f64) -> f64 {
    let rig = Rig::new(cases, slots, Declares::All);
    let mut rng = Rng::new(SEED);
    paused().block_on(async {
        let (mut sum, mut count) = (0.0, 0.0);
        for schedule in 0..=per_case() {
            for case in cases {
                let takes = takes(&mut rng, case);
                let order: Vec<usize> = (0..case.calls.len()).collect();
                let (_, took) = rig.play(case, &order, &takes, true).await;
                // The first round is for learning.
                if schedule > 0 {
                    sum += took as f64 / bound(case, &takes);
                    count += 1.0;
                }
            }
        }
        sum / count
    })
}

#[track_caller]
fn check_slots(stem: &str, limits: [(usize, f64); 2]) {
    let Some(cases) = load(stem) else { return };
    for (slots, at_most) in limits {
        let bound = |case: &Case, takes: &[u64]| {
            let work = takes.iter().sum::<u64>() as f64 / slots as f64;
            work.max(critical_path(&case.footprint_graph(), takes) as f64)
        };
        let ratio = mean_ratio(&cases, slots, bound);
        eprintln!("{stem}, {slots} slots: {ratio:.4} of the bound (at most {at_most})");
        assert!(ratio <= at_most, "{stem}, {slots} slots: {ratio:.4}");
    }
}

#[test]
fn our_own_graphs_come_to_what_they_come_to_one_by_one() {
    let cases = own_cases();
    check_equal_to_one_by_one(&cases);
    check_alive(&cases, 70.0);
}

#[test]
fn recorded_turns_over_shared_state_come_to_what_they_come_to_one_by_one() {
    for (stem, alive) in [("bfcl_multi_turn", 45.0), ("tau2_retail", 70.0)] {
        let Some(cases) = load(stem) else { return };
        check_equal_to_one_by_one(&cases);
        check_alive(&cases, alive);
    }
}

#[test]
fn recorded_turns_without_state_take_their_critical_path() {
    for stem in ["nestful", "parallelqa"] {
        let Some(cases) = load(stem) else { return };
        check_equal_to_one_by_one(&cases);
    }
}

#[test]
fn footprints_cost_little_beyond_what_does_not_commute() {
    for stem in ["bfcl_multi_turn", "tau2_retail"] {
        let Some(cases) = load(stem) else { return };
        let bound = |case: &Case, takes: &[u64]| critical_path(&case.oracle_graph().unwrap(), takes) as f64;
        let ratio = mean_ratio(&cases, MANY, bound);
        eprintln!("{stem}: {ratio:.4} of the oracle's critical path (at most 1.08)");
        assert!(ratio <= 1.08, "{stem}: {ratio:.4}");
    }
}

#[test]
fn two_and_four_slots_are_used_nearly_as_well_as_can_be() {
    check_slots("parallelqa", [(2, 1.14), (4, 1.04)]);
    check_slots("tau2_retail", [(2, 1.06), (4, 1.03)]);
}
