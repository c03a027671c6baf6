//! Plays scripts on virtual time: several runs at once on one set of locks and permits, without a runtime.
//!
//! From [`script`](crate::script). To the judges: a [`Log`] of when each call started, was answered and was gone.
//! This is the core's own driver written a second time over its pure parts. Messages take no time, but those of one
//! moment arrive in random order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use fanout_core::call::{CallId, ToolName};
use fanout_core::event::Why;
use fanout_core::graph::Edge;
use fanout_core::limits::{Asked, Cost, Grant, Limits, NO_GROUP, News, Notice, Wish};
use fanout_core::locks::{Locks, Ticket};
use fanout_core::outcome::{CallError, ErrorCode, Output};
use fanout_core::retry::Backoff;
use fanout_core::schedule::{Limit, Schedule, ScheduleOptions, Step, Terms, Treatment};
use fanout_core::tool::ToolError;

use crate::script::{Fate, Needs, Planned, Script, Turn};
use crate::seed::Rng;
use crate::touches::Touches;

/// What happened to one call.
#[derive(Clone, Debug, Default)]
pub struct Played {
    /// When it arrived, if it did.
    pub arrived: Option<Duration>,
    /// When its attempts started.
    pub started: Vec<Duration>,
    /// When it was answered and with what: `ok`, `error` for an output that calls itself one, or a code.
    pub answers: Vec<(Duration, &'static str)>,
    /// When it let go of its locks and permit, its work being gone or given up.
    pub released: Option<Duration>,
    /// What it waited for when it arrived: the earlier call of the turn, or `None` for a stray of an earlier one.
    pub waits: Vec<(Option<usize>, Why)>,
}

/// A place in the locks.
#[derive(Clone, Debug)]
pub struct Entered {
    /// Whose.
    pub call: Id,
    /// What it locks.
    pub touches: Touches,
    /// When it entered.
    pub at: Duration,
    /// When it held them all.
    pub held: Option<Duration>,
    /// When it left.
    pub left: Option<Duration>,
}

/// What happened.
#[derive(Debug, Default)]
pub struct Log {
    /// Every call.
    pub calls: BTreeMap<Id, Played>,
    /// Every place in the locks, in the order of entry.
    pub entered: Vec<Entered>,
    /// The most permits that were out at once.
    pub peak: usize,
    /// When each turn was opened and closed.
    pub turns: BTreeMap<(usize, usize), (Duration, Option<Duration>)>,
    /// Places and permits that nobody gave back.
    pub leaked: usize,
}

/// A call: its run, its turn, its place in the turn.
pub type Id = (usize, usize, usize);

#[derive(Clone, Copy, Debug)]
enum Happens {
    Open(usize),
    Arrive(usize, usize, usize),
    Commit(usize, usize),
    Cancel(usize, usize),
    Discard(usize, usize),
    Locked(Id),
    Permit(usize, usize, Grant),
    Ended(Id),
    Gone(Id),
    Wake(usize, usize),
    TakeAway(Id),
}

/// What a started call holds.
#[derive(Debug, Default)]
struct Work {
    ticket: Option<Ticket>,
    permit: Option<Grant>,
    stopped: bool,
    over: bool,
    gone: bool,
}

struct Batch {
    turn: usize,
    schedule: Schedule,
    /// The earlier calls whose work goes on; they come first in the schedule.
    strays: Vec<Id>,
    wishes: usize,
    spare: Vec<Grant>,
    committed: bool,
    cancelled: bool,
    arrived: usize,
}

/// The stage.
pub struct Stage<'s> {
    scripts: &'s [Script],
    stray_hold: Duration,
    rng: Rng,
    now: Duration,
    seq: u64,
    queue: BinaryHeap<Reverse<(Duration, u64, u64)>>,
    what: BTreeMap<u64, Happens>,
    locks: Locks,
    permits: Limits,
    limit: Arc<Limit>,
    permits_out: usize,
    tickets: BTreeMap<Ticket, (Id, usize)>,
    open: Vec<Option<Batch>>,
    next_strays: Vec<Vec<(Id, Touches, Duration)>>,
    works: BTreeMap<Id, Work>,
    log: Log,
}

