//! One batch: calls in, outcomes out.
//!
//! From whoever has calls, as they arrive. To its schedule, which `drive` follows.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rustc_hash::FxHashMap;
use serde_json::Value;
use smallvec::SmallVec;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

use super::Run;
use super::attempt::{Lease, Message, Stray};
use super::shared::{LockGuard, PermitGuard};
use crate::call::{Call, CallId, Input, Link, Need, ToolName};
use crate::effects::{Effects, Source};
use crate::event::{Wait, What, Why};
use crate::graph::{Edge, Ix};
use crate::limits::{Asker, GroupId};
use crate::outcome::{CallError, ErrorCode, Outcome};
use crate::schedule::{Limit, Schedule, Treatment};
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
}

/// A call of a batch, as it stands.
#[derive(Debug)]
pub struct Arrived<'a> {
    /// The call.
    pub call: &'a CallId,
    /// Its tool, if there is one of that name.
    pub tool: Option<&'a Registered>,
    /// What it touches, as far as its references are known.
    pub effects: &'a Effects,
    /// The nearest earlier calls that hold it back, ended or not.
    pub waits: Arc<[Wait]>,
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

pub(super) struct Item {
    pub(super) call: CallId,
    pub(super) tool: Option<Arc<Registered>>,
    pub(super) input: Arc<Value>,
    pub(super) links: Vec<Link>,
    pub(super) limit: Arc<Limit>,
    /// Its place in the locks, until it is answered.
    pub(super) lock: Option<Arc<LockGuard>>,
    pub(super) running: Option<Running>,
    pub(super) started_at: Duration,
    pub(super) outcome: Option<Arc<Outcome>>,
    pub(super) attempts: u32,
}

