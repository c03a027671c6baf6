//! A gateway with tools that do what a test says, when it says so.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanout_core::effects::{EffectsSpec, Source, Template};
use fanout_core::outcome::Output;
use fanout_core::run::Scheduler;
use fanout_core::tool::{Attempt, BoxFuture, CallerToken, Progress, Tool, ToolError, ToolSpec};
use fanout_core::toolbox::Toolbox;
use fanout_gateway::{Gateway, GatewayOptions, Reload, Setup, open, serve};
use fanout_host::approvals::Approvals;
use fanout_host::build::{Purpose, Upstream, add_plan};
use fanout_host::claims::build_verifier;
use fanout_host::config::Config;
use fanout_host::environment::Environment;
use fanout_host::keys::KeysFile;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;

use crate::client::{Answer, send};

/// What the tools did.
pub struct Seen {
    /// The idempotency keys of attempts, in the order of their starts.
    pub started: watch::Sender<Vec<String>>,
    /// The end users' tokens of attempts, in the same order.
    tokens: Mutex<Vec<String>>,
    /// Who their verified tokens say they are, in the same order; null where nobody has verified one.
    subjects: Mutex<Vec<Value>>,
    /// How many attempts were stopped before they could answer.
    pub stopped: watch::Sender<usize>,
    /// Tools that wait take one each.
    gate: Semaphore,
}

impl Seen {
    /// The end users' tokens of attempts so far; `none` where there was none.
    pub fn tokens(&self) -> Vec<String> {
        self.tokens.lock().unwrap().clone()
    }

    /// Who the verified tokens of attempts so far say they are.
    pub fn subjects(&self) -> Vec<Value> {
        self.subjects.lock().unwrap().clone()
    }
}

/// One of the tools: `echo` answers at once; `hold` only reads, `pay` writes, and both wait at the gate; `fail` fails.
/// A call of id `says` says how far it is.
struct Prop {
    name: &'static str,
    seen: Arc<Seen>,
}

impl Tool for Prop {
    fn spec(&self) -> ToolSpec {
        let mut spec = ToolSpec::new(self.name, Source::function());
        spec.description = format!("does {}", self.name);
        spec.input_schema = json!({"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]});
        let list = |key: &str| Some(vec![Template::parse(key).unwrap()]);
        let (reads, writes) = match self.name {
            "pay" => (Some(vec![]), list("account/{id}")),
            "fail" => (Some(vec![]), list("failure/{id}")),
            _ => (list("thing/{id}"), Some(vec![])),
        };
        spec.effects = EffectsSpec { reads, writes, ..EffectsSpec::writes_all_of(&Source::function()) };
        spec
    }

    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        let (name, seen) = (self.name, Arc::clone(&self.seen));
        Box::pin(async move {
            let token = attempt.caller_token.as_ref().map_or("none", CallerToken::expose);
            seen.tokens.lock().unwrap().push(token.to_owned());
            let subject = attempt.caller_token.as_ref().and_then(|token| token.claims()?.get("sub").cloned());
            seen.subjects.lock().unwrap().push(subject.unwrap_or_default());
            seen.started.send_modify(|started| started.push(attempt.idempotency_key.to_string()));
            let mut stopped = Stopped { seen: &seen, answered: false };
            if attempt.input["id"] == "says" {
                attempt.progress(Progress { done: 1.0, total: Some(4.0), message: Some("a quarter".into()) });
            }
            if matches!(name, "hold" | "pay") {
                seen.gate.acquire().await.expect("the gate is never closed").forget();
            }
            stopped.answered = true;
            match name {
                "fail" => Err(ToolError::Failed("no".to_owned())),
                _ => Ok(Output::json(json!({ "id": attempt.input["id"] }))),
            }
        })
    }
}

struct Stopped<'a> {
    seen: &'a Seen,
    answered: bool,
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.seen.stopped.send_modify(|stopped| *stopped += 1);
        }
    }
}

