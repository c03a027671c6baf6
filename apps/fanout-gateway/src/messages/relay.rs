//! The streams of all turns of a run as the one stream that the client sees.
//!
//! From [`asking`](super::asking): the events of each upstream answer as they come. To the exchange: those that the client may
//! see, one message in all, its blocks counted through.
//!
//! `message_start` is the first turn's, `message_delta` and `message_stop` the last one's; calls of our tools are left out.
//! What need not change goes on in its own bytes. Nothing waits here.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use fanout_agent::Ours;
use fanout_anthropic::{Raw, Response, View};
use serde::Deserialize;
use serde_json::{Value, json};

/// One event that keeps a connection alive.
pub(crate) const PING: &str = "event: ping\ndata: {\"type\": \"ping\"}\n\n";

/// The same before `message_start`, when no event may come yet.
pub(crate) const COMMENT: &str = ": the tools are at work\n\n";

/// The stream of one run.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    next_index: u64,
    has_begun: bool,
    /// The id that the client was told.
    pub(crate) id: Option<String>,
    /// The blocks of this turn: the upstream's index, and ours if the client sees it.
    blocks: Vec<(u64, Option<u64>)>,
    delta: Option<String>,
    stop: Option<String>,
    /// Something of this turn was sent, so that it cannot be asked for again.
    pub(crate) has_sent: bool,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    index: Option<u64>,
    #[serde(borrow)]
    content_block: Option<Start<'a>>,
    #[serde(borrow)]
    message: Option<Begun<'a>>,
}

#[derive(Deserialize)]
struct Start<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Begun<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
}

impl Relay {
    /// Whether `message_start` was sent.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// The next upstream answer begins.
    pub(crate) fn turn(&mut self) {
        self.blocks.clear();
        (self.delta, self.stop) = (None, None);
        self.has_sent = false;
    }

    /// One event of it. What the client may see of it is appended to `out`.
    pub(crate) fn event(&mut self, name: &[u8], data: &[u8], ours: &Ours, out: &mut BytesMut) {
        let Ok(text) = std::str::from_utf8(data) else { return };
        // An event that has none of these shapes is none that we know.
        let event: Option<Event<'_>> = serde_json::from_str(text).ok();
        let kind = event.as_ref().map(|event| &*event.kind).filter(|kind| !kind.is_empty());
        let kind = kind.or(std::str::from_utf8(name).ok()).unwrap_or_default().to_owned();
        match (kind.as_str(), event) {
            ("message_start", _) if self.has_begun => {}
            ("message_start", event) => {
                self.has_begun = true;
                self.id = event.and_then(|event| event.message?.id).map(Cow::into_owned);
                self.put(&kind, text, out);
            }
            ("content_block_start", Some(Event { index: Some(index), content_block: Some(start), .. })) => {
                let is_hidden = start.kind == "tool_use" && start.name.is_some_and(|name| ours.contains(&name));
                let shown = (!is_hidden).then_some(self.next_index);
                self.next_index += u64::from(!is_hidden);
                self.blocks.push((index, shown));
                self.put_at(&kind, text, index, shown, out);
            }
            ("content_block_delta" | "content_block_stop", Some(Event { index: Some(index), .. })) => {
                let shown = self.blocks.iter().rev().find(|(known, _)| *known == index).and_then(|(_, shown)| *shown);
                self.put_at(&kind, text, index, shown, out);
            }
            ("message_delta", _) => self.delta = Some(text.to_owned()),
            ("message_stop", _) => self.stop = Some(text.to_owned()),
            // Whether it is the end is for the loop to say.
            ("error", _) => {}
            ("ping", _) => put(&kind, text, out),
            _ if self.has_begun => self.put(&kind, text, out),
            _ => {}
        }
    }

    /// The end of the stream: the last turn's own, with `usage` in its place if it is not all that was taken.
    pub(crate) fn finish(&mut self, usage: Option<&Value>, out: &mut BytesMut) {
        if let Some(delta) = self.delta.take() {
            let summed = usage.and_then(|usage| {
                let usage = Raw::from_value(usage).ok()?;
                Raw::parse(&delta).ok()?.with(&[("usage", usage)]).ok()
            });
            put("message_delta", summed.as_ref().map_or(&delta, Raw::as_str), out);
        }
        if let Some(stop) = self.stop.take() {
            put("message_stop", &stop, out);
        }
    }

