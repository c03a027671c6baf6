//! What happened, in one line of order.
//!
//! From [`run`](crate::run) for calls, and from the loop around it for runs and turns.
//! To every [`Recorder`]: progress, figures, journal, later dashboard. They can disagree about looks, never about facts.
//!
//! Events are facts of the past; nobody answers one.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::approval::Decision;
use crate::call::{ApprovalId, CallId, GroupName, Position, RunId, ToolName};
use crate::effects::Key;
use crate::outcome::{ErrorCode, Outcome};
use crate::tool::{BoxFuture, Progress};

/// Receives what happened. Called from the task that drives a batch, so it must be quick and never block.
pub trait Recorder: Send + Sync + 'static {
    /// One event. Those of one run come in the order in which they happened.
    fn record(&self, event: &Event);

    /// Waits until all that was recorded so far outlives the process; `None`: there is nothing to wait for, because it does
    /// already or never will. An attempt at a call that is not repeatable waits for it before anything is sent, so that no
    /// such attempt is ever unknown to who comes after a crash.
    ///
    /// # Errors
    /// [`NotKept`]: it cannot be written. Nothing is lost yet, and nothing that must not happen twice may start.
    ///
    /// # Cancellation
    /// Dropping the future changes nothing.
    fn kept(&self) -> Option<BoxFuture<'static, Result<(), NotKept>>> {
        None
    }
}

/// What was recorded cannot be kept; the text says why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotKept(pub Arc<str>);

/// A recorder that keeps nothing.
impl Recorder for () {
    fn record(&self, _: &Event) {}
}

impl<A: Recorder, B: Recorder> Recorder for (A, B) {
    fn record(&self, event: &Event) {
        self.0.record(event);
        self.1.record(event);
    }

    fn kept(&self) -> Option<BoxFuture<'static, Result<(), NotKept>>> {
        match (self.0.kept(), self.1.kept()) {
            (Some(first), Some(second)) => Some(Box::pin(async move {
                first.await?;
                second.await
            })),
            (first, second) => first.or(second),
        }
    }
}

impl<R: Recorder + ?Sized> Recorder for Arc<R> {
    fn record(&self, event: &Event) {
        (**self).record(event);
    }

    fn kept(&self) -> Option<BoxFuture<'static, Result<(), NotKept>>> {
        (**self).kept()
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
    RunStarted {
        /// What kind of run.
        kind: RunKind,
        /// What it was given, in the words of whoever began it: enough to go on with it in another process. Opaque here.
        given: Arc<str>,
    },
    /// It goes on in another process, after the one that it ran in was gone. What came in of a turn whose response was not
    /// whole is thrown away.
    RunResumed,
    /// The model was asked. Turns count from 1.
    TurnStarted {
        /// Which turn.
        turn: u32,
    },
    /// The model's response is whole.
    ModelEnded {
        /// Which turn.
        turn: u32,
        /// Why it stopped, in the API's word.
        stop_reason: String,
        /// What it took.
        tokens: Tokens,
        /// What that cost in US dollars, where the price is known.
        cost_usd: Option<f64>,
        /// What the next request must carry beside the conversation, if anything. Opaque here.
        state: Option<Arc<str>>,
    },
    /// The conversation grew by this message: its exact bytes, opaque here. Nothing is ever taken away from it.
    Appended {
        /// The message.
        message: Arc<str>,
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
        /// What it was given; of a plan's call, before its references are filled.
        input: Arc<Value>,
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
        /// The tool that needs it; of an atomic plan that of the member.
        tool: ToolName,
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
        /// Its input with the references filled, if it had any.
        filled: Option<Arc<Value>>,
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

/// What begins and ends with a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunKind {
    /// A model is asked, turn after turn.
    Agent,
    /// A client's request, answered with a message.
    Message,
    /// One batch that was handed over.
    Batch,
    /// Calls that come one by one, for as long as somebody stays connected.
    Session,
    /// An earlier run once more, answered with what was recorded of it. Nobody goes on with one that broke off: it would be
    /// answered by the world then.
    Replay,
}

impl RunKind {
    /// The word that every surface uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Message => "message",
            Self::Batch => "batch",
            Self::Session => "session",
            Self::Replay => "replay",
        }
    }
}

/// What a model's response took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Input that was not cached.
    pub input: u64,
    /// Output.
    pub output: u64,
    /// Input that was read from the cache.
    pub cache_read: u64,
    /// Input that was written to the cache.
    pub cache_write: u64,
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
