//! What is known of the calls of a batch from before the process that they ran in was gone.
//!
//! From the events of the run, as whoever kept them gives them back. To [`Batch`](super::Batch): calls that have their outcome
//! are not run again, those that were under way and may not happen twice are `outcome_unknown`, and the rest run, as if
//! nothing had been between.

use std::fmt;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::shared::LockGuard;
use crate::approval::{Decision, Said};
use crate::call::{CallId, ToolName};
use crate::event::What;
use crate::outcome::{CallError, Content, ErrorCode, Outcome};

/// What is known of the calls of one batch.
#[derive(Debug, Default)]
pub struct Past {
    calls: FxHashMap<CallId, Known>,
    /// How many calls arrived, those of plans included and the plans themselves not.
    asked: u32,
}

#[derive(Debug)]
struct Known {
    tool: ToolName,
    input: Arc<Value>,
    /// How many attempts had begun.
    attempts: u32,
    /// What people said who let it run.
    said: Vec<Said>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No attempt was under way.
    Waiting,
    /// An attempt had begun, and nobody knows what it came to.
    Running {
        /// The number of the event that says so.
        started: u64,
        place: Option<Reentered>,
    },
    /// It had its outcome.
    Ended(Arc<Outcome>),
}

/// A call that was under way.
#[derive(Clone, Debug)]
pub struct Underway {
    /// Which.
    pub call: CallId,
    /// What it asks for.
    pub tool: ToolName,
    /// What it was given, its references filled.
    pub input: Arc<Value>,
    /// The number of the event that says that its attempt began.
    pub started: u64,
}

/// A place in the locks that waits for its call. Dropping it gives the place up.
pub struct Reentered(pub(super) LockGuard);

impl fmt::Debug for Reentered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reentered")
    }
}

impl Past {
    /// Takes the next event of the batch, in order. `number` counts the events of all runs together.
    pub fn take(&mut self, what: &What, number: u64) {
        match what {
            What::CallArrived { call, tool, input, .. } => {
                self.asked = self.asked.saturating_add(1);
                self.arrive(call, tool, input);
            }
            What::BundleArrived { call, tool, .. } => self.arrive(call, tool, &Arc::default()),
            What::CallReady { call, filled: Some(filled) } => {
                self.change(call, |known| known.input = Arc::clone(filled));
            }
            What::AttemptStarted { call, number: attempt } => self.change(call, |known| {
                known.attempts = *attempt;
                known.state = State::Running { started: number, place: None };
            }),
            What::ApprovalDecided { call, decision: Decision::Approved(said), .. } => {
                self.change(call, |known| known.said.push(said.clone()));
            }
            // It goes again, so nothing was carried out or it does no harm.
            What::CallBackoff { call, .. } => self.change(call, |known| known.state = State::Waiting),
            What::CallEnded { outcome } | What::BundleEnded { outcome } => {
                self.change(&outcome.call, |known| known.state = State::Ended(Arc::clone(outcome)));
            }
            _ => {}
        }
    }

    /// The calls that were under way, in no order.
    pub fn underway(&self) -> impl Iterator<Item = Underway> {
        self.calls.iter().filter_map(|(call, known)| match known.state {
            State::Running { started, .. } => {
                let (call, tool, input) = (call.clone(), known.tool.clone(), Arc::clone(&known.input));
                Some(Underway { call, tool, input, started })
            }
            _ => None,
        })
    }

    /// The tools of the calls of which an attempt ever began.
    pub fn begun(&self) -> impl Iterator<Item = &ToolName> {
        self.calls.values().filter(|known| known.attempts > 0).map(|known| &known.tool)
    }

    /// Gives a call that was under way its place in the locks.
    pub fn reenter(&mut self, call: &CallId, place: Reentered) {
        self.change(call, |known| {
            if let State::Running { place: empty, .. } = &mut known.state {
                *empty = Some(place);
            }
        });
    }

    /// What becomes of the calls that have no outcome, if nobody goes on with them: those under way that are
    /// not `repeatable` are `outcome_unknown`, the others `cancelled`, with this reason.
    pub fn abandoned(&self, reason: &str, repeatable: impl Fn(&ToolName) -> bool) -> Vec<Arc<Outcome>> {
        let outcome = |(call, known): (&CallId, &Known)| {
            let error = match &known.state {
                State::Ended(_) => return None,
                State::Running { .. } if !repeatable(&known.tool) => unknown(&known.tool),
                State::Running { .. } => CallError::new(ErrorCode::Cancelled, reason),
                State::Waiting => CallError::new(ErrorCode::Cancelled, format!("{reason}; nothing was carried out")),
            };
            let shown = Arc::from([Content::Text(error.body().into())]);
            let (call, attempts) = (call.clone(), known.attempts);
            Some(Arc::new(Outcome { call, part_of: None, result: Err(error), shown, attempts }))
        };
        self.calls.iter().filter_map(outcome).collect()
    }

    /// How many calls arrived, those of plans included and the plans themselves not.
    pub fn asked(&self) -> u32 {
        self.asked
    }

    /// Whether the call had arrived.
    pub(super) fn contains(&self, call: &CallId) -> bool {
        self.calls.contains_key(call)
    }

    /// The outcome that the call has.
    pub(super) fn outcome(&self, call: &CallId) -> Option<&Arc<Outcome>> {
        match &self.calls.get(call)?.state {
            State::Ended(outcome) => Some(outcome),
            State::Waiting | State::Running { .. } => None,
        }
    }

    /// How many attempts at it had begun, and whether nobody knows what the last came to.
    pub(super) fn attempts(&self, call: &CallId) -> Option<(u32, bool)> {
        let known = self.calls.get(call)?;
        Some((known.attempts, matches!(known.state, State::Running { .. })))
    }

    /// What people said to it, if nobody has to be asked any more: an attempt at it had begun, or it has its outcome.
    pub(super) fn agreed(&mut self, call: &CallId) -> Option<Vec<Said>> {
        let known = self.calls.get_mut(call)?;
        let is_settled = known.attempts > 0 || matches!(known.state, State::Ended(_));
        is_settled.then(|| std::mem::take(&mut known.said))
    }

    /// The place in the locks that waits for it.
    pub(super) fn take_place(&mut self, call: &CallId) -> Option<Reentered> {
        match &mut self.calls.get_mut(call)?.state {
            State::Running { place, .. } => place.take(),
            State::Waiting | State::Ended(_) => None,
        }
    }

    fn arrive(&mut self, call: &CallId, tool: &ToolName, input: &Arc<Value>) {
        let known = Known {
            tool: tool.clone(),
            input: Arc::clone(input),
            attempts: 0,
            said: Vec::new(),
            state: State::Waiting,
        };
        self.calls.insert(call.clone(), known);
    }

    fn change(&mut self, call: &CallId, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.calls.get_mut(call) {
            change(known);
        }
    }
}

/// What becomes of a call that was sent, must not happen twice, and whose process is gone.
pub(super) fn unknown(tool: &ToolName) -> CallError {
    let message = format!(
        "the process that sent this to `{tool}` ended before the answer came, so it may have been carried out: check \
         before trying again"
    );
    CallError::new(ErrorCode::OutcomeUnknown, message)
}
