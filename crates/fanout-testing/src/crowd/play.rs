//! Plays a crowd: the core's driver over its limits written a second time, where [`stage`](crate::stage) is the one over its
//! graph: there every call has one attempt and no API.
//!
//! From [`Member`]s and [`Group`]s. To a [`Log`]. Messages take no time, but those of one moment arrive in random order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use fanout_core::call::CallerId;
use fanout_core::limits::{
    Asked, Cost, Grant, GroupId, GroupState, LimitOptions, Limits, NO_GROUP, News, Notice, Refusal, Wish,
};
use fanout_core::locks::{Locks, Ticket};
use fanout_core::outcome::{CallError, ErrorCode, Output};
use fanout_core::retry;
use fanout_core::schedule::{Limit, Schedule, ScheduleOptions, Step, Terms, Treatment};
use fanout_core::tool::ToolError;

use super::{Answer, Group, Id, Log, Member, Played, Seen, Try, Wanted};
use crate::api::{Api, Reply};
use crate::seed::Rng;
use crate::touches::{Touch, Touches};

#[derive(Debug)]
enum Happens {
    Arrive(Id),
    Withdraw(Id),
    Cancel(usize),
    Locked(Id),
    Permit(usize, Grant),
    Refused(usize, GroupId, Refusal),
    Paused(usize, GroupId, Duration),
    Ended(Id, usize),
    Gone(Id, usize),
    Wake(usize),
    Alarm,
}

struct Batch {
    schedule: Schedule,
    caller: CallerId,
    wishes: BTreeMap<GroupId, usize>,
    spare: Vec<Grant>,
    wakes: Option<Duration>,
    arrived: usize,
    cancelled: bool,
}

/// What a call holds.
#[derive(Default)]
struct Work {
    ticket: Option<Ticket>,
    permit: Option<Grant>,
    stopped: bool,
    is_gone: bool,
    answered: bool,
}

struct Crowd<'c> {
    members: &'c [Member],
    rng: Rng,
    now: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    what: Vec<Option<Happens>>,
    locks: Locks,
    limits: Limits,
    treated: Vec<Arc<Limit>>,
    unlimited: Arc<Limit>,
    tickets: BTreeMap<Ticket, Id>,
    batches: Vec<Batch>,
    works: BTreeMap<Id, Work>,
    alarm: Option<Duration>,
    log: Log,
}

/// Plays all members to their end, with at most `in_flight_max` attempts at once. The seed decides the jitter, what the
/// APIs answer, and what comes first of what happens at one moment.
///
/// # Panics
/// When an attempt starts without a permit.
pub fn play(groups: &[Group], members: &[Member], in_flight_max: usize, stray_hold: Duration, seed: u64) -> Log {
    let named = groups.iter().enumerate().map(|(at, group)| (format!("api{at}").into(), group.options.clone()));
    let mut limits = Limits::new(in_flight_max, named);
    let limit = |(at, group): (usize, &Group)| {
        let (name, options) = (format!("api{at}").into(), &group.options);
        let id = limits.group(&name, LimitOptions::default);
        Arc::new(Limit { group: id, name, wait_max: options.wait_max, retry: options.retry })
    };
    let treated = groups.iter().enumerate().map(limit).collect();
    let batch = |(at, member): (usize, &Member)| Batch {
        schedule: Schedule::new(ScheduleOptions { stray_hold, seed: seed ^ at as u64 }),
        caller: member.caller.as_str().into(),
        wishes: BTreeMap::new(),
        spare: Vec::new(),
        wakes: None,
        arrived: 0,
        cancelled: false,
    };
    let mut crowd = Crowd {
        members,
        rng: Rng::new(seed),
        now: Duration::ZERO,
        queue: BinaryHeap::new(),
        what: Vec::new(),
        locks: Locks::default(),
        limits,
        treated,
        unlimited: Arc::new(Limit::none()),
        tickets: BTreeMap::new(),
        batches: members.iter().enumerate().map(batch).collect(),
        works: BTreeMap::new(),
        alarm: None,
        log: Log {
            seen: groups.iter().map(|_| Vec::new()).collect(),
            learned: groups.iter().map(|_| Vec::new()).collect(),
            apis: groups.iter().map(|group| Api::new(group.rules.clone())).collect(),
            ..Log::default()
        },
    };
    crowd.begin();
    while let Some(Reverse((at, _, what))) = crowd.queue.pop() {
        crowd.now = at;
        if let Some(what) = crowd.what[what].take() {
            crowd.happen(what);
        }
        crowd.watch();
    }
    let (waiting, free) = crowd.limits.in_flight();
    let left = |state: GroupState| state.waiting + state.running;
    let groups: usize = crowd.limits.states(crowd.now).map(left).sum();
    crowd.log.leaked = crowd.locks.len() + waiting + (in_flight_max - free) + groups;
    crowd.log.ended = crowd.now;
    crowd.log
}

