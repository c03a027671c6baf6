//! What `fanout call` adds to three HTTP tools of 200 ms that run together, beyond the 200 ms and the start of its process.
//!
//! ```text
//! cargo build --release -p fanout-cli
//! cargo run --release -p fanout-benches --bin call3                        # `fanout` of the same build
//! cargo run --release -p fanout-benches --bin call3 -- path/to/fanout     # another one
//! ```
//!
//! The tools' API is served by this process on loopback. Each pair times `fanout explain` and `fanout call` of the same three
//! calls with the same configuration: `explain` starts the process, reads configuration and input, builds the tools and the graph,
//! and runs nothing. The figure is the median over the pairs of call - explain - 200 ms.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use fanout_benches::statistics::{median, range, rounded};
use fanout_benches::{machine, mock, results};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long the API takes.
const LATENCY_MS: u64 = 200;

/// How many tools, each called once.
const TOOLS: usize = 3;

/// Pairs that count; one more comes first and warms the page cache.
const PAIRS: usize = 20;

/// The bound that the project set itself, in milliseconds.
const TARGET_MS: f64 = 15.0;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let fanout = match std::env::args_os().nth(1) {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?.with_file_name("fanout"),
    };
    ensure!(fanout.is_file(), "no `fanout` beside this program: build it first, or name it");
    let listener = mock::listen().await?;
    let base = format!("http://{}", listener.local_addr()?);
    tokio::spawn(mock::serve(listener));
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("fanout.toml");
    std::fs::write(&config, configuration(&base)?)?;
    let mut samples = Vec::new();
    for pair in 0..=PAIRS {
        let start = timed(&fanout, &config, "explain").await?;
        let call = timed(&fanout, &config, "call").await?;
        if pair > 0 {
            samples.push((start, call));
        }
    }
    report(&samples)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds")]
fn report(samples: &[(f64, f64)]) -> anyhow::Result<()> {
    let added: Vec<f64> = samples.iter().map(|(start, call)| call - start - LATENCY_MS as f64).collect();
    let starts: Vec<f64> = samples.iter().map(|(start, _)| *start).collect();
    let (middle, (low, high)) = (median(&added), range(&added));
    let verdict = if middle <= TARGET_MS { "within" } else { "above" };
    println!("{TOOLS} tools of {LATENCY_MS} ms through `fanout call`, {PAIRS} pairs");
    println!("added {middle:.2} ms ({low:.2} to {high:.2}), {verdict} the target of {TARGET_MS} ms");
    println!("the process's own start (`fanout explain`) {:.2} ms", median(&starts));
    let samples: Vec<Value> = samples
        .iter()
        .map(|(start, call)| json!({ "explain_ms": rounded(*start), "call_ms": rounded(*call) }))
        .collect();
    results::write(
        "call3",
        &json!({
            "machine": machine::describe(), "load": machine::load(),
            "settings": { "tools": TOOLS, "latency_ms": LATENCY_MS, "pairs": PAIRS, "target_ms": TARGET_MS },
            "added_ms": rounded(middle), "start_ms": rounded(median(&starts)), "samples": samples,
        }),
    )
}

fn configuration(base: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    for tool in 0..TOOLS {
        writeln!(text, "[[tool]]\nname = \"slow_{tool}\"\ndescription = \"Takes its time.\"")?;
        writeln!(text, "input = {{ ms = {{ type = \"integer\" }} }}")?;
        writeln!(text, "http = {{ method = \"GET\", url = \"{base}/sleep\" }}\nreads = []\nwrites = []\n")?;
    }
    Ok(text)
}

/// Milliseconds from before the process is started until it has ended.
async fn timed(fanout: &Path, config: &Path, command: &str) -> anyhow::Result<f64> {
    let calls: Vec<Value> = (0..TOOLS)
        .map(|tool| json!({ "type": "tool_use", "id": format!("toolu_{tool}"), "name": format!("slow_{tool}"), "input": { "ms": LATENCY_MS } }))
        .collect();
    let input = json!({ "role": "assistant", "content": calls }).to_string();
    let start = Instant::now();
    let mut child = Command::new(fanout)
        .arg("--config")
        .arg(config)
        .arg(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no standard input")?.write_all(input.as_bytes()).await?;
    let output = child.wait_with_output().await?;
    let took = start.elapsed().as_secs_f64() * 1e3;
    let shown = String::from_utf8_lossy(&output.stdout);
    let answered = shown.matches("slept_ms").count() == TOOLS && !shown.contains("is_error");
    if !output.status.success() || (command == "call" && !answered) {
        bail!("`fanout {command}` failed: {shown}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(took)
}
