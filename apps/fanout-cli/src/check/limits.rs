//! A limit group as `fanout check` shows it: its budget and its tools.

use std::fmt::Write as _;
use std::time::Duration;

use fanout_core::call::ToolName;
use fanout_core::limits::{LimitOptions, Rate};
use fanout_host::groups::Group;
use serde_json::{Value, json};

use crate::show::{QUIET, STRONG, styled};

/// A few lines for people.
pub(super) fn print(text: &mut String, group: &Group) {
    let LimitOptions { queue_max, wait_max, retry, breaker, .. } = &group.options;
    let unasked = if group.unasked { styled(QUIET, " (unasked)") } else { String::new() };
    let tools: Vec<&str> = group.tools.iter().map(ToolName::as_str).collect();
    let tools = if tools.is_empty() { "no tool".to_owned() } else { tools.join(", ") };
    let _ = writeln!(text, "\n{}{unasked}", styled(STRONG, &group.name));
    let _ = writeln!(text, "  for {tools}");
    let _ = writeln!(text, "  {}; at most {queue_max} wait, {} each", pace(&group.options), span(*wait_max));
    let again = match retry.attempts {
        0 | 1 => "tried once".to_owned(),
        attempts => {
            let (base, max) = (span(retry.base), span(retry.max));
            format!("{attempts} attempts, waits of up to {base}, doubling up to {max}")
        }
    };
    let _ = writeln!(
        text,
        "  {again}; left alone for {} once {:.0} % of {} or more attempts in {} failed",
        span(breaker.cool_down),
        breaker.failure_ratio * 100.0,
        breaker.calls_min,
        span(breaker.window)
    );
}

/// The same for programs. What has no bound is `null`.
pub(super) fn to_json(group: &Group) -> Value {
    // No key sets `ramp`: it is for models, which have no tools.
    let LimitOptions { rate, burst, concurrency, ramp: _, queue_max, wait_max, retry, breaker } = &group.options;
    json!({
        "type": "limit", "group": group.name.as_str(), "unasked": group.unasked,
        "tools": group.tools.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "rate": rate.map(written), "burst": burst, "concurrency": concurrency,
        "max_queue": queue_max, "max_wait_ms": wait_max.as_millis(),
        "retry": {
            "attempts": retry.attempts, "base_ms": retry.base.as_millis(), "max_ms": retry.max.as_millis(),
        },
        "breaker": {
            "failure_ratio": breaker.failure_ratio, "window_ms": breaker.window.as_millis(),
            "min_calls": breaker.calls_min, "cool_down_ms": breaker.cool_down.as_millis(),
        },
    })
}

/// How many start, and how many run.
fn pace(options: &LimitOptions) -> String {
    let rate = match (options.rate, options.burst.get()) {
        (None, _) => "no rate".to_owned(),
        (Some(rate), 1) => written(rate),
        (Some(rate), burst) => format!("{}, {burst} of them at once", written(rate)),
    };
    let at_once = options.concurrency.map(|most| format!("{most} run at once"));
    format!("{rate}; {}", at_once.unwrap_or_else(|| "no bound on how many run at once".to_owned()))
}

/// A span of time as somebody set it: in whole units.
fn span(time: Duration) -> String {
    match time.as_millis() {
        ms if ms % 1_000 != 0 => format!("{ms} ms"),
        ms if ms % 60_000 != 0 || ms <= 60_000 => format!("{} s", ms / 1_000),
        ms => format!("{} min", ms / 60_000),
    }
}

/// A rate as the configuration spells it.
fn written(rate: Rate) -> String {
    let unit = match rate.per {
        SECOND => "s".to_owned(),
        MINUTE => "m".to_owned(),
        HOUR => "h".to_owned(),
        other => span(other),
    };
    format!("{}/{unit}", rate.calls)
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
