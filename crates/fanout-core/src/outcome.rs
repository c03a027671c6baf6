//! What a call came to; exactly one each.
//!
//! From an attempt, or from whatever kept the call from running.
//! To the reply to the model, to references of later calls, and to the events.
//!
//! The words of success and failure stand here; who retries, waits or skips is decided in
//! [`schedule`](crate::schedule).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::call::CallId;

/// What a tool gave back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// What the model is shown, in order.
    pub content: Vec<Content>,
    /// The same as data, where the tool has it; references take this rather than the text.
    pub structured: Option<Value>,
    /// The tool ran and says that it failed (an MCP `isError`); it is passed on as it is.
    pub is_error: bool,
}

/// One piece of an output.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Text.
    Text(Arc<str>),
    /// A picture that the model can look at.
    Image {
        /// Such as `image/png`.
        media_type: String,
        /// The bytes in base64.
        data: Arc<str>,
    },
}

impl Output {
    /// An output of one text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self { content: vec![Content::Text(text.into())], ..Self::default() }
    }

    /// An output of one JSON value: shown as text, referenced as data.
    pub fn json(value: Value) -> Self {
        Self { content: vec![Content::Text(value.to_string().into())], structured: Some(value), is_error: false }
    }

    /// The whole output as a reference sees it: the data, else its text read as JSON, else its text.
    pub fn value(&self) -> Value {
        if let Some(value) = &self.structured {
            return value.clone();
        }
        let text = self.texts().join("\n");
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    }

    /// Its texts, in order, without the pictures.
    pub(crate) fn texts(&self) -> Vec<&str> {
        let texts = self.content.iter().filter_map(|content| match content {
            Content::Text(text) => Some(&**text),
            Content::Image { .. } => None,
        });
        texts.collect()
    }
}

impl From<&str> for Output {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Output {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<Value> for Output {
    fn from(value: Value) -> Self {
        Self::json(value)
    }
}

/// What kept a call from ending well. The names are those that the model reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorCode {
    /// The input is not what the tool's schema asks for.
    InvalidInput,
    /// Nobody has a tool of that name.
    UnknownTool,
    /// A reference points at nothing.
    UnresolvedReference,
    /// It needs a call that failed.
    Skipped,
    /// No answer in time, and running it again does no harm.
    Timeout,
    /// The external API's budget is used up.
    RateLimited,
    /// The external API is failing, and is given time.
    CircuitOpen,
    /// The tool itself answered with an error.
    Upstream,
    /// Somebody else changed it first.
    Conflict,
    /// A person said no, or nobody said yes in time.
    Denied,
    /// The caller may not use this tool.
    NotPermitted,
    /// The run was stopped.
    Cancelled,
    /// It was sent, and nothing proves whether it was carried out.
    OutcomeUnknown,
    /// More than the bounds allow.
    TooLarge,
    /// A budget of the run is used up.
    Budget,
    /// A panic, or our own fault.
    Internal,
}

impl ErrorCode {
    /// Every code, in the order of the design's list.
    pub const ALL: [Self; 16] = [
        Self::InvalidInput,
        Self::UnknownTool,
        Self::UnresolvedReference,
        Self::Skipped,
        Self::Timeout,
        Self::RateLimited,
        Self::CircuitOpen,
        Self::Upstream,
        Self::Conflict,
        Self::Denied,
        Self::NotPermitted,
        Self::Cancelled,
        Self::OutcomeUnknown,
        Self::TooLarge,
        Self::Budget,
        Self::Internal,
    ];

    /// The code as the model and every surface spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::UnknownTool => "unknown_tool",
            Self::UnresolvedReference => "unresolved_reference",
            Self::Skipped => "skipped",
            Self::Timeout => "timeout",
            Self::RateLimited => "rate_limited",
            Self::CircuitOpen => "circuit_open",
            Self::Upstream => "upstream",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::NotPermitted => "not_permitted",
            Self::Cancelled => "cancelled",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::TooLarge => "too_large",
            Self::Budget => "budget",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a call did not end well, in words for the model: what happened, and what to do next.
#[derive(Clone, Debug, PartialEq)]
pub struct CallError {
    /// What kind of failure.
    pub code: ErrorCode,
    /// What happened and what to do next, for the model.
    pub message: String,
    /// When trying again makes sense, if anybody said so.
    pub retry_after: Option<Duration>,
    /// The model's own text, where it was not JSON; it is shown back as it is.
    pub invalid_json: Option<String>,
}

impl CallError {
    /// A failure of this kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None, invalid_json: None }
    }

    /// The failure of an input that is not JSON.
    pub fn invalid_json(raw: impl Into<String>) -> Self {
        Self { invalid_json: Some(raw.into()), ..Self::new(ErrorCode::InvalidInput, "the input is not valid JSON") }
    }

    /// The text of the `tool_result`: `{"error":{"code":…,"message":…,"retry_after_s":…}}`, or, for an input that is not
    /// JSON, `{"INVALID_JSON":"<raw>"}` as the API's documentation asks.
    pub fn body(&self) -> String {
        if let Some(raw) = &self.invalid_json {
            return json!({ "INVALID_JSON": raw }).to_string();
        }
        let mut error = json!({ "code": self.code.as_str(), "message": self.message });
        if let Some(wait) = self.retry_after {
            // Whole seconds, rounded up: coming back early would be refused again. None at all is no wait that a refusal means.
            let seconds = u64::try_from(wait.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u64::MAX);
            error["retry_after_s"] = json!(seconds.max(1));
        }
        json!({ "error": error }).to_string()
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// What one call came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Which call.
    pub call: CallId,
    /// The call that it is a part of: a plan, or the `for_each` of one. The model is answered for that one.
    pub part_of: Option<CallId>,
    /// Its output as the tool gave it, or why there is none.
    pub result: Result<Arc<Output>, CallError>,
    /// What the model is shown, and nobody sees anything else: shaped once, within the tool's `max_result`.
    pub shown: Arc<[Content]>,
    /// How many attempts were started; 0 for a call that never ran.
    pub attempts: u32,
}

impl Outcome {
    /// The code of its failure; `None` if it ended well. An output that calls itself an error counts as `upstream`.
    pub fn error_code(&self) -> Option<ErrorCode> {
        match &self.result {
            Ok(output) if output.is_error => Some(ErrorCode::Upstream),
            Ok(_) => None,
            Err(error) => Some(error.code),
        }
    }

    /// Whether the `tool_result` says `is_error`.
    pub fn is_error(&self) -> bool {
        self.error_code().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_come_back_is_rounded_up_and_never_none() {
        for (wait, shown) in [(0, 1), (1, 1), (1_000_000_000, 1), (1_000_000_001, 2)] {
            let wait = Some(Duration::from_nanos(wait));
            let body = CallError { retry_after: wait, ..CallError::new(ErrorCode::CircuitOpen, "open") }.body();
            assert!(body.contains(&format!("\"retry_after_s\":{shown}}}")), "{wait:?}: {body}");
        }
    }
}
