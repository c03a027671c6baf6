//! A request as the stand-in reads it: the whole history, with the raw text of every message and block.
//!
//! From the body of a request (and, for a server-held thread, from what the thread already holds). To the checks, and to
//! the closure that decides what is said next. Reading is all it does: whether the history is lawful, [`check`](crate::check) says.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::raw::{self, Object};
use crate::refusal::{Refusal, Rule};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The client.
    User,
    /// The model.
    Assistant,
    /// The client's program, in the middle of the conversation; only with a beta header.
    System,
}

/// One message of the history.
#[derive(Debug, Clone)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// Its content blocks; a plain string is one text block.
    pub parts: Vec<Part>,
    /// The message's JSON text, byte for byte.
    pub raw: String,
}

/// One content block of a message, as far as the stand-in reads it.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// The `type`.
    pub kind: String,
    /// The `id` of a call.
    pub id: Option<String>,
    /// The `name` of a call.
    pub name: Option<String>,
    /// The `tool_use_id` of a result.
    pub tool_use_id: Option<String>,
    /// Whether a result says that it is an error.
    pub is_error: bool,
    /// The text of a text block, or of a result: its string, or its text blocks joined by newlines.
    pub text: String,
    /// The block's JSON text, byte for byte.
    pub raw: String,
}

/// One tool result of the last message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolResult {
    /// The call that it answers.
    pub tool_use_id: String,
    /// That call's tool.
    pub tool: String,
    /// What it says.
    pub text: String,
    /// Whether it says so as an error.
    pub is_error: bool,
}

/// A request, its history resolved.
#[derive(Debug, Clone)]
pub struct Conversation {
    pub(crate) messages: Vec<Message>,
    pub(crate) system: Option<String>,
    pub(crate) tools: Option<String>,
    pub(crate) model: String,
    pub(crate) max_tokens: u64,
    pub(crate) tool_choice: Value,
    pub(crate) stream: bool,
    pub(crate) bytes: usize,
}

impl Conversation {
    /// The messages, oldest first; those that a thread holds come before those of the request.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// How many assistant messages the history holds: the number of the turn that comes next, from 0.
    pub fn assistant_turns(&self) -> usize {
        self.messages.iter().filter(|message| message.role == Role::Assistant).count()
    }

    /// The text blocks of the first user message.
    pub fn first_user_texts(&self) -> impl Iterator<Item = &str> {
        let first = self.messages.iter().find(|message| message.role == Role::User);
        first.into_iter().flat_map(|message| &message.parts).filter(|part| part.kind == "text").map(|part| &*part.text)
    }

    /// The tool results of the last message, in order, with the names of the tools that they come from.
    pub fn tool_results(&self) -> Vec<ToolResult> {
        let Some(last) = self.messages.last() else { return Vec::new() };
        let calls: Vec<&Part> = self.messages.iter().rev().skip(1).take(1).flat_map(|message| &message.parts).collect();
        let results = last.parts.iter().filter(|part| part.kind == "tool_result");
        results
            .map(|part| {
                let tool_use_id = part.tool_use_id.clone().unwrap_or_default();
                let call = calls.iter().find(|call| call.id.as_ref() == Some(&tool_use_id));
                let tool = call.and_then(|call| call.name.clone()).unwrap_or_default();
                ToolResult { tool_use_id, tool, text: part.text.clone(), is_error: part.is_error }
            })
            .collect()
    }

    /// The model asked for.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The budget of tokens for this response.
    pub fn max_tokens(&self) -> u64 {
        self.max_tokens
    }

    /// The tool definitions, as JSON values in order.
    pub fn tools(&self) -> Vec<Value> {
        self.tools.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// The `system` of the request, as JSON text.
    pub fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// The `tool_choice`, `null` if there is none.
    pub fn tool_choice(&self) -> &Value {
        &self.tool_choice
    }

    /// Whether the answer is to be streamed.
    pub fn stream(&self) -> bool {
        self.stream
    }
}

/// What a `thread` field asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ThreadField {
    /// A new thread that holds this conversation.
    Create,
    /// The thread that ends with this message.
    Continue(String),
}

/// A body, read but not yet judged.
pub(crate) struct Reading<'a> {
    pub(crate) body: Object<'a>,
    pub(crate) conversation: Conversation,
    pub(crate) thread: Option<ThreadField>,
}

