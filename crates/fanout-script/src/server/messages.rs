//! One request, from its first byte to the answer.
//!
//! From the socket. Through the checks in the order of the API (who asks, how much, what, and whether the history holds),
//! then to the responder, and back as a message, a stream, an error, or a broken line.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode, header};
use serde_json::json;

use super::Shared;
use super::line::Line;
use crate::check::{self, BODY_BYTES_MAX, Fidelity};
use crate::conversation::{Conversation, ThreadField, read, read_message};
use crate::delivery::{self, Delivery};
use crate::events;
use crate::fault::Fault;
use crate::history::Hashed;
use crate::refusal::{Refusal, Rule, error_body, error_type, status_of};
use crate::reply::{Reply, tokens};
use crate::script::Turn;
use crate::threads::{self, Continuation};

/// A request that passed the checks.
struct Passed {
    conversation: Conversation,
    hashed: Hashed,
    thread: Option<ThreadField>,
    continuation: Option<Continuation>,
}

/// `POST /v1/messages`.
pub(super) async fn create(
    State(state): State<Arc<Shared>>,
    ConnectInfo(line): ConnectInfo<Line>,
    request: Request,
) -> Response {
    let arrival = Arrival::read(&state, request).await;
    match arrival.judge(&state, true) {
        Ok(passed) => answer(&state, &arrival, passed, &line).await,
        Err(refusal) => arrival.refuse(&state, &refusal),
    }
}

/// `POST /v1/messages/count_tokens`: the same checks, and about four characters a token.
pub(super) async fn count_tokens(State(state): State<Arc<Shared>>, request: Request) -> Response {
    let arrival = Arrival::read(&state, request).await;
    match arrival.judge(&state, false) {
        Ok(passed) => {
            let body = json!({"input_tokens": tokens(passed.conversation.bytes)}).to_string();
            respond(StatusCode::OK, "application/json", &arrival.request_id, Body::from(body))
        }
        Err(refusal) => arrival.refuse(&state, &refusal),
    }
}

/// Any other path or method.
pub(super) async fn unknown_path(State(state): State<Arc<Shared>>, request: Request) -> Response {
    let arrival = Arrival::read(&state, request).await;
    let refusal = Refusal::of_status(Rule::Field, 404, format!("Not found: {}", arrival.path));
    arrival.refuse(&state, &refusal)
}

/// A request as it came in.
struct Arrival {
    index: usize,
    request_id: String,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    oversized: bool,
}

impl Arrival {
    async fn read(state: &Shared, request: Request) -> Self {
        let at = state.begun.elapsed();
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let mut stream = body.into_data_stream();
        let mut whole = BytesMut::new();
        let mut oversized = false;
        // What is too much is read all the same and thrown away: a client that is still writing would miss the answer.
        while let Some(Ok(chunk)) = stream.next().await {
            oversized |= whole.len() + chunk.len() > BODY_BYTES_MAX;
            if !oversized {
                whole.extend_from_slice(&chunk);
            }
        }
        let body = whole.freeze();
        let index = state.ledger().enter(&path, &head.headers, &body, at, state.options.keep_bodies);
        let request_id = format!("req_{:024}", state.fresh());
        Self { index, request_id, path, headers: head.headers, body, oversized }
    }

    fn judge(&self, state: &Shared, message: bool) -> Result<Passed, Refusal> {
        check::headers(&self.headers, state.options.key.as_deref())?;
        if self.oversized {
            let text = "Request exceeds the maximum size of 32 MB";
            return Err(Refusal::of_status(Rule::Size, 413, text));
        }
        let text = std::str::from_utf8(&self.body)
            .map_err(|error| Refusal::invalid(Rule::Json, format!("The request body is not valid UTF-8: {error}")))?;
        let mut reading = read(text, message)?;
        threads::check_request(&reading, check::threads_asked_for(&self.headers))?;
        let continuation = state.threads.resolve(reading.thread.as_ref(), &mut reading.conversation)?;
        check::body(&reading)?;
        let (conversation, thread) = (reading.conversation, reading.thread);
        check::roles(&conversation, &self.headers)?;
        check::messages(&conversation)?;
        let fidelity = state.options.fidelity;
        let hashed = Hashed::new(&conversation, fidelity);
        if fidelity != Fidelity::Off {
            state.history().check(&conversation, &hashed, fidelity)?;
        }
        Ok(Passed { conversation, hashed, thread, continuation })
    }

    /// Writes the refusal down and answers it. The same body again after a 400 is a violation of its own.
    fn refuse(&self, state: &Shared, refusal: &Refusal) -> Response {
        let mut ledger = state.ledger();
        let mut broken = vec![(refusal.rule, refusal.message.clone())];
        if refusal.status == 400 {
            if ledger.was_refused(&self.path, &self.body) {
                broken.push((Rule::RepeatedRefusal, "an identical request was refused before".to_owned()));
            }
            ledger.refused(&self.path, &self.body);
        }
        for (rule, message) in broken {
            let violation = crate::Violation { request: self.index, rule, status: refusal.status, message };
            ledger.violations.push(violation);
        }
        drop(ledger);
        let body = error_body(refusal.error_type, &refusal.message, refusal.details.as_ref(), &self.request_id);
        respond(status(refusal.status), "application/json", &self.request_id, Body::from(body))
    }
}

