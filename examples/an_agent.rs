//! An agent from prompt to answer. The model is scripted and runs on this machine; for the real one, give
//! `HttpOptions` a key and leave the base URL alone.
//!
//! `cargo run -p fanout-examples --bin an_agent`

use std::sync::Arc;

use fanout::{
    Agent, AgentOptions, Attempt, Conversation, Function, HttpModel, HttpOptions, RunSettings, Scheduler,
    SchedulerOptions, ToolError, Toolbox,
};
use fanout_script::{Script, Server, ServerOptions, Turn};
use serde_json::json;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct City {
    city: String,
}

async fn weather(input: City, _: Attempt) -> Result<String, ToolError> {
    Ok(format!("{}: 21 °C", input.city))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let script = Script::new([
        Turn::calls([("weather", json!({"city": "Oslo"})), ("weather", json!({"city": "Rome"}))]),
        Turn::text("Both have 21 °C."),
    ]);
    let server = Server::start(ServerOptions::script(script))?;

    let mut toolbox = Toolbox::new();
    toolbox.add(Function::new("weather", "The weather in a city.", weather).writes([]).build()?)?;
    let model = HttpModel::new(HttpOptions { base_url: server.base_url(), ..HttpOptions::default() })?;
    let scheduler = Scheduler::new(SchedulerOptions::default());
    let agent = Agent::new(Arc::new(model), scheduler, Arc::new(toolbox), AgentOptions::new("claude-sonnet-5-5"))?;

    let report = agent.run(Conversation::from_prompt("Oslo or Rome?"), RunSettings::default()).await;
    println!("{} after {} turns and {} calls: {}", report.status.as_str(), report.turns, report.calls, report.answer);
    Ok(())
}
