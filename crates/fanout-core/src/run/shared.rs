//! What the runs of one process share: the locks, the permits, and who waits for either.
//!
//! Guards give back what they hold when they are dropped, so nothing is lost by a panic or a cancelled future. Nobody is
//! told anything while the mutex is held: a message that finds no reader drops its guard, which takes the mutex again.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::SchedulerOptions;
use super::alarm::Alarm;
use super::attempt::Message;
use crate::call::{GroupName, ToolName};
use crate::effects::{Effects, Source};
use crate::graph::Ix;
use crate::limits::{
    Asked, Asker, Grant, GroupId, GroupState, LimitOptions, Limits, News, Notice, Reading, Refusal, Signal, Wish,
};
use crate::locks::{Locks, Ticket};
use crate::schedule::{Limit, Schedule, ScheduleOptions};
use crate::tool::{PauseLimit, ToolSpec};

/// The state behind a [`Scheduler`](super::Scheduler).
pub(super) struct Shared {
    stray_hold: Duration,
    /// What the times of [`Limits`] count from.
    epoch: Instant,
    state: Mutex<State>,
    /// The tools that a person has taken out of use, and what is said of each.
    disabled: RwLock<Arc<FxHashMap<ToolName, Arc<str>>>>,
    alarm: Alarm,
    /// Where the jitter of every batch comes from, different in every process.
    seed: RandomState,
}

struct State {
    locks: Locks,
    limits: Limits,
    /// The groups that somebody set up, for those that nobody has asked for yet.
    set_up: BTreeMap<GroupName, LimitOptions>,
    askers: Asker,
    waiting_locks: FxHashMap<Ticket, (UnboundedSender<Message>, Ix)>,
    /// Places whose calls have not come for them yet, and whether they hold their locks.
    reentered: FxHashMap<Ticket, bool>,
    waiting_permits: FxHashMap<Asker, UnboundedSender<Message>>,
}

/// The answer to one wish for a permit.
pub(super) enum Reply {
    Granted(PermitGuard),
    /// Not before so long, of which the group is paused for so much.
    Queued {
        at_least: Duration,
        paused: Duration,
    },
    Refused(Refusal),
}

impl Shared {
    pub(super) fn new(options: SchedulerOptions) -> Self {
        let groups = options.limits.iter().map(|(name, options)| (name.clone(), options.clone()));
        let state = State {
            locks: Locks::default(),
            limits: Limits::new(options.in_flight_max.max(1), groups),
            set_up: options.limits.clone(),
            askers: 0,
            waiting_locks: FxHashMap::default(),
            reentered: FxHashMap::default(),
            waiting_permits: FxHashMap::default(),
        };
        Self {
            epoch: Instant::now(),
            state: Mutex::new(state),
            disabled: RwLock::default(),
            alarm: Alarm::default(),
            seed: RandomState::new(),
            stray_hold: options.stray_hold,
        }
    }

    /// A new asker for permits: one per batch.
    pub(super) fn asker(&self) -> Asker {
        let mut state = self.state();
        state.askers += 1;
        state.askers
    }

    /// The empty schedule of a batch.
    pub(super) fn schedule(&self, asker: Asker) -> Schedule {
        let seed = self.seed.hash_one(asker);
        Schedule::new(ScheduleOptions { stray_hold: self.stray_hold, seed })
    }

