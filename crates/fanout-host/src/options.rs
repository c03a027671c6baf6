//! The agent that `[model]`, `[run]` and `[prices]` describe.
//!
//! From [`Config`]. To whoever starts runs: the terminal, the gateway.

use std::collections::BTreeMap;
use std::sync::Arc;

use fanout_agent::{AgentOptions, DailyCap, Limits, Price, nano_usd};

use fanout_core::toolbox::{Toolbox, ToolboxError};

use crate::config::{Config, ProjectConfig, RunConfig, project_written};

/// The one model whose price is known without a configuration, so that the default budget in dollars can hold.
const DEFAULT_MODEL: &str = "claude-sonnet-5-5";

/// US dollars per million tokens, as in `fanout.example.toml`.
const DEFAULT_PRICE: Price = Price { input: 3.0, output: 15.0, cache_read: 0.3, cache_write: 3.75 };

/// The options of an agent for this model: the one of `[model]`, or one that a client asks for.
///
/// Its price is the configuration's, else what is known of the default model. Dollars cannot be counted without a price:
/// then the default budget in dollars is waived (`cost_max_usd` is `None`), while one that somebody wrote is kept, and
/// refused when the agent is built.
pub fn agent_options(config: &Config, model: &str) -> AgentOptions {
    let run = &config.run;
    let known = (model == DEFAULT_MODEL).then_some(DEFAULT_PRICE);
    let mut options = AgentOptions::new(model);
    options.max_tokens = config.model.max_tokens;
    options.stream = config.model.stream;
    options.early_start = run.early_start;
    options.price = config.price(model).copied().or(known);
    options.limits = limits(run);
    if options.price.is_none() && !run.max_cost_given {
        options.limits.cost_max_usd = None;
    }
    options
}

/// The caps of a day that a run is under, for a key of this project: the project's, then the key's own. None for a project that the
/// configuration does not know.
pub fn daily_caps(config: &Config, project: &str, key: &str) -> Vec<DailyCap> {
    let Some(known) = config.projects.get(project) else { return Vec::new() };
    let cap = |max: Option<f64>, scope: String, name: &str| {
        let (scope, name) = (scope.into(), format!("`{name}` of {}", project_written(project)).into());
        max.map(|max| DailyCap { scope, name, max_nano_usd: nano_usd(max) })
    };
    let of_project = cap(known.max_cost_usd_per_day, format!("project/{project}"), "max_cost_usd_per_day");
    let of_key = cap(known.max_cost_usd_per_key_per_day, format!("key/{key}"), "max_cost_usd_per_key_per_day");
    of_project.into_iter().chain(of_key).collect()
}

/// The tools of each project that may not use all of them, by its name.
///
/// # Errors
/// [`ToolboxError`], as for [`Toolbox::only`].
pub fn toolboxes(config: &Config, toolbox: &Toolbox) -> Result<BTreeMap<String, Arc<Toolbox>>, ToolboxError> {
    let bounded = config.projects.iter().filter(|(_, project)| project.tools.is_some());
    let own = |(name, project): (&String, &ProjectConfig)| {
        let kept = toolbox.only(|tool| project.may_use(tool.as_str()))?;
        Ok((name.clone(), Arc::new(kept)))
    };
    bounded.map(own).collect()
}

/// The bounds of one run.
pub fn limits(run: &RunConfig) -> Limits {
    Limits {
        turns_max: run.max_turns,
        calls_max: run.max_calls,
        batch_max: usize::try_from(run.max_batch).unwrap_or(usize::MAX),
        tokens_max: run.max_total_tokens,
        cost_max_usd: Some(run.max_cost_usd),
        deadline: run.deadline,
    }
}
