//! `fanout-script`: the scripted Claude as a program of its own.
//!
//! From a script file, or a scenario in each prompt. To stdout: its base URL, as the first line, so that any client can be
//! pointed at it by `ANTHROPIC_BASE_URL`; to stderr, when it is stopped: what it refused. Nothing is decided here.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use fanout_script::{Fidelity, Script, Server, ServerOptions};

/// A scripted Claude: a Messages API server that says what a script tells it to say.
#[derive(Parser)]
#[command(name = "fanout-script", version)]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A JSON file: {"turns":[{"content":[...],"stop_reason":...,"pace":{...},"faults":[...]}]}. Without it the scenario is
    /// read from the prompt: {"turns":[[{"name":...,"input":{...}}]],"think_ms":0,"tok_per_s":0}.
    #[arg(long)]
    script: Option<PathBuf>,
    /// The API key that every request must carry.
    #[arg(long, env = "FANOUT_SCRIPT_KEY", hide_env_values = true)]
    key: Option<String>,
    /// How exactly histories must come back: byte for byte, as JSON values (for clients that re-spell what they send), or
    /// not compared and not remembered (for long runs under load).
    #[arg(long, value_enum, default_value_t = History::Bytes)]
    history: History,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum History {
    Bytes,
    Values,
    Off,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut options = match &arguments.script {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("reading `{}`", path.display()))?;
            ServerOptions::script(Script::from_json(&text).with_context(|| format!("in `{}`", path.display()))?)
        }
        None => ServerOptions::default(),
    };
    options = options.listen(arguments.listen).keep_requests(false);
    if let Some(key) = arguments.key {
        options = options.key(key);
    }
    options = options.fidelity(match arguments.history {
        History::Bytes => Fidelity::Bytes,
        History::Values => Fidelity::Values,
        History::Off => Fidelity::Off,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = Server::start(options).with_context(|| format!("listening on {}", arguments.listen))?;
        let mut out = std::io::stdout();
        writeln!(out, "{}", server.base_url())?;
        out.flush()?;
        tokio::signal::ctrl_c().await?;
        for violation in server.violations() {
            eprintln!("request {}: {} {}", violation.request, violation.status, violation.message);
        }
        server.stop().await;
        Ok(())
    })
}
