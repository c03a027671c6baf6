//! One run on its way: turn after turn, until something ends it.
//!
//! From [`agent`](crate::agent): the options and a conversation. To its report. How a turn can end stands in
//! [`Running::after`], for every stop reason the API has; what ends a run is an [`End`].

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use fanout_anthropic::{Again, Block, Model, ModelError, Part, Request, Response, StopReason, Usage, View};
use fanout_core::call::{Call, Input};
use fanout_core::event::What;
use fanout_core::outcome::{CallError, ErrorCode, Outcome};
use fanout_core::run::{Batch, BatchError, Run};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep, sleep_until};

use crate::agent::AgentOptions;
use crate::budget::{Budget, BudgetError};
use crate::conversation::Conversation;
use crate::request::Template;
use crate::stop::{Cancel, End};
use crate::turn::{call_of, calls_of, reply};

/// So many equal calls with equal errors, one after another, end the run: the model is stuck.
const REPEATS_MAX: u32 = 5;

/// One token is at least about so many bytes of a request; the estimate of what is not measured yet stays above the
/// truth for any ordinary text.
const TOKEN_BYTES: usize = 2;

pub(crate) struct Running<'a> {
    pub(crate) conversation: Conversation,
    pub(crate) turns: u32,
    pub(crate) calls: u32,
    pub(crate) usage: Usage,
    pub(crate) answer: String,
    model: &'a dyn Model,
    options: &'a AgentOptions,
    budget: Budget,
    cancel: Cancel,
    deadline: Instant,
    /// What the last turn took, and how long the conversation was: the next estimate starts from there.
    measured: Option<(u64, usize)>,
    /// This request asks once more for an answer that was cut off, with twice the tokens.
    widened: bool,
    /// How often the present request has failed.
    failures: u32,
    repeats: Repeats,
}

/// How a turn left the run.
enum Next {
    /// Ask the model again.
    Ask,
    /// Ask for the same answer again, with twice the tokens.
    AskWider,
    /// Ask for the same answer again, after so long.
    AskAfter(Duration),
    /// The model is done.
    Done,
}

/// Why there is no response.
enum Unanswered {
    Model(ModelError),
    End(End),
}

impl<'a> Running<'a> {
    pub(crate) fn new(
        model: &'a dyn Model,
        options: &'a AgentOptions,
        conversation: Conversation,
        budget: Budget,
        cancel: Cancel,
    ) -> Self {
        Self {
            conversation,
            turns: 0,
            calls: 0,
            usage: Usage::default(),
            answer: String::new(),
            model,
            options,
            budget,
            cancel,
            deadline: Instant::now() + options.limits.deadline,
            measured: None,
            widened: false,
            failures: 0,
            repeats: Repeats::default(),
        }
    }

    /// Goes on until the model is done.
    pub(crate) async fn go(&mut self, run: &mut Run) -> Result<(), End> {
        // It printed when the agent was built, so it prints again.
        let mut template =
            Template::new(self.options, run.toolbox()).map_err(|error| End::Failed(error.to_string()))?;
        loop {
            let next = self.turn(run, &mut template).await?;
            self.widened = matches!(next, Next::AskWider);
            match next {
                Next::Done => return Ok(()),
                Next::Ask | Next::AskWider => self.failures = 0,
                Next::AskAfter(wait) => self.pause(wait).await?,
            }
        }
    }

    /// One request and its response, with all that the response asks for.
    async fn turn(&mut self, run: &mut Run, template: &mut Template) -> Result<Next, End> {
        let turns_max = self.options.limits.turns_max;
        if self.turns >= turns_max {
            return Err(End::Budget(BudgetError::Turns(turns_max)));
        }
        self.check()?;
        let turn = self.turns + 1;
        let max_tokens = self.options.max_tokens.saturating_mul(if self.widened { 2 } else { 1 });
        let request = template.request(turn, max_tokens, &self.conversation);
        let price = self.options.price;
        let reservation = self.budget.reserve(self.estimate(template), u64::from(max_tokens), price);
        let reservation = reservation.map_err(End::Budget)?;
        run.record(|| What::TurnStarted { turn });
        let mut early = Early::open(run.batch(), request.stream && self.options.early_start);
        match self.respond(&request, &mut early).await {
            Ok(response) => {
                reservation.spend(&response.usage, price);
                self.usage = self.usage + response.usage;
                self.measured = Some((response.usage.total(), self.conversation.bytes()));
                self.turns = turn;
                template.keep_container(&response);
                early.batch.run().record(|| What::ModelEnded {
                    turn,
                    message: fanout_anthropic::Message::assistant(&response.blocks).raw().as_str().into(),
                    stop_reason: response.stop_reason.to_string(),
                });
                self.after(early, &response).await
            }
            Err(unanswered) => {
                let (reason, next) = match unanswered {
                    Unanswered::End(end) => (end.reason().unwrap_or_default(), Err(end)),
                    Unanswered::Model(error) => (error.to_string(), self.again(error)),
                };
                early.discard(turn, &reason);
                next
            }
        }
    }

