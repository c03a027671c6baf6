//! One content block: its text, and what we need to know of it.
//!
//! From a response's `content`, a client's message, or [`stream`](crate::stream).
//! To [`message`](super::message), which joins the texts unchanged.
//!
//! A block of a kind that we do not know is kept like any other. Nothing here prints a block from its view.

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;

use super::raw::{Raw, WireError, members, not_json, push_quoted, shape, string};

/// One content block, as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    raw: Raw,
    view: View,
    whole: bool,
}

/// What a block is, as far as an agent loop must know. More kinds may be told apart later.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum View {
    /// Text for the reader.
    Text(String),
    /// A call that we are asked to run.
    ToolUse(ToolUse),
    /// A call that the server runs itself (`server_tool_use`, `mcp_tool_use`): never answered by us.
    ServerToolUse {
        /// The server's id of the call, `srvtoolu_…` or `mcptoolu_…`.
        id: String,
        /// The server tool's name.
        name: String,
    },
    /// The answer to a call of ours, in a user message.
    ToolResult {
        /// The call answered.
        tool_use_id: String,
        /// Whether it is marked as an error.
        is_error: bool,
    },
    /// `thinking` or `redacted_thinking`: goes back untouched.
    Thinking,
    /// Any other kind, results of server tools included.
    Other {
        /// Its `type`.
        kind: String,
    },
}

/// A call that the model asks us to run. `caller` and fields that we do not know stay in the block's text.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolUse {
    /// The id that the result must carry.
    pub id: String,
    /// The tool asked for; not checked against any list.
    pub name: String,
    /// What to run it with.
    pub input: Input,
}

/// The input of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A JSON value, of any shape. An absent input is `{}`.
    Json(Value),
    /// The text that stood where a JSON value should: with eager input streaming the server does not check it. The call is
    /// answered with an error that quotes it, `{"INVALID_JSON": "<text>"}`.
    ///
    /// Also JSON that no [`Value`] holds (a number past the range of `f64`, half a surrogate pair, more than 127 levels),
    /// and in a stream JSON that is no object, which the API would not take back.
    Invalid(String),
}

impl Input {
    pub(crate) fn parse(text: &str) -> Self {
        serde_json::from_str(text).map_or_else(|_| Self::Invalid(text.to_owned()), Self::Json)
    }
}

impl Block {
    /// Reads one block of any kind.
    ///
    /// # Errors
    /// [`WireError::Shape`] when it is no object with a string `type`, or a kind that we know lacks what makes it usable:
    /// `text` of a text; `id` and `name` of a call; `tool_use_id` of a result.
    pub fn parse(raw: Raw) -> Result<Self, WireError> {
        let view = view(raw.as_str())?;
        Ok(Self { raw, view, whole: true })
    }

    /// A text block of our own.
    #[must_use]
    pub fn text(text: &str) -> Self {
        let mut raw = String::with_capacity(text.len() + 32);
        push_text(&mut raw, text);
        Self { raw: Raw::trusted(raw), view: View::Text(text.to_owned()), whole: true }
    }

    pub(crate) fn assembled(raw: Raw, view: View, whole: bool) -> Self {
        Self { raw, view, whole }
    }

    /// The text, exactly as it came.
    #[must_use]
    pub fn raw(&self) -> &Raw {
        &self.raw
    }

    /// What it is.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Whether the text holds all that the server sent of this block.
    ///
    /// `false` only for a streamed block that had a delta of a type we do not know: it is kept as far as it was understood,
    /// so that the turn can be shown and recorded, but the server may refuse it when it goes back.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }
}

pub(crate) fn push_text(out: &mut String, text: &str) {
    out.push_str(r#"{"type":"text","text":"#);
    push_quoted(out, text);
    out.push('}');
}

/// The fields that any kind's view needs. Their types are looked at only once the kind is known: in a block of a kind
/// that we do not know, `name` may well be an object.
#[derive(Default)]
struct Fields<'a> {
    kind: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    name: Option<&'a RawValue>,
    input: Option<&'a RawValue>,
    text: Option<&'a RawValue>,
    tool_use_id: Option<&'a RawValue>,
    is_error: Option<&'a RawValue>,
}

fn view(text: &str) -> Result<View, WireError> {
    let mut fields = Fields::default();
    members(text, |key, value| match key.as_ref() {
        "type" => fields.kind = Some(value),
        "id" => fields.id = Some(value),
        "name" => fields.name = Some(value),
        "input" => fields.input = Some(value),
        "text" => fields.text = Some(value),
        "tool_use_id" => fields.tool_use_id = Some(value),
        "is_error" => fields.is_error = Some(value),
        _ => {}
    })
    .map_err(|e| not_json("content block", &e))?;
    let kind = need("type", fields.kind)?;
    Ok(match kind.as_ref() {
        "text" => View::Text(need("text", fields.text)?.into_owned()),
        "tool_use" => View::ToolUse(ToolUse {
            id: need("id", fields.id)?.into_owned(),
            name: need("name", fields.name)?.into_owned(),
            input: Input::parse(fields.input.map_or("{}", RawValue::get)),
        }),
        "server_tool_use" | "mcp_tool_use" => View::ServerToolUse {
            id: need("id", fields.id)?.into_owned(),
            name: need("name", fields.name)?.into_owned(),
        },
        "tool_result" => View::ToolResult {
            tool_use_id: need("tool_use_id", fields.tool_use_id)?.into_owned(),
            is_error: fields.is_error.is_some_and(|value| value.get() == "true"),
        },
        "thinking" | "redacted_thinking" => View::Thinking,
        _ => View::Other { kind: kind.into_owned() },
    })
}

fn need<'a>(what: &'static str, value: Option<&'a RawValue>) -> Result<Cow<'a, str>, WireError> {
    value.and_then(string).ok_or_else(|| shape(what, "must be a string in this content block"))
}
