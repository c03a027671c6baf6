//! The stored form of an event, versioned; core's types are not serialised.
//!
//! From [`What`] to JSON text and back. A text names its kind in `e` and leaves out what is absent. The number of the form
//! stands beside the text in the store: a form that reads an old text differently gets the next number, and [`read`] knows
//! all of them.
//!
//! How far a running attempt is ([`What::CallProgress`]) is not kept: nobody asks once the call has ended.

use std::sync::Arc;
use std::time::Duration;

use fanout_core::approval::{Decision, Said};
use fanout_core::call::{CallId, GroupName, Position, ToolName};
use fanout_core::effects::Key;
use fanout_core::event::{RunKind, Tokens, Wait, What, Why};
use fanout_core::outcome::{CallError, Content, ErrorCode, Outcome, Output};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The form that is written.
pub const FORM: u32 = 1;

/// Why a stored event cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A newer version wrote it.
    #[error("it has the form {0}, and this version reads forms up to {FORM}: use the version that wrote it")]
    Newer(u32),
    /// It is no text that was ever written.
    #[error("it is damaged")]
    Damaged(#[source] serde_json::Error),
    /// It holds a word that nobody writes.
    #[error("it is damaged: `{0}` is no word of it")]
    Word(String),
}

/// The stored form of what happened; `None`: it is not kept.
pub fn write(what: &What) -> Option<String> {
    let record = Record::of(what)?;
    // Every key of it is text and every number finite or a JSON value already.
    serde_json::to_string(&record).ok()
}

