//! Blocks out of a stream: each put together from its deltas as if it had come whole.
//!
//! From [`sse`](crate::sse): the events of one body. To [`Model::respond`](crate::Model::respond): parts as they come, and
//! the response at the end.
//!
//! A block is built from the object that began it, key order and unknown fields kept, with the placeholders replaced by what
//! the deltas said, in the deltas' own spelling. There is no I/O here, no clock, and no wait.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::{ModelError, Part};
use crate::sse::Events;
use crate::wire::block::{Block, Input, View};
use crate::wire::error::ApiError;
use crate::wire::raw::{Raw, members, replace, showable, string_body, unescape};
use crate::wire::response::{Envelope, Response, StopReason};

/// One response in the making.
#[derive(Debug, Default)]
pub struct Assembler {
    events: Events,
    message: Message,
}

impl Assembler {
    /// A response of which nothing has come yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the next bytes of the body, cut anywhere, and tells `on_part` what they complete.
    ///
    /// Unknown events are passed over, and so is everything after `message_stop`. A delta of an unknown type leaves its
    /// block without what it said, and the block says so ([`Block::is_whole`]).
    ///
    /// # Errors
    /// [`ModelError::Stream`] for an `error` event, [`ModelError::Malformed`] for events that break the protocol. The
    /// response is lost then.
    pub fn feed(&mut self, bytes: &[u8], on_part: &mut (dyn FnMut(Part<'_>) + Send)) -> Result<(), ModelError> {
        let Self { events, message } = self;
        events.feed(bytes, |name, data| message.take(name, data, on_part))
    }

    /// Reads one event that somebody else cut out of the body, with [`Events`] of their own.
    ///
    /// # Errors
    /// As [`Assembler::feed`].
    pub fn event(
        &mut self,
        name: &[u8],
        data: &[u8],
        on_part: &mut (dyn FnMut(Part<'_>) + Send),
    ) -> Result<(), ModelError> {
        self.message.take(name, data, on_part)
    }

    /// Whether `message_stop` was read, so that nothing more can come.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.message.is_stopped
    }

    /// The response, its blocks in the order of their indices.
    ///
    /// # Errors
    /// [`ModelError::Broken`] before `message_stop`: calls and thinking in a broken stream cannot be saved.
    /// [`ModelError::Malformed`] when a block was begun and never ended (of a refusal, which voids its blocks, such a block
    /// is dropped), or the stream named no stop reason.
    pub fn finish(self) -> Result<Response, ModelError> {
        let Message { envelope, open, mut done, is_stopped } = self.message;
        if !is_stopped {
            return Err(ModelError::Broken { detail: "the stream ended before `message_stop`".to_owned() });
        }
        if let Some((index, _)) = open.first()
            && envelope.stop_reason() != Some(&StopReason::Refusal)
        {
            return Err(malformed(format!("block {index} was never ended")));
        }
        done.sort_by_key(|(index, _)| *index);
        Ok(envelope.finish(done.into_iter().map(|(_, block)| block).collect())?)
    }
}

/// What the events so far add up to.
#[derive(Debug, Default)]
struct Message {
    envelope: Envelope,
    /// Blocks begun and not ended: one in today's streams, though nothing forbids more.
    open: Vec<(usize, OpenBlock)>,
    done: Vec<(usize, Block)>,
    is_stopped: bool,
}

/// One event's data. Every event and delta type shares one shape, so that the common ones are read in one pass.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    index: Option<usize>,
    #[serde(borrow)]
    content_block: Option<&'a RawValue>,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    partial_json: Option<&'a RawValue>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow)]
    signature: Option<&'a RawValue>,
    #[serde(borrow)]
    citation: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

fn is_known(kind: &[u8]) -> bool {
    matches!(
        kind,
        b"message_start"
            | b"content_block_start"
            | b"content_block_delta"
            | b"content_block_stop"
            | b"message_delta"
            | b"message_stop"
            | b"error"
    )
}

impl Message {
    fn take(&mut self, name: &[u8], data: &[u8], on_part: &mut (dyn FnMut(Part<'_>) + Send)) -> Result<(), ModelError> {
        if self.is_stopped || !(name.is_empty() || is_known(name)) {
            return Ok(());
        }
        let text = std::str::from_utf8(data).map_err(|_| malformed("an event is not UTF-8"))?;
        let event: Event<'_> = match serde_json::from_str(text) {
            Ok(event) => event,
            // An event that we do not know may use our field names for other shapes.
            Err(_) if name.is_empty() && unknown_kind(text) => return Ok(()),
            Err(error) => return Err(malformed(format!("an event cannot be read: {error}"))),
        };
        let kind = if event.kind.is_empty() { name } else { event.kind.as_bytes() };
        match kind {
            // Its `content` is a placeholder: the blocks come in events of their own.
            b"message_start" => match event.message {
                Some(message) => Ok(self.envelope.take(message.get(), |_| {})?),
                None => Err(malformed("`message_start` without `message`")),
            },
            b"content_block_start" => self.begin(index(&event)?, event.content_block, on_part),
            b"content_block_delta" => {
                let open = position(&self.open, index(&event)?)?;
                let delta = event.delta.ok_or_else(|| malformed("`content_block_delta` without `delta`"))?;
                self.open[open].1.take(&delta, on_part)
            }
            b"content_block_stop" => {
                let (index, open) = self.open.remove(position(&self.open, index(&event)?)?);
                let block = open.end(on_part)?;
                on_part(Part::Block { index, block: &block });
                self.done.push((index, block));
                Ok(())
            }
            b"message_delta" => Ok(self.envelope.take_delta(text)?),
            b"message_stop" => {
                self.is_stopped = true;
                Ok(())
            }
            b"error" => Err(error_event(text)),
            _ => Ok(()),
        }
    }

    fn begin(
        &mut self,
        index: usize,
        start: Option<&RawValue>,
        on_part: &mut (dyn FnMut(Part<'_>) + Send),
    ) -> Result<(), ModelError> {
        let start = start.ok_or_else(|| malformed("`content_block_start` without `content_block`"))?;
        if self.open.iter().any(|(at, _)| *at == index) || self.done.iter().any(|(at, _)| *at == index) {
            return Err(malformed(format!("block {index} began twice")));
        }
        let block = Block::parse(Raw::from(start))?;
        if let View::Text(text) = block.view()
            && !text.is_empty()
        {
            on_part(Part::Text(text));
        }
        self.open.push((index, OpenBlock::new(block)));
        Ok(())
    }
}

/// A block between its start and its stop. What the deltas said is kept in their own, escaped spelling.
#[derive(Debug)]
struct OpenBlock {
    start: Block,
    text: Option<String>,
    /// How much of `text` was told as [`Part::Text`].
    told: usize,
    thinking: Option<String>,
    /// The whole JSON string: a signature comes in one piece, and a second one replaces the first.
    signature: Option<String>,
    /// The insides of the array.
    citations: Option<String>,
    /// The whole JSON value that a `compaction_delta` carries.
    content: Option<String>,
    input: String,
    is_whole: bool,
}

impl OpenBlock {
    fn new(start: Block) -> Self {
        Self {
            start,
            text: None,
            told: 0,
            thinking: None,
            signature: None,
            citations: None,
            content: None,
            input: String::new(),
            is_whole: true,
        }
    }

    fn take(&mut self, delta: &Delta<'_>, on_part: &mut (dyn FnMut(Part<'_>) + Send)) -> Result<(), ModelError> {
        let start = self.start.raw().as_str();
        match delta.kind.as_ref() {
            "text_delta" => {
                let more = body("text", delta.text)?;
                if self.text.is_none() {
                    let begun = inside(start, "text", ['"', '"']);
                    self.told = begun.len();
                    self.text = Some(begun);
                }
                self.text.get_or_insert_default().push_str(more);
                self.tell(false, on_part);
            }
            "input_json_delta" => self.input.push_str(body("partial_json", delta.partial_json)?),
            "thinking_delta" => {
                let more = body("thinking", delta.thinking)?;
                self.thinking.get_or_insert_with(|| inside(start, "thinking", ['"', '"'])).push_str(more);
            }
            "signature_delta" => {
                body("signature", delta.signature)?;
                self.signature = delta.signature.map(|value| value.get().to_owned());
            }
            "citations_delta" => {
                let more = delta.citation.ok_or_else(|| malformed("`citations_delta` without `citation`"))?;
                let citations = self.citations.get_or_insert_with(|| inside(start, "citations", ['[', ']']));
                if !citations.trim_ascii().is_empty() {
                    citations.push(',');
                }
                citations.push_str(more.get());
            }
            "compaction_delta" => self.content = Some(delta.content.map_or("null", RawValue::get).to_owned()),
            _ => self.is_whole = false,
        }
        Ok(())
    }

    /// Tells what can be shown of the text by now: `all` of it once nothing more can come.
    fn tell(&mut self, all: bool, on_part: &mut (dyn FnMut(Part<'_>) + Send)) {
        let Some(text) = &self.text else { return };
        let untold = &text[self.told..];
        let length = if all { untold.len() } else { showable(untold) };
        if length > 0 && matches!(self.start.view(), View::Text(_)) {
            on_part(Part::Text(&unescape(&untold[..length])));
        }
        self.told += length;
    }

    /// The block, complete.
    fn end(mut self, on_part: &mut (dyn FnMut(Part<'_>) + Send)) -> Result<Block, ModelError> {
        self.tell(true, on_part);
        let mut view = self.start.view().clone();
        let mut values: Vec<(&str, String)> = Vec::new();
        if let Some(text) = &self.text {
            if let View::Text(seen) = &mut view {
                *seen = unescape(text).into_owned();
            }
            values.push(("text", format!("\"{text}\"")));
        }
        if let Some(thinking) = &self.thinking {
            values.push(("thinking", format!("\"{thinking}\"")));
        }
        if let Some(citations) = &self.citations {
            values.push(("citations", format!("[{citations}]")));
        }
        values.extend(self.signature.take().map(|signature| ("signature", signature)));
        values.extend(self.content.take().map(|content| ("content", content)));
        if let Some((text, input)) = self.input() {
            if let View::ToolUse(call) = &mut view {
                call.input = input;
            }
            values.push(("input", text));
        }
        if values.is_empty() {
            return Ok(Block::assembled(self.start.raw().clone(), view, self.is_whole));
        }
        let raw = replace(self.start.raw().as_str(), &values)
            .map_err(|error| malformed(format!("a block cannot be put together: {error}")))?;
        Ok(Block::assembled(Raw::trusted(raw), view, self.is_whole))
    }

    /// What the deltas said of the input, as its text in the block and as a value; `None` where they said nothing, so that
    /// the start's `{}` stands.
    ///
    /// A block whose input is no JSON object could never be sent back, so in the block's text such an input becomes
    /// `{"INVALID_JSON": "<text>"}`, the same object that the call's error result quotes.
    fn input(&self) -> Option<(String, Input)> {
        let text = unescape(&self.input);
        if text.trim_ascii().is_empty() {
            return None;
        }
        let input = match Input::parse(&text) {
            Input::Json(value) if !value.is_object() => Input::Invalid(text.clone().into_owned()),
            input => input,
        };
        let may_stand = match &input {
            Input::Json(_) => true,
            // An object that no `Value` holds is still an object.
            Input::Invalid(text) => members(text, |_, _| {}).is_ok(),
        };
        let text = if may_stand { text.into_owned() } else { format!(r#"{{"INVALID_JSON":"{}"}}"#, self.input) };
        Some((text, input))
    }
}

/// What stands between the delimiters of a member of the object `start`; nothing where it is absent or of another type.
fn inside(start: &str, key: &str, [open, close]: [char; 2]) -> String {
    let mut found = "";
    // `start` was read before, so it is an object; the last of repeated keys counts.
    let _ = members(start, |name, value| {
        if name == key {
            found = value.get().strip_prefix(open).and_then(|text| text.strip_suffix(close)).unwrap_or_default();
        }
    });
    found.to_owned()
}

fn body<'a>(what: &str, value: Option<&'a RawValue>) -> Result<&'a str, ModelError> {
    value.and_then(string_body).ok_or_else(|| malformed(format!("a delta without the string `{what}`")))
}

fn index(event: &Event<'_>) -> Result<usize, ModelError> {
    event.index.ok_or_else(|| malformed(format!("`{}` without `index`", event.kind)))
}

fn position(open: &[(usize, OpenBlock)], index: usize) -> Result<usize, ModelError> {
    open.iter().position(|(at, _)| *at == index).ok_or_else(|| malformed(format!("block {index} is not open")))
}

/// Whether an event names a `type`, and none that we know.
fn unknown_kind(text: &str) -> bool {
    let mut found = None;
    let _ = members(text, |key, value| {
        if key == "type" {
            found = string_body(value);
        }
    });
    found.is_some_and(|kind| !is_known(kind.as_bytes()))
}

fn error_event(text: &str) -> ModelError {
    match ApiError::parse(text) {
        Some(ApiError { kind, message, error_code, request_id }) => {
            ModelError::Stream { kind, message, error_code, request_id }
        }
        None => ModelError::Stream {
            kind: "unknown_error".to_owned(),
            message: text.chars().take(500).collect(),
            error_code: None,
            request_id: None,
        },
    }
}

fn malformed(detail: impl Into<String>) -> ModelError {
    ModelError::Malformed { detail: detail.into() }
}