    /// Sends the request and feeds calls to the batch as they arrive.
    async fn respond(&self, request: &Request, early: &mut Early<'_>) -> Result<Response, Unanswered> {
        let (tell, mut arrived) = unbounded_channel::<Block>();
        let feed = early.feed;
        let mut on_part = move |part: Part<'_>| {
            if let Part::Block { block, .. } = part
                && feed
                && matches!(block.view(), View::ToolUse(_))
            {
                // No reader: the response is being given up.
                let _ = tell.send(block.clone());
            }
        };
        let mut response = self.model.respond(request, &mut on_part);
        let deadline = sleep_until(self.deadline);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                biased;
                reason = self.cancel.cancelled() => return Err(Unanswered::End(End::Cancelled(reason))),
                () = &mut deadline => return Err(Unanswered::End(self.out_of_time())),
                result = &mut response => return result.map_err(Unanswered::Model),
                () = early.progress(&mut arrived) => {}
            }
        }
    }

    /// What a response means for the run.
    async fn after(&mut self, early: Early<'_>, response: &Response) -> Result<Next, End> {
        let calls = calls_of(&response.blocks);
        let has_calls = !calls.is_empty();
        match &response.stop_reason {
            StopReason::Refusal => {
                early.discard(self.turns, "the model refused");
                Err(End::Refused)
            }
            StopReason::ToolUse if has_calls => self.run_calls(early, response, calls).await,
            StopReason::PauseTurn if !response.blocks.is_empty() => {
                early.discard(self.turns, "the turn was paused");
                self.append(response, &response.blocks);
                Ok(Next::Ask)
            }
            StopReason::MaxTokens => self.cut_off(early, response),
            StopReason::ModelContextWindowExceeded => {
                early.discard(self.turns, "the context window is full");
                self.answer_uncalled(response, "the context window is full");
                Err(End::Failed("context_window".to_owned()))
            }
            StopReason::EndTurn | StopReason::StopSequence if !has_calls => {
                early.discard(self.turns, "the model is done");
                self.append(response, &response.blocks);
                Ok(Next::Done)
            }
            other => {
                let reason = format!("the response stopped as `{other}`");
                early.discard(self.turns, &reason);
                let asks_on = self.answer_uncalled(response, &reason);
                match other {
                    StopReason::Other(_) if !asks_on => Ok(Next::Done),
                    StopReason::ToolUse | StopReason::PauseTurn => {
                        Err(End::Failed(format!("malformed_response: {reason} and holds nothing to go on with")))
                    }
                    _ => Ok(Next::Ask),
                }
            }
        }
    }

    /// Runs the calls of a response and appends the one reply.
    async fn run_calls(&mut self, mut early: Early<'_>, response: &Response, calls: Vec<Call>) -> Result<Next, End> {
        if let Err(error) = self.take_calls(&mut early, &calls) {
            early.discard(self.turns, &error.to_string());
            return Err(End::Failed(format!("malformed_response: {error}")));
        }
        self.append(response, &response.blocks);
        let asked = u32::try_from(calls.len()).unwrap_or(u32::MAX);
        let Early { mut batch, .. } = early;
        batch.commit();
        let deadline = sleep_until(self.deadline);
        tokio::pin!(deadline);
        let mut stopped = None;
        while batch.unanswered() > 0 {
            tokio::select! {
                biased;
                () = batch.progress() => {}
                reason = self.cancel.cancelled(), if stopped.is_none() => {
                    batch.cancel(&reason);
                    stopped = Some(End::Cancelled(reason));
                }
                () = &mut deadline, if stopped.is_none() => {
                    let end = self.out_of_time();
                    batch.cancel(&end.reason().unwrap_or_default());
                    stopped = Some(end);
                }
            }
        }
        let turn = self.turns;
        batch.run().record(|| What::TurnEnded { turn });
        let outcomes = batch.finish().await;
        self.conversation.append_reply(reply(&outcomes));
        let calls_max = self.options.limits.calls_max;
        let over = self.calls.saturating_add(asked) > calls_max;
        self.calls = self.calls.saturating_add(asked);
        if let Some(end) = stopped {
            return Err(end);
        }
        if over {
            return Err(End::Budget(BudgetError::Calls(calls_max)));
        }
        if self.turns >= self.options.limits.turns_max {
            return Err(End::Budget(BudgetError::Turns(self.options.limits.turns_max)));
        }
        self.repeats.take(&calls, &outcomes)?;
        Ok(Next::Ask)
    }

    /// Gives the batch every call of the response that it does not have yet. Those for which there is no budget are
    /// answered so.
    fn take_calls(&self, early: &mut Early<'_>, calls: &[Call]) -> Result<(), BatchError> {
        let limits = &self.options.limits;
        let left = usize::try_from(limits.calls_max.saturating_sub(self.calls)).unwrap_or(usize::MAX);
        if !early.is_prefix_of(calls) {
            early.start_over();
        }
        for (at, call) in calls.iter().enumerate().skip(early.given.len()) {
            let refusal = if self.turns >= limits.turns_max {
                let turns = limits.turns_max;
                Some(format!("not run: this was the last of the run's {turns} turns, so nobody would see the result"))
            } else if at >= left {
                Some(format!("not run: the run has used its {} calls", limits.calls_max))
            } else if at >= limits.batch_max {
                let (max, all) = (limits.batch_max, calls.len());
                Some(format!("not run: only the first {max} of {all} calls of one response run; ask for fewer at once"))
            } else {
                None
            };
            match refusal {
                Some(message) => early.batch.refuse(call, CallError::new(ErrorCode::Budget, message))?,
                None => early.batch.call(call.clone())?,
            }
        }
        Ok(())
    }

    /// `max_tokens`: once more with twice the tokens, if that may mend it; else the whole blocks are kept and their calls
    /// answered with an error.
    fn cut_off(&mut self, early: Early<'_>, response: &Response) -> Result<Next, End> {
        early.discard(self.turns, "the response was cut off at `max_tokens`");
        let wider = u64::from(self.options.max_tokens.saturating_mul(2));
        let affordable = self.turns < self.options.limits.turns_max
            && self.budget.reserve(response.usage.total(), wider, self.options.price).is_ok();
        let mendable =
            cut_short(response) || matches!(response.blocks.last().map(Block::view), None | Some(View::Text(_)));
        if mendable && affordable && !self.widened {
            return Ok(Next::AskWider);
        }
        if self.answer_uncalled(response, "the response was cut off at `max_tokens`") {
            return Ok(Next::Ask);
        }
        Err(End::Failed("max_tokens".to_owned()))
    }

    /// Appends the whole blocks of a response whose calls must not run, and answers each of them with an error. Answers
    /// whether there was one.
    fn answer_uncalled(&mut self, response: &Response, reason: &str) -> bool {
        let cut = cut_short(response);
        let whole = &response.blocks[..response.blocks.len() - usize::from(cut)];
        self.append(response, whole);
        let calls = calls_of(whole);
        if calls.is_empty() {
            return false;
        }
        let message = format!("not run: {reason}. If it is still needed, call it again, with less in one response");
        let error = CallError::new(ErrorCode::Cancelled, message);
        let outcomes: Vec<_> = calls.into_iter().map(|call| refused(call, &error)).collect();
        self.conversation.append_reply(reply(&outcomes));
        true
    }

    fn append(&mut self, response: &Response, blocks: &[Block]) {
        self.conversation.append_answer(blocks);
        self.answer = text_of(&response.blocks);
    }

    /// Whether and when a failed request goes again.
    fn again(&mut self, error: ModelError) -> Result<Next, End> {
        self.failures += 1;
        let named = match error.again() {
            Again::Never => return Err(error.into()),
            Again::After(wait) => Some(wait),
            Again::Backoff => None,
        };
        let wait = self.options.backoff.wait(self.failures, named, random());
        match wait {
            Some(wait) if Instant::now() + wait < self.deadline => Ok(Next::AskAfter(wait)),
            Some(wait) => {
                Err(End::Failed(format!("{error}; the wait of {wait:?} is longer than what is left of the run")))
            }
            None => {
                let tries = self.failures;
                let End::Failed(reason) = End::from(error) else { return Err(self.out_of_time()) };
                Err(End::Failed(format!("{reason} ({tries} tries)")))
            }
        }
    }

    async fn pause(&self, wait: Duration) -> Result<(), End> {
        tokio::select! {
            reason = self.cancel.cancelled() => Err(End::Cancelled(reason)),
            () = sleep(wait) => Ok(()),
        }
    }

    fn check(&self) -> Result<(), End> {
        if let Some(reason) = self.cancel.reason() {
            return Err(End::Cancelled(reason));
        }
        if Instant::now() >= self.deadline { Err(self.out_of_time()) } else { Ok(()) }
    }

    fn out_of_time(&self) -> End {
        End::Budget(BudgetError::Deadline(self.options.limits.deadline))
    }

    /// The most input tokens that the next request may take: what the last turn took, and a bound for what is new since.
    fn estimate(&self, template: &Template) -> u64 {
        let bytes = self.conversation.bytes();
        let (known, unseen) = match self.measured {
            Some((tokens, measured)) => (tokens, bytes.saturating_sub(measured)),
            None => (0, bytes + template.bytes()),
        };
        known.saturating_add(u64::try_from(unseen.div_ceil(TOKEN_BYTES)).unwrap_or(u64::MAX))
    }
}

