//! The scripted Claude on a real loopback socket.
//!
//! From [`ServerOptions`]: what is said, who may ask, how strict the checks are. To any HTTP client.
//! This file opens and closes the door; [`messages`] answers, [`line`] is the socket that can break.

mod line;
mod messages;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::routing::post;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::check::Fidelity;
use crate::conversation::Conversation;
use crate::history::History;
use crate::ledger::{Ledger, Received, Violation};
use crate::listen;
use crate::scenario;
use crate::script::{Script, Turn};
use crate::threads::Threads;

pub use line::RefusedAddress;

type Responder = Arc<dyn Fn(&Conversation) -> Turn + Send + Sync>;

/// How a server behaves. The default reads its scenario from the first user text, asks for no key, compares histories
/// byte for byte, and keeps every body.
#[derive(Clone)]
pub struct ServerOptions {
    listen: SocketAddr,
    responder: Responder,
    key: Option<String>,
    fidelity: Fidelity,
    keep_bodies: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            responder: Arc::new(scenario::turn),
            key: None,
            fidelity: Fidelity::default(),
            keep_bodies: true,
        }
    }
}

impl ServerOptions {
    /// Says what this script says.
    pub fn script(script: Script) -> Self {
        Self::responder(move |conversation| script.turn(conversation))
    }

    /// Says what this closure answers; it is called once per request that passes the checks, also for a repeated attempt.
    pub fn responder(responder: impl Fn(&Conversation) -> Turn + Send + Sync + 'static) -> Self {
        Self { responder: Arc::new(responder), ..Self::default() }
    }

    /// The address to listen on; the default is a free port of 127.0.0.1.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// The key that every request must carry, in `x-api-key` or as a bearer token.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// How exactly histories must come back.
    #[must_use]
    pub fn fidelity(mut self, fidelity: Fidelity) -> Self {
        self.fidelity = fidelity;
        self
    }

    /// Whether [`Server::requests`] keeps what it received; off for long runs under load.
    #[must_use]
    pub fn keep_requests(mut self, keep: bool) -> Self {
        self.keep_bodies = keep;
        self
    }
}

/// A running server. Dropping it stops it: the port closes at once, answers under way are finished.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    state: Arc<Shared>,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server on the runtime of the caller and returns when its port is open.
    ///
    /// # Errors
    /// When there is no runtime here, or the address can't be had.
    pub fn start(options: ServerOptions) -> io::Result<Self> {
        let (runtime, listener) = listen::open(options.listen)?;
        let address = listener.local_addr()?;
        let door = line::Door::new(listener);
        let state = Arc::new(Shared::new(options));
        let app = Router::new()
            .route("/v1/messages", post(messages::create))
            .route("/v1/messages/count_tokens", post(messages::count_tokens))
            .fallback(messages::unknown_path)
            .with_state(Arc::clone(&state))
            .into_make_service_with_connect_info::<line::Line>();
        let (stop, mut stopped) = watch::channel(false);
        let serve = axum::serve(door, app).with_graceful_shutdown(async move {
            // A dropped sender is a stop as well.
            let _ = stopped.wait_for(|stop| *stop).await;
        });
        let task = runtime.spawn(async move {
            // Serving ends with the stop alone; errors of single connections are theirs.
            let _ = serve.await;
        });
        Ok(Self { address, state, stop, task: Some(task) })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What goes into `ANTHROPIC_BASE_URL`: `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far, in order of arrival.
    pub fn requests(&self) -> Vec<Received> {
        self.state.ledger().received.clone()
    }

    /// Every rule broken so far, in order. Faults from a script are not among them.
    pub fn violations(&self) -> Vec<Violation> {
        self.state.ledger().violations.clone()
    }

    /// Stops and returns when the last answer under way is finished.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task.take() {
            // A task that was cancelled with its runtime has stopped as well.
            let _ = task.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// What all requests share. Each lock is held for one step and never across an await.
struct Shared {
    options: ServerOptions,
    begun: Instant,
    ids: AtomicU64,
    ledger: Mutex<Ledger>,
    history: Mutex<History>,
    threads: Arc<Threads>,
    /// Attempts at one turn, by the hash of the messages; only turns with faults are counted.
    attempts: Mutex<HashMap<u64, usize>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    fn new(options: ServerOptions) -> Self {
        Self {
            options,
            begun: Instant::now(),
            ids: AtomicU64::new(1),
            ledger: Mutex::default(),
            history: Mutex::default(),
            threads: Arc::default(),
            attempts: Mutex::default(),
        }
    }

    fn fresh(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of this attempt, from 0.
    fn attempt(&self, messages: u64) -> usize {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = attempts.entry(messages).or_default();
        *count += 1;
        *count - 1
    }
}
