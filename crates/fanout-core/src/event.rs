//! What happened, in one line of order.
//!
//! From [`run`](crate::run) for calls, and from the loop around it for runs and turns.
//! To every [`Recorder`]: progress, figures, later journal and dashboard. They can disagree about looks, never about
//! facts.
//!
//! Events are facts of the past; nobody answers one.

use std::sync::Arc;
use std::time::Duration;

use crate::approval::Decision;
use crate::call::{ApprovalId, CallId, GroupName, Position, RunId, ToolName};
use crate::effects::Key;
use crate::outcome::{ErrorCode, Outcome};
use crate::tool::Progress;

/// Receives what happened. Called from the task that drives a batch, so it must be quick and never block.
pub trait Recorder: Send + Sync + 'static {
    /// One event. Those of one run come in the order in which they happened.
    fn record(&self, event: &Event);
}

/// A recorder that keeps nothing.
impl Recorder for () {
    fn record(&self, _: &Event) {}
}

impl<A: Recorder, B: Recorder> Recorder for (A, B) {
    fn record(&self, event: &Event) {
        self.0.record(event);
        self.1.record(event);
    }
}

impl<R: Recorder + ?Sized> Recorder for Arc<R> {
    fn record(&self, event: &Event) {
        (**self).record(event);
    }
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// In which run.
    pub run: RunId,
    /// When, since the run began.
    pub at: Duration,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum What {
    /// A run began.
    RunStarted,
    /// The model was asked. Turns count from 1.
    TurnStarted {
        /// Which turn.
        turn: u32,
    },
    /// The model's response is whole. `message` is the assistant message's exact bytes, opaque here.
    ModelEnded {
        /// Which turn.
        turn: u32,
        /// The assistant message as it goes back.
        message: Arc<str>,
        /// Why it stopped, in the API's word.
        stop_reason: String,
    },
    /// A model request failed.
    ModelFailed {
        /// Which turn.
        turn: u32,
        /// What the far side said, or what was seen.
        error: String,
        /// It goes again after so long; if not, the run ends.
        again_after: Option<Duration>,
    },
    /// A call arrived, and this is what it waits for.
    CallArrived {
        /// The call.
        call: CallId,
        /// What it asks for.
        tool: ToolName,
        /// The call that it is a part of.
        part_of: Option<CallId>,
        /// Its place in program order.
        position: Position,
        /// Whether what it writes is declared, rather than inferred.
        declared: bool,
        /// The nearest earlier calls that hold it back, ended or not.
        waits: Arc<[Wait]>,
    },
    /// A call arrived that stands for others: a plan, or the `for_each` of one. Those others arrive by themselves.
    BundleArrived {
        /// The bundle.
        call: CallId,
        /// What it asks for: `plan`, or the tool of its calls.
        tool: ToolName,
        /// The bundle that it is a part of.
        part_of: Option<CallId>,
        /// Its place in program order; its parts stand below it.
        position: Position,
        /// The nearest earlier calls that hold its parts back, as far as is known before they are.
        waits: Arc<[Wait]>,
    },
    /// It is known better what a call waits for: these, in the place of what was told before. A reference was filled, its own or
    /// another's, or a bundle that it waited for has its parts.
    CallWaits {
        /// The call.
        call: CallId,
        /// The nearest earlier calls that hold it back, ended or not.
        waits: Arc<[Wait]>,
    },
    /// Every part of a bundle has its outcome, and so has the bundle.
    BundleEnded {
        /// What it came to.
        outcome: Arc<Outcome>,
    },
    /// People were asked whether it may run.
    ApprovalAsked {
        /// The call; of an atomic plan that is the plan.
        call: CallId,
        /// The question.
        approval: ApprovalId,
    },
    /// People decided whether it may run, or nobody did in time.
    ApprovalDecided {
        /// The call; of an atomic plan that is the plan.
        call: CallId,
        /// The question.
        approval: ApprovalId,
        /// What came of it.
        decision: Decision,
    },
    /// Its waits in the batch, and for people, are over.
    CallReady {
        /// The call.
        call: CallId,
    },
    /// It holds its locks.
    CallLocked {
        /// The call.
        call: CallId,
    },
    /// It has its permits, and an attempt begins.
    AttemptStarted {
        /// The call.
        call: CallId,
        /// Which try; the first is 1.
        number: u32,
    },
    /// An attempt ended; `error` says how, if not well.
    AttemptEnded {
        /// The call.
        call: CallId,
        /// Which try.
        number: u32,
        /// What the tool said.
        error: Option<String>,
    },
    /// Its running attempt says how far it is. At most ten a second for each attempt.
    CallProgress {
        /// The call.
        call: CallId,
        /// How far.
        progress: Progress,
    },
    /// Its attempts failed so far, and it goes again: it keeps its locks and holds no permit.
    CallBackoff {
        /// The call.
        call: CallId,
        /// How many attempts failed.
        attempts: u32,
        /// How long it waits before it asks for a permit again.
        wait: Duration,
    },
    /// An attempt of this run was asked to wait, and with it every run's in the same limit group.
    LimitPaused {
        /// The group.
        group: GroupName,
        /// For how long.
        wait: Duration,
    },
    /// An attempt of this run was the last straw: nothing is sent to this API for a while.
    BreakerOpened {
        /// Its limit group.
        group: GroupName,
        /// For how long.
        wait: Duration,
    },
    /// The call has its one outcome.
    CallEnded {
        /// What it came to.
        outcome: Arc<Outcome>,
    },
    /// Work of an ended call still went on when `stray_hold` ran out: its locks were taken away.
    StrayGivenUp {
        /// The call.
        call: CallId,
    },
    /// The outcomes of this turn's early calls were thrown away.
    TurnDiscarded {
        /// Which turn.
        turn: u32,
        /// Why, in words.
        reason: String,
    },
    /// Every call of the turn is answered.
    TurnEnded {
        /// Which turn.
        turn: u32,
    },
    /// The run is over.
    RunEnded {
        /// The final state, in the design's word: `done`, `failed`, `budget`, `refused`, `cancelled`.
        status: &'static str,
        /// Why, where the state alone does not say.
        reason: Option<String>,
    },
}

/// One thing that a call waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The earlier call.
    pub on: CallId,
    /// Why.
    pub why: Why,
    /// The key they clash on, where they do.
    pub key: Option<Key>,
    /// Whether a missing declaration made it: the clash is between inferred keys of calls that one source brought.
    pub undeclared: bool,
}

/// Why a call waits for an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// It uses the other's output.
    Reference,
    /// Both touch one resource, and one writes.
    Conflict,
    /// It is declared to follow.
    Order,
}

impl Why {
    /// The word that every surface uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Conflict => "conflict",
            Self::Order => "order",
        }
    }
}

/// How a call ended, in the one word of metrics and progress: `ok` or the error code.
pub fn outcome_word(code: Option<ErrorCode>) -> &'static str {
    code.map_or("ok", ErrorCode::as_str)
}