/// A batch that takes calls while their response still streams.
struct Early<'run> {
    batch: Batch<'run>,
    feed: bool,
    given: Vec<Call>,
}

impl<'run> Early<'run> {
    fn open(batch: Batch<'run>, feed: bool) -> Self {
        Self { batch, feed, given: Vec::new() }
    }

    /// The next call that arrives, or the next thing that happens to one that runs.
    async fn progress(&mut self, arrived: &mut UnboundedReceiver<Block>) {
        tokio::select! {
            biased;
            Some(block) = arrived.recv() => self.take(&block),
            () = self.batch.progress() => {}
        }
    }

    fn take(&mut self, block: &Block) {
        let index = u32::try_from(self.given.len()).unwrap_or(u32::MAX);
        let Some(call) = call_of(index, block) else { return };
        // A second call of one id is found again when the response is whole, and reported there.
        if self.batch.call(call.clone()).is_ok() {
            self.given.push(call);
        }
    }

    fn is_prefix_of(&self, calls: &[Call]) -> bool {
        calls.starts_with(&self.given)
    }

    /// What came in while the response streamed is not what it says in the end: nothing but repeatable reads can have
    /// started, so it is all done anew.
    fn start_over(&mut self) {
        self.batch.restart("the blocks came in another order than the response has");
        self.given.clear();
    }

