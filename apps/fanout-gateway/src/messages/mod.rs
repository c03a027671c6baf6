//! `POST /v1/messages`, and every other path of the Messages API.
//!
//! From any client of that API, through the door: a request. To the client: one message, as if the model behind the gateway
//! had our tools in itself. To the upstream: what the model must see, and everything that is not ours as it came.
//!
//! In the order of a request: [`create`] reads it, [`repeated`] knows whether it came before, [`run`] answers it, with
//! [`history`] put right by what [`standin`] keeps, [`asking`] the upstream, and [`relay`] telling the client through its
//! [`exchange`]. [`pass`] is for what is not ours.

mod create;
mod pass;

mod earlier;
mod repeated;

mod run;
mod watch;

#[cfg(test)]
mod edited;
mod history;
mod standin;
mod stored;

mod asking;
mod relay;
mod upstream;

mod canonical;
mod exchange;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{any, post};
use fanout_agent::{Cancel, Ledger};
use fanout_core::run::Scheduler;
use fanout_host::approvals::Approvals;
use tokio::sync::watch::Receiver;

use crate::gateway::Tellers;
use crate::keys::Caller;
use crate::setup::Current;
use repeated::Repeated;
use standin::Standins;

pub(crate) use upstream::Upstream;

/// How long a client may wait for a byte while tools run.
const PING_EVERY: Duration = Duration::from_secs(10);

/// How long an ended run can be joined, and how long one that did what cannot be done twice waits for its client.
const JOINABLE: Duration = Duration::from_secs(10 * 60);

/// How long it is kept what a returned message stands for: a person may come back to a chat the next day.
const STANDIN_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Who is told what a run cost: who began it, the model, and US dollars.
pub(crate) type SpentOf = Arc<dyn Fn(&Caller, &str, f64) + Send + Sync>;

/// What these routes are made of.
#[derive(Clone)]
pub(crate) struct MessagesOptions {
    /// The tools that run here, the upstream, and how runs are treated.
    pub(crate) current: Receiver<Arc<Current>>,
    pub(crate) scheduler: Scheduler,
    pub(crate) approvals: Approvals,
    /// Where its runs are told, and kept, with what returned messages stand for.
    pub(crate) tellers: Tellers,
    pub(crate) spent: SpentOf,
    /// What projects and keys spend in a day.
    pub(crate) ledger: Arc<dyn Ledger>,
    /// The longest silence of a stream while tools run.
    pub(crate) ping_every: Duration,
    /// See [`JOINABLE`].
    pub(crate) joinable: Duration,
    /// See [`STANDIN_KEPT`].
    pub(crate) standin_kept: Duration,
    /// No new runs from now on.
    pub(crate) closing: Cancel,
    /// What still runs is stopped.
    pub(crate) stop: Cancel,
}

impl MessagesOptions {
    /// The defaults.
    pub(crate) fn new(
        current: Receiver<Arc<Current>>,
        scheduler: Scheduler,
        approvals: Approvals,
        tellers: Tellers,
        spent: SpentOf,
        ledger: Arc<dyn Ledger>,
    ) -> Self {
        Self {
            current,
            scheduler,
            approvals,
            tellers,
            spent,
            ledger,
            ping_every: PING_EVERY,
            joinable: JOINABLE,
            standin_kept: STANDIN_KEPT,
            closing: Cancel::default(),
            stop: Cancel::default(),
        }
    }
}

/// What all requests share.
pub(crate) struct Messages {
    options: MessagesOptions,
    repeated: Repeated,
    standins: Standins,
}

impl Messages {
    /// Nothing is asked yet.
    pub(crate) fn new(options: MessagesOptions) -> Arc<Self> {
        Arc::new(Self {
            repeated: Repeated::new(options.joinable),
            standins: Standins::new(options.standin_kept, options.tellers.journal.clone()),
            options,
        })
    }

    /// What a request that comes now is answered with.
    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.options.current.borrow())
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").field("current", &self.current()).finish_non_exhaustive()
    }
}

/// Every path below `/v1/`, for behind the door: it puts [`Caller`], [`Hops`](crate::hop::Hops) and
/// [`RequestId`](crate::door::RequestId) into the extensions.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(messages: Arc<Messages>) -> Router<S> {
    Router::new()
        .route("/v1/messages", post(create::create).fallback(pass::pass))
        .route("/v1/messages/count_tokens", post(pass::count_tokens).fallback(pass::pass))
        .route("/v1/{*path}", any(pass::pass))
        .with_state(messages)
}
