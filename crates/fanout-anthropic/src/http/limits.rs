//! What the headers of an answer say of the server's limits.
//!
//! From an answer's status and headers. To the agent, as [`RateLimits`].
//!
//! Every time is taken against the server's own `date`, so that two clocks that disagree change nothing. What cannot be read
//! is left out: a header that makes no sense holds nobody up.

use std::time::{Duration, SystemTime};

use chrono::DateTime;
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use super::answer::text;
use crate::model::{Left, RateLimits};

/// The API's budgets, as its headers and as we name them.
const BUDGETS: [(&str, &str); 4] = [
    ("requests", "requests"),
    ("tokens", "tokens"),
    ("input-tokens", "input_tokens"),
    ("output-tokens", "output_tokens"),
];

impl RateLimits {
    /// What these headers say.
    #[must_use]
    pub fn of_answer(status: StatusCode, headers: &HeaderMap) -> Self {
        let mut limits = Self { status: status.as_u16(), retry_after: retry_after(headers), budgets: Vec::new() };
        // Most servers of this API in tests and proxies say nothing: then nothing is looked for.
        if !headers.keys().any(|name| name.as_str().starts_with("anthropic-ratelimit-")) {
            return limits;
        }
        let number = |header: String| text(headers, &header)?.parse::<u64>().ok();
        limits.budgets.extend(BUDGETS.iter().filter_map(|(header, budget)| {
            let limit = number(format!("anthropic-ratelimit-{header}-limit"))?;
            let left = number(format!("anthropic-ratelimit-{header}-remaining"))?;
            let reset = text(headers, &format!("anthropic-ratelimit-{header}-reset"));
            let full_in = reset.and_then(|reset| DateTime::parse_from_rfc3339(&reset).ok());
            let full_in = full_in.and_then(|at| SystemTime::from(at).duration_since(now(headers)).ok());
            Some(Left { budget, limit, left, full_in: full_in.unwrap_or_default() })
        }));
        limits
    }
}

/// The wait that the server names: `retry-after-ms`, else `retry-after` in seconds or as a date; one that is over is no wait.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| *number >= 0.0);
    if let Some(ms) = text(headers, "retry-after-ms").as_deref().and_then(number) {
        return Duration::try_from_secs_f64(ms / 1000.0).ok();
    }
    let named = text(headers, RETRY_AFTER.as_str())?;
    if let Some(seconds) = number(&named) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let until = httpdate::parse_http_date(&named).ok()?;
    Some(until.duration_since(now(headers)).unwrap_or_default())
}

/// The server's own clock.
fn now(headers: &HeaderMap) -> SystemTime {
    let date = text(headers, DATE.as_str()).and_then(|date| httpdate::parse_http_date(&date).ok());
    date.unwrap_or_else(SystemTime::now)
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn of(lines: &[(&'static str, &str)]) -> RateLimits {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        RateLimits::of_answer(StatusCode::OK, &lines.iter().map(header).collect())
    }

    #[test]
    fn budgets_are_read_against_the_servers_clock() {
        let limits = of(&[
            ("date", "Mon, 23 Nov 2026 10:00:00 GMT"),
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-remaining", "49"),
            ("anthropic-ratelimit-requests-reset", "2026-11-23T10:00:01Z"),
            ("anthropic-ratelimit-input-tokens-limit", "30000"),
            ("anthropic-ratelimit-input-tokens-remaining", "1000"),
            ("anthropic-ratelimit-input-tokens-reset", "2026-11-23T11:00:58+01:00"),
            ("anthropic-ratelimit-output-tokens-limit", "8000"),
        ]);
        let left = |budget, limit, left, seconds| Left { budget, limit, left, full_in: Duration::from_secs(seconds) };
        assert_eq!(limits.budgets, [left("requests", 50, 49, 1), left("input_tokens", 30_000, 1000, 58)]);
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let limits = of(&[
            ("anthropic-ratelimit-tokens-limit", "many"),
            ("anthropic-ratelimit-tokens-remaining", "-1"),
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-remaining", "0"),
            ("anthropic-ratelimit-requests-reset", "soon"),
            ("retry-after", "-5"),
        ]);
        assert_eq!(limits.retry_after, None);
        assert_eq!(limits.budgets, [Left { budget: "requests", limit: 50, left: 0, full_in: Duration::ZERO }]);
    }
}
