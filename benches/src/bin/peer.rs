//! Fanout as one peer among others: speaks the protocol of a driver that compares agent SDKs on equal scenarios.
//!
//! ```text
//! MOCK=http://127.0.0.1:8399 peer '{"mode":"lat","variant":"default","stream":false,"scenario":{…},"warm":2,"reps":7}'
//! ```
//!
//! The one argument is a job: `mode` `lat` runs the scenario `reps` times one after another, `thr` runs it `n` times at
//! once and that `reps` times. `MOCK` is the address of the model and of the tools' API, `TOOLLOG=1` asks that API to log.
//! Prints one line, `{"samples":[…],"rss_kb":…,"versions":{…}}`; a sample is good only if the last answer was `done`.
//!
//! Variants: `default` (all settings at their defaults), `wide` (`max_in_flight` 4096), `timeout` (a tool may take 1 s).

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use fanout_agent::Agent;
use fanout_benches::ours::{self, Settings};
use fanout_benches::tools::Api;
use fanout_benches::{clients, usage};
use fanout_core::run::SchedulerOptions;
use fanout_core::tool::Policy;
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};

/// The name that the driver's other peers ask for.
const MODEL: &str = "claude-sonnet-4-5";

/// As many attempts at once as any scenario has.
const WIDE: usize = 4096;

/// The longest that a tool may take, where the variant bounds it.
const TIMEOUT: Duration = Duration::from_secs(1);

/// At most so many characters of an error are passed on.
const ERROR_CHARS_MAX: usize = 300;

#[derive(Deserialize)]
struct Job {
    mode: String,
    #[serde(default)]
    variant: String,
    #[serde(default)]
    stream: bool,
    scenario: Value,
    #[serde(default)]
    warm: usize,
    #[serde(default)]
    reps: usize,
    #[serde(default)]
    n: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let job: Job = serde_json::from_str(&std::env::args().nth(1).context("the job is missing")?)?;
    let base = std::env::var("MOCK").context("`MOCK` must be the address of the model")?;
    let log = std::env::var("TOOLLOG").is_ok_and(|value| value == "1");
    let api = Arc::new(Api { base, log, http: clients::tools()? });
    let agent = ours::agent(&api, MODEL, settings(&job))?;
    let prompt: Arc<str> = job.scenario.to_string().into();
    for _ in 0..job.warm {
        one(&agent, &prompt).await;
    }
    let mut samples = Vec::new();
    for _ in 0..job.reps.max(1) {
        samples.push(if job.mode == "thr" { many(&agent, &prompt, job.n).await? } else { one(&agent, &prompt).await });
    }
    let versions = json!({ "fanout": env!("CARGO_PKG_VERSION") });
    println!("{}", json!({ "samples": samples, "rss_kb": usage::resident_max_kib(), "versions": versions }));
    Ok(())
}

fn settings(job: &Job) -> Settings {
    let default = SchedulerOptions::default().in_flight_max;
    Settings {
        stream: job.stream,
        in_flight_max: if job.variant == "wide" { WIDE } else { default },
        timeout: if job.variant == "timeout" { TIMEOUT } else { Policy::default().timeout },
    }
}

async fn one(agent: &Agent, prompt: &str) -> Value {
    let (start, cpu) = (Instant::now(), usage::cpu());
    let result = ours::run(agent, prompt).await;
    let error = result.as_ref().err().map(|error| error.to_string().chars().take(ERROR_CHARS_MAX).collect::<String>());
    let ok = result.is_ok_and(|answer| answer == "done");
    json!({ "wall_ms": ms(start.elapsed()), "cpu_ms": ms(usage::cpu() - cpu), "ok": ok, "err": error })
}

async fn many(agent: &Agent, prompt: &Arc<str>, runs: usize) -> anyhow::Result<Value> {
    let (start, cpu) = (Instant::now(), usage::cpu());
    let tasks = (0..runs).map(|_| {
        let (agent, prompt) = (agent.clone(), Arc::clone(prompt));
        tokio::spawn(async move { one(&agent, &prompt).await })
    });
    let ended: Vec<Value> = join_all(tasks).await.into_iter().collect::<Result<_, _>>()?;
    let failed: Vec<&Value> = ended.iter().filter(|sample| sample["ok"] != true).collect();
    Ok(json!({
        "wall_ms": ms(start.elapsed()), "cpu_ms": ms(usage::cpu() - cpu), "ok": failed.is_empty(),
        "err": failed.first().map(|sample| sample["err"].clone()), "failed": failed.len(),
    }))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
