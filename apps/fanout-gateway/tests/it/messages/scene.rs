//! A scripted server, a gateway before it with tools that keep a log, and a client that prints anew what it is given.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanout_anthropic::Assembler;
use fanout_core::effects::{EffectsSpec, Source, Template};
use fanout_core::outcome::Output;
use fanout_core::run::Scheduler;
use fanout_core::tool::{Attempt, BoxFuture, Tool, ToolError, ToolSpec};
use fanout_core::toolbox::Toolbox;
use fanout_gateway::{Gateway, GatewayOptions, Setup, open, serve};
use fanout_host::approvals::Approvals;
use fanout_host::build::Upstream;
use fanout_host::config::Config;
use fanout_host::environment::Environment;
use fanout_host::keys::{Grant, KeysFile};
use fanout_journal::{Journal, JournalOptions, SqliteStore};
use fanout_script::{Block, Script, Server, ServerOptions, Turn};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// What the tools do: `read` and `peek` read `k/{id}`, `write` and `pay` write it; `peek` and `pay` wait for the gate.
pub const OURS: [&str; 4] = ["read", "write", "peek", "pay"];

/// What tools did, in order, and the gate.
pub struct Log {
    pub started: watch::Sender<Vec<String>>,
    pub done: Mutex<Vec<String>>,
    pub alive: watch::Sender<usize>,
    gate: watch::Sender<bool>,
}

struct Hand {
    name: &'static str,
    log: Arc<Log>,
}

struct Alive(Arc<Log>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.send_modify(|alive| *alive -= 1);
    }
}

impl Tool for Hand {
    fn spec(&self) -> ToolSpec {
        let mut spec = ToolSpec::new(self.name, Source::function());
        spec.description = format!("The tool `{}`.", self.name);
        spec.input_schema = json!({"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]});
        let key = || Some(vec![Template::parse("k/{id}").unwrap()]);
        let (reads, writes) = match self.name {
            "read" | "peek" => (key(), Some(Vec::new())),
            _ => (None, key()),
        };
        spec.effects = EffectsSpec { reads, writes, ..EffectsSpec::writes_all_of(&Source::function()) };
        spec
    }

    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        let (name, log) = (self.name, Arc::clone(&self.log));
        log.alive.send_modify(|alive| *alive += 1);
        let alive = Alive(Arc::clone(&log));
        Box::pin(async move {
            let _alive = alive;
            let what = format!("{name} {}", attempt.input["id"].as_str().unwrap());
            log.started.send_modify(|started| started.push(what.clone()));
            if matches!(name, "peek" | "pay") {
                log.gate.subscribe().wait_for(|open| *open).await.unwrap();
            }
            log.done.lock().unwrap().push(what.clone());
            Ok(Output::text(format!("{what}: fine")))
        })
    }
}

impl Log {
    pub fn open_gate(&self) {
        self.gate.send_replace(true);
    }

    /// Waits until this has started.
    pub async fn started(&self, what: &str) {
        self.started.subscribe().wait_for(|started| started.iter().any(|known| known == what)).await.unwrap();
    }

    /// Waits until no attempt is alive.
    pub async fn nobody_is_alive(&self) {
        self.alive.subscribe().wait_for(|alive| *alive == 0).await.unwrap();
    }

    /// What was done, in no order.
    pub fn done(&self) -> String {
        let mut done = self.done.lock().unwrap().clone();
        done.sort();
        done.join(", ")
    }
}

pub struct Scene {
    pub server: Arc<Server>,
    pub log: Arc<Log>,
    pub address: SocketAddr,
    pub client: reqwest::Client,
    headers: Vec<(&'static str, String)>,
    /// How many complaints of the server are the test's own wish.
    pub complaints: usize,
    serving: Option<Serving>,
    journal: Option<(Journal, JoinHandle<()>)>,
    toolbox: Arc<Toolbox>,
    folder: TempDir,
}

/// A gateway that serves until it is told to stop.
struct Serving {
    stop: oneshot::Sender<()>,
    over: JoinHandle<()>,
}

/// What a client got.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
    is_stream: bool,
}

impl Got {
    /// The message, from its events if it was streamed.
    #[track_caller]
    pub fn message(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        if !self.is_stream {
            return serde_json::from_str(&self.text).unwrap();
        }
        self.is_one_stream();
        let mut assembler = Assembler::new();
        assembler.feed(self.text.as_bytes(), &mut |_| {}).unwrap_or_else(|error| panic!("{error}: {}", self.text));
        serde_json::from_str(&assembler.finish().unwrap().to_json()).unwrap()
    }