    /// The limit group of a tool: the one that it names, else that of its source; `None` if there is neither.
    pub(super) fn limit(&self, tool: &ToolSpec) -> Option<Limit> {
        let unasked = || LimitOptions::unasked(&tool.source);
        let mut state = self.state();
        let limits = &mut state.limits;
        let group = match &tool.policy.limit {
            Some(name) => limits.group(name, || unasked().map_or_else(LimitOptions::default, |(_, options)| options)),
            None => {
                let (name, options) = unasked()?;
                limits.group(&name, || options)
            }
        };
        let options = limits.options(group);
        Some(Limit { group, name: limits.name(group).clone(), wait_max: options.wait_max, retry: options.retry })
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

    /// Enters the locks for a call that comes later: [`Shared::claim`].
    pub(super) fn reenter(self: &Arc<Self>, effects: &Effects) -> LockGuard {
        let mut state = self.state();
        let (ticket, held) = state.locks.enter(effects);
        state.reentered.insert(ticket, held);
        drop(state);
        LockGuard { shared: Arc::clone(self), ticket }
    }

    /// The call has come for its place. Answers whether it holds its locks; if not, a message will say so.
    pub(super) fn claim(&self, place: &LockGuard, tell: &UnboundedSender<Message>, call: Ix) -> bool {
        let mut state = self.state();
        let held = state.reentered.remove(&place.ticket).unwrap_or(false);
        if !held {
            state.waiting_locks.insert(place.ticket, (tell.clone(), call));
        }
        held
    }

    /// Asks for a permit; if there is none now, a message will bring it, or say that none will come.
    pub(super) fn permit(self: &Arc<Self>, wish: Wish<'_>, tell: &UnboundedSender<Message>) -> Reply {
        let (mut told, now) = (Vec::new(), self.now());
        let (group, asker) = (wish.group, wish.asker);
        let mut state = self.state();
        match state.limits.ask(wish, now, &mut told) {
            Asked::Granted(grant) => Reply::Granted(PermitGuard { shared: Arc::clone(self), grant }),
            Asked::Refused(refusal) => Reply::Refused(refusal),
            Asked::Queued { at_least } => {
                state.waiting_permits.entry(asker).or_insert_with(|| tell.clone());
                let paused = state.limits.paused_for(group, now);
                self.settle(state, told);
                Reply::Queued { at_least, paused }
            }
        }
    }

    /// The group of that name, made of these options if there is none.
    pub(super) fn group(&self, name: &GroupName, options: impl FnOnce() -> LimitOptions) -> GroupId {
        self.state().limits.group(name, options)
    }

    /// Takes back one wish for a permit that was not granted.
    pub(super) fn withdraw(self: &Arc<Self>, group: GroupId, asker: Asker) {
        let mut state = self.state();
        state.limits.withdraw(group, asker);
        self.move_up(state);
    }

    /// Forgets an asker and its `wishes`.
    pub(super) fn forget(self: &Arc<Self>, asker: Asker, wishes: &[(GroupId, usize)]) {
        let mut state = self.state();
        for (group, count) in wishes {
            for _ in 0..*count {
                state.limits.withdraw(*group, asker);
            }
        }
        state.waiting_permits.remove(&asker);
        if !wishes.is_empty() {
            self.move_up(state);
        }
    }

    /// Somebody has left a queue: who is behind may be less to wait for.
    fn move_up(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let mut told = Vec::new();
        state.limits.advance(self.now(), &mut told);
        self.settle(state, told);
    }

    /// Whether a failed call of this group may go again, as far as the group's retries go.
    pub(super) fn has_retry(&self, group: GroupId) -> bool {
        let now = self.now();
        self.state().limits.has_retry(group, now)
    }

    /// In how long a call of this group may expect not to wait.
    pub(super) fn come_back(&self, group: GroupId) -> Duration {
        let now = self.now();
        self.state().limits.come_back(group, now)
    }

    /// Sets the groups up otherwise: as `limits` says, and those that it says nothing of any more as if it never had.
    pub(super) fn set_limits(self: &Arc<Self>, limits: BTreeMap<GroupName, LimitOptions>) {
        let (mut told, now) = (Vec::new(), self.now());
        let mut state = self.state();
        let before = std::mem::replace(&mut state.set_up, limits.clone());
        for (name, options) in &limits {
            state.limits.group(name, || options.clone());
        }
        let options = |name: &GroupName| limits.get(name).cloned().or_else(|| before.get(name).map(|_| unasked(name)));
        state.limits.set_options(options, now, &mut told);
        self.settle(state, told);
    }

    /// A person keeps everything from the API of a group for so long, or lets it through again.
    pub(super) fn hold(self: &Arc<Self>, name: &GroupName, wait: Option<Duration>) {
        let (mut told, now) = (Vec::new(), self.now());
        let mut state = self.state();
        let group = match wait {
            Some(_) => Some(state.limits.group(name, || unasked(name))),
            None => state.limits.find(name),
        };
        if let Some(group) = group {
            state.limits.hold(group, wait.map(|wait| now.saturating_add(wait)), now, &mut told);
        }
        self.settle(state, told);
    }

    /// Takes these tools out of use, and no others any longer.
    pub(super) fn disable(&self, tools: FxHashMap<ToolName, Arc<str>>) {
        *self.disabled.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tools);
    }

    /// What is said of a tool that is out of use.
    pub(super) fn disabled(&self, tool: &ToolName) -> Option<Arc<str>> {
        self.disabled.read().unwrap_or_else(PoisonError::into_inner).get(tool).map(Arc::clone)
    }

    /// How every group stands.
    pub(super) fn states(&self) -> Vec<GroupState> {
        let now = self.now();
        self.state().limits.states(now).collect()
    }

    /// Grants what the clock alone allows by now, and answers when it next may.
    pub(super) fn ring(self: &Arc<Self>) -> Option<Instant> {
        let (mut told, now) = (Vec::new(), self.now());
        let mut state = self.state();
        state.limits.advance(now, &mut told);
        let next = state.limits.wake_at();
        self.tell(state, told);
        next.and_then(|at| self.epoch.checked_add(at))
    }

    /// Nobody watches the clock any more: those who wait see to it that somebody does.
    pub(super) fn unwatched(&self) {
        let tells: Vec<_> = self.state().waiting_permits.values().cloned().collect();
        for tell in tells {
            let _ = tell.send(Message::Unwatched);
        }
    }

