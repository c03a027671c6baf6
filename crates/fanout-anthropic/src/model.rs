//! One request, one response: what an agent loop needs of a model, and how that can fail.
//!
//! From the agent: a [`Request`]. To it: [`Part`]s while they arrive, then a [`Response`] or a [`ModelError`].
//!
//! Nothing here waits or tries again: the error says whether and when that would be honest, the loop's one policy decides.

use std::pin::Pin;
use std::time::Duration;

use crate::wire::{Block, Request, Response, WireError};

/// A future on the heap, as a trait that is used behind a pointer must return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One request, one response.
pub trait Model: Send + Sync + 'static {
    /// Whose rate limits its requests count against: a short name, the same for all models that share them. It holds no key.
    fn api(&self) -> &str {
        "model"
    }

    /// Sends `request` once and gives back its whole answer.
    ///
    /// `on_part` is called in the order of arrival, inside the poll that received the part: text as it is written, each block
    /// at its end. An answer that is not streamed is told the same way, all at once, before this returns. What was told
    /// counts only once `Ok` is there: a refusal or an error can still void it.
    ///
    /// # Errors
    /// See [`ModelError`]; [`ModelError::again`] says what a second try is worth. This never tries again itself.
    ///
    /// # Cancellation
    /// Dropping the future gives up the connection; the server may have done, and charged, the work.
    fn respond<'a>(
        &'a self,
        request: &'a Request,
        on_part: &'a mut (dyn FnMut(Part<'_>) + Send),
    ) -> BoxFuture<'a, Result<Response, ModelError>>;
}

/// What has arrived of a response.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// The server answers, with a response or a refusal, and this is what it says of its limits. Before all other parts, and
    /// where the answer has headers at all.
    Limits(&'a RateLimits),
    /// Some more text of a text block, not empty. All of a block's pieces come before the block and join to its text.
    Text(&'a str),
    /// A block is complete. The stop reason is not known yet.
    Block {
        /// The server's index of it in the content.
        index: usize,
        /// The block.
        block: &'a Block,
    },
}

/// What an answer says of the server's limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// The HTTP status.
    pub status: u16,
    /// The wait that the server named, from `retry-after-ms` or `retry-after`.
    pub retry_after: Option<Duration>,
    /// What is left of its budgets, from the `anthropic-ratelimit-*` headers.
    pub budgets: Vec<Left>,
}

/// What is left of one budget that refills with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// `requests`, `tokens`, `input_tokens` or `output_tokens`.
    pub budget: &'static str,
    /// How much there is when it is full.
    pub limit: u64,
    /// How much is left.
    pub left: u64,
    /// In how long it is full again; none if the server did not say.
    pub full_in: Duration,
}

/// Why there is no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The server answered with an error status.
    #[error("the API answered {status} `{kind}`: {message}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The API's `error.type`; `unknown_error` where the body is not in the API's shape.
        kind: String,
        /// The API's message, or the first bytes of a body in another shape.
        message: String,
        /// `error.details.error_code`, such as `thread_not_found`.
        error_code: Option<String>,
        /// The wait that the server named, from `retry-after-ms` or `retry-after`.
        retry_after: Option<Duration>,
        /// The server's own word on whether to try again, from `x-should-retry`.
        should_retry: Option<bool>,
        /// The request's id, to be named when asking for help.
        request_id: Option<String>,
    },
    /// An `error` event after the stream had begun with status 200.
    #[error("the API broke off its answer with `{kind}`: {message}")]
    Stream {
        /// The API's `error.type`.
        kind: String,
        /// The API's message.
        message: String,
        /// `error.details.error_code`.
        error_code: Option<String>,
        /// The request's id.
        request_id: Option<String>,
    },
    /// The connection was lost, or the stream ended before `message_stop`. The server may have done the work.
    #[error("the answer broke off: {detail}")]
    Broken {
        /// What was seen.
        detail: String,
    },
    /// No connection; nothing was sent.
    #[error("no connection to the API: {detail}")]
    Connect {
        /// What was seen.
        detail: String,
    },
    /// Not one byte arrived for this long. The server may have done the work.
    #[error("not one byte from the API for {limit:?}")]
    TimedOut {
        /// The idle time-out.
        limit: Duration,
    },
    /// The answer is not what the Messages API says it should be.
    #[error("the API's answer makes no sense: {detail}")]
    Malformed {
        /// What was seen.
        detail: String,
    },
    /// More bytes than are sent or received.
    #[error("the {what} takes more than {limit} bytes")]
    TooLarge {
        /// `request`, of which nothing was sent, or `response`.
        what: &'static str,
        /// The most bytes it may take.
        limit: usize,
    },
}

/// What a second try of the same request is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It would fail the same way, or must not be tried without a person.
    Never,
    /// The server named the wait.
    After(Duration),
    /// It may pass; the wait is the caller's to choose, longer each time.
    Backoff,
}

impl ModelError {
    /// Whether another try of the same request is honest, and from when.
    ///
    /// A 429 that names no wait can be a spend cap, so it is `Never`; so is any client error but 408 and 409, and whatever
    /// the server marks with `x-should-retry: false`. Overload, server errors and lost connections may pass.
    #[must_use]
    pub fn again(&self) -> Again {
        match self {
            Self::Status { should_retry: Some(false), .. } => Again::Never,
            Self::Status { status: 429, retry_after, .. } => retry_after.map_or(Again::Never, Again::After),
            Self::Status { status: 408 | 409 | 500..=599, retry_after, .. } => {
                retry_after.map_or(Again::Backoff, Again::After)
            }
            Self::Status { .. } | Self::Malformed { .. } | Self::TooLarge { .. } => Again::Never,
            Self::Stream { kind, .. } => stream_again(kind),
            Self::Broken { .. } | Self::Connect { .. } | Self::TimedOut { .. } => Again::Backoff,
        }
    }

    /// The request's id, where the server gave one: to be named when asking for help.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Status { request_id, .. } | Self::Stream { request_id, .. } => request_id.as_deref(),
            Self::Broken { .. }
            | Self::Connect { .. }
            | Self::TimedOut { .. }
            | Self::Malformed { .. }
            | Self::TooLarge { .. } => None,
        }
    }
}

/// An error event has no status, only the type that the status would have had. Types that we do not know are taken for the
/// server's trouble: it had accepted the request.
fn stream_again(kind: &str) -> Again {
    match kind {
        "invalid_request_error"
        | "authentication_error"
        | "billing_error"
        | "permission_error"
        | "not_found_error"
        | "request_too_large"
        | "rate_limit_error" => Again::Never,
        _ => Again::Backoff,
    }
}

impl From<WireError> for ModelError {
    fn from(error: WireError) -> Self {
        Self::Malformed { detail: error.to_string() }
    }
}
