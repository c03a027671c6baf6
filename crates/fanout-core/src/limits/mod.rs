//! Who may start next when not all may.
//!
//! From [`run`](crate::run): what batches ask for, how attempts ended, and the time.
//! To it: whose turn it is, and who need not wait any longer.
//!
//! One limit group stands for one external API. In each group callers take turns, then the runs of each caller; which of
//! a run's calls uses a permit is the run's own affair ([`schedule`](crate::schedule)). Over all groups stands the bound
//! on what runs at once in this process; a permit is one of both, given in one step, so that nobody holds the one while
//! waiting for the other, and a start is counted at the moment when it happens.
//!
//! Pure: no task, no clock. Times are durations since a start that the owner chose, and never go back.

mod breaker;
mod group;
mod meter;
mod options;
mod pressure;
mod queue;
mod rate;

pub use meter::{Cost, Reading};
pub use options::{BreakerOptions, LimitOptions, POOL_CONNECTIONS, Rate};

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::call::{CallerId, GroupName};
use group::Group;

/// Who asks: one batch of one run. Never used twice.
pub type Asker = u64;

/// One limit group, by its place. The first, [`NO_GROUP`], is that of calls without an external API.
pub type GroupId = u32;

/// The group of calls that only the bound on all attempts concerns.
pub const NO_GROUP: GroupId = 0;

/// The budgets of this process.
#[derive(Debug)]
pub struct Limits {
    free: usize,
    groups: Vec<Group>,
    by_name: FxHashMap<GroupName, GroupId>,
    /// The groups in which somebody waits.
    waiting: Vec<GroupId>,
    /// While somebody waits: when each caller was last granted something, by a number that only grows.
    turns: FxHashMap<CallerId, u64>,
    granted: u64,
}

/// The right to run one attempt. It goes back by [`Limits::give_back`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Of which group.
    pub group: GroupId,
    generation: u32,
    number: u64,
    at: Duration,
}

/// What is asked for: one permit.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// Of which group.
    pub group: GroupId,
    /// Who began the run.
    pub caller: &'a CallerId,
    /// Which batch asks.
    pub asker: Asker,
    /// It is for a call that failed before, and uses up one of the group's retries.
    pub again: bool,
    /// What it takes of the group's meters. Of wishes with a cost an asker has one at a time.
    pub cost: Cost,
}

/// The answer to one wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Start now.
    Granted(Grant),
    /// A [`Notice`] will come.
    Queued {
        /// But not before so long, if nobody gives up.
        at_least: Duration,
    },
    /// There is no use in waiting.
    Refused(Refusal),
}

/// Why a wish is not granted and will not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many wait as may.
    Full {
        /// In how long there should be room.
        come_back: Duration,
    },
    /// The API is failing, and nothing is sent to it.
    Open {
        /// In how long somebody finds out whether it still is.
        come_back: Duration,
    },
    /// A person keeps everything from the API.
    Held {
        /// In how long it makes sense to ask again.
        come_back: Duration,
    },
}

/// What somebody who waits is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Who.
    pub asker: Asker,
    /// In which group.
    pub group: GroupId,
    /// What.
    pub news: News,
}

/// What became of waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// One wish is granted.
    Granted(Grant),
    /// One wish will not be.
    Refused(Refusal),
    /// Nothing starts in this group for so long. All wishes stand.
    Paused(Duration),
}

/// How an attempt ended, as far as it says something about the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// It answered; that the answer may be a 4xx says nothing against it.
    Answered,
    /// It did nothing and asks for less: a 429.
    Refused,
    /// It cannot keep up: a 503.
    Overloaded,
    /// It is in trouble: another 5xx, a lost connection, no answer in time.
    Failed,
}

/// One group as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupState {
    /// Its name.
    pub name: GroupName,
    /// How many calls wait for a permit.
    pub waiting: usize,
    /// How many attempts run.
    pub running: usize,
    /// How many may run at once now, as learned; `None` for no bound.
    pub concurrency: Option<usize>,
    /// How long nothing starts.
    pub paused_for: Duration,
    /// Its breaker.
    pub breaker: BreakerState,
}

/// How a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// All is well.
    Closed,
    /// Nothing is sent.
    Open {
        /// For so long.
        for_: Duration,
    },
    /// The next attempt finds out.
    HalfOpen,
    /// A person keeps it open.
    Held,
}

