//! One message of a conversation, kept as the bytes that every later request repeats.
//!
//! From the agent: text, blocks of a response, results of calls; from a client: a message of any content.
//! To [`request`](super::request), which copies the bytes; a message is printed once in its life.
//!
//! Which results belong to which calls is not checked here.

use serde_json::value::RawValue;

use super::block::{Block, push_text};
use super::raw::{Raw, WireError, elements, members, not_json, push_quoted, shape, string};

/// One message, immutable. A clone is two pointers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    role: Role,
    raw: Raw,
}

/// Who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// The person, or we with results.
    User,
    /// The model.
    Assistant,
    /// A role that we do not know; the text keeps its name.
    Other,
}

/// What goes back to the model for one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolResult {
    /// The call answered.
    pub tool_use_id: String,
    /// In order; none at all is allowed. One text alone is written as a plain string.
    pub content: Vec<ResultContent>,
    /// Written only when `true`.
    pub is_error: bool,
}

/// One piece of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultContent {
    /// Plain text.
    Text(String),
    /// A picture.
    Image {
        /// Such as `image/png`.
        media_type: String,
        /// The bytes in base64; not checked.
        data_base64: String,
    },
    /// A block written by someone else: document, search result, tool reference.
    Raw(Raw),
}

impl Message {
    /// A user message of one text.
    #[must_use]
    pub fn user_text(text: &str) -> Self {
        let mut raw = String::with_capacity(text.len() + 40);
        raw.push_str(r#"{"role":"user","content":"#);
        push_quoted(&mut raw, text);
        raw.push('}');
        Self { role: Role::User, raw: Raw::trusted(raw) }
    }

    /// What the model said, block by block, each byte for byte as it came.
    #[must_use]
    pub fn assistant(blocks: &[Block]) -> Self {
        of_blocks(Role::Assistant, r#"{"role":"assistant","content":["#, blocks)
    }

    /// A user message of these blocks, each byte for byte: results of a client's calls among our own.
    #[must_use]
    pub fn user(blocks: &[Block]) -> Self {
        of_blocks(Role::User, r#"{"role":"user","content":["#, blocks)
    }

    /// The one user message that answers the calls of a turn, in the order given.
    ///
    /// The API wants one result for every call of the message before, no more and no less; the caller sees to that.
    #[must_use]
    pub fn tool_results(results: impl AsRef<[ToolResult]>) -> Self {
        let mut raw = String::with_capacity(256);
        raw.push_str(r#"{"role":"user","content":["#);
        join(&mut raw, results.as_ref(), push_result);
        raw.push_str("]}");
        Self { role: Role::User, raw: Raw::trusted(raw) }
    }

    /// Any message that someone else wrote.
    ///
    /// # Errors
    /// [`WireError::Shape`] when it is no object with a string `role` and a `content` that is a string or an array.
    pub fn parse(raw: Raw) -> Result<Self, WireError> {
        let (role, content) = parts(&raw)?;
        if !content.get().starts_with(['"', '[']) {
            return Err(shape("content", "must be a string or an array"));
        }
        Ok(Self { role, raw })
    }

    /// Who says it.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The whole message, exactly as it will be sent.
    #[must_use]
    pub fn raw(&self) -> &Raw {
        &self.raw
    }

    /// The content as blocks, read anew at each call; plain text counts as one text block.
    ///
    /// # Errors
    /// As [`Block::parse`], for the first block that is malformed.
    pub fn blocks(&self) -> Result<Vec<Block>, WireError> {
        let (_, content) = parts(&self.raw)?;
        match string(content) {
            Some(text) => Ok(vec![Block::text(&text)]),
            None => blocks(content),
        }
    }
}

fn of_blocks(role: Role, head: &str, blocks: &[Block]) -> Message {
    let mut raw = String::with_capacity(48 + blocks.iter().map(|b| b.raw().as_str().len() + 1).sum::<usize>());
    raw.push_str(head);
    join(&mut raw, blocks, |raw, block| raw.push_str(block.raw().as_str()));
    raw.push_str("]}");
    Message { role, raw: Raw::trusted(raw) }
}

/// Reads an array of blocks.
pub(crate) fn blocks(content: &RawValue) -> Result<Vec<Block>, WireError> {
    let blocks = elements(content.get()).map_err(|e| not_json("content", &e))?;
    blocks.into_iter().map(|block| Block::parse(Raw::from(block))).collect()
}

/// Appends the items with commas between them.
pub(crate) fn join<T>(out: &mut String, items: &[T], mut push: impl FnMut(&mut String, &T)) {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push(out, item);
    }
}

fn parts(raw: &Raw) -> Result<(Role, &RawValue), WireError> {
    let (mut role, mut content) = (None, None);
    members(raw.as_str(), |key, value| match key.as_ref() {
        "role" => role = Some(value),
        "content" => content = Some(value),
        _ => {}
    })
    .map_err(|e| not_json("message", &e))?;
    let role = match role.and_then(string).ok_or_else(|| shape("role", "must be a string in each message"))?.as_ref() {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        _ => Role::Other,
    };
    Ok((role, content.ok_or_else(|| shape("content", "must be there in each message"))?))
}

fn push_result(out: &mut String, result: &ToolResult) {
    out.push_str(r#"{"type":"tool_result","tool_use_id":"#);
    push_quoted(out, &result.tool_use_id);
    match result.content.as_slice() {
        [] => {}
        [ResultContent::Text(text)] => {
            out.push_str(r#","content":"#);
            push_quoted(out, text);
        }
        several => {
            out.push_str(r#","content":["#);
            join(out, several, push_content);
            out.push(']');
        }
    }
    if result.is_error {
        out.push_str(r#","is_error":true"#);
    }
    out.push('}');
}

fn push_content(out: &mut String, content: &ResultContent) {
    match content {
        ResultContent::Text(text) => push_text(out, text),
        ResultContent::Raw(raw) => out.push_str(raw.as_str()),
        ResultContent::Image { media_type, data_base64 } => {
            out.push_str(r#"{"type":"image","source":{"type":"base64","media_type":"#);
            push_quoted(out, media_type);
            out.push_str(r#","data":"#);
            push_quoted(out, data_base64);
            out.push_str("}}");
        }
    }
}
