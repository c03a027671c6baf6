//! `POST /v1/messages`: reads the request, and finds the run that answers it.
//!
//! From the door. To [`run`](super::run) for a new run, to the [`exchange`](super::exchange) of an earlier one for a repeated
//! request, to [`pass`](super::pass) for one that no tool of ours could be called in.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use fanout_agent::{AgentOptions, Offer, new_run_id};
use fanout_anthropic::Request;
use fanout_core::toolbox::Toolbox;
use fanout_host::options::{self, daily_caps};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::Messages;
use super::canonical;
use super::exchange::Exchange;
use super::pass;
use super::repeated::{Found, Ticket};
use super::run::{self, Now, Work};
use super::upstream::Purpose;
use crate::body::Text;
use crate::chosen::Chosen;
use crate::door::RequestId;
use crate::error::ApiError;
use crate::hop::Hops;
use crate::keys::Caller;
use crate::setup::Current;

/// Whether the model is offered `plan`, whatever the configuration says: `on` or `off`.
const PLAN: &str = "fanout-plan";

/// The most US dollars that the run may cost.
const MAX_COST: &str = "fanout-max-cost";

/// How often the client has sent this request before, say the official clients.
const RETRY_COUNT: &str = "x-stainless-retry-count";

/// After so many seconds without an answer the client gives up, say the official clients.
const TIMEOUT: &str = "x-stainless-timeout";

/// The run ends so long before its client gives up, so that the client sees why.
const BEFORE_TIMEOUT: Duration = Duration::from_secs(10);

const IDEMPOTENCY_KEY: &str = "idempotency-key";

pub(super) async fn create(State(messages): State<Arc<Messages>>, request: axum::extract::Request) -> Response {
    let current = messages.current();
    let caller = request.extensions().get::<Caller>();
    match offer(&current, caller, request.headers()) {
        Ok((_, offer)) if offer.is_empty() && !is_capped(&current, &request) => {
            pass::pass(State(messages), request).await
        }
        // In a box, so that what is passed on carries no room for it from hand to hand.
        Ok(ours) => Box::pin(run_or_join(messages, current, request, ours)).await,
        Err(error) => error.into_response(),
    }
}

/// Answers a request that tools of ours may be called in.
async fn run_or_join(
    messages: Arc<Messages>,
    current: Arc<Current>,
    request: axum::extract::Request,
    ours: (Arc<Toolbox>, Offer),
) -> Response {
    let (parts, body) = request.into_parts();
    let text = match Text::from_request(axum::extract::Request::new(body), &()).await {
        Ok(Text(text)) => text,
        Err(error) => return error.into_response(),
    };
    match Request::parse(text.as_bytes()) {
        Ok(parsed) if !has_unknown_thread(&parsed) => {
            answer(&messages, current, parts, parsed, ours, &text).await.unwrap_or_else(IntoResponse::into_response)
        }
        // What is wrong with it is for the upstream to say.
        _ => pass::send(&messages, parts, Bytes::from(text).into()).await,
    }
}

/// Whether what the request costs is bounded, so that it must be counted though no tool of ours could be called in it.
fn is_capped(current: &Current, request: &axum::extract::Request) -> bool {
    let caller = request.extensions().get::<Caller>();
    let project = caller.and_then(|caller| Some((caller.project.as_deref()?, caller.id.as_str())));
    let has_caps = project.is_some_and(|(project, key)| !daily_caps(&current.config, project, key).is_empty());
    has_caps || request.headers().contains_key(MAX_COST)
}

/// Our tools for this request, and those of them that the model is offered.
pub(super) fn offer(
    current: &Current,
    caller: Option<&Caller>,
    headers: &HeaderMap,
) -> Result<(Arc<Toolbox>, Offer), ApiError> {
    let plan = match headers.get(PLAN).map(HeaderValue::as_bytes) {
        None => None,
        Some(b"on") => Some(true),
        Some(b"off") => Some(false),
        Some(_) => return Err(ApiError::invalid(format!("the header `{PLAN}` must be `on` or `off`"))),
    };
    let project = caller.and_then(|caller| caller.project.as_deref());
    let (toolbox, offer) = current.tools_of(project).planned(plan)?;
    let chosen = Chosen::of(headers, |name| offer.names().any(|known| known == name))?;
    Ok(if chosen.is_all() { (toolbox, offer) } else { (toolbox, offer.only(|name| chosen.has(name))) })
}

