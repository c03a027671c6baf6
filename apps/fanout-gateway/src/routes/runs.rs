//! `/fanout/v1/runs`: runs in the background, and all that are kept.
//!
//! From the door: who asks. To the worker of this process, and to the journal. Runs belong to the caller that began them; an
//! admin sees all.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use axum::{Extension, Json};
use fanout_core::call::RunId;
use fanout_core::event::Event as RunEvent;
use fanout_host::controls::deed;
use fanout_host::lines::{line, row};
use fanout_host::runs::{NewAgentRun, SubmitError, Worker};
use fanout_journal::Told;
use fanout_journal::deeds::Action;
use fanout_journal::store::{Row, RunState, StoreError, Wanted};
use futures_util::stream::{Stream, unfold};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body::Text;
use crate::error::ApiError;
use crate::gateway::Shared;
use crate::keys::Caller;

/// The most runs of one page, and how many there are if nobody says.
const PAGE: (usize, usize) = (100, 20);

/// How often the journal is asked for more, while somebody watches a run.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long a silent stream stays silent.
const PING_EVERY: Duration = Duration::from_secs(15);

/// Which page of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    limit: Option<usize>,
    after_id: Option<String>,
    state: Option<String>,
}

/// What is decided of a proposed run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    decision: String,
}

/// Queues a run, or proposes it: 202, and it is kept.
pub(crate) async fn submit(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    body: Text,
) -> Result<Response, ApiError> {
    if let Some(reason) = shared.closing.reason() {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "closing", reason));
    }
    let new: NewAgentRun = body.read()?;
    let submitted = worker(&shared)?.submit(new, &caller.id, caller.project.as_deref()).await;
    let (run, state) = submitted.map_err(|error| match error {
        SubmitError::Invalid(message) => ApiError::invalid(message),
        SubmitError::Store(error) => unkept(&error),
    })?;
    let body = Json(json!({ "id": run.as_str(), "state": state.as_str() }));
    Ok((StatusCode::ACCEPTED, body).into_response())
}

/// The caller's runs, newest first.
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, ApiError> {
    let state = match page.state.as_deref() {
        None => None,
        Some(word) => Some(RunState::of(word).ok_or_else(|| {
            let states = RunState::ALL.map(RunState::as_str).join(", ");
            ApiError::invalid(format!("there is no state `{word}`; there are: {states}"))
        })?),
    };
    let limit = page.limit.unwrap_or(PAGE.1).clamp(1, PAGE.0);
    let wanted = Wanted {
        state,
        caller: (!caller.is_admin).then(|| caller.id.to_string()),
        after: page.after_id.map(RunId::from),
        max: limit + 1,
        run: None,
    };
    let mut rows = worker(&shared)?.journal().store().runs(wanted).await.map_err(|error| unkept(&error))?;
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    Ok(Json(json!({ "data": rows.iter().map(row).collect::<Vec<_>>(), "has_more": has_more })))
}

/// One run.
pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(row(&find(&shared, &caller, &id).await?)))
}

/// What happened in a run, and what happens: from the beginning, or behind `Last-Event-ID`. It ends with the run.
pub(crate) async fn events(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let found = find(&shared, &caller, &id).await?;
    let after = match headers.get("last-event-id") {
        None => 0,
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or_else(|| ApiError::invalid("`Last-Event-ID` must be the `id` of an event of this run"))?,
    };
    let worker = Arc::clone(worker(&shared)?);
    let keep_alive = KeepAlive::new().interval(PING_EVERY).text("ping");
    Ok(Sse::new(told(worker, found.run, after)).keep_alive(keep_alive).into_response())
}

