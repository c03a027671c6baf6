//! The driver of a batch: does what its schedule asks for, and tells it what happened and what time it is.
//!
//! From `attempt` and `shared`: messages. To [`schedule`](crate::schedule), and to the events.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::attempt::{Begin, Lease, Message, spawn};
use super::batch::Batch;
use super::item::{Role, Running};
use super::past::{self, Reentered};
use super::shared::{Observed, PermitGuard, Reply};
use crate::effects::Effects;
use crate::event::What;
use crate::graph::Ix;
use crate::limits::{Cost, GroupId, Signal, Wish};
use crate::outcome::{CallError, Content, ErrorCode, Outcome, Output};
use crate::schedule::Step;
use crate::shape::shape;
use crate::tool::{Attempt, Backing, Hold, Progress, ToolError};
use crate::{reference, retry};

impl Batch<'_> {
    pub(super) fn hear(&mut self, message: Message, now: Duration) {
        match message {
            Message::Locked(call) => self.locked(call, now),
            Message::Permit(permit) => {
                self.wish_is_over(permit.group());
                self.permitted(permit, now);
            }
            Message::Refused { group, refusal } => {
                self.wish_is_over(group);
                self.schedule.refused(group, refusal, now);
            }
            Message::Paused { group, wait } => self.schedule.paused(group, wait, now),
            Message::WaitAsked { call, wait } => self.observed(call, Observed { paused: Some(wait), opened: None }),
            Message::Unwatched => self.run.shared.watch(),
            Message::Progressed { call, number, progress } => self.progressed(call, number, progress),
            Message::Asked { call, which, approval } => self.question_stands(call, which, approval),
            Message::Decided { call, which, result } => self.decided(call, which, result, now),
            Message::Ended { call, result, lease } => {
                self.ended(call, result, &lease, now);
                if lease.release() {
                    self.gone(call, now);
                } else {
                    self.schedule.linger(call, now);
                }
            }
            Message::Gone(call) => self.gone(call, now),
        }
    }

    /// What comes after the answer, or from an earlier attempt, says nothing.
    fn progressed(&self, call: Ix, number: u32, progress: Progress) {
        let item = &self.items[call];
        if item.outcome.is_none() && item.attempts == number {
            self.run.record(|| What::CallProgress { call: item.call.clone(), progress });
        }
    }

    fn locked(&mut self, call: Ix, now: Duration) {
        let id = &self.items[call].call;
        self.run.record(|| What::CallLocked { call: id.clone() });
        self.schedule.locked(call, now);
    }

    fn permitted(&mut self, permit: PermitGuard, now: Duration) {
        if self.run.options.drain.has_begun() {
            return;
        }
        let group = permit.group();
        self.permits.push(permit);
        if !self.schedule.permitted(group, now) {
            self.permits.pop();
        }
    }

    fn ended(&mut self, call: Ix, result: Result<Output, ToolError>, lease: &Lease, now: Duration) {
        let item = &mut self.items[call];
        if let (Some(tool), Ok(_)) = (&item.tool, &result) {
            tool.latency.learn(now.saturating_sub(item.started_at));
        }
        let (id, number) = (&self.items[call].call, self.items[call].attempts);
        self.run.record(|| What::AttemptEnded {
            call: id.clone(),
            number,
            error: result.as_ref().err().map(ToString::to_string),
        });
        let has_retry = match &result {
            Ok(_) => {
                self.observed(call, lease.observe(Some(Signal::Answered), None));
                true
            }
            Err(error) => {
                self.observed(call, lease.observe(retry::signal(error), error.retry_after()));
                self.run.shared.has_retry(self.items[call].limit.group)
            }
        };
        self.schedule.ended(call, result, has_retry, now);
    }

    fn timed_out(&mut self, call: Ix, now: Duration) {
        let lease = self.items[call].running.as_ref().and_then(|running| running.lease.upgrade());
        let item = &self.items[call];
        // An attempt that the call's deadline ended early says nothing about the API, but for one that had most of its time.
        let allowed = item.tool.as_ref().map_or(Duration::ZERO, |tool| tool.terms.timeout.min(tool.terms.deadline));
        let signal = (now.saturating_sub(item.started_at) >= allowed / 2).then_some(Signal::Failed);
        if let Some(lease) = lease {
            self.observed(call, lease.observe(signal, None));
        }
        let has_retry = self.run.shared.has_retry(self.items[call].limit.group);
        self.schedule.timed_out(call, has_retry, now);
    }

    fn observed(&self, call: Ix, observed: Observed) {
        let group = &self.items[call].limit.name;
        if let Some(wait) = observed.paused {
            self.run.record(|| What::LimitPaused { group: group.clone(), wait });
        }
        if let Some(wait) = observed.opened {
            self.run.record(|| What::BreakerOpened { group: group.clone(), wait });
        }
    }

    fn gone(&mut self, call: Ix, now: Duration) {
        self.items[call].running = None;
        self.schedule.gone(call, now);
    }

    /// Does what the schedule asks for, until it asks for nothing more.
    pub(super) fn act(&mut self) {
        while let Some(step) = self.schedule.next_step() {
            match step {
                Step::Prepare(call) => match self.items[call].role {
                    Role::Each(member) => self.open_each(call, member),
                    _ => self.prepare(call, self.run.elapsed()),
                },
                Step::Gather(bundle) => self.gather(bundle),
                Step::Ask(call) => self.ask(call, self.run.elapsed()),
                Step::Lock(call) => self.lock(call, self.run.elapsed()),
                Step::Permit { group, again } => self.permit(group, again, self.run.elapsed()),
                Step::WithdrawPermit(group) => {
                    // The permit may be on its way already; then it finds nobody and goes back.
                    if self.wish_is_over(group) {
                        self.run.shared.withdraw(group, self.asker);
                    }
                }
                Step::Start { call, number } => self.start(call, number, self.run.elapsed()),
                Step::Stop(call) => {
                    if let Some(abort) = self.items[call].running.as_ref().and_then(|running| running.abort.as_ref()) {
                        abort.abort();
                    }
                }
                Step::TimedOut(call) => self.timed_out(call, self.run.elapsed()),
                Step::Backoff { call, wait } => {
                    let item = &self.items[call];
                    self.run.record(|| What::CallBackoff { call: item.call.clone(), attempts: item.attempts, wait });
                }
                Step::GiveUp(call) => self.give_up(call),
                Step::Answer(call, result) => self.answer(call, result.map_err(|error| *error)),
            }
        }
    }

    fn permit(&mut self, group: GroupId, again: bool, now: Duration) {
        if self.run.options.drain.has_begun() {
            return;
        }
        let caller = &self.run.options.caller;
        let wish = Wish { group, caller, asker: self.asker, again, cost: Cost::new() };
        match self.run.shared.permit(wish, &self.tell) {
            Reply::Granted(permit) => self.permitted(permit, now),
            Reply::Refused(refusal) => self.schedule.refused(group, refusal, now),
            Reply::Queued { at_least, paused } => {
                match self.wishes.iter_mut().find(|(other, _)| *other == group) {
                    Some((_, count)) => *count += 1,
                    None => self.wishes.push((group, 1)),
                }
                // A pause holds for every call, a delay only for the last one.
                if !paused.is_zero() {
                    self.schedule.paused(group, paused, now);
                }
                self.schedule.delayed(group, at_least, now);
            }
        }
    }

    /// Answers whether there was a wish for a permit of this group.
    fn wish_is_over(&mut self, group: GroupId) -> bool {
        let Some(at) = self.wishes.iter().position(|(other, _)| *other == group) else { return false };
        self.wishes[at].1 -= 1;
        if self.wishes[at].1 == 0 {
            self.wishes.swap_remove(at);
        }
        true
    }

    fn lock(&mut self, call: Ix, now: Duration) {
        if self.run.options.drain.has_begun() {
            return;
        }
        if self.recall_part(call, now) {
            return;
        }
        let item = &self.items[call];
        self.run.record(|| What::CallReady {
            call: item.call.clone(),
            filled: (!item.names.is_empty()).then(|| Arc::clone(&item.input)),
        });
        let effects = self.schedule.effects(call);
        if !effects.exclude_between_runs() {
            self.schedule.locked(call, now);
            return;
        }
        let (guard, held) = match self.past.take_place(&item.call) {
            Some(Reentered(place)) => {
                let held = self.run.shared.claim(&place, &self.tell, call);
                (place, held)
            }
            None => self.run.shared.lock(effects, &self.tell, call),
        };
        self.items[call].lock = Some(Arc::new(guard));
        if held {
            self.locked(call, now);
        }
    }

    /// A part of a plan whose batch broke off goes on from where it was. Answers whether it has its outcome.
    fn recall_part(&mut self, call: Ix, now: Duration) -> bool {
        let item = &mut self.items[call];
        let result = match (self.past.outcome(&item.call), self.past.attempts(&item.call)) {
            (Some(outcome), _) => outcome.result.clone(),
            (None, Some((attempts, is_running))) => {
                item.attempts = attempts;
                let once = self.run.options.once.as_deref();
                self.schedule.resume(call, attempts);
                match &item.tool {
                    Some(tool) if is_running && !tool.resumable(once) => Err(past::unknown(&tool.spec.name)),
                    _ => return false,
                }
            }
            (None, None) => return false,
        };
        self.schedule.recall(call, result, now);
        true
    }

    fn prepare(&mut self, call: Ix, now: Duration) {
        let prepared = self.filled(call).map(|(input, effects)| {
            let item = &mut self.items[call];
            if item.tool.as_ref().is_some_and(|tool| tool.spec.policy.approval.asks(&input)) {
                self.schedule.needs_approval(call);
            }
            item.input = input;
            effects
        });
        let freed = self.schedule.prepared(call, prepared, now);
        self.tell_waits(&freed);
    }

    fn filled(&mut self, call: Ix) -> Result<(Arc<Value>, Effects), CallError> {
        let item = &self.items[call];
        let internal = || CallError::new(ErrorCode::Internal, "the call lost its tool");
        let tool = Arc::clone(item.tool.as_ref().ok_or_else(internal)?);
        let mut left = self.left_to_fill(call);
        let filled = reference::fill_within(&mut left, &item.input, &|label, index| self.bound(call, label, index));
        self.leave_to_fill(call, left);
        let input = filled?;
        tool.schema.check(tool.spec.name.as_str(), &input)?;
        let effects = tool.effects_of(&input, &self.run.options.paths);
        Ok((Arc::new(input), effects))
    }

    fn start(&mut self, call: Ix, number: u32, now: Duration) {
        let item = &mut self.items[call];
        let Some(tool) = item.tool.clone() else { return };
        let group = item.limit.group;
        let at = self.permits.iter().rposition(|permit| permit.group() == group && !tool.spec.policy.nested);
        let permit = at.map(|at| self.permits.swap_remove(at));
        item.started_at = now;
        item.attempts = number;
        let limit = permit.as_ref().and_then(|permit| permit.pauser(&self.tell, call));
        let lease = Lease::new(item.lock.clone(), permit, self.tell.clone(), call, number);
        let must_be_kept = !tool.terms.repeatable;
        let options = &self.run.options;
        let attempt = Attempt {
            run: options.run.clone(),
            caller: options.caller.clone(),
            call: item.call.clone(),
            tool: tool.spec.name.clone(),
            input: Arc::clone(&item.input),
            number,
            idempotency_key: format!("{}/{}", options.run, item.call).into(),
            caller_token: options.caller_token.clone(),
            secrets: Arc::clone(&self.run.secrets),
            once: options.once.clone().filter(|once| once.holds_for(tool.spec.database.as_deref())),
            hold: Hold(Some(Arc::clone(&lease) as Arc<dyn Backing>)),
            limit,
            atomic: match &mut item.role {
                Role::Atomic(together) => Some(together.begin()),
                _ => None,
            },
        };
        let shared = &self.run.shared;
        let disabled = match &item.role {
            Role::Atomic(together) => together.tools().find_map(|tool| shared.disabled(tool)),
            _ => shared.disabled(&tool.spec.name),
        };
        let id = &item.call;
        self.run.record(|| What::AttemptStarted { call: id.clone(), number });
        let kept = if must_be_kept { self.run.teller().kept() } else { None };
        let weak = Arc::downgrade(&lease);
        let begin = match disabled {
            Some(told) => Begin::Refused(ToolError::NotPermitted(told.to_string())),
            None => Begin::Once(kept),
        };
        let abort = spawn(tool, attempt, begin, lease, self.tell.clone(), call);
        self.items[call].running = Some(Running { abort: Some(abort), lease: weak });
    }

    fn give_up(&mut self, call: Ix) {
        let item = &self.items[call];
        if let Some(lease) = item.running.as_ref().and_then(|running| running.lease.upgrade()) {
            lease.give_up();
            self.run.record(|| What::StrayGivenUp { call: item.call.clone() });
        }
    }

    fn answer(&mut self, call: Ix, mut result: Result<Arc<Output>, CallError>) {
        let item = &mut self.items[call];
        if let Err(error @ CallError { code: ErrorCode::RateLimited | ErrorCode::CircuitOpen, .. }) = &mut result {
            // Whatever else was said: those who wait now come first.
            let come_back = self.run.shared.come_back(item.limit.group);
            error.retry_after = error.retry_after.max(Some(come_back));
        }
        let item = &self.items[call];
        let max = item.tool.as_ref().map_or(usize::MAX, |tool| tool.spec.policy.result_max);
        // A plan's answer is within its bounds already, and cut once more it would be no JSON.
        let shown = match (&item.role, self.answer_together(call, result.as_ref().map(drop).map_err(Clone::clone))) {
            (_, Some(answer)) => shape(&Ok(Arc::new(answer)), usize::MAX),
            (Role::Plan(_), None) => shape(&result, usize::MAX),
            (_, None) => shape(&result, max),
        };
        let part_of = self.part_of(call);
        let item = &mut self.items[call];
        item.asking = None;
        let shown = with_words(shown, std::mem::take(&mut item.words));
        let past = self.past.outcome(&item.call).cloned();
        let is_told = past.is_none();
        let outcome = past.unwrap_or_else(|| {
            Arc::new(Outcome { call: item.call.clone(), part_of, result, shown, attempts: item.attempts })
        });
        item.outcome = Some(Arc::clone(&outcome));
        item.input = Arc::default();
        match item.role {
            Role::Plan(_) if !is_told => self.forget_parts(call),
            _ if !is_told => {}
            Role::Plan(_) => {
                self.forget_parts(call);
                self.run.record(|| What::BundleEnded { outcome });
            }
            Role::Each(_) => self.run.record(|| What::BundleEnded { outcome }),
            Role::Call | Role::Atomic(_) => self.run.record(|| What::CallEnded { outcome }),
        }
        // What still runs keeps its locks by itself.
        self.items[call].lock = None;
    }
}

/// What the model is shown, and behind it what people said.
fn with_words(shown: Arc<[Content]>, words: Vec<Arc<str>>) -> Arc<[Content]> {
    if words.is_empty() {
        return shown;
    }
    shown.iter().cloned().chain(words.into_iter().map(Content::Text)).collect()
}
