//! Calls that a person has to agree to: they ask beside their waits in the batch, and hold nothing meanwhile.
//!
//! From the schedule: [`Step::Ask`](crate::schedule::Step::Ask). To the run's [`Approver`](crate::approval::Approver), in a
//! task for each question, and back: what people decided.
//!
//! A question is taken back when its call is answered otherwise. Whether a call needs one is judged in
//! [`approval`](crate::approval).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

use super::attempt::Message;
use super::batch::Batch;
use super::item::Role;
use super::plan::Asks;
use crate::approval::{Approval, Approver, Asked, Decision, Question, Said};
use crate::call::{ApprovalId, CallId, ToolName};
use crate::event::What;
use crate::graph::Ix;
use crate::outcome::{CallError, ErrorCode};

/// What a call asks people, while it does. Dropping it takes all of it back.
#[derive(Debug)]
pub(super) struct Asking {
    tasks: Vec<AbortHandle>,
    /// About which call each question is, and its tool.
    about: Vec<(CallId, ToolName)>,
    /// How many of them are not decided yet.
    open: usize,
}

impl Drop for Asking {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Batch<'_> {
    /// Asks people about a call: one question, or one for each member of an atomic plan that needs it.
    pub(super) fn ask(&mut self, call: Ix, now: Duration) {
        let about = self.items[call].call.clone();
        if let Some(agreed) = self.past.agreed(&about) {
            agreed.iter().for_each(|said| self.keep_words(call, &about, said));
            self.schedule.decided(call, Ok(()), now);
            return;
        }
        let questions = self.questions(call);
        let about: Vec<_> = questions.iter().map(|one| (one.call.clone(), one.tool.clone())).collect();
        let Some(approver) = &self.run.options.approver else {
            let tool = about.first().map_or("", |(_, tool)| tool.as_str());
            self.schedule.decided(call, Err(nobody(tool)), now);
            return;
        };
        let ask = |(which, question)| {
            let report = Report { tell: self.tell.clone(), call, which, is_sent: false };
            tokio::spawn(put(Arc::clone(approver), question, report)).abort_handle()
        };
        let open = questions.len();
        let tasks = questions.into_iter().enumerate().map(ask).collect();
        self.items[call].asking = Some(Box::new(Asking { tasks, about, open }));
    }

    /// Whether people have to agree to a call, if that is known.
    pub(super) fn asks(&self, call: Ix) -> Option<bool> {
        let item = &self.items[call];
        let approval = item.tool.as_ref().map(|tool| &tool.spec.policy.approval);
        match (&item.role, approval) {
            (Role::Atomic(together), _) => Some(!together.asks.is_empty()),
            (Role::Plan(_), _) | (_, None | Some(Approval::Never)) => Some(false),
            (_, Some(Approval::Always)) => Some(true),
            (_, Some(Approval::When(_))) => self.schedule.needs_people(call),
        }
    }

    fn questions(&self, call: Ix) -> Vec<Question> {
        let (item, options) = (&self.items[call], &self.run.options);
        let question = |call, tool, input| Question {
            run: options.run.clone(),
            caller: options.caller.clone(),
            call,
            tool,
            input,
        };
        match (&item.role, &item.tool) {
            (Role::Atomic(together), _) => {
                let one = |(label, tool, input): &Asks| {
                    question(format!("{}/{label}", item.call).into(), tool.clone(), Arc::clone(input))
                };
                together.asks.iter().map(one).collect()
            }
            (_, Some(tool)) => vec![question(item.call.clone(), tool.spec.name.clone(), Arc::clone(&item.input))],
            (_, None) => Vec::new(),
        }
    }

    /// A question stands where people see it.
    pub(super) fn question_stands(&self, call: Ix, which: usize, approval: ApprovalId) {
        let item = &self.items[call];
        let about = item.asking.as_ref().and_then(|asking| asking.about.get(which));
        if let Some((_, tool)) = about {
            self.run.record(|| What::ApprovalAsked { call: item.call.clone(), tool: tool.clone(), approval });
        }
    }

