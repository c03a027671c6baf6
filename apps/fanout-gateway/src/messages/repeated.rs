//! A request that comes again is one run.
//!
//! From each request: its caller, its `Idempotency-Key`, its body. To it: the run that the same request began, if it has.
//!
//! Only what runs or went well is kept, or what cannot be done twice: a failed run is begun anew by its repetition. This is what
//! is in memory; what only the journal knows is told by [`earlier`](super::earlier).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fanout_core::call::CallerId;
use tokio::time::Instant;

use super::canonical::{self, Digest};
use super::exchange::Exchange;

/// So many bytes of ended answers are kept, in all.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// So many ended answers are kept, in all.
const ENDED_MAX: usize = 10_000;

/// What a request is found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    caller: CallerId,
    by: By,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum By {
    Key(String),
    Body(Digest),
}

/// What a repeated request finds.
pub(crate) enum Found {
    /// The run that it began.
    Run(Arc<Exchange>),
    /// Its key belongs to another body.
    OtherBody,
}

/// The runs that a repeated request can join.
#[derive(Debug)]
pub(crate) struct Repeated {
    state: Mutex<State>,
    keep: Duration,
}

#[derive(Debug, Default)]
struct State {
    runs: HashMap<Ticket, Vec<Known>>,
    /// Those that ended, the oldest first.
    ended: VecDeque<(Instant, Ticket, Arc<Exchange>)>,
    bytes: usize,
}

#[derive(Debug)]
struct Known {
    body: Digest,
    exchange: Arc<Exchange>,
}

impl Ticket {
    /// By the key if the client sent one, else by the body.
    pub(crate) fn new(caller: &CallerId, key: Option<&str>, body: Digest) -> Self {
        let by = key.map_or(By::Body(body), |key| By::Key(key.to_owned()));
        Self { caller: caller.clone(), by }
    }

    /// The same in 32 bytes, for its caller.
    pub(crate) fn digest(&self) -> Digest {
        match &self.by {
            By::Key(key) => canonical::of_bytes(&[b"key", key.as_bytes()]),
            By::Body(body) => canonical::of_bytes(&[b"body", body.to_hex().as_bytes()]),
        }
    }

    pub(crate) fn has_key(&self) -> bool {
        matches!(self.by, By::Key(_))
    }
}

impl Repeated {
    /// Ended runs are kept for so long.
    pub(crate) fn new(keep: Duration) -> Self {
        Self { state: Mutex::default(), keep }
    }

    /// Finds the run of this request, or takes `exchange` for it: in one step, so that two repetitions are one run.
    ///
    /// Without a key two equal requests are two runs, unless one says that it is a repetition. It joins a run whose client is
    /// gone, else the latest.
    pub(crate) fn enter(
        &self,
        ticket: &Ticket,
        body: Digest,
        is_repetition: bool,
        exchange: &Arc<Exchange>,
    ) -> Option<Found> {
        let mut state = self.state();
        state.forget_old(self.keep);
        let known = state.runs.entry(ticket.clone()).or_default();
        if ticket.has_key() && known.first().is_some_and(|known| known.body != body) {
            return Some(Found::OtherBody);
        }
        if is_repetition || ticket.has_key() {
            let lost = known.iter().rev().find(|known| known.exchange.is_abandoned());
            if let Some(known) = lost.or(known.last()) {
                return Some(Found::Run(Arc::clone(&known.exchange)));
            }
        }
        known.push(Known { body, exchange: Arc::clone(exchange) });
        None
    }

    /// The run has ended. It can be joined for a while, or it is forgotten at once.
    pub(crate) fn ended(&self, ticket: &Ticket, exchange: &Arc<Exchange>, is_kept: bool) {
        let mut state = self.state();
        if is_kept {
            state.bytes += exchange.bytes();
            state.ended.push_back((Instant::now(), ticket.clone(), Arc::clone(exchange)));
            state.forget_old(self.keep);
        } else {
            state.forget(ticket, exchange);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget_old(&mut self, keep: Duration) {
        while let Some((at, ..)) = self.ended.front() {
            if at.elapsed() < keep && self.bytes <= BYTES_MAX && self.ended.len() <= ENDED_MAX {
                return;
            }
            if let Some((_, ticket, exchange)) = self.ended.pop_front() {
                self.bytes = self.bytes.saturating_sub(exchange.bytes());
                self.forget(&ticket, &exchange);
            }
        }
    }

    fn forget(&mut self, ticket: &Ticket, exchange: &Arc<Exchange>) {
        if let Some(known) = self.runs.get_mut(ticket) {
            known.retain(|known| !Arc::ptr_eq(&known.exchange, exchange));
            if known.is_empty() {
                self.runs.remove(ticket);
            }
        }
    }
}