    /// The events of a stream: names and data.
    pub fn events(&self) -> Vec<(String, Value)> {
        let event = |event: &str| {
            let name = event.lines().find_map(|line| line.strip_prefix("event: "))?.to_owned();
            let data = event.lines().find_map(|line| line.strip_prefix("data: "))?;
            Some((name, serde_json::from_str(data).unwrap()))
        };
        self.text.split("\n\n").filter_map(event).collect()
    }

    /// One start, one end, and blocks that are counted through.
    #[track_caller]
    fn is_one_stream(&self) {
        let events = self.events();
        let count = |name: &str| events.iter().filter(|(known, _)| known == name).count();
        for once in ["message_start", "message_delta", "message_stop"] {
            assert_eq!(count(once), 1, "{once} in {}", self.text);
        }
        let starts = events.iter().filter(|(name, _)| name == "content_block_start");
        let indices: Vec<u64> = starts.map(|(_, data)| data["index"].as_u64().unwrap()).collect();
        let want: Vec<u64> = (0..indices.len() as u64).collect();
        assert_eq!(indices, want, "{}", self.text);
    }
}

impl Scene {
    /// A server that says these turns.
    pub fn open(turns: impl IntoIterator<Item = Turn>) -> Self {
        Self::serve(ServerOptions::script(Script::new(turns)))
    }

    pub fn serve(options: ServerOptions) -> Self {
        let server = Server::start(options).unwrap();
        let base_url = server.base_url();
        Self::before(server, &base_url, true)
    }

    /// The same with `plan` among our tools.
    pub fn planning(turns: impl IntoIterator<Item = Turn>) -> Self {
        let server = Server::start(ServerOptions::script(Script::new(turns))).unwrap();
        let base_url = server.base_url();
        Self::offering(server, &base_url, &OURS, true)
    }

    /// A gateway before this address, with our tools or without any.
    pub fn before(server: Server, base_url: &str, has_tools: bool) -> Self {
        Self::offering(server, base_url, if has_tools { &OURS } else { &[] }, false)
    }

    fn offering(server: Server, base_url: &str, tools: &[&'static str], plan: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(Log {
            started: watch::Sender::default(),
            done: Mutex::default(),
            alive: watch::Sender::default(),
            gate: watch::Sender::default(),
        });
        let mut toolbox = Toolbox::new();
        for name in tools {
            toolbox.add(Hand { name, log: Arc::clone(&log) }).unwrap();
        }
        if plan {
            toolbox.add_plan(64 * 1024).unwrap();
        }
        let toolbox = Arc::new(toolbox);
        let (address, serving) = gate(&folder, base_url, &toolbox, None);
        let client = fanout_anthropic::HttpOptions { base_url: format!("http://{address}"), ..Default::default() };
        let (client, _) = client.connections().unwrap();
        Self {
            server: Arc::new(server),
            log,
            address,
            client,
            headers: vec![("anthropic-version", "2023-06-01".to_owned())],
            complaints: 0,
            serving: Some(serving),
            journal: None,
            toolbox,
            folder,
        }
    }

    /// The same with a journal, which the gateways of [`Scene::restart`] share.
    pub async fn kept(mut self) -> Self {
        self.restart().await;
        self
    }

    /// Stops the gateway, and starts another that knows no more than the journal.
    pub async fn restart(&mut self) {
        if let Some(Serving { stop, over }) = self.serving.take() {
            drop(stop);
            over.await.unwrap();
        }
        if let Some((journal, writing)) = self.journal.take() {
            journal.close();
            writing.await.unwrap();
        }
        let store = SqliteStore::open(&self.folder.path().join("journal.db")).unwrap();
        let (journal, writing) = Journal::new(Arc::new(store), JournalOptions::default());
        let (address, serving) = gate(&self.folder, &self.server.base_url(), &self.toolbox, Some(journal.clone()));
        self.journal = Some((journal, writing));
        (self.address, self.serving) = (address, Some(serving));
    }

    /// With server-held threads asked for.
    pub fn with_threads(mut self) -> Self {
        self.headers = vec![
            ("anthropic-version", "2026-10-21".to_owned()),
            ("anthropic-beta", "message-threads-2026-08-12".to_owned()),
        ];
        self
    }

    pub fn request(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        let mut request = self.client.post(url).header("content-type", "application/json").body(body);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Got {
        let answer = self.request(path, headers, body).send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let is_stream =
            headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        Got { status, headers, text: answer.text().await.unwrap(), is_stream }
    }

    /// A key of a new caller in this project.
    pub fn key_of(&self, project: &str) -> String {
        let grant = Grant { project: Some(project.to_owned()), ..Grant::default() };
        let (_, key) = KeysFile::at(self.folder.path().join("keys.toml")).add(grant).unwrap();
        key.expose_secret().to_owned()
    }

    pub async fn ask(&self, body: &Value) -> Got {
        self.post("/v1/messages", &[], body.to_string()).await
    }

    /// `/metrics`, as text.
    pub async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.address);
        self.client.get(url).send().await.unwrap().text().await.unwrap()
    }

    /// The bodies of all requests upstream.
    pub fn asked(&self) -> Vec<Value> {
        self.server.requests().iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect()
    }
}

