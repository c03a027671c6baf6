//! One conversation's surroundings: a scripted Claude, a shop, and a gateway between a client and the two; or a gateway alone.
//!
//! From a script and the `fanout` binary. To [`conversation`](crate::conversation): where to send requests, and what was
//! asked of the two in the end. Every stage is fresh, so that nothing one conversation did is seen by the next.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use fanout_script::shop::{Latencies, Shop, ShopOptions, ShopState, tools_toml};
use fanout_script::{Block, Conversation, Fidelity, Received, Script, Server, ServerOptions, Turn};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::install::alone;

/// Where a script has the model repeat what the tools answered.
const RESULTS: &str = "{results}";

/// The gateway's log, in its folder.
const LOG: &str = "gateway.log";

/// A scripted Claude and a shop.
#[derive(Debug)]
pub struct Stage {
    server: Server,
    shop: Shop,
}

impl Stage {
    /// Opens both.
    ///
    /// # Errors
    /// When the script can't be read, or no port is free.
    pub fn open(script: &Path, fidelity: Fidelity) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(script).with_context(|| format!("reading `{}`", script.display()))?;
        let script = Script::from_json(&text).with_context(|| format!("in `{}`", script.display()))?;
        let says = move |conversation: &Conversation| repeat_results(script.turn(conversation), conversation);
        let server = Server::start(ServerOptions::responder(says).fidelity(fidelity))?;
        let shop = Shop::start_with(ShopOptions { latencies: Latencies::none() })?;
        Ok(Self { server, shop })
    }

    /// Where the scripted Claude is.
    pub fn claude(&self) -> String {
        self.server.base_url()
    }

    /// Where the shop is.
    pub fn shop(&self) -> String {
        self.shop.base_url()
    }

    /// Closes both, and says what was asked of them and what the shop has come to.
    ///
    /// # Errors
    /// When the model refused a request.
    pub async fn close(self) -> anyhow::Result<(Vec<Received>, ShopState)> {
        let (requests, violations) = (self.server.requests(), self.server.violations());
        if let Some(first) = violations.first() {
            let body = requests.get(first.request).map(|request| String::from_utf8_lossy(&request.body).into_owned());
            bail!("the model refused request {}: {} ({body:?})", first.request, first.message);
        }
        let state = self.shop.state()?;
        self.server.stop().await;
        Ok((requests, state))
    }
}

/// A gateway of its own process. Dropping it kills it.
#[derive(Debug)]
pub struct Gateway {
    url: String,
    process: Child,
    folder: TempDir,
}

impl Gateway {
    /// Serves the stage's shop as tools, before the stage's Claude.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn before(stage: &Stage, fanout: &Path) -> anyhow::Result<Self> {
        let claude = stage.claude();
        Self::start(fanout, &tools_toml(&stage.shop()), &[], &[("FANOUT_UPSTREAM_URL", &claude)]).await
    }

    /// The gateway that brings its own Claude and its own shop.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn demo(fanout: &Path) -> anyhow::Result<Self> {
        Self::start(fanout, "", &["--demo"], &[]).await
    }

    /// Serves the tools of this configuration, which ask the server at `tools`; there is no Claude behind it.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn of_tools(config: &str, tools: &str, fanout: &Path) -> anyhow::Result<Self> {
        Self::start(fanout, config, &[], &[("TOOLS_URL", tools)]).await
    }

    /// Serves the tools of this configuration's MCP servers, which it names by these variables.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn of_servers(config: &str, variables: &[(&str, &str)], fanout: &Path) -> anyhow::Result<Self> {
        Self::start(fanout, config, &[], variables).await
    }

    /// Serves the tools of this configuration, which is filled in by these variables.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn of_database(config: &str, variables: &[(&str, &str)], fanout: &Path) -> anyhow::Result<Self> {
        Self::start(fanout, config, &[], variables).await
    }

    /// Serves the configuration in this folder, before the Claude at this address.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn of_starter(folder: TempDir, claude: &str, fanout: &Path) -> anyhow::Result<Self> {
        Self::serve(fanout, folder, &[], &[("FANOUT_UPSTREAM_URL", claude)]).await
    }

    async fn start(fanout: &Path, config: &str, flags: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("fanout.toml"), config)?;
        Self::serve(fanout, folder, flags, environment).await
    }

    async fn serve(
        fanout: &Path,
        folder: TempDir,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(fanout);
        alone(&mut command);
        command.current_dir(folder.path()).args(["serve", "--json"]).args(flags);
        command.env("FANOUT_SERVER__LISTEN", "127.0.0.1:0").env("RUST_LOG", "warn").envs(environment.iter().copied());
        let log = File::create(folder.path().join(LOG))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut process = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let out = process.stdout.take().context("its standard output")?;
        let mut lines = BufReader::new(out).lines();
        let first = lines.next_line().await?.with_context(|| format!("{command:?} ended at once"))?;
        let said: Value = serde_json::from_str(&first).with_context(|| format!("the gateway's first line: {first}"))?;
        let url = said["url"].as_str().with_context(|| format!("no `url` in the gateway's first line: {first}"))?;
        Ok(Self { url: url.to_owned(), process, folder })
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it runs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let log = self.folder.path().join(LOG);
        std::fs::read_to_string(&log).unwrap_or_else(|error| format!("no log: {error}"))
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it has ended by itself.
    pub async fn end(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("the gateway ended by itself: {status}\n{}", self.log());
        }
        self.process.kill().await.context("ending the gateway")
    }
}

/// The turn with every [`RESULTS`] replaced by what the tools answered, as JSON values: spaces don't count, and of an error
/// only that it is one.
fn repeat_results(mut turn: Turn, conversation: &Conversation) -> Turn {
    let said =
        conversation.tool_results().into_iter().map(|result| match serde_json::from_str::<Value>(&result.text) {
            _ if result.is_error => format!("{} failed", result.tool),
            Ok(value) => value.to_string(),
            Err(_) => result.text,
        });
    let said = said.collect::<Vec<_>>().join(" and ");
    for block in &mut turn.content {
        if let Block::Text(text) = block {
            *text = text.replace(RESULTS, &said);
        }
    }
    turn
}