/// Plays all scripts to their end. `order` decides what comes first of what happens at one moment.
///
/// # Panics
/// When the scheduler stands still before every turn is closed.
pub fn play(scripts: &[Script], permits: usize, stray_hold: Duration, order: Rng) -> Log {
    let mut stage = Stage {
        scripts,
        stray_hold,
        rng: order,
        now: Duration::ZERO,
        seq: 0,
        queue: BinaryHeap::new(),
        what: BTreeMap::new(),
        locks: Locks::default(),
        permits: Limits::new(permits, []),
        limit: Arc::new(once()),
        permits_out: 0,
        tickets: BTreeMap::new(),
        open: scripts.iter().map(|_| None).collect(),
        next_strays: scripts.iter().map(|_| Vec::new()).collect(),
        works: BTreeMap::new(),
        log: Log::default(),
    };
    for (run, script) in scripts.iter().enumerate() {
        stage.later(script.opens, Happens::Open(run));
    }
    while let Some(Reverse((at, _, seq))) = stage.queue.pop() {
        stage.now = at;
        if let Some(what) = stage.what.remove(&seq) {
            stage.happen(what);
        }
    }
    let stuck: Vec<_> = stage.log.turns.iter().filter(|(_, (_, closed))| closed.is_none()).collect();
    assert!(stuck.is_empty(), "these turns never end: {stuck:?}");
    stage.log.leaked = stage.locks.len() + stage.permits_out;
    let (waiting, free) = stage.permits.in_flight();
    stage.log.leaked += waiting + (permits - free);
    stage.log
}

/// No limit, and one attempt per call.
fn once() -> Limit {
    let none = Limit::none();
    Limit { retry: Backoff { attempts: 1, ..none.retry }, ..none }
}

