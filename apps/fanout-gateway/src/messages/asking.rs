//! The model of one run: asks the upstream turn by turn, and lets the client see what it may.
//!
//! From the agent loop, through [`Model`]: requests. To it: responses. To the client, through the exchange: events as they
//! come. To [`run`](super::run) at the end: what all turns said, took and hid, or how the upstream failed.
//!
//! The loop decides what is asked and how often; this only keeps it from asking again for what a client has seen already.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::{Bytes, BytesMut};
use fanout_agent::Ours;
use fanout_anthropic::{
    Assembler, Block, BoxFuture, Events, Model, ModelError, Part, RESPONSE_BYTES_MAX, RateLimits, Request, Response,
    View,
};
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Method, StatusCode};
use serde_json::Value;

use super::exchange::{Exchange, Head};
use super::relay::{Relay, add_usage, events_of};
use super::run::stream_head;
use super::upstream::{Upstream, answered};
use crate::door::RUN_ID;

/// So many bytes of an error's body are passed on. The API's own take hundreds, a proxy's page some thousands.
const ERROR_BYTES_MAX: usize = 1024 * 1024;

/// The longest that the rest of an answer may take once its message is complete, so that its connection can be used again.
const END_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// The upstream as one run asks it.
pub(crate) struct Asking {
    upstream: Upstream,
    headers: HeaderMap,
    /// Whose rate limits its requests count against.
    api: String,
    /// The path and query that the client asked for.
    target: String,
    exchange: Arc<Exchange>,
    /// Headers of ours for the answer.
    own: HeaderMap,
    /// Known once the agent is made, which is made of this.
    pub(crate) ours: OnceLock<Ours>,
    said: Mutex<Said>,
}

/// What all turns so far come to.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) relay: Relay,
    /// How many responses there were.
    pub(crate) turns: u32,
    /// What the client sees, in order.
    pub(crate) visible: Vec<Block>,
    /// Something of ours was left out.
    pub(crate) has_hidden: bool,
    pub(crate) usage: Option<Value>,
    pub(crate) last: Option<Response>,
    /// The last answer as it came, where it came whole.
    pub(crate) whole: Option<(HeaderMap, Bytes)>,
    /// How the last request failed.
    pub(crate) failure: Option<Failure>,
}

/// How the upstream failed.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// With an answer of its own, to be passed on as it is.
    Answer(StatusCode, HeaderMap, Bytes),
    /// With an `error` event.
    Event(String),
    /// Without a word.
    Silence(ModelError),
}

/// A failure for the client, and what it means for the loop.
type Failed = Box<(Failure, ModelError)>;

impl Asking {
    pub(crate) fn new(
        upstream: Upstream,
        headers: HeaderMap,
        target: String,
        exchange: Arc<Exchange>,
        own: HeaderMap,
    ) -> Self {
        let (ours, said) = (OnceLock::new(), Mutex::default());
        let api = upstream.api(&headers);
        Self { upstream, headers, api, target, exchange, own, ours, said }
    }

    /// What was said so far.
    pub(crate) fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ours(&self) -> Ours {
        self.ours.get().cloned().unwrap_or_default()
    }

