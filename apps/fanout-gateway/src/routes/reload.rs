//! `POST /fanout/v1/reload`: the configuration is read again, and taken if all of it is right.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use fanout_host::controls::deed;
use fanout_journal::deeds::Action;
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
    caller.must_be_admin("change the gateway")?;
    let changes = shared.reload().await.map_err(refused)?;
    tracing::info!(
        caller = caller.id.as_str(),
        tools = changes.tools.len(),
        settings = changes.settings.len(),
        "reloaded"
    );
    let done = deed(caller.who(), Action::Reload, "", serde_json::to_value(&changes).unwrap_or_default());
    if let Err(error) = shared.controls.note(done).await {
        tracing::error!(%error, "that the configuration was read again is not in the audit trail");
    }
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
