//! What a response means for its run, for every stop reason the API has.
//!
//! From [`running`](crate::running): a whole response, and the batch that has its calls so far. To it: what comes next. On
//! the way the conversation gets what was said, and the one reply to it.
//!
//! Only `tool_use` lets calls run. Whatever else a response with calls stopped for, each of them is answered with an error.

use std::sync::Arc;

use fanout_anthropic::{Block, Input, Response, StopReason, View};
use fanout_core::call::Call;
use fanout_core::event::What;
use fanout_core::outcome::{CallError, ErrorCode, Outcome};
use fanout_core::run::{Batch, BatchError};
use serde_json::Value;
use tokio::time::sleep_until;

use crate::budget::BudgetError;
use crate::client::{Handed, Handover, Place, result_block};
use crate::early::Early;
use crate::running::{Next, Running};
use crate::stop::End;
use crate::turn::{calls_of, reply, result_of};

const CUT_OFF: &str = "the response was cut off at `max_tokens`";

impl Running<'_> {
    /// What a response means. `widened` says that it was given twice the tokens already.
    pub(crate) async fn after(&mut self, early: Early<'_>, response: Response, widened: bool) -> Result<Next, End> {
        let has_calls = !calls_of(&response.blocks).is_empty();
        match &response.stop_reason {
            StopReason::Refusal => {
                early.discard("the model refused");
                Err(End::Refused)
            }
            StopReason::ToolUse if has_calls => self.run_calls(early, &response).await,
            StopReason::PauseTurn if !has_calls && !response.blocks.is_empty() => {
                early.discard("the turn was paused");
                self.append(&response.blocks);
                Ok(Next::Ask)
            }
            // A client has said itself how many tokens an answer may take, and has seen what came of it.
            StopReason::MaxTokens if self.client.is_none() && !widened && may_be_cut(&response) => {
                early.discard(CUT_OFF);
                Ok(Next::AskWider(Box::new(response)))
            }
            StopReason::MaxTokens if self.is_the_clients(&response.blocks) => {
                self.hand_over(early, self.whole(&response), CUT_OFF).await
            }
            StopReason::MaxTokens => self.keep_cut_off(early, &response).await,
            StopReason::ModelContextWindowExceeded if self.client.is_some() => {
                self.hand_over(early, self.whole(&response), "the context window is full").await
            }
            StopReason::ModelContextWindowExceeded => {
                self.answer_unrun(early, self.whole(&response), "the context window is full").await?;
                Err(End::Failed("context_window".to_owned()))
            }
            StopReason::EndTurn | StopReason::StopSequence | StopReason::Other(_) if !has_calls => {
                early.discard("the model is done");
                self.append(&response.blocks);
                Ok(Next::Done)
            }
            other if self.is_the_clients(&response.blocks) => {
                self.hand_over(early, &response.blocks, &format!("the response stopped as `{other}`")).await
            }
            other => {
                let reason = format!("the response stopped as `{other}`");
                if self.answer_unrun(early, &response.blocks, &reason).await? {
                    return Ok(Next::Ask);
                }
                Err(End::Failed(format!("malformed_response: {reason} and holds nothing to go on with")))
            }
        }
    }

    /// A response that was cut off and cannot be had whole: what is whole of it is kept.
    pub(crate) async fn keep_cut_off(&mut self, early: Early<'_>, response: &Response) -> Result<Next, End> {
        if self.answer_unrun(early, self.whole(response), CUT_OFF).await? {
            return Ok(Next::Ask);
        }
        Err(End::Failed("max_tokens".to_owned()))
    }

    /// Runs the calls of a response and appends the one reply.
    async fn run_calls(&mut self, mut early: Early<'_>, response: &Response) -> Result<Next, End> {
        let sorted = self.sorted(&early, &response.blocks);
        let calls: Vec<Call> = in_place(&sorted, Place::Run);
        if let Err(error) = early.complete(&calls) {
            return Err(malformed(early, &error));
        }
        self.append(&response.blocks);
        let is_handed_over = sorted.iter().any(|(_, place)| *place == Place::Theirs);
        let mut batch = early.commit();
        let stopped = self.drive(&mut batch).await;
        let outcomes = self.outcomes(batch).await;
        let limits = &self.options.limits;
        let over = if self.calls > limits.calls_max {
            Some(BudgetError::Calls(limits.calls_max))
        } else if self.turns >= limits.turns_max {
            Some(BudgetError::Turns(limits.turns_max))
        } else {
            None
        };
        if is_handed_over {
            self.handover = Some(handover(sorted, &outcomes));
            return stopped.map_or(Ok(Next::Done), Err);
        }
        self.append_reply(&outcomes);
        let stuck = self.repeats.take(&calls, &outcomes).map(End::Failed);
        match stopped.or(over.map(End::Budget)).or(stuck) {
            Some(end) => Err(end),
            None => Ok(Next::Ask),
        }
    }

    /// Appends blocks whose calls must not run here: ours are answered with an error, and the client sees the rest.
    async fn hand_over(&mut self, mut early: Early<'_>, blocks: &[Block], reason: &str) -> Result<Next, End> {
        let mut sorted = self.sorted(&early, blocks);
        sorted.iter_mut().filter(|(_, place)| *place == Place::Wait).for_each(|(_, place)| *place = Place::Run);
        let calls: Vec<Call> = in_place(&sorted, Place::Run);
        if let Err(error) = early.refuse(&calls, &unrun(reason)) {
            return Err(malformed(early, &error));
        }
        self.append(blocks);
        let outcomes = self.outcomes(early.commit()).await;
        self.handover = Some(handover(sorted, &outcomes));
        Ok(Next::Done)
    }

    /// Whether the client must see what comes next: it has calls to answer, or there are no calls at all.
    fn is_the_clients(&self, blocks: &[Block]) -> bool {
        let Some(client) = self.client else { return false };
        let calls = calls_of(blocks);
        calls.is_empty() || calls.iter().any(|call| !client.ours.contains(call.tool.as_str()))
    }

    fn sorted(&self, early: &Early<'_>, blocks: &[Block]) -> Vec<(Call, Place)> {
        let mut sorter = self.sorter(early.toolbox());
        let calls = calls_of(blocks).into_iter();
        calls
            .map(|call| {
                let place = sorter.place(&call);
                (call, place)
            })
            .collect()
    }

    /// The blocks of a response that ran out of room, but for a last one that cannot go back. A client's own call is the
    /// client's to judge: it has seen it.
    fn whole<'b>(&self, response: &'b Response) -> &'b [Block] {
        match (self.client, response.blocks.last().map(Block::view)) {
            (Some(client), Some(View::ToolUse(call))) if !client.ours.contains(&call.name) => &response.blocks,
            _ => whole(response),
        }
    }

    /// Waits until every call has its outcome. Answers what stopped them, if anything did.
    async fn drive(&self, batch: &mut Batch<'_>) -> Option<End> {
        let deadline = sleep_until(self.deadline());
        tokio::pin!(deadline);
        let mut stopped = None;
        while batch.unanswered() > 0 {
            let is_parked = self.parking.as_ref().is_some_and(|parking| parking.is_parked());
            if !is_parked && deadline.deadline() != self.deadline() {
                deadline.as_mut().reset(self.deadline());
            }
            tokio::select! {
                biased;
                () = batch.progress() => {}
                reason = self.cancel.cancelled(), if stopped.is_none() => {
                    batch.cancel(&reason);
                    stopped = Some(End::Cancelled(reason));
                }
                () = &mut deadline, if stopped.is_none() && !is_parked => {
                    let end = self.out_of_time();
                    batch.cancel(&end.reason().unwrap_or_default());
                    stopped = Some(end);
                }
            }
        }
        stopped
    }

    /// Appends blocks whose calls must not run, and answers each of these with an error. Answers whether there was one.
    async fn answer_unrun(&mut self, mut early: Early<'_>, blocks: &[Block], reason: &str) -> Result<bool, End> {
        let calls = calls_of(blocks);
        if calls.is_empty() {
            early.discard(reason);
            self.append(blocks);
            return Ok(false);
        }
        if let Err(error) = early.refuse(&calls, &unrun(reason)) {
            return Err(malformed(early, &error));
        }
        self.append(blocks);
        match self.answer(early.commit(), &calls).await {
            Some(end) => Err(end),
            None => Ok(true),
        }
    }

    /// Appends the one reply to these calls, all of which have their outcomes. Answers with the run's end if the model is
    /// stuck.
    async fn answer(&mut self, batch: Batch<'_>, calls: &[Call]) -> Option<End> {
        let outcomes = self.outcomes(batch).await;
        self.append_reply(&outcomes);
        self.repeats.take(calls, &outcomes).map(End::Failed)
    }

    /// The outcomes of a batch whose calls all have theirs.
    async fn outcomes(&mut self, batch: Batch<'_>) -> Vec<Arc<Outcome>> {
        let turn = self.turns;
        batch.run().record(|| What::TurnEnded { turn });
        self.calls = self.calls.saturating_add(u32::try_from(batch.asked()).unwrap_or(u32::MAX));
        batch.finish().await
    }

    fn append(&mut self, blocks: &[Block]) {
        self.answer = text_of(blocks);
        // In a turn that broke off it was said before.
        if !std::mem::take(&mut self.is_appended) && self.conversation.append_answer(blocks).is_some() {
            self.tell_appended();
        }
    }

    fn append_reply(&mut self, outcomes: &[Arc<Outcome>]) {
        self.conversation.append_reply(reply(outcomes));
        self.tell_appended();
    }

    fn tell_appended(&self) {
        if let Some(last) = self.conversation.messages().last() {
            self.teller.tell(|| What::Appended { message: last.raw().as_str().into() });
        }
    }
}

