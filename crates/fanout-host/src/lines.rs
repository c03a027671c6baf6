//! Events as JSON lines: what `--json` prints.
//!
//! From the events of a run. To standard output, one object a line: `{"type":…,"run":…,"at_ms":…}`.
//! The names are a contract; core's own types can change without them.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use fanout_anthropic::Usage;
use fanout_core::call::CallId;
use fanout_core::event::{Event, Tokens, Wait, What, outcome_word};
use fanout_core::outcome::{Content, Outcome};
use fanout_core::timeline::Figures;
use fanout_journal::store::Row;
use serde_json::{Value, json};

use crate::explain::wait_json;

/// The line of one event; `None` for the end of a run, which [`run_ended`] prints with its figures.
pub fn line(event: &Event) -> Option<Value> {
    let mut line = match &event.what {
        What::RunEnded { .. } => return None,
        What::RunStarted { .. } => json!({ "type": "run_started" }),
        What::RunResumed => json!({ "type": "run_resumed" }),
        What::TurnStarted { turn } => json!({ "type": "turn_started", "turn": turn }),
        What::ModelEnded { turn, stop_reason, tokens, cost_usd, state: _ } => json!({
            "type": "model_ended", "turn": turn, "stop_reason": stop_reason, "usage": usage_json(*tokens), "cost_usd": cost_usd,
        }),
        What::ModelFailed { turn, error, again_after } => json!({
            "type": "model_failed", "turn": turn, "error": error, "again_after_ms": again_after.map(millis),
        }),
        What::CallArrived { call, tool, part_of, position, declared: _, input: _, waits } => json!({
            "type": "call_arrived", "call": call.as_str(), "tool": tool.as_str(), "part_of": id(part_of.as_ref()),
            "position": position.to_string(), "waits": waits_json(waits),
        }),
        What::BundleArrived { call, tool, part_of, position, waits } => json!({
            "type": "bundle_arrived", "call": call.as_str(), "tool": tool.as_str(), "part_of": id(part_of.as_ref()),
            "position": position.to_string(), "waits": waits_json(waits),
        }),
        What::CallWaits { call, waits } => {
            json!({ "type": "call_waits", "call": call.as_str(), "waits": waits_json(waits) })
        }
        What::ApprovalAsked { call, tool, approval } => {
            json!({ "type": "approval_asked", "call": call.as_str(), "tool": tool.as_str(), "approval": approval.as_str() })
        }
        What::ApprovalDecided { call, approval, decision } => {
            let said = decision.said();
            json!({
                "type": "approval_decided", "call": call.as_str(), "approval": approval.as_str(),
                "decision": decision.as_str(), "by": said.and_then(|said| said.by.as_deref()),
                "words": said.and_then(|said| said.words.as_deref()),
            })
        }
        What::CallReady { call, filled: _ } => json!({ "type": "call_ready", "call": call.as_str() }),
        What::CallLocked { call } => json!({ "type": "call_locked", "call": call.as_str() }),
        What::AttemptStarted { call, number } => {
            json!({ "type": "call_started", "call": call.as_str(), "attempt": number })
        }
        What::AttemptEnded { call, number, error } => {
            json!({ "type": "attempt_ended", "call": call.as_str(), "attempt": number, "error": error })
        }
        What::CallProgress { call, progress } => json!({
            "type": "call_progress", "call": call.as_str(), "progress": progress.done, "total": progress.total,
            "message": progress.message.as_deref(),
        }),
        What::CallBackoff { call, attempts, wait } => json!({
            "type": "call_backoff", "call": call.as_str(), "attempts": attempts, "wait_ms": millis(*wait),
        }),
        What::LimitPaused { group, wait } => {
            json!({ "type": "limit_paused", "group": group.as_str(), "wait_ms": millis(*wait) })
        }
        What::BreakerOpened { group, wait } => {
            json!({ "type": "breaker_opened", "group": group.as_str(), "wait_ms": millis(*wait) })
        }
        What::CallEnded { outcome } => ended("call_ended", outcome),
        What::BundleEnded { outcome } => ended("bundle_ended", outcome),
        What::StrayGivenUp { call } => json!({ "type": "stray_given_up", "call": call.as_str() }),
        What::TurnDiscarded { turn, reason } => json!({ "type": "turn_discarded", "turn": turn, "reason": reason }),
        What::TurnEnded { turn } => json!({ "type": "turn_ended", "turn": turn }),
        _ => return None,
    };
    line["run"] = json!(event.run.as_str());
    line["at_ms"] = json!(millis(event.at));
    Some(line)
}

