//! One batch: calls in, outcomes out.
//!
//! From whoever has calls, as they arrive. To its schedule, which `drive` follows.

use std::cell::OnceCell;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustc_hash::FxHashMap;
use serde_json::Value;
use smallvec::SmallVec;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Run;
use super::attempt::{Message, Stray};
use super::item::{Item, Name, Named, New, Role, Running};
use super::past::{self, Past};
use super::shared::PermitGuard;
use crate::call::{Call, CallId, Input, Need, Position, ToolName};
use crate::effects::{Effects, Source};
use crate::event::{Wait, What, Why};
use crate::graph::{Edge, Ix, Of};
use crate::limits::{Asker, GroupId};
use crate::outcome::{CallError, ErrorCode, Outcome, Output};
use crate::schedule::{Schedule, Treatment};
use crate::toolbox::{Registered, Toolbox};

/// Why a call could not be taken into a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Each result is matched to its call by id, so no two calls of a batch may share one.
    #[error("two calls of one batch have the id `{0}`")]
    Twice(CallId),
    /// A call can only name calls that came before it.
    #[error("call `{call}` names `{on}`, which is no earlier call of its batch")]
    NoSuchCall {
        /// The call that names another.
        call: CallId,
        /// What it names.
        on: CallId,
    },
}

/// How much of what a response asks for runs. What comes first does; the rest is answered with an error.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    /// What the response itself holds; a plan is one.
    pub blocks: Option<AtMost>,
    /// The calls, those of plans included and the plans themselves not.
    pub calls: Option<AtMost>,
}

/// At most so many.
#[derive(Clone, Debug)]
pub struct AtMost {
    /// How many.
    pub count: usize,
    /// What the others are answered.
    pub error: CallError,
}

/// The calls of one turn. Every call that it takes gets exactly one outcome.
///
/// # Cancellation
/// Dropping a batch stops every running attempt at its next await, and gives back all permits, and all locks whose work
/// is really gone. [`Batch::cancel`] does the same and still yields an outcome for each call.
#[derive(Debug)]
pub struct Batch<'run> {
    pub(super) run: &'run mut Run,
    pub(super) schedule: Schedule,
    pub(super) items: Vec<Item>,
    pub(super) by_id: FxHashMap<CallId, Ix>,
    followed: Followed,
    pub(super) asker: Asker,
    pub(super) wishes: SmallVec<[(GroupId, usize); 2]>,
    pub(super) permits: Vec<PermitGuard>,
    pub(super) tell: UnboundedSender<Message>,
    messages: UnboundedReceiver<Message>,
    cancelled: Option<String>,
    pub(super) past: Past,
    blocks: usize,
    asked: usize,
    bounds: Bounds,
}

/// A call of a batch, as it stands.
#[derive(Debug)]
pub struct Arrived<'a> {
    /// The call.
    pub call: &'a CallId,
    /// Its tool, if there is one of that name.
    pub tool: Option<&'a Registered>,
    /// The call that it is a part of: a plan, or the `for_each` of one.
    pub part_of: Option<&'a CallId>,
    /// It stands for others, which are its parts; how many, if that is known.
    pub bundle: Option<Option<usize>>,
    /// What it touches, as far as its references are known.
    pub effects: &'a Effects,
    /// The nearest earlier calls that hold it back, ended or not.
    pub waits: Arc<[Wait]>,
    /// Whether a person has to agree before it runs; `None`: that is not known before its references are.
    pub asks: Option<bool>,
    /// What it came to, if it has: a call that cannot run is answered when it arrives.
    pub outcome: Option<&'a Outcome>,
}

/// Earlier calls by what later ones may be declared to follow.
#[derive(Debug, Default)]
struct Followed {
    tools: FxHashMap<ToolName, Vec<Ix>>,
    sources: FxHashMap<Source, Ix>,
}

impl Followed {
    fn follow(&mut self, tool: Option<&Registered>, ix: Ix) {
        let Some(spec) = tool.map(|tool| &tool.spec) else { return };
        self.tools.entry(spec.name.clone()).or_default().push(ix);
        self.sources.insert(spec.source.clone(), ix);
    }
}

