//! A run once more, answered with what was recorded of it.
//!
//! From the journal: the events of a run that has ended. To an agent, or a batch: what the run was given, a [`Model`] that
//! says what the model said, and a toolbox whose tools answer what those of the run did, each after the time that it took.
//! So what runs again is the engine itself, with today's declarations and limits.
//!
//! No tool is called here, and no model asked. Time-outs do not hold: the answers are there.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fanout_agent::{Cancel, Given, calls_of, usage_of};
use fanout_anthropic::{
    Block, BoxFuture, Message, Model, ModelError, Part, Raw, Request, Response, Role, StopReason, Usage, View,
};
use fanout_core::approval::Approval;
use fanout_core::call::{Call, CallId, RunId, ToolName};
use fanout_core::event::{Event, RunKind, What};
use fanout_core::outcome::{CallError, ErrorCode, Outcome, Output};
use fanout_core::timeline::{Bar, Timeline};
use fanout_core::tool::{Attempt, Tool, ToolError, ToolSpec};
use fanout_core::toolbox::{Toolbox, ToolboxError};
use fanout_journal::Told;
use fanout_journal::store::Row;
use serde_json::Value;

use super::given::calls_given;

/// As good as no time-out, and safe to add to any time: what a call took before may be more than one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Why a run cannot be run again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It goes on, or has not begun.
    #[error(
        "the run `{run}` is `{state}`: only one that has ended can be run again; `fanout runs cancel {run}` stops it"
    )]
    NotEnded {
        /// Which.
        run: RunId,
        /// Its state.
        state: &'static str,
    },
    /// Whoever asked had the rest of it.
    #[error(
        "the run `{run}` is a `{kind}`, whose client had what it was given: send the request again; what can be run again are \
         the runs of `fanout run`, `fanout call`, `POST /fanout/v1/runs` and `tool_calls`"
    )]
    Kind {
        /// Which.
        run: RunId,
        /// What kind it is.
        kind: &'static str,
    },
    /// Its beginning is not there.
    #[error("the journal does not have what the run `{run}` was given, so it cannot be run again")]
    NotBegun {
        /// Which.
        run: RunId,
    },
    /// What it was given, or what the model said, cannot be read.
    #[error("{what} of the run `{run}` cannot be read: {detail}")]
    Unreadable {
        /// Which.
        run: RunId,
        /// What.
        what: &'static str,
        /// Why.
        detail: String,
    },
}

/// What a run was given.
#[derive(Debug)]
pub enum Replayed {
    /// A model's run.
    Agent(Box<Given>),
    /// A batch: its calls, in program order.
    Batch(Vec<Call>),
}

/// All that is needed to run a run again.
#[derive(Debug)]
pub struct Recording {
    /// What it was given.
    pub given: Replayed,
    /// What it was answered.
    pub answers: Answers,
}

/// What the model and the tools of a run answered.
#[derive(Debug)]
pub struct Answers {
    turns: Vec<Turn>,
    /// How the run ended.
    status: Option<&'static str>,
    reason: Option<String>,
}

/// One request to the model, its answer, and the calls of that; of a batch only its calls.
#[derive(Debug, Default)]
struct Turn {
    number: u32,
    asked_at: Duration,
    answer: Option<Answer>,
    /// When its calls came, since the model was asked.
    arrived: HashMap<CallId, Duration>,
    calls: HashMap<CallId, Recorded>,
    /// It asked for more of the answer before, in vain, and the run went on with what there was.
    in_vain: bool,
}

#[derive(Debug)]
struct Answer {
    stop: StopReason,
    usage: Usage,
    took: Duration,
    /// None of an answer that was not kept, as it was asked for again or counted for nothing.
    blocks: Vec<Block>,
}

/// What is recorded of a call.
#[derive(Clone, Debug)]
struct Recorded {
    tool: ToolName,
    input: Arc<Value>,
    /// What it came to, and how long that took.
    came: Option<(Arc<Outcome>, Duration)>,
}

