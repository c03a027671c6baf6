//! What it costs that nothing is lost.
//!
//! ```text
//! cargo run --release -p fanout-benches --bin journal              # 6 pairs, written to results/journal.json
//! cargo run --release -p fanout-benches --bin journal -- 2         # 2 pairs
//! ```
//!
//! Three questions, in one run, on the disk that the repository is on. **Rate**: 500 runs at once, each of 3 turns of 3 reads and
//! 2 writes of 50 ms, once with the journal in a SQLite file (full synchronisation) and once with `url = "memory:"`; a write is
//! not repeatable, so it waits until its beginning is kept, and a run is over when all of it is. Each side runs in a process of its
//! own; they take turns, and each pair swaps who is first. **Resume**: a process with 10,000 runs under way is killed (SIGKILL), and
//! the next one goes on with them. **Appends**: writers that each wait until their event is kept before the next, beside
//! `rusqlite` by hand with the same text, the same settings and one transaction for each, or for 64.
//!
//! Not in the figures: the mock, each process's start (20 runs come first, unmeasured), making the 10,000 runs.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use fanout_agent::{Agent, AgentOptions, Conversation, MemoryLedger, RunSettings, Status, new_run_id};
use fanout_anthropic::{HttpModel, HttpOptions};
use fanout_benches::statistics::{median, range, rounded};
use fanout_benches::tools::{Api, DESCRIPTION, schema};
use fanout_benches::{clients, machine, mock, results, usage};
use fanout_core::event::{Event, Recorder, RunKind, What};
use fanout_core::run::{Scheduler, SchedulerOptions};
use fanout_core::toolbox::Toolbox;
use fanout_host::config::Config;
use fanout_host::environment::Environment;
use fanout_host::journal::{Opened, begin};
use fanout_host::runs::{Equipment, Worker, WorkerOptions};
use fanout_journal::record::{FORM, write};
use fanout_tools::function::Function;
use futures_util::future::join_all;
use rusqlite::Connection;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const RUNS: usize = 500;
const TURNS: usize = 3;
const READS: usize = 3;
const WRITES: usize = 2;
const LATENCY_MS: u64 = 50;

/// So many times 500 runs in each process.
const REPEATS: usize = 3;
/// Runs before the first that counts.
const WARM: usize = 20;
/// Pairs of processes, unless said.
const PAIRS: usize = 6;
/// The bound that the project set itself: of the rate without a journal.
const TARGET: f64 = 0.7;

/// Runs that are under way when their process is killed.
const UNFINISHED: usize = 10_000;

/// So many writers at once.
const WRITERS: [usize; 3] = [1, 8, 64];
/// For so long each.
const APPEND_FOR: Duration = Duration::from_secs(2);
/// In so many rounds.
const ROUNDS: usize = 3;

const MODEL: &str = "claude-sonnet-4-5";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => compare(PAIRS).await,
        ["mock"] => mock::main().await,
        ["side", store, base] => side(store, base).await,
        ["begin", folder, base] => begin_many(folder, base).await,
        ["resume", folder, base] => resume_all(folder, base).await,
        [pairs] => compare(pairs.parse().context("the number of pairs")?).await,
        _ => bail!("one argument at most: the number of pairs"),
    }
}

async fn compare(pairs: usize) -> anyhow::Result<()> {
    let mut server = Process::start(&["mock"])?;
    let base = server.line().await?;
    println!("{RUNS} runs at once, {TURNS} turns x ({READS} reads + {WRITES} writes) x {LATENCY_MS} ms, {pairs} pairs");
    let mut all = Vec::new();
    for pair in 0..pairs {
        all.push(one_pair(pair, &base).await?);
    }
    let rate = summary(&all);
    let resume = resume(&base).await?;
    let appends = appends().await?;
    let settings = json!({
        "runs": RUNS, "turns": TURNS, "reads_a_turn": READS, "writes_a_turn": WRITES, "latency_ms": LATENCY_MS,
        "repeats_a_process": REPEATS, "pairs": pairs, "target_ratio": TARGET, "unfinished": UNFINISHED,
        "append_for_s": APPEND_FOR.as_secs(), "append_rounds": ROUNDS,
        "both": { "clients": clients::settings(), "runtime": "tokio, one thread a core", "model": MODEL, "in_flight_max": RUNS * (READS + WRITES) },
        "durable": { "store": "sqlite, WAL, synchronous=full, the folder of the repository" },
        "memory": { "store": "memory:" },
        "by_hand": { "library": "rusqlite", "journal_mode": "wal", "synchronous": "full", "statement": "one insert into a table like ours, prepared" },
    });
    let found = json!({
        "machine": machine::describe(), "load": machine::load(), "settings": settings, "rate": rate, "resume": resume,
        "appends": appends,
    });
    results::write("journal", &found)
}

