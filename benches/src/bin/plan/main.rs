//! What a plan saves beside one model turn per layer of calls: time, and what the model has to read.
//!
//! ```text
//! FANOUT_WORKLOADS=path/to/workloads cargo run --release -p fanout-benches --bin plan
//! ```
//!
//! A scripted model, a real server on loopback, answers a real agent, 500 ms a turn. Each case of the recorded call graphs is played
//! in two ways with the same latencies, log-normal with a median of 300 ms and a sigma of 0.5: one turn for each layer, whose
//! calls all run together, as SDKs that run calls in parallel have it, and one plan. The last turn, which says that all is done,
//! counts in both. Nothing but sockets and sleeps: many cases go on at once, and the processor is all but idle (how idle is told).
//!
//! Then the four requests of the rig's scenario S4, one run at a time; and how many bytes of results the model is shown, by layers,
//! by a plan that shows all, and by one whose `return` names what the case's answer is made of.
//!
//! Without `FANOUT_WORKLOADS` only S4 is measured, and nothing is written.

mod stage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use fanout_benches::statistics::{median, range, rounded};
use fanout_benches::{machine, results, usage};
use fanout_testing::recorded::{Case, Recorded, load};
use fanout_testing::seed::Rng;
use serde_json::{Value, json};
use stage::{BYTES_PER_TOKEN, Prepared, Shown, Stage, Way};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What the model takes for a turn.
const THINK: Duration = Duration::from_millis(500);

/// The latencies: log-normal.
const MEDIAN_MS: f64 = 300.0;
const SIGMA: f64 = 0.5;
const SEED: u64 = 1;

/// How often each case is played in both ways, each time with other latencies.
const ROUNDS: usize = 3;

/// So many cases go on at once: they sleep nearly all the time.
const AT_ONCE: usize = 32;

/// How large an output is in the timed runs, and in those that count bytes. The recorded sets say nothing of it.
const OUTPUT_BYTES: usize = 2048;
const OUTPUT_SIZES: [usize; 3] = [512, 2048, 8192];

/// Runs of S4 that count, in each way; one more comes first and opens the connections.
const S4_RUNS: usize = 15;

/// The bounds that the project set itself.
const PARALLELQA_LEAST: f64 = 1.35;
const NESTFUL_LEAST: f64 = 1.25;
const S4_MOST_MS: f64 = 1730.0;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let s4 = s4().await?;
    let sets = [("parallelqa", PARALLELQA_LEAST), ("nestful", NESTFUL_LEAST)];
    let mut told = Vec::new();
    for (stem, least) in sets {
        let Some(mut cases) = load(stem) else { return Ok(()) };
        cases.retain(|case| stage::layers(case).iter().max() >= Some(&1));
        let set = recorded(stem, &cases, least).await?;
        let bytes = shown(stem, &cases).await?;
        told.push(json!({ "set": stem, "time": set, "shown": bytes }));
    }
    results::write(
        "plan",
        &json!({
            "machine": machine::describe(), "load": machine::load(),
            "settings": {
                "both": {
                    "think_ms": millis(THINK), "tools": "functions that ask a loopback API, which sleeps", "streamed": true,
                    "early_start": true, "effects": "declared: none", "scheduler": "its defaults",
                },
                "latency": { "distribution": "log-normal", "median_ms": MEDIAN_MS, "sigma": SIGMA, "seed": SEED },
                "rounds": ROUNDS, "cases_at_once": AT_ONCE, "output_bytes": OUTPUT_BYTES, "s4_runs": S4_RUNS,
                "bytes_per_token": BYTES_PER_TOKEN,
                "targets": { "parallelqa": PARALLELQA_LEAST, "nestful": NESTFUL_LEAST, "s4_ms": S4_MOST_MS },
            },
            "s4": s4, "recorded": told,
        }),
    )
}

