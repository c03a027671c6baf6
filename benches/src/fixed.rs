//! A Messages API that says the same to everybody: what a proxy in front of it costs is then all that differs.
//!
//! From a proxy: any request. To it: a text of a fixed length, whole or as a stream whose events leave one by one, as a model's
//! do, but without its pauses. Only ids differ between two answers.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Pieces of the text; each is an event of a stream.
pub const PIECES: usize = 50;

/// What each piece says: two or three tokens, as an event of the API's.
const PIECE: &str = "and the proxy says ";

/// Stands in the answers where the id goes, which has its length.
const ID: &str = "msg_000000000000000000000000";

static IDS: AtomicU64 = AtomicU64::new(1);

/// Both answers, as they are for the id `ID`.
#[derive(Debug)]
pub struct Answers {
    whole: String,
    events: Vec<String>,
}

impl Answers {
    /// For the model of this name.
    pub fn new(model: &str) -> Self {
        let text = PIECE.repeat(PIECES);
        let message = |content: Value, stop: Value| {
            json!({
                "id": ID, "type": "message", "role": "assistant", "model": model, "content": content, "stop_reason": stop,
                "stop_sequence": null, "usage": { "input_tokens": 800, "output_tokens": 200 },
            })
        };
        let whole = message(json!([{ "type": "text", "text": text }]), json!("end_turn")).to_string();
        let mut events = vec![
            event(&json!({ "type": "message_start", "message": message(json!([]), Value::Null) })),
            event(
                &json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
            ),
        ];
        let delta = json!({ "type": "text_delta", "text": PIECE });
        let piece = event(&json!({ "type": "content_block_delta", "index": 0, "delta": delta }));
        events.extend(std::iter::repeat_n(piece, PIECES));
        events.push(event(&json!({ "type": "content_block_stop", "index": 0 })));
        let end = json!({ "stop_reason": "end_turn", "stop_sequence": null });
        events.push(event(&json!({ "type": "message_delta", "delta": end, "usage": { "output_tokens": 200 } })));
        events.push(event(&json!({ "type": "message_stop" })));
        Self { whole, events }
    }

    /// Bytes of an answer's body; all have as many.
    pub fn bytes(&self, stream: bool) -> usize {
        if stream { self.events.iter().map(String::len).sum() } else { self.whole.len() }
    }
}

fn event(data: &Value) -> String {
    let mut out = String::new();
    let name = data["type"].as_str().unwrap_or_default();
    // Writing to a `String` cannot fail.
    let _ = write!(out, "event: {name}\ndata: {data}\n\n");
    out
}

/// Serves until the process is ended.
///
/// # Errors
/// When the port is lost.
pub async fn serve(listener: TcpListener, model: &str) -> anyhow::Result<()> {
    let app = Router::new().route("/v1/messages", post(answer)).with_state(Arc::new(Answers::new(model)));
    let listener = listener.tap_io(|socket| {
        let _ = socket.set_nodelay(true);
    });
    Ok(axum::serve(listener, app).await?)
}

async fn answer(State(answers): State<Arc<Answers>>, body: Bytes) -> Response {
    let id = format!("msg_{:024}", IDS.fetch_add(1, Ordering::Relaxed));
    // Bodies here are written by the measurement, where the flag is spelled so.
    if !body.ends_with(br#""stream":true}"#) {
        return ([(header::CONTENT_TYPE, "application/json")], answers.whole.replace(ID, &id)).into_response();
    }
    let first = answers.events[0].replace(ID, &id);
    let events = stream::unfold(0, move |at| {
        let event = if at == 0 { Some(&first) } else { answers.events.get(at) };
        let event = event.map(|event| Bytes::copy_from_slice(event.as_bytes()));
        async move {
            // The server writes what it has when nothing more is ready.
            tokio::task::yield_now().await;
            Some((Ok::<_, Infallible>(event?), at + 1))
        }
    });
    ([(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")], Body::from_stream(events)).into_response()
}
