//! The stage: the scripted server on its socket, an agent that speaks to it over HTTP, and a log of what happened.
//!
//! From a test: turns of the script. To it: the report, the log, and the requests that arrived. After every run the
//! report's conversation is sent once more, and no request of a test may have broken a rule of the API.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanout_agent::{Agent, AgentOptions, Conversation, Report, RunSettings};
use fanout_anthropic::{
    BoxFuture, HttpModel, HttpOptions, Message, Model, ModelError, Part, Raw, Request, Response, Role, View,
};
use fanout_core::event::{Event, Recorder, What, outcome_word};
use fanout_core::retry::Backoff;
use fanout_core::run::{Scheduler, SchedulerOptions};
use fanout_core::secrets::Secrets;
use fanout_core::toolbox::Toolbox;
use fanout_script::{Block, Script, Server, ServerOptions, Turn};
use serde_json::Value;
use tokio::sync::watch;

use crate::tools::toolbox;

/// A budget of tokens that no other request has: it marks the one that only checks a conversation.
const PROBE_TOKENS: u32 = 7;

/// What happened, in words, in order: `ask 1`, `said 1`, `start r1`, `r1 ok`, `discard 1`, `end 1`, `run done`.
pub(crate) struct Log {
    lines: watch::Sender<Vec<String>>,
    work: Mutex<Vec<String>>,
    alive: watch::Sender<i64>,
    gate: watch::Sender<bool>,
}

impl Log {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            lines: watch::Sender::default(),
            work: Mutex::default(),
            alive: watch::Sender::default(),
            gate: watch::Sender::default(),
        })
    }

    /// All lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }

    /// Where a line stands.
    #[track_caller]
    pub(crate) fn at(&self, line: &str) -> usize {
        let lines = self.lines();
        lines.iter().position(|known| known == line).unwrap_or_else(|| panic!("no `{line}` in {lines:?}"))
    }

    pub(crate) fn has(&self, line: &str) -> bool {
        self.lines.borrow().iter().any(|known| known == line)
    }

    /// Waits for a line.
    pub(crate) async fn until(&self, line: &str) {
        self.lines.subscribe().wait_for(|lines| lines.iter().any(|known| known == line)).await.unwrap();
    }

    /// Waits until there are so many lines.
    pub(crate) async fn until_lines(&self, count: usize) {
        self.lines.subscribe().wait_for(|lines| lines.len() >= count).await.unwrap();
    }

    /// The work that tools did, in order.
    pub(crate) fn work(&self) -> Vec<String> {
        self.work.lock().unwrap().clone()
    }

    /// The work that tools did, whatever came first.
    pub(crate) fn all_work(&self) -> Vec<String> {
        let mut work = self.work();
        work.sort();
        work
    }

    /// How often this was done.
    pub(crate) fn times(&self, work: &str) -> usize {
        self.work.lock().unwrap().iter().filter(|known| *known == work).count()
    }

    pub(crate) fn did(&self, what: String) {
        self.work.lock().unwrap().push(what);
    }

    pub(crate) fn alive(&self, change: i64) {
        self.alive.send_modify(|alive| *alive += change);
    }

    /// Waits until no attempt is alive.
    pub(crate) async fn nobody_is_alive(&self) {
        self.alive.subscribe().wait_for(|alive| *alive == 0).await.unwrap();
    }

    /// Lets `stay` and `peek` end, from now on.
    pub(crate) fn open_gate(&self) {
        self.gate.send_replace(true);
    }

    pub(crate) async fn gate(&self) {
        self.gate.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

impl Recorder for Log {
    fn record(&self, event: &Event) {
        let line = match &event.what {
            What::TurnStarted { turn } => format!("ask {turn}"),
            What::ModelEnded { turn, .. } => format!("said {turn}"),
            What::ModelFailed { turn, again_after, .. } => {
                let next = if again_after.is_some() { "again" } else { "for good" };
                format!("failed {turn} {next}")
            }
            What::CallArrived { call, .. } => format!("call {call}"),
            What::AttemptStarted { call, .. } => format!("start {call}"),
            What::CallEnded { outcome } => format!("{} {}", outcome.call, outcome_word(outcome.error_code())),
            What::TurnDiscarded { turn, .. } => format!("discard {turn}"),
            What::TurnEnded { turn } => format!("end {turn}"),
            What::RunEnded { status, .. } => format!("run {status}"),
            _ => return,
        };
        self.lines.send_modify(|lines| lines.push(line));
    }
}

/// The real client, and what a test wants of its answers' time.
pub(crate) struct Wire {
    inner: HttpModel,
    log: Arc<Log>,
    /// Answers, good or bad, are given on only once this line is there.
    hold: Option<String>,
    /// The clock jumps over every wait that follows a failed request.
    jump: bool,
    jumping: AtomicBool,
    /// What every response names as its container.
    container: Option<Raw>,
}

impl Model for Wire {
    fn respond<'a>(
        &'a self,
        request: &'a Request,
        on_part: &'a mut (dyn FnMut(Part<'_>) + Send),
    ) -> BoxFuture<'a, Result<Response, ModelError>> {
        Box::pin(async move {
            if self.jumping.swap(false, Ordering::Relaxed) {
                tokio::time::resume();
            }
            let mut result = self.inner.respond(request, on_part).await;
            if let Some(line) = &self.hold {
                self.log.until(line).await;
            }
            if let (Ok(response), Some(container)) = (&mut result, &self.container) {
                response.extra.push(("container".to_owned(), container.clone()));
            }
            if result.is_err() && self.jump {
                self.jumping.store(true, Ordering::Relaxed);
                tokio::time::pause();
            }
            result
        })
    }
}

