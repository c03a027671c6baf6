//! What a request without tools costs that goes through `fanout serve`, beside a reverse proxy that does nothing but pass it on.
//!
//! ```text
//! cargo build --release -p fanout-cli -p fanout-benches
//! cargo run --release -p fanout-benches --bin proxy              # 8 pairs of each mode, written to results/proxy.json
//! cargo run --release -p fanout-benches --bin proxy -- 3         # 3 pairs
//! cargo run --release -p fanout-benches --bin proxy -- 3 passed_whole   # of one mode, nothing written: for a profiler
//! ```
//!
//! One upstream, two gateways (one for each of the two ways below) and one bare proxy (`bin/bare.rs`) run from the beginning to the end, each in a process of its own;
//! this process is the client of both. A pair is 20 slices: the same requests over kept connections to the one and then to the
//! other; each pair swaps who is first. The kernel counts the processor time of each proxy alone.
//!
//! `passed` is a request in which no tool of ours could be called (`fanout-tools: none`): it is passed on. `offered` is the same
//! request to the same gateway with our tools added, which the model does not call: a run of one turn. Each is asked for whole
//! and as a stream. The bounds are on `passed`: at most 1.15 times the processor time, at most 0.3 ms more at the median of one
//! request at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use fanout_benches::fixed::{self, Answers, PIECES};
use fanout_benches::process::{self, Process};
use fanout_benches::statistics::{median, range, rounded};
use fanout_benches::{clients, machine, mock, results};
use futures_util::future::join_all;
use reqwest::Client;
use serde_json::{Value, json};

/// Pairs of each mode, unless said.
const PAIRS: usize = 8;

/// Slices of a pair: the two take turns so often that what else the machine does falls on both.
const SLICES: usize = 20;

/// Requests of a slice that are sent one after another: their time is the latency.
const ALONE: usize = 25;

/// Clients at once in the crowd, and the requests of a slice that each of them sends.
const CROWD: usize = 32;
const EACH: usize = 8;

/// Bytes of the system prompt, which make up most of a request.
const SYSTEM_BYTES: usize = 4096;

/// Tools of the gateway, none of which is ever called.
const TOOLS: usize = 3;

/// The bounds that the project set itself, on `passed`.
const CPU_RATIO_MAX: f64 = 1.15;
const ADDED_MS_MAX: f64 = 0.3;

const MODEL: &str = "claude-sonnet-4-5";

/// What is asked for, and how.
#[derive(Clone, Copy)]
struct Mode {
    name: &'static str,
    stream: bool,
    offered: bool,
}

const MODES: [Mode; 4] = [
    Mode { name: "passed_whole", stream: false, offered: false },
    Mode { name: "passed_streamed", stream: true, offered: false },
    Mode { name: "offered_whole", stream: false, offered: true },
    Mode { name: "offered_streamed", stream: true, offered: true },
];

/// One of the two proxies.
struct Side {
    process: Process,
    url: String,
    client: Client,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => compare(PAIRS, &MODES).await,
        ["upstream"] => {
            let listener = mock::listen().await?;
            println!("http://{}", listener.local_addr()?);
            fixed::serve(listener, MODEL).await
        }
        [pairs] => compare(pairs.parse().context("the number of pairs")?, &MODES).await,
        [pairs, name] => {
            let modes: Vec<Mode> = MODES.into_iter().filter(|mode| mode.name == *name).collect();
            compare(pairs.parse().context("the number of pairs")?, &modes).await
        }
        _ => bail!("two arguments at most: the number of pairs, and a mode"),
    }
}

