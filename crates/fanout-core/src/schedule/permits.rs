//! Calls that hold their locks and want a permit of their limit group.
//!
//! From the driver: permits, and why there will be none. To the calls that they are best used for, or that need not wait
//! any longer.

use std::time::Duration;

use super::terms::{Step, Treatment};
use super::{Failed, Item, Phase, Schedule};
use crate::graph::Ix;
use crate::limits::{GroupId, Refusal};
use crate::outcome::{CallError, ErrorCode};
use crate::retry::{self, Again};

impl Schedule {
    /// A permit of this group is there. Starts the call that it is best used for; answers `false` if nobody wants it any
    /// more. A call whose deadline has passed by now ends here, unsent: to start and stop it at one moment could still send
    /// it.
    pub fn permitted(&mut self, group: GroupId, now: Duration) -> bool {
        while self.ready.len(group) > 0 {
            let Some(call) = self.best(group) else { return false };
            if self.items[call].deadline_at <= now {
                self.time_over(call, now);
                continue;
            }
            self.ready.left(group);
            self.start(call, now);
            return true;
        }
        false
    }

    /// A permit of this group will not come for at least so long. Whoever it was for and cannot wait that long ends now.
    pub fn delayed(&mut self, group: GroupId, at_least: Duration, now: Duration) {
        if at_least <= self.ready.patience(group) {
            return;
        }
        // The last wish is for the call that would be the last to start.
        if let Some(call) = self.worst(group).filter(|call| self.gives_up(*call) < now.saturating_add(at_least)) {
            let why = format!("it would not come within {}", self.patience_of(call));
            self.end(call, self.rate_limited(call, &why, None), now);
        }
    }

    /// Nothing starts in this group for so long. Those who cannot wait that long end now.
    pub fn paused(&mut self, group: GroupId, wait: Duration, now: Duration) {
        let until = now.saturating_add(wait);
        let mut short: Vec<Ix> = self.queued(group).filter(|call| self.gives_up(*call) < until).collect();
        short.sort_unstable();
        for call in short {
            let why =
                format!("the API asked everyone to wait for longer than what is left of {}", self.patience_of(call));
            self.end(call, self.rate_limited(call, &why, None), now);
        }
    }

    /// One wish for a permit of this group will not be granted. The others stand: with an open breaker each of them is
    /// refused by itself, but for the one that may wait to find out whether the API is well again.
    pub fn refused(&mut self, group: GroupId, refusal: Refusal, now: Duration) {
        let Some(call) = self.worst(group) else { return };
        let error = match refusal {
            Refusal::Full { come_back } => self.rate_limited(call, "the queue is full", Some(come_back)),
            Refusal::Open { come_back } => {
                self.circuit_open(call, "is failing and is left alone for a while", come_back)
            }
            Refusal::Held { come_back } => self.circuit_open(call, "was taken out of use by a person", come_back),
        };
        self.end_unasked(call, error, now);
    }

    /// Asks for a permit for a call that holds its locks. One that runs calls itself needs none.
    pub(super) fn queue(&mut self, call: Ix, now: Duration) {
        if self.nested(call) {
            self.start(call, now);
            return;
        }
        let item = &mut self.items[call];
        item.phase = Phase::Queued;
        let limit = &item.treatment.limit;
        let spends = |failed: &Failed| retry::again(&failed.error, item.treatment.resumable) == Again::Spend;
        let (group, again) = (limit.group, item.failed.as_deref().is_some_and(spends));
        let at = now.saturating_add(limit.wait_max).min(item.deadline_at);
        self.ready.push(group, call, at.saturating_sub(now));
        if self.items[call].timer != Some(at) {
            self.set_timer(call, at);
        }
        self.steps.push_back(Step::Permit { group, again });
    }

    pub(super) fn best(&mut self, group: GroupId) -> Option<Ix> {
        let Self { ready, graph, items, .. } = self;
        let is_queued = |call: Ix| items[call].phase == Phase::Queued;
        ready.best(group, is_queued, || graph.remaining(|call| items[call].treatment.expected))
    }

    pub(super) fn worst(&mut self, group: GroupId) -> Option<Ix> {
        let Self { ready, graph, items, .. } = self;
        let is_queued = |call: Ix| items[call].phase == Phase::Queued;
        ready.worst(group, is_queued, || graph.remaining(|call| items[call].treatment.expected))
    }

    pub(super) fn queued(&self, group: GroupId) -> impl Iterator<Item = Ix> {
        self.ready.all(group).filter(|call| self.items[*call].phase == Phase::Queued)
    }

    /// When a call that waits for a permit will give up: that is its timer.
    pub(super) fn gives_up(&self, call: Ix) -> Duration {
        self.items[call].timer.unwrap_or(Duration::MAX)
    }

    pub(super) fn rate_limited(&self, call: Ix, why: &str, come_back: Option<Duration>) -> CallError {
        let Item { treatment: Treatment { terms, limit, .. }, failed, .. } = &self.items[call];
        // What went before may have been carried out, if it was repeatable.
        let so_far = failed.as_ref().map_or_else(
            || "nothing was carried out".to_owned(),
            |failed| format!("the last attempt failed ({})", failed.error),
        );
        let message = format!(
            "`{}` has to wait for its turn at `{}`, and {why}; {so_far}, so it can be tried again later",
            terms.tool, limit.name
        );
        CallError { retry_after: come_back, ..CallError::new(ErrorCode::RateLimited, message) }
    }

    /// How long this call waits for its turn at most, in words.
    pub(super) fn patience_of(&self, call: Ix) -> String {
        let Treatment { terms, limit, .. } = &self.items[call].treatment;
        let (bound, what) =
            if limit.wait_max <= terms.deadline { (limit.wait_max, "max_wait") } else { (terms.deadline, "deadline") };
        format!("its {what} of {bound:?}")
    }

    pub(super) fn circuit_open(&self, call: Ix, why: &str, come_back: Duration) -> CallError {
        let Item { treatment: Treatment { terms, limit, .. }, failed, .. } = &self.items[call];
        let so_far = failed.as_ref().map_or_else(
            || "was not sent".to_owned(),
            |failed| format!("was not sent again (the last error: {})", failed.error),
        );
        let message =
            format!("`{}` {why}, so `{}` {so_far}; try again later or go on without it", limit.name, terms.tool);
        CallError { retry_after: Some(come_back), ..CallError::new(ErrorCode::CircuitOpen, message) }
    }
}
