//! What 500 runs at once cost beside the loop that one writes by hand.
//!
//! ```text
//! cargo run --release -p fanout-benches --bin runs500              # 8 pairs of each mode, written to results/runs500.json
//! cargo run --release -p fanout-benches --bin runs500 -- 3         # 3 pairs
//! ```
//!
//! A run is 3 turns of 5 calls of 50 ms each. One mock server in a process of its own serves both sides. Each side runs in
//! a process of its own, so that the kernel counts its processor time alone; the two take turns, and each pair swaps who
//! is first. The figure is the median over the pairs of the ratio of processor time, ours to the hand-written loop's, at the same
//! streaming mode, with the same tools, the same reqwest and the same settings of its clients.
//!
//! Not in the figure: the mock, and each process's start (three runs one after another come first, unmeasured).

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fanout_benches::ours::{self, Settings};
use fanout_benches::raw::Raw;
use fanout_benches::statistics::{median, range, rounded};
use fanout_benches::tools::Api;
use fanout_benches::{clients, machine, mock, results, usage};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const RUNS: usize = 500;
const TURNS: usize = 3;
const CALLS: usize = 5;
const LATENCY_MS: u64 = 50;

/// So many times 500 runs in each process: connections are made once, as in a server that stays up.
const REPEATS: usize = 4;

/// Runs before the first that counts.
const WARM: usize = 3;

/// Pairs of processes, unless said.
const PAIRS: usize = 8;

/// All calls of all runs may be on their way at once, as in the hand-written loop, which has no limit.
const IN_FLIGHT_MAX: usize = RUNS * CALLS;

/// The longest that an attempt may take; the default of the configuration.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The bound that the project set itself.
const TARGET: f64 = 1.15;

const MODEL: &str = "claude-sonnet-4-5";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => compare(PAIRS).await,
        ["mock"] => mock::main().await,
        ["side", side, mode, base] => measure(side, *mode == "streamed", base).await,
        [pairs] => compare(pairs.parse().context("the number of pairs")?).await,
        _ => bail!("one argument at most: the number of pairs"),
    }
}

async fn compare(pairs: usize) -> anyhow::Result<()> {
    let (_server, base) = start_mock().await?;
    println!("{RUNS} runs at once, {TURNS} turns x {CALLS} calls x {LATENCY_MS} ms, {pairs} pairs of processes");
    let (mut whole, mut streamed) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        whole.push(one_pair(pair, "whole", &base).await?);
        streamed.push(one_pair(pair, "streamed", &base).await?);
    }
    let modes = json!({ "whole": summary("whole", &whole), "streamed": summary("streamed", &streamed) });
    let settings = json!({
        "runs": RUNS, "turns": TURNS, "calls_a_turn": CALLS, "latency_ms": LATENCY_MS, "repeats_a_process": REPEATS,
        "pairs": pairs, "target_ratio": TARGET,
        "both": { "clients": clients::settings(), "runtime": "tokio, one thread a core", "model": MODEL },
        "ours": { "in_flight_max": IN_FLIGHT_MAX, "attempt_timeout_s": TIMEOUT.as_secs(), "store": "memory", "recorder": "none" },
        "raw": { "loop": "benches/src/raw.rs", "limits": "none", "timeouts_of_calls": "none" },
    });
    results::write(
        "runs500",
        &json!({ "machine": machine::describe(), "load": machine::load(), "settings": settings, "modes": modes }),
    )
}

/// The server in its own process, ended with this one, and its address.
async fn start_mock() -> anyhow::Result<(Child, String)> {
    let mut server = Command::new(std::env::current_exe()?)
        .arg("mock")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = server.stdout.take().context("the server has no output")?;
    let address = BufReader::new(output).lines().next_line().await?;
    Ok((server, address.context("the server said nothing")?))
}

