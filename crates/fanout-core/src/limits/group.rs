//! One limit group: its pace, its pressure, its breaker, its pause and its queue.
//!
//! From [`Limits`](super::Limits): what is asked and what was seen. To it: whether and when the next one may start.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::breaker::{Breaker, State};
use super::meter::{Cost, Meter, Reading};
use super::options::LimitOptions;
use super::pressure::Pressure;
use super::queue::FairQueue;
use super::rate::Pace;
use super::{Asker, BreakerState, Grant, GroupId, GroupState, Signal};
use crate::call::{CallerId, GroupName};

/// No pause that a far side asks for is longer: after it one attempt finds out whether it meant that.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// The retries that a group may spend at once.
const RETRIES_MAX: f64 = 10.0;

/// What every attempt that ends well earns: in the long run retries are a tenth of all attempts.
const RETRIES_EARNED: f64 = 0.1;

/// A quiet group earns one retry in so long, however little it does.
const RETRY_EVERY: Duration = Duration::from_secs(10);

/// One sample moves the learned time by one part in so many.
const LEARNING: u32 = 8;

/// A group and its state.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: GroupName,
    pub(super) options: Arc<LimitOptions>,
    pub(super) queue: FairQueue,
    pub(super) breaker: Breaker,
    /// When somebody who waited was last granted something, by a number that only grows.
    pub(super) last_turn: u64,
    running: usize,
    pace: Option<Pace>,
    pressure: Pressure,
    paused_until: Duration,
    meters: Vec<Meter>,
    /// What those who wait will take of the meters.
    wanted: FxHashMap<Asker, Cost>,
    /// What those who run took, in the order in which they started.
    spent: Vec<(u64, Cost)>,
    started: u64,
    retries: f64,
    retries_at: Duration,
    /// How long an attempt takes, learned.
    pub(super) takes: Duration,
}

impl Group {
    pub(super) fn new(name: GroupName, options: LimitOptions) -> Self {
        Self {
            name,
            queue: FairQueue::default(),
            breaker: Breaker::new(options.breaker),
            last_turn: 0,
            running: 0,
            pace: options.rate.map(|rate| Pace::new(rate, options.burst)),
            pressure: match options.ramp {
                Some(from) => Pressure::new(options.concurrency.map(NonZeroU32::get)).ramping(from.get()),
                None => Pressure::new(options.concurrency.map(NonZeroU32::get)),
            },
            paused_until: Duration::ZERO,
            meters: Vec::new(),
            wanted: FxHashMap::default(),
            spent: Vec::new(),
            started: 0,
            retries: RETRIES_MAX,
            retries_at: Duration::ZERO,
            takes: Duration::ZERO,
            options: Arc::new(options),
        }
    }

    /// Set up otherwise from here on. What is known of the far side stays: what started lately, pauses, the breaker, what it
    /// bears; and so do those who wait, also where there is room for fewer now.
    pub(super) fn set_options(&mut self, options: LimitOptions) {
        let pace = options.rate.map(|rate| Pace::new(rate, options.burst));
        self.pace = match (pace, &self.pace) {
            (Some(pace), Some(before)) => Some(pace.follow(before)),
            (pace, _) => pace,
        };
        self.pressure.set_bound(options.concurrency.map(NonZeroU32::get));
        self.breaker.set_options(options.breaker);
        self.options = Arc::new(options);
    }

    /// From when the next one that waits may start, or `None` if not before another one ends.
    pub(super) fn ready_at(&self) -> Option<Duration> {
        let next = self.queue.next().and_then(|asker| self.wanted.get(&asker));
        self.ready_for(next.map_or(&[], |cost| &**cost))
    }

