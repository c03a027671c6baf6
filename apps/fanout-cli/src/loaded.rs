//! What a command needs of the configuration: read, checked, and with its warnings said.

use std::env::current_dir;
use std::sync::Arc;

use anyhow::Context;
use fanout_agent::{AgentOptions, Limits, Price};
use fanout_core::run::Scheduler;
use fanout_core::toolbox::Toolbox;
use fanout_host::build::{Purpose, build_toolbox};
use fanout_host::config::Config;
use fanout_host::environment::Environment;

use crate::args::Common;

/// A configuration and the tools that it describes.
pub struct Loaded {
    pub config: Config,
    pub environment: Environment,
    pub toolbox: Arc<Toolbox>,
}

impl Loaded {
    /// Reads the file that the flags name, or the one that is found, and builds its tools.
    pub fn read(common: &Common, purpose: Purpose) -> anyhow::Result<Self> {
        let environment = Environment::of_process();
        let config = match &common.config {
            Some(path) => Config::load(path, &environment)?,
            None => Config::find(&current_dir().context("the current folder cannot be read")?, &environment)?,
        };
        Self::build(config, environment, purpose)
    }

    /// Builds the tools of a configuration.
    pub fn build(config: Config, environment: Environment, purpose: Purpose) -> anyhow::Result<Self> {
        for warning in &config.warnings {
            anstream::eprintln!("warning: {warning}");
        }
        let toolbox = Arc::new(build_toolbox(&config, &environment, purpose)?);
        Ok(Self { config, environment, toolbox })
    }

    /// A scheduler within the configuration's bounds.
    pub fn scheduler(&self) -> Scheduler {
        Scheduler::new(self.config.scheduler.options())
    }

    /// The agent that `[model]` and `[run]` describe.
    pub fn agent_options(&self) -> AgentOptions {
        let (model, run) = (&self.config.model, &self.config.run);
        let mut options = AgentOptions::new(&*model.name);
        options.max_tokens = model.max_tokens;
        options.stream = model.stream;
        options.early_start = run.early_start;
        options.price = self.price(&model.name);
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

    /// The price of a model: the configuration's word, else what is known of the default model.
    fn price(&self, model: &str) -> Option<Price> {
        let known = (model == DEFAULT_MODEL).then_some(DEFAULT_PRICE);
        let configured = self.config.price(model).map(|price| Price {
            input: price.input,
            output: price.output,
            cache_read: price.cache_read,
            cache_write: price.cache_write,
        });
        configured.or(known)
    }
}

/// The one model whose price is known without a configuration, so that the default budget in dollars can hold.
const DEFAULT_MODEL: &str = "claude-sonnet-5-5";
/// US dollars per million tokens, as in `fanout.example.toml`.
const DEFAULT_PRICE: Price = Price { input: 3.0, output: 15.0, cache_read: 0.3, cache_write: 3.75 };