    /// Throws all outcomes away.
    fn discard(self, turn: u32, reason: &str) {
        if !self.given.is_empty() {
            let reason = reason.to_owned();
            self.batch.run().record(|| What::TurnDiscarded { turn, reason: reason.clone() });
        }
        self.batch.discard(reason);
    }
}

/// The same call with the same error, again and again.
#[derive(Default)]
struct Repeats {
    last: Option<(String, Value, String)>,
    times: u32,
}

impl Repeats {
    /// Takes the outcomes of a turn, in order.
    fn take(&mut self, calls: &[Call], outcomes: &[Arc<Outcome>]) -> Result<(), End> {
        for (call, outcome) in calls.iter().zip(outcomes) {
            let (Err(error), Input::Json(input)) = (&outcome.result, &call.input) else {
                *self = Self::default();
                continue;
            };
            let this = (call.tool.to_string(), input.clone(), error.to_string());
            if self.last.as_ref() == Some(&this) {
                self.times += 1;
            } else {
                *self = Self { last: Some(this), times: 1 };
            }
            if self.times >= REPEATS_MAX {
                let what =
                    format!("repeated_error: `{}` failed {REPEATS_MAX} times in a row with the same input", call.tool);
                return Err(End::Failed(format!("{what} and the same error ({})", error.code)));
            }
        }
        Ok(())
    }
}

/// Whether the last block is cut off in the middle: a call whose input is not JSON yet, or anything that is no call, which
/// a response that ran out of room was still writing.
fn cut_short(response: &Response) -> bool {
    match response.blocks.last().map(Block::view) {
        Some(View::ToolUse(call)) => matches!(call.input, fanout_anthropic::Input::Invalid(_)),
        Some(View::Thinking) => true,
        Some(_) | None => false,
    }
}

fn refused(call: Call, error: &CallError) -> Arc<Outcome> {
    let result = Err(error.clone());
    let shown = fanout_core::shape::shape(&result, usize::MAX);
    Arc::new(Outcome { call: call.id, result, shown, attempts: 0 })
}

fn text_of(blocks: &[Block]) -> String {
    let texts = blocks.iter().filter_map(|block| match block.view() {
        View::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

/// A number in 0..1 that differs from try to try and from process to process.
#[expect(clippy::cast_precision_loss, reason = "jitter needs no more than 53 bits")]
fn random() -> f64 {
    let bits = RandomState::new().hash_one(std::time::Instant::now()) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}