impl Stage<'_> {
    fn later(&mut self, at: Duration, what: Happens) {
        self.seq += 1;
        let tie = self.rng.bits();
        self.queue.push(Reverse((at.max(self.now), tie, self.seq)));
        self.what.insert(self.seq, what);
    }

    fn happen(&mut self, what: Happens) {
        match what {
            Happens::Open(run) => self.open_turn(run),
            Happens::Arrive(run, turn, call) => self.arrive(run, turn, call),
            Happens::Commit(run, turn) => self.drive(run, turn, |batch, now| {
                batch.committed = true;
                batch.schedule.commit(now);
            }),
            Happens::Cancel(run, turn) => self.drive(run, turn, |batch, now| {
                batch.cancelled = true;
                batch.schedule.cancel("the run was stopped", now);
            }),
            Happens::Discard(run, turn) => self.drive(run, turn, |batch, now| {
                batch.committed = true;
                batch.cancelled = true;
                batch.schedule.cancel("the response broke off", now);
            }),
            Happens::Locked(call) => {
                self.drive(call.0, call.1, |batch, now| batch.schedule.locked(batch.ix(call), now));
            }
            Happens::Permit(run, turn, grant) => self.permit(run, turn, grant),
            Happens::Ended(call) => self.ended(call),
            Happens::Gone(call) => self.gone(call),
            Happens::Wake(run, turn) => self.drive(run, turn, |_, _| ()),
            Happens::TakeAway(call) => self.release(call),
        }
    }

    fn open_turn(&mut self, run: usize) {
        let script = &self.scripts[run];
        let turn = (0..).find(|turn| !self.log.turns.contains_key(&(run, *turn))).unwrap_or_default();
        let Some(plan) = script.turns.get(turn) else { return };
        self.log.turns.insert((run, turn), (self.now, None));
        let options = ScheduleOptions { stray_hold: self.stray_hold, seed: 0 };
        let mut batch = Batch {
            turn,
            schedule: Schedule::new(options),
            strays: Vec::new(),
            wishes: 0,
            spare: Vec::new(),
            committed: false,
            cancelled: false,
            arrived: 0,
        };
        for (call, touches, until) in std::mem::take(&mut self.next_strays[run]) {
            if self.works.get(&call).is_some_and(|work| !work.gone) {
                batch.strays.push(call);
                batch.schedule.stray("stray".into(), "stray".into(), touches.effects(), until);
            }
        }
        self.open[run] = Some(batch);
        let now = self.now;
        for (at, call) in plan.calls.iter().enumerate() {
            self.later(now + call.arrives, Happens::Arrive(run, turn, at));
        }
        let end = if plan.discarded { Happens::Discard(run, turn) } else { Happens::Commit(run, turn) };
        // Calls of one moment must arrive in order and before the end, which one nanosecond sees to.
        self.later(now + plan.commits + Duration::from_nanos(1), end);
        if let Some(at) = plan.cancels {
            self.later(now + at, Happens::Cancel(run, turn));
        }
    }

    fn arrive(&mut self, run: usize, turn: usize, _: usize) {
        let (scripts, now) = (self.scripts, self.now);
        let Some(batch) = self.open[run].as_mut().filter(|batch| batch.turn == turn) else { return };
        // Whichever of several arrivals of one moment is first: calls come in program order.
        let at = batch.arrived;
        batch.arrived += 1;
        let plan: &Planned = &scripts[run].turns[turn].calls[at];
        let strays = batch.strays.len();
        let named = |(on, needs): &(usize, Needs)| match needs {
            Needs::Output => Edge::named(on + strays, Why::Reference, true),
            Needs::Success => Edge::named(on + strays, Why::Order, true),
            Needs::Order => Edge::named(on + strays, Why::Order, false),
        };
        let (id, tool): (CallId, ToolName) = (format!("c{at}").into(), "tool".into());
        if batch.cancelled || plan.fate == Fate::Refused {
            let code = if batch.cancelled { ErrorCode::Cancelled } else { ErrorCode::InvalidInput };
            batch.schedule.refuse(None, id, tool, CallError::new(code, "refused"));
        } else {
            let treatment = Treatment {
                call: id,
                terms: Arc::new(Terms {
                    tool,
                    timeout: plan.timeout,
                    deadline: plan.deadline,
                    repeatable: plan.repeatable,
                    nested: plan.nested,
                }),
                limit: Arc::clone(&self.limit),
                early: plan.early(),
                resumable: plan.repeatable,
                in_doubt: false,
                asks: false,
                expected: plan.takes,
            };
            let effects = plan.wide.as_ref().unwrap_or(&plan.touches).effects();
            let edges = plan.needs.iter().map(named).collect();
            batch.schedule.arrive(treatment, effects, plan.wide.is_none(), edges, now);
        }
        let edges = batch.schedule.edges(at + strays).iter();
        let waits = edges.map(|edge| (edge.on.checked_sub(strays), edge.why)).collect();
        let played = Played { arrived: Some(now), waits, ..Played::default() };
        self.log.calls.insert((run, turn, at), played);
        self.act(run);
    }

    fn drive(&mut self, run: usize, turn: usize, tell: impl FnOnce(&mut Batch, Duration)) {
        let now = self.now;
        if let Some(batch) = self.open[run].as_mut().filter(|batch| batch.turn == turn) {
            tell(batch, now);
            batch.schedule.advance(now);
            self.act(run);
        }
    }

    fn permit(&mut self, run: usize, turn: usize, grant: Grant) {
        let now = self.now;
        match self.open[run].as_mut().filter(|batch| batch.turn == turn) {
            Some(batch) => {
                batch.wishes = batch.wishes.saturating_sub(1);
                self.use_permit(run, grant, now);
                self.drive(run, turn, |_, _| ());
            }
            None => self.give_back(grant),
        }
    }

    fn use_permit(&mut self, run: usize, grant: Grant, now: Duration) {
        let Some(batch) = &mut self.open[run] else { return };
        if batch.schedule.permitted(NO_GROUP, now) { batch.spare.push(grant) } else { self.give_back(grant) }
    }

    fn give_back(&mut self, grant: Grant) {
        self.permits_out -= 1;
        let mut told = Vec::new();
        self.permits.give_back(grant, self.now, &mut told);
        for Notice { asker, news, .. } in told {
            if let News::Granted(grant) = news {
                self.permits_out += 1;
                let (run, turn) = ((asker / 1000) as usize, (asker % 1000) as usize);
                self.later(self.now, Happens::Permit(run, turn, grant));
            }
        }
    }

    fn ended(&mut self, call: Id) {
        let Some(work) = self.works.get_mut(&call).filter(|work| !work.stopped) else { return };
        work.over = true;
        let plan = self.plan(call);
        let lingers = plan.lingers;
        let result = match plan.fate {
            Fate::Well => Ok(Output::text("well")),
            Fate::SaysError => Ok(Output { is_error: true, ..Output::text("no") }),
            Fate::Fails | Fate::Refused | Fate::Unresolved => Err(ToolError::Failed("no".to_owned())),
            Fate::Panics => Err(ToolError::Panicked("no".to_owned())),
        };
        if lingers.is_zero() {
            self.let_go(call);
        } else {
            self.later(self.now + lingers, Happens::Gone(call));
        }
        self.drive(call.0, call.1, |batch, now| {
            let ix = batch.ix(call);
            batch.schedule.ended(ix, result, true, now);
            if lingers.is_zero() {
                batch.schedule.gone(ix, now);
            } else {
                batch.schedule.linger(ix, now);
            }
        });
    }

    fn gone(&mut self, call: Id) {
        self.let_go(call);
        let now = self.now;
        if let Some(batch) = &mut self.open[call.0] {
            let stray = batch.strays.iter().position(|other| *other == call);
            let own = (batch.turn == call.1).then(|| batch.ix(call));
            if let Some(ix) = stray.or(own) {
                batch.schedule.gone(ix, now);
                batch.schedule.advance(now);
                self.act(call.0);
            }
        }
    }

    fn let_go(&mut self, call: Id) {
        self.release(call);
        if let Some(work) = self.works.get_mut(&call) {
            work.gone = true;
        }
    }

    /// Gives up what the call holds, though its work may go on.
    fn release(&mut self, call: Id) {
        let Some(work) = self.works.get_mut(&call).filter(|work| !work.gone) else { return };
        let (ticket, permit) = (work.ticket.take(), work.permit.take());
        let released = &mut self.log.calls.entry(call).or_default().released;
        released.get_or_insert(self.now);
        if let Some(ticket) = ticket {
            self.unlock(ticket);
        }
        if let Some(grant) = permit {
            self.give_back(grant);
        }
    }

    fn unlock(&mut self, ticket: Ticket) {
        let (_, entry) = self.tickets[&ticket];
        self.log.entered[entry].left = Some(self.now);
        let mut granted = Vec::new();
        self.locks.leave(ticket, &mut granted);
        for ticket in granted {
            let (call, entry) = self.tickets[&ticket];
            self.log.entered[entry].held = Some(self.now);
            self.later(self.now, Happens::Locked(call));
        }
    }

    fn act(&mut self, run: usize) {
        while let Some(batch) = &mut self.open[run]
            && let Some(step) = batch.schedule.next_step()
        {
            self.step(run, step);
        }
        let Some(batch) = &mut self.open[run] else { return };
        let turn = batch.turn;
        if let Some(at) = batch.schedule.wake_at() {
            self.later(at, Happens::Wake(run, turn));
        }
        self.close_if_over(run);
    }

    fn step(&mut self, run: usize, step: Step) {
        let (now, scripts) = (self.now, self.scripts);
        let Some(batch) = &mut self.open[run] else { return };
        let turn = batch.turn;
        let plan_of = |ix: usize, batch: &Batch| &scripts[run].turns[turn].calls[ix - batch.strays.len()];
        match step {
            Step::Prepare(ix) => {
                let plan = plan_of(ix, batch);
                let unresolved = || CallError::new(ErrorCode::UnresolvedReference, "nothing there");
                let keys = if plan.fate == Fate::Unresolved { Err(unresolved()) } else { Ok(plan.touches.effects()) };
                batch.schedule.prepared(ix, keys, now);
            }
            // A script has no plans, and asks nobody.
            Step::Gather(_) | Step::Ask(_) => {}
            Step::Lock(ix) => {
                let (call, touches) = (batch.call(run, ix), plan_of(ix, batch).touches.between_runs());
                let (ticket, held) = self.locks.enter(batch.schedule.effects(ix));
                self.tickets.insert(ticket, (call, self.log.entered.len()));
                let held_at = held.then_some(now);
                self.log.entered.push(Entered { call, touches, at: now, held: held_at, left: None });
                self.works.insert(call, Work { ticket: Some(ticket), ..Work::default() });
                if held {
                    batch.schedule.locked(ix, now);
                }
            }
            Step::Permit { group, again } => {
                let caller = format!("caller{}", scripts[run].caller);
                let (asker, mut told) = ((run * 1000 + turn) as u64, Vec::new());
                let wish = Wish { group, caller: &caller.as_str().into(), asker, again, cost: Cost::new() };
                match self.permits.ask(wish, now, &mut told) {
                    Asked::Granted(grant) => {
                        self.permits_out += 1;
                        self.use_permit(run, grant, now);
                    }
                    Asked::Queued { .. } => batch.wishes += 1,
                    Asked::Refused(refusal) => batch.schedule.refused(group, refusal, now),
                }
            }
            Step::WithdrawPermit(group) => {
                if batch.wishes > 0 {
                    batch.wishes -= 1;
                    self.permits.withdraw(group, (run * 1000 + turn) as u64);
                }
            }
            Step::TimedOut(ix) => batch.schedule.timed_out(ix, true, now),
            Step::Backoff { .. } => {}
            Step::Start { call: ix, .. } => self.start(run, ix),
            Step::Stop(ix) => {
                let call = batch.call(run, ix);
                let lingers = plan_of(ix, batch).lingers;
                if let Some(work) = self.works.get_mut(&call).filter(|work| !work.over) {
                    work.stopped = true;
                    self.later(now + lingers, Happens::Gone(call));
                }
            }
            Step::GiveUp(ix) => {
                let call = batch.call(run, ix);
                self.release(call);
            }
            Step::Answer(ix, result) => {
                let word = match &result {
                    Ok(output) if output.is_error => "error",
                    Ok(_) => "ok",
                    Err(error) => error.code.as_str(),
                };
                // A call that is refused is answered before its arrival is written down.
                let call = batch.call(run, ix);
                let played = self.log.calls.entry(call).or_default();
                played.answers.push((now, word));
                if played.started.is_empty()
                    && let Some(ticket) = self.works.get_mut(&call).and_then(|work| work.ticket.take())
                {
                    self.unlock(ticket);
                }
            }
        }
    }

    fn start(&mut self, run: usize, ix: usize) {
        let Some(batch) = &mut self.open[run] else { return };
        let call = batch.call(run, ix);
        let plan = &self.scripts[run].turns[batch.turn].calls[call.2];
        let work = self.works.entry(call).or_default();
        if !plan.nested {
            work.permit = batch.spare.pop();
        }
        self.log.calls.entry(call).or_default().started.push(self.now);
        let out = self.works.values().filter(|work| work.permit.is_some()).count();
        self.log.peak = self.log.peak.max(out);
        self.later(self.now + plan.takes, Happens::Ended(call));
    }

    fn close_if_over(&mut self, run: usize) {
        let Some(batch) = &mut self.open[run] else { return };
        let plan: &Turn = &self.scripts[run].turns[batch.turn];
        let over = batch.committed && batch.schedule.unanswered() == 0 && batch.arrived == plan.calls.len();
        if !over {
            return;
        }
        let (turn, wishes) = (batch.turn, batch.wishes);
        let mut strays = Vec::new();
        for (ix, _, until) in batch.schedule.strays() {
            let call = batch.call(run, ix);
            let plan = &self.scripts[call.0].turns[call.1].calls[call.2];
            strays.push((call, plan.touches.clone(), until));
        }
        self.open[run] = None;
        for _ in 0..wishes {
            self.permits.withdraw(NO_GROUP, (run * 1000 + turn) as u64);
        }
        for (call, _, until) in &strays {
            self.later(*until, Happens::TakeAway(*call));
        }
        self.next_strays[run] = strays;
        if let Some((_, closed)) = self.log.turns.get_mut(&(run, turn)) {
            *closed = Some(self.now);
        }
        self.later(self.now, Happens::Open(run));
    }

    fn plan(&self, call: Id) -> &Planned {
        &self.scripts[call.0].turns[call.1].calls[call.2]
    }
}

impl Batch {
    fn ix(&self, call: Id) -> usize {
        call.2 + self.strays.len()
    }

    fn call(&self, run: usize, ix: usize) -> Id {
        ix.checked_sub(self.strays.len()).map_or_else(|| self.strays[ix], |at| (run, self.turn, at))
    }
}