/// Reads a body.
///
/// # Errors
/// A 400 for text that is not JSON, and for a field that is missing or of the wrong kind.
pub(crate) fn read(text: &str, max_tokens_needed: bool) -> Result<Reading<'_>, Refusal> {
    let body: Object<'_> = serde_json::from_str(text)
        .map_err(|error| Refusal::invalid(Rule::Json, format!("The request body is not valid JSON: {error}")))?;
    let model = field::<String>(&body, "model", "a string")?.ok_or_else(|| required("model"))?;
    let max_tokens = match field::<u64>(&body, "max_tokens", "a valid integer")? {
        Some(0) => return Err(wrong("max_tokens", "greater than or equal to 1")),
        Some(tokens) => tokens,
        None if max_tokens_needed => return Err(required("max_tokens")),
        None => 0,
    };
    let list = body.get("messages").filter(|text| *text != "null").ok_or_else(|| required("messages"))?;
    let list = raw::array(list).ok_or_else(|| wrong("messages", "a valid list"))?;
    let thread = read_thread(&body)?;
    // A continuation may have nothing to add: the thread holds the paused turn that goes on.
    if list.is_empty() && !matches!(thread, Some(ThreadField::Continue(_))) {
        return Err(Refusal::invalid(Rule::Field, "messages: at least one message is required"));
    }
    let messages =
        list.iter().enumerate().map(|(i, message)| read_message(i, message.get())).collect::<Result<_, _>>()?;
    let conversation = Conversation {
        messages,
        system: given(&body, "system"),
        tools: given(&body, "tools"),
        model,
        max_tokens,
        tool_choice: field(&body, "tool_choice", "an object")?.unwrap_or_default(),
        stream: field(&body, "stream", "a valid boolean")?.unwrap_or_default(),
        bytes: text.len(),
    };
    Ok(Reading { body, conversation, thread })
}

fn required(name: &str) -> Refusal {
    Refusal::invalid(Rule::Field, format!("{name}: Field required"))
}

fn wrong(name: &str, wanted: &str) -> Refusal {
    Refusal::invalid(Rule::Field, format!("{name}: Input should be {wanted}"))
}

fn given(body: &Object<'_>, name: &str) -> Option<String> {
    body.get(name).filter(|text| *text != "null").map(str::to_owned)
}

fn field<'a, T: Deserialize<'a>>(body: &Object<'a>, name: &str, wanted: &str) -> Result<Option<T>, Refusal> {
    match body.get(name) {
        None | Some("null") => Ok(None),
        Some(text) => serde_json::from_str(text).map(Some).map_err(|_| wrong(name, wanted)),
    }
}

fn read_thread(body: &Object<'_>) -> Result<Option<ThreadField>, Refusal> {
    let Some(text) = body.get("thread").filter(|text| *text != "null") else { return Ok(None) };
    let thread = Object::parse(text).ok_or_else(|| wrong("thread", "an object"))?;
    match thread.string("type").as_deref() {
        Some("create") => Ok(Some(ThreadField::Create)),
        Some("continue") => {
            let previous = thread.string("previous_message_id");
            Ok(Some(ThreadField::Continue(previous.ok_or_else(|| required("thread.previous_message_id"))?)))
        }
        _ => Err(wrong("thread.type", "'create' or 'continue'")),
    }
}

/// Reads one message; `i` is its place, for what is said if it is malformed.
pub(crate) fn read_message(i: usize, text: &str) -> Result<Message, Refusal> {
    let message = Object::parse(text).ok_or_else(|| wrong(&format!("messages.{i}"), "an object"))?;
    let role = match message.string("role").as_deref() {
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("system") => Role::System,
        _ => return Err(wrong(&format!("messages.{i}.role"), "'user' or 'assistant'")),
    };
    let content = message.get("content").ok_or_else(|| required(&format!("messages.{i}.content")))?;
    let parts = if let Ok(plain) = serde_json::from_str::<String>(content) {
        vec![Part { kind: "text".to_owned(), text: plain, raw: content.to_owned(), ..Part::default() }]
    } else {
        let blocks =
            raw::array(content).ok_or_else(|| wrong(&format!("messages.{i}.content"), "a string or a valid list"))?;
        let blocks = blocks.iter().enumerate();
        blocks.map(|(j, block)| read_part(i, j, block)).collect::<Result<_, _>>()?
    };
    Ok(Message { role, parts, raw: text.to_owned() })
}

fn read_part(i: usize, j: usize, block: &RawValue) -> Result<Part, Refusal> {
    let place = || format!("messages.{i}.content.{j}");
    let object = Object::parse(block.get()).ok_or_else(|| wrong(&place(), "an object"))?;
    let kind = object.string("type").ok_or_else(|| required(&format!("{}.type", place())))?;
    let needs = |name: &str| object.string(name).ok_or_else(|| required(&format!("{}.{name}", place())));
    let mut part = Part { raw: block.get().to_owned(), ..Part::default() };
    match kind.as_str() {
        "text" => part.text = needs("text")?,
        "tool_use" | "server_tool_use" | "mcp_tool_use" => {
            part.id = Some(needs("id")?);
            part.name = Some(needs("name")?);
            if object.get("input").and_then(Object::parse).is_none() {
                return Err(wrong(&format!("{}.input", place()), "a valid dictionary"));
            }
        }
        "tool_result" => {
            part.tool_use_id = Some(needs("tool_use_id")?);
            part.is_error = object.get("is_error") == Some("true");
            part.text = result_text(object.get("content").unwrap_or("null"));
        }
        _ => part.tool_use_id = object.string("tool_use_id"),
    }
    part.kind = kind;
    Ok(part)
}

/// What a result says: its string, or its text blocks joined by newlines.
fn result_text(content: &str) -> String {
    if let Ok(plain) = serde_json::from_str::<String>(content) {
        return plain;
    }
    let blocks = raw::array(content).unwrap_or_default();
    let texts = blocks.iter().filter_map(|block| Object::parse(block.get())?.string("text"));
    texts.collect::<Vec<_>>().join("\n")
}
