//! `POST /fanout/v1/reload`: the configuration is read again, and taken if all of it is right.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use http::StatusCode;

use crate::error::ApiError;
use crate::gateway::Shared;
use crate::keys::Caller;
use crate::setup::ReloadError;

/// Answers what changed.
pub(crate) async fn reload(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<impl IntoResponse, ApiError> {
    if !caller.is_admin {
        let message = "this key may not change the gateway: `fanout keys add --admin` makes one that may";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "not_permitted", message));
    }
    let changes = shared.reload().await.map_err(refused)?;
    tracing::info!(
        caller = caller.id.as_str(),
        tools = changes.tools.len(),
        settings = changes.settings.len(),
        "reloaded"
    );
    Ok(Json(changes))
}

fn refused(error: ReloadError) -> ApiError {
    let code = match error {
        ReloadError::Never => "no_configuration",
        ReloadError::Fixed(_) => "restart_needed",
        ReloadError::Refused(_) | ReloadError::Gateway(_) => "invalid_configuration",
    };
    ApiError::new(StatusCode::CONFLICT, code, error.to_string())
}