pub(super) struct Running {
    /// What stops it; work of an earlier batch is being stopped already.
    pub(super) abort: Option<AbortHandle>,
    pub(super) lease: Weak<Lease>,
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Item").field("call", &self.call).field("outcome", &self.outcome).finish_non_exhaustive()
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
        self.by_id.clear();
        self.followed = Followed::default();
        for stray in std::mem::take(&mut self.run.strays) {
            self.take_stray(&stray);
        }
    }

    /// Takes the next call in program order. If nothing holds it back it starts when the batch is next driven: at once
    /// if it may enter early, else after [`Batch::commit`].
    ///
    /// # Errors
    /// [`BatchError`], and the call is not taken: nobody could answer it.
    pub fn call(&mut self, call: Call) -> Result<(), BatchError> {
        let edges = self.links(&call)?;
        let now = self.run.elapsed();
        let refusal = match (&self.cancelled, self.run.toolbox.get(&call.tool).cloned()) {
            (Some(reason), tool) => (tool, cancelled(reason)),
            (None, None) => (None, self.unknown_tool(&call.tool)),
            (None, Some(tool)) => match self.input_of(&tool, &call) {
                Ok(input) => return self.accept(call, &tool, input, edges, now),
                Err(error) => (Some(tool), error),
            },
        };
        self.refused(&call, refusal.0, refusal.1);
        Ok(())
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
            effects: self.schedule.effects(ix),
            waits: self.waits(ix),
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
        self.items.iter_mut().filter_map(|item| item.outcome.take()).collect()
    }

    /// Stops everything and throws all outcomes away: the response that asked for these calls does not count.
    pub fn discard(mut self, reason: &str) {
        self.cancel(reason);
    }

    /// The edges that a call names itself or that declarations make, or why it cannot be taken.
    fn links(&self, call: &Call) -> Result<Vec<Edge>, BatchError> {
        if self.by_id.contains_key(&call.id) {
            return Err(BatchError::Twice(call.id.clone()));
        }
        let mut edges = Vec::new();
        for link in &call.links {
            let no_such = || BatchError::NoSuchCall { call: call.id.clone(), on: link.on.clone() };
            let on = *self.by_id.get(&link.on).ok_or_else(no_such)?;
            edges.push(match link.need {
                Need::Output { .. } => Edge::named(on, Why::Reference, true),
                Need::Success => Edge::named(on, Why::Order, true),
                Need::Order => Edge::named(on, Why::Order, false),
            });
        }
        if self.run.toolbox.ordered
            && let Some(tool) = self.run.toolbox.get(&call.tool)
        {
            let earlier = tool.spec.policy.after.iter().filter_map(|tool| self.followed.tools.get(tool)).flatten();
            edges.extend(earlier.map(|on| Edge::named(*on, Why::Order, false)));
            let last = self.followed.sources.get(&tool.spec.source).filter(|_| self.stops_on_failure(tool));
            edges.extend(last.map(|on| Edge::named(*on, Why::Order, true)));
        }
        Ok(edges)
    }

    fn stops_on_failure(&self, tool: &Registered) -> bool {
        tool.spec.policy.stop_on_failure && self.run.options.stop_on_failure
    }

    fn input_of(&self, tool: &Registered, call: &Call) -> Result<Arc<Value>, CallError> {
        match &call.input {
            Input::Invalid(raw) => Err(CallError::invalid_json(raw)),
            Input::Json(input) => {
                if !has_references(&call.links) {
                    tool.schema.check(call.tool.as_str(), input)?;
                }
                Ok(Arc::new(input.clone()))
            }
        }
    }

    fn accept(
        &mut self,
        call: Call,
        tool: &Arc<Registered>,
        input: Arc<Value>,
        edges: Vec<Edge>,
        now: Duration,
    ) -> Result<(), BatchError> {
        let settled = !has_references(&call.links);
        let spec = &tool.spec;
        let effects = if spec.policy.nested && !spec.effects.is_declared() {
            Effects::none(spec.source.clone())
        } else {
            spec.effects.resolve(&spec.source, &input, &self.run.options.paths)
        };
        let limit = self.run.limit_of(tool);
        let treatment = Treatment {
            call: call.id.clone(),
            terms: Arc::clone(&tool.terms),
            limit: Arc::clone(&limit),
            early: self.run.options.early_start && tool.terms.repeatable && effects.only_reads(),
            expected: tool.latency.expected(),
        };
        let (position, declared) = (call.position.clone(), effects.declared);
        let ix = self.push(call.id.clone(), Some(Arc::clone(tool)), input, call.links);
        self.items[ix].limit = limit;
        self.schedule.arrive(treatment, effects, settled, edges, now);
        let (call, tool) = (call.id, call.tool);
        self.run.record(|| What::CallArrived { call, tool, position, declared, waits: self.waits(ix) });
        self.act();
        Ok(())
    }

    fn refused(&mut self, call: &Call, tool: Option<Arc<Registered>>, error: CallError) {
        self.push(call.id.clone(), tool, Arc::new(Value::Null), Vec::new());
        self.run.record(|| What::CallArrived {
            call: call.id.clone(),
            tool: call.tool.clone(),
            position: call.position.clone(),
            declared: true,
            waits: Arc::from([]),
        });
        self.schedule.refuse(call.id.clone(), call.tool.clone(), error);
        self.act();
    }

    fn push(&mut self, call: CallId, tool: Option<Arc<Registered>>, input: Arc<Value>, links: Vec<Link>) -> Ix {
        let ix = self.items.len();
        self.by_id.insert(call.clone(), ix);
        if self.run.toolbox.ordered {
            self.followed.follow(tool.as_deref(), ix);
        }
        self.items.push(Item {
            call,
            tool,
            input,
            links,
            limit: Arc::clone(&self.run.unlimited),
            lock: None,
            running: None,
            started_at: Duration::ZERO,
            outcome: None,
            attempts: 0,
        });
        ix
    }

    fn take_stray(&mut self, stray: &Stray) {
        let ix = self.items.len();
        let Some(lease) = stray.watch(&self.tell, ix) else { return };
        self.push(stray.call.clone(), None, Arc::new(Value::Null), Vec::new());
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

    fn waits(&self, call: Ix) -> Arc<[Wait]> {
        let edges = self.schedule.edges(call).iter();
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

fn has_references(links: &[Link]) -> bool {
    links.iter().any(|link| matches!(link.need, Need::Output { .. }))
}

fn cancelled(reason: &str) -> CallError {
    CallError::new(ErrorCode::Cancelled, format!("{reason}; nothing was carried out"))
}
