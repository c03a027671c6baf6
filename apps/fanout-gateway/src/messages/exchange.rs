//! One answer on its way to whoever wants it: the client that asked, and those that ask for the same again.
//!
//! From a run: a head, bytes, an end. To any number of [`Listener`]s: all of it from the beginning, whenever they come.
//! To the run again: whether anybody still listens.
//!
//! Nothing here knows what the bytes mean.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, StatusCode};
use tokio::sync::watch;

/// What stands before the bytes.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

/// The answer of one run.
#[derive(Debug)]
pub(crate) struct Exchange {
    state: Mutex<State>,
    /// Counts what was written, so that listeners wake.
    written: watch::Sender<u64>,
    listeners: watch::Sender<usize>,
    /// The model is not asked while nobody listens.
    parked: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    head: Option<Head>,
    pieces: Vec<Bytes>,
    bytes: usize,
    is_done: bool,
    /// Something was written since it was last asked.
    is_lively: bool,
}

impl Exchange {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            written: watch::Sender::new(0),
            listeners: watch::Sender::new(0),
            parked: watch::Sender::new(false),
        })
    }

    /// Whether the head is out, so that nothing can be said by status any more.
    pub(crate) fn has_begun(&self) -> bool {
        self.state().head.is_some()
    }

    /// Sends the head. The first one counts.
    pub(crate) fn begin(&self, head: Head) {
        let mut state = self.state();
        state.head.get_or_insert(head);
        state.is_lively = true;
        drop(state);
        self.wake();
    }

    /// Sends some bytes.
    pub(crate) fn send(&self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        let mut state = self.state();
        state.bytes += piece.len();
        state.pieces.push(piece);
        state.is_lively = true;
        drop(state);
        self.wake();
    }

    /// Nothing more comes.
    pub(crate) fn finish(&self) {
        self.state().is_done = true;
        self.wake();
    }

    /// All of it so far; `None` while there is no head.
    pub(crate) fn so_far(&self) -> Option<(Head, Vec<u8>)> {
        let state = self.state();
        Some((state.head.clone()?, state.pieces.concat()))
    }

    /// How many bytes it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// Whether nothing was written since this was last asked.
    pub(crate) fn was_silent(&self) -> bool {
        !std::mem::take(&mut self.state().is_lively)
    }

    /// Whether nobody listens now.
    pub(crate) fn is_abandoned(&self) -> bool {
        *self.listeners.borrow() == 0
    }

    /// Waits until nobody listens.
    pub(crate) async fn abandoned(&self) {
        // The sender is in `self`, so it cannot be gone.
        let _ = self.listeners.subscribe().wait_for(|listeners| *listeners == 0).await;
    }

    /// Waits until somebody listens.
    pub(crate) async fn joined(&self) {
        let _ = self.listeners.subscribe().wait_for(|listeners| *listeners > 0).await;
    }

    /// Holds the run back before it asks the model, or lets it go on.
    pub(crate) fn park(&self, parked: bool) {
        self.parked.send_replace(parked);
    }

    /// Waits until the run may ask the model.
    pub(crate) async fn unparked(&self) {
        let _ = self.parked.subscribe().wait_for(|parked| !parked).await;
    }

    /// Somebody who gets all of it.
    pub(crate) fn listen(self: &Arc<Self>) -> Listener {
        self.listeners.send_modify(|listeners| *listeners += 1);
        Listener { exchange: Arc::clone(self), next: 0, written: self.written.subscribe() }
    }

    fn wake(&self) {
        self.written.send_modify(|written| *written += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One reader of an answer. While it lives somebody listens.
#[derive(Debug)]
pub(crate) struct Listener {
    exchange: Arc<Exchange>,
    next: usize,
    written: watch::Receiver<u64>,
}

impl Listener {
    /// The answer, once its head is there. Its body is read from the beginning.
    pub(crate) async fn answer(mut self) -> Response {
        let head = loop {
            self.written.mark_unchanged();
            if let Some(head) = self.exchange.state().head.clone() {
                break head;
            }
            self.wait().await;
        };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        *response.body_mut() = match self.whole() {
            Some(bytes) => Body::from(bytes),
            None => Body::from_stream(stream::unfold(self, async |mut listener| {
                let piece = listener.piece().await?;
                Some((Ok::<_, Infallible>(piece), listener))
            })),
        };
        response
    }

    /// The whole body, where it is there already and in one piece: it is sent with its length then.
    fn whole(&self) -> Option<Bytes> {
        let state = self.exchange.state();
        match state.pieces.as_slice() {
            _ if !state.is_done => None,
            [] => Some(Bytes::new()),
            [piece] => Some(piece.clone()),
            _ => None,
        }
    }

    async fn piece(&mut self) -> Option<Bytes> {
        loop {
            self.written.mark_unchanged();
            {
                let state = self.exchange.state();
                if let Some(piece) = state.pieces.get(self.next) {
                    self.next += 1;
                    return Some(piece.clone());
                }
                if state.is_done {
                    return None;
                }
            }
            self.wait().await;
        }
    }

    async fn wait(&mut self) {
        // The sender lives as long as the exchange, which is held here.
        let _ = self.written.changed().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.exchange.listeners.send_modify(|listeners| *listeners = listeners.saturating_sub(1));
    }
}
