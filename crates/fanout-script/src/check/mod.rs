//! The rules of the Messages API that the stand-in enforces.
//!
//! From a request as [`conversation`](crate::conversation) reads it. To a refusal, or to silence.
//! One file for what one request says of itself, one for calls and their results; that a history comes back unchanged is
//! judged by [`history`](crate::history), which alone remembers.

mod request;
pub(crate) mod results;

use http::HeaderMap;
use serde::Deserialize;

use crate::conversation::{Conversation, Reading, Role};
use crate::refusal::{Refusal, Rule};

pub(crate) use request::{has_marker, whole_request};

/// How exactly a history must come back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fidelity {
    /// Byte for byte: assistant blocks as they were sent, and nothing earlier edited, with thinking or without.
    #[default]
    Bytes,
    /// As JSON values, for clients that re-spell what they send; what stands before a thinking block is unchanged.
    Values,
    /// Nothing is remembered and nothing compared.
    Off,
}

/// The most that a request may weigh, in bytes: 32 MB.
pub(crate) const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The models that refuse to be forced to call a tool.
pub(crate) const UNFORCED_MODELS: [&str; 4] =
    ["claude-opus-5-5", "claude-sonnet-5-5", "claude-fable-5-1", "claude-mythos-5-1"];

/// The beta header and the version that server-held threads belong to.
pub(crate) const THREADS_BETA: &str = "message-threads-2026-08-12";
pub(crate) const THREADS_VERSION: &str = "2026-10-21";

/// Checks who asks: the key, if the server was given one, and the version.
pub(crate) fn headers(headers: &HeaderMap, key: Option<&str>) -> Result<(), Refusal> {
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    if let Some(key) = key {
        let bearer = value("authorization").strip_prefix("Bearer ").unwrap_or_default().trim();
        let given = if value("x-api-key").is_empty() { bearer } else { value("x-api-key") };
        if given.is_empty() {
            return Err(Refusal::of_status(Rule::Authentication, 401, "x-api-key header is required"));
        }
        if given != key {
            return Err(Refusal::of_status(Rule::Authentication, 401, "invalid x-api-key"));
        }
    }
    if value("anthropic-version").is_empty() {
        return Err(Refusal::invalid(Rule::Version, "anthropic-version: header is required"));
    }
    Ok(())
}

/// The beta header of system messages in the middle of a conversation, without its date. Claude Code 2.1 sends it.
const SYSTEM_BETA: &str = "mid-conversation-system-";

/// Checks that whoever sends system messages among the others has asked for that.
pub(crate) fn roles(conversation: &Conversation, headers: &HeaderMap) -> Result<(), Refusal> {
    let system = conversation.messages.iter().position(|message| message.role == Role::System);
    match system {
        Some(i) if !betas(headers).any(|beta| beta.starts_with(SYSTEM_BETA)) => {
            Err(Refusal::invalid(Rule::Field, format!("messages.{i}.role: Input should be 'user' or 'assistant'")))
        }
        _ => Ok(()),
    }
}

fn betas(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let betas = headers.get_all("anthropic-beta").iter().filter_map(|value| value.to_str().ok());
    betas.flat_map(|value| value.split(',')).map(str::trim)
}

/// Whether the headers ask for server-held threads, by beta and version.
pub(crate) fn threads_asked_for(headers: &HeaderMap) -> bool {
    let asked = betas(headers).any(|beta| beta == THREADS_BETA);
    asked && headers.get("anthropic-version").is_some_and(|version| version == THREADS_VERSION)
}

/// Checks what the request says of itself.
pub(crate) fn body(reading: &Reading<'_>) -> Result<(), Refusal> {
    whole_request(&reading.body, &reading.conversation)
}

/// Checks the whole history: every call has its result, in its place.
pub(crate) fn messages(conversation: &Conversation) -> Result<(), Refusal> {
    results::whole_history(&conversation.messages)
}