/// A thread that says more than we know of threads: it could not be continued here.
fn has_unknown_thread(request: &Request) -> bool {
    request.extra.iter().any(|(key, value)| key == "thread" && value.as_str() != "null")
}

async fn answer(
    messages: &Arc<Messages>,
    current: Arc<Current>,
    parts: Parts,
    request: Request,
    (toolbox, offer): (Arc<Toolbox>, Offer),
    body: &str,
) -> Result<Response, ApiError> {
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let caller = parts.extensions.get::<Caller>().cloned().unwrap_or_else(Caller::nobody);
    let target = parts.uri.path_and_query().map_or("/v1/messages", http::uri::PathAndQuery::as_str);
    let said = canonical::of_bytes(&[target.as_bytes(), body.as_bytes(), caller.token_text().as_bytes()]);
    let ticket = Ticket::new(&caller.id, header(IDEMPOTENCY_KEY), said);
    let is_repetition = header(RETRY_COUNT).is_some_and(|count| count != "0");
    let options = agent_options(&current, &request, &parts.headers)?;
    let exchange = Exchange::new();
    match messages.repeated.enter(&ticket, said, is_repetition, &exchange) {
        Some(Found::Run(earlier)) => return Ok(earlier.listen().answer().await),
        Some(Found::OtherBody) => return Err(other_body()),
        None => {}
    }
    if let Some(reason) = messages.options.closing.reason() {
        messages.repeated.ended(&ticket, &exchange, false);
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "closing", reason));
    }
    let may_be_known = is_repetition || ticket.has_key();
    let hops = parts.extensions.get::<Hops>();
    let work = Work {
        headers: current.upstream.headers(&parts.headers, hops, Purpose::Ask),
        target: target.to_owned(),
        request_id: parts.extensions.get::<RequestId>().map(|id| id.0.to_string()).unwrap_or_default(),
        messages: Arc::clone(messages),
        current,
        caller,
        run: new_run_id(),
        request,
        toolbox,
        offer,
        options,
        exchange: Arc::clone(&exchange),
        ticket,
        said,
        may_be_known,
        reopened: None,
        now: Now::default(),
    };
    // Before the run begins, so that it never sees itself without anybody to tell.
    let listener = exchange.listen();
    tokio::spawn(run::run(work));
    Ok(listener.answer().await)
}

/// The bounds of this run: the smaller of ours and the client's.
fn agent_options(current: &Current, request: &Request, headers: &HeaderMap) -> Result<AgentOptions, ApiError> {
    let mut options = options::agent_options(&current.config, &request.model);
    let number = |name: &str| -> Option<f64> { headers.get(name)?.to_str().ok()?.trim().parse().ok() };
    if headers.contains_key(MAX_COST) {
        let max = number(MAX_COST).filter(|max| max.is_finite() && *max >= 0.0).ok_or_else(|| {
            ApiError::invalid(format!("the header `{MAX_COST}` must be an amount of US dollars, such as `0.50`"))
        })?;
        let limits = &mut options.limits;
        limits.cost_max_usd = Some(limits.cost_max_usd.map_or(max, |known| known.min(max)));
    }
    // A stream is kept alive, so that its client has no reason to give up.
    let patience = number(TIMEOUT).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    if let Some(patience) = patience.filter(|_| !request.stream) {
        let until = patience.saturating_sub(BEFORE_TIMEOUT).max(patience / 2);
        options.limits.deadline = options.limits.deadline.min(until);
    }
    Ok(options)
}

pub(super) fn other_body() -> ApiError {
    ApiError::new(
        StatusCode::CONFLICT,
        "idempotency_key_reused",
        format!(
            "this `{IDEMPOTENCY_KEY}` came with another body or another user's token before: take a new key for a new request"
        ),
    )
}
