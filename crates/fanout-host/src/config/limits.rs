//! `[limits.NAME]`: the budget of one external API.
//!
//! From the page. To the scheduler's options, and to `tool`, which looks a tool's `limit` up in the names.
//!
//! Which tools use a group is not known here: [`groups`](crate::groups) says it, once the tools are there.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use fanout_core::effects::Source;
use fanout_core::limits::{BreakerOptions, LimitOptions};
use fanout_core::retry::Backoff;

use super::database::DatabaseConfig;
use super::field::Field;
use super::keys::Kind;
use super::page::{Place, Section, Spot};
use super::sections::{count, or};

/// One limit group that somebody set up.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitConfig {
    /// Its budget.
    pub options: LimitOptions,
    /// Where it stands.
    pub place: Place,
}

/// What metrics call the calls that no group concerns, only the bound on all attempts.
pub const IN_FLIGHT: &str = "in_flight";

/// Reads every `[limits.NAME]`, those with mistakes too: a tool that names one is not to be blamed for them.
pub(super) fn read_all(
    top: &Section<'_>,
    databases: &BTreeMap<String, DatabaseConfig>,
) -> BTreeMap<String, LimitConfig> {
    let Some(section) = top.get("limits").and_then(|field| field.section("[limits]", Kind::Names)) else {
        return BTreeMap::new();
    };
    section.all().map(|(spot, field)| (field.key.clone(), read(&spot, &field, databases))).collect()
}

/// How a section is written: `[limits.payments]`, `[limits."http/api.example.com"]`.
pub(crate) fn written(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(is_bare) {
        format!("[limits.{name}]")
    } else {
        format!("[limits.{name:?}]")
    }
}

fn read(spot: &Spot, field: &Field<'_>, databases: &BTreeMap<String, DatabaseConfig>) -> LimitConfig {
    let (name, page) = (field.key.as_str(), field.page);
    if name.trim().is_empty() {
        page.mistake(spot, "a limit group needs a name, as in [limits.payments]");
    } else if name == IN_FLIGHT {
        let message = format!("`{IN_FLIGHT}` is what the bound on all attempts is called; a group needs another name");
        page.mistake(spot, message);
    }
    // A section for a group that there is unasked changes what it names, and nothing else.
    let unasked = LimitOptions::unasked(&Source::from(name)).map(|(_, options)| options);
    let database = name.strip_prefix("sql/").and_then(|name| databases.get(name));
    let default = database.map(DatabaseConfig::limit).or(unasked).unwrap_or_default();
    let section = field.section(written(name), Kind::Limit);
    let options = section.map_or_else(|| default.clone(), |section| options(&section, &default));
    LimitConfig { options, place: page.place(spot) }
}

fn options(section: &Section<'_>, default: &LimitOptions) -> LimitOptions {
    let number = |field: &Field<'_>| count(field).and_then(NonZeroU32::new);
    let queue = |field: &Field<'_>| {
        let most = field.integer(0..=u64::from(u32::MAX))?;
        usize::try_from(most).ok()
    };
    let options = LimitOptions {
        rate: section.get("rate").map_or(default.rate, |field| field.rate()),
        burst: or(section, "burst", default.burst, number),
        concurrency: section.get("concurrency").map_or(default.concurrency, |field| number(&field)),
        ramp: default.ramp,
        queue_max: or(section, "max_queue", default.queue_max, queue),
        wait_max: or(section, "max_wait", default.wait_max, Field::duration),
        retry: section.get("retry").map_or(default.retry, |field| retry(&field, section, default.retry)),
        breaker: section.get("breaker").map_or(default.breaker, |field| breaker(&field, section, default.breaker)),
    };
    section.finish();
    if let Some(spot) = section.spot_of("burst")
        && section.spot_of("rate").is_none()
    {
        section.page.warning(&spot, format!("`burst` of {} does nothing without a `rate`", section.name));
    }
    options
}

fn retry(field: &Field<'_>, group: &Section<'_>, default: Backoff) -> Backoff {
    let Some(section) = field.section(format!("`retry` of {}", group.name), Kind::Retry) else { return default };
    let retry = Backoff {
        attempts: or(&section, "attempts", default.attempts, count),
        base: or(&section, "base", default.base, Field::duration),
        max: or(&section, "max", default.max, Field::duration),
    };
    section.finish();
    if retry.base > retry.max {
        let message = format!(
            "{} waits {:?} at first (`base`) and never longer than {:?} (`max`)",
            section.name, retry.base, retry.max
        );
        section.page.mistake(&section.spot, message);
    }
    retry
}

fn breaker(field: &Field<'_>, group: &Section<'_>, default: BreakerOptions) -> BreakerOptions {
    let Some(section) = field.section(format!("`breaker` of {}", group.name), Kind::Breaker) else { return default };
    let breaker = BreakerOptions {
        failure_ratio: or(&section, "failure_ratio", default.failure_ratio, Field::share),
        window: or(&section, "window", default.window, Field::duration),
        calls_min: or(&section, "min_calls", default.calls_min, count),
        cool_down: or(&section, "cool_down", default.cool_down, Field::duration),
    };
    section.finish();
    breaker
}
