//! MCP over HTTP at `/mcp`, behind the gateway's door.
//!
//! From the router. To a [`Server`] for each session, and to one for each request of a client that keeps none. Names,
//! origins and keys were looked at by the door.

use std::sync::{Arc, Once};
use std::time::Duration;

use axum::Router;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};

use super::describe;
use super::server::Server;
use super::session;
use crate::body::BODY_MAX;
use crate::gateway::Shared;

/// How long a session is kept without a message: longer than a person's pause, and not for ever, since a client that is
/// gone seldom says so. One that comes back later begins anew.
const SESSION_IDLE_MAX: Duration = Duration::from_secs(30 * 60);

/// Once nothing runs any more, the last answers have so long to leave before the streams are closed.
const LAST_ANSWERS: Duration = Duration::from_millis(250);

/// The route, with its own sessions.
pub(crate) fn routes(shared: &Arc<Shared>) -> Router<Arc<Shared>> {
    let config = StreamableHttpServerConfig::default()
        .disable_allowed_hosts()
        .disable_allowed_origins()
        .with_max_request_body_bytes(BODY_MAX);
    let mut sessions = LocalSessionManager::default();
    sessions.session_config.keep_alive = Some(SESSION_IDLE_MAX);
    let tools: Arc<[_]> = describe::tools(&shared.toolbox).into();
    let (watcher, first) = (Arc::clone(shared), Once::new());
    let of_sessions = session::Shared {
        toolbox: Arc::clone(&shared.toolbox),
        scheduler: shared.scheduler.clone(),
        watch: Arc::new(move |run, caller| watcher.watch(run, caller)),
        closing: shared.closing.clone(),
        stop: shared.stop.clone(),
    };
    let (gateway, streams) = (Arc::clone(shared), config.cancellation_token.clone());
    let server = move || {
        first.call_once(|| {
            let (gateway, streams) = (Arc::clone(&gateway), streams.clone());
            // Clients keep streams open to listen; they would hold up the end for as long as they like.
            tokio::spawn(async move {
                gateway.closing.cancelled().await;
                gateway.metrics.idle().await;
                tokio::time::sleep(LAST_ANSWERS).await;
                streams.cancel();
            });
        });
        Ok(Server::new(of_sessions.clone(), Arc::clone(&tools)))
    };
    Router::new().route_service("/mcp", StreamableHttpService::new(server, Arc::new(sessions), config))
}
