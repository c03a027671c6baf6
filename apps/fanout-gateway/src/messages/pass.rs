//! What is not ours: sent on as it is, answered as it is answered.
//!
//! From the door: any path and method of the Messages API but `POST /v1/messages` with tools. To the upstream, and back:
//! bytes, status, headers, streams. One path is looked into: `count_tokens` counts what a run would send.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use fanout_agent::Offer;
use fanout_anthropic::{Message, ModelError, Raw, Role};
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use hyper::body::{Frame, SizeHint};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::upstream::{Purpose, answered};
use super::{Messages, create, history};
use crate::body::Text;
use crate::error::ApiError;
use crate::hop::Hops;
use crate::keys::Caller;

/// Any request, unseen.
pub(super) async fn pass(State(messages): State<Arc<Messages>>, request: axum::extract::Request) -> Response {
    let (parts, body) = request.into_parts();
    send(&messages, parts, body).await
}

/// Sends a request on and gives back what comes, as it comes.
pub(super) async fn send(messages: &Messages, parts: Parts, body: Body) -> Response {
    let current = messages.current();
    let upstream = &current.upstream;
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let headers = upstream.headers(&parts.headers, parts.extensions.get::<Hops>(), Purpose::Pass);
    let request = upstream.request(parts.method, target).headers(headers);
    match request.body(reqwest::Body::wrap(Shareable(Mutex::new(body)))).send().await {
        Ok(answer) => {
            let answer: http::Response<reqwest::Body> = answer.into();
            let (mut parts, body) = answer.into_parts();
            parts.headers = answered(&parts.headers, false);
            Response::from_parts(parts, Body::new(body))
        }
        Err(error) => {
            let error = ModelError::of_transport(error, upstream.idle_timeout);
            ApiError::new(StatusCode::BAD_GATEWAY, "upstream", error.to_string()).into_response()
        }
    }
}

/// A body that the HTTP client takes: it may be looked at from several threads, which nobody does.
struct Shareable(Mutex<Body>);

impl HttpBody for Shareable {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let body = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        Pin::new(body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    // Its length, where it is known, goes on with it.
    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}

/// The fields that a run changes.
#[derive(Deserialize)]
struct Counted<'a> {
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<Vec<&'a RawValue>>,
    thread: Option<PreviousMessage>,
}

#[derive(Deserialize)]
struct PreviousMessage {
    previous_message_id: Option<String>,
}

/// `POST /v1/messages/count_tokens`: counts our tools too, and what stands behind messages that were returned from here.
pub(super) async fn count_tokens(State(messages): State<Arc<Messages>>, request: axum::extract::Request) -> Response {
    let caller = request.extensions().get::<Caller>();
    let offer = match create::offer(&messages.current(), caller, request.headers()) {
        Ok((_, offer)) if offer.is_empty() => return pass(State(messages), request).await,
        Ok((_, offer)) => offer,
        Err(error) => return error.into_response(),
    };
    let (mut parts, body) = request.into_parts();
    let text = match Text::from_request(axum::extract::Request::new(body), &()).await {
        Ok(Text(text)) => text,
        Err(error) => return error.into_response(),
    };
    let caller = parts.extensions.get::<Caller>().cloned().unwrap_or_else(Caller::nobody);
    // What is wrong with it is for the upstream to say.
    let counted = whole(&messages, &caller, &offer, &text).await.unwrap_or(text);
    parts.headers.remove(CONTENT_LENGTH);
    send(&messages, parts, Body::from(Bytes::from(counted))).await
}

/// The body as a run would have it; `None` where it cannot be read.
async fn whole(messages: &Messages, caller: &Caller, offer: &Offer, text: &str) -> Option<String> {
    let body: Counted<'_> = serde_json::from_str(text).ok()?;
    let mut fields = Vec::new();
    let previous = body.thread.and_then(|thread| thread.previous_message_id);
    let continued = match &previous {
        Some(id) => messages.standins.by_id(&caller.id, id).await.ok()?,
        None => None,
    };
    let theirs = body.tools.map(RawValue::get).filter(|tools| *tools != "null");
    if theirs.is_some() || previous.is_none() {
        let (tools, ours) = offer.behind(theirs, false).ok()?;
        if !ours.is_empty() {
            fields.push(("tools", Raw::parse(&*tools).ok()?));
        }
    }
    if let Some(list) = body.messages {
        let said: Vec<Message> =
            list.into_iter().map(|one| Message::parse(Raw::from(one))).collect::<Result<_, _>>().ok()?;
        let knows = said.iter().any(|message| message.role() == Role::Assistant) || continued.is_some();
        if knows {
            let history =
                history::restore(&messages.standins, &caller.id, &said, continued.as_ref(), None).await.ok()?;
            let list: Vec<&str> = history.messages.iter().map(|message| message.raw().as_str()).collect();
            fields.push(("messages", Raw::parse(format!("[{}]", list.join(","))).ok()?));
        }
    }
    if let Some(standin) = continued {
        let thread = serde_json::json!({"type": "continue", "previous_message_id": standin.returned.last_id});
        fields.push(("thread", Raw::from_value(&thread).ok()?));
    }
    Some(Raw::parse(text).ok()?.with(&fields).ok()?.as_str().to_owned())
}
