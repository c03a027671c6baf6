//! What 500 runs at once cost through `fanout serve`, beside the same runs by the library alone.
//!
//! ```text
//! cargo build --release -p fanout-cli -p fanout-benches
//! cargo run --release -p fanout-benches --bin gateway500              # 8 pairs of each mode, written to results/gateway500.json
//! cargo run --release -p fanout-benches --bin gateway500 -- 3         # 3 pairs
//! ```
//!
//! A run is 3 turns of 5 calls of 50 ms each. Both sides have the same configuration, and with it the same HTTP tools and bounds.
//! Through the gateway each run is one `POST /v1/messages` of one of 500 clients; by the library it is one `Agent::run` in a
//! process of its own. One mock server, a process of its own too, is model and external API of both.
//!
//! The two sides run from the beginning to the end and take turns; each pair swaps who is first. The kernel counts the
//! processor time of each: the gateway's is in the figure, its clients' is not, since they are this process.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use fanout_agent::{Agent, Conversation, RunSettings, Status};
use fanout_benches::process::{self, Process};
use fanout_benches::statistics::{median, range, rounded};
use fanout_benches::{clients, machine, mock, results};
use fanout_core::run::Scheduler;
use fanout_host::build::{Purpose, build_model, build_toolbox};
use fanout_host::config::Config;
use fanout_host::databases::Databases;
use fanout_host::environment::Environment;
use fanout_host::options::agent_options;
use fanout_tools::command::Programs;
use futures_util::future::join_all;
use reqwest::Client;
use serde_json::{Value, json};

/// The gateway's binary brings this one; the library's side gets the same, so that they differ in nothing else.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RUNS: usize = 500;
const TURNS: usize = 3;
const CALLS: usize = 5;
const LATENCY_MS: u64 = 50;

/// Pairs of each mode, unless said.
const PAIRS: usize = 8;

/// All calls of all runs may be on their way at once: nothing waits but for the API.
const IN_FLIGHT_MAX: usize = RUNS * CALLS;

/// As many calls as all runs make at once: the default of 1,000 waiting for 32 places would refuse some.
const QUEUE_MAX: usize = 10_000;

const MODEL: &str = "claude-sonnet-4-5";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => compare(PAIRS).await,
        ["mock"] => mock::main().await,
        ["library", config] => library(Path::new(config)).await,
        [pairs] => compare(pairs.parse().context("the number of pairs")?).await,
        _ => bail!("one argument at most: the number of pairs"),
    }
}

/// What runs the runs.
enum Side {
    Gateway { process: Process, url: String, client: Client },
    Library(Process),
}

async fn compare(pairs: usize) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    let mut server = Process::start(&program, ["mock"])?;
    let base = server.line().await?;
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("fanout.toml");
    std::fs::write(&config, configuration(&base, &folder.path().join("keys.toml").display().to_string()))?;
    let (gateway, url) = process::gateway(&config).await?;
    let library = Process::start(&program, ["library", &config.display().to_string()])?;
    let mut sides = [Side::Gateway { process: gateway, url, client: clients::tools()? }, Side::Library(library)];
    println!("{RUNS} runs at once, {TURNS} turns x {CALLS} calls x {LATENCY_MS} ms, {pairs} pairs");
    let mut modes = [Vec::new(), Vec::new()];
    for pair in 0..=pairs {
        for (stream, samples) in [false, true].into_iter().zip(&mut modes) {
            let sample = one_pair(pair, stream, &mut sides).await?;
            // The first one makes the connections.
            if pair > 0 {
                samples.push(sample);
            }
        }
    }
    let [whole, streamed] = modes;
    let settings = json!({
        "runs": RUNS, "turns": TURNS, "calls_a_turn": CALLS, "latency_ms": LATENCY_MS, "pairs": pairs,
        "both": { "configuration": "the same file", "allocator": "mimalloc", "max_in_flight": IN_FLIGHT_MAX, "limit": { "concurrency": IN_FLIGHT_MAX, "max_queue": QUEUE_MAX }, "store": "memory",
                  "runtime": "tokio, one thread a core", "model": MODEL },
        "gateway": { "program": "fanout serve", "log": "at its default, to nowhere", "clients": "500 connections, kept", "keys": "none demanded" },
        "library": { "program": "benches/src/bin/gateway500.rs", "recorder": "none", "log": "none" },
    });
    results::write(
        "gateway500",
        &json!({
            "machine": machine::describe(), "load": machine::load(), "settings": settings,
            "modes": { "whole": summary("whole", &whole), "streamed": summary("streamed", &streamed) },
        }),
    )
}

fn configuration(base: &str, keys_file: &str) -> String {
    format!(
        "[model]\nbase_url = \"{base}\"\nname = \"{MODEL}\"\n\n[scheduler]\nmax_in_flight = {IN_FLIGHT_MAX}\n\n\
         [server]\nlisten = \"127.0.0.1:0\"\nkeys_file = \"{keys_file}\"\n\n\
         [limits.sleep]\nconcurrency = {IN_FLIGHT_MAX}\nmax_queue = {QUEUE_MAX}\n\n\
         [[tool]]\nname = \"sleep_tool\"\ndescription = \"Takes its time.\"\ninput = {{ ms = {{ type = \"integer\" }} }}\n\
         http = {{ method = \"GET\", url = \"{base}/sleep\" }}\nreads = []\nwrites = []\nlimit = \"sleep\"\n"
    )
}

