//! One run for one request: from what its client sent to what its client sees.
//!
//! From [`create`](super::create): the request, and the exchange to answer into. To the agent: the conversation as the model
//! must see it. To [`standin`](super::standin) at the end: what the answer stands for.
//!
//! It goes on in a task of its own, so that a client may leave and come back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fanout_agent::{
    Agent, AgentOptions, Budget, Cancel, Conversation, Daily, Offer, Report, ResumeError, Resumed, RunSettings, Status,
    WritesAfterClient,
};
use fanout_anthropic::{Message, ModelError, Raw, Request};
use fanout_core::call::RunId;
use fanout_core::event::RunKind;
use fanout_core::run::Drain;
use fanout_core::toolbox::Toolbox;
use fanout_host::config::{self, Config};
use fanout_host::options::daily_caps;
use fanout_host::runs::Reopened;
use fanout_journal::RunRecorder;
use fanout_journal::store::StoreError;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::{Instant, interval_at};

use super::Messages;
use super::asking::{Asking, Failure, Said};
use super::canonical::{self, Digest};
use super::create::other_body;
use super::earlier::{Earlier, Entry};
use super::exchange::{Exchange, Head};
use super::history::{self, Settler};
use super::relay::{self, COMMENT, PING};
use super::repeated::Ticket;
use super::standin::Returned;
use super::watch::watch;
use crate::door::RUN_ID;
use crate::error::{ApiError, SHOULD_RETRY};
use crate::keys::Caller;
use crate::routes::unkept;
use crate::setup::Current;
use crate::touched::Touched;

/// Everything that one run is made of.
pub(super) struct Work {
    pub(super) messages: Arc<Messages>,
    pub(super) current: Arc<Current>,
    pub(super) caller: Caller,
    pub(super) run: RunId,
    pub(super) request: Request,
    pub(super) request_id: String,
    pub(super) toolbox: Arc<Toolbox>,
    pub(super) offer: Offer,
    pub(super) options: AgentOptions,
    /// The headers for the upstream.
    pub(super) headers: HeaderMap,
    /// The path and query.
    pub(super) target: String,
    pub(super) exchange: Arc<Exchange>,
    pub(super) ticket: Ticket,
    /// The digest of the request.
    pub(super) said: Digest,
    /// It says that it was sent before, or has a key.
    pub(super) may_be_known: bool,
    /// The run that the same request began, and that broke off.
    pub(super) reopened: Option<Reopened>,
    pub(super) now: Now,
}

/// How far a run has come.
#[derive(Default)]
pub(super) struct Now {
    /// Calls that waited for the client run, before the upstream is asked.
    is_settling: AtomicBool,
    asking: OnceLock<Arc<Asking>>,
    /// What keeps it, where it is kept.
    kept: OnceLock<Arc<RunRecorder>>,
}

/// Why there is no message.
enum Trouble {
    Upstream(Box<Failure>),
    Ours(ApiError),
}

impl Trouble {
    /// Whether the same request may be answered by the upstream later.
    fn may_pass(&self) -> bool {
        match self {
            Self::Ours(_) => false,
            Self::Upstream(failure) => match &**failure {
                Failure::Answer(status, ..) => {
                    status.is_server_error()
                        || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
                }
                Failure::Event(_) | Failure::Silence(_) => true,
            },
        }
    }
}

/// What a client's request means cannot be known now.
impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Ours(unkept(&error))
    }
}

/// Answers one request. Whatever happens, the exchange is finished.
pub(super) async fn run(mut work: Work) {
    match work.earlier().await {
        Ok(Earlier::None) => work.answer_it().await,
        Ok(Earlier::BrokenOff(reopened)) => {
            tracing::info!(run = reopened.row.run.as_str(), "goes on: its client is there again");
            work.run = reopened.row.run.clone();
            work.reopened = Some(*reopened);
            work.answer_it().await;
        }
        Ok(Earlier::Answered(head, body)) => {
            work.exchange.begin(head);
            work.exchange.send(body);
            work.messages.repeated.ended(&work.ticket, &work.exchange, true);
        }
        Ok(Earlier::OtherBody) => work.refuse(other_body()),
        Err(error) => work.refuse(unkept(&error)),
    }
    work.exchange.finish();
}