impl<'run> Batch<'run> {
    pub(super) fn open(run: &'run mut Run) -> Self {
        let (tell, messages) = unbounded_channel();
        let asker = run.shared.asker();
        let schedule = run.shared.schedule(asker);
        let strays = std::mem::take(&mut run.strays);
        let mut batch = Self {
            run,
            schedule,
            items: Vec::new(),
            by_id: FxHashMap::default(),
            followed: Followed::default(),
            asker,
            wishes: SmallVec::new(),
            permits: Vec::new(),
            tell,
            messages,
            cancelled: None,
            past: Past::default(),
            blocks: 0,
            asked: 0,
            bounds: Bounds::default(),
        };
        for stray in strays {
            batch.take_stray(&stray);
        }
        batch
    }

    /// The run that the batch belongs to.
    pub fn run(&self) -> &Run {
        self.run
    }

    /// Stops everything, throws all outcomes away, and begins anew without any call.
    pub fn restart(&mut self, reason: &str) {
        self.cancel(reason);
        self.leave_strays();
        self.run.shared.forget(self.asker, &self.wishes);
        (self.tell, self.messages) = unbounded_channel();
        self.asker = self.run.shared.asker();
        self.wishes.clear();
        self.permits.clear();
        self.cancelled = None;
        self.schedule = self.run.shared.schedule(self.asker);
        self.items.clear();
        self.past = Past::default();
        (self.blocks, self.asked) = (0, 0);
        self.by_id.clear();
        self.followed = Followed::default();
        for stray in std::mem::take(&mut self.run.strays) {
            self.take_stray(&stray);
        }
    }

    /// Keeps what arrives from here on within these bounds.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Goes on with a batch whose process ended: what arrives from here on and is known of is not begun anew.
    pub fn remember(&mut self, past: Past) {
        self.past = past;
    }

    /// How many calls were asked for so far, those of plans included and a plan itself not, unless it could not be run at all.
    pub fn asked(&self) -> usize {
        self.asked
    }

    /// Takes the next call in program order. If nothing holds it back it starts when the batch is next driven: at once
    /// if it may enter early, else after [`Batch::commit`].
    ///
    /// A call of `plan` is answered when all of its calls are; those run in its place.
    ///
    /// # Errors
    /// [`BatchError`], and the call is not taken: nobody could answer it.
    pub fn call(&mut self, call: Call) -> Result<(), BatchError> {
        let (edges, names) = self.links(&call)?;
        let tool = self.run.toolbox.get(&call.tool).cloned();
        self.blocks = self.blocks.saturating_add(1);
        if let Some(result) = self.known(&call.id, tool.as_deref()) {
            self.admit();
            self.recall(&call, tool, result);
            return Ok(());
        }
        let blocks = self.bounds.blocks.as_ref().filter(|most| self.blocks > most.count);
        let block_too_many = blocks.map(|most| most.error.clone());
        if let (Some(tool), None, None) = (tool.as_ref().filter(|tool| tool.is_plan), &self.cancelled, &block_too_many)
        {
            return self.take_plan(call, tool);
        }
        let call_too_many = self.admit();
        let one_too_many = block_too_many.or(call_too_many);
        let refusal = match (&self.cancelled, &tool, one_too_many) {
            (Some(reason), ..) => cancelled(reason),
            (None, _, Some(error)) => error,
            (None, None, None) => self.unknown_tool(&call.tool),
            (None, Some(tool), None) => match self.input_of(tool, &call, &names) {
                Ok(input) => {
                    let Call { id, position, .. } = call;
                    let (shown, tool, role) = (id.clone(), Arc::clone(tool), Role::Call);
                    let new = New { call: id, tool, input, names, bundle: None, role };
                    self.accept(new, shown, position, edges);
                    self.act();
                    return Ok(());
                }
                Err(error) => error,
            },
        };
        self.refused(&call, tool, refusal);
        Ok(())
    }

