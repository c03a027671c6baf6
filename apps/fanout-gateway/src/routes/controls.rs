//! `/fanout/v1/controls`: what people on call order; `/fanout/v1/audit`: who did what.
//!
//! From admins. To every process that shares the journal; without one, to this process for as long as it lives.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::{Extension, Json};
use fanout_host::controls::{Asked, Order};
use fanout_journal::deeds::Deed;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body::Text;
use crate::error::ApiError;
use crate::gateway::Shared;
use crate::keys::Caller;
use crate::routes::runs::{nothing_is_kept, unkept};

/// The most deeds of one page, and how many there are if nobody says.
const PAGE: (usize, usize) = (1_000, 100);

/// Which page of the audit trail.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    limit: Option<usize>,
    after_id: Option<u64>,
}

/// Orders something.
pub(crate) async fn order(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    body: Text,
) -> Result<Json<Value>, ApiError> {
    caller.must_be_admin("order anything")?;
    let asked: Asked = body.read()?;
    let current = shared.current();
    let order = Order::read(&asked, &current.config, Some(&current.toolbox)).map_err(ApiError::invalid)?;
    let done = shared.controls.order(order.by(caller.who())).await.map_err(|error| unkept(&error))?;
    if let Some(worker) = &shared.worker {
        worker.look();
    }
    Ok(Json(done.to_json()))
}

/// The orders that change something now.
pub(crate) async fn standing(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.must_be_admin("see what is ordered")?;
    shared.controls.look().await.map_err(|error| unkept(&error))?;
    Ok(Json(json!({ "data": shown(&shared.controls.standing()) })))
}

/// Who did what, newest first.
pub(crate) async fn audit(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, ApiError> {
    caller.must_be_admin("see who did what")?;
    let journal = shared.journal().ok_or_else(nothing_is_kept)?;
    let limit = page.limit.unwrap_or(PAGE.1).clamp(1, PAGE.0);
    let mut deeds = journal.store().deeds(page.after_id, limit + 1).await.map_err(|error| unkept(&error))?;
    let has_more = deeds.len() > limit;
    deeds.truncate(limit);
    Ok(Json(json!({ "data": shown(&deeds), "has_more": has_more, "last_id": deeds.last().map(|deed| deed.number) })))
}

fn shown(deeds: &[Deed]) -> Vec<Value> {
    deeds.iter().map(Deed::to_json).collect()
}