/// Another process of this bench, ended with this one.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("it has no output")?).lines();
        Ok(Self { child, lines })
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        self.lines.next_line().await?.context("a process ended before it said anything")
    }
}

/// A folder on the disk that the repository is on: a temporary one may be in memory.
fn folder() -> anyhow::Result<TempDir> {
    Ok(TempDir::new_in(Path::new(env!("CARGO_MANIFEST_DIR")))?)
}

// ---------------------------------------------------------------------------------------------------------------------- rate

async fn one_pair(pair: usize, base: &str) -> anyhow::Result<Value> {
    let mut sides = [Value::Null, Value::Null];
    let order = if pair.is_multiple_of(2) { [0, 1] } else { [1, 0] };
    for at in order {
        let mut process = Process::start(&["side", ["durable", "memory"][at], base])?;
        sides[at] = serde_json::from_str(&process.line().await?)?;
        ensure!(process.child.wait().await?.success(), "a side failed");
    }
    let [durable, memory] = sides;
    let wall = |side: &Value| median(&numbers(side, "wall_ms"));
    let ratio = wall(&memory) / wall(&durable);
    println!("pair {pair}: durable {:.0} ms, memory {:.0} ms, rate {ratio:.3}", wall(&durable), wall(&memory));
    let first = ["durable", "memory"][order[0]];
    Ok(json!({ "first": first, "durable": durable, "memory": memory, "rate_ratio": rounded(ratio) }))
}

fn summary(pairs: &[Value]) -> Value {
    let of = |pair: &Value, side: &str, what: &str| median(&numbers(&pair[side], what));
    let ratios: Vec<f64> = pairs.iter().filter_map(|pair| pair["rate_ratio"].as_f64()).collect();
    let cpu: Vec<f64> = pairs.iter().map(|pair| of(pair, "durable", "cpu_ms") / of(pair, "memory", "cpu_ms")).collect();
    let (ratio, (low, high)) = (median(&ratios), range(&ratios));
    let verdict = if ratio >= TARGET { "within" } else { "below" };
    println!("rate {ratio:.3} ({low:.3} to {high:.3}) of that without a journal, {verdict} the target of {TARGET}");
    let kept = &pairs[0]["durable"]["kept"];
    println!(
        "processor time {:.2} times; {} bytes and {} events a call",
        median(&cpu),
        kept["bytes_a_call"],
        kept["events_a_call"]
    );
    json!({
        "rate_ratio": rounded(ratio), "rate_ratio_range": [low, high], "cpu_ratio": rounded(median(&cpu)),
        "kept": kept, "pairs": pairs,
    })
}

fn numbers(side: &Value, what: &str) -> Vec<f64> {
    let samples = side["samples"].as_array().map(Vec::as_slice).unwrap_or_default();
    samples.iter().filter_map(|sample| sample[what].as_f64()).collect()
}

/// One side, in a process of its own: prints its samples.
async fn side(store: &str, base: &str) -> anyhow::Result<()> {
    let folder = folder()?;
    let opened = if store == "durable" { Some(open(folder.path()).await?) } else { None };
    let agent = Arc::new(agent(toolbox(base, true)?, base)?);
    let (opened, mut number) = (opened.map(Arc::new), 0);
    for _ in 0..WARM {
        number += 1;
        run(&agent, opened.as_deref(), number).await?;
    }
    let mut samples = Vec::new();
    for _ in 0..REPEATS {
        let (start, cpu) = (Instant::now(), usage::cpu());
        let runs = (0..RUNS).map(|_| {
            number += 1;
            let (agent, opened, number) = (Arc::clone(&agent), opened.clone(), number);
            tokio::spawn(async move { run(&agent, opened.as_deref(), number).await })
        });
        for ended in join_all(runs.collect::<Vec<_>>()).await {
            ended??;
        }
        let (wall, cpu) = (start.elapsed().as_secs_f64() * 1e3, (usage::cpu() - cpu).as_secs_f64() * 1e3);
        samples.push(json!({ "wall_ms": rounded(wall), "cpu_ms": rounded(cpu) }));
    }
    if let Some(opened) = opened.and_then(Arc::into_inner) {
        opened.close().await?;
    }
    let kept = match store {
        "durable" => kept(folder.path(), number * TURNS * (READS + WRITES))?,
        _ => Value::Null,
    };
    println!("{}", json!({ "samples": samples, "resident_max_kib": usage::resident_max_kib(), "kept": kept }));
    Ok(())
}