async fn answer(state: &Shared, arrival: &Arrival, passed: Passed, line: &Line) -> Response {
    let turn = (state.options.responder)(&passed.conversation);
    let faults = faults(state, &turn, passed.hashed.messages());
    if turn.pace.think_ms > 0 {
        tokio::time::sleep(Duration::from_millis(turn.pace.think_ms)).await;
    }
    for fault in &faults {
        match fault {
            Fault::Reset => {
                line.cut();
                return respond(StatusCode::OK, "text/plain", &arrival.request_id, Body::empty());
            }
            Fault::Status { status, .. } => {
                note_injected(state, arrival, *status);
                return faulty_status(fault, &arrival.request_id);
            }
            Fault::Thread { error_code } => {
                note_injected(state, arrival, 404);
                let details = json!({"error_code": error_code});
                let text = "thread: the script lets this one be gone";
                let body = error_body(error_type(404), text, Some(&details), &arrival.request_id);
                return respond(status(404), "application/json", &arrival.request_id, Body::from(body));
            }
            Fault::ErrorEvent { error_type, .. } if !passed.conversation.stream => {
                return faulty_status(&Fault::status(status_of(error_type)), &arrival.request_id);
            }
            _ => {}
        }
    }
    let reply = Reply::new(&turn, &faults, &passed.conversation, || state.fresh());
    remember(state, &reply, &passed);
    let stream = passed.conversation.stream;
    let (delivery, content_type) = if stream {
        let paced = turn.pace.tok_per_s > 0.0;
        let events = events::stream(&reply, &faults, paced, &arrival.request_id);
        (Delivery::stream(events, turn.pace, &faults), "text/event-stream; charset=utf-8")
    } else {
        let written = reply.blocks.iter().flat_map(|block| &block.deltas).map(|delta| delta.text().chars().count());
        let text = events::whole(&reply, &faults);
        (Delivery::whole(text, written.sum(), turn.pace, &faults), "application/json")
    };
    let body = match delivery.at_once().filter(|_| !stream && passed.continuation.is_none()) {
        Some(bytes) => Body::from(bytes),
        None => delivery::body(delivery, passed.continuation),
    };
    respond(StatusCode::OK, content_type, &arrival.request_id, body)
}

/// The faults of this attempt.
fn faults(state: &Shared, turn: &Turn, messages: u64) -> Vec<Fault> {
    let mut faults = Vec::new();
    turn.always.iter().for_each(|fault| fault.flatten(&mut faults));
    if !turn.faults.is_empty()
        && let Some(fault) = turn.faults.get(state.attempt(messages))
    {
        fault.flatten(&mut faults);
    }
    faults
}

fn remember(state: &Shared, reply: &Reply, passed: &Passed) {
    let fidelity = state.options.fidelity;
    if fidelity != Fidelity::Off {
        state.history().remember(reply, &passed.hashed, fidelity);
    }
    if passed.thread.is_some()
        && let Ok(said) = read_message(passed.conversation.messages.len(), &reply.assistant_message())
    {
        let mut conversation = passed.conversation.clone();
        conversation.messages.push(said);
        state.threads.keep(reply.id.clone(), conversation);
    }
}

/// A 400 from the script counts like any other: the same body must not come again.
fn note_injected(state: &Shared, arrival: &Arrival, status: u16) {
    if status != 400 {
        return;
    }
    let mut ledger = state.ledger();
    if ledger.was_refused(&arrival.path, &arrival.body) {
        let message = "an identical request was refused before".to_owned();
        let violation = crate::Violation { request: arrival.index, rule: Rule::RepeatedRefusal, status, message };
        ledger.violations.push(violation);
    }
    ledger.refused(&arrival.path, &arrival.body);
}

fn faulty_status(fault: &Fault, request_id: &str) -> Response {
    let Fault::Status { status: code, message, retry_after, html } = fault else {
        return respond(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", request_id, Body::empty());
    };
    let mut response = match html {
        Some(page) => respond(status(*code), "text/html", request_id, Body::from(page.clone())),
        None => {
            let kind = error_type(*code);
            let message = message.as_deref().unwrap_or(match code {
                429 => "This request would exceed your organization's rate limit.",
                529 => "Overloaded",
                _ => "The script asks for this error.",
            });
            let body = error_body(kind, message, None, request_id);
            respond(status(*code), "application/json", request_id, Body::from(body))
        }
    };
    if let Some(value) = retry_after.and_then(|after| after.header().parse().ok()) {
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    response
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn respond(status: StatusCode, content_type: &'static str, request_id: &str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache"));
    if let Ok(value) = request_id.parse() {
        headers.insert("request-id", value);
    }
    response
}