/// Lets a proposed run begin, or not.
pub(crate) async fn decide(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Text,
) -> Result<Json<Value>, ApiError> {
    caller.must_be_admin("decide")?;
    let Decision { decision } = body.read()?;
    let (to, reason, action) = match decision.as_str() {
        "approve" => (RunState::Queued, None, Action::ApproveRun),
        "deny" => (RunState::Cancelled, Some(format!("denied by {}", caller.id)), Action::DenyRun),
        other => {
            return Err(ApiError::invalid(format!("`decision` must be `approve` or `deny`, and is `{other}`")));
        }
    };
    let found = find(&shared, &caller, &id).await?;
    let worker = worker(&shared)?;
    let changed = worker.journal().store().change(found.run.clone(), RunState::Proposed, to, reason).await;
    if !changed.map_err(|error| unkept(&error))? {
        let now = find(&shared, &caller, &id).await?.state.as_str();
        let message = format!("the run `{id}` is not proposed: it is `{now}`");
        return Err(ApiError::new(StatusCode::CONFLICT, "not_proposed", message));
    }
    tracing::info!(run = id, caller = caller.id.as_str(), decision, "a proposed run was decided");
    note(&shared, &caller, action, &id).await;
    worker.look();
    Ok(Json(row(&find(&shared, &caller, &id).await?)))
}

/// Stops a run: one that waits ends at once, one that is under way within about a second.
pub(crate) async fn cancel(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let found = find(&shared, &caller, &id).await?;
    let worker = worker(&shared)?;
    worker.stop(Some(found.run), &format!("cancelled by {}", caller.id)).await.map_err(|error| unkept(&error))?;
    note(&shared, &caller, Action::CancelRun, &id).await;
    Ok(Json(row(&find(&shared, &caller, &id).await?)))
}

/// Puts what was done to a run into the audit trail.
async fn note(shared: &Shared, caller: &Caller, action: Action, run: &str) {
    if let Err(error) = shared.controls.note(deed(caller.who(), action, run, json!({}))).await {
        tracing::error!(%error, run, action = action.as_str(), "it is not in the audit trail");
    }
}

/// A run of this caller's, or any for an admin.
async fn find(shared: &Shared, caller: &Caller, id: &str) -> Result<Row, ApiError> {
    let found = worker(shared)?.journal().run(&id.into()).await.map_err(|error| unkept(&error))?;
    let found = found.filter(|row| caller.is_admin || row.caller == caller.id.as_str());
    found.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "unknown_run", format!("there is no run `{id}`")))
}

fn worker(shared: &Shared) -> Result<&Arc<Worker>, ApiError> {
    shared.worker.as_ref().ok_or_else(nothing_is_kept)
}

pub(crate) fn nothing_is_kept() -> ApiError {
    let message = "nothing is kept here (`url` of [store] is \"memory:\"), so there is nothing to ask for";
    ApiError::new(StatusCode::CONFLICT, "no_store", message)
}

pub(crate) fn unkept(error: &StoreError) -> ApiError {
    tracing::error!(%error, "the journal cannot be used");
    let message = "the gateway's journal cannot be used now: try again later";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "store", message).retry_after(Duration::from_secs(5))
}

/// Where a stream stands.
struct Place {
    worker: Arc<Worker>,
    run: RunId,
    after: u64,
    waiting: std::vec::IntoIter<Told>,
    is_over: bool,
}

fn told(worker: Arc<Worker>, run: RunId, after: u64) -> impl Stream<Item = Result<Event, Infallible>> {
    let place = Place { worker, run, after, waiting: Vec::new().into_iter(), is_over: false };
    unfold(place, |mut place| async move {
        loop {
            if let Some(Told { number, at, what }) = place.waiting.next() {
                place.after = number;
                let event = RunEvent { run: place.run.clone(), at, what };
                let Some(data) = line(&event) else { continue };
                let name = data["type"].as_str().unwrap_or_default().to_owned();
                let event = Event::default().id(number.to_string()).event(name).data(data.to_string());
                return Some((Ok(event), place));
            }
            if place.is_over {
                return None;
            }
            // Whether it is over is asked first: then what comes after is all there is.
            let row = place.worker.journal().run(&place.run).await.ok()??;
            let next = place.worker.journal().events_after(&place.run, place.after).await.ok()?;
            place.is_over = row.state.is_over();
            if next.is_empty() && !place.is_over {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            place.waiting = next.into_iter();
        }
    })
}
