//! `fanout mcp`: the tools for any MCP client, over standard streams.
//!
//! The protocol has standard output for itself: whatever else there is to say goes to standard error.

use std::path::{Path, absolute};
use std::sync::Arc;

use anyhow::{Context, bail};
use fanout_gateway::{McpOptions, serve_mcp_stdio};
use fanout_host::build::Purpose;
use fanout_host::environment::Environment;
use serde_json::json;

use crate::args::{Client, Common, Mcp};
use crate::exit::Ended;
use crate::interrupt::{Signal, Signals};
use crate::loaded::{Loaded, NOTICES_MAX, configuration};
use crate::show::{give, say};

/// Serves one client until it goes, or prints what to tell it.
pub fn mcp(common: &Common, mcp: &Mcp) -> anyhow::Result<Ended> {
    if let Some(client) = mcp.print_config {
        return print_config(common, client);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut loaded = runtime.block_on(Loaded::read(common, Purpose::Run))?;
    runtime.block_on(loaded.open_journal())?;
    if loaded.toolbox.is_empty() {
        say("warning: the configuration has no tools, so there is nothing to offer");
    }
    let notices = {
        let _runtime = runtime.enter();
        loaded.notices()?
    };
    let scheduler = runtime.block_on(loaded.obeying_scheduler())?;
    let options = McpOptions {
        toolbox: Arc::clone(&loaded.toolbox),
        scheduler,
        approvals: loaded.approvals(),
        approval_wait: loaded.config.run.approval_wait,
        calls_max: usize::try_from(loaded.config.run.max_calls).unwrap_or(usize::MAX),
        journal: loaded.journal().cloned(),
        notices: notices.clone(),
    };
    let ended = runtime.block_on(async {
        let mut ended = Ended::Done;
        let mut signals = Signals::listen()?;
        let stopped = async {
            // A client that wants it to end may send the signal that stops a container: that is no interruption.
            if signals.next().await == Signal::Interrupt {
                ended = Ended::Interrupted;
            }
        };
        let served = serve_mcp_stdio(options, stopped).await;
        tokio::join!(loaded.gone(), notices.close(NOTICES_MAX));
        loaded.close_journal().await;
        served?;
        anyhow::Ok(ended)
    });
    // A read of standard input may still wait for a client that says nothing, and cannot be called off.
    runtime.shutdown_background();
    ended
}

/// Prints the entry for a client, and where it belongs. The configuration is read, so that the entry works.
fn print_config(common: &Common, client: Client) -> anyhow::Result<Ended> {
    let environment = Environment::of_process();
    let config = configuration(common, &environment)?;
    let Some(file) = config.file else {
        bail!("there is no fanout.toml here or in a folder above: name one with --config FILE");
    };
    let file = absolute(&file).with_context(|| format!("{} has no absolute path", file.display()))?;
    say(format!("{}:", place(client)));
    give(&entry(client, &file)?)?;
    Ok(Ended::Done)
}

fn place(client: Client) -> &'static str {
    match client {
        Client::ClaudeCode => "in .mcp.json of a project",
        Client::ClaudeDesktop => "in claude_desktop_config.json (Settings, Developer, Edit Config)",
        Client::Cursor => "in .cursor/mcp.json of a project or of your home folder",
        Client::Codex => "in .codex/config.toml of your home folder",
    }
}

/// The entry: clients start their servers anywhere, so the file is named by its whole path.
fn entry(client: Client, file: &Path) -> anyhow::Result<String> {
    let file = file.to_str().with_context(|| format!("{} is not a name that can be written down", file.display()))?;
    let args = json!(["mcp", "--config", file]);
    let server = match client {
        Client::ClaudeCode | Client::Cursor => json!({ "type": "stdio", "command": "fanout", "args": args }),
        Client::ClaudeDesktop => json!({ "command": "fanout", "args": args }),
        // Strings are written alike in JSON and in TOML.
        Client::Codex => return Ok(format!("[mcp_servers.fanout]\ncommand = \"fanout\"\nargs = {args}")),
    };
    Ok(serde_json::to_string_pretty(&json!({ "mcpServers": { "fanout": server } }))?)
}