/// How much of the file one call takes, its share of all that is kept of its run included.
fn kept(folder: &Path, calls: usize) -> anyhow::Result<Value> {
    let file = Connection::open(folder.join("fanout.db"))?;
    file.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()))?;
    let number = |sql: &str| file.query_row(sql, [], |row| row.get::<_, i64>(0));
    let (pages, size) = (number("pragma page_count")?, number("pragma page_size")?);
    let (events, text) =
        (number("select count(*) from fanout_event")?, number("select sum(length(text)) from fanout_event")?);
    let calls = i64::try_from(calls)?;
    Ok(json!({
        "calls": calls, "file_bytes": pages * size, "bytes_a_call": pages * size / calls,
        "text_bytes_a_call": text / calls, "events_a_call": events / calls,
    }))
}

async fn open(folder: &Path) -> anyhow::Result<Opened> {
    let toml = format!("[store]\nurl = \"sqlite://{}\"\n", folder.join("fanout.db").display());
    let config = Config::parse("bench.toml", &toml, folder, &Environment::default());
    let config = config.map_err(|errors| anyhow::anyhow!("{errors}"))?;
    Opened::open(&config, &Environment::default()).await?.context("there is no journal")
}

/// One run to its end, and until all of it is kept.
async fn run(agent: &Agent, opened: Option<&Opened>, number: usize) -> anyhow::Result<()> {
    let id = new_run_id();
    let recorder = opened.map(|opened| {
        Arc::new(begin(&opened.journal, &id, RunKind::Agent, &"local".into(), None, "a run")) as Arc<dyn Recorder>
    });
    let settings = RunSettings { run: Some(id), recorder: recorder.clone(), ..RunSettings::default() };
    let report = agent.run(Conversation::from_prompt(&prompt(number)), settings).await;
    ensure!(report.status == Status::Done, "{}: {:?}", report.status.as_str(), report.reason);
    if let Some(kept) = recorder.and_then(|recorder| recorder.kept()) {
        kept.await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    }
    Ok(())
}

/// Nothing that one run touches is touched by another.
fn prompt(number: usize) -> String {
    let turn = |turn: usize| {
        let call = |at: usize| {
            let name = if at < READS { "read_tool" } else { "write_tool" };
            json!({ "name": name, "input": { "ms": LATENCY_MS, "text": format!("{number}-{turn}-{at}") } })
        };
        (0..READS + WRITES).map(call).collect::<Vec<_>>()
    };
    json!({ "turns": (0..TURNS).map(turn).collect::<Vec<_>>() }).to_string()
}

#[derive(Deserialize, JsonSchema)]
struct Sleep {
    ms: u64,
    #[serde(default)]
    text: String,
}

/// A tool that reads, and one that writes and must not happen twice. Where they do not `answer`, they go on for ever.
fn toolbox(base: &str, answer: bool) -> anyhow::Result<Arc<Toolbox>> {
    let api = Arc::new(Api { base: base.to_owned(), log: false, http: clients::tools()? });
    let mut toolbox = Toolbox::new();
    for name in ["read_tool", "write_tool"] {
        let api = Arc::clone(&api);
        let builder = Function::new(name, DESCRIPTION, move |input: Sleep, _| {
            let api = Arc::clone(&api);
            async move {
                if !answer {
                    std::future::pending::<()>().await;
                }
                api.call("sleep_tool", &json!({ "ms": input.ms, "text": input.text })).await
            }
        });
        let builder = builder.input_schema(schema("sleep_tool")).reads([]).timeout(Duration::from_secs(600));
        let builder = if name == "read_tool" { builder.writes([]) } else { builder.writes(["row/{text}"]) };
        toolbox.add(builder.build()?)?;
    }
    Ok(Arc::new(toolbox))
}

fn agent(toolbox: Arc<Toolbox>, base: &str) -> anyhow::Result<Agent> {
    let http = HttpModel::new(HttpOptions { base_url: base.to_owned(), ..HttpOptions::default() })?;
    let options = SchedulerOptions { in_flight_max: UNFINISHED, ..SchedulerOptions::default() };
    Ok(Agent::new(Arc::new(http), Scheduler::new(options), toolbox, AgentOptions::new(MODEL))?)
}

