//! The agent: the thing a program holds.
//!
//! Asks the model, runs its calls, appends the one reply, asks again. How a turn goes and ends stands in
//! [`running`](crate::running).

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use fanout_anthropic::{Model, Raw, Request, ToolChoice};
use fanout_core::approval::Approver;
use fanout_core::call::{CallerId, RunId};
use fanout_core::effects::Paths;
use fanout_core::event::{Recorder, RunKind, What};
use fanout_core::retry::Backoff;
use fanout_core::run::{Drain, Past, Run, RunOptions, Scheduler};
use fanout_core::tool::CallerToken;
use fanout_core::toolbox::Toolbox;

use crate::budget::{Budget, Limits, Price};
use crate::client::{Client, Handover, Offer, Ours, WritesAfterClient, result_block};
use crate::conversation::Conversation;
use crate::daily::Daily;
use crate::parked::Parking;
use crate::request::Template;
use crate::resume::{Resumed, given};
use crate::running::{Asked, Running};
use crate::stop::{Cancel, End, Report, Status};
use crate::turn::result_of;

/// What all runs of an agent have in common.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The model's name.
    pub model: String,
    /// The most tokens of one answer.
    pub max_tokens: u32,
    /// What the model is told before anything else.
    pub system: Option<String>,
    /// How the model may choose tools. `any` and a named tool hold for the first turn, then `auto`.
    pub tool_choice: Option<ToolChoice>,
    /// Whether answers come as they are written. Calls can only start early if they do.
    pub stream: bool,
    /// Further fields of the request, such as `thinking`, as they are.
    pub extra: Vec<(String, Raw)>,
    /// The bounds of each run.
    pub limits: Limits,
    /// What the model's tokens cost.
    pub price: Option<Price>,
    /// Whether calls may enter before their response has ended.
    pub early_start: bool,
    /// How a failed model request is tried again.
    pub backoff: Backoff,
    /// How paths in inputs become keys.
    pub paths: Paths,
}

impl AgentOptions {
    /// The configuration's defaults for this model.
    pub fn new(model: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            max_tokens: 8192,
            system: None,
            tool_choice: None,
            stream: true,
            extra: Vec::new(),
            limits: Limits::default(),
            price: None,
            early_start: true,
            backoff: Backoff::default(),
            paths: Paths::default(),
        }
    }
}

/// Why an agent cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Dollars cannot be counted without a price.
    #[error(
        "there is a budget of ${max} a run and no price for `{model}`: add [prices.\"{model}\"], or take the budget away"
    )]
    NoPrice {
        /// The model.
        model: String,
        /// The budget.
        max: f64,
    },
    /// The tools cannot be printed.
    #[error("the tools cannot be sent: {0}")]
    Tools(#[from] fanout_anthropic::WireError),
}

/// An agent: any number of runs can go on at once.
#[derive(Clone)]
pub struct Agent {
    model: Arc<dyn Model>,
    scheduler: Scheduler,
    toolbox: Arc<Toolbox>,
    options: Arc<AgentOptions>,
    template: Template,
    client: Option<Client>,
}

/// What is different in each run.
#[derive(Clone, Default)]
pub struct RunSettings {
    /// Its id; made up if absent.
    pub run: Option<RunId>,
    /// Who began it; `local` if absent.
    pub caller: Option<CallerId>,
    /// The end user's token, for tools that act in the user's name.
    pub caller_token: Option<CallerToken>,
    /// Who asks people about calls that need their approval; without one such a call is `denied`.
    pub approver: Option<Arc<dyn Approver>>,
    /// While it waits for people and for nothing else its deadline does not pass: nobody waits for the run itself.
    pub parks: bool,
    /// Whether it still asks the model and begins attempts.
    pub drain: Drain,
    /// Who is told what happens.
    pub recorder: Option<Arc<dyn Recorder>>,
    /// What stops it from outside.
    pub cancel: Cancel,
    /// A budget of tokens and dollars that it shares with others; its own if absent.
    pub budget: Option<Budget>,
    /// What may be spent in a day, with others; `None`: no bound.
    pub daily: Option<Daily>,
}

