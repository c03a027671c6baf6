//! One request: what is the same all through a run, and the messages so far.
//!
//! From the agent, or from a client's bytes. To [`Model`](crate::Model): bytes again.
//!
//! The parts are texts already, so printing a request copies them behind one another and looks into none.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::message::{Message, join};
use super::raw::{Raw, WireError, elements, members, not_json, push_quoted, shape, string};
use super::tool::ToolChoice;

/// A request of `POST /v1/messages`.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The model's name.
    pub model: String,
    /// The most tokens that the answer may take.
    pub max_tokens: u32,
    /// The system prompt: a JSON string, or an array of text blocks.
    pub system: Option<Raw>,
    /// The exact bytes of the array of tools, as from [`tools_json`](super::tools_json). Must be the same all through a run.
    pub tools: Option<Arc<str>>,
    /// How the model may choose; absent, the API takes `auto`.
    pub tool_choice: Option<ToolChoice>,
    /// The history, oldest first. It only ever grows.
    pub messages: Vec<Message>,
    /// Whether the answer should come as it is written.
    pub stream: bool,
    /// The server-held thread, if any.
    pub thread: Option<Thread>,
    /// Every other top-level field, in order: `temperature`, `thinking`, `metadata` and those that we do not know.
    pub extra: Vec<(String, Raw)>,
}

/// A conversation that the server keeps, so that `messages` holds only what is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thread {
    /// Begin one.
    Create,
    /// Go on after this response; each can be continued once.
    Continue {
        /// The [`id`](super::Response::id) of the response before.
        previous_message_id: String,
    },
}

impl Request {
    /// A request with nothing in it but the three things that every one has.
    #[must_use]
    pub fn new(model: impl Into<String>, max_tokens: u32, messages: Vec<Message>) -> Self {
        Self {
            model: model.into(),
            max_tokens,
            system: None,
            tools: None,
            tool_choice: None,
            messages,
            stream: false,
            thread: None,
            extra: Vec::new(),
        }
    }

    /// Reads a client's request. Fields that this type has no place for are kept in `extra`, in order; so is a `tool_choice`
    /// or `thread` that says more than its type here can hold, and `stream` where it is neither `true` nor `false`.
    ///
    /// # Errors
    /// [`WireError`] when it is no JSON object, or `model`, `max_tokens` or `messages` is absent or of the wrong type.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let text = std::str::from_utf8(bytes).map_err(|_| shape("request", "must be UTF-8"))?;
        let (mut model, mut max_tokens, mut messages) = (None, None, None);
        let mut request = Self::new("", 0, Vec::new());
        members(text, |key, value| match key.as_ref() {
            "model" => model = string(value),
            "max_tokens" => max_tokens = value.get().parse().ok(),
            "messages" => messages = Some(value),
            _ => request.take(&key, value),
        })
        .map_err(|e| not_json("request", &e))?;
        request.model = model.ok_or_else(|| shape("model", "must be a string"))?.into_owned();
        request.max_tokens = max_tokens.ok_or_else(|| shape("max_tokens", "must be a whole number"))?;
        let messages = messages.ok_or_else(|| shape("messages", "must be an array"))?;
        request.messages = elements(messages.get())
            .map_err(|_| shape("messages", "must be an array"))?
            .into_iter()
            .map(|message| Message::parse(Raw::from(message)))
            .collect::<Result<_, _>>()?;
        Ok(request)
    }

    /// Takes one optional field.
    fn take(&mut self, key: &str, value: &RawValue) {
        match (key, value.get()) {
            ("stream", "true") => self.stream = true,
            ("stream", "false") => self.stream = false,
            ("system", text) if text != "null" => self.system = Some(Raw::from(value)),
            ("tools", text) if text.starts_with('[') => self.tools = Some(text.into()),
            _ => {
                if key == "tool_choice" {
                    self.tool_choice = ToolChoice::parse(value);
                    if self.tool_choice.is_some() {
                        return;
                    }
                } else if key == "thread" {
                    self.thread = Thread::parse(value);
                    if self.thread.is_some() {
                        return;
                    }
                }
                self.extra.push((key.to_owned(), Raw::from(value)));
            }
        }
    }

    /// Prints the request: the fields in the order of this type, then `extra`.
    ///
    /// `stream` and the optional fields are written only where they say something.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = String::with_capacity(self.size());
        out.push_str(r#"{"model":"#);
        push_quoted(&mut out, &self.model);
        out.push_str(r#","max_tokens":"#);
        out.push_str(&self.max_tokens.to_string());
        if let Some(system) = &self.system {
            push_field(&mut out, "system", system.as_str());
        }
        if let Some(tools) = &self.tools {
            push_field(&mut out, "tools", tools);
        }
        if let Some(choice) = &self.tool_choice {
            push_field(&mut out, "tool_choice", choice.to_raw().as_str());
        }
        out.push_str(r#","messages":["#);
        join(&mut out, &self.messages, |out, message| out.push_str(message.raw().as_str()));
        out.push(']');
        if self.stream {
            push_field(&mut out, "stream", "true");
        }
        if let Some(thread) = &self.thread {
            push_field(&mut out, "thread", thread.to_raw().as_str());
        }
        for (key, value) in &self.extra {
            push_field(&mut out, key, value.as_str());
        }
        out.push('}');
        out.into_bytes()
    }

    /// A little more than the bytes it will take, so that printing allocates once.
    fn size(&self) -> usize {
        let messages: usize = self.messages.iter().map(|m| m.raw().as_str().len() + 1).sum();
        let extra: usize = self.extra.iter().map(|(key, value)| key.len() + value.as_str().len() + 4).sum();
        let fixed = self.system.as_ref().map_or(0, |s| s.as_str().len()) + self.tools.as_ref().map_or(0, |t| t.len());
        512 + self.model.len() + messages + extra + fixed
    }
}

pub(crate) fn push_field(out: &mut String, key: &str, value: &str) {
    out.push(',');
    push_quoted(out, key);
    out.push(':');
    out.push_str(value);
}

impl Thread {
    /// Reads a thread; `None` where it holds anything that this type cannot, and so would lose.
    fn parse(raw: &RawValue) -> Option<Self> {
        let (mut kind, mut previous, mut is_known) = (None, None, true);
        members(raw.get(), |key, value| match key.as_ref() {
            "type" => kind = string(value),
            "previous_message_id" => previous = Some(string(value)),
            _ => is_known = false,
        })
        .ok()?;
        match (kind?.as_ref(), previous) {
            ("create", None) if is_known => Some(Self::Create),
            ("continue", Some(Some(id))) if is_known => Some(Self::Continue { previous_message_id: id.into_owned() }),
            _ => None,
        }
    }

    fn to_raw(&self) -> Raw {
        match self {
            Self::Create => Raw::trusted(r#"{"type":"create"}"#),
            Self::Continue { previous_message_id } => {
                let mut out = String::from(r#"{"type":"continue","previous_message_id":"#);
                push_quoted(&mut out, previous_message_id);
                out.push('}');
                Raw::trusted(out)
            }
        }
    }
}
