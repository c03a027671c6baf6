//! A run whose process ended, as its events tell it: what [`Agent::resume`](crate::Agent::resume) goes on with.
//!
//! From the events of the run, in order, each with its number among those of all runs. To [`running`](crate::running): the
//! conversation byte for byte, what is used up, and the turn that was open with what its calls came to.

use std::sync::Arc;
use std::time::Duration;

use fanout_anthropic::{Message, Raw, Request, Response, Role, StopReason, Usage};
use fanout_core::event::{RunKind, Tokens, What};
use fanout_core::run::Past;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::agent::AgentOptions;
use crate::conversation::Conversation;
use crate::parked::Parked;
use crate::request::last_id;

/// What a run was given, as [`What::RunStarted`] keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Given {
    /// The model's name.
    pub model: String,
    /// The most tokens of one answer.
    pub max_tokens: u32,
    /// What the model is told before anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The messages that it began with.
    pub messages: Vec<Box<RawValue>>,
}

/// What a run is given, for its first event.
pub(crate) fn given(options: &AgentOptions, conversation: &Conversation) -> Arc<str> {
    let raw = |message: &Message| RawValue::from_string(message.raw().as_str().to_owned()).ok();
    let given = Given {
        model: options.model.clone(),
        max_tokens: options.max_tokens,
        system: options.system.clone(),
        messages: conversation.messages().iter().filter_map(raw).collect(),
    };
    serde_json::to_string(&given).unwrap_or_default().into()
}

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// It does not begin as a run of an agent does.
    #[error("its journal does not begin with what an agent was given")]
    NotBegun,
    /// What it was given cannot be read.
    #[error("what it was given cannot be read")]
    Given(#[source] serde_json::Error),
    /// A message of its conversation cannot be read.
    #[error("a message of its conversation cannot be read")]
    Message(#[source] fanout_anthropic::WireError),
    /// It is over.
    #[error("it ended as `{0}`")]
    Ended(&'static str),
}

/// A run that broke off.
#[derive(Debug)]
pub struct Resumed {
    /// What it was given.
    pub given: Given,
    /// How long it went on.
    pub elapsed: Duration,
    /// Of that, how long it waited for people and for nothing else.
    pub parked: Duration,
    /// How often the model answered.
    pub turns: u32,
    /// How many calls of whole turns were given an outcome.
    pub calls: u32,
    /// What all requests took.
    pub usage: Usage,
    /// What they cost, in US dollars, where that was known.
    pub cost_usd: f64,
    pub(crate) begun_with: usize,
    /// What the last answer took, and how long the conversation was when it was asked for.
    pub(crate) measured: Option<(u64, usize)>,
    pub(crate) state: Option<Arc<str>>,
    pub(crate) open: Option<Open>,
    answers: Vec<Response>,
    messages: Vec<Message>,
}

/// A turn whose answer stands in the conversation, and whose calls have no reply there.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) response: Response,
    pub(crate) past: Past,
}

impl Resumed {
    /// Reads the events of a run.
    ///
    /// # Errors
    /// [`ResumeError`].
    pub fn read<'e>(events: impl IntoIterator<Item = (u64, Duration, &'e What)>) -> Result<Self, ResumeError> {
        let mut events = events.into_iter();
        let mut resumed = match events.next() {
            Some((_, _, What::RunStarted { kind: RunKind::Agent, given })) => Self::begin(given)?,
            _ => return Err(ResumeError::NotBegun),
        };
        resumed.follow(events)?;
        Ok(resumed)
    }

    /// Reads the events of a run that answers a client, which began with these messages and is to go on; `None` if it had
    /// not begun to ask. What it ended as, if it did, counts for nothing.
    ///
    /// # Errors
    /// [`ResumeError::Message`].
    pub fn of_client<'e>(
        request: &Request,
        messages: Vec<Message>,
        events: impl IntoIterator<Item = (u64, Duration, &'e What)>,
    ) -> Result<Option<Self>, ResumeError> {
        let mut events = events.into_iter();
        if !events.any(|(_, _, what)| matches!(what, What::RunStarted { kind: RunKind::Message, .. })) {
            return Ok(None);
        }
        let (model, max_tokens) = (request.model.clone(), request.max_tokens);
        let given = Given { model, max_tokens, system: None, messages: Vec::new() };
        let mut resumed = Self::new(given, messages);
        resumed.follow(events.filter(|(_, _, what)| !matches!(what, What::RunEnded { .. })))?;
        Ok(Some(resumed))
    }

    /// What the model has answered so far, as far as it stands in the conversation.
    pub fn answers(&self) -> &[Response] {
        &self.answers
    }

    fn follow<'e>(&mut self, events: impl Iterator<Item = (u64, Duration, &'e What)>) -> Result<(), ResumeError> {
        let resumed = self;
        let (mut past, mut stop, mut parked) = (Past::default(), None, Parked::default());
        let mut usage = Usage::default();
        for (number, at, what) in events {
            resumed.elapsed = resumed.elapsed.max(at);
            parked.take(at, what);
            resumed.parked = parked.total();
            match what {
                What::TurnStarted { .. } | What::TurnDiscarded { .. } => past = Past::default(),
                What::RunResumed if resumed.open.is_none() => past = Past::default(),
                What::ModelEnded { stop_reason, tokens, cost_usd, state, .. } => {
                    usage = usage_of(*tokens);
                    resumed.answered(usage, *cost_usd, state.clone());
                    stop = Some(StopReason::from_name(stop_reason));
                }
                What::Appended { message } => {
                    let message = message_of(message)?;
                    resumed.open = match (message.role(), stop.clone()) {
                        (Role::Assistant, Some(stop)) => {
                            let blocks = message.blocks().map_err(ResumeError::Message)?;
                            let mut answer = Response::new(blocks.clone(), stop.clone(), usage);
                            answer.id = resumed.state.as_deref().and_then(last_id).unwrap_or_default();
                            resumed.answers.push(answer);
                            Some(Open { response: Response::new(blocks, stop, usage), past: Past::default() })
                        }
                        _ => {
                            resumed.calls = resumed.calls.saturating_add(past.asked());
                            None
                        }
                    };
                    resumed.messages.push(message);
                }
                What::RunEnded { status, .. } => return Err(ResumeError::Ended(status)),
                other => past.take(other, number),
            }
        }
        if let Some(open) = &mut resumed.open {
            open.past = past;
        }
        Ok(())
    }

    fn begin(given: &str) -> Result<Self, ResumeError> {
        let given: Given = serde_json::from_str(given).map_err(ResumeError::Given)?;
        let messages: Vec<Message> =
            given.messages.iter().map(|raw| message_of(raw.get())).collect::<Result<_, _>>()?;
        Ok(Self::new(given, messages))
    }

    fn new(given: Given, messages: Vec<Message>) -> Self {
        Self {
            given,
            elapsed: Duration::ZERO,
            parked: Duration::ZERO,
            turns: 0,
            calls: 0,
            usage: Usage::default(),
            cost_usd: 0.0,
            begun_with: messages.len(),
            measured: None,
            state: None,
            open: None,
            answers: Vec::new(),
            messages,
        }
    }

    fn answered(&mut self, usage: Usage, cost_usd: Option<f64>, state: Option<Arc<str>>) {
        self.turns = self.turns.saturating_add(1);
        self.usage = self.usage + usage;
        self.cost_usd += cost_usd.unwrap_or_default();
        self.measured = Some((usage.total(), self.conversation().bytes()));
        self.state = state;
    }

    /// Everything that was said.
    pub fn conversation(&self) -> Conversation {
        Conversation::new(self.messages.clone())
    }

    /// What is known of the calls of the turn that was open; `None`: none was.
    pub fn past(&mut self) -> Option<&mut Past> {
        self.open.as_mut().map(|open| &mut open.past)
    }
}

/// Tokens as the wire counts them.
pub fn usage_of(tokens: Tokens) -> Usage {
    Usage {
        input_tokens: tokens.input,
        output_tokens: tokens.output,
        cache_read_input_tokens: tokens.cache_read,
        cache_creation_input_tokens: tokens.cache_write,
    }
}

fn message_of(raw: &str) -> Result<Message, ResumeError> {
    Raw::parse(raw).and_then(Message::parse).map_err(ResumeError::Message)
}
