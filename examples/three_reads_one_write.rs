//! Three reads and a write: the reads run together, the write waits for the one read that it clashes with.
//!
//! `cargo run -p fanout-examples --bin three_reads_one_write`

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use fanout::{
    Attempt, Call, Event, Function, Recorder, RunOptions, Scheduler, SchedulerOptions, Timeline, ToolError, Toolbox,
};
use serde_json::json;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Order {
    id: String,
}

/// Keeps the timeline of the run.
#[derive(Default)]
struct Watch(Mutex<Timeline>);

impl Recorder for Watch {
    fn record(&self, event: &Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(event);
    }
}

async fn slowly(order: Order, _: Attempt) -> Result<String, ToolError> {
    tokio::time::sleep(Duration::from_millis(200)).await;
    Ok(format!("order {}", order.id))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut toolbox = Toolbox::new();
    toolbox.add(Function::new("read", "Read an order.", slowly).reads(["orders/{id}"]).writes([]).build()?)?;
    toolbox.add(Function::new("write", "Change an order.", slowly).writes(["orders/{id}"]).build()?)?;

    let watch = Arc::new(Watch::default());
    let mut options = RunOptions::new("three-reads-one-write");
    options.recorder = Some(Arc::clone(&watch) as _);
    let mut run = Scheduler::new(SchedulerOptions::default()).run(Arc::new(toolbox), options);
    let mut batch = run.batch();
    for (index, (tool, order)) in (0..).zip([("read", "7"), ("read", "8"), ("read", "9"), ("write", "7")]) {
        batch.call(Call::new(index, format!("toolu_{index}"), tool, json!({ "id": order })))?;
    }
    for outcome in batch.finish().await {
        println!("{}: {}", outcome.call, if outcome.is_error() { "failed" } else { "ok" });
    }

    let timeline = watch.0.lock().unwrap_or_else(PoisonError::into_inner);
    let figures = timeline.figures();
    println!(
        "took {:?}, one by one {:?}, critical path {:?}",
        figures.elapsed, figures.one_by_one, figures.critical_path
    );
    let batch = timeline.turns().first().context("the batch left no trace")?;
    let path: Vec<&str> = batch.critical_calls().into_iter().map(|bar| bar.call.as_str()).collect();
    println!("the longest path: {}", path.join(" → "));
    Ok(())
}
