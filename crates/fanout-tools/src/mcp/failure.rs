//! What is known of a call that brought no answer, and of a server that cannot be used.
//!
//! From what the protocol's library reports. To the scheduler, which acts on the variant, and to the model and the user, who
//! read the message.
//!
//! Addresses, headers and arguments never stand in a message: they may hold secrets.

use std::error::Error;
use std::time::SystemTime;

use fanout_core::call::ToolName;
use fanout_core::tool::ToolError;
use rmcp::service::{ClientInitializeError, ServiceError};
use rmcp::transport::auth::AuthError;
use rmcp::transport::streamable_http_client::{HttpStatusError, StreamableHttpError};

use super::oauth::McpAccessError;
use crate::http::HttpClientError;
use crate::http::waits::retry_after;

/// Why a server cannot be used, now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum McpError {
    /// Its program cannot be started.
    #[error("its program cannot be started: {0}")]
    Program(String),
    /// It was started or reached and is none, or ended before it answered.
    #[error("{0}")]
    Start(String),
    /// It did not answer in time.
    #[error("it did not answer within {0}")]
    Slow(String),
    /// It failed a moment ago and is left alone for a while.
    #[error("it is left alone for a moment after it failed: {0}")]
    Waiting(String),
    /// Its address or a header cannot be used.
    #[error("{0}")]
    Reach(String),
    /// It answered, and would not list its tools.
    #[error("it does not list its tools: {0}")]
    List(String),
}

impl From<HttpClientError> for McpError {
    fn from(error: HttpClientError) -> Self {
        Self::Reach(error.to_string())
    }
}

/// Why a connection did not come about.
pub(super) fn not_begun(error: &ClientInitializeError) -> String {
    match error {
        ClientInitializeError::ConnectionClosed(_) => "it ended before it answered".to_owned(),
        ClientInitializeError::JsonRpcError(error) => format!("it refused: {}", error.message),
        ClientInitializeError::TransportError { error, .. } => match http(error.error.as_ref()) {
            Some(error) => reached(error),
            None => "it ended before it answered".to_owned(),
        },
        ClientInitializeError::NoCompatibleProtocolVersion { .. } => {
            "it speaks no version of the protocol that is spoken here".to_owned()
        }
        _ => "what it answered is not the protocol".to_owned(),
    }
}

/// Why a server's tools are not known.
pub(super) fn unlisted(error: &ServiceError) -> McpError {
    McpError::List(match error {
        ServiceError::McpError(error) => format!("it answered error {}: {}", error.code.0, error.message),
        ServiceError::TransportSend(error) => match http(error.error.as_ref()) {
            Some(error) => reached(error),
            None => "it was gone before it answered".to_owned(),
        },
        ServiceError::TransportClosed | ServiceError::Cancelled { .. } => "it was gone before it answered".to_owned(),
        _ => "what it answered is no list of tools".to_owned(),
    })
}

/// Whether a server refused a request because it does not know the session, without reading it.
pub(super) fn is_of_session(error: &ServiceError) -> bool {
    match error {
        ServiceError::TransportSend(error) => {
            matches!(http(error.error.as_ref()), Some(StreamableHttpError::SessionExpired))
        }
        _ => false,
    }
}

/// What is known of a call that was sent, or was to be. `last_words` are those of a server that is gone.
pub(super) fn of_call(tool: &ToolName, server: &str, error: ServiceError, last_words: Option<String>) -> ToolError {
    let words = last_words.map(|words| format!("; {words}")).unwrap_or_default();
    let gone = format!("the MCP server `{server}` of `{tool}` was gone before it answered{words}");
    match error {
        ServiceError::McpError(error) => ToolError::Failed(format!(
            "`{tool}`: the MCP server `{server}` answered error {}: {}",
            error.code.0, error.message
        )),
        ServiceError::TransportSend(error) => match http(error.error.as_ref()) {
            Some(error) => of_request(tool, server, error),
            None => ToolError::Broken(gone),
        },
        ServiceError::TransportClosed | ServiceError::Cancelled { .. } => ToolError::Broken(gone),
        ServiceError::InputRequiredRoundsExceeded { .. } => {
            ToolError::Failed(format!("`{tool}` asks a person for input, and nobody can be asked here"))
        }
        ServiceError::UnexpectedResponse => {
            ToolError::Broken(format!("what the MCP server `{server}` answered `{tool}` is no result of a tool"))
        }
        other => ToolError::Broken(format!("`{tool}`: the MCP server `{server}` did not answer: {other}")),
    }
}