pub(crate) struct Stage {
    pub(crate) server: Server,
    pub(crate) log: Arc<Log>,
    pub(crate) options: AgentOptions,
    pub(crate) toolbox: Arc<Toolbox>,
    pub(crate) scheduler: Scheduler,
    wire: Arc<Wire>,
}

impl Stage {
    /// A server that says these turns, streamed, and retries without waits worth the name.
    pub(crate) fn open(turns: impl IntoIterator<Item = Turn>) -> Self {
        Self::serve(ServerOptions::script(Script::new(turns)))
    }

    pub(crate) fn serve(options: ServerOptions) -> Self {
        let server = Server::start(options).unwrap();
        let http = HttpOptions { base_url: server.base_url(), ..HttpOptions::default() };
        let log = Log::new();
        let wire = Wire {
            inner: HttpModel::new(http).unwrap(),
            log: Arc::clone(&log),
            hold: None,
            jump: false,
            jumping: AtomicBool::new(false),
            container: None,
        };
        let mut options = AgentOptions::new("claude-test");
        options.max_tokens = 1_000;
        options.system = Some("You are on a stage.".to_owned());
        options.backoff.base = Duration::from_millis(1);
        let toolbox = toolbox(&log);
        let scheduler = Scheduler::new(SchedulerOptions::default());
        Self { server, toolbox, scheduler, options, log, wire: Arc::new(wire) }
    }

    /// Hides this value in what the run says.
    pub(crate) fn hiding(mut self, name: &str, value: &str) -> Self {
        let (mut toolbox, mut secrets) = (Toolbox::new(), Secrets::new());
        secrets.add(name, value);
        toolbox.hide(secrets);
        self.toolbox = Arc::new(toolbox);
        self
    }

    /// With `plan` among the tools.
    pub(crate) fn planning(mut self) -> Self {
        let toolbox = Arc::get_mut(&mut self.toolbox).unwrap();
        toolbox.add_plan(64 * 1024).unwrap();
        self
    }