// -------------------------------------------------------------------------------------------------------------------- resume

async fn resume(base: &str) -> anyhow::Result<Value> {
    let folder = folder()?;
    let place = folder.path().to_str().context("the folder has no name in UTF-8")?;
    let mut process = Process::start(&["begin", place, base])?;
    ensure!(process.line().await? == "begun", "the runs did not begin");
    process.child.kill().await?;
    let mut next = Process::start(&["resume", place, base])?;
    let found: Value = serde_json::from_str(&next.line().await?)?;
    ensure!(next.child.wait().await?.success(), "the runs were not resumed");
    println!(
        "{UNFINISHED} unfinished runs: gone on with after {} ms, and over after {} ms",
        found["taken_over_ms"], found["over_ms"]
    );
    Ok(found)
}

/// Begins runs whose calls never end, and says when an attempt of each is kept.
async fn begin_many(folder: &str, base: &str) -> anyhow::Result<()> {
    let opened = open(Path::new(folder)).await?;
    let agent = Arc::new(agent(toolbox(base, false)?, base)?);
    let started = Arc::new(Started(tokio::sync::watch::Sender::new(0)));
    // As many at once as a machine has connections for.
    for first in (0..UNFINISHED).step_by(RUNS) {
        for number in first..(first + RUNS).min(UNFINISHED) {
            let (agent, id) = (Arc::clone(&agent), new_run_id());
            let kept = begin(&opened.journal, &id, RunKind::Agent, &"local".into(), None, "a run");
            let recorder: Arc<dyn Recorder> = Arc::new((kept, Arc::clone(&started)));
            let settings = RunSettings { run: Some(id), recorder: Some(recorder), ..RunSettings::default() };
            let calls = json!([{ "name": "read_tool", "input": { "ms": 0, "text": format!("{number}") } }]);
            let prompt = json!({ "turns": [calls] }).to_string();
            tokio::spawn(async move { agent.run(Conversation::from_prompt(&prompt), settings).await });
        }
        let wanted = (first + RUNS).min(UNFINISHED);
        started.0.subscribe().wait_for(|count| *count >= wanted).await?;
    }
    opened.journal.kept().await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    println!("begun");
    std::future::pending().await
}

/// Counts the attempts that began.
struct Started(tokio::sync::watch::Sender<usize>);

impl Recorder for Started {
    fn record(&self, event: &Event) {
        if let What::AttemptStarted { .. } = event.what {
            self.0.send_modify(|count| *count += 1);
        }
    }
}

/// Goes on with all of them, as `fanout serve` does at its start, and waits until they are over.
async fn resume_all(folder: &str, base: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    let opened = open(Path::new(folder)).await?;
    let model = Arc::new(HttpModel::new(HttpOptions { base_url: base.to_owned(), ..HttpOptions::default() })?);
    let toml = format!(
        "[model]\nname = \"{MODEL}\"\n[run]\nmax_cost_usd = 1e6\n[prices.\"{MODEL}\"]\ninput = 0\noutput = 0\ncache_read = 0\ncache_write = 0\n"
    );
    let config = Config::parse("bench.toml", &toml, Path::new(folder), &Environment::default());
    let config = Arc::new(config.map_err(|errors| anyhow::anyhow!("{errors}"))?);
    let toolbox = toolbox(base, true)?;
    let equipment = move || Equipment {
        model: Arc::clone(&model) as _,
        toolbox: Arc::clone(&toolbox),
        projects: Arc::default(),
        config: Arc::clone(&config),
    };
    let options = SchedulerOptions { in_flight_max: UNFINISHED, ..SchedulerOptions::default() };
    let worker = Worker::new(WorkerOptions {
        journal: opened.journal.clone(),
        scheduler: Scheduler::new(options),
        equipment: Arc::new(equipment),
        approvals: opened.approvals.clone(),
        ledger: Arc::new(MemoryLedger::default()),
        recorder: Arc::new(|_| Arc::new(())),
    });
    let resumed = worker.recover().await?.len();
    let taken_over = start.elapsed();
    ensure!(resumed == UNFINISHED, "{resumed} runs were taken over");
    worker.idle().await;
    let over = start.elapsed();
    let mut states = serde_json::Map::new();
    for run in
        opened.journal.store().runs(fanout_journal::store::Wanted { max: 2 * UNFINISHED, ..Default::default() }).await?
    {
        let count = states.entry(run.state.as_str()).or_insert(json!(0));
        *count = json!(count.as_u64().unwrap_or_default() + 1);
    }
    ensure!(states.get("done") == Some(&json!(UNFINISHED)), "not all are done: {states:?}");
    let ms = |time: Duration| rounded(time.as_secs_f64() * 1e3);
    println!(
        "{}",
        json!({ "runs": resumed, "taken_over_ms": ms(taken_over), "over_ms": ms(over), "states": states, "resident_max_kib": usage::resident_max_kib() })
    );
    Ok(())
}