impl fmt::Debug for RunSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunSettings").field("run", &self.run).field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl Agent {
    /// An agent that asks `model` and runs the tools of `toolbox`.
    ///
    /// # Errors
    /// [`AgentError`], before anything is asked.
    pub fn new(
        model: Arc<dyn Model>,
        scheduler: Scheduler,
        toolbox: impl Into<Arc<Toolbox>>,
        options: AgentOptions,
    ) -> Result<Self, AgentError> {
        let toolbox = toolbox.into();
        if let (Some(max), None) = (options.limits.cost_max_usd, options.price) {
            return Err(AgentError::NoPrice { model: options.model, max });
        }
        let template = Template::new(&options, &toolbox)?;
        Ok(Self { model, scheduler, toolbox, options: Arc::new(options), template, client: None })
    }

    /// An agent that answers one request of a client who may run tools of its own.
    ///
    /// Every field of the request is kept, and those of `options` that it has too (`model`, `max_tokens`, `system`,
    /// `tool_choice`, `stream`, `extra`) are taken from it. The tools of `offer` stand behind the client's own in every
    /// request. A call of a tool that is not ours ends the run with a [`Handover`]: ours beside it have run, but for writes
    /// that came after it, as `writes` says. An answer is never asked for again with more tokens than the client named.
    ///
    /// The conversation to [`Agent::run`] is the request's, with what stands behind earlier answers put in.
    ///
    /// # Errors
    /// [`AgentError`], before anything is asked.
    pub fn for_client(
        model: Arc<dyn Model>,
        scheduler: Scheduler,
        toolbox: Arc<Toolbox>,
        mut options: AgentOptions,
        request: Request,
        offer: &Offer,
        writes: WritesAfterClient,
    ) -> Result<Self, AgentError> {
        options.model.clone_from(&request.model);
        options.max_tokens = request.max_tokens;
        options.stream = request.stream;
        if let (Some(max), None) = (options.limits.cost_max_usd, options.price) {
            return Err(AgentError::NoPrice { model: options.model, max });
        }
        let (template, ours) = Template::of_client(request, offer)?;
        let client = Some(Client { ours, writes });
        Ok(Self { model, scheduler, toolbox, options: Arc::new(options), template, client })
    }

    /// Which tools are ours; `None` where all are.
    pub fn ours(&self) -> Option<&Ours> {
        self.client.as_ref().map(|client| &client.ours)
    }

    /// Runs what waited for a client to answer its own calls, and puts the results in. Each call is answered, whatever
    /// happens; a stop makes the rest `cancelled`. `past` is what is known of them where this was begun before, and broke off.
    ///
    /// # Cancellation
    /// Dropping the future stops the attempts; nothing is put in then.
    pub async fn settle(&self, handover: &mut Handover, settings: &RunSettings, past: Past) {
        let calls = handover.waiting();
        if calls.is_empty() {
            return;
        }
        let mut run = self.scheduler.run(Arc::clone(&self.toolbox), self.run_options(settings).0);
        let mut batch = run.batch();
        batch.remember(past);
        for call in calls {
            // Its id is its own: the response that it comes from stood in one batch.
            let _ = batch.call(call);
        }
        batch.commit();
        let mut is_stopped = false;
        while batch.unanswered() > 0 {
            tokio::select! {
                biased;
                () = batch.progress() => {}
                reason = settings.cancel.cancelled(), if !is_stopped => {
                    batch.cancel(&reason);
                    is_stopped = true;
                }
            }
        }
        let outcomes = batch.finish().await;
        handover.answer(|call| {
            let outcome = outcomes.iter().find(|outcome| outcome.call == call.id)?;
            result_block(result_of(outcome))
        });
    }

    fn run_options(&self, settings: &RunSettings) -> (RunOptions, Option<Arc<Parking>>) {
        let mut options = RunOptions::new(settings.run.clone().unwrap_or_else(new_run_id));
        if let Some(caller) = &settings.caller {
            options.caller = caller.clone();
        }
        options.early_start = self.options.early_start;
        options.paths = self.options.paths.clone();
        options.plan_tools = self.ours().map(Ours::names);
        options.caller_token.clone_from(&settings.caller_token);
        options.approver.clone_from(&settings.approver);
        options.drain.clone_from(&settings.drain);
        options.recorder.clone_from(&settings.recorder);
        let parking = settings.parks.then(Arc::<Parking>::default);
        if let Some(parking) = &parking {
            let beside = options.recorder.take().unwrap_or_else(|| Arc::new(()));
            options.recorder = Some(Arc::new((beside, Arc::clone(parking))));
        }
        (options, parking)
    }

    /// Runs until the model is done or something ends the run. Every call gets exactly one outcome, and the report's
    /// conversation is one that the API takes, whatever happens.
    ///
    /// # Cancellation
    /// [`Cancel::cancel`] stops the run in good order. Dropping the future stops every running attempt at its next await,
    /// and loses the report.
    pub async fn run(&self, conversation: impl Into<Conversation>, settings: RunSettings) -> Report {
        let conversation = conversation.into();
        let (options, parking) = self.run_options(&settings);
        let run = self.scheduler.run(Arc::clone(&self.toolbox), options);
        run.record(|| match self.client {
            // Who asked is gone when the process is, and its history comes with every request.
            Some(_) => What::RunStarted { kind: RunKind::Message, given: "".into() },
            None => What::RunStarted { kind: RunKind::Agent, given: given(&self.options, &conversation) },
        });
        self.go(run, conversation, settings, parking, None).await
    }

    /// Goes on with a run whose process ended. Calls that have their outcome are not run again; those that were under way are,
    /// if that does no harm, and are `outcome_unknown` if it might. What it used up by then counts.
    ///
    /// # Cancellation
    /// As for [`Agent::run`].
    pub async fn resume(&self, resumed: Resumed, settings: RunSettings) -> Report {
        let (mut options, parking) = self.run_options(&settings);
        options.elapsed = resumed.elapsed;
        let run = self.scheduler.run(Arc::clone(&self.toolbox), options);
        run.record(|| What::RunResumed);
        let conversation = resumed.conversation();
        self.go(run, conversation, settings, parking, Some(resumed)).await
    }

    async fn go(
        &self,
        mut run: Run,
        conversation: Conversation,
        settings: RunSettings,
        parking: Option<Arc<Parking>>,
        resumed: Option<Resumed>,
    ) -> Report {
        let limits = &self.options.limits;
        let budget = settings.budget.unwrap_or_else(|| Budget::new(limits.tokens_max, limits.cost_max_usd));
        let template = self.template.clone();
        let asked = Asked { model: &*self.model, gate: self.scheduler.gate() };
        let teller = run.teller().clone();
        let mut running = Running::new(asked, &self.options, template, conversation, budget, settings.cancel, teller);
        (running.client, running.daily, running.parking) = (self.client.as_ref(), settings.daily, parking);
        let open = resumed.and_then(|resumed| {
            running.resume(&resumed);
            resumed.open
        });
        let end = running.go(&mut run, open).await;
        let (status, reason) = match &end {
            Ok(()) => (Status::Done, None),
            Err(end) => (end.status(), end.reason()),
        };
        run.record(|| What::RunEnded { status: status.as_str(), reason: reason.clone() });
        Report {
            status,
            reason,
            retry_after: end.as_ref().err().and_then(End::retry_after),
            answer: running.answer,
            turns: running.turns,
            calls: running.calls,
            usage: running.usage,
            cost_usd: self.options.price.map(|price| price.cost(&running.usage)),
            elapsed: run.teller().elapsed(),
            conversation: running.conversation,
            handover: running.handover,
        }
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("options", &self.options).finish_non_exhaustive()
    }
}

/// An id that no other run has: 128 random bits.
pub fn new_run_id() -> RunId {
    let random = || RandomState::new().hash_one(std::time::Instant::now());
    format!("run_{:016x}{:016x}", random(), random()).into()
}