    async fn ask(&self, request: &Request, on_part: &mut (dyn FnMut(Part<'_>) + Send)) -> Result<Response, ModelError> {
        self.exchange.unparked().await;
        self.said().relay.turn();
        match self.answer(request, on_part).await {
            Ok(response) => {
                self.take(&response);
                Ok(response)
            }
            Err(failed) => {
                let (failure, error) = *failed;
                let mut said = self.said();
                said.failure = Some(failure);
                // The first failure is the client's to deal with, by its own rules; and what it has seen of an answer
                // cannot be taken back.
                let is_final = said.turns == 0 || said.relay.has_sent;
                Err(if is_final { settled(&error) } else { error })
            }
        }
    }

    async fn answer(&self, request: &Request, on_part: &mut (dyn FnMut(Part<'_>) + Send)) -> Result<Response, Failed> {
        let post = self.upstream.request(Method::POST, &self.target).headers(self.headers.clone());
        let mut answer = post.body(request.to_bytes()).send().await.map_err(|error| self.silence(error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        on_part(Part::Limits(&RateLimits::of_answer(status, &headers)));
        if !status.is_success() {
            let mut body = BytesMut::new();
            while let Ok(Some(piece)) = answer.chunk().await {
                if body.len() + piece.len() > ERROR_BYTES_MAX {
                    break;
                }
                body.extend_from_slice(&piece);
            }
            let error = ModelError::of_answer(status, &headers, &body);
            return Err(Box::new((Failure::Answer(status, answered(&headers, true), body.freeze()), error)));
        }
        let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if content_type.to_ascii_lowercase().starts_with(b"text/event-stream") {
            self.stream(request.stream, answer, on_part).await
        } else if request.stream {
            Err(unsaid(ModelError::Malformed {
                detail: "the upstream was asked for a stream and sent none".to_owned(),
            }))
        } else {
            self.whole(answer, on_part).await
        }
    }

    async fn stream(
        &self,
        is_relayed: bool,
        mut answer: reqwest::Response,
        on_part: &mut (dyn FnMut(Part<'_>) + Send),
    ) -> Result<Response, Failed> {
        if is_relayed {
            self.begin(StatusCode::OK, answer.headers());
        }
        let ours = self.ours();
        let (mut events, mut assembler, mut length) = (Events::new(), Assembler::new(), 0);
        while !assembler.is_finished() {
            let Some(bytes) = answer.chunk().await.map_err(|error| self.silence(error))? else { break };
            length += bytes.len();
            if length > RESPONSE_BYTES_MAX {
                let error = ModelError::TooLarge { what: "response", limit: RESPONSE_BYTES_MAX };
                return Err(unsaid(error));
            }
            let mut out = BytesMut::new();
            let fed: Result<(), Failed> = events.feed(&bytes, |name, data| {
                assembler.event(name, data, on_part).map_err(|error| Failed::new((failure_of(&error, data), error)))?;
                if is_relayed {
                    self.said().relay.event(name, data, &ours, &mut out);
                }
                Ok(())
            });
            self.exchange.send(out.freeze());
            fed?;
        }
        tokio::spawn(tokio::time::timeout(END_TIMEOUT, async move { while let Ok(Some(_)) = answer.chunk().await {} }));
        assembler.finish().map_err(unsaid)
    }

    async fn whole(
        &self,
        mut answer: reqwest::Response,
        on_part: &mut (dyn FnMut(Part<'_>) + Send),
    ) -> Result<Response, Failed> {
        let (status, headers) = (answer.status(), answered(answer.headers(), true));
        let mut body = BytesMut::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| self.silence(error))? {
            if body.len() + piece.len() > RESPONSE_BYTES_MAX {
                let error = ModelError::TooLarge { what: "response", limit: RESPONSE_BYTES_MAX };
                return Err(unsaid(error));
            }
            body.extend_from_slice(&piece);
        }
        let body = body.freeze();
        let text = std::str::from_utf8(&body).unwrap_or_default();
        let response = Response::parse(text).map_err(|error| {
            Box::new((Failure::Answer(status, headers.clone(), body.clone()), ModelError::from(error)))
        })?;
        response.tell(on_part);
        self.said().whole = Some((headers, body));
        Ok(response)
    }

    /// Says again what the model said before its run broke off.
    pub(crate) fn recall(&self, answer: &Response, request: &Request) {
        let mut answer = answer.clone();
        answer.model.clone_from(&request.model);
        if answer.id.is_empty() {
            // Its own is not kept.
            answer.id =
                self.own.get(RUN_ID).and_then(|run| run.to_str().ok()).unwrap_or_default().replace("run_", "msg_");
        }
        if request.stream {
            self.exchange.begin(stream_head(&self.own));
            let (mut out, ours) = (BytesMut::new(), self.ours());
            let mut said = self.said();
            said.relay.turn();
            for (kind, data) in events_of(&answer) {
                said.relay.event(kind.as_bytes(), data.to_string().as_bytes(), &ours, &mut out);
            }
            self.exchange.send(out.freeze());
        }
        self.take(&answer);
    }

    /// Counts a response.
    fn take(&self, response: &Response) {
        let ours = self.ours();
        let is_hidden = |block: &&Block| matches!(block.view(), View::ToolUse(call) if ours.contains(&call.name));
        let mut said = self.said();
        said.turns += 1;
        said.failure = None;
        said.has_hidden |= response.blocks.iter().any(|block| is_hidden(&block));
        said.visible.extend(response.blocks.iter().filter(|block| !is_hidden(block)).cloned());
        let usage = match &response.usage_raw {
            Some(raw) => serde_json::from_str(raw.as_str()).ok(),
            None => serde_json::to_value(response.usage).ok(),
        };
        if let Some(usage) = usage {
            add_usage(said.usage.get_or_insert(Value::Null), usage);
        }
        said.last = Some(response.clone());
    }

    /// Sends the head of an answer that the upstream has begun.
    pub(crate) fn begin(&self, status: StatusCode, upstream: &HeaderMap) {
        let mut headers = answered(upstream, true);
        headers.extend(self.own.clone());
        self.exchange.begin(Head { status, headers });
    }

    fn silence(&self, error: reqwest::Error) -> Failed {
        unsaid(ModelError::of_transport(error, self.upstream.idle_timeout))
    }
}

impl Model for Asking {
    fn api(&self) -> &str {
        &self.api
    }

    fn respond<'a>(
        &'a self,
        request: &'a Request,
        on_part: &'a mut (dyn FnMut(Part<'_>) + Send),
    ) -> BoxFuture<'a, Result<Response, ModelError>> {
        Box::pin(self.ask(request, on_part))
    }
}

fn failure_of(error: &ModelError, data: &[u8]) -> Failure {
    match (error, std::str::from_utf8(data)) {
        (ModelError::Stream { .. }, Ok(data)) => Failure::Event(data.to_owned()),
        _ => Failure::Silence(error.clone()),
    }
}

fn unsaid(error: ModelError) -> Failed {
    Box::new((Failure::Silence(error.clone()), error))
}

/// The same error as one that is not tried again.
fn settled(error: &ModelError) -> ModelError {
    ModelError::Malformed { detail: error.to_string() }
}
