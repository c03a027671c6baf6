//! MCP over standard streams: one client, one session, and the order in which its messages stand.
//!
//! From whoever started the process. The protocol has the output for itself; nothing else may be printed there.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fanout_agent::Cancel;
use fanout_core::run::Scheduler;
use fanout_core::toolbox::Toolbox;
use fanout_host::approvals::Approvals;
use fanout_host::notify::Notices;
use fanout_journal::Journal;
use rmcp::RoleServer;
use rmcp::model::{ClientRequest, JsonRpcMessage};
use rmcp::service::{RxJsonRpcMessage, ServerInitializeError, TxJsonRpcMessage, serve_server};
use rmcp::transport::Transport;
use rmcp::transport::async_rw::AsyncRwTransport;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::offered::Offered;
use super::server::{Arrived, Server};
use super::session::{Session, Shared};
use crate::gateway::Tellers;
use crate::keys::Caller;
use crate::metrics::Metrics;

/// What an MCP server is made of.
#[derive(Clone, Debug)]
pub struct McpOptions {
    /// The tools that it offers.
    pub toolbox: Arc<Toolbox>,
    /// Runs their calls; other users of the process may share it.
    pub scheduler: Scheduler,
    /// Where calls that need a person's approval wait for it, and how long: `approval_wait` of `[run]`.
    pub approvals: Approvals,
    /// See there.
    pub approval_wait: Duration,
    /// The most calls that are unanswered at once: `max_calls` of `[run]`. One more is answered `budget` and not run.
    pub calls_max: usize,
    /// Where runs are kept; `None`: nowhere.
    pub journal: Option<Journal>,
    /// Who is told what happens.
    pub notices: Notices,
}

/// Why a session ended badly.
#[derive(Debug, thiserror::Error)]
pub enum McpError {
    /// The client does not speak the protocol, or none that we know.
    #[error("the client did not begin a session")]
    Begin(#[source] Box<ServerInitializeError>),
    /// A fault of ours.
    #[error("the session was lost")]
    Lost(#[source] tokio::task::JoinError),
}

/// Serves one client over this process's standard streams, until it closes them or `shutdown` is ready.
///
/// # Errors
/// As for [`serve_mcp`].
pub async fn serve_mcp_stdio(options: McpOptions, shutdown: impl Future<Output = ()>) -> Result<(), McpError> {
    let (reader, writer) = rmcp::transport::stdio_pipes();
    serve_mcp(reader, writer, options, shutdown).await
}

/// Serves one client over a pair of streams, until it closes them or `shutdown` is ready: messages of one line each. Its calls
/// are one run. A client that closes its end without a word is no error.
///
/// What still runs when the client is gone has a few seconds to end, and is then stopped.
///
/// # Errors
/// [`McpError`].
///
/// # Cancellation
/// Dropping the future stops what still runs.
pub async fn serve_mcp(
    reader: impl AsyncRead + Send + Unpin + 'static,
    writer: impl AsyncWrite + Send + Unpin + 'static,
    options: McpOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), McpError> {
    let metrics = Arc::new(Metrics::new(&options.toolbox));
    let offered = watch::Sender::new(Arc::new(Offered::at_most(options.toolbox, options.calls_max)));
    let (approvals, wait) = (options.approvals, options.approval_wait);
    let shared = Shared {
        tellers: Tellers { journal: options.journal, metrics, notices: options.notices },
        approver: Arc::new(move |caller| approvals.approver(caller.project.clone(), Some(wait))),
        offered: offered.subscribe(),
        scheduler: options.scheduler,
        closing: Cancel::default(),
        stop: Cancel::default(),
    };
    let session = Arc::new(Session::start(&shared, Caller::local()));
    let transport = InOrder { inner: AsyncRwTransport::new_server(reader, writer), session: Arc::clone(&session) };
    tokio::pin!(shutdown);
    let begun = tokio::select! {
        begun = serve_server(Server::with_session(shared, session), transport) => begun,
        () = &mut shutdown => return Ok(()),
    };
    let service = match begun {
        Ok(service) => service,
        Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
        Err(error) => return Err(McpError::Begin(Box::new(error))),
    };
    let stop = service.cancellation_token();
    let ended = service.waiting();
    tokio::pin!(ended);
    let quit = tokio::select! {
        quit = &mut ended => quit,
        () = &mut shutdown => {
            stop.cancel();
            ended.await
        }
    };
    quit.map(drop).map_err(McpError::Lost)
}

/// A transport that gives every call its place in the order of arrival. Requests are answered by tasks of their own, which
/// race from here on.
struct InOrder<T> {
    inner: T,
    session: Arc<Session>,
}

impl<T: Transport<RoleServer, Error = io::Error>> Transport<RoleServer> for InOrder<T> {
    type Error = io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        self.inner.send(item)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        let mut message = self.inner.receive().await?;
        if let JsonRpcMessage::Request(request) = &mut message
            && let ClientRequest::CallToolRequest(call) = &mut request.request
        {
            call.extensions.insert(Arrived::new(self.session.place()));
        }
        Some(message)
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.inner.close().await
    }
}
