//! One batch: calls in, outcomes out.
//!
//! From whoever has calls, as they arrive. To its schedule, which `drive` follows.

use std::sync::{Arc, Weak};

use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Run;
use super::arrival::Followed;
use super::attempt::{Message, Stray};
use super::item::{Item, New, Role, Running};
use super::past::Past;
use super::shared::PermitGuard;
use crate::call::{Call, CallId, ToolName};
use crate::effects::Effects;
use crate::event::Wait;
use crate::graph::Ix;
use crate::limits::{Asker, GroupId};
use crate::outcome::{CallError, ErrorCode, Outcome};
use crate::schedule::Schedule;
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
    pub(super) followed: Followed,
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
        let refused = blocks.map(|most| most.error.clone()).or_else(|| self.out_of_use(&call.tool));
        if let (Some(tool), None, None) = (tool.as_ref().filter(|tool| tool.is_plan), &self.cancelled, &refused) {
            return self.take_plan(call, tool);
        }
        let one_too_many = self.admit();
        let refusal = match (&self.cancelled, &tool, refused.or(one_too_many)) {
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

    pub(super) fn part_of(&self, ix: Ix) -> Option<CallId> {
        self.items[ix].bundle.map(|bundle| self.items[bundle].call.clone())
    }

    /// Remembers that this is a call of the tool, for those that are declared to follow it.
    pub(super) fn follow(&mut self, tool: &Registered, ix: Ix) {
        if self.run.toolbox.ordered {
            self.followed.follow(Some(tool), ix);
        }
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

fn cancelled(reason: &str) -> CallError {
    CallError::new(ErrorCode::Cancelled, format!("{reason}; nothing was carried out"))
}
