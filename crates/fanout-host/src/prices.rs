//! What tokens cost.
//!
//! From `[prices."MODEL"]`, in dollars for a million tokens.
//! To budgets and to the closing lines of a run.

use fanout_anthropic::Usage;

/// The prices of one model, in US dollars for a million tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// Of prompt tokens that no cache was concerned with.
    pub input: f64,
    /// Of tokens that the model wrote.
    pub output: f64,
    /// Of prompt tokens read from the cache.
    pub cache_read: f64,
    /// Of prompt tokens written to the cache.
    pub cache_write: f64,
}

impl Price {
    /// The dollars that so many tokens cost: at least 0, and exact to far below a cent.
    #[expect(clippy::cast_precision_loss, reason = "2^53 tokens are beyond any bill")]
    pub fn cost(&self, usage: &Usage) -> f64 {
        let parts = [
            (usage.input_tokens, self.input),
            (usage.output_tokens, self.output),
            (usage.cache_read_input_tokens, self.cache_read),
            (usage.cache_creation_input_tokens, self.cache_write),
        ];
        parts.into_iter().map(|(tokens, price)| tokens as f64 * price).sum::<f64>() / 1_000_000.0
    }
}
