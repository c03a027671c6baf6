//! One run on its way: turn after turn, until something ends it.
//!
//! From [`agent`](crate::agent): the options and a conversation. To its report. What a response means for the run stands in
//! [`after`](crate::after); what ends a run is an [`End`].

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use fanout_anthropic::{Again, Block, Model, ModelError, Part, Request, Response, Usage, View};
use fanout_core::call::GroupName;
use fanout_core::event::{Tokens, What};
use fanout_core::run::{Gate, Pass, Run, RunOptions, Teller};
use fanout_core::toolbox::Toolbox;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, sleep, sleep_until};

use crate::agent::AgentOptions;
use crate::budget::{Budget, BudgetError, Reservation};
use crate::client::{Client, Handover, Sorter};
use crate::conversation::Conversation;
use crate::daily::Daily;
use crate::early::Early;
use crate::parked::Parking;
use crate::rates::{self, Crossing};
use crate::repeats::Repeats;
use crate::request::Template;
use crate::resume::{Open, Resumed};
use crate::stop::{Cancel, End, explained};

/// One token is at least about so many bytes of a request; the estimate of what is not measured yet stays above the
/// truth for any ordinary text.
const TOKEN_BYTES: usize = 2;

/// So many tokens of a request are not ours: the API tells the model how to call tools, in some hundred tokens.
const UNSEEN_TOKENS: u64 = 1_000;

/// A deadline that no clock can count to is this far away: as good as none, and safe to add to any time.
const DEADLINE_MAX: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Whom a run asks, and where its requests wait for their turn.
pub(crate) struct Asked<'a> {
    pub(crate) model: &'a dyn Model,
    pub(crate) gate: &'a Gate,
}

pub(crate) struct Running<'a> {
    pub(crate) conversation: Conversation,
    pub(crate) turns: u32,
    pub(crate) calls: u32,
    pub(crate) usage: Usage,
    pub(crate) answer: String,
    pub(crate) options: &'a AgentOptions,
    pub(crate) cancel: Cancel,
    deadline: Instant,
    /// Its deadline does not pass while it waits for people only.
    pub(crate) parking: Option<Arc<Parking>>,
    pub(crate) repeats: Repeats,
    /// Whose request this is, where a client runs tools of its own.
    pub(crate) client: Option<&'a Client>,
    pub(crate) handover: Option<Handover>,
    /// The model's last answer stands in the conversation already.
    pub(crate) is_appended: bool,
    pub(crate) teller: Teller,
    /// What may be spent in a day.
    pub(crate) daily: Option<Daily>,
    model: &'a dyn Model,
    gate: &'a Gate,
    /// The limit group of the model.
    api: GroupName,
    template: Template,
    budget: Budget,
    /// How many messages the run began with: until there are more, no response has counted.
    begun_with: usize,
    /// What the last turn took, and how long the conversation was: the next estimate starts from there.
    measured: Option<(u64, usize)>,
    /// The answer that was cut off, while it is asked for once more with twice the tokens.
    cut_off: Option<Box<Response>>,
    /// How often the present request has failed.
    failures: u32,
}

/// How a turn left the run.
pub(crate) enum Next {
    /// Ask the model again.
    Ask,
    /// Ask for this answer, which was cut off, again, with twice the tokens.
    AskWider(Box<Response>),
    /// Ask for the same answer again, after so long.
    AskAfter(Duration),
    /// The model is done, or waits for the client.
    Done,
}

/// Why there is no response.
enum Unanswered {
    Model(ModelError),
    End(End),
}

impl<'a> Running<'a> {
    pub(crate) fn new(
        Asked { model, gate }: Asked<'a>,
        options: &'a AgentOptions,
        template: Template,
        conversation: Conversation,
        budget: Budget,
        cancel: Cancel,
        teller: Teller,
    ) -> Self {
        Self {
            begun_with: conversation.messages().len(),
            conversation,
            turns: 0,
            calls: 0,
            usage: Usage::default(),
            answer: String::new(),
            options,
            cancel,
            deadline: Instant::now() + options.limits.deadline.min(DEADLINE_MAX),
            parking: None,
            repeats: Repeats::default(),
            client: None,
            handover: None,
            is_appended: false,
            teller,
            daily: None,
            model,
            gate,
            api: rates::group(model),
            template,
            budget,
            measured: None,
            cut_off: None,
            failures: 0,
        }
    }