impl Recording {
    /// Reads the events of a run that has ended.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn read(row: &Row, told: &[Told]) -> Result<Self, ReplayError> {
        let run = || row.run.clone();
        if !row.state.is_over() {
            return Err(ReplayError::NotEnded { run: run(), state: row.state.as_str() });
        }
        let unreadable = |what, detail| ReplayError::Unreadable { run: run(), what, detail };
        let given = match told.first().map(|told| &told.what) {
            Some(What::RunStarted { kind: RunKind::Agent, given }) => {
                let given = serde_json::from_str(given);
                Replayed::Agent(Box::new(given.map_err(|error| unreadable("what was given", error.to_string()))?))
            }
            Some(What::RunStarted { kind: RunKind::Batch, given }) => {
                Replayed::Batch(calls_given(given).ok_or_else(|| ReplayError::NotBegun { run: run() })?)
            }
            Some(What::RunStarted { kind, .. }) => return Err(ReplayError::Kind { run: run(), kind: kind.as_str() }),
            _ => return Err(ReplayError::NotBegun { run: run() }),
        };
        let mut reading = Reading::default();
        for told in told {
            let event = Event { run: run(), at: told.at, what: told.what.clone() };
            reading.take(&event).map_err(|detail| unreadable("an answer of the model", detail))?;
        }
        let Reading { turns, status, reason, .. } = reading;
        Ok(Self { given, answers: Answers { turns, status, reason } })
    }
}

impl Answers {
    /// The model and the tools of the run, as they answered then. Of the tools of `toolbox`, which are today's, it takes all
    /// but what they do. Where the run was stopped while the model was asked, `cancel` is pulled.
    ///
    /// # Errors
    /// [`ToolboxError`], which no toolbox gives that was made before.
    pub fn equipment(self, toolbox: &Toolbox, cancel: Cancel) -> Result<(Arc<dyn Model>, Arc<Toolbox>), ToolboxError> {
        let (turns, status, reason) = (self.turns, self.status, self.reason);
        // The model is asked before there are calls; a batch has but one turn.
        let tape = Arc::new(Tape { turns, at: AtomicUsize::new(0), asked: AtomicUsize::new(0) });
        let mut played = Toolbox::new();
        played.hide((**toolbox.secrets()).clone());
        for tool in toolbox.iter() {
            if tool.is_plan() {
                played.add_plan(tool.spec.policy.result_max)?;
            } else {
                played.add(Answering { spec: tool.spec.clone(), tape: Arc::clone(&tape) })?;
            }
        }
        let end = Mutex::new(Some((status.unwrap_or("failed"), reason)));
        Ok((Arc::new(Saying { tape, end, cancel }), Arc::new(played)))
    }
}

/// What of a run is read so far.
#[derive(Default)]
struct Reading {
    timeline: Timeline,
    turns: Vec<Turn>,
    status: Option<&'static str>,
    reason: Option<String>,
}

impl Reading {
    /// Takes the next event. What is wrong with it comes in words.
    fn take(&mut self, event: &Event) -> Result<(), String> {
        self.timeline.take(event);
        match &event.what {
            // Of a turn that was asked for again, only the last time counts.
            What::TurnStarted { turn } => {
                self.turns.pop_if(|last| last.number == *turn && !last.in_vain);
                self.turns.push(Turn { number: *turn, asked_at: event.at, ..Turn::default() });
            }
            What::ModelEnded { stop_reason, tokens, .. } => {
                let (turn, stop) = (self.current(), StopReason::from_name(stop_reason));
                let took = event.at.saturating_sub(turn.asked_at);
                turn.answer = Some(Answer { stop, usage: usage_of(*tokens), took, blocks: Vec::new() });
            }
            What::Appended { message } => {
                let message = Raw::parse(&**message).and_then(Message::parse).map_err(|error| error.to_string())?;
                if message.role() == Role::Assistant {
                    self.said(message.blocks().map_err(|error| error.to_string())?);
                }
            }
            What::CallArrived { call, tool, input, .. } => self.arrive(call, tool, input, event.at),
            What::BundleArrived { call, tool, .. } => self.arrive(call, tool, &Arc::default(), event.at),
            What::CallReady { call, filled: Some(filled) } => {
                if let Some(known) = self.current().calls.get_mut(call) {
                    known.input = Arc::clone(filled);
                }
            }
            What::CallEnded { outcome } => {
                let took = self.timeline.bar(&outcome.call).map(Bar::took).unwrap_or_default();
                if let Some(known) = self.current().calls.get_mut(&outcome.call) {
                    known.came = Some((Arc::clone(outcome), took));
                }
            }
            What::RunEnded { status, reason } => (self.status, self.reason) = (Some(*status), reason.clone()),
            _ => {}
        }
        Ok(())
    }

