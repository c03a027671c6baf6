//! What scheduling alone costs, in microseconds of processor time a call.
//!
//! ```text
//! cargo run --release -p fanout-benches --bin schedule          # 9 samples of each figure
//! cargo run --release -p fanout-benches --bin schedule -- 3     # 3 samples
//! ```
//!
//! Drives the pure parts exactly as `fanout_core::run` does, one finished attempt at a time, which is the dearest way: a
//! busy runtime hears of several at once.
//!
//! Inside the figure: making the effects from the tool's templates and the call's input, arriving, finding conflicts,
//! entering and leaving the locks, asking for and giving back permits, time-outs and deadlines, the answer, reading the clock
//! where a time counts, and freeing the batch.
//! Outside: reading the response's JSON, validating inputs, spawning tasks, events, and what the tools do.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use fanout_benches::statistics::{median, range, rounded};
use fanout_benches::{machine, results, usage};
use fanout_core::call::{CallId, CallerId};
use fanout_core::effects::{EffectsSpec, Paths, Source, Template, TemplateError};
use fanout_core::limits::{Asked, Asker, Cost, Grant, Limits, News, Notice, Wish};
use fanout_core::locks::{Locks, Ticket};
use fanout_core::outcome::Output;
use fanout_core::schedule::{Limit, Schedule, ScheduleOptions, Step, Terms, Treatment};
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

/// How many calls a batch has.
const SIZES: [usize; 5] = [1, 10, 200, 10_000, 100_000];

/// A sample is so many calls, in as many batches as it takes: long enough for the clock, short enough to repeat.
const SAMPLE_CALLS: usize = 100_000;

/// Samples of each figure unless said, taken in turns so that a disturbance falls on all figures alike.
const ROUNDS: usize = 9;

/// The configuration's default of attempts at once.
const IN_FLIGHT_MAX: usize = 1024;

/// The bound that the project set itself, in microseconds a call.
const TARGET_US: f64 = 2.0;

fn main() -> anyhow::Result<()> {
    let shapes = shapes()?;
    let rounds =
        std::env::args().nth(1).map_or(Ok(ROUNDS), |rounds| rounds.parse()).context("the number of samples")?;
    let mut samples: Vec<Vec<Vec<f64>>> = vec![vec![Vec::new(); SIZES.len()]; shapes.len()];
    for round in 0..=rounds {
        for (at, shape) in shapes.iter().enumerate() {
            for (size_at, size) in SIZES.iter().enumerate() {
                let sample = sample(shape, *size);
                // The first round warms up.
                if round > 0 {
                    samples[at][size_at].push(sample);
                }
            }
        }
    }
    println!(
        "scheduling alone, µs of processor time a call, median (smallest to largest) of {rounds} samples of {SAMPLE_CALLS} calls"
    );
    let mut rows = Vec::new();
    for (shape, samples) in shapes.iter().zip(&samples) {
        for (size, samples) in SIZES.iter().zip(samples) {
            rows.push(row(shape, *size, samples));
        }
    }
    let settings = json!({
        "sizes": SIZES, "sample_calls": SAMPLE_CALLS, "rounds": rounds,
        "in_flight_max": IN_FLIGHT_MAX, "target_us_a_call": TARGET_US,
    });
    results::write(
        "schedule",
        &json!({ "machine": machine::describe(), "load": machine::load(), "settings": settings, "rows": rows }),
    )
}

fn row(shape: &Shape, size: usize, samples: &[f64]) -> Value {
    let (middle, (low, high)) = (median(samples), range(samples));
    let verdict = if middle <= TARGET_US { "" } else { "  above the target" };
    println!("{:<12} {size:>7} calls {middle:>7.3} ({low:.3} to {high:.3}){verdict}", shape.name);
    let samples: Vec<f64> = samples.iter().copied().map(rounded).collect();
    json!({ "shape": shape.name, "what": shape.what, "calls": size, "median_us": rounded(middle), "samples_us": samples })
}

/// A kind of batch.
struct Shape {
    name: &'static str,
    what: &'static str,
    spec: EffectsSpec,
    id_of: fn(usize) -> usize,
}

fn shapes() -> Result<Vec<Shape>, TemplateError> {
    // What a function tool has: its own source as inferred write, and declarations beside it.
    let undeclared = EffectsSpec::writes_all_of(&Source::function());
    let order = || Template::parse("orders/{id}").map(|template| vec![template]);
    let writes = EffectsSpec { reads: Some(Vec::new()), writes: Some(order()?), ..undeclared.clone() };
    let reads = EffectsSpec { reads: Some(order()?), writes: Some(Vec::new()), ..undeclared.clone() };
    let each: fn(usize) -> usize = |at| at;
    let one: fn(usize) -> usize = |_| 7;
    Ok(vec![
        Shape { name: "wide", what: "each call writes a key of its own", spec: writes.clone(), id_of: each },
        Shape { name: "chain", what: "all calls write one key", spec: writes, id_of: one },
        Shape { name: "readers", what: "all calls read one key", spec: reads, id_of: one },
        Shape {
            name: "undeclared",
            what: "nothing is declared, so each waits for the last",
            spec: undeclared,
            id_of: each,
        },
    ])
}

