//! One answer of the model: its blocks, why it stopped, what it took.
//!
//! From [`http`](crate::HttpModel) as one body, or from [`stream`](crate::stream) as events.
//! To the agent; [`Response::to_json`] and back is how a journal keeps it.
//!
//! What the stop reason demands is the agent's to decide.

use std::fmt;

use serde_json::value::RawValue;

use super::block::{Block, View};
use super::message::{blocks, join};
use super::raw::{Raw, WireError, members, not_json, push_quoted, shape, string};
use super::request::push_field;
use super::usage::Usage;
use crate::model::Part;

/// A complete answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// The server's id of this message, which a thread continues.
    pub id: String,
    /// The model that answered; may be more exact than the one asked for.
    pub model: String,
    /// The content, in order.
    pub blocks: Vec<Block>,
    /// Why the model stopped.
    pub stop_reason: StopReason,
    /// What it took, as counts.
    pub usage: Usage,
    /// What it took, as the server wrote it: with the fields that [`Usage`] has no place for.
    pub usage_raw: Option<Raw>,
    /// The `request-id` header, to be named when asking for help. Not part of the JSON.
    pub request_id: Option<String>,
    /// Every other top-level field, in order: `container`, `stop_sequence`, `context_management` and those that we do not
    /// know. In a stream a later value replaces an earlier one.
    pub extra: Vec<(String, Raw)>,
}

/// Why the model stopped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopReason {
    /// It has said what it had to say.
    EndTurn,
    /// It ran out of tokens; the last block may be cut off.
    MaxTokens,
    /// It wrote one of the stop sequences.
    StopSequence,
    /// It waits for the results of its calls.
    ToolUse,
    /// A server tool's loop paused: send the content back unchanged to go on.
    PauseTurn,
    /// It refused; what came before counts for nothing.
    Refusal,
    /// The context window is full; the last block may be cut off.
    ModelContextWindowExceeded,
    /// A reason that we do not know.
    Other(String),
}