    /// What came of one question of a call, or why nobody could be asked.
    pub(super) fn decided(
        &mut self,
        call: Ix,
        which: usize,
        result: Result<(ApprovalId, Decision), String>,
        now: Duration,
    ) {
        let Some(asking) = &mut self.items[call].asking else { return };
        let Some((about, tool)) = asking.about.get(which).cloned() else { return };
        asking.open -= 1;
        let is_last = asking.open == 0;
        let result = result.map(|(approval, decision)| (approval, self.hidden(decision)));
        if let Ok((approval, decision)) = &result {
            let (call, approval, decision) = (self.items[call].call.clone(), approval.clone(), decision.clone());
            self.run.record(|| What::ApprovalDecided { call, approval, decision });
        }
        match verdict(&tool, result) {
            Ok(said) => {
                self.keep_words(call, &about, &said);
                if !is_last {
                    return;
                }
                self.items[call].asking = None;
                self.schedule.decided(call, Ok(()), now);
            }
            Err(error) => self.schedule.decided(call, Err(error), now),
        }
    }

    /// A decision without what nobody may see.
    fn hidden(&self, decision: Decision) -> Decision {
        let hide = |said: Said| {
            let words = said.words.map(|words| Arc::from(&*self.run.secrets.hide(&words)));
            Said { words, ..said }
        };
        match decision {
            Decision::Approved(said) => Decision::Approved(hide(said)),
            Decision::Denied(said) => Decision::Denied(hide(said)),
            Decision::Expired => Decision::Expired,
        }
    }

    /// What was said to an approval is shown behind the call's result, and behind that of the plan that it is a part of.
    fn keep_words(&mut self, call: Ix, about: &CallId, said: &Said) {
        let Some(words) = &said.words else { return };
        let is_itself = self.items[call].call == *about;
        let own = format!("the reviewer says: {words}");
        match self.plan_of(call) {
            Some(plan) => {
                let label = about.as_str().strip_prefix(&format!("{}/", self.items[plan].call));
                let of_part = format!("the reviewer says of `{}`: {words}", label.unwrap_or(about.as_str()));
                self.items[plan].words.push(of_part.into());
                self.items[call].words.push(own.into());
            }
            None if is_itself => self.items[call].words.push(own.into()),
            None => {
                let label = about.as_str().strip_prefix(&format!("{}/", self.items[call].call));
                let of_member = format!("the reviewer says of `{}`: {words}", label.unwrap_or(about.as_str()));
                self.items[call].words.push(of_member.into());
            }
        }
    }
}

fn nobody(tool: &str) -> CallError {
    let message = format!("`{tool}` needs a person's approval, and nobody can be asked here; nothing was carried out");
    CallError::new(ErrorCode::Denied, message)
}

/// What a decision means for the call: it may go on, or this is its end.
fn verdict(tool: &ToolName, result: Result<(ApprovalId, Decision), String>) -> Result<Said, CallError> {
    let (approval, decision) = result.map_err(|why| {
        let message =
            format!("`{tool}` needs a person's approval, which could not be asked for: {why}; nothing was carried out");
        CallError::new(ErrorCode::Internal, message)
    })?;
    let message = match decision {
        Decision::Approved(said) => return Ok(said),
        Decision::Denied(Said { by, words }) => {
            let by = by.map(|by| format!(" by {by}")).unwrap_or_default();
            let words = words.map(|words| format!(": {words}")).unwrap_or_default();
            format!("`{tool}` was denied{by} (approval {approval}), and nothing was carried out{words}")
        }
        Decision::Expired => format!(
            "`{tool}` needs a person's approval, and nobody has decided on approval {approval} in time; nothing was carried \
             out. Once it is approved, the same call with the same input can be made again"
        ),
    };
    Err(CallError::new(ErrorCode::Denied, message))
}

/// Puts a question to people, and reports what comes of it.
async fn put(approver: Arc<dyn Approver>, question: Question, mut report: Report) {
    let result = match approver.ask(question).await {
        Ok(Asked { approval, decision }) => {
            let _ =
                report.tell.send(Message::Asked { call: report.call, which: report.which, approval: approval.clone() });
            Ok((approval, decision.await))
        }
        Err(why) => Err(why),
    };
    report.send(result);
}

/// Reports once, also where the approver panics.
struct Report {
    tell: UnboundedSender<Message>,
    call: Ix,
    which: usize,
    is_sent: bool,
}

impl Report {
    fn send(&mut self, result: Result<(ApprovalId, Decision), String>) {
        if !std::mem::replace(&mut self.is_sent, true) {
            let _ = self.tell.send(Message::Decided { call: self.call, which: self.which, result });
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.send(Err("the question was lost".to_owned()));
    }
}
