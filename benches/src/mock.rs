//! A Messages API and a slow external API in one process, with nothing in it that a measurement would notice.
//!
//! From both sides of a comparison, over loopback. The conversation says what comes: the first user text is
//! `{"turns":[[{"name":…,"input":…}, …], …]}`, one list of calls for each answer, and after the last one the text `done`.
//! The turn is the number of assistant messages, so nothing is kept between requests. A history in which a call is not
//! answered exactly once is refused, as the API refuses it: a side that cheats fails.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Query};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The largest request taken, in bytes: the API's own bound.
const REQUEST_BYTES_MAX: usize = 32 << 20;

/// Characters of one delta in a streamed answer.
const DELTA_CHARS: usize = 64;

static IDS: AtomicU64 = AtomicU64::new(1);

/// A free port of loopback.
///
/// # Errors
/// When there is none.
pub async fn listen() -> anyhow::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", 0)).await.context("no port on loopback")
}

/// Serves until the process is ended.
///
/// # Errors
/// When the port is lost.
pub async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let app = Router::new()
        .route("/v1/messages", post(messages))
        .route("/sleep", get(sleep))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX));
    let listener = listener.tap_io(|socket| {
        let _ = socket.set_nodelay(true);
    });
    Ok(axum::serve(listener, app).await?)
}

/// A process of its own: prints where it listens, and serves.
///
/// # Errors
/// When there is no port, or it is lost.
pub async fn main() -> anyhow::Result<()> {
    let listener = listen().await?;
    println!("http://{}", listener.local_addr()?);
    serve(listener).await
}

#[derive(Deserialize)]
struct Wait {
    ms: u64,
}

async fn sleep(Query(wait): Query<Wait>) -> Response {
    tokio::time::sleep(Duration::from_millis(wait.ms)).await;
    axum::Json(json!({ "slept_ms": wait.ms })).into_response()
}

#[derive(Deserialize)]
struct Scenario {
    turns: Vec<Vec<Asked>>,
}

#[derive(Deserialize)]
struct Asked {
    name: String,
    input: Value,
}

async fn messages(body: Bytes) -> Response {
    match answer(&body) {
        Ok(answer) => answer,
        Err(message) => {
            let error = json!({ "type": "error", "error": { "type": "invalid_request_error", "message": message } });
            (StatusCode::BAD_REQUEST, axum::Json(error)).into_response()
        }
    }
}

fn answer(body: &[u8]) -> Result<Response, String> {
    let request: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let messages = request["messages"].as_array().ok_or("messages: must be an array")?;
    check(messages)?;
    let text = first_text(messages).ok_or("messages: the first must be a user's text")?;
    let scenario: Scenario = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let turn = messages.iter().filter(|message| message["role"] == "assistant").count();
    let (blocks, stop_reason) = match scenario.turns.into_iter().nth(turn) {
        Some(calls) => (calls.into_iter().map(block).collect(), "tool_use"),
        None => (vec![json!({ "type": "text", "text": "done" })], "end_turn"),
    };
    let message = json!({
        "id": format!("msg_{:024}", IDS.fetch_add(1, Ordering::Relaxed)), "type": "message", "role": "assistant",
        "model": request["model"], "content": blocks, "stop_reason": stop_reason, "stop_sequence": null,
        "usage": { "input_tokens": body.len() / 4, "output_tokens": 16 * blocks.len() },
    });
    if request["stream"] == true { Ok(streamed(message, blocks)) } else { Ok(axum::Json(message).into_response()) }
}

fn first_text(messages: &[Value]) -> Option<&str> {
    let content = &messages.first()?["content"];
    content.as_str().or_else(|| content[0]["text"].as_str())
}

fn block(asked: Asked) -> Value {
    let id = format!("toolu_{:024}", IDS.fetch_add(1, Ordering::Relaxed));
    json!({ "type": "tool_use", "id": id, "name": asked.name, "input": asked.input })
}

/// Every call of an assistant message is answered once, in the message after it.
fn check(messages: &[Value]) -> Result<(), String> {
    for (at, message) in messages.iter().enumerate().filter(|(_, message)| message["role"] == "assistant") {
        let calls = ids(message, "tool_use", "id");
        let results = messages.get(at + 1).map(|reply| ids(reply, "tool_result", "tool_use_id")).unwrap_or_default();
        let once = calls.iter().all(|call| results.iter().filter(|result| *result == call).count() == 1);
        if !once || results.len() != calls.len() {
            return Err(format!("messages.{}: each `tool_use` must have a single `tool_result` there", at + 1));
        }
    }
    Ok(())
}

fn ids<'a>(message: &'a Value, kind: &str, field: &str) -> Vec<&'a str> {
    let blocks = message["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    blocks.iter().filter(|block| block["type"] == kind).filter_map(|block| block[field].as_str()).collect()
}

/// The same message as the events of a stream, unpaced; one chunk for each block.
fn streamed(mut message: Value, blocks: Vec<Value>) -> Response {
    let (stop_reason, usage) = (message["stop_reason"].take(), message["usage"].clone());
    message["content"] = json!([]);
    let mut chunks = vec![event(&json!({ "type": "message_start", "message": message }))];
    chunks.extend(blocks.iter().enumerate().map(|(index, block)| block_events(index, block)));
    let delta = json!({ "type": "message_delta", "delta": { "stop_reason": stop_reason, "stop_sequence": null }, "usage": usage });
    chunks.push(event(&delta) + &event(&json!({ "type": "message_stop" })));
    let chunks = chunks.into_iter().map(|chunk| Ok::<_, Infallible>(Bytes::from(chunk)));
    ([(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")], Body::from_stream(stream::iter(chunks)))
        .into_response()
}

fn block_events(index: usize, block: &Value) -> String {
    let is_call = block["type"] == "tool_use";
    let (start, text) = if is_call {
        let start = json!({ "type": "tool_use", "id": block["id"], "name": block["name"], "input": {} });
        (start, block["input"].to_string())
    } else {
        (json!({ "type": "text", "text": "" }), block["text"].as_str().unwrap_or_default().to_owned())
    };
    let mut out = event(&json!({ "type": "content_block_start", "index": index, "content_block": start }));
    let characters: Vec<char> = text.chars().collect();
    for piece in characters.chunks(DELTA_CHARS) {
        let piece: String = piece.iter().collect();
        let delta = if is_call {
            json!({ "type": "input_json_delta", "partial_json": piece })
        } else {
            json!({ "type": "text_delta", "text": piece })
        };
        out += &event(&json!({ "type": "content_block_delta", "index": index, "delta": delta }));
    }
    out + &event(&json!({ "type": "content_block_stop", "index": index }))
}

fn event(data: &Value) -> String {
    let mut out = String::new();
    let name = data["type"].as_str().unwrap_or_default();
    // Writing to a `String` cannot fail.
    let _ = write!(out, "event: {name}\ndata: {data}\n\n");
    out
}