    /// What a call of a batch that broke off came to, as far as that is settled.
    fn known(&self, call: &CallId, tool: Option<&Registered>) -> Option<Result<Arc<Output>, CallError>> {
        if let Some(outcome) = self.past.outcome(call) {
            return Some(outcome.result.clone());
        }
        let (_, is_running) = self.past.attempts(call)?;
        // Whether a plan may is known once its calls are.
        let once = self.run.options.once.as_deref();
        let may_run = tool.is_some_and(|tool| tool.is_plan || tool.resumable(once));
        let name = tool.map_or_else(|| ToolName::from("a tool that is gone"), |tool| tool.spec.name.clone());
        (is_running && !may_run).then(|| Err(past::unknown(&name)))
    }

    /// Takes a call that has its outcome.
    fn recall(&mut self, call: &Call, tool: Option<Arc<Registered>>, result: Result<Arc<Output>, CallError>) {
        let ix = self.push_bare(call.id.clone(), tool);
        self.items[ix].attempts = self.past.attempts(&call.id).map_or(0, |(attempts, _)| attempts);
        self.schedule.recalled(call.id.clone(), call.tool.clone(), result);
        self.act();
    }

    /// Counts a call; answers why it does not run, if it is one too many.
    pub(super) fn admit(&mut self) -> Option<CallError> {
        self.asked = self.asked.saturating_add(1);
        let most = self.bounds.calls.as_ref()?;
        (self.asked > most.count).then(|| most.error.clone())
    }

    /// The tools of the calls that arrive.
    pub fn toolbox(&self) -> &Arc<Toolbox> {
        self.run.toolbox()
    }

    /// Takes other tools for the calls that arrive from here on: [`Run::set_toolbox`], in the middle of a batch.
    pub fn set_toolbox(&mut self, toolbox: Arc<Toolbox>) {
        if toolbox.ordered && !self.run.toolbox.ordered {
            // Who came before was not written down, as nobody needed it.
            self.followed = Followed::default();
            for (ix, item) in self.items.iter().enumerate() {
                self.followed.follow(item.tool.as_deref(), ix);
            }
        }
        self.run.set_toolbox(toolbox);
    }

    /// Takes the next call and answers it with an error instead of running it: its budget is used up, say.
    ///
    /// # Errors
    /// As for [`Batch::call`].
    pub fn refuse(&mut self, call: &Call, error: CallError) -> Result<(), BatchError> {
        self.links(call)?;
        self.asked = self.asked.saturating_add(1);
        let tool = self.run.toolbox.get(&call.tool).cloned();
        self.refused(call, tool, error);
        Ok(())
    }

    /// The response ended and asks for its tools: every call may start as soon as its own waits are over.
    pub fn commit(&mut self) {
        let now = self.run.elapsed();
        self.schedule.commit(now);
        self.act();
    }

    /// Ends every call that has no outcome yet, and those that still arrive. What was never sent is `cancelled`; what
    /// was sent and is not repeatable is `outcome_unknown`.
    pub fn cancel(&mut self, reason: &str) {
        let now = self.run.elapsed();
        self.cancelled = Some(reason.to_owned());
        self.schedule.cancel(reason, now);
        self.act();
    }

    /// Ends one call as [`Batch::cancel`] ends all; the others go on, and those that waited for it alone may start. Does
    /// nothing to a call that has its outcome, and to one that the batch does not have.
    pub fn cancel_call(&mut self, call: &CallId, reason: &str) {
        if let Some(ix) = self.by_id.get(call).copied() {
            let now = self.run.elapsed();
            self.schedule.cancel_call(ix, reason, now);
            self.act();
        }
    }

    /// Hands over the outcome of one call, if it has ended, and forgets it: [`Batch::finish`] will not give it again, and no
    /// later call can refer to its output. For a batch that stays open, so that it does not keep all that it ever answered.
    pub fn take(&mut self, call: &CallId) -> Option<Arc<Outcome>> {
        let ix = self.by_id.get(call).copied()?;
        let item = &mut self.items[ix];
        let outcome = item.outcome.take()?;
        item.input = Arc::default();
        Some(outcome)
    }