/// A gateway that is served.
pub struct Stage {
    pub address: SocketAddr,
    pub gateway: Gateway,
    pub toolbox: Arc<Toolbox>,
    pub seen: Arc<Seen>,
    pub keys: KeysFile,
    /// The tools and the configuration of the next reload.
    next: Arc<Mutex<(Vec<&'static str>, String)>>,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// On loopback, with a configuration of these lines.
    pub fn with(toml: &str) -> Self {
        Self::at(IpAddr::from([127, 0, 0, 1]), toml, Duration::from_secs(60))
    }

    pub fn new() -> Self {
        Self::with("")
    }

    /// In front of this upstream.
    pub fn before(upstream: &str, toml: &str) -> Self {
        Self::build(IpAddr::from([127, 0, 0, 1]), toml, Duration::from_secs(60), Some(upstream.to_owned()))
    }

    /// The gateway believes that it listens on `ip`; for a test it is reached over loopback all the same.
    pub fn at(ip: IpAddr, toml: &str, grace: Duration) -> Self {
        Self::build(ip, toml, grace, None)
    }

    fn build(ip: IpAddr, toml: &str, grace: Duration, upstream: Option<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let seen = Arc::new(Seen {
            started: watch::Sender::default(),
            tokens: Mutex::default(),
            subjects: Mutex::default(),
            stopped: watch::Sender::default(),
            gate: Semaphore::new(0),
        });
        let tools = {
            let seen = Arc::clone(&seen);
            move |names: &[&'static str], config: &Config| {
                let mut toolbox = Toolbox::new();
                for name in names {
                    toolbox.add(Prop { name, seen: Arc::clone(&seen) }).unwrap();
                }
                add_plan(&mut toolbox, config, Purpose::Serve).unwrap();
                Arc::new(toolbox)
            }
        };
        let parse = |toml: &str, folder: &Path| {
            let config = Config::parse("test.toml", toml, folder, &Environment::default());
            config.unwrap_or_else(|errors| panic!("{errors}"))
        };
        let config = parse(toml, folder.path());
        let toolbox = tools(&["echo", "hold", "pay", "fail"], &config);
        let keys = KeysFile::at(PathBuf::from(&config.server.keys_file));
        let listener = open(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        // Without an upstream, what it passes on comes back to it: nothing is meant to be passed on.
        let base_url = upstream.unwrap_or_else(|| format!("http://{address}"));
        let setup = move |config: Config, toolbox| Setup {
            toolbox,
            upstream: Upstream { base_url: base_url.clone(), api_key: None },
            verifier: build_verifier(config.server.jwt.as_ref(), &Environment::default()).unwrap(),
            config,
        };
        let setup_now = setup(config, Arc::clone(&toolbox));
        let next = Arc::new(Mutex::new((Vec::new(), toml.to_owned())));
        let reload: Reload = {
            let (next, folder) = (Arc::clone(&next), folder.path().to_owned());
            Arc::new(move || {
                let (names, toml) = next.lock().unwrap().clone();
                let config = parse(&toml, &folder);
                let toolbox = tools(&names, &config);
                let next = setup(config, toolbox);
                Box::pin(async { Ok(next) })
            })
        };
        let gateway = Gateway::new(GatewayOptions {
            journal: None,
            notices: fanout_host::notify::Notices::default(),
            ledger: std::sync::Arc::new(fanout_agent::MemoryLedger::default()),
            approvals: Approvals::in_memory(),
            scheduler: Scheduler::new(setup_now.config.scheduler_options()),
            setup: setup_now,
            reload: Some(reload),
            address: SocketAddr::new(ip, address.port()),
        })
        .unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn({
            let gateway = gateway.clone();
            async move {
                let stopped = async { drop(stopped.await) };
                serve(listener, &gateway, stopped, grace).await;
            }
        });
        Self { address, gateway, toolbox, seen, keys, next, stop: Some(stop), served: Some(served), _folder: folder }
    }

    /// Has the gateway read its configuration again, which has these tools now.
    pub async fn reload(&self, tools: &[&'static str]) {
        self.next.lock().unwrap().0 = tools.to_vec();
        self.gateway.reload().await.unwrap();
    }

    /// Has it read a configuration of these lines, with the tool `echo`.
    pub async fn reload_with(&self, toml: &str) {
        *self.next.lock().unwrap() = (vec!["echo"], toml.to_owned());
        self.gateway.reload().await.unwrap();
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        send(self.address, "POST", path, &all, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.address, "GET", path, &[], "").await
    }

    /// Lets so many calls through the gate.
    pub fn release(&self, calls: usize) {
        self.seen.gate.add_permits(calls);
    }

    /// Waits until so many attempts have started, and gives their idempotency keys.
    pub async fn started(&self, calls: usize) -> Vec<String> {
        let mut started = self.seen.started.subscribe();
        started.wait_for(|started| started.len() >= calls).await.unwrap().clone()
    }

    /// Waits until so many attempts were stopped.
    pub async fn stopped(&self, calls: usize) {
        self.seen.stopped.subscribe().wait_for(|stopped| *stopped >= calls).await.unwrap();
    }

    /// Tells the server to stop, and gives what ends with it.
    pub fn close(&mut self) -> JoinHandle<()> {
        drop(self.stop.take());
        self.served.take().expect("closed once")
    }
}

pub const TOOL_CALLS: &str = "/fanout/v1/tool_calls";

/// A body with calls, written `id=tool`; the tool's input names the call's id.
pub fn body(calls: &str) -> String {
    let call = |call: &str| {
        let (id, tool) = call.split_once('=').unwrap();
        json!({"type": "tool_use", "id": id, "name": tool, "input": {"id": id}})
    };
    let content: Vec<Value> = calls.split_whitespace().map(call).collect();
    json!({ "content": content }).to_string()
}
