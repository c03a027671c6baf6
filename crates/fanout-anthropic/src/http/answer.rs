//! What the server answered: a response, or the reason why there is none.
//!
//! From [`HttpModel`](super::HttpModel): an answer whose headers are there. To the agent: a [`Response`] or a
//! [`ModelError`] with all that the server said about trying again.

use std::error::Error;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};

use super::limits::retry_after;
use crate::model::{ModelError, Part, RateLimits};
use crate::stream::Assembler;
use crate::wire::Response;
use crate::wire::error::ApiError;

/// Largest answer read, in bytes. A response's own text is below 1 MB (128,000 tokens); results of server tools, with
/// documents and pictures in them, can take tens. More than this is no Messages API, and would fill the memory.
pub const RESPONSE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Most of an error's body that is read, in bytes: the API's own errors take hundreds.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// Most of a body that is not the API's that is quoted, in bytes: enough for a proxy to name itself.
const QUOTED_BYTES_MAX: usize = 500;

/// How long the end of a body whose message is complete may take before the connection is given up.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads an answer of status 2xx, streamed or whole as its content type says: a server may not stream though asked to.
pub(super) async fn read(
    mut answer: reqwest::Response,
    idle_timeout: Duration,
    on_part: &mut (dyn FnMut(Part<'_>) + Send),
) -> Result<Response, ModelError> {
    on_part(Part::Limits(&RateLimits::of_answer(answer.status(), answer.headers())));
    let request_id = text(answer.headers(), "request-id");
    let is_stream = answer
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().to_ascii_lowercase().starts_with(b"text/event-stream"));
    let mut response = if is_stream {
        let mut assembler = Assembler::new();
        let mut length = 0;
        while let Some(bytes) = answer.chunk().await.map_err(|error| failure(error, idle_timeout))? {
            length += bytes.len();
            check(length)?;
            assembler.feed(&bytes, on_part).map_err(|error| with_id(error, request_id.as_deref()))?;
            if assembler.is_finished() {
                give_back(answer);
                break;
            }
        }
        assembler.finish()?
    } else {
        let response = whole(answer, idle_timeout).await.map_err(|error| with_id(error, request_id.as_deref()))?;
        response.tell(on_part);
        response
    };
    response.request_id = request_id;
    Ok(response)
}

/// Reads an answer that is one JSON text.
async fn whole(mut answer: reqwest::Response, idle_timeout: Duration) -> Result<Response, ModelError> {
    let announced = answer.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
    check(announced)?;
    let mut body = Vec::with_capacity(announced);
    while let Some(bytes) = answer.chunk().await.map_err(|error| failure(error, idle_timeout))? {
        check(body.len() + bytes.len())?;
        body.extend_from_slice(&bytes);
    }
    let text =
        std::str::from_utf8(&body).map_err(|_| ModelError::Malformed { detail: "the body is not UTF-8".to_owned() })?;
    Response::parse(text).map_err(|error| match ApiError::parse(text) {
        // Some proxies answer an error with status 200.
        Some(ApiError { kind, message, error_code, request_id }) => {
            ModelError::Stream { kind, message, error_code, request_id }
        }
        None => error.into(),
    })
}

fn check(length: usize) -> Result<(), ModelError> {
    match length <= RESPONSE_BYTES_MAX {
        true => Ok(()),
        false => Err(ModelError::TooLarge { what: "response", limit: RESPONSE_BYTES_MAX }),
    }
}

/// Lets the body come to its end beside the caller, who need not wait for it: a connection whose body was dropped before its
/// end cannot be used again.
fn give_back(mut answer: reqwest::Response) {
    tokio::spawn(tokio::time::timeout(END_TIMEOUT, async move { while let Ok(Some(_)) = answer.chunk().await {} }));
}

/// The reason in an answer whose status is not 2xx.
pub(super) async fn refusal(mut answer: reqwest::Response, on_part: &mut (dyn FnMut(Part<'_>) + Send)) -> ModelError {
    on_part(Part::Limits(&RateLimits::of_answer(answer.status(), answer.headers())));
    let mut body = Vec::new();
    // An error body that is cut off is still worth what came of it.
    while let Ok(Some(bytes)) = answer.chunk().await {
        let room = ERROR_BYTES_MAX - body.len();
        body.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if body.len() == ERROR_BYTES_MAX {
            break;
        }
    }
    refusal_of(answer.status(), answer.headers(), &body)
}

impl ModelError {
    /// The reason in an answer whose status is not 2xx, whose body somebody else has read.
    #[must_use]
    pub fn of_answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        refusal_of(status, headers, body)
    }

    /// What kept an answer from coming, or broke it off, on connections that give up after so long without a byte.
    #[must_use]
    pub fn of_transport(error: reqwest::Error, idle_timeout: Duration) -> Self {
        failure(error, idle_timeout)
    }
}

fn refusal_of(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ModelError {
    let error = std::str::from_utf8(body).ok().and_then(ApiError::parse).unwrap_or_else(|| ApiError {
        kind: "unknown_error".to_owned(),
        message: foreign(status, headers, body),
        error_code: None,
        request_id: None,
    });
    ModelError::Status {
        status: status.as_u16(),
        kind: error.kind,
        message: error.message,
        error_code: error.error_code,
        retry_after: retry_after(headers),
        should_retry: match headers.get("x-should-retry").map(HeaderValue::as_bytes) {
            Some(b"true") => Some(true),
            Some(b"false") => Some(false),
            _ => None,
        },
        request_id: error.request_id.or_else(|| text(headers, "request-id")),
    }
}

/// What to say of an error that is not in the API's shape.
fn foreign(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> String {
    if let Some(location) = headers.get(LOCATION).filter(|_| status.is_redirection()) {
        return format!(
            "redirected to `{}`, where the key is not sent; the base URL may be wrong",
            String::from_utf8_lossy(location.as_bytes())
        );
    }
    let quoted = String::from_utf8_lossy(&body[..body.len().min(QUOTED_BYTES_MAX)]);
    match quoted.trim() {
        "" => status.canonical_reason().unwrap_or("no reason given").to_owned(),
        quoted => quoted.to_owned(),
    }
}

/// What kept an answer from coming. The address is left out: it says nothing new.
pub(super) fn failure(error: reqwest::Error, idle_timeout: Duration) -> ModelError {
    let error = error.without_url();
    if error.is_connect() {
        return ModelError::Connect { detail: cause(&error) };
    }
    if error.is_timeout() {
        return ModelError::TimedOut { limit: idle_timeout };
    }
    ModelError::Broken { detail: cause(&error) }
}

/// The innermost cause ("connection refused"): what stands around it names libraries.
fn cause(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

pub(super) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(|value| value.trim().to_owned())
}

/// Gives an error after status 200 the id of its header, where its own text names none.
fn with_id(error: ModelError, id: Option<&str>) -> ModelError {
    match error {
        ModelError::Stream { kind, message, error_code, request_id: None } => {
            ModelError::Stream { kind, message, error_code, request_id: id.map(str::to_owned) }
        }
        other => other,
    }
}