/// The four requests of S4, by layers and as a plan, one run after another.
async fn s4() -> anyhow::Result<Value> {
    let call = |id: &str, tool: &str, input: Value, depends_on: &[usize]| Recorded {
        id: id.to_owned(),
        name: tool.to_owned(),
        input: input.to_string(),
        depends_on: depends_on.to_vec(),
        conflicts_with: None,
        reads: Vec::new(),
        writes: Vec::new(),
    };
    let of_user = || json!({ "user_id": "$user.id$" });
    let calls = vec![
        call("user", "get_user", json!({ "id": "u1" }), &[]),
        call("orders", "get_orders", of_user(), &[0]),
        call("recs", "get_recs", of_user(), &[0]),
        call("inventory", "get_inventory", of_user(), &[0]),
        call(
            "check",
            "validate",
            json!({ "orders": "$orders.items$", "recs": "$recs.items$", "inventory": "$inventory.items$" }),
            &[1, 2, 3],
        ),
    ];
    let case = Case { id: "S4".to_owned(), calls, result: json!("$check$") };
    let takes = [200, 200, 300, 100, 200];
    let stage = Stage::start(THINK).await?;
    let prepared = Arc::new(Prepared::new(case, OUTPUT_BYTES)?);
    let (mut layers, mut plan) = (Vec::new(), Vec::new());
    for run in 0..=S4_RUNS {
        let by_layers = stage.play(&prepared, Way::Layers, &takes).await?;
        let by_plan = stage.play(&prepared, Way::Plan(Shown::Answer), &takes).await?;
        if run > 0 {
            layers.push(millis(by_layers.took));
            plan.push(millis(by_plan.took));
        }
    }
    stage.end().await?;
    let (low, high) = range(&plan);
    let verdict = if high <= S4_MOST_MS { "within" } else { "NOT always within" };
    println!("S4 as a plan: {:.0} ms ({low:.0} to {high:.0}), {verdict} the bound of {S4_MOST_MS}", median(&plan));
    let (low, high) = range(&layers);
    println!("S4, a turn for each layer: {:.0} ms ({low:.0} to {high:.0})", median(&layers));
    Ok(json!({
        "plan_ms": rounded(median(&plan)), "layers_ms": rounded(median(&layers)),
        "samples": { "plan_ms": all_rounded(&plan), "layers_ms": all_rounded(&layers) },
    }))
}

/// One case in both ways, in milliseconds, with what its latencies alone would take.
struct Sample {
    case: usize,
    layers: f64,
    plan: f64,
    layers_least: f64,
    plan_least: f64,
}

/// All cases of a set, many at once, `ROUNDS` times.
async fn recorded(stem: &str, cases: &[Case], least: f64) -> anyhow::Result<Value> {
    let stage = Arc::new(Stage::start(THINK).await?);
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let (started, cpu) = (Instant::now(), usage::cpu());
    let mut playing = JoinSet::new();
    for round in 0..ROUNDS {
        for (at, case) in cases.iter().enumerate() {
            let slot = Arc::clone(&slots).acquire_owned().await?;
            let stage = Arc::clone(&stage);
            let prepared = Arc::new(Prepared::new(case.clone(), OUTPUT_BYTES)?);
            playing.spawn(async move {
                let sample = pair(&stage, &prepared, at, round).await;
                drop(slot);
                sample
            });
        }
    }
    let mut samples = Vec::new();
    while let Some(sample) = playing.join_next().await {
        samples.push(sample??);
    }
    let busy = (usage::cpu() - cpu).as_secs_f64() / started.elapsed().as_secs_f64();
    Arc::into_inner(stage).context("the stage is in use")?.end().await?;
    samples.sort_by_key(|sample| sample.case);
    Ok(report(stem, cases, &samples, least, busy))
}

async fn pair(stage: &Stage, prepared: &Arc<Prepared>, at: usize, round: usize) -> anyhow::Result<Sample> {
    let mut rng = Rng::new((SEED << 32) ^ (at * 1_000_003 + round) as u64);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at least 1 and a few thousand")]
    let mut take = || rng.log_normal(MEDIAN_MS, SIGMA).round().max(1.0) as u64;
    let takes: Vec<u64> = prepared.case.calls.iter().map(|_| take()).collect();
    // They take turns at being first.
    let (layers, plan) = if (at + round).is_multiple_of(2) {
        let layers = stage.play(prepared, Way::Layers, &takes).await?;
        (layers, stage.play(prepared, Way::Plan(Shown::Answer), &takes).await?)
    } else {
        let plan = stage.play(prepared, Way::Plan(Shown::Answer), &takes).await?;
        (stage.play(prepared, Way::Layers, &takes).await?, plan)
    };
    let (layers_least, plan_least) = prepared.least(&takes, THINK);
    Ok(Sample {
        case: at,
        layers: millis(layers.took),
        plan: millis(plan.took),
        layers_least: millis(layers_least),
        plan_least: millis(plan_least),
    })
}

