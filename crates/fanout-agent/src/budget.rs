//! What a run may use up, reserved before it is spent.
//!
//! From the loop, before each model request: the most that it can take. To it: whether that fits.
//!
//! A budget may be shared by many runs. What one has reserved the others cannot spend, so they cannot overshoot
//! together; what a request did not take is given back when its usage is known.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fanout_anthropic::Usage;
use fanout_core::outcome::{CallError, ErrorCode};
use fanout_core::run::{AtMost, Bounds};

use crate::agent::{AgentError, AgentOptions};
use crate::daily::{Daily, DailyReservation, in_words};
use crate::stop::End;

/// What tokens of a model cost, in US dollars per million.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// Input that is not cached.
    pub input: f64,
    /// Output.
    pub output: f64,
    /// Input read from the cache.
    pub cache_read: f64,
    /// Input written to the cache.
    pub cache_write: f64,
}

/// Prices are given for so many tokens.
const PER: f64 = 1_000_000.0;

impl Price {
    /// What this usage cost, in US dollars.
    #[expect(clippy::cast_precision_loss, reason = "token counts stay far below 2^53")]
    pub fn cost(&self, usage: &Usage) -> f64 {
        (usage.input_tokens as f64 * self.input
            + usage.output_tokens as f64 * self.output
            + usage.cache_read_input_tokens as f64 * self.cache_read
            + usage.cache_creation_input_tokens as f64 * self.cache_write)
            / PER
    }

    /// The most that so many tokens can cost.
    #[expect(clippy::cast_precision_loss, reason = "token counts stay far below 2^53")]
    fn most(&self, input: u64, output: u64) -> f64 {
        (input as f64 * self.input.max(self.cache_write) + output as f64 * self.output) / PER
    }
}

/// The bounds of one run. The defaults are the configuration's.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// The most responses of the model. A request that failed is no turn; how often it is tried is the backoff's to say.
    pub turns_max: u32,
    /// The most calls.
    pub calls_max: u32,
    /// The most calls of one response that run; the rest are answered `budget`.
    pub batch_max: usize,
    /// The most tokens, input and output together.
    pub tokens_max: u64,
    /// The most US dollars; `None`: no bound.
    pub cost_max_usd: Option<f64>,
    /// The longest that the run may take.
    pub deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            turns_max: 50,
            calls_max: 500,
            batch_max: 256,
            tokens_max: 2_000_000,
            cost_max_usd: None,
            deadline: Duration::from_secs(15 * 60),
        }
    }
}

impl Limits {
    /// How much may run of the response of this turn, counted from 1, in a run that has used so many calls. A batch that no
    /// model asked for is turn 0.
    pub fn bounds(&self, turn: u32, calls: u32) -> Bounds {
        let budget = |message: String| CallError::new(ErrorCode::Budget, message);
        let (turns, batch, all) = (self.turns_max, self.batch_max, self.calls_max);
        let blocks = if turn >= turns {
            let message =
                format!("not run: this was the last of the run's {turns} turns, so nobody would see the result");
            AtMost { count: 0, error: budget(message) }
        } else {
            let message = format!(
                "not run: only the first {batch} calls of one response run (`max_batch`); ask for the others again, fewer at once"
            );
            AtMost { count: batch, error: budget(message) }
        };
        let count = usize::try_from(all.saturating_sub(calls)).unwrap_or(usize::MAX);
        let message = format!("not run: the run has used its {all} calls (`max_calls`): answer with what there is");
        Bounds { blocks: Some(blocks), calls: Some(AtMost { count, error: budget(message) }) }
    }
}

/// Which budget is used up.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BudgetError {
    /// No model request is left.
    #[error("the run has used its {0} turns (`max_turns`)")]
    Turns(u32),
    /// No call is left.
    #[error("the run has used its {0} calls (`max_calls`)")]
    Calls(u32),
    /// The next request could take more tokens than are left.
    #[error("the next request may take {wanted} tokens and {left} of {max} are left (`max_total_tokens`)")]
    Tokens {
        /// What it may take.
        wanted: u64,
        /// What is left.
        left: u64,
        /// The bound.
        max: u64,
    },
    /// The next request could cost more than is left.
    #[error("the next request may cost ${wanted:.4} and ${left:.4} of ${max:.2} is left (`max_cost_usd`)")]
    Cost {
        /// What it may cost.
        wanted: f64,
        /// What is left.
        left: f64,
        /// The bound.
        max: f64,
    },
    /// The next request could cost more than is left of a day.
    #[error(
        "the next request may cost ${wanted:.4} and ${left:.4} of ${max:.2} a day is left ({name}); the day ends at 00:00 UTC, in {}",
        in_words(*ends_in)
    )]
    Day {
        /// What it may cost.
        wanted: f64,
        /// What is left.
        left: f64,
        /// The bound.
        max: f64,
        /// How people know the bound.
        name: Arc<str>,
        /// How long the day lasts.
        ends_in: Duration,
    },
    /// What was spent in the day cannot be known, so nothing more is.
    #[error("what was spent today cannot be known: {0}")]
    Unknown(String),
    /// Time is up.
    #[error("the run has used its {0:?} (`deadline`)")]
    Deadline(Duration),
}

/// Tokens and dollars, shared by whoever holds a clone.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Mutex<Spending>>);