impl Crowd<'_> {
    fn begin(&mut self) {
        let now = self.now;
        for (run, member) in self.members.iter().enumerate() {
            self.batches[run].schedule.commit(now);
            for (at, call) in member.calls.iter().enumerate() {
                self.later(call.arrives, Happens::Arrive((run, at)));
                if let Some(withdrawn) = call.withdrawn {
                    self.later(withdrawn, Happens::Withdraw((run, at)));
                }
            }
            if let Some(cancels) = member.cancels {
                self.later(cancels, Happens::Cancel(run));
            }
        }
    }

    fn later(&mut self, at: Duration, what: Happens) {
        let tie = self.rng.bits();
        self.queue.push(Reverse((at.max(self.now), tie, self.what.len())));
        self.what.push(Some(what));
    }

    /// The one alarm of all groups, and what they have learned by now.
    fn watch(&mut self) {
        if let Some(at) = self.limits.wake_at()
            && self.alarm.is_none_or(|set| at < set)
        {
            self.alarm = Some(at);
            self.later(at, Happens::Alarm);
        }
        for (state, learned) in self.limits.states(self.now).zip(&mut self.log.learned) {
            if learned.last().is_none_or(|(_, last)| *last != state.concurrency) {
                learned.push((self.now, state.concurrency));
            }
        }
    }

    fn happen(&mut self, what: Happens) {
        match what {
            // Whichever of several arrivals of one moment is first: calls come in program order.
            Happens::Arrive((run, _)) => self.arrive(run),
            Happens::Withdraw(call) => self.drive(call.0, |batch, now| {
                if call.1 < batch.arrived {
                    batch.schedule.cancel_call(call.1, "not wanted any more", now);
                }
            }),
            Happens::Cancel(run) => self.drive(run, |batch, now| {
                batch.cancelled = true;
                batch.schedule.cancel("the run was stopped", now);
            }),
            Happens::Locked(call) => self.locked(call),
            Happens::Permit(run, grant) => {
                self.wish_is_over(run, grant.group);
                self.permitted(run, grant);
                self.drive(run, |_, _| ());
            }
            Happens::Refused(run, group, refusal) => {
                self.wish_is_over(run, group);
                self.drive(run, |batch, now| batch.schedule.refused(group, refusal, now));
            }
            Happens::Paused(run, group, wait) => {
                self.drive(run, |batch, now| batch.schedule.paused(group, wait, now));
            }
            Happens::Ended(call, number) => self.ended(call, number),
            Happens::Gone(call, number) => {
                self.gone(call, number);
                self.drive(call.0, |_, _| ());
            }
            Happens::Wake(run) => {
                self.batches[run].wakes = None;
                self.drive(run, |_, _| ());
            }
            Happens::Alarm => {
                self.alarm = None;
                let mut told = Vec::new();
                self.limits.advance(self.now, &mut told);
                self.tell(told);
            }
        }
    }

    fn tell(&mut self, told: Vec<Notice>) {
        for Notice { asker, group, news } in told {
            let run = usize::try_from(asker).unwrap_or_default();
            let what = match news {
                News::Granted(grant) => Happens::Permit(run, grant),
                News::Refused(refusal) => Happens::Refused(run, group, refusal),
                News::Paused(wait) => Happens::Paused(run, group, wait),
            };
            self.later(self.now, what);
        }
    }

    fn drive(&mut self, run: usize, tell: impl FnOnce(&mut Batch, Duration)) {
        let now = self.now;
        let batch = &mut self.batches[run];
        tell(batch, now);
        batch.schedule.advance(now);
        while let Some(step) = self.batches[run].schedule.next_step() {
            self.step(run, step);
        }
        let batch = &mut self.batches[run];
        if let Some(at) = batch.schedule.wake_at()
            && batch.wakes.is_none_or(|set| at < set)
        {
            batch.wakes = Some(at);
            self.later(at, Happens::Wake(run));
        }
    }

    fn arrive(&mut self, run: usize) {
        let (now, at) = (self.now, self.batches[run].arrived);
        let wanted = &self.members[run].calls[at];
        let limit = wanted.group.map_or_else(|| Arc::clone(&self.unlimited), |group| Arc::clone(&self.treated[group]));
        let touches = touches(wanted);
        self.log.calls.insert((run, at), Played::default());
        self.drive(run, |batch, _| {
            batch.arrived += 1;
            let (id, tool) = (format!("c{at}").into(), "tool".into());
            if batch.cancelled {
                batch.schedule.refuse(None, id, tool, CallError::new(ErrorCode::Cancelled, "the run was stopped"));
                return;
            }
            let terms = Terms {
                tool,
                timeout: wanted.timeout,
                deadline: wanted.deadline,
                repeatable: wanted.repeatable,
                nested: false,
            };
            let expected = Duration::from_millis(200);
            let (terms, resumable) = (Arc::new(terms), wanted.repeatable);
            let treatment =
                Treatment { call: id, terms, limit, early: false, resumable, in_doubt: false, asks: false, expected };
            batch.schedule.arrive(treatment, touches.effects(), true, Vec::new(), now);
        });
    }

    fn locked(&mut self, call: Id) {
        self.log.calls.entry(call).or_default().held = Some(self.now);
        self.drive(call.0, |batch, now| batch.schedule.locked(call.1, now));
    }

    fn step(&mut self, run: usize, step: Step) {
        let now = self.now;
        match step {
            Step::Prepare(_) | Step::Gather(_) | Step::Ask(_) => {}
            Step::Lock(ix) => {
                let (ticket, held) = self.locks.enter(self.batches[run].schedule.effects(ix));
                self.tickets.insert(ticket, (run, ix));
                self.works.insert((run, ix), Work { ticket: Some(ticket), is_gone: true, ..Work::default() });
                let played = self.log.calls.entry((run, ix)).or_default();
                played.entered = Some(now);
                if held {
                    played.held = Some(now);
                    self.batches[run].schedule.locked(ix, now);
                }
            }
            Step::Permit { group, again } => self.ask(run, group, again),
            Step::WithdrawPermit(group) => {
                if self.wish_is_over(run, group) {
                    self.limits.withdraw(group, run as u64);
                }
            }
            Step::Start { call, .. } => self.start(run, call),
            Step::TimedOut(ix) => self.timed_out((run, ix)),
            Step::Stop(ix) => {
                let number = self.log.calls[&(run, ix)].tries.len() - 1;
                if let Some(work) = self.works.get_mut(&(run, ix)).filter(|work| !work.stopped && !work.is_gone) {
                    work.stopped = true;
                    self.end_try((run, ix), number);
                    let lingers = self.members[run].calls[ix].lingers;
                    self.later(now + lingers, Happens::Gone((run, ix), number));
                }
            }
            Step::Backoff { call, wait } => {
                self.log.calls.entry((run, call)).or_default().backoffs.push((now, wait));
            }
            Step::GiveUp(ix) => self.release((run, ix), true),
            Step::Answer(ix, result) => self.answer((run, ix), result),
        }
    }

    fn ask(&mut self, run: usize, group: GroupId, again: bool) {
        let (now, mut told) = (self.now, Vec::new());
        let caller = &self.batches[run].caller;
        let wish = Wish { group, caller, asker: run as u64, again, cost: Cost::new() };
        let asked = self.limits.ask(wish, now, &mut told);
        self.tell(told);
        let batch = &mut self.batches[run];
        match asked {
            Asked::Granted(grant) => self.permitted(run, grant),
            Asked::Queued { at_least } => {
                *batch.wishes.entry(group).or_default() += 1;
                let paused = self.limits.paused_for(group, now);
                if !paused.is_zero() {
                    batch.schedule.paused(group, paused, now);
                }
                batch.schedule.delayed(group, at_least, now);
            }
            Asked::Refused(refusal) => batch.schedule.refused(group, refusal, now),
        }
    }

    /// Answers whether there was a wish.
    fn wish_is_over(&mut self, run: usize, group: GroupId) -> bool {
        let count = self.batches[run].wishes.entry(group).or_default();
        let there_was = *count > 0;
        *count = count.saturating_sub(1);
        there_was
    }

    fn permitted(&mut self, run: usize, grant: Grant) {
        let batch = &mut self.batches[run];
        if batch.schedule.permitted(grant.group, self.now) {
            batch.spare.push(grant);
        } else {
            self.give_back(grant);
        }
    }

    fn give_back(&mut self, grant: Grant) {
        let mut told = Vec::new();
        self.limits.give_back(grant, self.now, &mut told);
        self.tell(told);
    }

    fn start(&mut self, run: usize, ix: usize) {
        let (now, wanted) = (self.now, &self.members[run].calls[ix]);
        let group = wanted.group.map_or(NO_GROUP, |group| self.treated[group].group);
        let spare = &mut self.batches[run].spare;
        let grant = spare.iter().position(|grant| grant.group == group).map(|at| spare.swap_remove(at));
        let grant = grant.unwrap_or_else(|| panic!("call {ix} of run {run} starts without a permit"));
        let work = self.works.entry((run, ix)).or_default();
        assert!(work.is_gone, "call {ix} of run {run} starts beside its last attempt");
        (work.permit, work.stopped, work.is_gone) = (Some(grant), false, false);
        let (takes, reply) = match wanted.group {
            Some(group) => self.log.apis[group].arrives(now, &mut self.rng),
            None => (Duration::from_millis(1), Reply::Well),
        };
        let tries = &mut self.log.calls.entry((run, ix)).or_default().tries;
        let number = tries.len();
        tries.push(Try { started: now, reply, heard: false, ended: None, released: None, gone: None });
        self.see((run, ix), Seen::Started((run, ix), number));
        if reply != Reply::Silence {
            self.later(now + takes, Happens::Ended((run, ix), number));
        }
    }

    fn see(&mut self, call: Id, seen: Seen) {
        if let Some(group) = self.members[call.0].calls[call.1].group {
            self.log.seen[group].push((self.now, seen));
        }
    }

    /// An attempt is over on the far side.
    fn end_try(&mut self, call: Id, number: usize) {
        let group = self.members[call.0].calls[call.1].group;
        if let Some(attempt) = self.log.calls.get_mut(&call).and_then(|played| played.tries.get_mut(number))
            && attempt.ended.replace(self.now).is_none()
            && let Some(group) = group
        {
            self.log.apis[group].leaves();
        }
    }

    fn ended(&mut self, call: Id, number: usize) {
        let is_this = self.log.calls[&call].tries.len() == number + 1;
        let Some(work) = self.works.get(&call).filter(|work| is_this && !work.stopped) else { return };
        let (permit, reply) = (work.permit, self.log.calls[&call].tries[number].reply);
        self.end_try(call, number);
        if let Some(attempt) = self.log.calls.get_mut(&call).and_then(|played| played.tries.get_mut(number)) {
            attempt.heard = true;
        }
        let result = result_of(reply);
        let error = result.as_ref().err().cloned();
        self.observe(call, number, permit, error.as_ref());
        let (now, wanted) = (self.now, &self.members[call.0].calls[call.1]);
        let group = wanted.group.map_or(NO_GROUP, |group| self.treated[group].group);
        let has_retry = error.is_none() || self.limits.has_retry(group, now);
        self.batches[call.0].schedule.ended(call.1, result, has_retry, now);
        if wanted.lingers.is_zero() {
            self.gone(call, number);
        } else {
            self.batches[call.0].schedule.linger(call.1, now);
            self.later(now + wanted.lingers, Happens::Gone(call, number));
        }
        self.drive(call.0, |_, _| ());
    }

    fn timed_out(&mut self, call: Id) {
        let number = self.log.calls[&call].tries.len() - 1;
        let permit = self.works.get(&call).and_then(|work| work.permit);
        let error = ToolError::Broken("no answer in time".to_owned());
        self.observe(call, number, permit, Some(&error));
        let has_retry = permit.is_none_or(|permit| self.limits.has_retry(permit.group, self.now));
        self.batches[call.0].schedule.timed_out(call.1, has_retry, self.now);
    }

    /// Tells the group how an attempt ended.
    fn observe(&mut self, call: Id, number: usize, permit: Option<Grant>, error: Option<&ToolError>) {
        let Some(grant) = permit.filter(|grant| grant.group != NO_GROUP) else { return };
        let (now, mut told) = (self.now, Vec::new());
        if let Some(wait) = error.and_then(ToolError::retry_after)
            && self.limits.pause(grant.group, wait, now, &mut told)
        {
            self.see(call, Seen::Paused(now + wait));
        }
        let signal = error.map_or(Some(fanout_core::limits::Signal::Answered), retry::signal);
        if let Some(signal) = signal {
            let is_bad =
                matches!(error, Some(ToolError::Broken(_) | ToolError::NotSent(_) | ToolError::Overloaded { .. }));
            self.see(call, Seen::Answered(call, number, is_bad));
            if self.limits.observe(grant, signal, now, &mut told) {
                let cool_down = self.limits.options(grant.group).breaker.cool_down;
                self.see(call, Seen::Opened(now + cool_down));
            }
        }
        self.tell(told);
    }

    fn gone(&mut self, call: Id, number: usize) {
        let attempt = &mut self.log.calls.entry(call).or_default().tries[number];
        attempt.gone = Some(self.now);
        self.release(call, false);
        if let Some(work) = self.works.get_mut(&call) {
            work.is_gone = true;
            if work.answered {
                self.unlock(call);
            }
        }
        self.batches[call.0].schedule.gone(call.1, self.now);
    }

    /// Gives up what an attempt holds; `locks` also, though its work may go on.
    fn release(&mut self, call: Id, locks: bool) {
        if let Some(grant) = self.works.get_mut(&call).and_then(|work| work.permit.take()) {
            if let Some(last) = self.log.calls.get_mut(&call).and_then(|played| played.tries.last_mut()) {
                last.released = Some(self.now);
            }
            self.see(call, Seen::Released(call, self.log.calls[&call].tries.len() - 1));
            self.give_back(grant);
        }
        if locks {
            self.unlock(call);
        }
    }

    fn unlock(&mut self, call: Id) {
        let Some(ticket) = self.works.get_mut(&call).and_then(|work| work.ticket.take()) else { return };
        self.log.calls.entry(call).or_default().left = Some(self.now);
        let mut granted = Vec::new();
        self.locks.leave(ticket, &mut granted);
        for ticket in granted {
            self.later(self.now, Happens::Locked(self.tickets[&ticket]));
        }
    }

    fn answer(&mut self, call: Id, result: Result<Arc<Output>, Box<CallError>>) {
        let limit = self.members[call.0].calls[call.1].group.map(|group| self.treated[group].group);
        let (word, mut retry_after) = match &result {
            Ok(_) => ("ok", None),
            Err(error) => (error.code.as_str(), error.retry_after),
        };
        if word == "rate_limited" {
            retry_after = retry_after.max(limit.map(|group| self.limits.come_back(group, self.now)));
        }
        let answer = Answer { at: self.now, word, retry_after };
        self.log.calls.entry(call).or_default().answers.push(answer);
        if let Some(work) = self.works.get_mut(&call) {
            work.answered = true;
            if work.is_gone {
                self.unlock(call);
            }
        }
    }
}

fn touches(wanted: &Wanted) -> Touches {
    let key = |key: &String| Touch { key: key.clone(), write: true, declared: true };
    Touches { keys: wanted.writes.iter().map(key).collect(), ..Touches::nothing() }
}

fn result_of(reply: Reply) -> Result<Output, ToolError> {
    let message = || format!("{reply:?}");
    match reply {
        Reply::Well => Ok(Output::text("well")),
        Reply::No => Err(ToolError::Failed(message())),
        Reply::TooMany(retry_after) => Err(ToolError::Busy { message: message(), retry_after }),
        Reply::Unavailable(retry_after) => Err(ToolError::Overloaded { message: message(), retry_after }),
        Reply::Broken | Reply::Silence => Err(ToolError::Broken(message())),
        Reply::Unreachable => Err(ToolError::NotSent(message())),
    }
}