impl Work {
    /// What became of the same request before, where only the journal knows.
    async fn earlier(&self) -> Result<Earlier, StoreError> {
        match self.entry() {
            Some(entry) if self.may_be_known => entry.find().await,
            _ => Ok(Earlier::None),
        }
    }

    fn entry(&self) -> Option<Entry<'_>> {
        let journal = self.messages.options.tellers.journal.as_ref()?;
        Some(Entry { journal, caller: &self.caller.id, ticket: &self.ticket, body: self.said })
    }

    /// Ends here what is not over.
    fn leave(&self) {
        self.messages.repeated.ended(&self.ticket, &self.exchange, false);
        let reason = "the gateway is stopping: send the request again, and it goes on from here";
        let closing = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "closing", reason);
        self.tell(Trouble::Ours(closing.retry_after(Duration::from_secs(1))), false);
    }

    /// Does not begin.
    fn refuse(&self, error: ApiError) {
        self.messages.repeated.ended(&self.ticket, &self.exchange, false);
        self.tell(Trouble::Ours(error), false);
    }

    /// Headers of ours for the answer.
    fn own(&self) -> HeaderMap {
        let run = HeaderValue::from_str(self.run.as_str()).ok();
        run.map(|run| (HeaderName::from_static(RUN_ID), run)).into_iter().collect()
    }

    /// Answers it by a run.
    async fn answer_it(&self) {
        let (options, exchange) = (&self.messages.options, &self.exchange);
        if let Some(entry) = self.entry() {
            entry.begun(&self.run, self.options.limits.deadline.saturating_add(options.joinable));
        }
        let (cancel, touched) = (Cancel::default(), Touched::new(&self.toolbox));
        self.reopened.iter().flat_map(Reopened::events).for_each(|(_, _, what)| touched.take(what));
        match self.drive(&cancel, &touched).await {
            Some(Ok(())) => {}
            // What was done is done, and the journal has it: a repetition asks the upstream again from there.
            Some(Err(trouble)) if touched.is_touched() && self.now.kept.get().is_some() && trouble.may_pass() => {
                self.messages.repeated.ended(&self.ticket, exchange, false);
                return self.tell(trouble, false);
            }
            // What cannot be done twice has begun: a repetition gets the same answer.
            Some(Err(trouble)) if touched.is_touched() => self.tell(trouble, true),
            Some(Err(trouble)) => {
                self.tell(trouble, false);
                return self.forget();
            }
            None => return self.leave(),
        }
        // Before its end is told: a repetition that comes at once must find it.
        self.messages.repeated.ended(&self.ticket, exchange, true);
        if let (Some(entry), Some((head, body))) = (self.entry(), exchange.so_far()) {
            entry.answered(&self.run, &head, &body, options.joinable);
        }
    }

    /// Goes on until there is an answer, or none; `None`: it breaks off here, and can go on elsewhere.
    async fn drive(&self, cancel: &Cancel, touched: &Arc<Touched>) -> Option<Result<(), Trouble>> {
        let options = &self.messages.options;
        let grace = self.current.config.server.disconnect_grace;
        let (answer, watch) =
            (self.answer(cancel, touched), watch(&self.exchange, touched, cancel, grace, options.joinable));
        tokio::pin!(answer, watch);
        let (mut is_watched, mut is_stopped) = (true, false);
        let mut tick = interval_at(Instant::now() + options.ping_every / 2, options.ping_every / 2);
        loop {
            tokio::select! {
                biased;
                answered = &mut answer => return Some(answered),
                () = &mut watch, if is_watched => is_watched = false,
                reason = options.stop.cancelled(), if !is_stopped => {
                    if let Some(kept) = self.now.kept.get() {
                        kept.break_off();
                        return None;
                    }
                    cancel.cancel(&reason);
                    is_stopped = true;
                }
                _ = tick.tick() => self.keep_alive(),
            }
        }
    }

    /// A repetition begins anew.
    fn forget(&self) {
        self.messages.repeated.ended(&self.ticket, &self.exchange, false);
        if let Some(entry) = self.entry() {
            entry.forget(&self.run);
        }
    }

    async fn answer(&self, cancel: &Cancel, touched: &Arc<Touched>) -> Result<(), Trouble> {
        let options = &self.messages.options;
        let standins = &self.messages.standins;
        let continued = history::continued(standins, &self.caller.id, &self.request).await?;
        let offer = match &continued {
            // The thread has its tools from before; whose they are was settled then.
            Some(standin) => self.offer.only(|name| standin.returned.ours.contains(name)),
            None => self.offer.clone(),
        };
        let asking = Arc::new(Asking::new(
            self.current.upstream.clone(),
            self.headers.clone(),
            self.target.clone(),
            Arc::clone(&self.exchange),
            self.own(),
        ));
        let agent = Agent::for_client(
            Arc::clone(&asking) as _,
            options.scheduler.clone(),
            Arc::clone(&self.toolbox),
            self.options.clone(),
            history::continue_from(&self.request, continued.as_deref()),
            &offer,
            writes(&self.current.config),
        )
        .map_err(|error| Trouble::Ours(ApiError::invalid(error.to_string())))?;
        let _ = self.now.asking.set(Arc::clone(&asking));
        let _ = asking.ours.set(agent.ours().cloned().unwrap_or_default());
        let (model, reopened) = (&self.request.model, self.reopened.as_ref());
        let (recorder, kept) = options.tellers.begin(&self.run, RunKind::Message, &self.caller, model, reopened);
        if let Some(kept) = kept {
            let _ = self.now.kept.set(kept);
        }
        let wait = self.current.config.run.approval_wait;
        let approver = options.approvals.approver(self.caller.project.clone(), Some(wait));
        let settings = RunSettings {
            run: Some(self.run.clone()),
            caller: Some(self.caller.id.clone()),
            caller_token: self.caller.token.clone(),
            approver: Some(approver),
            parks: false,
            drain: Drain::default(),
            recorder: Some(Arc::new((recorder, Arc::clone(touched)))),
            cancel: cancel.clone(),
            budget: None,
            daily: self.daily(),
        };
        let settler = Settler { agent: &agent, settings: &settings, run: &self.run };
        let said = &self.request.messages;
        self.now.is_settling.store(true, Ordering::Release);
        let history = history::restore(standins, &self.caller.id, said, continued.as_ref(), Some(settler)).await;
        self.now.is_settling.store(false, Ordering::Release);
        let history = history?;
        let begun = history.messages.len();
        let report = self.converse(&agent, history.messages, settings, &asking).await?;
        if let Some(cost) = report.cost_usd {
            (options.spent)(&self.caller, &self.options.model, cost);
        }
        self.end(&asking, report, begun, history.before).await
    }

    /// Runs it, or goes on with what broke off: what the model had said by then is said again.
    async fn converse(
        &self,
        agent: &Agent,
        messages: Vec<Message>,
        mut settings: RunSettings,
        asking: &Asking,
    ) -> Result<Report, Trouble> {
        let Some(reopened) = &self.reopened else { return Ok(agent.run(Conversation::new(messages), settings).await) };
        let resumed = Resumed::of_client(&self.request, messages.clone(), reopened.events());
        let unreadable = |error: ResumeError| {
            let reason = format!("the run `{}` cannot go on: {error}", self.run);
            Trouble::Ours(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", reason))
        };
        let Some(resumed) = resumed.map_err(unreadable)? else {
            return Ok(agent.run(Conversation::new(messages), settings).await);
        };
        for answer in resumed.answers() {
            asking.recall(answer, &self.request);
        }
        let limits = &self.options.limits;
        let budget = Budget::new(limits.tokens_max, limits.cost_max_usd);
        settings.budget = Some(budget.with_spent(resumed.usage.total(), resumed.cost_usd));
        Ok(agent.resume(resumed, settings).await)
    }

    /// The caps of a day that the caller's key is under.
    fn daily(&self) -> Option<Daily> {
        let project = self.caller.project.as_deref()?;
        let caps = daily_caps(&self.current.config, project, self.caller.id.as_str());
        let ledger = Arc::clone(&self.messages.options.ledger);
        (!caps.is_empty()).then(|| Daily { ledger, caps: caps.into() })
    }

    /// What the run came to, told to whoever listens.
    async fn end(&self, asking: &Asking, report: Report, begun: usize, before: Digest) -> Result<(), Trouble> {
        if !matches!(report.status, Status::Done | Status::Refused) {
            let failure = asking.said().failure.take();
            return Err(failure.map_or_else(
                || Trouble::Ours(self.trouble_of(&report)),
                |failure| Trouble::Upstream(Box::new(failure)),
            ));
        }
        self.keep(asking, report, begun, before).await;
        let mut said = asking.said();
        if self.request.stream {
            let usage = said.usage.clone().filter(|_| said.turns > 1);
            let mut out = BytesMut::new();
            said.relay.finish(usage.as_ref(), &mut out);
            self.exchange.send(out.freeze());
            return Ok(());
        }
        let (mut headers, body) = message(&mut said)
            .ok_or_else(|| Trouble::Ours(ApiError::new(StatusCode::BAD_GATEWAY, "upstream", "there was no message")))?;
        headers.extend(self.own());
        self.exchange.begin(Head { status: StatusCode::OK, headers });
        self.exchange.send(body);
        Ok(())
    }

    /// Keeps what the answer stands for, before anybody can come back with it.
    async fn keep(&self, asking: &Asking, report: Report, begun: usize, before: Digest) {
        let messages = report.conversation.messages().get(begun..).unwrap_or_default().to_vec();
        let returned = returned(asking, before).filter(|_| !messages.is_empty());
        if let Some(returned) = returned {
            let (handover, is_threaded) = (report.handover.unwrap_or_default(), self.request.thread.is_some());
            self.messages.standins.keep(&self.caller.id, returned, messages, handover, is_threaded).await;
        }
    }

    fn trouble_of(&self, report: &Report) -> ApiError {
        let reason = report.reason.clone().unwrap_or_else(|| format!("the run ended as `{}`", report.status.as_str()));
        if let Some(wait) = report.retry_after {
            let code = if report.status == Status::Budget { "budget" } else { "rate_limited" };
            return ApiError::new(StatusCode::TOO_MANY_REQUESTS, code, reason).retry_after(wait);
        }
        match report.status {
            Status::Budget if report.elapsed >= self.options.limits.deadline => {
                ApiError::new(StatusCode::GATEWAY_TIMEOUT, "deadline", reason)
            }
            Status::Budget => ApiError::new(StatusCode::BAD_REQUEST, "budget", reason),
            Status::Cancelled => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "cancelled", reason),
            Status::Failed | Status::Done | Status::Refused => {
                ApiError::new(StatusCode::BAD_GATEWAY, "run_failed", reason)
            }
        }
    }

    /// Says why there is no message: by status as long as that can be, else as an event.
    fn tell(&self, trouble: Trouble, is_final: bool) {
        let shown = |error: &ApiError| error.to_json(&self.request_id).to_string();
        if self.exchange.has_begun() {
            let data = match trouble {
                Trouble::Ours(error) => shown(&error),
                Trouble::Upstream(failure) => match *failure {
                    Failure::Event(data) => data,
                    Failure::Answer(status, _, body) => api_error(&body).unwrap_or_else(|| shown(&passed_on(status))),
                    Failure::Silence(error) => shown(&silent(&error)),
                },
            };
            let mut out = BytesMut::new();
            relay::put("error", &data, &mut out);
            self.exchange.send(out.freeze());
            return;
        }
        let error = match trouble {
            Trouble::Ours(error) => error,
            Trouble::Upstream(failure) => match *failure {
                Failure::Answer(status, mut headers, body) => {
                    headers.extend(final_word(is_final));
                    headers.extend(self.own());
                    self.exchange.begin(Head { status, headers });
                    self.exchange.send(body);
                    return;
                }
                Failure::Event(_) => passed_on(StatusCode::OK),
                Failure::Silence(error) => silent(&error),
            },
        };
        let body = shown(&error);
        let answer = error.into_answer(&self.request_id);
        let mut headers = self.own();
        headers.extend(final_word(is_final));
        headers.extend(answer.headers().clone());
        self.exchange.begin(Head { status: answer.status(), headers });
        self.exchange.send(Bytes::from(body));
    }

    /// Keeps the client's connection alive while nothing else is sent.
    fn keep_alive(&self) {
        if !self.request.stream || !self.exchange.was_silent() {
            return;
        }
        if !self.exchange.has_begun() {
            if !self.now.is_settling.load(Ordering::Acquire) {
                // The upstream has not answered yet: its status is still to be passed on.
                return;
            }
            self.exchange.begin(stream_head(&self.own()));
        }
        let has_message = self.now.asking.get().is_some_and(|asking| asking.said().relay.has_begun());
        let sign = if has_message { PING } else { COMMENT };
        self.exchange.send(Bytes::from_static(sign.as_bytes()));
    }
}

