//! Permits for what is no call: requests to a model.
//!
//! From the agent loop, before each request. To it: a [`Pass`], in its turn.
//!
//! The same limit groups, kept to by the same rules, as those of calls; only the bound on all calls of the process does not
//! concern them, so that a model that is slow to answer never keeps a call from starting.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::unbounded_channel;
use tokio::time::Instant;

use super::SchedulerOptions;
use super::attempt::Message;
use super::shared::{PermitGuard, Reply, Shared};
use crate::call::{CallerId, GroupName};
use crate::limits::{Asker, Cost, GroupId, GroupState, LimitOptions, Reading, Signal, Wish};

/// Where requests to models wait for their turn. Cloning it copies a pointer.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

/// The right to send one request. Dropping it lets the next one in.
#[derive(Debug)]
pub struct Pass {
    permit: PermitGuard,
}

impl Gate {
    pub(super) fn new() -> Self {
        let options = SchedulerOptions { in_flight_max: usize::MAX, ..SchedulerOptions::default() };
        Self { shared: Arc::new(Shared::new(options)) }
    }

    /// Waits for the turn of one request to this API, callers taking turns and each caller's requests in their order. `cost` is
    /// what it will take of what the API says is left.
    ///
    /// # Errors
    /// How long it would have to wait at least, if that is longer than `patience`: as soon as that is known.
    ///
    /// # Cancellation
    /// Dropping the future gives up the place.
    pub async fn enter(
        &self,
        api: &GroupName,
        caller: &CallerId,
        cost: Cost,
        patience: Duration,
    ) -> Result<Pass, Duration> {
        let (shared, until) = (&self.shared, Instant::now().checked_add(patience));
        let group = shared.group(api, LimitOptions::model);
        let (tell, mut messages) = unbounded_channel();
        let place = Place { shared, group, asker: shared.asker() };
        let too_long =
            |wait: Duration| until.is_some_and(|until| wait > until.saturating_duration_since(Instant::now()));
        loop {
            let wish = Wish { group, caller, asker: place.asker, again: false, cost: cost.clone() };
            match shared.permit(wish, &tell) {
                Reply::Granted(permit) => return Ok(Pass { permit }),
                Reply::Queued { at_least, .. } if too_long(at_least) => return Err(at_least),
                // A model's group is never full and has no breaker; if it were set up otherwise, asking again is all there is.
                Reply::Refused(_) => tokio::time::sleep(REFUSED_WAIT).await,
                Reply::Queued { .. } => loop {
                    match messages.recv().await {
                        Some(Message::Permit(permit)) => return Ok(Pass { permit }),
                        Some(Message::Paused { wait, .. }) if too_long(wait) => return Err(wait),
                        Some(Message::Unwatched) => shared.watch(),
                        Some(Message::Refused { .. }) | None => break,
                        Some(_) => {}
                    }
                },
            }
        }
    }

    pub(super) fn states(&self) -> Vec<GroupState> {
        self.shared.states()
    }
}

/// How long a refused request waits before it asks again.
const REFUSED_WAIT: Duration = Duration::from_secs(1);

impl Pass {
    /// How the request ended, and the wait that the far side asked for: it holds for everyone who shares the API.
    pub fn observe(&self, signal: Option<Signal>, wait: Option<Duration>) {
        self.permit.observe(signal, wait);
    }

    /// What the answer says is left of the API's budgets.
    pub fn read(&self, readings: &[Reading]) {
        self.permit.read(readings);
    }
}

/// A place in the queue, given up when it is dropped.
struct Place<'a> {
    shared: &'a Arc<Shared>,
    group: GroupId,
    asker: Asker,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.forget(self.asker, &[(self.group, 1)]);
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}