fn report(stem: &str, cases: &[Case], samples: &[Sample], least: f64, busy: f64) -> Value {
    let of = |pick: fn(&Sample) -> f64| samples.iter().map(pick).collect::<Vec<f64>>();
    let ratios = of(|sample| sample.layers / sample.plan);
    let (mean_ratio, (low, high)) = (mean(&ratios), range(&ratios));
    let total = of(|sample| sample.layers).iter().sum::<f64>() / of(|sample| sample.plan).iter().sum::<f64>();
    let over = [of(|sample| sample.layers - sample.layers_least), of(|sample| sample.plan - sample.plan_least)];
    let verdict = if mean_ratio.min(total) >= least { "within" } else { "BELOW" };
    println!(
        "{stem}, {} cases: layers to plan {mean_ratio:.3} on average ({low:.2} to {high:.2}), {total:.3} in total, {verdict} the bound of \
         {least}; beyond sleeping, layers {:.1} ms and plans {:.1} ms; {busy:.2} processors busy with it",
        cases.len(),
        median(&over[0]),
        median(&over[1]),
    );
    let case = |(at, case): (usize, &Case)| {
        let mine = || samples.iter().filter(|sample| sample.case == at);
        let layers: Vec<f64> = mine().map(|sample| sample.layers).collect();
        let plan: Vec<f64> = mine().map(|sample| sample.plan).collect();
        let depth = stage::layers(case).into_iter().max().unwrap_or_default() + 1;
        json!([case.id, case.calls.len(), depth, all_rounded(&layers), all_rounded(&plan)])
    };
    json!({
        "mean_ratio": rounded(mean_ratio), "total_ratio": rounded(total), "range": [rounded(low), rounded(high)],
        "beyond_sleeping_ms": { "layers": rounded(median(&over[0])), "plan": rounded(median(&over[1])) },
        "processors_busy": rounded(busy),
        "samples": {
            "columns": ["case", "calls", "layers", "layers_ms", "plan_ms"],
            "rows": cases.iter().enumerate().map(case).collect::<Vec<Value>>(),
        },
    })
}

/// What the model is shown of the results, in bytes, in each way and for each size of outputs.
async fn shown(stem: &str, cases: &[Case]) -> anyhow::Result<Value> {
    let stage = Stage::start(Duration::ZERO).await?;
    let mut sizes = Vec::new();
    for size in OUTPUT_SIZES {
        let mut sums = [0_usize; 3];
        let mut tools = [0_usize; 2];
        for case in cases {
            let prepared = Arc::new(Prepared::new(case.clone(), size)?);
            let takes = vec![0; case.calls.len()];
            let ways = [Way::Layers, Way::Plan(Shown::All), Way::Plan(Shown::Answer)];
            for (at, way) in ways.into_iter().enumerate() {
                let played = stage.play(&prepared, way, &takes).await?;
                sums[at] += played.results_bytes;
                tools[usize::from(at > 0)] += played.tools_bytes;
            }
        }
        let [layers, all, answer] = sums.map(|sum| sum / cases.len());
        let [tools, tools_and_plan] = tools;
        let offer = tools_and_plan / 2 / cases.len() - tools / cases.len();
        let saved = |of: usize| percent(of.saturating_sub(answer), of);
        println!(
            "{stem}, outputs of {size} bytes, a case on average: {layers} bytes of results by layers, {all} by a plan that shows all, {answer} with \
             `return`: {:.0}% and {:.0}% less, {} and {} tokens of {BYTES_PER_TOKEN} bytes; `plan` itself is offered in {offer} bytes",
            saved(layers),
            saved(all),
            layers.saturating_sub(answer) / BYTES_PER_TOKEN,
            all.saturating_sub(answer) / BYTES_PER_TOKEN,
        );
        sizes.push(json!({
            "output_bytes": size, "layers": layers, "plan_all": all, "plan_return": answer, "offer_of_plan": offer,
            "saved_of_layers_percent": rounded(saved(layers)), "saved_of_all_percent": rounded(saved(all)),
        }));
    }
    stage.end().await?;
    Ok(Value::Array(sizes))
}

#[expect(clippy::cast_precision_loss, reason = "bytes of results")]
fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred")]
fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len().max(1) as f64
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn all_rounded(samples: &[f64]) -> Vec<f64> {
    samples.iter().map(|sample| (sample * 10.0).round() / 10.0).collect()
}
