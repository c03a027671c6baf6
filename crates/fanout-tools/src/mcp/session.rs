//! The session of a server over streamable HTTP, and the moment at which the server no longer knows it.
//!
//! From `connection`, which speaks through it. To `server`, which then makes another: [`Session::is_lost`].
//!
//! By the protocol, a server answers 404 for a session that it does not know. Many answer 400 instead, with an error that
//! names no request or one of its own making; nobody would ever be told of that, and every call would end by its time-out.
//! Nothing is sent twice here, but what was refused for its token, unread.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use rmcp::model::{ClientJsonRpcMessage, JsonRpcMessage, RequestId};
use rmcp::transport::common::client_side_sse::{BoxedSseResponse, ExponentialBackoff};
use rmcp::transport::streamable_http_client::{
    StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse, StreamableHttpResponseLimits,
};

use super::failure::no_access;
use super::oauth::McpAccess;

/// How often a broken stream is asked for again, and the first wait, which doubles: 7.75 s in all, in which a server that is
/// restarted is back. A call whose stream is gone for good is answered then.
const RESUMES_MAX: usize = 5;
const RESUME_WAIT: Duration = Duration::from_millis(250);

type Failed = StreamableHttpError<reqwest::Error>;
type Headers = HashMap<HeaderName, HeaderValue>;

/// What sends requests, and notices that the session is no more. Cloning it shares that.
#[derive(Clone, Debug)]
pub(super) struct Session {
    client: reqwest::Client,
    access: Option<McpAccess>,
    lost: Arc<AtomicBool>,
}

impl Session {
    pub(super) fn new(client: reqwest::Client, access: Option<McpAccess>) -> Self {
        Self { client, access, lost: Arc::default() }
    }

    /// Sends a request with a token, where the server demands one. A token that it refuses is renewed, and the request,
    /// which was not read then, goes once more.
    async fn with_token<T, F>(&self, auth: Option<String>, send: impl Fn(Option<String>) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let Some(access) = &self.access else { return send(auth).await };
        let token = access.token(None).await.map_err(|error| no_access(&error))?;
        let answer = match send(Some(token.clone())).await {
            Err(StreamableHttpError::AuthRequired(_)) => {
                let other = access.token(Some(token)).await.map_err(|error| no_access(&error))?;
                send(Some(other)).await
            }
            answer => answer,
        };
        answer.map_err(|error| match error {
            StreamableHttpError::AuthRequired(_) => no_access(&access.refused()),
            StreamableHttpError::InsufficientScope(error) => no_access(&access.lacks(error.get_required_scope())),
            error => error,
        })
    }

    /// Whether the server has said that it does not know this session.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// How a stream is taken up again.
    pub(super) fn resumes() -> ExponentialBackoff {
        let mut resumes = ExponentialBackoff::default();
        (resumes.max_times, resumes.base_duration) = (Some(RESUMES_MAX), RESUME_WAIT);
        resumes
    }

    /// An answer that is none to what was asked says that what was asked was not read.
    fn judged(
        &self,
        asked: Option<&RequestId>,
        in_session: bool,
        answer: Result<StreamableHttpPostResponse, Failed>,
    ) -> Result<StreamableHttpPostResponse, Failed> {
        let answer = match (answer, asked) {
            (Ok(StreamableHttpPostResponse::Json(JsonRpcMessage::Error(error), _)), Some(asked))
                if error.id.as_ref().is_none_or(|id| id.to_string() != asked.to_string()) =>
            {
                let message = error.error.message;
                match in_session {
                    true => {
                        tracing::info!(target: "fanout::mcp", "a server refused its session: {message}");
                        Err(StreamableHttpError::SessionExpired)
                    }
                    false => Err(StreamableHttpError::UnexpectedServerResponse(message)),
                }
            }
            (answer, _) => answer,
        };
        if matches!(answer, Err(StreamableHttpError::SessionExpired)) {
            self.lost.store(true, Ordering::Release);
        }
        answer
    }
}

impl StreamableHttpClient for Session {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<StreamableHttpPostResponse, Failed> {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(uri, message, session, auth, headers, limits).await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        headers: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, Failed> {
        let asked = match &message {
            JsonRpcMessage::Request(request) => Some(request.id.clone()),
            _ => None,
        };
        let in_session = session.is_some();
        let send = |token| {
            let (uri, message, session) = (Arc::clone(&uri), message.clone(), session.clone());
            self.client.post_message_with_response_limits(uri, message, session, token, headers.clone(), limits)
        };
        let answer = self.with_token(auth, send).await;
        self.judged(asked.as_ref(), in_session, answer)
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<(), Failed> {
        match self.is_lost() {
            true => Ok(()),
            false => {
                let send =
                    |token| self.client.delete_session(Arc::clone(&uri), Arc::clone(&session), token, headers.clone());
                self.with_token(auth, send).await
            }
        }
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<BoxedSseResponse, Failed> {
        let max = StreamableHttpResponseLimits::default().max_sse_event_size;
        self.get_stream_with_max_sse_event_size(uri, session, last_event, auth, headers, max).await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        auth: Option<String>,
        headers: Headers,
        event_max: usize,
    ) -> Result<BoxedSseResponse, Failed> {
        let is_again = last_event.is_some();
        let send = |token| {
            let (uri, session, last_event) = (Arc::clone(&uri), session.clone(), last_event.clone());
            self.client.get_stream_with_max_sse_event_size(uri, session, last_event, token, headers.clone(), event_max)
        };
        let stream = self.with_token(auth, send).await;
        match &stream {
            // A stream that was there and cannot be taken up: the only word for "ask no more" that the library knows.
            Err(StreamableHttpError::Client(error)) if is_again && error.status().is_some_and(is_refusal) => {
                Err(StreamableHttpError::ServerDoesNotSupportSse)
            }
            _ => stream,
        }
    }
}

/// Whether asking again would be answered the same.
fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT
}