/// Microseconds a call.
fn sample(shape: &Shape, size: usize) -> f64 {
    let ids: Vec<CallId> = (0..size).map(|at| format!("toolu_{at:024}").into()).collect();
    let inputs: Vec<Value> = (0..size).map(|at| json!({ "id": (shape.id_of)(at) })).collect();
    let (mut locks, mut permits) = (Locks::default(), Limits::new(IN_FLIGHT_MAX, []));
    let batches = SAMPLE_CALLS.div_ceil(size);
    let terms = Terms {
        tool: "update_order".into(),
        timeout: Duration::from_secs(30),
        deadline: Duration::from_secs(120),
        repeatable: false,
        nested: false,
    };
    let tool = Tool {
        terms: Arc::new(terms),
        limit: Arc::new(Limit::none()),
        source: Source::function(),
        caller: "local".into(),
    };
    let start = usage::thread_cpu();
    for asker in 0..batches {
        let mut batch = Batch::open(&mut locks, &mut permits, asker as Asker, &tool);
        for (id, input) in ids.iter().zip(&inputs) {
            batch.call(id.clone(), input, shape);
        }
        black_box(batch.finish());
    }
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    let calls = (batches * size) as f64;
    (usage::thread_cpu() - start).as_secs_f64() * 1e6 / calls
}

struct Tool {
    terms: Arc<Terms>,
    limit: Arc<Limit>,
    source: Source,
    caller: CallerId,
}

/// What `fanout_core::run::Batch` does, without tasks.
struct Batch<'a> {
    schedule: Schedule,
    locks: &'a mut Locks,
    permits: &'a mut Limits,
    asker: Asker,
    tool: &'a Tool,
    tickets: Vec<Option<Ticket>>,
    grants: Vec<Option<Grant>>,
    spare: Option<Grant>,
    told: Vec<Notice>,
    waiting: FxHashMap<Ticket, usize>,
    running: VecDeque<usize>,
    answers: Vec<Option<Arc<Output>>>,
    granted: Vec<Ticket>,
    epoch: Instant,
}

impl<'a> Batch<'a> {
    fn open(locks: &'a mut Locks, permits: &'a mut Limits, asker: Asker, tool: &'a Tool) -> Self {
        Self {
            schedule: Schedule::new(ScheduleOptions { stray_hold: Duration::from_secs(5), seed: 0 }),
            locks,
            permits,
            asker,
            tool,
            tickets: Vec::new(),
            grants: Vec::new(),
            spare: None,
            told: Vec::new(),
            waiting: FxHashMap::default(),
            running: VecDeque::new(),
            answers: Vec::new(),
            granted: Vec::new(),
            epoch: Instant::now(),
        }
    }

    fn call(&mut self, id: CallId, input: &Value, shape: &Shape) {
        let effects = shape.spec.resolve(&self.tool.source, input, &Paths::default());
        let treatment = Treatment {
            call: id,
            terms: Arc::clone(&self.tool.terms),
            limit: Arc::clone(&self.tool.limit),
            early: false,
            resumable: false,
            in_doubt: false,
            asks: false,
            expected: Duration::from_millis(200),
        };
        self.tickets.push(None);
        self.grants.push(None);
        self.answers.push(None);
        let now = self.epoch.elapsed();
        self.schedule.arrive(treatment, effects, true, Vec::new(), now);
        self.act();
    }

    fn finish(mut self) -> Vec<Option<Arc<Output>>> {
        self.schedule.commit(self.epoch.elapsed());
        self.act();
        while let Some(call) = self.running.pop_front() {
            black_box(self.schedule.wake_at());
            self.end(call);
            self.schedule.advance(self.epoch.elapsed());
            self.act();
        }
        assert_eq!(self.schedule.unanswered(), 0, "every call has its outcome");
        self.answers
    }

    /// An attempt ended and gives back what it held.
    fn end(&mut self, call: usize) {
        let now = self.epoch.elapsed();
        self.schedule.ended(call, Ok(Output::default()), true, now);
        if let Some(ticket) = self.tickets[call].take() {
            self.locks.leave(ticket, &mut self.granted);
        }
        if let Some(grant) = self.grants[call].take() {
            self.permits.give_back(grant, now, &mut self.told);
        }
        self.schedule.gone(call, now);
        for ticket in std::mem::take(&mut self.granted) {
            if let Some(call) = self.waiting.remove(&ticket) {
                self.schedule.locked(call, now);
            }
        }
        while let Some(Notice { group, news: News::Granted(grant), .. }) = self.told.pop() {
            self.spare = Some(grant);
            if !self.schedule.permitted(group, now) {
                self.permits.give_back(grant, now, &mut self.told);
            }
            self.act();
        }
    }

    fn act(&mut self) {
        while let Some(step) = self.schedule.next_step() {
            match step {
                Step::Gather(_) => {}
                Step::Lock(call) => self.lock(call, self.epoch.elapsed()),
                Step::Permit { group, again } => {
                    let now = self.epoch.elapsed();
                    let (caller, asker) = (&self.tool.caller, self.asker);
                    let wish = Wish { group, caller, asker, again, cost: Cost::new() };
                    let asked = self.permits.ask(wish, now, &mut self.told);
                    if let Asked::Granted(grant) = asked {
                        self.spare = Some(grant);
                        self.schedule.permitted(group, now);
                    }
                }
                Step::Start { call, .. } => {
                    self.grants[call] = self.spare.take();
                    self.running.push_back(call);
                }
                Step::Answer(call, result) => self.answers[call] = result.ok(),
                // Nothing here refers, fails or runs out of time.
                Step::Prepare(_)
                | Step::Ask(_)
                | Step::WithdrawPermit(_)
                | Step::TimedOut(_)
                | Step::Stop(_)
                | Step::Backoff { .. }
                | Step::GiveUp(_) => {}
            }
        }
    }

    fn lock(&mut self, call: usize, now: Duration) {
        let effects = self.schedule.effects(call);
        if !effects.exclude_between_runs() {
            self.schedule.locked(call, now);
            return;
        }
        let (ticket, held) = self.locks.enter(effects);
        self.tickets[call] = Some(ticket);
        if held {
            self.schedule.locked(call, now);
        } else {
            self.waiting.insert(ticket, call);
        }
    }
}
