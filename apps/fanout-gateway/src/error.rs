//! Every failure as a status, a code and a sentence, in the shape of the Messages API.
//!
//! From the door and the routes. To the client: `{"type":"error","error":{"type":…,"message":…,"details":{"error_code":…}},
//! "request_id":…}`, which the clients of that API understand.
//!
//! The id of the request is not known here: [`door`](crate::door) puts it in when the answer leaves.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde_json::{Value, json};

/// What the official clients go by before the status.
pub(crate) const SHOULD_RETRY: &str = "x-should-retry";

/// The official clients wait no longer than this for a time that they are told.
const PATIENCE: Duration = Duration::from_secs(60);

/// Every code of an answer, each with a page in `docs/runbook/`.
pub(crate) const CODES: [&str; 37] = [
    "already_decided",
    "approval_expired",
    "approval_withdrawn",
    "body_timeout",
    "budget",
    "cancelled",
    "closing",
    "deadline",
    "host_refused",
    "idempotency_key_reused",
    "internal",
    "invalid_configuration",
    "invalid_request",
    "key_missing",
    "key_unknown",
    "keys_unreadable",
    "loop",
    "no_configuration",
    "no_store",
    "not_json",
    "not_permitted",
    "not_proposed",
    "origin_refused",
    "rate_limited",
    "restart_needed",
    "run_failed",
    "store",
    "too_large",
    "too_many_runs",
    "too_many_sessions",
    "unknown_approval",
    "unknown_method",
    "unknown_path",
    "unknown_run",
    "upstream",
    "user_token_refused",
    "user_token_unverifiable",
];

/// Why a request is not answered with what it asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after: Option<Duration>,
}

impl ApiError {
    /// An error of this status. `code` is the machine's word for it, `message` says what to do.
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        debug_assert!(CODES.contains(&code), "`{code}` is not among the codes that have a page");
        Self { status, code, message: message.into(), retry_after: None }
    }

    /// The same, with the time to come back.
    pub(crate) fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// 400: the request cannot be understood. The same request fails the same way again.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    /// The API's `error.type` for this status.
    pub(crate) fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 | 529 => "overloaded_error",
            504 => "timeout_error",
            400..=499 => "invalid_request_error",
            _ => "api_error",
        }
    }

    /// The whole object: a body, or the data of an `error` event in a stream that has begun with 200.
    pub(crate) fn to_json(&self, request_id: &str) -> Value {
        json!({
            "type": "error",
            "error": { "type": self.kind(), "message": self.message, "details": { "error_code": self.code } },
            "request_id": request_id,
        })
    }

    /// The answer, once the request's id is known.
    pub(crate) fn into_answer(self, request_id: &str) -> Response {
        let body = self.to_json(request_id).to_string();
        let mut response = (self.status, body).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = self.retry_after {
            // Whole seconds, rounded up: coming back early would be refused again.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if self.is_final() {
            response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response
    }

    /// Whether the same request would soon be answered with the same. The official clients repeat by status alone what does not
    /// say so: 408, 409, 429 and all from 500 on.
    fn is_final(&self) -> bool {
        let is_late = self.retry_after.is_some_and(|wait| wait > PATIENCE);
        is_late || self.status == StatusCode::CONFLICT || matches!(self.code, "budget" | "deadline")
    }
}

/// An answer without its body yet: the error travels as an extension up to the door, which knows the request's id.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use fanout_core::outcome::ErrorCode;
    use fanout_core::toolbox::Toolbox;
    use serde_json::Value;

    use super::*;
    use crate::metrics::Metrics;

    /// The rules of `docs/runbook/alerts.yml`: names and expressions.
    fn alerts(folder: &Path) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(folder.join("alerts.yml")).unwrap();
        let rules: Value = serde_norway::from_str(&text).unwrap();
        let rules = rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
        let text = |rule: &Value, key: &str| rule[key].as_str().unwrap().to_owned();
        rules
            .map(|rule| {
                let name = text(rule, "alert");
                assert_eq!(text(&rule["annotations"], "runbook"), format!("docs/runbook/{name}.md"));
                (name, text(rule, "expr"))
            })
            .collect()
    }

    #[test]
    fn every_code_and_every_alert_has_its_page_and_every_page_is_of_one() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/runbook");
        let mut known: BTreeSet<String> = CODES.into_iter().map(str::to_owned).collect();
        known.extend(ErrorCode::ALL.map(|code| code.as_str().to_owned()));
        known.extend(alerts(&folder).into_iter().map(|(name, _)| name));
        let index = std::fs::read_to_string(folder.join("README.md")).unwrap();
        let mut pages = BTreeSet::new();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if let Some(page) = name.strip_suffix(".md").filter(|page| *page != "README") {
                assert!(index.contains(&format!("({name})")), "the index has no {name}");
                pages.insert(page.to_owned());
            }
        }
        assert_eq!(pages, known);
    }

    #[test]
    fn alerts_are_about_what_metrics_tell() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/runbook");
        let told = Metrics::new(&Toolbox::default()).print(&[]);
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut count = 0;
        for (name, expression) in alerts(&folder) {
            for word in expression.split(|c| !is_part(c)).filter(|word| word.starts_with("fanout_")) {
                count += 1;
                let metric = word.strip_suffix("_bucket").unwrap_or(word);
                assert!(told.contains(&format!("# TYPE {metric} ")), "{name}: no metric is called {metric}");
            }
        }
        assert!(count >= 7, "{count}");
    }
}