impl Limits {
    /// At most so many attempts at once, and these groups. Further ones come with [`Limits::group`].
    pub fn new(in_flight_max: usize, groups: impl IntoIterator<Item = (GroupName, LimitOptions)>) -> Self {
        let mut limits = Self {
            free: in_flight_max,
            groups: vec![Group::new("".into(), LimitOptions::unbounded())],
            by_name: FxHashMap::default(),
            waiting: Vec::new(),
            turns: FxHashMap::default(),
            granted: 0,
        };
        for (name, options) in groups {
            limits.group(&name, || options);
        }
        limits
    }

    /// The group of that name. One that nobody set up is made of `unasked`.
    pub fn group(&mut self, name: &GroupName, unasked: impl FnOnce() -> LimitOptions) -> GroupId {
        if let Some(group) = self.find(name) {
            return group;
        }
        // More groups than numbers do not fit into any memory.
        let group = GroupId::try_from(self.groups.len()).unwrap_or(NO_GROUP);
        self.groups.push(Group::new(name.clone(), unasked()));
        self.by_name.insert(name.clone(), group);
        group
    }

    /// The group of that name, if there is one by now.
    pub fn find(&self, name: &GroupName) -> Option<GroupId> {
        self.by_name.get(name).copied()
    }

    /// Sets groups up otherwise from here on: each as `options` says of its name, where it says anything. What is known of
    /// the far sides stays. Who may start now that could not before is told.
    pub fn set_options(
        &mut self,
        options: impl Fn(&GroupName) -> Option<LimitOptions>,
        now: Duration,
        told: &mut Vec<Notice>,
    ) {
        for group in self.groups.iter_mut().skip(1) {
            if let Some(options) = options(&group.name).filter(|options| *options != *group.options) {
                group.set_options(options);
            }
        }
        self.advance(now, told);
    }

    /// What the group was set up with.
    pub fn options(&self, group: GroupId) -> &Arc<LimitOptions> {
        &self.groups[group as usize].options
    }

    /// What the group is called.
    pub fn name(&self, group: GroupId) -> &GroupName {
        &self.groups[group as usize].name
    }

    /// Asks for one permit.
    ///
    /// Who is pushed out of a full queue for this, because their caller wants far more, is told.
    pub fn ask(&mut self, wish: Wish<'_>, now: Duration, told: &mut Vec<Notice>) -> Asked {
        let Wish { group, caller, asker, again, cost } = wish;
        let state = &mut self.groups[group as usize];
        if let Err(until) = state.breaker.admit(now) {
            let wait = until.saturating_sub(now);
            return Asked::Refused(match state.breaker.is_held() {
                // Nobody knows when a person changes their mind.
                true => Refusal::Held { come_back: wait.min(state.options.breaker.cool_down) },
                // The probe under way takes as long as any attempt.
                false => Refusal::Open { come_back: wait.max(state.takes) },
            });
        }
        if self.free > 0 && state.queue.is_empty() && state.ready_for(&cost).is_some_and(|at| at <= now) {
            self.free -= 1;
            if again {
                state.spend_retry(now);
            }
            return Asked::Granted(state.start(group, cost, now));
        }
        if state.queue.len() >= state.options.queue_max {
            let refusal = Refusal::Full { come_back: state.come_back(now) };
            let Some(pushed_out) = state.queue.push_out(caller, asker) else {
                state.breaker.withdrawn();
                return Asked::Refused(refusal);
            };
            told.push(Notice { asker: pushed_out, group, news: News::Refused(refusal) });
        }
        if state.queue.is_empty() {
            self.waiting.push(group);
        }
        state.push(caller, asker, cost);
        if again {
            state.spend_retry(now);
        }
        Asked::Queued { at_least: state.wait_of(asker, now) }
    }

    /// Takes back one wish of this asker that is not granted. Without one, nothing happens.
    pub fn withdraw(&mut self, group: GroupId, asker: Asker) {
        let state = &mut self.groups[group as usize];
        if state.withdraw(asker) {
            self.forget_idle();
        }
    }

    /// An attempt is gone: whoever is next may start.
    pub fn give_back(&mut self, grant: Grant, now: Duration, told: &mut Vec<Notice>) {
        self.free += 1;
        self.groups[grant.group as usize].end(grant);
        self.advance(now, told);
    }

    /// An attempt ended so. To be said before its permit is given back. A breaker that opens ends all waiting in its group.
    ///
    /// Answers whether the breaker opened.
    pub fn observe(&mut self, grant: Grant, signal: Signal, now: Duration, told: &mut Vec<Notice>) -> bool {
        let state = &mut self.groups[grant.group as usize];
        let has_opened = grant.group != NO_GROUP && state.observe(grant, signal, now);
        if has_opened {
            let come_back = state.options.breaker.cool_down;
            self.send_away(grant.group, Refusal::Open { come_back }, told);
        }
        // A bound that has risen may let somebody start.
        self.advance(now, told);
        has_opened
    }