#[derive(Debug)]
struct Spending {
    tokens_max: u64,
    cost_max_usd: Option<f64>,
    tokens: u64,
    cost_usd: f64,
}

/// A part of a budget that is set aside. Dropping it gives it back; of the day, only what was not sent.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Budget,
    tokens: u64,
    cost_usd: f64,
    day: Option<DailyReservation>,
}

impl Budget {
    /// A budget of which nothing is spent. `None` for dollars: no bound.
    pub fn new(tokens_max: u64, cost_max_usd: Option<f64>) -> Self {
        Self(Arc::new(Mutex::new(Spending { tokens_max, cost_max_usd, tokens: 0, cost_usd: 0.0 })))
    }

    /// The same, of which so much is spent already.
    #[must_use]
    pub fn with_spent(self, tokens: u64, cost_usd: f64) -> Self {
        let mut spending = self.spending();
        spending.tokens = spending.tokens.saturating_add(tokens);
        spending.cost_usd += cost_usd;
        drop(spending);
        self
    }

    /// Refuses a budget of dollars that cannot be counted.
    pub(crate) fn check(&self, options: &AgentOptions) -> Result<(), End> {
        match (self.spending().cost_max_usd, options.price) {
            (Some(max), None) => {
                Err(End::Failed(AgentError::NoPrice { model: options.model.clone(), max }.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Sets aside what a request can take at most.
    pub(crate) fn reserve(&self, input: u64, output: u64, price: Option<Price>) -> Result<Reservation, BudgetError> {
        let wanted = input.saturating_add(output);
        let cost = price.map_or(0.0, |price| price.most(input, output));
        let mut spending = self.spending();
        let left = spending.tokens_max.saturating_sub(spending.tokens);
        if wanted > left {
            return Err(BudgetError::Tokens { wanted, left, max: spending.tokens_max });
        }
        if let Some(max) = spending.cost_max_usd {
            let left = (max - spending.cost_usd).max(0.0);
            if cost > left {
                return Err(BudgetError::Cost { wanted: cost, left, max });
            }
        }
        spending.tokens += wanted;
        spending.cost_usd += cost;
        drop(spending);
        Ok(Reservation { budget: self.clone(), tokens: wanted, cost_usd: cost, day: None })
    }

    /// Tokens and US dollars that are spent or set aside.
    pub fn used(&self) -> (u64, f64) {
        let spending = self.spending();
        (spending.tokens, spending.cost_usd)
    }

    fn spending(&self) -> MutexGuard<'_, Spending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// Sets the same dollars aside of the day.
    pub(crate) async fn of_day(mut self, daily: Option<&Daily>) -> Result<Self, BudgetError> {
        if let Some(daily) = daily {
            self.day = Some(daily.reserve(self.cost_usd, SystemTime::now()).await?);
        }
        Ok(self)
    }

    /// The request is on its way.
    pub(crate) fn sent(&mut self) {
        if let Some(day) = &mut self.day {
            day.sent();
        }
    }

    /// The request was surely not charged.
    pub(crate) fn not_charged(&mut self) {
        if let Some(day) = &mut self.day {
            day.spend(0.0);
        }
    }

    /// Spends what was really taken, and gives the rest back.
    pub(crate) fn spend(mut self, usage: &Usage, price: Option<Price>) {
        let (tokens, cost) = (usage.total(), price.map_or(0.0, |price| price.cost(usage)));
        let mut spending = self.budget.spending();
        spending.tokens = spending.tokens.saturating_sub(self.tokens).saturating_add(tokens);
        spending.cost_usd += cost - self.cost_usd;
        drop(spending);
        (self.tokens, self.cost_usd) = (0, 0.0);
        if let Some(day) = &mut self.day {
            day.spend(cost);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut spending = self.budget.spending();
        spending.tokens = spending.tokens.saturating_sub(self.tokens);
        spending.cost_usd -= self.cost_usd;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: Price = Price { input: 3.0, output: 15.0, cache_read: 0.3, cache_write: 3.75 };

    #[test]
    fn runs_that_share_a_budget_cannot_overshoot_together() {
        let budget = Budget::new(1_000, None);
        let first = budget.reserve(300, 300, None).unwrap();
        let refused = budget.reserve(300, 300, None).unwrap_err();
        assert_eq!(refused, BudgetError::Tokens { wanted: 600, left: 400, max: 1_000 });
        first.spend(&Usage { input_tokens: 200, output_tokens: 50, ..Usage::default() }, None);
        assert_eq!(budget.used().0, 250);
        assert!(budget.reserve(300, 300, None).is_ok());
        assert_eq!(budget.used().0, 250, "a dropped reservation is given back");
    }

    #[test]
    fn dollars_are_reserved_at_the_most_they_can_be() {
        let budget = Budget::new(u64::MAX, Some(0.02));
        let reserved = budget.reserve(1_000, 1_000, Some(PRICE)).unwrap();
        assert!((budget.used().1 - 0.01875).abs() < 1e-9);
        assert!(matches!(budget.reserve(1_000, 1_000, Some(PRICE)), Err(BudgetError::Cost { .. })));
        reserved.spend(&Usage { input_tokens: 1_000, output_tokens: 100, ..Usage::default() }, Some(PRICE));
        assert!((budget.used().1 - 0.0045).abs() < 1e-9);
    }
}
