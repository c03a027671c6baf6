//! Whether the gateway lives, whether it takes calls, and what it has counted.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::error::ApiError;
use crate::gateway::Shared;

/// The process answers: nothing more is said.
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// Calls are taken. While the gateway stops they are not, and whoever shares out requests should look elsewhere.
pub(crate) async fn ready(State(shared): State<Arc<Shared>>) -> Result<&'static str, ApiError> {
    match shared.closing.reason() {
        None => Ok("ok\n"),
        Some(reason) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "closing", reason)),
    }
}

/// What was counted, for Prometheus.
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.metrics.print(&shared.scheduler.limits()))
}