    fn put_at(&mut self, kind: &str, text: &str, index: u64, shown: Option<u64>, out: &mut BytesMut) {
        let Some(shown) = shown else { return };
        if shown == index {
            self.put(kind, text, out);
            return;
        }
        let counted = Raw::from_value(&shown).and_then(|shown| Raw::parse(text)?.with(&[("index", shown)]));
        if let Ok(counted) = counted {
            self.put(kind, counted.as_str(), out);
        }
    }

    fn put(&mut self, kind: &str, text: &str, out: &mut BytesMut) {
        self.has_sent = true;
        put(kind, text, out);
    }
}

/// A whole response as the events of a stream.
pub(crate) fn events_of(response: &Response) -> Vec<(&'static str, Value)> {
    let usage = serde_json::to_value(response.usage).unwrap_or_default();
    let message = json!({
        "id": response.id, "type": "message", "role": "assistant", "model": response.model, "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": usage,
    });
    let mut events = vec![("message_start", json!({"type": "message_start", "message": message}))];
    for (index, block) in response.blocks.iter().enumerate() {
        let mut start: Value = serde_json::from_str(block.raw().as_str()).unwrap_or_default();
        let mut take = |field: &str, empty: Value| start.get_mut(field).map(|value| std::mem::replace(value, empty));
        let deltas: Vec<Value> = match block.view() {
            View::Text(_) => {
                take("text", json!("")).map(|text| json!({"type": "text_delta", "text": text})).into_iter().collect()
            }
            View::Thinking => {
                let thought =
                    take("thinking", json!("")).map(|text| json!({"type": "thinking_delta", "thinking": text}));
                let sign = |signature| json!({"type": "signature_delta", "signature": signature});
                thought.into_iter().chain(take("signature", json!("")).map(sign)).collect()
            }
            View::ToolUse(_) | View::ServerToolUse { .. } => {
                let input = take("input", json!({}));
                let delta = |input: Value| json!({"type": "input_json_delta", "partial_json": input.to_string()});
                input.map(delta).into_iter().collect()
            }
            _ => Vec::new(),
        };
        let start = json!({"type": "content_block_start", "index": index, "content_block": start});
        events.push(("content_block_start", start));
        let delta = |delta| {
            let event = json!({"type": "content_block_delta", "index": index, "delta": delta});
            ("content_block_delta", event)
        };
        events.extend(deltas.into_iter().map(delta));
        events.push(("content_block_stop", json!({"type": "content_block_stop", "index": index})));
    }
    let stop = json!({"stop_reason": response.stop_reason.name(), "stop_sequence": null});
    events.push(("message_delta", json!({"type": "message_delta", "delta": stop, "usage": usage})));
    events.push(("message_stop", json!({"type": "message_stop"})));
    events
}

/// Appends one event.
pub(crate) fn put(kind: &str, data: &str, out: &mut BytesMut) {
    out.reserve(kind.len() + data.len() + 24);
    out.put_slice(b"event: ");
    out.put_slice(kind.as_bytes());
    for line in data.split('\n') {
        out.put_slice(b"\ndata: ");
        out.put_slice(line.as_bytes());
    }
    out.put_slice(b"\n\n");
}

/// Adds what one more turn took. Counts add up, at any depth; of all else the later word counts.
pub(crate) fn add_usage(sum: &mut Value, more: Value) {
    match (sum, more) {
        (Value::Object(sum), Value::Object(more)) => {
            for (key, more) in more {
                match sum.get_mut(&key) {
                    Some(sum) => add_usage(sum, more),
                    None => {
                        sum.insert(key, more);
                    }
                }
            }
        }
        (Value::Number(sum), Value::Number(more)) => {
            *sum = match (sum.as_u64(), more.as_u64()) {
                (Some(a), Some(b)) => a.saturating_add(b).into(),
                _ => more,
            };
        }
        (_, Value::Null) => {}
        (sum, more) => *sum = more,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_adds_up_at_any_depth() {
        let mut sum = json!({"input_tokens": 3, "cache": {"a": 1}, "tier": "x", "n": null});
        add_usage(&mut sum, json!({"input_tokens": 4, "cache": {"a": 2, "b": 5}, "tier": "y", "n": 1, "tier2": null}));
        assert_eq!(sum, json!({"input_tokens": 7, "cache": {"a": 3, "b": 5}, "tier": "y", "n": 1, "tier2": null}));
    }
}
