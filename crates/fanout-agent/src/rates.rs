//! A model's rate limits, as requests learn them.
//!
//! From [`running`](crate::running): what a request will take, and how it went. To the [`Gate`](fanout_core::run::Gate) that
//! all runs of the process share: when the next one may be sent.
//!
//! What a failed request means for its own run is decided there, not here.

use std::sync::OnceLock;

use fanout_anthropic::{Model, ModelError, RateLimits};
use fanout_core::call::GroupName;
use fanout_core::limits::{Cost, Reading, Signal};
use fanout_core::run::Pass;

/// What an answer is taken to cost until the server has counted it. Most are shorter than `max_tokens` by far; what this
/// guesses too low, the next answer's headers correct.
const OUTPUT_TOKENS: u32 = 1_000;

/// Too many requests, by its status.
const TOO_MANY: u16 = 429;

/// The service is unavailable; the API is overloaded.
const OVERLOADED: [u16; 2] = [503, 529];

/// What the names of all limit groups of models begin with.
pub const MODEL_GROUPS: &str = "model/";

/// The limit group of a model: all that share its rate limits.
pub(crate) fn group(model: &dyn Model) -> GroupName {
    format!("{MODEL_GROUPS}{}", model.api()).into()
}

/// What a request takes of each of the API's budgets, as far as can be told before.
pub(crate) fn cost(input_tokens: u64, max_tokens: u32) -> Cost {
    let output = u64::from(max_tokens.min(OUTPUT_TOKENS));
    Cost::from([
        ("requests", 1),
        ("tokens", input_tokens.saturating_add(output)),
        ("input_tokens", input_tokens),
        ("output_tokens", output),
    ])
}

/// One request on its way; it holds its pass until it is dropped.
pub(crate) struct Crossing {
    pass: Option<Pass>,
    /// The status of the answer, and whether it named a wait.
    head: OnceLock<(u16, bool)>,
}

impl Crossing {
    pub(crate) fn new(pass: Option<Pass>) -> Self {
        Self { pass, head: OnceLock::new() }
    }

    /// The head of the answer: everyone learns at once what is left and how long to wait.
    pub(crate) fn limits(&self, limits: &RateLimits) {
        // One request has one answer.
        let _ = self.head.set((limits.status, limits.retry_after.is_some()));
        let Some(pass) = &self.pass else { return };
        let reading = |left: &fanout_anthropic::Left| Reading {
            meter: left.budget,
            limit: left.limit,
            left: left.left,
            full_in: left.full_in,
        };
        if !limits.budgets.is_empty() {
            pass.read(&limits.budgets.iter().map(reading).collect::<Vec<_>>());
        }
        if limits.retry_after.is_some() {
            pass.observe(None, limits.retry_after);
        }
    }

    /// The request ended, so.
    pub(crate) fn over(&self, error: Option<&ModelError>) {
        if let Some(pass) = &self.pass {
            pass.observe(error.map_or(Some(Signal::Answered), |error| self.signal(error)), None);
        }
    }

    /// What a failure says about how much the API bears.
    fn signal(&self, error: &ModelError) -> Option<Signal> {
        match (self.head.get(), error) {
            // One that names no wait can be a spend cap: fewer at once would not help.
            (Some((TOO_MANY, names_wait)), _) => names_wait.then_some(Signal::Refused),
            (Some((status, _)), _) if OVERLOADED.contains(status) => Some(Signal::Overloaded),
            (_, ModelError::Stream { kind, .. }) if kind == "overloaded_error" => Some(Signal::Overloaded),
            (Some((500.., _)), _) => Some(Signal::Failed),
            (Some((400.., _)), _) => Some(Signal::Answered),
            (_, ModelError::TooLarge { what: "request", .. }) => None,
            _ => Some(Signal::Failed),
        }
    }
}