async fn one_pair(pair: usize, stream: bool, sides: &mut [Side; 2]) -> anyhow::Result<Value> {
    let mut samples = [Value::Null, Value::Null];
    let order = if pair.is_multiple_of(2) { [0, 1] } else { [1, 0] };
    for at in order {
        samples[at] = sides[at].sample(stream).await?;
    }
    let [gateway, library] = samples;
    let of = |side: &Value, what: &str| side[what].as_f64().unwrap_or_default();
    let ratio = of(&gateway, "cpu_ms") / of(&library, "cpu_ms");
    let mode = if stream { "streamed" } else { "whole" };
    println!("{mode:<9} pair {pair}: gateway {gateway}, library {library}, CPU ratio {ratio:.3}");
    let first = ["gateway", "library"][order[0]];
    Ok(json!({ "first": first, "gateway": gateway, "library": library, "cpu_ratio": rounded(ratio) }))
}

impl Side {
    fn process(&self) -> &Process {
        match self {
            Self::Gateway { process, .. } | Self::Library(process) => process,
        }
    }

    /// 500 runs.
    async fn sample(&mut self, stream: bool) -> anyhow::Result<Value> {
        let (start, cpu) = (Instant::now(), self.process().cpu()?);
        match self {
            Self::Gateway { url, client, .. } => {
                let body = request(stream);
                for ended in join_all((0..RUNS).map(|_| through(client, url, &body))).await {
                    ended?;
                }
            }
            Self::Library(process) => {
                let said = process.ask(if stream { "streamed" } else { "whole" }).await?;
                ensure!(said == "done", "the library failed: {said}");
            }
        }
        let (wall, cpu) = (start.elapsed(), self.process().cpu()? - cpu);
        Ok(json!({
            "wall_ms": rounded(wall.as_secs_f64() * 1e3), "cpu_ms": rounded(cpu.as_secs_f64() * 1e3),
            "resident_kib": self.process().resident_kib()?,
        }))
    }
}

/// One run through the gateway.
async fn through(client: &Client, url: &str, body: &str) -> anyhow::Result<()> {
    let request = client
        .post(format!("{url}/v1/messages"))
        .header("content-type", "application/json")
        .header("anthropic-version", "2023-06-01")
        .body(body.to_owned());
    let answer = request.send().await?.error_for_status()?.text().await?;
    ensure!(answer.contains(r#""text":"done""#), "the run ended with `{answer}`");
    Ok(())
}

fn request(stream: bool) -> String {
    let message = json!({ "role": "user", "content": prompt() });
    json!({ "model": MODEL, "max_tokens": 8192, "messages": [message], "stream": stream }).to_string()
}

fn prompt() -> String {
    let calls = vec![json!({ "name": "sleep_tool", "input": { "ms": LATENCY_MS } }); CALLS];
    json!({ "turns": vec![calls; TURNS] }).to_string()
}

/// The library's side, in a process of its own: 500 runs for each line that it is sent.
async fn library(config: &Path) -> anyhow::Result<()> {
    let environment = Environment::of_process();
    let config = Config::load(config, &environment)?;
    let toolbox =
        Arc::new(build_toolbox(&config, &environment, Purpose::Run, &Programs::new(), &Databases::default())?);
    let model = Arc::new(build_model(&config.model, &environment)?);
    let scheduler = Scheduler::new(config.scheduler_options());
    let agent = |stream: bool| {
        let mut options = agent_options(&config, MODEL);
        options.stream = stream;
        Agent::new(Arc::clone(&model) as _, scheduler.clone(), Arc::clone(&toolbox), options)
    };
    let (whole, streamed) = (agent(false)?, agent(true)?);
    let prompt: Arc<str> = prompt().into();
    // This thread drives nothing while it waits: the runs have tasks of their own.
    for mode in std::io::stdin().lines() {
        let mode = mode?;
        let runs = (0..RUNS).map(|_| {
            let (agent, prompt) = (if mode == "streamed" { &streamed } else { &whole }.clone(), Arc::clone(&prompt));
            tokio::spawn(async move { agent.run(Conversation::from_prompt(&prompt), RunSettings::default()).await })
        });
        for report in join_all(runs).await {
            let report = report?;
            ensure!(report.status == Status::Done && report.answer == "done", "the run ended with {:?}", report.reason);
        }
        println!("done");
    }
    Ok(())
}

fn summary(mode: &str, pairs: &[Value]) -> Value {
    let ratios: Vec<f64> = pairs.iter().filter_map(|pair| pair["cpu_ratio"].as_f64()).collect();
    let (ratio, (low, high)) = (median(&ratios), range(&ratios));
    println!("{mode:<9} CPU ratio {ratio:.3} ({low:.3} to {high:.3})");
    let mut figures = json!({ "cpu_ratio": rounded(ratio), "cpu_ratio_range": [low, high], "pairs": pairs });
    for side in ["gateway", "library"] {
        let of = |what: &str| -> Vec<f64> { pairs.iter().filter_map(|pair| pair[side][what].as_f64()).collect() };
        let (cpu, wall) = (of("cpu_ms"), of("wall_ms"));
        println!(
            "{mode:<9} {side:<7} {:.0} ms wall, {:.0} ms of CPU for {RUNS} runs (medians)",
            median(&wall),
            median(&cpu)
        );
        figures[side] = json!({
            "cpu_ms": rounded(median(&cpu)), "cpu_ms_range": range(&cpu),
            "wall_ms": rounded(median(&wall)), "wall_ms_range": range(&wall), "resident_kib": rounded(median(&of("resident_kib"))),
        });
    }
    figures
}