impl StopReason {
    /// The reason of this name; any name is one.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "end_turn" => Self::EndTurn,
            "max_tokens" => Self::MaxTokens,
            "stop_sequence" => Self::StopSequence,
            "tool_use" => Self::ToolUse,
            "pause_turn" => Self::PauseTurn,
            "refusal" => Self::Refusal,
            "model_context_window_exceeded" => Self::ModelContextWindowExceeded,
            other => Self::Other(other.to_owned()),
        }
    }

    /// Its name on the wire.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::EndTurn => "end_turn",
            Self::MaxTokens => "max_tokens",
            Self::StopSequence => "stop_sequence",
            Self::ToolUse => "tool_use",
            Self::PauseTurn => "pause_turn",
            Self::Refusal => "refusal",
            Self::ModelContextWindowExceeded => "model_context_window_exceeded",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Response {
    /// One that is known by what it says alone: it has no id.
    #[must_use]
    pub fn new(blocks: Vec<Block>, stop_reason: StopReason, usage: Usage) -> Self {
        let (id, model, extra) = (String::new(), String::new(), Vec::new());
        Self { id, model, blocks, stop_reason, usage, usage_raw: None, request_id: None, extra }
    }

    /// Reads the body of an answer that was not streamed.
    ///
    /// # Errors
    /// [`WireError`] when it is no message, has no `stop_reason`, or one of its blocks is malformed.
    pub fn parse(text: &str) -> Result<Self, WireError> {
        let mut envelope = Envelope::default();
        let mut content = None;
        envelope.take(text, |value| content = Some(value))?;
        let content = content.ok_or_else(|| shape("content", "must be an array in the response"))?;
        envelope.finish(blocks(content)?)
    }

    /// Prints the message; the blocks byte for byte. `request_id` is left out, and so is a usage of which nothing is known.
    #[must_use]
    pub fn to_json(&self) -> String {
        let blocks: usize = self.blocks.iter().map(|block| block.raw().as_str().len() + 1).sum();
        let mut out = String::with_capacity(512 + blocks);
        out.push_str(r#"{"id":"#);
        push_quoted(&mut out, &self.id);
        out.push_str(r#","type":"message","role":"assistant","model":"#);
        push_quoted(&mut out, &self.model);
        out.push_str(r#","content":["#);
        join(&mut out, &self.blocks, |out, block| out.push_str(block.raw().as_str()));
        out.push_str(r#"],"stop_reason":"#);
        push_quoted(&mut out, self.stop_reason.name());
        for (key, value) in &self.extra {
            push_field(&mut out, key, value.as_str());
        }
        match &self.usage_raw {
            Some(raw) => push_field(&mut out, "usage", raw.as_str()),
            None if self.usage == Usage::default() => {}
            None => push_field(&mut out, "usage", &printed(&self.usage)),
        }
        out.push('}');
        out
    }

    /// Tells of the whole response as a stream would have: each block's text, then the block, in order.
    pub fn tell(&self, on_part: &mut (dyn FnMut(Part<'_>) + Send)) {
        for (index, block) in self.blocks.iter().enumerate() {
            if let View::Text(text) = block.view() {
                on_part(Part::Text(text));
            }
            on_part(Part::Block { index, block });
        }
    }
}

fn printed(usage: &Usage) -> String {
    format!(
        r#"{{"input_tokens":{},"output_tokens":{},"cache_creation_input_tokens":{},"cache_read_input_tokens":{}}}"#,
        usage.input_tokens, usage.output_tokens, usage.cache_creation_input_tokens, usage.cache_read_input_tokens
    )
}

/// What stands around the blocks. It is told all at once, or in a stream's first and last events, later values winning.
#[derive(Debug, Default)]
pub(crate) struct Envelope {
    id: Option<String>,
    model: Option<String>,
    stop_reason: Option<StopReason>,
    usage: Vec<(String, Raw)>,
    extra: Vec<(String, Raw)>,
}

impl Envelope {
    /// Takes the members of one object, its content handed to `content`.
    pub(crate) fn take<'a>(&mut self, text: &'a str, mut content: impl FnMut(&'a RawValue)) -> Result<(), WireError> {
        let mut usage = None;
        members(text, |key, value| match key.as_ref() {
            "type" | "role" => {}
            "content" => content(value),
            "id" => self.id = string(value).map(Into::into),
            "model" => self.model = string(value).map(Into::into),
            "stop_reason" => {
                if let Some(name) = string(value) {
                    self.stop_reason = Some(StopReason::from_name(&name));
                }
            }
            "usage" => usage = Some(value),
            _ => put(&mut self.extra, &key, value),
        })
        .map_err(|e| not_json("response", &e))?;
        usage.map_or(Ok(()), |usage| self.take_usage(usage))
    }

    /// Takes the members of a `message_delta` event: those of its `delta`, its usage, and what else stands beside them.
    pub(crate) fn take_delta(&mut self, event: &str) -> Result<(), WireError> {
        let (mut delta, mut usage) = (None, None);
        members(event, |key, value| match key.as_ref() {
            "type" => {}
            "delta" => delta = Some(value),
            "usage" => usage = Some(value),
            _ => put(&mut self.extra, &key, value),
        })
        .map_err(|e| not_json("message_delta", &e))?;
        if let Some(delta) = delta {
            self.take(delta.get(), |_| {})?;
        }
        usage.map_or(Ok(()), |usage| self.take_usage(usage))
    }

    fn take_usage(&mut self, usage: &RawValue) -> Result<(), WireError> {
        if usage.get() == "null" {
            return Ok(());
        }
        members(usage.get(), |key, value| put(&mut self.usage, &key, value)).map_err(|e| not_json("usage", &e))
    }

    pub(crate) fn stop_reason(&self) -> Option<&StopReason> {
        self.stop_reason.as_ref()
    }

    /// The response around these blocks.
    pub(crate) fn finish(self, blocks: Vec<Block>) -> Result<Response, WireError> {
        let usage_raw = (!self.usage.is_empty()).then(|| {
            let mut raw = String::from("{");
            join(&mut raw, &self.usage, |raw, (key, value)| {
                push_quoted(raw, key);
                raw.push(':');
                raw.push_str(value.as_str());
            });
            raw.push('}');
            Raw::trusted(raw)
        });
        let usage = match &usage_raw {
            Some(raw) => serde_json::from_str(raw.as_str()).map_err(|e| not_json("usage", &e))?,
            None => Usage::default(),
        };
        Ok(Response {
            id: self.id.ok_or_else(|| shape("id", "must be a string in the response"))?,
            model: self.model.ok_or_else(|| shape("model", "must be a string in the response"))?,
            blocks,
            stop_reason: self.stop_reason.ok_or_else(|| shape("stop_reason", "must be a string in the response"))?,
            usage,
            usage_raw,
            request_id: None,
            extra: self.extra,
        })
    }
}

/// Sets a field, in its first place. A later `null` says nothing new, so it takes nothing away.
fn put(fields: &mut Vec<(String, Raw)>, key: &str, value: &RawValue) {
    match fields.iter_mut().find(|(name, _)| name == key) {
        Some(_) if value.get() == "null" => {}
        Some((_, old)) => *old = Raw::from(value),
        None => fields.push((key.to_owned(), Raw::from(value))),
    }
}