    /// The turn that is under way; that of a batch begins by itself.
    fn current(&mut self) -> &mut Turn {
        if self.turns.is_empty() {
            self.turns.push(Turn::default());
        }
        let last = self.turns.len() - 1;
        &mut self.turns[last]
    }

    /// The last answer is these blocks. If there was none since, more of it was asked for in vain.
    fn said(&mut self, blocks: Vec<Block>) {
        let turn = self.current();
        turn.in_vain = turn.answer.is_none();
        if let Some(answer) = self.turns.iter_mut().rev().find_map(|turn| turn.answer.as_mut()) {
            answer.blocks = blocks;
        }
    }

    fn arrive(&mut self, call: &CallId, tool: &ToolName, input: &Arc<Value>, at: Duration) {
        let turn = self.current();
        turn.arrived.insert(call.clone(), at.saturating_sub(turn.asked_at));
        turn.calls.insert(call.clone(), Recorded { tool: tool.clone(), input: Arc::clone(input), came: None });
    }
}

/// The turns of a run, and where its replay stands.
struct Tape {
    turns: Vec<Turn>,
    /// Which turn's calls are run.
    at: AtomicUsize,
    /// How often the model was asked.
    asked: AtomicUsize,
}

impl Tape {
    fn call(&self, call: &CallId) -> Option<&Recorded> {
        self.turns.get(self.at.load(Ordering::SeqCst))?.calls.get(call)
    }

    /// The next turn, whose calls come now; `None`: it is the last, which broke off, or past it.
    fn next(&self) -> Option<&Turn> {
        let at = self.asked.fetch_add(1, Ordering::SeqCst);
        self.at.store(at, Ordering::SeqCst);
        self.turns.get(at).filter(|turn| turn.answer.is_some() || turn.in_vain)
    }
}

/// The model of a run, as it answered then.
struct Saying {
    tape: Arc<Tape>,
    /// How the run ended, until that is said.
    end: Mutex<Option<(&'static str, Option<String>)>>,
    cancel: Cancel,
}

impl Model for Saying {
    fn respond<'a>(
        &'a self,
        _: &'a Request,
        on_part: &'a mut (dyn FnMut(Part<'_>) + Send),
    ) -> BoxFuture<'a, Result<Response, ModelError>> {
        Box::pin(async move {
            let Some(turn) = self.tape.next() else { return self.ended().await };
            let Some(answer) = &turn.answer else { return Err(not_said("")) };
            let mut waited = Duration::ZERO;
            for (index, block) in answer.blocks.iter().enumerate() {
                // A call stands at the end of its block, so that is when the block was whole.
                let at = calls_of(std::slice::from_ref(block)).first().and_then(|call| turn.arrived.get(&call.id));
                let until = at.copied().unwrap_or(waited).clamp(waited, answer.took.max(waited));
                tokio::time::sleep(until - waited).await;
                waited = until;
                if let View::Text(text) = block.view() {
                    on_part(Part::Text(text));
                }
                on_part(Part::Block { index, block });
            }
            tokio::time::sleep(answer.took.saturating_sub(waited)).await;
            Ok(Response::new(answer.blocks.clone(), answer.stop.clone(), answer.usage))
        })
    }
}

