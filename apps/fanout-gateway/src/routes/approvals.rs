//! `/fanout/v1/approvals`: the questions that wait for people, and what people decide.
//!
//! From whoever may see them: the caller whose run asks, who may decide those of their project, and admins. To
//! [`fanout_host::approvals`], which holds the questions and judges decisions.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use fanout_host::approvals::DecideError;
use fanout_journal::approvals::{Approval, Filter, now_ms};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use crate::body::Text;
use crate::error::ApiError;
use crate::gateway::Shared;
use crate::keys::Caller;
use crate::routes::unkept;

/// How many are listed at once unless asked otherwise, and at most: as the Messages API lists things.
const LISTED: usize = 20;
const LISTED_MAX: usize = 1000;

/// Which are listed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    limit: Option<usize>,
    after_id: Option<String>,
    state: Option<String>,
}

/// What somebody decides.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decided {
    decision: Verb,
    words: Option<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Verb {
    Approve,
    Deny,
}

/// Newest first.
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let Query(wanted) = wanted.map_err(|error| ApiError::invalid(format!("the query is not right: {error}")))?;
    let limit = wanted.limit.unwrap_or(LISTED);
    if limit == 0 || limit > LISTED_MAX {
        return Err(ApiError::invalid(format!("`limit` must be from 1 to {LISTED_MAX}, not {limit}")));
    }
    let is_open = match wanted.state.as_deref() {
        None => false,
        Some("open") => true,
        Some(other) => return Err(ApiError::invalid(format!("`state` can be `open`, not `{other}`"))),
    };
    let viewer = caller.viewer();
    let after = wanted.after_id.map(|id| id.as_str().into());
    if let Some(after) = &after {
        shared.approvals.get(after, &viewer).await.map_err(refused)?;
    }
    // One more than is asked for says whether there are more.
    let filter = Filter { viewer, is_open, count_max: limit + 1, now_ms: now_ms() };
    let mut found = shared.approvals.list(filter, after).await.map_err(|error| refused(DecideError::Store(error)))?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let data: Vec<_> = found.iter().map(Approval::to_json).collect();
    let id = |approval: Option<&Approval>| approval.map(|approval| approval.id.to_string());
    let (first_id, last_id) = (id(found.first()), id(found.last()));
    Ok(Json(json!({ "data": data, "has_more": has_more, "first_id": first_id, "last_id": last_id })))
}

/// One of them.
pub(crate) async fn get(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let found = shared.approvals.get(&id.as_str().into(), &caller.viewer()).await.map_err(refused)?;
    Ok(Json(found.to_json()))
}

/// Decides it. The first decision counts; the same one again from the same person is answered the same.
pub(crate) async fn decide(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Text,
) -> Result<impl IntoResponse, ApiError> {
    let Decided { decision, words } = body.read()?;
    let is_approved = decision == Verb::Approve;
    let decided = shared.approvals.decide(&id.as_str().into(), &caller.viewer(), is_approved, words).await;
    let decided = decided.map_err(refused)?;
    tracing::info!(
        approval = decided.id.as_str(),
        run = decided.run.as_str(),
        call = decided.call.as_str(),
        tool = decided.tool.as_str(),
        by = caller.id.as_str(),
        approved = is_approved,
        "decided"
    );
    Ok(Json(decided.to_json()))
}

fn refused(error: DecideError) -> ApiError {
    let (status, code) = match &error {
        DecideError::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_approval"),
        DecideError::NotPermitted => (StatusCode::FORBIDDEN, "not_permitted"),
        DecideError::Decided { .. } => (StatusCode::CONFLICT, "already_decided"),
        DecideError::Expired(_) => (StatusCode::CONFLICT, "approval_expired"),
        DecideError::Withdrawn(_) => (StatusCode::CONFLICT, "approval_withdrawn"),
        DecideError::Words(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
        DecideError::Store(error) => return unkept(error),
    };
    ApiError::new(status, code, error.to_string())
}
