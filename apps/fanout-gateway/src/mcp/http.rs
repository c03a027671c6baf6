//! MCP over HTTP at `/mcp`, behind the gateway's door.
//!
//! From the router. To a [`Server`] for each session, and to one for each request of a client that keeps none. Names,
//! origins and keys were looked at by the door.

use std::sync::{Arc, Once};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::StatusCode;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};

use super::server::Server;
use super::session;
use super::sessions::{IDLE_MAX, Manager, SESSIONS_MAX, Sessions};
use crate::body::BODY_MAX;
use crate::error::ApiError;
use crate::gateway::Shared;

/// Once nothing runs any more, the last answers have so long to leave before the streams are closed.
const LAST_ANSWERS: Duration = Duration::from_millis(250);

/// The route, with its own sessions.
pub(crate) fn routes(shared: &Arc<Shared>) -> Router<Arc<Shared>> {
    let config = StreamableHttpServerConfig::default()
        .disable_allowed_hosts()
        .disable_allowed_origins()
        .with_max_request_body_bytes(BODY_MAX);
    let sessions = Sessions::new(SESSIONS_MAX, IDLE_MAX);
    let (asker, first) = (Arc::clone(shared), Once::new());
    let of_sessions = session::Shared {
        offered: shared.offered.subscribe(),
        scheduler: shared.scheduler.clone(),
        tellers: shared.tellers(),
        approver: Arc::new(move |caller| asker.approver(caller)),
        closing: shared.closing.clone(),
        stop: shared.stop.clone(),
    };
    let manager = Arc::new(Manager(Arc::clone(&sessions)));
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
        Ok(Server::new(of_sessions.clone(), Arc::clone(&sessions)))
    };
    let service = StreamableHttpService::new(server, manager, config);
    Router::new().route("/mcp", any(async move |request: Request| answer(&service, request).await))
}

async fn answer(service: &StreamableHttpService<Server, Manager>, request: Request) -> Response {
    match Sessions::watch_room(service.handle(request)).await {
        (_, true) => ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_sessions",
            format!("each of {SESSIONS_MAX} sessions has running calls: begin one more when some of them have ended"),
        )
        .into_response(),
        (answer, false) => answer.map(Body::new),
    }
}