    /// When its time is over, if it is not parked until then.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline + self.parking.as_ref().map_or(Duration::ZERO, |parking| parking.total())
    }

    /// Goes on with a run that broke off. Its template goes on too.
    pub(crate) fn resume(&mut self, resumed: &Resumed) {
        self.begun_with = resumed.begun_with;
        (self.turns, self.calls, self.usage) = (resumed.turns, resumed.calls, resumed.usage);
        self.measured = resumed.measured;
        let counted = match self.parking {
            Some(_) => resumed.elapsed.saturating_sub(resumed.parked),
            None => resumed.elapsed,
        };
        let left = self.options.limits.deadline.saturating_sub(counted);
        self.deadline = Instant::now() + left.min(DEADLINE_MAX);
        if let Some(state) = &resumed.state {
            self.template.restore(state);
        }
    }

    /// Goes on until the model is done, from the turn that broke off, if one did.
    pub(crate) async fn go(&mut self, run: &mut Run, open: Option<Open>) -> Result<(), End> {
        self.budget.check(self.options)?;
        if let Some(daily) = &self.daily {
            daily.check(self.options)?;
        }
        if let Some(open) = open {
            match self.close(run, open).await? {
                Next::Done => return Ok(()),
                Next::Ask | Next::AskWider(_) | Next::AskAfter(_) => {}
            }
        }
        loop {
            match self.turn(run).await? {
                Next::Done => return Ok(()),
                Next::Ask => self.failures = 0,
                Next::AskWider(response) => (self.failures, self.cut_off) = (0, Some(response)),
                Next::AskAfter(wait) => self.pause(wait).await?,
            }
        }
    }

    /// One request and its response, with all that the response asks for.
    async fn turn(&mut self, run: &mut Run) -> Result<Next, End> {
        self.check()?;
        let turn = self.turns + 1;
        let widening = if self.cut_off.is_some() { 2 } else { 1 };
        let max_tokens = self.options.max_tokens.saturating_mul(widening);
        let reserved = self.afford(max_tokens).await;
        let bounds = self.options.limits.bounds(turn, self.calls);
        let pass = match reserved {
            Ok(_) => Some(self.enter(run, max_tokens).await?),
            Err(_) => None,
        };
        if pass.is_some() {
            run.record(|| What::TurnStarted { turn });
        }
        let (sorter, secrets) = (self.sorter(run.toolbox()), Arc::clone(run.secrets()));
        let mut early = Early::open(run.batch(), turn, bounds, sorter);
        let mut reservation = match (reserved, self.cut_off.is_some()) {
            (Ok(reservation), _) => reservation,
            (Err(error), false) => return Err(End::unaffordable(error)),
            (Err(_), true) => return self.settle_for_cut_off(early).await,
        };
        let is_first = self.conversation.messages().len() == self.begun_with;
        let request = self.template.request(is_first, max_tokens, &self.conversation);
        reservation.sent();
        match self.respond(&request, &mut early, pass).await {
            Ok(response) => {
                reservation.spend(&response.usage, self.options.price);
                self.take(turn, &response, &early);
                let widened = self.cut_off.take().is_some();
                self.after(early, response, widened).await
            }
            Err(Unanswered::End(end)) => {
                early.discard(&end.reason().unwrap_or_default());
                Err(end)
            }
            // So many tokens are more than this model writes.
            Err(Unanswered::Model(ModelError::Status { status: 400, .. })) if self.cut_off.is_some() => {
                reservation.not_charged();
                drop(reservation);
                self.settle_for_cut_off(early).await
            }
            Err(Unanswered::Model(error)) => {
                if matches!(error, ModelError::Status { .. } | ModelError::Connect { .. }) {
                    reservation.not_charged();
                }
                // A server or a proxy may repeat the key that it was sent.
                early.discard(&secrets.hide(&error.to_string()));
                let said = secrets.hide(&explained(&error)).into_owned();
                let next = match self.template.begin_anew(&error) {
                    true => Ok(Next::AskAfter(Duration::ZERO)),
                    false => self.again(&error, &said),
                };
                run.record(|| What::ModelFailed {
                    turn,
                    error: said,
                    again_after: if let Ok(Next::AskAfter(wait)) = &next { Some(*wait) } else { None },
                });
                next
            }
        }
    }

    /// Ends a turn whose answer was appended before its process ended.
    async fn close(&mut self, run: &mut Run, open: Open) -> Result<Next, End> {
        let bounds = self.options.limits.bounds(self.turns, self.calls);
        let sorter = self.sorter(run.toolbox());
        let mut batch = run.batch();
        batch.remember(open.past);
        let early = Early::open(batch, self.turns, bounds, sorter);
        self.is_appended = true;
        // It was not asked for again, or it would not have been appended.
        self.after(early, open.response, true).await
    }

    pub(crate) fn sorter(&self, toolbox: &Arc<Toolbox>) -> Sorter<'a> {
        Sorter::new(self.client, toolbox, &self.options.paths)
    }

    /// Sets aside what the next request can take at most.
    async fn afford(&self, max_tokens: u32) -> Result<Reservation, BudgetError> {
        let turns_max = self.options.limits.turns_max;
        if self.turns >= turns_max {
            return Err(BudgetError::Turns(turns_max));
        }
        let reserved = self.budget.reserve(self.estimate(), u64::from(max_tokens), self.options.price)?;
        reserved.of_day(self.daily.as_ref()).await
    }

    /// Counts a response, whatever it means.
    fn take(&mut self, turn: u32, response: &Response, early: &Early<'_>) {
        self.turns = turn;
        self.usage = self.usage + response.usage;
        self.measured = Some((response.usage.total(), self.conversation.bytes()));
        self.template.keep_container(response);
        self.template.keep_thread(response, self.conversation.messages().len());
        early.record(|| What::ModelEnded {
            turn,
            stop_reason: response.stop_reason.to_string(),
            tokens: Tokens {
                input: response.usage.input_tokens,
                output: response.usage.output_tokens,
                cache_read: response.usage.cache_read_input_tokens,
                cache_write: response.usage.cache_creation_input_tokens,
            },
            cost_usd: self.options.price.map(|price| price.cost(&response.usage)),
            state: self.template.state(),
        });
    }

    /// The answer that was cut off cannot be had with twice the tokens: goes on with what there is of it.
    async fn settle_for_cut_off(&mut self, early: Early<'_>) -> Result<Next, End> {
        match self.cut_off.take() {
            Some(response) => self.keep_cut_off(early, &response).await,
            None => Ok(Next::Ask),
        }
    }

    /// Sends the request and feeds calls to the batch as they arrive.
    async fn respond(
        &self,
        request: &Request,
        early: &mut Early<'_>,
        pass: Option<Pass>,
    ) -> Result<Response, Unanswered> {
        let (tell, mut arrived) = unbounded_channel::<Block>();
        let feed = request.stream && self.options.early_start;
        let crossing = Crossing::new(pass);
        let mut on_part = |part: Part<'_>| match part {
            Part::Limits(limits) => crossing.limits(limits),
            Part::Block { block, .. } if feed && matches!(block.view(), View::ToolUse(_)) => {
                // No reader: the response is being given up.
                let _ = tell.send(block.clone());
            }
            Part::Block { .. } | Part::Text(_) => {}
        };
        let mut response = self.model.respond(request, &mut on_part);
        let deadline = sleep_until(self.deadline());
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                biased;
                reason = self.cancel.cancelled() => return Err(Unanswered::End(End::Cancelled(reason))),
                () = &mut deadline => return Err(Unanswered::End(self.out_of_time())),
                result = &mut response => {
                    crossing.over(result.as_ref().err());
                    return result.map_err(Unanswered::Model);
                }
                () = early.progress(&mut arrived) => {}
            }
        }
    }

    /// Waits until the next request may be sent: many runs that share an API queue before it refuses them.
    async fn enter(&self, run: &Run, max_tokens: u32) -> Result<Pass, End> {
        let RunOptions { caller, drain, .. } = run.options();
        if drain.has_begun() {
            return Err(End::Cancelled(self.cancel.cancelled().await));
        }
        let left = self.deadline().saturating_duration_since(Instant::now());
        let cost = rates::cost(self.estimate(), max_tokens);
        let wait = tokio::select! {
            biased;
            entered = self.gate.enter(&self.api, caller, cost, left) => match entered {
                Ok(pass) => return Ok(pass),
                Err(wait) => wait,
            },
            reason = self.cancel.cancelled() => return Err(End::Cancelled(reason)),
            () = sleep_until(self.deadline()) => return Err(self.out_of_time()),
        };
        let (wait_s, left_s) = (wait.as_secs(), left.as_secs());
        let reason = format!(
            "the limits of the model's API leave no room for {wait_s} s, and {left_s} s are left of the run: try again later"
        );
        Err(End::RateLimited { reason, wait })
    }

    /// Whether and when a failed request goes again; `said` is its error in words.
    fn again(&mut self, error: &ModelError, said: &str) -> Result<Next, End> {
        self.failures += 1;
        let named = match error.again() {
            Again::Never => return Err(End::Failed(said.to_owned())),
            Again::After(wait) => Some(wait),
            Again::Backoff => None,
        };
        let left = self.deadline().saturating_duration_since(Instant::now());
        match self.options.backoff.wait(self.failures, named, random()) {
            Some(wait) if wait < left => Ok(Next::AskAfter(wait)),
            Some(wait) => {
                let reason = format!("{said}; the wait of {} s is longer than what is left of the run", wait.as_secs());
                Err(match named {
                    Some(wait) => End::RateLimited { reason, wait },
                    None => End::Failed(reason),
                })
            }
            None => Err(End::Failed(format!("{said} ({} tries)", self.failures))),
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
        if Instant::now() >= self.deadline() { Err(self.out_of_time()) } else { Ok(()) }
    }

    pub(crate) fn out_of_time(&self) -> End {
        End::Budget(BudgetError::Deadline(self.options.limits.deadline))
    }

    /// The most input tokens that the next request may take: what the last turn took, and a bound for what is new since.
    fn estimate(&self) -> u64 {
        let bytes = self.conversation.bytes();
        let (known, new) = match self.measured {
            Some((tokens, measured)) => (tokens, bytes.saturating_sub(measured)),
            None => (UNSEEN_TOKENS, bytes + self.template.bytes()),
        };
        known.saturating_add(u64::try_from(new.div_ceil(TOKEN_BYTES)).unwrap_or(u64::MAX))
    }
}

/// A number in 0..1 that differs from try to try and from process to process.
#[expect(clippy::cast_precision_loss, reason = "jitter needs no more than 53 bits")]
fn random() -> f64 {
    let bits = RandomState::new().hash_one(std::time::Instant::now()) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}