async fn compare(pairs: usize, modes: &[Mode]) -> anyhow::Result<()> {
    let mut upstream = Process::start(std::env::current_exe()?, ["upstream"])?;
    let base = upstream.line().await?;
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("fanout.toml");
    std::fs::write(&config, configuration(&base, &folder.path().join("keys.toml").display().to_string()))?;
    // What was offered is kept for a day, so it has a gateway of its own: what is passed on meets the memory of one that only
    // passes on.
    let (gateway, url) = process::gateway(&config).await?;
    let passing = Side { process: gateway, url, client: clients::tools()? };
    let (gateway, url) = process::gateway(&config).await?;
    let offering = Side { process: gateway, url, client: clients::tools()? };
    let mut bare = Process::start(process::beside("bare")?, [&base])?;
    let bare = Side { url: bare.line().await?, process: bare, client: clients::tools()? };
    let answers = Arc::new(Answers::new(MODEL));
    let mut samples = vec![Vec::new(); modes.len()];
    for pair in 0..=pairs {
        for (mode, samples) in modes.iter().zip(&mut samples) {
            let ours = if mode.offered { &offering } else { &passing };
            let sample = one_pair(pair, *mode, ours, &bare, &answers).await?;
            // The first one makes the connections.
            if pair > 0 {
                samples.push(sample);
            }
        }
    }
    let all = modes.len() == MODES.len();
    let modes = modes.iter().zip(&samples);
    let modes: serde_json::Map<String, Value> =
        modes.map(|(mode, pairs)| (mode.name.to_owned(), summary(*mode, pairs))).collect();
    if !all {
        return Ok(());
    }
    results::write(
        "proxy",
        &json!({ "machine": machine::describe(), "load": machine::load(), "settings": settings(pairs, &answers), "modes": modes }),
    )
}

fn settings(pairs: usize, answers: &Answers) -> Value {
    json!({
        "pairs": pairs, "slices_a_pair": SLICES, "alone_a_slice": ALONE, "crowd_a_slice": { "clients": CROWD, "requests_each": EACH },
        "request_bytes": body(Mode { name: "", stream: false, offered: false }, 0).len(),
        "answer_bytes": { "whole": answers.bytes(false), "streamed": answers.bytes(true), "events": PIECES + 5 },
        "bounds": { "cpu_ratio": CPU_RATIO_MAX, "added_ms": ADDED_MS_MAX, "on": "passed" },
        "both": { "sockets": "loopback, kept, nodelay", "runtime": "tokio, one thread a core", "model": MODEL },
        "ours": { "program": "fanout serve", "allocator": "mimalloc", "tools": TOOLS, "log": "at its default, to nowhere", "keys": "none demanded" },
        "bare": { "program": "benches/src/bin/bare.rs", "allocator": "the system's", "log": "none", "client": clients::settings()["model"] },
    })
}

fn configuration(base: &str, keys_file: &str) -> String {
    let mut text = format!(
        "[model]\nbase_url = \"{base}\"\nname = \"{MODEL}\"\n\n[server]\nlisten = \"127.0.0.1:0\"\nkeys_file = \"{keys_file}\"\n"
    );
    for tool in 0..TOOLS {
        text += &format!(
            "\n[[tool]]\nname = \"tool_{tool}\"\ndescription = \"Is never called.\"\ninput = {{ ms = {{ type = \"integer\" }} }}\n\
             http = {{ method = \"GET\", url = \"{base}/never\" }}\nreads = []\nwrites = []\n"
        );
    }
    text
}

