//! What can go wrong between the model and its client.
//!
//! From a [`Turn`](crate::Turn). To [`reply`](crate::reply) (what is said), [`events`](crate::events) (how the stream is
//! written) and [`server`](crate::server) (answers that are no message at all). Nothing here acts by itself.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

/// One fault, of one attempt.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing goes wrong on this attempt.
    None,
    /// Several faults on one attempt.
    Together {
        /// The faults, applied in order.
        faults: Vec<Fault>,
    },
    /// An HTTP status other than 200.
    Status {
        /// The status.
        status: u16,
        /// What the error says.
        #[serde(default)]
        message: Option<String>,
        /// The `retry-after` header.
        #[serde(default)]
        retry_after: Option<RetryAfter>,
        /// A body that is not the API's error shape, as `text/html` (a proxy's page).
        #[serde(default)]
        html: Option<String>,
    },
    /// A thread that cannot be continued.
    Thread {
        /// Why, such as `thread_not_found`.
        error_code: String,
    },
    /// The connection is reset before any byte of an answer.
    Reset,
    /// An `error` event in place of everything after this many events (0: the first event is the error). An answer that is
    /// not streamed is an error of the status that goes with the type.
    ErrorEvent {
        /// How many events come before it.
        after_events: usize,
        /// The error's type, such as `overloaded_error`.
        error_type: String,
    },
    /// The connection breaks after this many bytes of the body.
    CutAfterBytes {
        /// How many bytes come.
        bytes: usize,
    },
    /// The connection breaks after this many events; in the middle of an answer that is not streamed.
    CutAfterEvents {
        /// How many events come.
        events: usize,
    },
    /// The body ends properly, but after this many events: no `message_stop`, no error. An answer that is not streamed is
    /// half an object.
    EndAfterEvents {
        /// How many events come.
        events: usize,
    },
    /// The stop reason (`max_tokens`, `model_context_window_exceeded`) comes in the middle of the last block: its input or
    /// text is cut off after `keep` characters.
    CutOff {
        /// The stop reason.
        stop_reason: String,
        /// How many characters of the last block's input or text come.
        keep: usize,
    },
    /// A refusal after this many whole blocks.
    Refusal {
        /// How many blocks come.
        after_blocks: usize,
    },
    /// Events of an unknown type between the known ones.
    UnknownEvents,
    /// Unknown fields in the message, its usage and its events.
    UnknownFields,
    /// The body comes in pieces of `bytes` bytes, `delay_ms` milliseconds apart.
    Slow {
        /// How many bytes a piece has.
        bytes: usize,
        /// Milliseconds before each piece.
        delay_ms: u64,
    },
    /// The stream pauses after `after_events` events, with a `ping` every `ping_ms` milliseconds.
    Pause {
        /// How many events come before the pause.
        after_events: usize,
        /// Milliseconds in all.
        pause_ms: u64,
        /// Milliseconds between pings; 0 is a silent pause.
        ping_ms: u64,
    },
    /// The stream begins with a byte order mark.
    ByteOrderMark,
    /// The lines of the stream end otherwise than by LF.
    LineEnds {
        /// How they end.
        end: LineEnd,
    },
}

/// How the lines of a stream end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineEnd {
    /// CR alone.
    Cr,
    /// CR and LF.
    Crlf,
}

/// What a `retry-after` header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfter {
    /// A number of seconds.
    Seconds(u64),
    /// The same, as the date that lies so many seconds after the answer.
    Date(u64),
}

impl RetryAfter {
    /// The header's value, as of now.
    pub(crate) fn header(self) -> String {
        match self {
            Self::Seconds(seconds) => seconds.to_string(),
            Self::Date(seconds) => httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(seconds)),
        }
    }
}

impl Fault {
    /// A plain HTTP status with an error in the API's shape.
    pub fn status(status: u16) -> Self {
        Self::Status { status, message: None, retry_after: None, html: None }
    }

    /// A 429 that says after how many seconds to come back.
    pub fn rate_limited(seconds: u64) -> Self {
        Self::Status { status: 429, message: None, retry_after: Some(RetryAfter::Seconds(seconds)), html: None }
    }

    /// A 529: the API is overloaded.
    pub fn overloaded() -> Self {
        Self::status(529)
    }

    /// A status with a proxy's HTML page for a body.
    pub fn html(status: u16) -> Self {
        let page = format!("<html><head><title>{status}</title></head><body>upstream unavailable</body></html>");
        Self::Status { status, message: None, retry_after: None, html: Some(page) }
    }

    /// `overloaded_error` after HTTP 200 and this many events.
    pub fn error_event(after_events: usize) -> Self {
        Self::ErrorEvent { after_events, error_type: "overloaded_error".to_owned() }
    }

    /// `max_tokens` in the middle of the last block.
    pub fn cut_off(keep: usize) -> Self {
        Self::CutOff { stop_reason: "max_tokens".to_owned(), keep }
    }

    /// `model_context_window_exceeded` in the middle of the last block.
    pub fn context_window(keep: usize) -> Self {
        Self::CutOff { stop_reason: "model_context_window_exceeded".to_owned(), keep }
    }

    /// This fault's parts, nested ones flattened, in order.
    pub(crate) fn flatten(&self, into: &mut Vec<Fault>) {
        match self {
            Self::None => {}
            Self::Together { faults } => faults.iter().for_each(|fault| fault.flatten(into)),
            other => into.push(other.clone()),
        }
    }
}
