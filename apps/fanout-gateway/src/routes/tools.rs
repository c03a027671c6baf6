//! `GET /fanout/v1/tools`: the tools, ready for the `tools` of a request to the Messages API.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::IntoResponse;
use fanout_anthropic::{ToolDef, tools_json};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};

use crate::chosen::Chosen;
use crate::error::ApiError;
use crate::gateway::Shared;
use crate::keys::Caller;

/// The definitions, in the order of the configuration: the same bytes at each request. No `cache_control` is set: where a
/// cached prefix ends is the caller's to say.
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let current = shared.current();
    let toolbox = &current.tools_of(caller.project.as_deref()).toolbox;
    let chosen = Chosen::of(&headers, |name| toolbox.get(&name.into()).is_some())?;
    let defs: Vec<ToolDef> = toolbox
        .iter()
        .filter(|tool| chosen.has(tool.spec.name.as_str()))
        .map(|tool| ToolDef {
            name: tool.spec.name.to_string(),
            description: tool.spec.description.clone(),
            input_schema: tool.spec.input_schema.clone(),
            cache: false,
        })
        .collect();
    let text = tools_json(&defs).map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("the tools cannot be printed: {error}"))
    })?;
    Ok(([(CONTENT_TYPE, "application/json")], text.to_string()))
}
