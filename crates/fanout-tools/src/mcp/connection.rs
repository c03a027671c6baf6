//! The talk with one server, from the handshake to the end.
//!
//! From `server`, which keeps one and makes another when it is gone. To `tool`: answers, any number of calls at once.
//!
//! A future that is dropped has the server told (`notifications/cancelled`). Progress goes to the attempt that it is of, and
//! neither shortens nor lengthens it. Whoever asks us for a model, for roots or for a person is told that there is none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use fanout_core::tool::{Attempt, Progress};
use http::{HeaderName, HeaderValue};
use rmcp::handler::client::ClientHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, CancelledNotificationParam, ClientCapabilities, ClientConfig, ClientRequest,
    Implementation, ProgressNotificationParam, ProgressToken, Request, RequestId, ServerResult, Tool,
};
use rmcp::service::{
    NotificationContext, Peer, PeerRequestOptions, RoleClient, RunningService, ServiceError, ServiceExt,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use tokio::runtime::Handle;
use url::Url;

use super::failure::{McpError, not_begun, unlisted};
use super::oauth::McpAccess;
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

/// So many characters of what a server says of its progress are passed on.
const MESSAGE_SHOWN: usize = 1_000;

/// A connection. Dropping it closes it and, if the server is ours, ends it.
#[derive(Debug)]
pub(super) struct Connection {
    service: RunningService<RoleClient, Ears>,
    process: Option<Process>,
    session: Option<Session>,
}

/// What we hear unasked.
#[derive(Debug)]
pub(super) struct Ears {
    shared: Weak<Shared>,
    under_way: UnderWay,
}

/// The attempts whose calls are not answered, by the token that their progress comes under.
type UnderWay = Arc<Mutex<HashMap<ProgressToken, Attempt>>>;

/// A call that is not answered yet. Dropping it forgets the attempt, and tells the server if there was no answer.
struct Unanswered<'a> {
    peer: &'a Peer<RoleClient>,
    under_way: &'a UnderWay,
    token: ProgressToken,
    /// Its id, until there is an answer.
    request: Option<RequestId>,
}

impl Ears {
    fn of(shared: Weak<Shared>) -> Self {
        Self { shared, under_way: UnderWay::default() }
    }
}

impl ClientHandler for Ears {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(ClientCapabilities::default(), Implementation::new("fanout", env!("CARGO_PKG_VERSION")))
    }

    async fn on_progress(&self, said: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = under_way.get(&said.progress_token).cloned();
        drop(under_way);
        if let Some(attempt) = attempt.filter(|_| said.progress.is_finite()) {
            let message = said.message.map(|message| message.chars().take(MESSAGE_SHOWN).collect::<String>().into());
            attempt.progress(Progress { done: said.progress, total: said.total, message });
        }
    }

    async fn on_tool_list_changed(&self, context: NotificationContext<RoleClient>) {
        let Some(shared) = self.shared.upgrade() else { return };
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

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let attempt = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.token);
        // It may be the last that holds the call's locks: not while the map is locked.
        drop(attempt);
        let (Some(request), Ok(runtime)) = (self.request.take(), Handle::try_current()) else { return };
        let peer = self.peer.clone();
        runtime.spawn(async move {
            // Who cannot be told is gone.
            let _ = peer.notify_cancelled(CancelledNotificationParam::new(Some(request), None)).await;
        });
    }
}

impl Connection {
    /// Starts a program and speaks with it over its standard streams.
    pub(super) async fn with_process(shared: Weak<Shared>, server: &str, launch: &Launch) -> Result<Self, McpError> {
        let (process, out, input) =
            Process::start(server, launch).map_err(|error| McpError::Program(error.to_string()))?;
        let transport = AsyncRwTransport::new_client(out, input).with_max_line_length(MESSAGE_MAX);
        match Ears::of(shared).serve(transport).await {
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
        access: Option<McpAccess>,
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
        let session = Session::new(client, access);
        let transport = StreamableHttpClientTransport::with_client(session.clone(), config);
        let service = Ears::of(shared).serve(transport).await.map_err(|error| McpError::Start(not_begun(&error)))?;
        Ok(Self { service, process: None, session: Some(session) })
    }

    /// Every tool that it lists now, on all pages.
    pub(super) async fn list(&self) -> Result<Vec<Tool>, McpError> {
        self.service.list_all_tools().await.map_err(|error| unlisted(&error))
    }

    /// Who the server says it is.
    pub(super) fn server(&self) -> Option<Implementation> {
        self.service.peer_info().and_then(|info| info.server_info.clone())
    }

    /// One call. What the server says of its progress is passed on to the attempt. Dropping the future tells the server that
    /// nobody waits any more.
    pub(super) async fn call(&self, tool: String, attempt: &Attempt) -> Result<CallToolResult, ServiceError> {
        let mut params = CallToolRequestParams::new(tool);
        params.arguments = attempt.input.as_object().cloned();
        let (peer, under_way) = (self.service.peer(), &self.service.service().under_way);
        let request = ClientRequest::CallToolRequest(Request::new(params));
        let handle = peer.send_cancellable_request(request, PeerRequestOptions::no_options()).await?;
        let token = handle.progress_token.clone();
        let mut unanswered = Unanswered { peer, under_way, token, request: Some(handle.id.clone()) };
        under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(unanswered.token.clone(), attempt.clone());
        let answer = handle.await_response().await;
        unanswered.request = None;
        match answer? {
            ServerResult::CallToolResult(result) => Ok(result),
            ServerResult::EmptyResult(_) => Ok(CallToolResult::default()),
            ServerResult::InputRequiredResult(_) => Err(ServiceError::InputRequiredRoundsExceeded { max_rounds: 0 }),
            _ => Err(ServiceError::UnexpectedResponse),
        }
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
