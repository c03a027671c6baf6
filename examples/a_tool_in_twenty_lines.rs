//! A tool of your own: a type for its input, an async fn, and what it touches.
//!
//! `cargo run -p fanout-examples --bin a_tool_in_twenty_lines`

use std::sync::Arc;

use fanout::{Attempt, Call, Function, RunOptions, Scheduler, SchedulerOptions, ToolError, Toolbox};
use serde_json::json;

/// The model is shown the JSON Schema of this type, comments included.
#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Transfer {
    /// The account that pays.
    from: String,
    /// The account that is paid.
    to: String,
    /// How much, in cents.
    cents: u32,
}

async fn transfer(input: Transfer, attempt: Attempt) -> Result<serde_json::Value, ToolError> {
    if input.cents == 0 {
        return Err(ToolError::Failed("a transfer of nothing; name an amount of at least one cent".into()));
    }
    // The key is the same for every attempt at this call: hand it on, and nobody pays twice.
    Ok(json!({ "from": input.from, "to": input.to, "cents": input.cents, "key": &*attempt.idempotency_key }))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let tool = Function::new("transfer", "Move money between two accounts.", transfer);
    let mut toolbox = Toolbox::new();
    // Transfers that share an account keep their order; all others run together.
    toolbox.add(tool.writes(["accounts/{from}", "accounts/{to}"]).build()?)?;

    let mut run = Scheduler::new(SchedulerOptions::default()).run(Arc::new(toolbox), RunOptions::new("transfers"));
    let mut batch = run.batch();
    let inputs = [
        json!({"from": "ada", "to": "bob", "cents": 500}),
        json!({"from": "bob", "to": "cy", "cents": 0}),
        json!({"from": "dee", "to": "eve", "cents": "lots"}),
    ];
    for (index, input) in (0..).zip(inputs) {
        batch.call(Call::new(index, format!("toolu_{index}"), "transfer", input))?;
    }
    for outcome in batch.finish().await {
        match &outcome.result {
            Ok(output) => println!("{}: {}", outcome.call, output.value()),
            Err(error) => println!("{}: {error}", outcome.call),
        }
    }
    Ok(())
}