impl Saying {
    /// Nothing more was said. A run that was stopped is stopped here too; else nobody knows what the model would say.
    async fn ended(&self) -> Result<Response, ModelError> {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(("cancelled", reason)) = &end {
            self.cancel.cancel(reason.as_deref().unwrap_or("it was stopped here"));
            return std::future::pending().await;
        }
        let how = match end {
            Some((status, Some(reason))) => format!(": the run ended as `{status}` ({reason})"),
            Some((status, None)) => format!(": the run ended as `{status}`"),
            None => String::new(),
        };
        Err(not_said(&how))
    }
}

/// The error that no request gets by being sent again.
fn not_said(how: &str) -> ModelError {
    ModelError::Status {
        status: 400,
        kind: "not_recorded".to_owned(),
        message: format!("no further answer of the model is recorded{how}"),
        error_code: None,
        retry_after: None,
        should_retry: Some(false),
        request_id: None,
    }
}

/// A tool that answers what was recorded of its calls.
struct Answering {
    spec: ToolSpec,
    tape: Arc<Tape>,
}

impl Tool for Answering {
    fn spec(&self) -> ToolSpec {
        let mut spec = self.spec.clone();
        (spec.policy.timeout, spec.policy.deadline) = (TIMEOUT, TIMEOUT);
        // What people said then is in what the call came to.
        spec.policy.approval = Approval::Never;
        spec
    }

    fn call(&self, attempt: Attempt) -> fanout_core::tool::BoxFuture<'static, Result<Output, ToolError>> {
        let came = match self.tape.call(&attempt.call) {
            None => Err("nothing is recorded of this call".to_owned()),
            Some(known) => came(known, &attempt),
        };
        Box::pin(async move {
            let (outcome, took) = came.map_err(|why| not_recorded(&why))?;
            tokio::time::sleep(took).await;
            if let Some(atomic) = attempt.atomic() {
                atomic.answer_recorded(Output { content: outcome.shown.to_vec(), ..Output::default() });
            }
            match &outcome.result {
                Ok(output) => Ok((**output).clone()),
                Err(error) => Err(ToolError::Recorded(Box::new(error.clone()))),
            }
        })
    }
}

/// What a call came to, if it is the one that is recorded; else why it is not.
fn came(known: &Recorded, attempt: &Attempt) -> Result<(Arc<Outcome>, Duration), String> {
    if known.tool != attempt.tool {
        return Err(format!("what is recorded of it is a call of `{}`", known.tool));
    }
    if known.input != attempt.input {
        return Err("it is recorded with another input".to_owned());
    }
    let Some((outcome, took)) = known.came.clone() else {
        return Err("it had no outcome when the run ended".to_owned());
    };
    // What the world or a person did to a call that never began is recorded like any answer; what the engine decided is not.
    let is_answer = |error: &CallError| {
        let world = [
            ErrorCode::Timeout,
            ErrorCode::RateLimited,
            ErrorCode::CircuitOpen,
            ErrorCode::Denied,
            ErrorCode::Cancelled,
            ErrorCode::Conflict,
            ErrorCode::OutcomeUnknown,
        ];
        world.contains(&error.code)
    };
    match &outcome.result {
        Err(error) if outcome.attempts == 0 && !is_answer(error) => {
            Err(format!("it never ran: it ended as `{}`", error.code))
        }
        _ => Ok((outcome, took)),
    }
}

fn not_recorded(why: &str) -> ToolError {
    let message = format!("not called: this is a replay with recorded answers, and {why}. `--live` calls it");
    ToolError::Recorded(Box::new(CallError::new(ErrorCode::Internal, message)))
}

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tape").field("turns", &self.turns.len()).finish_non_exhaustive()
    }
}