// ------------------------------------------------------------------------------------------------------------------- appends

/// How many events a second are kept, by writers that wait for each; and by hand.
async fn appends() -> anyhow::Result<Value> {
    let (mut ours, mut hand) = (vec![Vec::new(); WRITERS.len()], vec![Vec::new(); 2]);
    for _ in 0..ROUNDS {
        for (at, writers) in WRITERS.into_iter().enumerate() {
            ours[at].push(ours_a_second(writers).await?);
        }
        for (at, group) in [1, 64].into_iter().enumerate() {
            hand[at].push(tokio::task::spawn_blocking(move || by_hand_a_second(group)).await??);
        }
    }
    for (writers, samples) in WRITERS.iter().zip(&ours) {
        println!("{writers} writers: {:.0} appends a second", median(samples));
    }
    println!("by hand: {:.0} a second, {:.0} in groups of 64", median(&hand[0]), median(&hand[1]));
    let ours: Vec<Value> = WRITERS
        .iter()
        .zip(ours)
        .map(|(writers, samples)| json!({ "writers": writers, "a_second": rounded(median(&samples)), "samples": samples }))
        .collect();
    let hand: Vec<Value> = [1, 64]
        .iter()
        .zip(hand)
        .map(|(group, samples)| json!({ "group": group, "a_second": rounded(median(&samples)), "samples": samples }))
        .collect();
    Ok(json!({ "ours": ours, "by_hand": hand }))
}

fn event(run: &str) -> Event {
    Event {
        run: run.into(),
        at: Duration::from_micros(1_234_567),
        what: What::AttemptStarted { call: "toolu_01".into(), number: 1 },
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of at most millions")]
async fn ours_a_second(writers: usize) -> anyhow::Result<f64> {
    let folder = folder()?;
    let opened = open(folder.path()).await?;
    let start = Instant::now();
    let writer = |number: usize| {
        let id = format!("run_{number}");
        let recorder = begin(&opened.journal, &id.as_str().into(), RunKind::Agent, &"local".into(), None, "a run");
        tokio::spawn(async move {
            let (event, mut count) = (event(&id), 0_u64);
            while start.elapsed() < APPEND_FOR {
                recorder.record(&event);
                if let Some(kept) = recorder.kept() {
                    kept.await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
                }
                count += 1;
            }
            anyhow::Ok(count)
        })
    };
    let mut count = 0;
    for ended in join_all((0..writers).map(writer).collect::<Vec<_>>()).await {
        count += ended??;
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    opened.close().await?;
    Ok(rounded(rate))
}

#[expect(clippy::cast_precision_loss, reason = "a count of at most millions")]
fn by_hand_a_second(group: usize) -> anyhow::Result<f64> {
    let folder = folder()?;
    let mut file = Connection::open(folder.path().join("hand.db"))?;
    file.pragma_update(None, "journal_mode", "wal")?;
    file.pragma_update(None, "synchronous", "full")?;
    file.execute_batch(
        "create table event (n integer primary key autoincrement, run integer not null, at_us integer not null, \
         form integer not null, text text not null); create index event_run on event (run);",
    )?;
    let text = write(&event("run_1").what).context("it is kept")?;
    let (start, mut count) = (Instant::now(), 0_usize);
    while start.elapsed() < APPEND_FOR {
        let transaction = file.transaction()?;
        let mut insert =
            transaction.prepare_cached("insert into event (run, at_us, form, text) values (?, ?, ?, ?)")?;
        for _ in 0..group {
            insert.execute(rusqlite::params![1, 1_234_567, FORM, text])?;
        }
        drop(insert);
        transaction.commit()?;
        count += group;
    }
    Ok(rounded(count as f64 / start.elapsed().as_secs_f64()))
}
