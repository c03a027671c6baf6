//! `GET /fanout/v1/status`: how things stand.
//!
//! From admins: it counts the runs of all. To the journal, and to this process for what is its own.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use fanout_host::status::Status;
use fanout_journal::deeds::Deed;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::gateway::Shared;
use crate::keys::Caller;
use crate::routes::runs::unkept;

/// The journal's figures, where there is one, and this process's.
pub(crate) async fn status(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.must_be_admin("see all runs")?;
    let orders: Vec<Value> = shared.controls.standing().iter().map(Deed::to_json).collect();
    let mut all = json!({ "type": "status", "orders": orders });
    let (mut running, mut parked, mut failing) = (0, 0, None);
    if let Some(worker) = &shared.worker {
        let known = Status::read(worker.journal(), &shared.approvals).await;
        all = known.map_err(|error| unkept(&error))?.to_json();
        (running, parked) = worker.here();
        failing = worker.journal().failing().map(|error| error.to_string());
    }
    all["here"] = json!({
        "version": env!("CARGO_PKG_VERSION"), "running": running, "parked": parked, "closing": shared.closing.reason(),
        "journal_failing": failing,
    });
    Ok(Json(all))
}