    /// A person keeps everything from the API of this group until then, or lets it through again: then it counts anew from
    /// nothing. Who waits while it is kept away is told that there is no use in it.
    pub fn hold(&mut self, group: GroupId, until: Option<Duration>, now: Duration, told: &mut Vec<Notice>) {
        let state = &mut self.groups[group as usize];
        if group == NO_GROUP {
            return;
        }
        match until.filter(|until| *until > now) {
            Some(until) => {
                state.breaker.hold(until);
                let come_back = until.saturating_sub(now).min(state.options.breaker.cool_down);
                self.send_away(group, Refusal::Held { come_back }, told);
            }
            None => state.breaker.close(),
        }
        self.advance(now, told);
    }

    /// All who wait in this group are told that there is no use in it.
    fn send_away(&mut self, group: GroupId, refusal: Refusal, told: &mut Vec<Notice>) {
        let notice = |asker| Notice { asker, group, news: News::Refused(refusal) };
        told.extend(self.groups[group as usize].empty().into_iter().map(notice));
        self.forget_idle();
    }

    /// What the answer to an attempt says of the far side's budgets.
    pub fn read(&mut self, grant: Grant, readings: &[Reading], now: Duration, told: &mut Vec<Notice>) {
        self.groups[grant.group as usize].read(grant, readings, now);
        self.advance(now, told);
    }

    /// Whether a failed call of this group may go again, as far as the group's retries go. They are used up by
    /// [`Limits::ask`].
    pub fn has_retry(&mut self, group: GroupId, now: Duration) -> bool {
        group == NO_GROUP || self.groups[group as usize].has_retry(now)
    }

    /// The API asked everyone to wait for so long. Answers whether that is news; then all who wait are told.
    pub fn pause(&mut self, group: GroupId, wait: Duration, now: Duration, told: &mut Vec<Notice>) -> bool {
        let state = &mut self.groups[group as usize];
        if group == NO_GROUP || !state.pause(wait, now) {
            return false;
        }
        let wait = state.paused_for(now);
        told.extend(state.queue.askers().map(|asker| Notice { asker, group, news: News::Paused(wait) }));
        true
    }

    /// For how long nothing starts in this group because the API asked for it.
    pub fn paused_for(&self, group: GroupId, now: Duration) -> Duration {
        self.groups[group as usize].paused_for(now)
    }

    /// Grants what may be granted by now.
    pub fn advance(&mut self, now: Duration, told: &mut Vec<Notice>) {
        while self.free > 0 && !self.waiting.is_empty() {
            let groups = &self.groups;
            let is_ready = |group: &GroupId| groups[*group as usize].ready_at().is_some_and(|at| at <= now);
            let last_turn = |group: &GroupId| {
                let state = &groups[*group as usize];
                let of_caller = state.queue.head().and_then(|caller| self.turns.get(caller)).copied().unwrap_or(0);
                (of_caller, state.last_turn)
            };
            let Some(group) = self.waiting.iter().copied().filter(is_ready).min_by_key(last_turn) else { return };
            let state = &mut self.groups[group as usize];
            let caller = state.queue.head().cloned();
            let Some(((asker, grant), caller)) = state.pop(group, now).zip(caller) else { return };
            self.free -= 1;
            self.granted += 1;
            self.turns.insert(caller, self.granted);
            state.last_turn = self.granted;
            told.push(Notice { asker, group, news: News::Granted(grant) });
            self.forget_idle();
        }
    }

    /// When [`Limits::advance`] has something to do, if nothing else happens before.
    pub fn wake_at(&self) -> Option<Duration> {
        let next = self.waiting.iter().filter_map(|group| self.groups[*group as usize].ready_at()).min();
        next.filter(|_| self.free > 0)
    }

    /// In how long a call of this group may expect not to wait.
    pub fn come_back(&self, group: GroupId, now: Duration) -> Duration {
        self.groups[group as usize].come_back(now)
    }

    /// How every group stands, in the order in which they were made.
    pub fn states(&self, now: Duration) -> impl Iterator<Item = GroupState> {
        self.groups[1..].iter().map(move |group| group.state(now))
    }

    /// How many calls wait for the bound on all attempts alone, and how many attempts may still start.
    pub fn in_flight(&self) -> (usize, usize) {
        (self.groups[NO_GROUP as usize].queue.len(), self.free)
    }

    fn forget_idle(&mut self) {
        let groups = &self.groups;
        self.waiting.retain(|group| !groups[*group as usize].queue.is_empty());
        if self.waiting.is_empty() {
            self.turns.clear();
        }
    }
}

#[cfg(test)]
mod tests;