/// A gateway before this address, with these tools.
fn gate(folder: &TempDir, base_url: &str, toolbox: &Arc<Toolbox>, journal: Option<Journal>) -> (SocketAddr, Serving) {
    let toml = "[server]\ndisconnect_grace = \"50ms\"\n[prices.\"claude-test\"]\ninput = 3.0\noutput = 15.0\n\
                cache_read = 0.3\ncache_write = 3.75\n[project.support]\nmax_cost_usd_per_day = 0.1\n";
    let config = Config::parse("test.toml", toml, folder.path(), &Environment::default());
    let config = config.unwrap_or_else(|errors| panic!("{errors}"));
    let listener = open(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let gateway = Gateway::new(GatewayOptions {
        journal,
        notices: fanout_host::notify::Notices::default(),
        ledger: std::sync::Arc::new(fanout_agent::MemoryLedger::default()),
        approvals: Approvals::in_memory(),
        scheduler: Scheduler::new(config.scheduler_options()),
        setup: Setup {
            config,
            toolbox: Arc::clone(toolbox),
            upstream: Upstream { base_url: base_url.to_owned(), api_key: None },
            verifier: None,
        },
        reload: None,
        address,
    })
    .unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let over = tokio::spawn(async move {
        gateway.recover().await.unwrap();
        let stopped = async { drop(stopped.await) };
        serve(listener, &gateway, stopped, Duration::ZERO).await;
    });
    (address, Serving { stop, over })
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(self.serving.take());
        if !std::thread::panicking() {
            let violations = self.server.violations();
            assert_eq!(violations.len(), self.complaints, "{violations:?}");
        }
    }
}

/// A request with these messages.
pub fn request(stream: bool, messages: &[Value]) -> Value {
    let mut body = json!({"model": "claude-test", "max_tokens": 1000, "system": "Be brief.", "messages": messages});
    if stream {
        body["stream"] = json!(true);
    }
    body
}

/// The same with a tool of the client's own, `mine`.
pub fn with_mine(mut body: Value) -> Value {
    body["tools"] = json!([{"name": "mine", "description": "The client's.", "input_schema": {"type": "object"}}]);
    body
}

/// Asks, and answers the client's own call `m1` in a second message: until then `y` alone has been read, then `x` is written
/// and read, in that order.
pub async fn writes_x_once_m1_is_answered(scene: &Scene) {
    let mut messages = vec![user("go")];
    let got = scene.ask(&with_mine(request(false, &messages))).await.message();
    assert_eq!(scene.log.done(), "read y");
    messages.extend([said(&got), results(&["m1"])]);
    scene.ask(&with_mine(request(false, &messages))).await.message();
    assert_eq!(*scene.log.done.lock().unwrap(), ["read y", "write x", "read x"]);
}

pub fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

/// What a client puts into its history: the content as it prints it.
pub fn said(message: &Value) -> Value {
    json!({"role": "assistant", "content": message["content"]})
}

/// The client's results.
pub fn results(ids: &[&str]) -> Value {
    let result =
        |id: &&str| json!({"type": "tool_result", "tool_use_id": id, "content": format!("{id} by the client")});
    json!({"role": "user", "content": ids.iter().map(result).collect::<Vec<_>>()})
}

/// A turn of blocks such as `text, think, read r1, mine m1`.
pub fn turn(blocks: &str) -> Turn {
    Turn::new(blocks.split(", ").map(|block| match block.split_once(' ') {
        None if block == "think" => Block::thinking("Hm.", "c2lnbmF0dXJl"),
        None => Block::text(block),
        Some((tool, id)) => Block::tool_use(tool, format!(r#"{{ "id":"{id}" }}"#)).with_id(id),
    }))
}

/// A message or a history in one line: `text | read r1 | =r1`.
pub fn told(content: &Value) -> String {
    if let Some(text) = content.as_str() {
        return text.to_owned();
    }
    let block = |block: &Value| match block["type"].as_str().unwrap() {
        "text" => block["text"].as_str().unwrap().to_owned(),
        "thinking" => "think".to_owned(),
        "tool_use" => format!("{} {}", block["name"].as_str().unwrap(), block["id"].as_str().unwrap()),
        "tool_result" => format!("={}", block["tool_use_id"].as_str().unwrap()),
        other => other.to_owned(),
    };
    content.as_array().unwrap().iter().map(block).collect::<Vec<_>>().join(", ")
}

/// The messages of a request in one line each.
pub fn history(body: &Value) -> Vec<String> {
    body["messages"].as_array().unwrap().iter().map(|message| told(&message["content"])).collect()
}