/// A run, as it is listed.
pub fn row(row: &Row) -> Value {
    let used = &row.used;
    json!({
        "id": row.run.as_str(), "kind": row.kind.as_str(), "state": row.state.as_str(), "reason": row.reason, "caller": row.caller,
        "project": row.project, "title": row.title, "began_at": time(row.began_ms), "ended_at": row.ended_ms.map(time),
        "turns": used.turns, "calls": used.calls, "failed": used.failed, "tokens": used.tokens, "cost_usd": used.cost_usd,
        "elapsed_ms": millis(used.elapsed),
    })
}

/// A time in milliseconds since 1970, as RFC 3339 writes it.
pub fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// What a run used, beside its time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Model responses.
    pub turns: u32,
    /// Calls that have an outcome.
    pub calls: u32,
    /// Tokens.
    pub usage: Usage,
    /// US dollars, where the price is known.
    pub cost_usd: Option<f64>,
}

/// The last line of a run.
pub fn run_ended(run: &str, status: &str, reason: Option<&str>, figures: Figures, used: &Used) -> Value {
    json!({
        "type": "run_ended", "run": run, "status": status, "reason": reason,
        "elapsed_ms": millis(figures.elapsed), "one_by_one_ms": millis(figures.one_by_one),
        "critical_path_ms": millis(figures.critical_path), "saved_percent": figures.saved_percent(),
        "turns": used.turns, "calls": used.calls, "cost_usd": used.cost_usd,
        "usage": usage_json(Tokens {
            input: used.usage.input_tokens,
            output: used.usage.output_tokens,
            cache_read: used.usage.cache_read_input_tokens,
            cache_write: used.usage.cache_creation_input_tokens,
        }),
    })
}

/// Tokens by the names that the API has for them.
fn usage_json(tokens: Tokens) -> Value {
    json!({
        "input_tokens": tokens.input, "output_tokens": tokens.output,
        "cache_creation_input_tokens": tokens.cache_write, "cache_read_input_tokens": tokens.cache_read,
    })
}

fn id(call: Option<&CallId>) -> Option<&str> {
    call.map(CallId::as_str)
}

fn waits_json(waits: &[Wait]) -> Vec<Value> {
    waits.iter().map(wait_json).collect()
}

fn ended(what: &str, outcome: &Outcome) -> Value {
    json!({
        "type": what, "call": outcome.call.as_str(), "part_of": id(outcome.part_of.as_ref()), "outcome": outcome_word(outcome.error_code()),
        "attempts": outcome.attempts, "content": content_json(&outcome.shown),
    })
}

/// What a model is shown, without the bytes of pictures.
pub(crate) fn content_json(shown: &[Content]) -> Vec<Value> {
    let content = |content: &Content| match content {
        Content::Text(text) => json!({ "type": "text", "text": &**text }),
        Content::Image { media_type, .. } => json!({ "type": "image", "media_type": media_type }),
    };
    shown.iter().map(content).collect()
}

/// Milliseconds to a tenth: enough to order events by eye.
#[expect(clippy::cast_precision_loss, reason = "a run of 2^53 tenths of milliseconds does not end")]
fn millis(time: Duration) -> f64 {
    ((time.as_micros() + 50) / 100) as f64 / 10.0
}
