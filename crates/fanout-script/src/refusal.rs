//! An answer that says no, in the API's own error shape.
//!
//! From the checks and from [`Fault::Status`](crate::Fault::Status). To the socket, by [`server`](crate::server), and to
//! the list of violations. Which rule was broken is for tests; on the wire only type, message and code are seen.

use serde_json::{Value, json};

/// The rule that a request broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A key in `x-api-key` or `authorization`, and the right one.
    Authentication,
    /// The `anthropic-version` header.
    Version,
    /// At most 32 MB.
    Size,
    /// A body that is JSON.
    Json,
    /// `model`, `max_tokens`, `messages` and every field of the right kind.
    Field,
    /// Tool names of `^[a-zA-Z0-9_-]{1,128}$`.
    ToolName,
    /// `tool_choice`: forced only where the model allows it, `disable_parallel_tool_use` inside it.
    ToolChoice,
    /// At most four `cache_control` markers.
    CacheMarkers,
    /// One `tool_result` for every `tool_use`, in the very next user message.
    ResultMissing,
    /// No `tool_result` without its `tool_use`.
    ResultExtra,
    /// No second `tool_result` for a `tool_use`.
    ResultTwice,
    /// `tool_result` blocks first in the content.
    ResultsFirst,
    /// Only `tool_result` blocks and the same tools while a server's tool is still at work.
    MixedTurn,
    /// No answer to a server tool's call.
    ServerToolAnswered,
    /// `thinking` and `redacted_thinking` go back as they came.
    Thinking,
    /// Every other assistant block goes back as it came.
    AssistantContent,
    /// Nothing earlier is ever edited.
    AppendOnly,
    /// A server-held thread: continued once, one at a time, with the same definitions.
    Thread,
    /// An identical request that got a 400 is not sent again.
    RepeatedRefusal,
}

/// One refused request.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) rule: Rule,
    pub(crate) status: u16,
    pub(crate) error_type: &'static str,
    pub(crate) message: String,
    /// What stands in `error.details`, for the machine.
    pub(crate) details: Option<Value>,
}

impl Refusal {
    /// A 400.
    pub(crate) fn invalid(rule: Rule, message: impl Into<String>) -> Self {
        Self { rule, status: 400, error_type: error_type(400), message: message.into(), details: None }
    }

    /// Any other status.
    pub(crate) fn of_status(rule: Rule, status: u16, message: impl Into<String>) -> Self {
        Self { rule, status, error_type: error_type(status), message: message.into(), details: None }
    }

    /// The same, with a code for the machine.
    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.details = Some(json!({"error_code": code}));
        self
    }
}

/// The error type that the API gives with this status.
pub(crate) fn error_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        500..=599 => "api_error",
        _ => "invalid_request_error",
    }
}

/// The status that the API gives with this error type.
pub(crate) fn status_of(error_type: &str) -> u16 {
    match error_type {
        "invalid_request_error" => 400,
        "api_error" => 500,
        known => [401, 402, 403, 404, 413, 429, 504, 529]
            .into_iter()
            .find(|status| self::error_type(*status) == known)
            .unwrap_or(500),
    }
}

/// The body of an error answer.
pub(crate) fn error_body(error_type: &str, message: &str, details: Option<&Value>, request_id: &str) -> String {
    let mut error = json!({"type": error_type, "message": message});
    if let Some(details) = details {
        error["details"] = details.clone();
    }
    json!({"type": "error", "error": error, "request_id": request_id}).to_string()
}