    /// Sees to it that somebody watches the clock, if anybody waits for it.
    pub(super) fn watch(self: &Arc<Self>) {
        let next = self.state().limits.wake_at();
        if let Some(at) = next.and_then(|at| self.epoch.checked_add(at)) {
            self.alarm.set(self, at);
        }
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the mutex is held would be our own fault, and leaves nothing half done that the next user relies
        // on: every update below is a single call.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those who wait what became of it, and has the clock watched for the rest.
    fn settle(self: &Arc<Self>, state: MutexGuard<'_, State>, told: Vec<Notice>) {
        let next = state.limits.wake_at();
        self.tell(state, told);
        if let Some(at) = next.and_then(|at| self.epoch.checked_add(at)) {
            self.alarm.set(self, at);
        }
    }

    fn tell(self: &Arc<Self>, state: MutexGuard<'_, State>, told: Vec<Notice>) {
        if told.is_empty() {
            return;
        }
        let readers: Vec<_> = told.iter().map(|notice| state.waiting_permits.get(&notice.asker).cloned()).collect();
        drop(state);
        for (Notice { group, news, .. }, reader) in told.into_iter().zip(readers) {
            let message = match news {
                News::Granted(grant) => Message::Permit(PermitGuard { shared: Arc::clone(self), grant }),
                News::Refused(refusal) => Message::Refused { group, refusal },
                News::Paused(wait) => Message::Paused { group, wait },
            };
            // No reader: the guard comes back, and its drop passes the permit on.
            if let Some(tell) = reader {
                let _ = tell.send(message);
            }
        }
    }

    fn unlock(&self, ticket: Ticket) {
        let mut granted = Vec::new();
        let mut state = self.state();
        state.waiting_locks.remove(&ticket);
        state.reentered.remove(&ticket);
        state.locks.leave(ticket, &mut granted);
        for ticket in &granted {
            if let Some(held) = state.reentered.get_mut(ticket) {
                *held = true;
            }
        }
        let told: Vec<_> = granted.iter().filter_map(|ticket| state.waiting_locks.remove(ticket)).collect();
        drop(state);
        for (tell, call) in told {
            // No reader: its batch is gone, and so is the guard that holds this place.
            let _ = tell.send(Message::Locked(call));
        }
    }
}

/// What a group is like that nobody set up.
fn unasked(name: &GroupName) -> LimitOptions {
    LimitOptions::unasked(&Source::from(name.as_str().to_owned()))
        .map_or_else(LimitOptions::default, |(_, options)| options)
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("set_up", &self.state().set_up).finish_non_exhaustive()
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
    grant: Grant,
}

impl PermitGuard {
    /// Of which group it is.
    pub(super) fn group(&self) -> GroupId {
        self.grant.group
    }

    /// Tells the group how the attempt ended, and whether the far side asked everyone to wait. Answers what became of the
    /// group for it.
    pub(super) fn observe(&self, signal: Option<Signal>, wait: Option<Duration>) -> Observed {
        let (mut told, now, group) = (Vec::new(), self.shared.now(), self.grant.group);
        if group == crate::limits::NO_GROUP {
            return Observed::default();
        }
        let mut state = self.shared.state();
        let paused = wait.filter(|wait| state.limits.pause(group, *wait, now, &mut told));
        let opened = signal.is_some_and(|signal| state.limits.observe(self.grant, signal, now, &mut told));
        let opened = opened.then(|| state.limits.options(group).breaker.cool_down);
        self.shared.settle(state, told);
        Observed { paused, opened }
    }

    /// Tells the group what the answer says of the far side's budgets.
    pub(super) fn read(&self, readings: &[Reading]) {
        let (mut told, now) = (Vec::new(), self.shared.now());
        let mut state = self.shared.state();
        state.limits.read(self.grant, readings, now, &mut told);
        self.shared.settle(state, told);
    }

    /// What an attempt is given to tell its group of a wait.
    /// If that is news, the batch of its call is told too.
    pub(super) fn pauser(&self, tell: &UnboundedSender<Message>, call: Ix) -> Option<Arc<dyn PauseLimit>> {
        let group = self.grant.group;
        let shared = Arc::downgrade(&self.shared);
        let pauser = || Arc::new(Pauser { shared, group, tell: tell.clone(), call }) as Arc<dyn PauseLimit>;
        (group != crate::limits::NO_GROUP).then(pauser)
    }
}

/// What became of a group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Observed {
    /// It is paused for so long, as was not known before.
    pub(super) paused: Option<Duration>,
    /// Its breaker opened for so long.
    pub(super) opened: Option<Duration>,
}

struct Pauser {
    shared: Weak<Shared>,
    group: GroupId,
    tell: UnboundedSender<Message>,
    call: Ix,
}

impl PauseLimit for Pauser {
    fn pause(&self, wait: Duration) {
        let Some(shared) = self.shared.upgrade() else { return };
        let (mut told, now) = (Vec::new(), shared.now());
        let mut state = shared.state();
        let is_news = state.limits.pause(self.group, wait, now, &mut told);
        shared.settle(state, told);
        if is_news {
            let _ = self.tell.send(Message::WaitAsked { call: self.call, wait });
        }
    }
}

impl Drop for PermitGuard {
    fn drop(&mut self) {
        let (mut told, now) = (Vec::new(), self.shared.now());
        let mut state = self.shared.state();
        state.limits.give_back(self.grant, now, &mut told);
        self.shared.settle(state, told);
    }
}

impl fmt::Debug for PermitGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PermitGuard")
    }
}