    /// The same for one that takes so much of the meters.
    pub(super) fn ready_for(&self, cost: &[(&'static str, u64)]) -> Option<Duration> {
        let paced = self.pace.as_ref().map_or(Duration::ZERO, Pace::ready_at);
        let metered = self.metered(cost);
        self.pressure.bears(self.running).then(|| paced.max(metered).max(self.paused_until))
    }

    fn metered(&self, cost: &[(&'static str, u64)]) -> Duration {
        let meter = |(name, cost): &(&'static str, u64)| {
            self.meters.iter().find(|meter| meter.name == *name).map(|meter| meter.ready_at(*cost))
        };
        cost.iter().filter_map(meter).max().unwrap_or_default()
    }

    /// One more wants to start, and will take so much.
    pub(super) fn push(&mut self, caller: &CallerId, asker: Asker, cost: Cost) {
        self.queue.push(caller, asker);
        if !cost.is_empty() {
            self.wanted.insert(asker, cost);
        }
    }

    /// Starts the next one that waits.
    pub(super) fn pop(&mut self, group: GroupId, now: Duration) -> Option<(Asker, Grant)> {
        let asker = self.queue.pop()?;
        let cost = self.wanted.remove(&asker).unwrap_or_default();
        Some((asker, self.start(group, cost, now)))
    }

    /// Nobody waits any longer. Answers who did, once for every wish.
    pub(super) fn empty(&mut self) -> Vec<Asker> {
        self.wanted.clear();
        std::iter::from_fn(|| self.queue.pop()).collect()
    }

    /// Takes back one wish of this asker. Answers whether there was one.
    pub(super) fn withdraw(&mut self, asker: Asker) -> bool {
        let had_one = self.queue.remove(asker);
        if had_one {
            // In a half-open group nobody waits but the probe.
            self.breaker.withdrawn();
            self.wanted.remove(&asker);
        }
        had_one
    }

    pub(super) fn start(&mut self, group: GroupId, cost: Cost, now: Duration) -> Grant {
        self.running += 1;
        self.started += 1;
        if let Some(pace) = &mut self.pace {
            pace.take(now);
        }
        for (name, cost) in &cost {
            self.meters.iter_mut().filter(|meter| meter.name == *name).for_each(|meter| meter.spend(*cost, now));
        }
        if !cost.is_empty() {
            self.spent.push((self.started, cost));
        }
        self.breaker.started();
        Grant { group, generation: self.breaker.generation(), number: self.started, at: now }
    }

    /// What the answer to this attempt says of the far side's budgets.
    pub(super) fn read(&mut self, grant: Grant, readings: &[Reading], now: Duration) {
        for reading in readings {
            let later = self.spent.iter().filter(|(number, _)| *number > grant.number);
            let cost =
                |(_, cost): &(u64, Cost)| cost.iter().find(|(name, _)| *name == reading.meter).map(|(_, cost)| *cost);
            let spoken_for = later.filter_map(cost).fold(0, u64::saturating_add);
            let meter = Meter::read(*reading, spoken_for, now);
            match self.meters.iter_mut().find(|meter| meter.name == reading.meter) {
                Some(known) => *known = meter,
                None => self.meters.push(meter),
            }
        }
    }

    /// The attempt is gone.
    pub(super) fn end(&mut self, grant: Grant) {
        self.running = self.running.saturating_sub(1);
        self.spent.retain(|(number, _)| *number != grant.number);
        self.breaker.ended(grant.generation);
    }

    /// How an attempt ended. Answers whether the breaker opened.
    pub(super) fn observe(&mut self, grant: Grant, signal: Signal, now: Duration) -> bool {
        match signal {
            Signal::Answered => {
                let took = now.saturating_sub(grant.at);
                let known = self.takes;
                self.takes = if known.is_zero() { took } else { known - known / LEARNING + took / LEARNING };
                self.pressure.answered(grant.at, self.running, now);
                self.earn(now);
                self.retries = (self.retries + RETRIES_EARNED).min(RETRIES_MAX);
            }
            Signal::Refused | Signal::Overloaded => self.pressure.refused(grant.at, self.running, now),
            Signal::Failed => {}
        }
        let failed = matches!(signal, Signal::Failed | Signal::Overloaded);
        self.breaker.observe(grant.generation, failed, now)
    }

    /// Whether there is a retry left to spend.
    pub(super) fn has_retry(&mut self, now: Duration) -> bool {
        self.earn(now);
        self.retries >= 1.0
    }

    /// May leave less than nothing: what failed at one moment goes again together, and is earned afterwards.
    pub(super) fn spend_retry(&mut self, now: Duration) {
        self.earn(now);
        self.retries -= 1.0;
    }

    fn earn(&mut self, now: Duration) {
        let quiet = now.saturating_sub(self.retries_at);
        self.retries_at = now;
        self.retries = (self.retries + quiet.div_duration_f64(RETRY_EVERY)).min(RETRIES_MAX);
    }

    /// Nothing starts for so long. Answers whether that is later than was known.
    pub(super) fn pause(&mut self, wait: Duration, now: Duration) -> bool {
        let until = now.saturating_add(wait.min(PAUSE_MAX));
        let is_later = until > self.paused_until && until > now;
        self.paused_until = self.paused_until.max(until);
        is_later
    }

    pub(super) fn paused_for(&self, now: Duration) -> Duration {
        self.paused_until.saturating_sub(now)
    }

    /// The least wait of the last wish of this asker.
    pub(super) fn wait_of(&self, asker: Asker, now: Duration) -> Duration {
        let metered = self.wanted.get(&asker).map_or(Duration::ZERO, |cost| self.metered(cost));
        self.paced(|queue| queue.ahead_of(asker), now).max(metered.saturating_sub(now))
    }

    /// The least wait of a wish that so many others precede.
    fn paced(&self, ahead: impl FnOnce(&FairQueue) -> usize, now: Duration) -> Duration {
        let from = self.paused_until.max(now);
        let at = self.pace.as_ref().map_or(from, |pace| pace.ready_after(ahead(&self.queue), from));
        at.saturating_sub(now)
    }

    /// In how long one who asks then may expect not to wait: once all who wait now have had their turn.
    pub(super) fn come_back(&self, now: Duration) -> Duration {
        let waiting = self.queue.len();
        let paced = self.paced(|_| waiting, now);
        let at_once = self.pressure.allowed().unwrap_or(usize::MAX).max(1);
        // While none may start, whoever comes waits for one more to end than those who wait now.
        let others = waiting + usize::from(!self.pressure.bears(self.running));
        let rounds = u32::try_from(others.div_ceil(at_once)).unwrap_or(u32::MAX);
        paced.max(self.paused_for(now).saturating_add(self.takes.saturating_mul(rounds)))
    }

    pub(super) fn state(&self, now: Duration) -> GroupState {
        GroupState {
            name: self.name.clone(),
            waiting: self.queue.len(),
            running: self.running,
            concurrency: self.pressure.allowed(),
            paused_for: self.paused_for(now),
            breaker: match self.breaker.state() {
                State::Closed => BreakerState::Closed,
                State::Open { until } if now < until => BreakerState::Open { for_: until.saturating_sub(now) },
                State::Open { .. } | State::HalfOpen(_) => BreakerState::HalfOpen,
                State::Held { until } if now < until => BreakerState::Held,
                State::Held { .. } => BreakerState::Closed,
            },
        }
    }
}
