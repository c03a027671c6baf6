//! `POST /fanout/v1/tool_calls`: the `Promise.all` of an existing loop, and what it would do, without doing it.
//!
//! From a client that asks the model itself: the content of an assistant message. To it: the user message of results, at
//! once or each result as it ends. Calls of tools that we lack are the client's own, and are named as `unhandled`.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use fanout_agent::calls_of;
use fanout_anthropic::{Block, Raw};
use fanout_core::call::{Call, CallId};
use fanout_host::explain::Explanation;
use futures_core::Stream;
use futures_util::stream::unfold;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::batch::{Before, Order, Running, Told};
use crate::body::Text;
use crate::chosen::Chosen;
use crate::door::{RUN_ID, RequestId};
use crate::error::ApiError;
use crate::gateway::Shared;
use crate::keys::Caller;
use crate::repeats::Request;

/// How often a stream says that it lives: proxies give up on silent ones after half a minute.
const PING_EVERY: Duration = Duration::from_secs(10);

/// What is asked for. Fields that are not named here are left alone, so that a whole assistant message can be sent.
#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    content: Vec<&'a RawValue>,
    #[serde(default)]
    unknown: Unknown,
}

/// What becomes of calls of tools that we lack.
#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Unknown {
    /// They are the client's own: not answered, and named.
    #[default]
    Unhandled,
    /// They are answered with an error that names the tools there are.
    Error,
}

/// Runs the calls of one content.
pub(crate) async fn run(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    body: Text,
) -> Result<Response, ApiError> {
    if let Some(reason) = shared.closing.reason() {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "closing", reason));
    }
    let (calls, unhandled) = order(&body, &headers, &shared, &caller)?;
    let request = Request::of(&headers, &caller, &body.0)?;
    let bytes = &shared.repeats.bytes;
    let start = |run, grace, before| {
        let order = Order { run, caller, calls, unhandled, grace, before };
        Running::start(order, &shared, bytes)
    };
    let (running, listener) = match request {
        // Nobody could join it later, so nothing is waited for when its client is gone.
        None => start(fanout_agent::new_run_id(), Duration::ZERO, Before::Never),
        Some(request) => {
            let (run, grace) = (request.run(), shared.current().config.server.disconnect_grace);
            let before = match shared.journal() {
                Some(journal) if request.is_known(journal).await? => Before::Known,
                _ => Before::Unknown(request.memo()),
            };
            shared.repeats.join(request, || start(run, grace, before))?
        }
    };
    let mut answer = match wants_stream(&headers) {
        true => {
            let keep_alive = KeepAlive::new().interval(PING_EVERY).text("ping");
            Sse::new(events(listener, id)).keep_alive(keep_alive).into_response()
        }
        false => whole(listener).await?,
    };
    if let Ok(run) = HeaderValue::from_str(running.run.as_str()) {
        answer.headers_mut().insert(RUN_ID, run);
    }
    Ok(answer)
}

/// Finds out what would wait for what. Runs nothing.
pub(crate) async fn explain(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    body: Text,
) -> Result<Response, ApiError> {
    let calls = calls_in(&body)?.0;
    let toolbox = Arc::clone(&shared.current().tools_of(caller.project.as_deref()).toolbox);
    // A batch may have thousands of calls; the threads that answer others must not wait for its graph.
    let explained = tokio::task::spawn_blocking(move || Explanation::of(calls, toolbox)).await;
    let explanation = explained.map_err(|_| fault())?.map_err(|error| ApiError::invalid(error.to_string()))?;
    Ok(json(explanation.to_json().to_string()))
}

/// The calls that are ours to answer, and the ids of the others.
fn order(
    body: &Text,
    headers: &HeaderMap,
    shared: &Shared,
    caller: &Caller,
) -> Result<(Vec<Call>, Vec<CallId>), ApiError> {
    let (calls, unknown) = calls_in(body)?;
    let current = shared.current();
    let toolbox = &current.tools_of(caller.project.as_deref()).toolbox;
    let is_here = |name: &str| toolbox.get(&name.into()).is_some();
    let chosen = Chosen::of(headers, is_here)?;
    let is_ours = |call: &Call| match is_here(call.tool.as_str()) {
        true => chosen.has(call.tool.as_str()),
        false => unknown == Unknown::Error,
    };
    let (ours, others): (Vec<Call>, Vec<Call>) = calls.into_iter().partition(is_ours);
    Ok((ours, others.into_iter().map(|call| call.id).collect()))
}

