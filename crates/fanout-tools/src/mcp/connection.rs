//! The talk with one server, from the handshake to the end.
//!
//! From `server`, which keeps one and makes another when it is gone. To `tool`: answers, any number of calls at once.
//!
//! A future that is dropped has the server told (`notifications/cancelled`). Progress is taken and dropped: no event of a run
//! holds it yet, and it neither shortens nor lengthens a call. Whoever asks us for a model, for roots or for a person is told
//! that there is none.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use rmcp::handler::client::ClientHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, Implementation, JsonObject, Tool,
};
use rmcp::service::{NotificationContext, RoleClient, RunningService, ServiceError, ServiceExt};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use url::Url;

use super::failure::{McpError, not_begun};
use super::process::{Launch, Process};
use super::server::Shared;
use super::session::Session;
use crate::http::HttpClient;

/// More requests than this are not posted at once, whatever the limit group says: each is a connection of its own to a server
/// that speaks HTTP/1.
const POSTS_MAX: usize = 256;

/// So long a connection to a server is awaited; the same as for an endpoint with the longest time-out.
const CONNECT: Duration = Duration::from_secs(20);

/// The longest line of a server, and the largest answer over HTTP, in bytes: as much as an endpoint's body, with room for the
/// base64 and the escapes around it. A longer line is dropped by the library, and the call ends by its time-out.
const MESSAGE_MAX: usize = 2 * crate::http::BODY_MAX;

/// A connection. Dropping it closes it and, if the server is ours, ends it.
#[derive(Debug)]
pub(super) struct Connection {
    service: RunningService<RoleClient, Ears>,
    process: Option<Process>,
    session: Option<Session>,
}

/// What we hear unasked.
#[derive(Debug)]
pub(super) struct Ears(Weak<Shared>);

impl ClientHandler for Ears {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(ClientCapabilities::default(), Implementation::new("fanout", env!("CARGO_PKG_VERSION")))
    }

    async fn on_tool_list_changed(&self, context: NotificationContext<RoleClient>) {
        let Some(shared) = self.0.upgrade() else { return };
        // Asked in a task: this is the one that would bring us the answer.
        tokio::spawn(async move {
            match context.peer.list_all_tools().await {
                Ok(tools) => shared.relisted(&tools),
                Err(error) => {
                    let server = shared.name();
                    tracing::warn!(target: "fanout::mcp", server, "its tools changed, and it does not list them: {error}");
                }
            }
        });
    }
}

impl Connection {
    /// Starts a program and speaks with it over its standard streams.
    pub(super) async fn with_process(shared: Weak<Shared>, server: &str, launch: &Launch) -> Result<Self, McpError> {
        let (process, out, input) =
            Process::start(server, launch).map_err(|error| McpError::Program(error.to_string()))?;
        let transport = AsyncRwTransport::new_client(out, input).with_max_line_length(MESSAGE_MAX);
        match Ears(shared).serve(transport).await {
            Ok(service) => Ok(Self { service, process: Some(process), session: None }),
            Err(error) => Err(McpError::Start(format!("{}; {}", not_begun(&error), process.last_words().await))),
        }
    }

    /// Speaks with a server over streamable HTTP.
    pub(super) async fn over_http(
        shared: Weak<Shared>,
        client: &HttpClient,
        url: &Url,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<Self, McpError> {
        // No request may be sent again unasked, so its connections are those of what is not repeatable.
        let client = client.to(url, false, CONNECT)?;
        let mut config = StreamableHttpClientTransportConfig::with_uri(url.as_str())
            .custom_headers(headers)
            .max_concurrent_requests(POSTS_MAX)
            .max_sse_event_size(MESSAGE_MAX)
            .max_json_response_size(MESSAGE_MAX);
        config.allow_stateless = true;
        config.retry_config = Arc::new(Session::resumes());
        // `server` opens another one, which calls that are still in this one do not notice.
        config.reinit_on_expired_session = false;
        let session = Session::new(client);
        let transport = StreamableHttpClientTransport::with_client(session.clone(), config);
        let service = Ears(shared).serve(transport).await.map_err(|error| McpError::Start(not_begun(&error)))?;
        Ok(Self { service, process: None, session: Some(session) })
    }

    /// Every tool that it lists now, on all pages.
    pub(super) async fn list(&self) -> Result<Vec<Tool>, McpError> {
        self.service.list_all_tools().await.map_err(|error| McpError::List(error.to_string()))
    }

    /// One call. Dropping the future tells the server that nobody waits any more.
    pub(super) async fn call(&self, tool: String, input: Option<JsonObject>) -> Result<CallToolResult, ServiceError> {
        let mut params = CallToolRequestParams::new(tool);
        params.arguments = input;
        self.service.call_tool(params).await
    }

    /// Whether nothing can be sent over it any more.
    pub(super) fn is_closed(&self) -> bool {
        self.service.is_closed() || self.service.is_transport_closed() || self.is_lost()
    }

    /// Whether the server has forgotten it: what was refused for that was not carried out.
    pub(super) fn is_lost(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_lost)
    }

    /// What a server of ours said last, once it is gone.
    pub(super) async fn last_words(&self) -> Option<String> {
        match &self.process {
            Some(process) if self.is_closed() => Some(process.last_words().await),
            _ => None,
        }
    }
}