fn http<'e>(error: &'e (dyn Error + Send + Sync + 'static)) -> Option<&'e StreamableHttpError<reqwest::Error>> {
    error.downcast_ref()
}

fn of_request(tool: &ToolName, server: &str, error: &StreamableHttpError<reqwest::Error>) -> ToolError {
    let message = format!("the MCP server `{server}` of `{tool}`: {}", reached(error));
    match error {
        StreamableHttpError::HttpStatus(status) => {
            let wait = status.retry_after.as_deref().and_then(|text| retry_after(text, SystemTime::now()));
            match status.status {
                429 => ToolError::Busy { message, retry_after: wait },
                503 => ToolError::Overloaded { message, retry_after: wait },
                _ => ToolError::Broken(message),
            }
        }
        StreamableHttpError::Client(error) if error.is_connect() => ToolError::NotSent(message),
        StreamableHttpError::SessionExpired => ToolError::NotSent(message),
        // See `no_access`: the one may go well later, the other needs somebody.
        StreamableHttpError::Auth(AuthError::TokenRefreshFailed(_)) => ToolError::NotSent(message),
        StreamableHttpError::Auth(_) => ToolError::Failed(message),
        StreamableHttpError::AuthRequired(_)
        | StreamableHttpError::InsufficientScope(_)
        | StreamableHttpError::UnexpectedServerResponse(_) => ToolError::Failed(message),
        _ => ToolError::Broken(message),
    }
}

/// Carries what `oauth` says through the library, which knows no errors of ours.
pub(super) fn no_access(error: &McpAccessError) -> StreamableHttpError<reqwest::Error> {
    let words = error.to_string();
    StreamableHttpError::Auth(match error {
        McpAccessError::Failed(_) | McpAccessError::File(_) => AuthError::TokenRefreshFailed(words),
        _ => AuthError::AuthorizationFailed(words),
    })
}

/// What went wrong with a request, without its address.
fn reached(error: &StreamableHttpError<reqwest::Error>) -> String {
    match error {
        StreamableHttpError::Client(error) if error.is_connect() => format!("it cannot be reached{}", cause(error)),
        StreamableHttpError::Client(error) => format!("the connection was lost{}", cause(error)),
        StreamableHttpError::HttpStatus(HttpStatusError { status, .. }) => format!("it answered HTTP {status}"),
        StreamableHttpError::AuthRequired(_) => {
            "it demands authorization: give it in `http_headers`, as in { authorization = \"Bearer ${TOKEN}\" }, or say \
             `oauth = true`"
                .to_owned()
        }
        StreamableHttpError::Auth(AuthError::TokenRefreshFailed(words) | AuthError::AuthorizationFailed(words)) => {
            words.clone()
        }
        StreamableHttpError::InsufficientScope(_) => {
            "what it was given in `http_headers` does not suffice for this".to_owned()
        }
        StreamableHttpError::SessionExpired => "it does not know the session that it opened".to_owned(),
        other => other.to_string(),
    }
}

/// The last cause: what the system says. Those before it repeat the address.
fn cause(error: &reqwest::Error) -> String {
    let mut source = error.source();
    while let Some(deeper) = source.and_then(Error::source) {
        source = Some(deeper);
    }
    source.map(|cause| format!(": {cause}")).unwrap_or_default()
}