    /// The calls so far, in program order, with what each touches and waits for.
    pub fn arrived(&self) -> impl Iterator<Item = Arrived<'_>> {
        self.items.iter().enumerate().map(|(ix, item)| Arrived {
            call: &item.call,
            tool: item.tool.as_deref(),
            part_of: item.bundle.map(|bundle| &self.items[bundle].call),
            bundle: match item.role {
                Role::Call | Role::Atomic(_) => None,
                Role::Plan(_) | Role::Each(_) => Some(self.schedule.parts(ix).map(<[Ix]>::len)),
            },
            effects: self.schedule.effects(ix),
            waits: self.waits(ix),
            asks: self.asks(ix),
            outcome: item.outcome.as_deref(),
        })
    }

    /// How many calls have no outcome yet.
    pub fn unanswered(&self) -> usize {
        self.schedule.unanswered()
    }

    /// Waits for the next thing to happen, and acts on it. Never ends if nothing can happen.
    ///
    /// # Cancellation
    /// Safe: nothing is lost when the future is dropped between two events.
    pub async fn progress(&mut self) {
        // A time too far off for the clock never comes.
        let wake = self.schedule.wake_at().and_then(|at| self.run.epoch.checked_add(at));
        let message = match wake {
            None => self.messages.recv().await,
            Some(at) => tokio::select! {
                biased;
                message = self.messages.recv() => message,
                () = tokio::time::sleep_until(at) => None,
            },
        };
        let now = self.run.elapsed();
        if let Some(message) = message {
            self.hear(message, now);
            // Whatever else is there by now is one wake-up, not many.
            while let Ok(message) = self.messages.try_recv() {
                self.hear(message, now);
            }
        }
        self.schedule.advance(now);
        self.act();
    }

    /// Lets all calls start, waits until each has its outcome, and gives them in program order.
    pub async fn finish(mut self) -> Vec<Arc<Outcome>> {
        self.commit();
        while self.schedule.unanswered() > 0 {
            self.progress().await;
        }
        let asked = self.items.iter_mut().filter(|item| item.bundle.is_none());
        asked.filter_map(|item| item.outcome.take()).collect()
    }

    /// Stops everything and throws all outcomes away: the response that asked for these calls does not count.
    pub fn discard(mut self, reason: &str) {
        self.cancel(reason);
    }

    /// The edges that a call names itself or that declarations make, with what its labels stand for; or why it cannot be
    /// taken.
    fn links(&self, call: &Call) -> Result<(Vec<Edge>, Vec<Name>), BatchError> {
        if self.by_id.contains_key(&call.id) {
            return Err(BatchError::Twice(call.id.clone()));
        }
        let (mut edges, mut names) = (Vec::new(), Vec::new());
        for link in &call.links {
            let no_such = || BatchError::NoSuchCall { call: call.id.clone(), on: link.on.clone() };
            let on = *self.by_id.get(&link.on).ok_or_else(no_such)?;
            edges.push(match &link.need {
                Need::Output { label } => {
                    names.push(Name { label: label.as_str().into(), named: Named::Call(on) });
                    Edge::named(on, Why::Reference, true)
                }
                Need::Success => Edge::named(on, Why::Order, true),
                Need::Order => Edge::named(on, Why::Order, false),
            });
        }
        if let Some(tool) = self.run.toolbox.get(&call.tool) {
            edges.extend(self.declared_edges(tool));
        }
        Ok((edges, names))
    }

    /// The edges that declarations make: `after` and `stop_on_failure`.
    pub(super) fn declared_edges(&self, tool: &Registered) -> Vec<Edge> {
        if !self.run.toolbox.ordered {
            return Vec::new();
        }
        let earlier = tool.spec.policy.after.iter().filter_map(|tool| self.followed.tools.get(tool)).flatten();
        let mut edges: Vec<Edge> = earlier.map(|on| Edge::named(*on, Why::Order, false)).collect();
        let last = self.followed.sources.get(&tool.spec.source).filter(|_| self.stops_on_failure(tool));
        edges.extend(last.map(|on| Edge::named(*on, Why::Order, true)));
        edges
    }

    pub(super) fn stops_on_failure(&self, tool: &Registered) -> bool {
        tool.spec.policy.stop_on_failure && self.run.options.stop_on_failure
    }

    fn input_of(&self, tool: &Registered, call: &Call, names: &[Name]) -> Result<Arc<Value>, CallError> {
        match &call.input {
            Input::Invalid(raw) => Err(CallError::invalid_json(raw)),
            Input::Json(input) => {
                if names.is_empty() {
                    tool.schema.check(call.tool.as_str(), input)?;
                }
                Ok(Arc::new(input.clone()))
            }
        }
    }

    /// Takes a call that may run, or a `for_each`; [`Batch::act`] comes after. In messages it is `shown`.
    pub(super) fn accept(&mut self, new: New, shown: CallId, position: Position, edges: Vec<Edge>) -> Ix {
        let settled = new.names.is_empty() && !matches!(new.role, Role::Each(_));
        let effects = new.tool.effects_of(&new.input, &self.run.options.paths);
        let mut treatment = self.treatment(&new.tool, shown, &effects);
        treatment.asks = settled && new.tool.spec.policy.approval.asks(&new.input);
        let bundle = new.bundle;
        let ix = self.push(new);
        self.items[ix].limit = Arc::clone(&treatment.limit);
        let now = self.run.elapsed();
        self.schedule.arrive_in(bundle, treatment, effects, settled, edges, now);
        self.tell_arrival(ix, position);
        ix
    }

    pub(super) fn treatment(&mut self, tool: &Arc<Registered>, call: CallId, effects: &Effects) -> Treatment {
        Treatment {
            call,
            terms: Arc::clone(&tool.terms),
            limit: self.run.limit_of(tool),
            early: self.run.options.early_start && tool.terms.repeatable && effects.only_reads(),
            resumable: tool.resumable(self.run.options.once.as_deref()),
            in_doubt: false,
            asks: false,
            expected: tool.latency.expected(),
        }
    }

    pub(super) fn tell_arrival(&self, ix: Ix, position: Position) {
        if self.past.contains(&self.items[ix].call) {
            return;
        }
        let (item, declared) = (&self.items[ix], self.schedule.effects(ix).declared);
        self.run.record(|| {
            let (call, waits) = (item.call.clone(), self.waits(ix));
            let tool = item.tool.as_ref().map_or_else(|| "".into(), |tool| tool.spec.name.clone());
            let part_of = self.part_of(ix);
            match item.role {
                Role::Call | Role::Atomic(_) => {
                    let input = Arc::clone(&item.input);
                    What::CallArrived { call, tool, part_of, position, declared, input, waits }
                }
                Role::Plan(_) | Role::Each(_) => What::BundleArrived { call, tool, part_of, position, waits },
            }
        });
    }

    /// Tells what these calls wait for, now that it is known better.
    pub(super) fn tell_waits(&self, calls: &[Ix]) {
        for call in calls.iter().filter(|call| self.past.outcome(&self.items[**call].call).is_none()) {
            self.run.record(|| What::CallWaits { call: self.items[*call].call.clone(), waits: self.waits(*call) });
        }
    }

    pub(super) fn part_of(&self, ix: Ix) -> Option<CallId> {
        self.items[ix].bundle.map(|bundle| self.items[bundle].call.clone())
    }

    pub(super) fn refused(&mut self, call: &Call, tool: Option<Arc<Registered>>, error: CallError) {
        self.push_bare(call.id.clone(), tool);
        if !self.past.contains(&call.id) {
            self.run.record(|| What::CallArrived {
                call: call.id.clone(),
                tool: call.tool.clone(),
                part_of: None,
                position: call.position.clone(),
                declared: true,
                input: match &call.input {
                    Input::Json(input) => Arc::new(input.clone()),
                    Input::Invalid(raw) => Arc::new(Value::from(raw.as_str())),
                },
                waits: Arc::from([]),
            });
        }
        self.schedule.refuse(None, call.id.clone(), call.tool.clone(), error);
        self.act();
    }

    fn push_bare(&mut self, call: CallId, tool: Option<Arc<Registered>>) -> Ix {
        let ix = self.items.len();
        self.by_id.insert(call.clone(), ix);
        if let Some(tool) = &tool {
            self.follow(tool, ix);
        }
        self.items.push(Item {
            call,
            tool,
            input: Arc::default(),
            names: Vec::new(),
            bundle: None,
            role: Role::Call,
            value: OnceCell::new(),
            limit: Arc::clone(&self.run.unlimited),
            lock: None,
            asking: None,
            words: Vec::new(),
            running: None,
            started_at: Duration::ZERO,
            outcome: None,
            attempts: 0,
        });
        ix
    }

    /// Remembers that this is a call of the tool, for those that are declared to follow it.
    pub(super) fn follow(&mut self, tool: &Registered, ix: Ix) {
        if self.run.toolbox.ordered {
            self.followed.follow(Some(tool), ix);
        }
    }

    pub(super) fn push(&mut self, new: New) -> Ix {
        let ix = self.push_bare(new.call, Some(new.tool));
        let item = &mut self.items[ix];
        (item.input, item.names, item.bundle, item.role) = (new.input, new.names, new.bundle, new.role);
        ix
    }

    fn take_stray(&mut self, stray: &Stray) {
        let ix = self.items.len();
        let Some(lease) = stray.watch(&self.tell, ix) else { return };
        self.push_bare(stray.call.clone(), None);
        // Ids are unique within a batch, not within a run.
        self.by_id.remove(&stray.call);
        self.schedule.stray(stray.call.clone(), stray.tool.clone(), stray.effects.clone(), stray.until);
        self.items[ix].running = Some(Running { abort: None, lease: Arc::downgrade(&lease) });
    }

    fn unknown_tool(&self, name: &ToolName) -> CallError {
        let names: Vec<&str> = self.run.toolbox.iter().map(|tool| tool.spec.name.as_str()).take(NAMED_MAX).collect();
        let more = self.run.toolbox.len().saturating_sub(names.len());
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        let message = format!("there is no tool `{name}`; there are: {}{rest}", names.join(", "));
        CallError::new(ErrorCode::UnknownTool, message)
    }

    pub(super) fn waits(&self, call: Ix) -> Arc<[Wait]> {
        // What only waits to know of which calls it will refer to, waits for nothing that anybody could see.
        let edges = self.schedule.edges(call).iter().filter(|edge| !edge.void && edge.of != Of::Opening);
        // What a source infers row by row, nobody could declare better.
        let is_known = self.items[call].tool.as_ref().is_some_and(|tool| tool.spec.source.names_rows());
        edges
            .map(|edge| Wait {
                on: self.items[edge.on].call.clone(),
                why: edge.why,
                key: edge.key.clone(),
                undeclared: edge.undeclared && !is_known,
            })
            .collect()
    }

    /// Hands work that outlived its call to the run's next batch, and sees to it that it gives up its locks in time even
    /// if there is none.
    fn leave_strays(&mut self) {
        let mut strays = Vec::new();
        for (call, effects, until) in self.schedule.strays() {
            let item = &self.items[call];
            let Some(running) = &item.running else { continue };
            let lease = Weak::clone(&running.lease);
            let tool = item.tool.as_ref().map_or_else(|| ToolName::from(""), |tool| tool.spec.name.clone());
            strays.push(Stray { call: item.call.clone(), tool, effects: effects.clone(), until, lease });
        }
        // A batch that is dropped outside of its runtime finds nobody to watch the clock. Its strays keep their locks until
        // their work is gone, as long as that may take.
        let runtime = tokio::runtime::Handle::try_current();
        for (stray, runtime) in strays.iter().filter_map(|stray| Some((stray, runtime.as_ref().ok()?))) {
            let Some(at) = self.run.epoch.checked_add(stray.until) else { continue };
            let lease = Weak::clone(&stray.lease);
            runtime.spawn(async move {
                tokio::time::sleep_until(at).await;
                if let Some(lease) = lease.upgrade() {
                    lease.give_up();
                }
            });
        }
        self.run.strays.extend(strays);
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.schedule.unanswered() > 0 {
            self.cancel("the batch was dropped");
        }
        self.leave_strays();
        self.run.shared.forget(self.asker, &self.wishes);
    }
}

/// At most so many tools are named to a model that asked for another.
const NAMED_MAX: usize = 20;

fn cancelled(reason: &str) -> CallError {
    CallError::new(ErrorCode::Cancelled, format!("{reason}; nothing was carried out"))
}
