//! A throw-away API on loopback: it answers when it is told to, and remembers how many requests it held at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use tokio::sync::{Semaphore, watch};

/// The API. Paths: `/ok/…` answers at once, `/fail/…` with 500, `/hang/…` never, `/together/N/…` a little after N requests are
/// there at once, `/slow/…` a little later, `/busy/…` with 429 and a wait of one second when it is first asked.
pub struct Api {
    port: u16,
    state: Arc<Held>,
}

#[derive(Default)]
struct Held {
    now: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
    arrived: watch::Sender<usize>,
}

impl Api {
    pub async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Held::default());
        let app = Router::new().route("/{kind}/{*rest}", any(answer)).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { port, state }
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// A `[[tool]]` of this API.
    pub fn tool(&self, name: &str, method: &str, path: &str, more: &str) -> String {
        let input = if path.contains("{id}") { r#"input = { id = { type = "string" } }"# } else { "" };
        let url = self.url(path);
        format!("[[tool]]\nname = \"{name}\"\n{input}\nhttp = {{ method = \"{method}\", url = \"{url}\" }}\n{more}\n\n")
    }

    /// The most requests that were there at once.
    pub fn most(&self) -> usize {
        self.state.most.load(Ordering::SeqCst)
    }

    /// How many requests there were.
    pub fn all(&self) -> usize {
        self.state.all.load(Ordering::SeqCst)
    }

    /// Waits until so many requests have arrived.
    pub async fn until(&self, count: usize) {
        self.state.arrived.subscribe().wait_for(|all| *all >= count).await.unwrap();
    }
}

/// Long enough that waiting for it is worth a word in the closing lines.
const A_LITTLE: std::time::Duration = std::time::Duration::from_millis(20);

async fn answer(State(held): State<Arc<Held>>, Path((kind, rest)): Path<(String, String)>) -> Response {
    let now = held.now.fetch_add(1, Ordering::SeqCst) + 1;
    held.most.fetch_max(now, Ordering::SeqCst);
    let all = held.all.fetch_add(1, Ordering::SeqCst) + 1;
    held.arrived.send_modify(|arrived| *arrived = all.max(*arrived));
    let _leaves = Leaves(Arc::clone(&held));
    match kind.as_str() {
        "fail" => return (StatusCode::INTERNAL_SERVER_ERROR, "it broke").into_response(),
        "busy" if all == 1 => return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response(),
        "hang" => Semaphore::new(0).acquire().await.map_or((), drop),
        "slow" => tokio::time::sleep(A_LITTLE).await,
        "together" => {
            let count: usize = rest.split('/').next().unwrap().parse().unwrap();
            let mut arrived = held.arrived.subscribe();
            let _ = arrived.wait_for(|arrived| *arrived >= count).await;
            tokio::time::sleep(A_LITTLE).await;
        }
        _ => {}
    }
    format!("{{\"path\":\"{rest}\"}}").into_response()
}

/// A request that was given up leaves as well.
struct Leaves(Arc<Held>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}