    /// Changes the options.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut AgentOptions)) -> Self {
        change(&mut self.options);
        self
    }

    pub(crate) fn streaming(self, stream: bool) -> Self {
        self.with(|options| options.stream = stream)
    }

    pub(crate) fn backoff(self, attempts: u32) -> Self {
        self.with(|options| options.backoff = Backoff { attempts, ..options.backoff })
    }

    pub(crate) fn hold_answers_until(mut self, line: &str) -> Self {
        Arc::get_mut(&mut self.wire).unwrap().hold = Some(line.to_owned());
        self
    }

    pub(crate) fn jump_over_waits(mut self) -> Self {
        Arc::get_mut(&mut self.wire).unwrap().jump = true;
        self
    }

    /// A silence of so long breaks an answer off.
    pub(crate) fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        let http = HttpOptions { base_url: self.server.base_url(), idle_timeout, ..HttpOptions::default() };
        Arc::get_mut(&mut self.wire).unwrap().inner = HttpModel::new(http).unwrap();
        self
    }

    pub(crate) fn container(mut self, json: &str) -> Self {
        Arc::get_mut(&mut self.wire).unwrap().container = Some(Raw::parse(json).unwrap());
        self
    }

    pub(crate) fn agent(&self) -> Agent {
        let model: Arc<dyn Model> = Arc::clone(&self.wire) as _;
        Agent::new(model, self.scheduler.clone(), Arc::clone(&self.toolbox), self.options.clone()).unwrap()
    }

    pub(crate) fn settings(&self) -> RunSettings {
        RunSettings { recorder: Some(Arc::clone(&self.log) as _), ..RunSettings::default() }
    }

    pub(crate) async fn run(&self) -> Report {
        self.run_as(self.settings()).await
    }

    /// One run; its conversation must be one that the API takes.
    pub(crate) async fn run_as(&self, settings: RunSettings) -> Report {
        let report = self.agent().run(Conversation::from_prompt("go"), settings).await;
        self.stands(&report).await;
        report
    }

    /// Sends the conversation once more, with whatever the last request had beside it.
    async fn stands(&self, report: &Report) {
        let Some(last) = self.server.requests().last().cloned() else { return };
        let mut request = Request::parse(&last.body).unwrap();
        request.messages = report.conversation.messages().to_vec();
        request.max_tokens = PROBE_TOKENS;
        if request.messages.last().is_some_and(|message| message.role() == Role::Assistant) {
            request.messages.push(Message::user_text("and?"));
        }
        // What the script does to it is of no matter, only what the server has against it.
        drop(self.wire.inner.respond(&request, &mut |_| {}).await);
        assert_eq!(self.server.violations(), [], "{}: {}", end_of(report), told(&report.conversation));
    }

    /// The bodies of all requests of the agent.
    pub(crate) fn asked(&self) -> Vec<Value> {
        let bodies = self.server.requests().into_iter().map(|request| serde_json::from_slice(&request.body).unwrap());
        bodies.filter(|body: &Value| body["max_tokens"] != PROBE_TOKENS).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.server.violations(), []);
        }
    }
}

/// A call of `tool` whose id is also its key.
pub(crate) fn call(tool: &str, id: &str) -> Block {
    Block::tool_use(tool, format!(r#"{{"id":"{id}"}}"#)).with_id(id)
}

/// A turn of calls such as `read r1, write w1`.
pub(crate) fn calls(text: &str) -> Turn {
    Turn::new(text.split(", ").map(|pair| {
        let (tool, id) = pair.split_once(' ').unwrap();
        call(tool, id)
    }))
}

/// How the run ended: `done`, or `failed: why`.
pub(crate) fn end_of(report: &Report) -> String {
    match &report.reason {
        Some(reason) => format!("{}: {reason}", report.status.as_str()),
        None => report.status.as_str().to_owned(),
    }
}

/// A conversation in one line: `u: text | a: read r1, write w1 | u: =r1, !w1 upstream | a: text`.
pub(crate) fn told(conversation: &Conversation) -> String {
    let messages = conversation.messages().iter().map(|message| {
        let role = if message.role() == Role::User { "u" } else { "a" };
        let blocks: Vec<String> = message.blocks().unwrap().iter().map(block_told).collect();
        format!("{role}: {}", blocks.join(", "))
    });
    messages.collect::<Vec<_>>().join(" | ")
}

fn block_told(block: &fanout_anthropic::Block) -> String {
    match block.view() {
        View::Text(_) => "text".to_owned(),
        View::ToolUse(call) => format!("{} {}", call.name, call.id),
        View::ServerToolUse { id, .. } => format!("server {id}"),
        View::ToolResult { tool_use_id, is_error: false } => format!("={tool_use_id}"),
        View::ToolResult { tool_use_id, is_error: true } => format!("!{tool_use_id} {}", code_of(block)),
        View::Thinking => "thinking".to_owned(),
        View::Other { kind } => kind.clone(),
        _ => "?".to_owned(),
    }
}

fn code_of(block: &fanout_anthropic::Block) -> String {
    let block: Value = serde_json::from_str(block.raw().as_str()).unwrap();
    let body: Value = serde_json::from_str(block["content"].as_str().unwrap_or_default()).unwrap_or_default();
    match body["error"]["code"].as_str() {
        Some(code) => code.to_owned(),
        None if body.get("INVALID_JSON").is_some() => "INVALID_JSON".to_owned(),
        None => block["content"].to_string(),
    }
}