/// A request that was never sent before, as long as all others.
fn body(mode: Mode, number: usize) -> String {
    let system = "You are concise and kind. ".repeat(SYSTEM_BYTES / 26);
    let stream = if mode.stream { r#","stream":true"# } else { "" };
    format!(
        r#"{{"model":"{MODEL}","max_tokens":1024,"system":"{system}","messages":[{{"role":"user","content":"Question {number:010}: what does a proxy say?"}}]{stream}}}"#
    )
}

async fn one_pair(pair: usize, mode: Mode, ours: &Side, bare: &Side, answers: &Arc<Answers>) -> anyhow::Result<Value> {
    let mut sides = [Sample::default(), Sample::default()];
    let order = if pair.is_multiple_of(2) { [0, 1] } else { [1, 0] };
    for slice in 0..SLICES {
        for at in order {
            sides[at].take(pair * SLICES + slice, mode, [ours, bare][at], answers).await?;
        }
    }
    let [ours, bare] = sides;
    let cpu_ratio = ours.crowd_cpu.as_secs_f64() / bare.crowd_cpu.as_secs_f64();
    let added_ms = median(&ours.alone_ms) - median(&bare.alone_ms);
    println!("{:<16} pair {pair}: CPU ratio {cpu_ratio:.3}, added {added_ms:.3} ms", mode.name);
    let first = ["ours", "bare"][order[0]];
    Ok(json!({
        "first": first, "ours": ours.figures(), "bare": bare.figures(),
        "cpu_ratio": rounded(cpu_ratio), "added_ms": rounded(added_ms),
    }))
}

/// What one side did in one pair.
#[derive(Default)]
struct Sample {
    alone_ms: Vec<f64>,
    alone_cpu: Duration,
    crowd_ms: Vec<f64>,
    crowd_cpu: Duration,
    crowd_wall: Duration,
}

impl Sample {
    /// One slice of it, from a number of its own.
    async fn take(&mut self, slice: usize, mode: Mode, side: &Side, answers: &Answers) -> anyhow::Result<()> {
        let first = slice * (ALONE + CROWD * EACH);
        let cpu = side.process.cpu()?;
        for number in 0..ALONE {
            self.alone_ms.push(millis(request(side, mode, answers, first + number).await?));
        }
        self.alone_cpu += side.process.cpu()? - cpu;
        let (cpu, start) = (side.process.cpu()?, Instant::now());
        let clients = (0..CROWD).map(|client| async move {
            let mut took = Vec::with_capacity(EACH);
            for number in 0..EACH {
                took.push(millis(request(side, mode, answers, first + ALONE + client * EACH + number).await?));
            }
            anyhow::Ok(took)
        });
        for client in join_all(clients).await {
            self.crowd_ms.extend(client?);
        }
        self.crowd_wall += start.elapsed();
        self.crowd_cpu += side.process.cpu()? - cpu;
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "some thousand requests")]
    fn figures(&self) -> Value {
        let each = |time: Duration, requests: &[f64]| rounded(time.as_secs_f64() * 1e6 / requests.len() as f64);
        json!({
            "cpu_us": each(self.crowd_cpu, &self.crowd_ms), "alone_cpu_us": each(self.alone_cpu, &self.alone_ms),
            "alone_p50_ms": rounded(median(&self.alone_ms)), "crowd_p50_ms": rounded(median(&self.crowd_ms)),
            "requests_per_s": rounded(self.crowd_ms.len() as f64 / self.crowd_wall.as_secs_f64()),
        })
    }
}

/// Sends one request and reads all of its answer: how long both took.
async fn request(side: &Side, mode: Mode, answers: &Answers, number: usize) -> anyhow::Result<Duration> {
    let mut request = side
        .client
        .post(format!("{}/v1/messages", side.url))
        .header("content-type", "application/json")
        .header("anthropic-version", "2023-06-01")
        .header("x-api-key", "sk-ant-of-nobody")
        .body(body(mode, number));
    if !mode.offered {
        request = request.header("fanout-tools", "none");
    }
    let start = Instant::now();
    let answer = request.send().await?.error_for_status()?.bytes().await?;
    let took = start.elapsed();
    ensure!(answer.len() == answers.bytes(mode.stream), "another answer: {}", String::from_utf8_lossy(&answer));
    Ok(took)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn summary(mode: Mode, pairs: &[Value]) -> Value {
    let all = |what: &str| -> Vec<f64> { pairs.iter().filter_map(|pair| pair[what].as_f64()).collect() };
    let (ratios, added) = (all("cpu_ratio"), all("added_ms"));
    let mut figures = json!({
        "cpu_ratio": rounded(median(&ratios)), "cpu_ratio_range": range(&ratios),
        "added_ms": rounded(median(&added)), "added_ms_range": range(&added), "pairs": pairs,
    });
    let (cpu_ratio, added_ms) = (median(&ratios), median(&added));
    let verdict = match (mode.offered, cpu_ratio <= CPU_RATIO_MAX && added_ms <= ADDED_MS_MAX) {
        (true, _) => "no bound",
        (false, true) => "within the bounds",
        (false, false) => "ABOVE the bounds",
    };
    println!(
        "{:<16} CPU ratio {cpu_ratio:.3} {:?}, {added_ms:.3} ms more at p50 {:?}: {verdict}",
        mode.name,
        range(&ratios),
        range(&added)
    );
    for side in ["ours", "bare"] {
        for what in ["cpu_us", "alone_cpu_us", "alone_p50_ms", "crowd_p50_ms", "requests_per_s"] {
            let samples: Vec<f64> = pairs.iter().filter_map(|pair| pair[side][what].as_f64()).collect();
            figures[side][what] = json!(rounded(median(&samples)));
        }
        println!("{:<16} {side}: {}", mode.name, figures[side]);
    }
    figures
}
