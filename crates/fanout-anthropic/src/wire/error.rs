//! The API's error shape, as a body or as a stream's `error` event.
//!
//! From [`http`](crate::HttpModel) and [`stream`](crate::stream). To [`ModelError`](crate::ModelError).
//! Whether to try again is not decided here.

use serde_json::value::RawValue;

use super::raw::{members, string};

/// What the server says went wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) kind: String,
    pub(crate) message: String,
    pub(crate) error_code: Option<String>,
    pub(crate) request_id: Option<String>,
}

impl ApiError {
    /// Reads `{"type":"error","error":{"type":…,"message":…,"details":{"error_code":…}},"request_id":…}`; `None` where the
    /// text has no `error` object with a `type`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut found = Self::default();
        let (mut error, mut details) = (None, None);
        members(text, |key, value| match key.as_ref() {
            "error" => error = Some(value),
            "request_id" => found.request_id = owned(value),
            _ => {}
        })
        .ok()?;
        let mut kind = None;
        members(error?.get(), |key, value| match key.as_ref() {
            "type" => kind = owned(value),
            "message" => found.message = owned(value).unwrap_or_default(),
            "details" => details = Some(value),
            _ => {}
        })
        .ok()?;
        found.kind = kind?;
        if let Some(details) = details {
            // `details` may also be null or of another shape; then it holds no code.
            let _ = members(details.get(), |key, value| {
                if key == "error_code" {
                    found.error_code = owned(value);
                }
            });
        }
        Some(found)
    }
}

fn owned(value: &RawValue) -> Option<String> {
    string(value).map(Into::into)
}