fn unrun(reason: &str) -> CallError {
    let message = format!("not run: {reason}. If it is still needed, call it again, with less in one response");
    CallError::new(ErrorCode::Cancelled, message)
}

fn in_place(sorted: &[(Call, Place)], wanted: Place) -> Vec<Call> {
    sorted.iter().filter(|(_, place)| *place == wanted).map(|(call, _)| call.clone()).collect()
}

/// What a turn leaves to the client. `outcomes` are those of the calls that ran, in order.
fn handover(sorted: Vec<(Call, Place)>, outcomes: &[Arc<Outcome>]) -> Handover {
    let mut outcomes = outcomes.iter();
    let calls = sorted.into_iter().filter_map(|(call, place)| match place {
        Place::Run => outcomes.next().and_then(|outcome| result_block(result_of(outcome))).map(Handed::Answered),
        Place::Wait => Some(Handed::Waiting(call)),
        Place::Theirs => Some(Handed::Theirs(call.id.to_string())),
    });
    Handover { calls: calls.collect() }
}

fn malformed(early: Early<'_>, error: &BatchError) -> End {
    early.discard(&error.to_string());
    End::Failed(format!("malformed_response: {error}"))
}

/// Whether a response that ran out of room may have stopped in the middle of its last block. Only a block of the server's
/// own, or a call whose input is all there, is surely whole.
fn may_be_cut(response: &Response) -> bool {
    match response.blocks.last().map(Block::view) {
        Some(View::ToolUse(call)) => is_cut(&call.input),
        Some(View::Text(_) | View::Thinking | View::ServerToolUse { .. }) | None => true,
        Some(_) => false,
    }
}