/// One process of each side; who is first changes from pair to pair.
async fn one_pair(pair: usize, mode: &str, base: &str) -> anyhow::Result<Value> {
    let mut sides = [Value::Null, Value::Null];
    let order = if pair.is_multiple_of(2) { [0, 1] } else { [1, 0] };
    for at in order {
        let output = Command::new(std::env::current_exe()?)
            .args(["side", ["ours", "raw"][at], mode, base])
            .stderr(Stdio::inherit())
            .output()
            .await?;
        if !output.status.success() {
            bail!("a side failed");
        }
        sides[at] = serde_json::from_slice(&output.stdout)?;
    }
    let [ours, raw] = sides;
    let ratio = median(&numbers(&ours, "cpu_ms")) / median(&numbers(&raw, "cpu_ms"));
    let own = |side: &Value| median(&numbers(side, "cpu_ms"));
    println!("{mode:<9} pair {pair}: ours {:.0} ms, raw {:.0} ms of CPU, ratio {ratio:.3}", own(&ours), own(&raw));
    let first = ["ours", "raw"][order[0]];
    Ok(json!({ "first": first, "ours": ours, "raw": raw, "cpu_ratio": rounded(ratio) }))
}

fn summary(mode: &str, pairs: &[Value]) -> Value {
    let ratios: Vec<f64> = pairs.iter().filter_map(|pair| pair["cpu_ratio"].as_f64()).collect();
    let of = |side: &str, what: &str| {
        let all: Vec<f64> = pairs.iter().flat_map(|pair| numbers(&pair[side], what)).collect();
        rounded(median(&all))
    };
    let (ratio, (low, high)) = (median(&ratios), range(&ratios));
    let verdict = if ratio <= TARGET { "within" } else { "above" };
    println!("{mode:<9} CPU ratio {ratio:.3} ({low:.3} to {high:.3}), {verdict} the target of {TARGET}");
    let mut figures = json!({ "cpu_ratio": rounded(ratio), "cpu_ratio_range": [low, high], "pairs": pairs });
    for side in ["ours", "raw"] {
        let (cpu, wall) = (of(side, "cpu_ms"), of(side, "wall_ms"));
        println!("{mode:<9} {side:<4} {wall:.0} ms wall, {cpu:.0} ms of CPU for {RUNS} runs (medians)");
        figures[side] = json!({ "cpu_ms": cpu, "wall_ms": wall });
    }
    figures
}

fn numbers(side: &Value, what: &str) -> Vec<f64> {
    let samples = side["samples"].as_array().map(Vec::as_slice).unwrap_or_default();
    samples.iter().filter_map(|sample| sample[what].as_f64()).collect()
}

/// One side, in a process of its own: prints its samples.
async fn measure(side: &str, stream: bool, base: &str) -> anyhow::Result<()> {
    let calls = vec![json!({ "name": "sleep_tool", "input": { "ms": LATENCY_MS } }); CALLS];
    let prompt: Arc<str> = json!({ "turns": vec![calls; TURNS] }).to_string().into();
    let api = Arc::new(Api { base: base.to_owned(), log: false, http: clients::tools()? });
    let settings = Settings { stream, in_flight_max: IN_FLIGHT_MAX, timeout: TIMEOUT };
    let agent = ours::agent(&api, MODEL, settings)?;
    let model = clients::model()?;
    let ours = side == "ours";
    let run = || {
        let (agent, model, api, prompt) = (agent.clone(), model.clone(), Arc::clone(&api), Arc::clone(&prompt));
        async move {
            let answer = if ours {
                ours::run(&agent, &prompt).await?
            } else {
                Raw { api: &api, model: &model, model_name: MODEL, stream }.run(&prompt).await?
            };
            if answer == "done" { Ok(()) } else { bail!("the run ended with `{answer}`") }
        }
    };
    for _ in 0..WARM {
        run().await?;
    }
    let mut samples = Vec::new();
    for _ in 0..REPEATS {
        let (start, cpu) = (Instant::now(), usage::cpu());
        for ended in join_all((0..RUNS).map(|_| tokio::spawn(run()))).await {
            ended??;
        }
        let (wall, cpu) = (start.elapsed().as_secs_f64() * 1e3, (usage::cpu() - cpu).as_secs_f64() * 1e3);
        samples.push(json!({ "wall_ms": rounded(wall), "cpu_ms": rounded(cpu) }));
    }
    println!("{}", json!({ "samples": samples, "resident_max_kib": usage::resident_max_kib() }));
    Ok(())
}