/// What happened, from its stored form.
///
/// # Errors
/// [`RecordError`].
pub fn read(form: u32, text: &str) -> Result<What, RecordError> {
    if form > FORM {
        return Err(RecordError::Newer(form));
    }
    let record: Record = serde_json::from_str(text).map_err(RecordError::Damaged)?;
    record.what()
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "e", rename_all = "snake_case")]
enum Record {
    RunStarted {
        kind: String,
        given: Arc<str>,
    },
    RunResumed,
    TurnStarted {
        turn: u32,
    },
    ModelEnded {
        turn: u32,
        stop: String,
        /// Input, output, read from the cache, written to it.
        tokens: [u64; 4],
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usd: Option<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<Arc<str>>,
    },
    Appended {
        message: Arc<str>,
    },
    ModelFailed {
        turn: u32,
        error: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        again_us: Option<u64>,
    },
    CallArrived {
        #[serde(flatten)]
        place: PlaceRecord,
        #[serde(default, skip_serializing_if = "is_false")]
        declared: bool,
        #[serde(default, skip_serializing_if = "is_null")]
        input: Arc<Value>,
    },
    BundleArrived {
        #[serde(flatten)]
        place: PlaceRecord,
    },
    CallWaits {
        call: String,
        waits: Vec<WaitRecord>,
    },
    ApprovalAsked {
        call: String,
        tool: String,
        approval: String,
    },
    ApprovalDecided {
        call: String,
        approval: String,
        decision: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Arc<str>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        words: Option<Arc<str>>,
    },
    CallReady {
        call: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filled: Option<Arc<Value>>,
    },
    CallLocked {
        call: String,
    },
    AttemptStarted {
        call: String,
        n: u32,
    },
    AttemptEnded {
        call: String,
        n: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    CallBackoff {
        call: String,
        n: u32,
        wait_us: u64,
    },
    LimitPaused {
        group: String,
        wait_us: u64,
    },
    BreakerOpened {
        group: String,
        wait_us: u64,
    },
    CallEnded {
        #[serde(flatten)]
        outcome: OutcomeRecord,
    },
    BundleEnded {
        #[serde(flatten)]
        outcome: OutcomeRecord,
    },
    StrayGivenUp {
        call: String,
    },
    TurnDiscarded {
        turn: u32,
        reason: String,
    },
    TurnEnded {
        turn: u32,
    },
    RunEnded {
        status: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct PlaceRecord {
    call: String,
    tool: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of: Option<String>,
    at: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    waits: Vec<WaitRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WaitRecord {
    on: String,
    why: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    undeclared: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct OutcomeRecord {
    call: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    attempts: u32,
    /// What the model is shown.
    shown: Vec<ContentRecord>,
    /// The output calls itself an error.
    #[serde(default, skip_serializing_if = "is_false")]
    is_error: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<ErrorRecord>,
    /// The output of a plan's call, where it is not what is shown: later calls may refer to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<Vec<ContentRecord>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum ContentRecord {
    Text(Arc<str>),
    Image { media_type: String, data: Arc<str> },
}

#[derive(Debug, Serialize, Deserialize)]
struct ErrorRecord {
    code: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    invalid_json: Option<String>,
}

impl Record {
    fn of(what: &What) -> Option<Self> {
        Some(match what {
            What::RunStarted { kind, given } => {
                Self::RunStarted { kind: kind.as_str().to_owned(), given: Arc::clone(given) }
            }
            What::RunResumed => Self::RunResumed,
            What::TurnStarted { turn } => Self::TurnStarted { turn: *turn },
            What::ModelEnded { turn, stop_reason, tokens, cost_usd, state } => Self::ModelEnded {
                turn: *turn,
                stop: stop_reason.clone(),
                tokens: [tokens.input, tokens.output, tokens.cache_read, tokens.cache_write],
                usd: *cost_usd,
                state: state.clone(),
            },
            What::Appended { message } => Self::Appended { message: Arc::clone(message) },
            What::ModelFailed { turn, error, again_after } => {
                Self::ModelFailed { turn: *turn, error: error.clone(), again_us: again_after.map(micros) }
            }
            What::CallArrived { call, tool, part_of, position, declared, input, waits } => Self::CallArrived {
                place: PlaceRecord::of(call, tool, part_of.as_ref(), position, waits),
                declared: *declared,
                input: Arc::clone(input),
            },
            What::BundleArrived { call, tool, part_of, position, waits } => {
                Self::BundleArrived { place: PlaceRecord::of(call, tool, part_of.as_ref(), position, waits) }
            }
            What::CallWaits { call, waits } => {
                Self::CallWaits { call: call.to_string(), waits: waits.iter().map(WaitRecord::of).collect() }
            }
            What::ApprovalAsked { call, tool, approval } => {
                let tool = tool.to_string();
                Self::ApprovalAsked { call: call.to_string(), tool, approval: approval.to_string() }
            }
            What::ApprovalDecided { call, approval, decision } => {
                let Said { by, words } = decision.said().cloned().unwrap_or_default();
                let decision = decision.as_str().to_owned();
                Self::ApprovalDecided { call: call.to_string(), approval: approval.to_string(), decision, by, words }
            }
            What::CallReady { call, filled } => Self::CallReady { call: call.to_string(), filled: filled.clone() },
            What::CallLocked { call } => Self::CallLocked { call: call.to_string() },
            What::AttemptStarted { call, number } => Self::AttemptStarted { call: call.to_string(), n: *number },
            What::AttemptEnded { call, number, error } => {
                Self::AttemptEnded { call: call.to_string(), n: *number, error: error.clone() }
            }
            What::CallBackoff { call, attempts, wait } => {
                Self::CallBackoff { call: call.to_string(), n: *attempts, wait_us: micros(*wait) }
            }
            What::LimitPaused { group, wait } => Self::LimitPaused { group: group.to_string(), wait_us: micros(*wait) },
            What::BreakerOpened { group, wait } => {
                Self::BreakerOpened { group: group.to_string(), wait_us: micros(*wait) }
            }
            What::CallEnded { outcome } => Self::CallEnded { outcome: OutcomeRecord::of(outcome) },
            What::BundleEnded { outcome } => Self::BundleEnded { outcome: OutcomeRecord::of(outcome) },
            What::StrayGivenUp { call } => Self::StrayGivenUp { call: call.to_string() },
            What::TurnDiscarded { turn, reason } => Self::TurnDiscarded { turn: *turn, reason: reason.clone() },
            What::TurnEnded { turn } => Self::TurnEnded { turn: *turn },
            What::RunEnded { status, reason } => {
                Self::RunEnded { status: (*status).to_owned(), reason: reason.clone() }
            }
            // What a later core tells and this form has no place for.
            _ => return None,
        })
    }

    fn what(self) -> Result<What, RecordError> {
        Ok(match self {
            Self::RunStarted { kind, given } => What::RunStarted { kind: kind_of(&kind)?, given },
            Self::RunResumed => What::RunResumed,
            Self::TurnStarted { turn } => What::TurnStarted { turn },
            Self::ModelEnded { turn, stop, tokens, usd, state } => {
                let [input, output, cache_read, cache_write] = tokens;
                let tokens = Tokens { input, output, cache_read, cache_write };
                What::ModelEnded { turn, stop_reason: stop, tokens, cost_usd: usd, state }
            }
            Self::Appended { message } => What::Appended { message },
            Self::ModelFailed { turn, error, again_us } => {
                What::ModelFailed { turn, error, again_after: again_us.map(Duration::from_micros) }
            }
            Self::CallArrived { place, declared, input } => {
                let (call, tool, part_of, position, waits) = place.read()?;
                What::CallArrived { call, tool, part_of, position, declared, input, waits }
            }
            Self::BundleArrived { place } => {
                let (call, tool, part_of, position, waits) = place.read()?;
                What::BundleArrived { call, tool, part_of, position, waits }
            }
            Self::CallWaits { call, waits } => What::CallWaits { call: call.into(), waits: waits_of(waits)? },
            Self::ApprovalAsked { call, tool, approval } => {
                What::ApprovalAsked { call: call.into(), tool: tool.into(), approval: approval.into() }
            }
            Self::ApprovalDecided { call, approval, decision, by, words } => {
                let decision = decision_of(&decision, Said { by, words })?;
                What::ApprovalDecided { call: call.into(), approval: approval.into(), decision }
            }
            Self::CallReady { call, filled } => What::CallReady { call: call.into(), filled },
            Self::CallLocked { call } => What::CallLocked { call: call.into() },
            Self::AttemptStarted { call, n } => What::AttemptStarted { call: call.into(), number: n },
            Self::AttemptEnded { call, n, error } => What::AttemptEnded { call: call.into(), number: n, error },
            Self::CallBackoff { call, n, wait_us } => {
                What::CallBackoff { call: call.into(), attempts: n, wait: Duration::from_micros(wait_us) }
            }
            Self::LimitPaused { group, wait_us } => {
                What::LimitPaused { group: GroupName::from(group), wait: Duration::from_micros(wait_us) }
            }
            Self::BreakerOpened { group, wait_us } => {
                What::BreakerOpened { group: GroupName::from(group), wait: Duration::from_micros(wait_us) }
            }
            Self::CallEnded { outcome } => What::CallEnded { outcome: outcome.read()? },
            Self::BundleEnded { outcome } => What::BundleEnded { outcome: outcome.read()? },
            Self::StrayGivenUp { call } => What::StrayGivenUp { call: call.into() },
            Self::TurnDiscarded { turn, reason } => What::TurnDiscarded { turn, reason },
            Self::TurnEnded { turn } => What::TurnEnded { turn },
            Self::RunEnded { status, reason } => What::RunEnded { status: status_of(&status)?, reason },
        })
    }
}

impl PlaceRecord {
    fn of(call: &CallId, tool: &ToolName, part_of: Option<&CallId>, position: &Position, waits: &[Wait]) -> Self {
        Self {
            call: call.to_string(),
            tool: tool.to_string(),
            of: part_of.map(ToString::to_string),
            at: position.to_string(),
            waits: waits.iter().map(WaitRecord::of).collect(),
        }
    }

    #[expect(clippy::type_complexity, reason = "the fields of two variants, taken apart at once")]
    fn read(self) -> Result<(CallId, ToolName, Option<CallId>, Position, Arc<[Wait]>), RecordError> {
        let position = Position::printed(&self.at).ok_or(RecordError::Word(self.at))?;
        Ok((self.call.into(), self.tool.into(), self.of.map(CallId::from), position, waits_of(self.waits)?))
    }
}

impl WaitRecord {
    fn of(wait: &Wait) -> Self {
        Self {
            on: wait.on.to_string(),
            why: wait.why.as_str().to_owned(),
            key: wait.key.as_ref().map(|key| key.as_str().to_owned()),
            undeclared: wait.undeclared,
        }
    }

    fn read(self) -> Result<Wait, RecordError> {
        let why = [Why::Reference, Why::Conflict, Why::Order].into_iter().find(|why| why.as_str() == self.why);
        Ok(Wait {
            on: self.on.into(),
            why: why.ok_or(RecordError::Word(self.why))?,
            key: self.key.as_deref().map(Key::printed),
            undeclared: self.undeclared,
        })
    }
}

impl OutcomeRecord {
    fn of(outcome: &Outcome) -> Self {
        let shown = contents(&outcome.shown);
        let (mut output, mut data, mut error, mut is_error) = (None, None, None, false);
        match &outcome.result {
            Ok(came) => {
                is_error = came.is_error;
                if outcome.part_of.is_some() {
                    output = Some(contents(&came.content)).filter(|output| *output != shown);
                    data = came.structured.clone();
                }
            }
            Err(came) => error = Some(ErrorRecord::of(came)),
        }
        let (call, of) = (outcome.call.to_string(), outcome.part_of.as_ref().map(ToString::to_string));
        Self { call, of, attempts: outcome.attempts, shown, is_error, error, output, data }
    }

    fn read(self) -> Result<Arc<Outcome>, RecordError> {
        let shown = read_contents(self.shown);
        let result = match self.error {
            Some(error) => Err(error.read()?),
            None => Ok(Arc::new(Output {
                content: self.output.map_or_else(|| shown.clone(), read_contents),
                structured: self.data,
                is_error: self.is_error,
            })),
        };
        let (call, part_of) = (self.call.into(), self.of.map(CallId::from));
        Ok(Arc::new(Outcome { call, part_of, result, shown: shown.into(), attempts: self.attempts }))
    }
}

impl ErrorRecord {
    fn of(error: &CallError) -> Self {
        Self {
            code: error.code.as_str().to_owned(),
            message: error.message.clone(),
            retry_us: error.retry_after.map(micros),
            invalid_json: error.invalid_json.clone(),
        }
    }

    fn read(self) -> Result<CallError, RecordError> {
        let code = ErrorCode::ALL.into_iter().find(|code| code.as_str() == self.code);
        Ok(CallError {
            code: code.ok_or(RecordError::Word(self.code))?,
            message: self.message,
            retry_after: self.retry_us.map(Duration::from_micros),
            invalid_json: self.invalid_json,
        })
    }
}

fn contents(contents: &[Content]) -> Vec<ContentRecord> {
    let record = |content: &Content| match content {
        Content::Text(text) => ContentRecord::Text(Arc::clone(text)),
        Content::Image { media_type, data } => {
            ContentRecord::Image { media_type: media_type.clone(), data: Arc::clone(data) }
        }
    };
    contents.iter().map(record).collect()
}

fn read_contents(records: Vec<ContentRecord>) -> Vec<Content> {
    let content = |record| match record {
        ContentRecord::Text(text) => Content::Text(text),
        ContentRecord::Image { media_type, data } => Content::Image { media_type, data },
    };
    records.into_iter().map(content).collect()
}

fn waits_of(waits: Vec<WaitRecord>) -> Result<Arc<[Wait]>, RecordError> {
    waits.into_iter().map(WaitRecord::read).collect()
}

/// The kind of run of this name.
///
/// # Errors
/// [`RecordError::Word`].
pub fn kind_of(word: &str) -> Result<RunKind, RecordError> {
    let kinds = [RunKind::Agent, RunKind::Message, RunKind::Batch, RunKind::Session, RunKind::Replay];
    kinds.into_iter().find(|kind| kind.as_str() == word).ok_or_else(|| RecordError::Word(word.to_owned()))
}

fn status_of(word: &str) -> Result<&'static str, RecordError> {
    let words = ["done", "failed", "budget", "refused", "cancelled"];
    words.into_iter().find(|status| *status == word).ok_or_else(|| RecordError::Word(word.to_owned()))
}

fn decision_of(word: &str, said: Said) -> Result<Decision, RecordError> {
    let decisions = [Decision::Approved(said.clone()), Decision::Denied(said), Decision::Expired];
    let decision = decisions.into_iter().find(|decision| decision.as_str() == word);
    decision.ok_or_else(|| RecordError::Word(word.to_owned()))
}

/// Whole microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn is_null(value: &Arc<Value>) -> bool {
    value.is_null()
}