/// The blocks of a response that ran out of room, but for a last one that cannot go back: an input that is no JSON yet, a
/// thought without its signature. Text says something even when it is cut off, and a call with `{}` can be answered.
fn whole(response: &Response) -> &[Block] {
    let Some((last, rest)) = response.blocks.split_last() else { return &[] };
    let has = |name: &str, inside: &str| {
        let block: Value = serde_json::from_str(last.raw().as_str()).unwrap_or_default();
        block.get(name).is_some_and(|value| value == inside || value.get(inside).is_some())
    };
    let is_lost = match last.view() {
        View::ToolUse(call) => matches!(call.input, Input::Invalid(_)),
        View::ServerToolUse { .. } => has("input", "INVALID_JSON"),
        View::Thinking => has("signature", ""),
        _ => false,
    };
    if is_lost { rest } else { &response.blocks }
}

/// Whether an input may be cut off: it is not JSON yet, or still the `{}` that every input begins as.
fn is_cut(input: &Input) -> bool {
    match input {
        Input::Invalid(_) => true,
        Input::Json(value) => value.as_object().is_some_and(serde_json::Map::is_empty),
    }
}

fn text_of(blocks: &[Block]) -> String {
    let texts = blocks.iter().filter_map(|block| match block.view() {
        View::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}
