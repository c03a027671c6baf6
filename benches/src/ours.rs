//! Fanout's side of every comparison: an [`Agent`] over HTTP with the tools of [`tools`](crate::tools).

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use fanout_agent::{Agent, AgentOptions, Conversation, RunSettings, Status};
use fanout_anthropic::{HttpModel, HttpOptions};
use fanout_core::run::{Scheduler, SchedulerOptions};

use crate::tools::{Api, toolbox};

/// What can be set; all else is at its default.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whether answers are streamed.
    pub stream: bool,
    /// The most attempts at once in this process.
    pub in_flight_max: usize,
    /// The longest that one attempt may take.
    pub timeout: Duration,
}

/// An agent that asks the model at the API's address.
///
/// # Errors
/// When TLS cannot be set up.
pub fn agent(api: &Arc<Api>, model: &str, settings: Settings) -> anyhow::Result<Agent> {
    let http = HttpModel::new(HttpOptions { base_url: api.base.clone(), ..HttpOptions::default() })?;
    let scheduler =
        Scheduler::new(SchedulerOptions { in_flight_max: settings.in_flight_max, ..SchedulerOptions::default() });
    let mut options = AgentOptions::new(model);
    options.stream = settings.stream;
    Ok(Agent::new(Arc::new(http), scheduler, Arc::new(toolbox(api, settings.timeout)?), options)?)
}

/// Runs until the model is done, and gives its last text.
///
/// # Errors
/// When the run ends as anything but `done`.
pub async fn run(agent: &Agent, prompt: &str) -> anyhow::Result<String> {
    let report = agent.run(Conversation::from_prompt(prompt), RunSettings::default()).await;
    if report.status != Status::Done {
        bail!("{}: {}", report.status.as_str(), report.reason.unwrap_or_default());
    }
    Ok(report.answer)
}