/// The calls of the content in program order. Blocks of other kinds are of no matter, whatever they hold.
fn calls_in(body: &Text) -> Result<(Vec<Call>, Unknown), ApiError> {
    let asked: Asked<'_> = body.read()?;
    let mut blocks = Vec::with_capacity(asked.content.len());
    for (at, block) in asked.content.iter().enumerate() {
        let block = Block::parse(Raw::from(*block));
        blocks.push(block.map_err(|error| ApiError::invalid(format!("content.{at}: {error}")))?);
    }
    let calls = calls_of(&blocks);
    let mut ids = HashSet::with_capacity(calls.len());
    if let Some(call) = calls.iter().find(|call| !ids.insert(&call.id)) {
        return Err(ApiError::invalid(format!("two calls of one content have the id `{}`", call.id)));
    }
    // The calls of a plan are known by its id, a `/` and a label.
    let plan_of = |call: &Call| {
        let above = call.id.as_str().match_indices('/').map(|(at, _)| call.id.as_str()[..at].into());
        above.into_iter().find(|id: &CallId| ids.contains(id))
    };
    match calls.iter().find_map(|call| Some((call, plan_of(call)?))) {
        Some((call, above)) => Err(ApiError::invalid(format!(
            "the id `{}` could be that of a call of the plan `{above}`: ids of one content may not go on from one another with a `/`",
            call.id
        ))),
        None => Ok((calls, asked.unknown)),
    }
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accepted =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|all| all.split(','));
    accepted.map(|kind| kind.split(';').next().unwrap_or_default().trim()).any(|kind| kind == "text/event-stream")
}

/// Waits for the whole answer.
async fn whole(mut listener: watch::Receiver<Told>) -> Result<Response, ApiError> {
    let told = listener.wait_for(|told| told.whole.is_some() || told.lost).await.map_err(|_| fault())?;
    told.whole.as_ref().map(|whole| json(whole.to_string())).ok_or_else(fault)
}

/// Where a stream stands.
struct Place {
    listener: watch::Receiver<Told>,
    request: RequestId,
    told: usize,
    progressed: u64,
    ended: bool,
}

/// `progress` while a call runs whose tool says how far it is, `tool_result` for each result as it ends, then `message` with all of them; `error` if there is none.
fn events(listener: watch::Receiver<Told>, request: RequestId) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold(Place { listener, request, told: 0, progressed: 0, ended: false }, |mut place| async move {
        if place.ended {
            return None;
        }
        let (at, progressed) = (place.told, place.progressed);
        let word = |told: &Told| {
            let words = told.progress.values().filter(|(word, _)| *word > progressed);
            words.min_by_key(|(word, _)| *word).cloned()
        };
        let is_news =
            |told: &Told| told.results.len() > at || told.whole.is_some() || told.lost || word(told).is_some();
        let next = place.listener.wait_for(|told| is_news(told)).await;
        let told = next.ok().map(|told| (told.results.get(at).cloned(), word(&told), told.whole.clone()));
        let event = match told {
            Some((Some(result), ..)) => {
                place.told += 1;
                Event::default().event("tool_result").data(&*result)
            }
            Some((None, Some((word, progress)), _)) => {
                place.progressed = word;
                Event::default().event("progress").data(&*progress)
            }
            Some((None, None, Some(whole))) => {
                place.ended = true;
                Event::default().event("message").data(&*whole)
            }
            Some((None, None, None)) | None => {
                place.ended = true;
                Event::default().event("error").data(fault().to_json(&place.request.0).to_string())
            }
        };
        Some((Ok(event), place))
    })
}

fn json(text: String) -> Response {
    let mut answer = text.into_response();
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn fault() -> ApiError {
    let message = "the gateway lost this batch by a fault of its own: look at its log; calls may have been carried out";
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
}
