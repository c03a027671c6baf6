//! What the runs of one process share: the locks, the permits, and who waits for either.
//!
//! Guards give back what they hold when they are dropped, so nothing is lost by a panic or a cancelled future. Nobody is
//! told anything while the mutex is held: a message that finds no reader drops its guard, which takes the mutex again.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use tokio::sync::mpsc::UnboundedSender;

use super::SchedulerOptions;
use super::attempt::Message;
use crate::call::CallerId;
use crate::effects::Effects;
use crate::graph::Ix;
use crate::limits::{Asker, Permits};
use crate::locks::{Locks, Ticket};

/// The state behind a [`Scheduler`](super::Scheduler).
pub(super) struct Shared {
    pub(super) options: SchedulerOptions,
    state: Mutex<State>,
}

struct State {
    locks: Locks,
    permits: Permits,
    askers: Asker,
    waiting_locks: FxHashMap<Ticket, (UnboundedSender<Message>, Ix)>,
    waiting_permits: FxHashMap<Asker, UnboundedSender<Message>>,
}

impl Shared {
    pub(super) fn new(options: SchedulerOptions) -> Self {
        let state = State {
            locks: Locks::default(),
            permits: Permits::new(options.in_flight_max.max(1)),
            askers: 0,
            waiting_locks: FxHashMap::default(),
            waiting_permits: FxHashMap::default(),
        };
        Self { options, state: Mutex::new(state) }
    }

    /// A new asker for permits: one per batch.
    pub(super) fn asker(&self) -> Asker {
        let mut state = self.state();
        state.askers += 1;
        state.askers
    }

    /// Enters the locks. Answers the place, and whether they are held at once; if not, a message will say so.
    pub(super) fn lock(
        self: &Arc<Self>,
        effects: &Effects,
        tell: &UnboundedSender<Message>,
        call: Ix,
    ) -> (LockGuard, bool) {
        let mut state = self.state();
        let (ticket, held) = state.locks.enter(effects);
        if !held {
            state.waiting_locks.insert(ticket, (tell.clone(), call));
        }
        drop(state);
        (LockGuard { shared: Arc::clone(self), ticket }, held)
    }

    /// Asks for a permit; if there is none now, a message will bring it.
    pub(super) fn permit(
        self: &Arc<Self>,
        caller: &CallerId,
        asker: Asker,
        tell: &UnboundedSender<Message>,
    ) -> Option<PermitGuard> {
        let mut state = self.state();
        if state.permits.ask(caller, asker) {
            return Some(PermitGuard { shared: Arc::clone(self) });
        }
        state.waiting_permits.entry(asker).or_insert_with(|| tell.clone());
        None
    }

    /// Takes back one wish for a permit that was not granted.
    pub(super) fn withdraw(&self, asker: Asker) {
        self.state().permits.withdraw(asker);
    }

    /// Forgets an asker and its `wishes`.
    pub(super) fn forget(&self, asker: Asker, wishes: usize) {
        let mut state = self.state();
        for _ in 0..wishes {
            state.permits.withdraw(asker);
        }
        state.waiting_permits.remove(&asker);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the mutex is held would be our own fault, and leaves nothing half done that the next user relies
        // on: every update below is a single call.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unlock(&self, ticket: Ticket) {
        let mut granted = Vec::new();
        let mut state = self.state();
        state.waiting_locks.remove(&ticket);
        state.locks.leave(ticket, &mut granted);
        let told: Vec<_> = granted.iter().filter_map(|ticket| state.waiting_locks.remove(ticket)).collect();
        drop(state);
        for (tell, call) in told {
            // No reader: its batch is gone, and so is the guard that holds this place.
            let _ = tell.send(Message::Locked(call));
        }
    }

    fn give_back(self: &Arc<Self>) {
        let mut state = self.state();
        let Some(asker) = state.permits.give_back() else { return };
        let tell = state.waiting_permits.get(&asker).cloned();
        drop(state);
        let guard = PermitGuard { shared: Arc::clone(self) };
        if let Some(tell) = tell {
            // No reader: the guard comes back in the error, and its drop passes the permit on.
            let _ = tell.send(Message::Permit(guard));
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}

/// A place in the locks, held or waited for.
pub(super) struct LockGuard {
    shared: Arc<Shared>,
    ticket: Ticket,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.shared.unlock(self.ticket);
    }
}

/// One permit.
pub(super) struct PermitGuard {
    shared: Arc<Shared>,
}

impl Drop for PermitGuard {
    fn drop(&mut self) {
        self.shared.give_back();
    }
}

impl fmt::Debug for PermitGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PermitGuard")
    }
}
