//! A server on loopback that the tools of `clients/mcp/fanout.toml` ask, with a ledger of what ran beside what.
//!
//! From the gateway, or from `fanout mcp`: requests. To the conversations: the ledger, and moments to wait for (a call is
//! here, its caller is gone), so that nothing is proved by time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The smallest picture there is: one pixel.
const PICTURE: &[u8] = &[
    0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0x0d, b'I', b'H', b'D', b'R', 0, 0, 0, 1, 0, 0, 0, 1, 8,
    0, 0, 0, 0, 0x3a, 0x7e, 0x9b, 0x55, 0, 0, 0, 0x0a, b'I', b'D', b'A', b'T', 0x78, 0x9c, 0x63, 0x60, 0, 0, 0, 2, 0,
    1, 0x48, 0xaf, 0xa4, 0x71, 0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82,
];

/// How long a page is held in hand before it is written back: long enough that calls which were to run at once would meet.
const WRITE_TAKES: Duration = Duration::from_millis(20);

/// What was asked of the tools.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Ledger {
    /// How many ask at this moment.
    running: usize,
    /// The most that asked at one moment.
    running_max: usize,
    /// How many have come to each party.
    parties: BTreeMap<String, usize>,
    /// Those that came to be held.
    held: BTreeSet<String>,
    /// Those that may go.
    released: BTreeSet<String>,
    /// Those whose caller went before they were released.
    gone: BTreeSet<String>,
    /// The lines of each page.
    pages: BTreeMap<String, Vec<String>>,
}

type Shared = Arc<watch::Sender<Ledger>>;

/// The server. Dropping it closes the port.
#[derive(Debug)]
pub struct Tools {
    url: String,
    serving: JoinHandle<io::Result<()>>,
}

impl Tools {
    /// Opens a port and serves on it. Needs a runtime.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared: Shared = Arc::default();
        let router = Router::new()
            .route("/text", get(|| async { "This is a simple text response for testing." }))
            .route("/picture", get(|| async { ([(CONTENT_TYPE, "image/png")], PICTURE) }))
            .route("/failure", get(|| async { (StatusCode::CONFLICT, "This tool intentionally returns an error.") }))
            .route("/echo", any(echo))
            .route("/meet", get(meet))
            .route("/hold", get(hold))
            .route("/append", post(append))
            .route("/ledger", get(async |State(shared): State<Shared>| Json(shared.borrow().clone())))
            .route("/held/{id}", get(until_held))
            .route("/gone/{id}", get(until_gone))
            .route("/release/{id}", post(release))
            .with_state(shared);
        let serving = tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { url, serving })
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One call, for as long as it asks.
struct Running<'a> {
    shared: &'a Shared,
    /// What it is held by, unless it was answered.
    held: Option<String>,
}

impl<'a> Running<'a> {
    fn begin(shared: &'a Shared) -> Self {
        shared.send_modify(|ledger| {
            ledger.running += 1;
            ledger.running_max = ledger.running_max.max(ledger.running);
        });
        Self { shared, held: None }
    }

    async fn until(&self, reached: impl FnMut(&Ledger) -> bool) {
        // The ledger is kept by this very call, so it is never closed.
        let _ = self.shared.subscribe().wait_for(reached).await;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let held = self.held.take();
        self.shared.send_modify(|ledger| {
            ledger.running -= 1;
            ledger.gone.extend(held);
        });
    }
}

#[derive(Deserialize)]
struct Echo {
    text: Option<String>,
}

async fn echo(State(shared): State<Shared>, Query(asked): Query<Echo>) -> impl IntoResponse {
    let _running = Running::begin(&shared);
    Json(serde_json::json!({ "text": asked.text }))
}

#[derive(Deserialize)]
struct Meet {
    party: String,
    size: usize,
}

/// Nobody is answered before all are here: calls that ran one after another would never end.
async fn meet(State(shared): State<Shared>, Query(asked): Query<Meet>) -> Json<Value> {
    let running = Running::begin(&shared);
    shared.send_modify(|ledger| *ledger.parties.entry(asked.party.clone()).or_default() += 1);
    running.until(|ledger| ledger.parties.get(&asked.party).is_some_and(|came| *came >= asked.size)).await;
    Json(serde_json::json!({ "party": asked.party }))
}

#[derive(Deserialize)]
struct Hold {
    id: String,
}

async fn hold(State(shared): State<Shared>, Query(Hold { id }): Query<Hold>) -> Json<Value> {
    let mut running = Running::begin(&shared);
    running.held = Some(id.clone());
    shared.send_modify(|ledger| {
        ledger.held.insert(id.clone());
    });
    running.until(|ledger| ledger.released.contains(&id)).await;
    running.held = None;
    Json(serde_json::json!({ "id": id }))
}

#[derive(Deserialize)]
struct Append {
    page: String,
    line: String,
}

/// Reads the page and writes it back with a line more, and lets others run in between, as an API without transactions does.
async fn append(State(shared): State<Shared>, Json(asked): Json<Append>) -> Json<Value> {
    let _running = Running::begin(&shared);
    let mut lines = shared.borrow().pages.get(&asked.page).cloned().unwrap_or_default();
    tokio::time::sleep(WRITE_TAKES).await;
    lines.push(asked.line);
    let answer = Json(serde_json::json!({ "lines": lines }));
    shared.send_modify(|ledger| {
        ledger.pages.insert(asked.page, lines);
    });
    answer
}

async fn until_held(State(shared): State<Shared>, Path(id): Path<String>) {
    let _ = shared.subscribe().wait_for(|ledger| ledger.held.contains(&id)).await;
}

async fn until_gone(State(shared): State<Shared>, Path(id): Path<String>) {
    let _ = shared.subscribe().wait_for(|ledger| ledger.gone.contains(&id)).await;
}

async fn release(State(shared): State<Shared>, Path(id): Path<String>) {
    shared.send_modify(|ledger| {
        ledger.released.insert(id);
    });
}