/// The message that is about to be returned, after this history.
fn returned(asking: &Asking, before: Digest) -> Option<Returned> {
    let said = asking.said();
    let last_id = said.last.as_ref()?.id.clone();
    Some(Returned {
        before,
        content: canonical::of_content(&said.visible),
        is_unique: canonical::is_unique(&said.visible),
        id: said.relay.id.clone().unwrap_or_else(|| last_id.clone()),
        last_id,
        ours: asking.ours.get().cloned().unwrap_or_default(),
        has_hidden: said.has_hidden,
    })
}

fn final_word(is_final: bool) -> HeaderMap {
    let word = is_final.then_some((HeaderName::from_static(SHOULD_RETRY), HeaderValue::from_static("false")));
    word.into_iter().collect()
}

fn writes(config: &Config) -> WritesAfterClient {
    match config.server.writes_after_client {
        config::WritesAfterClient::Wait => WritesAfterClient::Wait,
        config::WritesAfterClient::Run => WritesAfterClient::Run,
    }
}

/// The message of an answer that is not streamed, and the headers that came with it.
fn message(said: &mut Said) -> Option<(HeaderMap, Bytes)> {
    let (headers, body) = said.whole.take().unwrap_or_default();
    if said.turns == 1 && !said.has_hidden && !body.is_empty() {
        return Some((headers, body));
    }
    let mut last = said.last.take()?;
    last.blocks = std::mem::take(&mut said.visible);
    if let Some(usage) = said.usage.as_ref().and_then(|usage| Raw::from_value(usage).ok()) {
        last.usage_raw = Some(usage);
    }
    let mut headers = headers;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Some((headers, Bytes::from(last.to_json())))
}

/// A body that is an error in the API's shape, as one line.
fn api_error(body: &[u8]) -> Option<String> {
    let error: serde_json::Value = serde_json::from_slice(body).ok()?;
    error.get("error")?.get("type")?;
    std::str::from_utf8(body).ok().map(str::to_owned)
}

fn passed_on(status: StatusCode) -> ApiError {
    ApiError::new(StatusCode::BAD_GATEWAY, "upstream", format!("the upstream answered {status}, and no message"))
}

fn silent(error: &ModelError) -> ApiError {
    let status = match error {
        ModelError::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    ApiError::new(status, "upstream", error.to_string())
}

/// The head of a stream that must begin before the upstream was asked.
pub(super) fn stream_head(own: &HeaderMap) -> Head {
    let mut headers = own.clone();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Head { status: StatusCode::OK, headers }
}
