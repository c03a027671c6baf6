//! The tokens that one response took.
//!
//! From [`response`](super::response) and [`stream`](crate::stream). To whoever keeps a budget.
//! Prices are not here.

use std::ops::Add;

use serde::{Deserialize, Serialize};

/// Tokens, by kind. An absent count is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Prompt tokens that were neither read from a cache nor written to one.
    #[serde(deserialize_with = "count")]
    pub input_tokens: u64,
    /// Tokens that the model wrote, thinking included.
    #[serde(deserialize_with = "count")]
    pub output_tokens: u64,
    /// Prompt tokens written to the cache.
    #[serde(deserialize_with = "count")]
    pub cache_creation_input_tokens: u64,
    /// Prompt tokens read from the cache.
    #[serde(deserialize_with = "count")]
    pub cache_read_input_tokens: u64,
}

impl Usage {
    /// All tokens of all four kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.input_tokens
            .saturating_add(self.output_tokens)
            .saturating_add(self.cache_creation_input_tokens)
            .saturating_add(self.cache_read_input_tokens)
    }
}

impl Add for Usage {
    type Output = Self;

    /// Adds kind by kind; a sum past `u64::MAX` stays there.
    fn add(self, other: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cache_creation_input_tokens: self
                .cache_creation_input_tokens
                .saturating_add(other.cache_creation_input_tokens),
            cache_read_input_tokens: self.cache_read_input_tokens.saturating_add(other.cache_read_input_tokens),
        }
    }
}

/// The API writes `null` where a kind does not apply.
fn count<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(Option::<u64>::deserialize(deserializer)?.unwrap_or(0))
}
