//! What is known of an external API's budget.
//!
//! From the configuration (`[limits.NAME]`), or from the source of a tool that names no group.
//! To [`Limits`](super::Limits), which keeps it.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::call::GroupName;
use crate::effects::Source;
use crate::retry::Backoff;

/// How many attempts at one host run at once if nobody says otherwise.
const HOST_CONCURRENCY: u32 = 32;

/// How many requests to a model run at once to begin with: more than an agent's runs on one machine, far fewer than what
/// the API calls a sharp rise.
const MODEL_RAMP: u32 = 64;

/// The same for one MCP server.
const MCP_CONCURRENCY: u32 = 16;

/// The same for one database: the connections of its pool.
pub const POOL_CONNECTIONS: u32 = 20;

/// The budget of one limit group. The defaults are the configuration's: no rate, no bound on what runs at once.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitOptions {
    /// How many attempts may start in a span of time.
    pub rate: Option<Rate>,
    /// How many of them may start at one moment after a calm: any span `T` sees at most `burst + rate * T`.
    pub burst: NonZeroU32,
    /// The most attempts that run at once.
    pub concurrency: Option<NonZeroU32>,
    /// How many may run at once to begin with; it doubles with every round of answers until the first refusal. For an API that
    /// minds a sudden rise.
    pub ramp: Option<NonZeroU32>,
    /// The most calls that wait; further ones are `rate_limited` at once.
    pub queue_max: usize,
    /// The longest that a call waits for its permit.
    pub wait_max: Duration,
    /// How failed attempts go again.
    pub retry: Backoff,
    /// When the API counts as failing.
    pub breaker: BreakerOptions,
}

impl Default for LimitOptions {
    fn default() -> Self {
        Self {
            rate: None,
            burst: NonZeroU32::MIN,
            concurrency: None,
            ramp: None,
            queue_max: 1000,
            wait_max: Duration::from_secs(60),
            retry: Backoff::default(),
            breaker: BreakerOptions::default(),
        }
    }
}

impl LimitOptions {
    /// That of a model's API: no bound but what its answers say, and no end to patience but the run's own. Acceleration
    /// limits make it begin low.
    pub fn model() -> Self {
        Self { ramp: NonZeroU32::new(MODEL_RAMP), ..Self::unbounded() }
    }

    /// No bound of any kind, for what is no external API.
    pub(super) fn unbounded() -> Self {
        let breaker = BreakerOptions { calls_min: u32::MAX, ..BreakerOptions::default() };
        Self { queue_max: usize::MAX, wait_max: Duration::MAX, breaker, ..Self::default() }
    }

    /// The group that a source has unasked, named like it: one per host, MCP server and database. Functions and commands have none.
    pub fn unasked(source: &Source) -> Option<(GroupName, Self)> {
        let options = match source.as_str().split_once('/')?.0 {
            "http" => Self::at_once(HOST_CONCURRENCY),
            "mcp" => Self::at_once(MCP_CONCURRENCY),
            "sql" => Self::at_once(POOL_CONNECTIONS),
            _ => return None,
        };
        Some((source.as_str().into(), options))
    }

    /// Only a bound on what runs at once.
    pub fn at_once(concurrency: u32) -> Self {
        Self { concurrency: NonZeroU32::new(concurrency), ..Self::default() }
    }
}

/// So many per span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub calls: NonZeroU32,
    /// In how long.
    pub per: Duration,
}

impl Rate {
    /// The time between two at an even pace, rounded up: never faster than was asked for.
    pub fn interval(self) -> Duration {
        let nanos = self.per.as_nanos().div_ceil(u128::from(self.calls.get()));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// When an API counts as failing, and for how long it is left alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerOptions {
    /// This share of the attempts failed, 0 to 1.
    pub failure_ratio: f64,
    /// Within this time.
    pub window: Duration,
    /// And there were at least so many.
    pub calls_min: u32,
    /// So long nothing is sent; then one attempt finds out.
    pub cool_down: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self { failure_ratio: 0.5, window: Duration::from_secs(30), calls_min: 10, cool_down: Duration::from_secs(15) }
    }
}
