//! What calls waited for, and what turns took: for the picture, and in words beneath it.

use std::fmt::Write as _;
use std::time::Duration;

use fanout_core::event::{Tokens, Wait};
use fanout_core::timeline::{Bar, Timeline, Turn};

use super::waterfall::ROWS_MAX;
use super::{QUIET, STRONG, plain, styled, time};

/// Each turn with what its answer took, and each call that waited, with all that it waited for, in program order.
///
/// At most [`ROWS_MAX`] calls of a turn are named; a line says how many more there were.
pub fn details(timeline: &Timeline) -> String {
    let mut text = String::new();
    for turn in timeline.turns() {
        if turn.answered_at.is_some() {
            let model = format!("turn {}", turn.number);
            let _ = writeln!(text, "{}: {}", styled(STRONG, model), styled(QUIET, took(turn)));
        }
        let calls = turn.in_order().into_iter().filter(|bar| !bar.is_bundle);
        let waited: Vec<_> = calls.map(|bar| (bar, waits(bar, turn))).filter(|(_, waits)| !waits.is_empty()).collect();
        for (bar, waits) in waited.iter().take(ROWS_MAX) {
            let waits: Vec<&str> = waits.iter().map(|(_, words)| words.as_str()).collect();
            let attempts =
                if bar.attempts.len() > 1 { format!(", {} attempts", bar.attempts.len()) } else { String::new() };
            let (position, tool) = (&bar.position, plain(bar.tool.as_str()));
            let _ = writeln!(text, "  {position} {tool}{attempts}: {}", styled(QUIET, waits.join(", ")));
        }
        if let more @ 1.. = waited.len().saturating_sub(ROWS_MAX) {
            let _ = writeln!(text, "  {}", styled(QUIET, format!("and {more} more calls that waited")));
        }
    }
    text
}

/// What the answer of a turn took: time, tokens, dollars.
fn took(turn: &Turn) -> String {
    let Tokens { input, output, cache_read, cache_write } = turn.tokens;
    let mut words = format!("{}, {input} tokens in, {output} out", time(turn.model_time()));
    for (tokens, what) in [(cache_read, "read from the cache"), (cache_write, "written to it")] {
        if tokens > 0 {
            let _ = write!(words, ", {tokens} {what}");
        }
    }
    if let Some(cost) = turn.cost_usd {
        let _ = write!(words, ", ${cost:.4}");
    }
    words
}

/// What a call waited for, as far as it was long enough to be seen: how long, and in words.
pub(super) fn waits(bar: &Bar, turn: &Turn) -> Vec<(Duration, String)> {
    let Some(started) = bar.started_at() else { return Vec::new() };
    let ready = bar.ready_at.unwrap_or(started);
    let queued = bar.queued_at().unwrap_or(started);
    let allowed = turn.answered_at.map_or(bar.arrived_at, |at| at.max(bar.arrived_at));
    let in_batch = ready.saturating_sub(allowed);
    let for_locks = queued.saturating_sub(ready);
    let for_permits = started.saturating_sub(queued) + bar.waited_again();
    // Whichever of its waits was over last is the one that it waited for.
    let for_people = bar.decided_at.is_some_and(|at| ready.saturating_sub(at) < Duration::from_millis(1));
    let held = match for_people {
        true => Some("for a person's approval".to_owned()),
        false => last_to_end(bar, turn).map(|wait| format!("for {}", after(wait, turn))),
    };
    let all = [
        // What it waited for the longest of several that took as long is named first.
        (bar.backed_off(), Some("to try again".to_owned())),
        (for_permits, Some("for a free slot".to_owned())),
        (for_locks, Some("for another run's lock".to_owned())),
        (in_batch, held),
    ];
    let seen = all.into_iter().filter(|(waited, _)| *waited >= Duration::from_millis(1));
    seen.filter_map(|(waited, why)| Some((waited, format!("waited {} {}", time(waited), why?)))).collect()
}

/// Of all that a call waited for in its batch, what ended last: that is what held it.
fn last_to_end<'a>(bar: &'a Bar, turn: &Turn) -> Option<&'a Wait> {
    let ended = |wait: &&Wait| turn.bars.iter().find(|other| other.call == wait.on).and_then(|other| other.ended_at);
    bar.waits.iter().max_by_key(ended)
}

fn after(wait: &Wait, turn: &Turn) -> String {
    let on = turn.bars.iter().find(|bar| bar.call == wait.on);
    let name = plain(on.map_or(wait.on.as_str(), |bar| bar.tool.as_str()));
    match &wait.key {
        Some(key) => format!("{name} ({})", plain(key.as_str())),
        None => format!("{name} ({})", wait.why.as_str()),
    }
}
