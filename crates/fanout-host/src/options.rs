//! The agent that `[model]`, `[run]` and `[prices]` describe.
//!
//! From [`Config`]. To whoever starts runs: the terminal, the gateway.

use fanout_agent::{AgentOptions, Limits, Price};

use crate::config::Config;

/// The one model whose price is known without a configuration, so that the default budget in dollars can hold.
const DEFAULT_MODEL: &str = "claude-sonnet-5-5";

/// US dollars per million tokens, as in `fanout.example.toml`.
const DEFAULT_PRICE: Price = Price { input: 3.0, output: 15.0, cache_read: 0.3, cache_write: 3.75 };

/// The agent's options. The model's price is the configuration's, else what is known of the default model; a budget in
/// dollars without any price is refused when the agent is built.
pub fn agent_options(config: &Config) -> AgentOptions {
    let (model, run) = (&config.model, &config.run);
    let known = (model.name == DEFAULT_MODEL).then_some(DEFAULT_PRICE);
    let mut options = AgentOptions::new(&*model.name);
    options.max_tokens = model.max_tokens;
    options.stream = model.stream;
    options.early_start = run.early_start;
    options.price = config.price(&model.name).copied().or(known);
    options.limits = Limits {
        turns_max: run.max_turns,
        calls_max: run.max_calls,
        batch_max: usize::try_from(run.max_batch).unwrap_or(usize::MAX),
        tokens_max: run.max_total_tokens,
        cost_max_usd: Some(run.max_cost_usd),
        deadline: run.deadline,
    };
    options
}
