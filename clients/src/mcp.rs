//! The MCP SDK's own client, over both transports: `fanout mcp` on standard streams, and `/mcp` of `fanout serve`.
//!
//! From the `fanout` binary and a server of tools. To the client's program: how to reach the tools, and the ledger of what
//! they did. What a conversation must come to stands in that program, `clients/mcp/conversations.mjs`; it is the same over
//! both transports.

use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::client::Client;
use crate::install::root;
use crate::stage::Gateway;
use crate::tools::Tools;

/// The conversations, by the names that the client's program knows them by.
pub const CONVERSATIONS: [&str; 8] =
    ["list", "plan", "together", "in_order", "failure", "cancelled", "progress", "two_clients"];

/// Holds one conversation over both transports.
///
/// # Errors
/// What went otherwise, and over which.
pub async fn hold(conversation: &str, client: &mut Client, fanout: &Path) -> anyhow::Result<String> {
    let streams = over_streams(conversation, client, fanout).await.context("over standard streams")?;
    let http = over_http(conversation, client, fanout).await.context("over HTTP")?;
    ensure!(streams == http, "the answers are not the same\nstreams: {streams}\nHTTP:    {http}");
    Ok("the same over standard streams and over HTTP".to_owned())
}

/// The configuration of the tools, which names their server by `${TOOLS_URL}`.
///
/// # Errors
/// When it can't be read.
pub fn config() -> anyhow::Result<String> {
    let file = root().join("clients/mcp/fanout.toml");
    std::fs::read_to_string(&file).with_context(|| format!("reading `{}`", file.display()))
}

async fn over_streams(conversation: &str, client: &mut Client, fanout: &Path) -> anyhow::Result<Value> {
    let tools = Tools::start().await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("fanout.toml"), config()?)?;
    let start = json!({
        "command": fanout,
        "args": ["mcp"],
        "cwd": folder.path(),
        "env": { "TOOLS_URL": tools.url(), "NO_PROXY": "127.0.0.1" },
    });
    client.ask(&json!({ "conversation": conversation, "tools": tools.url(), "start": start })).await
}

async fn over_http(conversation: &str, client: &mut Client, fanout: &Path) -> anyhow::Result<Value> {
    let tools = Tools::start().await?;
    let gateway = Gateway::of_tools(&config()?, tools.url(), fanout).await?;
    let url = format!("{}/mcp", gateway.url());
    let answers = client.ask(&json!({ "conversation": conversation, "tools": tools.url(), "url": url })).await;
    let answers = answers.with_context(|| format!("the gateway logged:\n{}", gateway.log()))?;
    gateway.end().await?;
    Ok(answers)
}
