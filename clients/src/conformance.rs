//! The official MCP conformance suite against `/mcp`, and against `fanout call` and `check` with the suite as their MCP server.
//!
//! From the `fanout` binary: a gateway with tools of the names that the suite asks for, and `clients/mcp/source.mjs` around the
//! binary. To whoever runs the tests: how many scenarios passed, or what the suite said. What does not apply stands in `clients/mcp/expected-failures.yml`, each with its
//! reason; a scenario that fails and is not there is an error, and so is one that is there and passes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

use crate::install::{alone, conformance, root};
use crate::mcp::config;
use crate::stage::Gateway;
use crate::tools::Tools;

/// Longer than this the suite does not take, on however busy a machine.
const HANGS_AFTER: Duration = Duration::from_secs(300);

/// The two sides of the protocol that the suite tests, by the names that choose them.
pub const SIDES: [&str; 2] = ["as_server", "as_client"];

/// Where what is expected to fail stands.
const EXPECTED: &str = "clients/mcp/expected-failures.yml";

/// Runs every scenario for servers.
///
/// # Errors
/// What the suite said, if a scenario came to something else than what is expected of it.
pub async fn servers(fanout: &Path) -> anyhow::Result<String> {
    let tools = Tools::start().await?;
    let gateway = Gateway::of_tools(&config()?, tools.url(), fanout).await?;
    let mut command = conformance()?;
    command.args(["server", "--suite", "all", "--url"]).arg(format!("{}/mcp", gateway.url()));
    let summary = suite(command, "server").await.with_context(|| format!("the gateway logged:\n{}", gateway.log()))?;
    gateway.end().await?;
    Ok(summary)
}

/// Runs every scenario for clients.
///
/// # Errors
/// As [`servers`].
pub async fn sources(fanout: &Path) -> anyhow::Result<String> {
    let mut command = conformance()?;
    let program = root().join("clients/mcp/source.mjs");
    command.args(["client", "--suite", "all", "--command"]).arg(format!("node {}", program.display()));
    command.env("FANOUT", fanout);
    suite(command, "client").await
}

/// Runs the suite to its end, with what is expected to fail of this `side`.
async fn suite(mut command: Command, side: &str) -> anyhow::Result<String> {
    let file = root().join(EXPECTED);
    let expected = std::fs::read_to_string(&file).with_context(|| format!("reading `{}`", file.display()))?;
    let expected = scenarios(&expected, side)?;
    let folder = tempfile::tempdir()?;
    alone(&mut command);
    command.arg("--expected-failures").arg(&file).current_dir(folder.path()).kill_on_drop(true);
    let output = tokio::time::timeout(HANGS_AFTER, command.output()).await;
    let output = output.with_context(|| format!("the suite had not ended after {HANGS_AFTER:?}"))?;
    let output = output.with_context(|| format!("starting {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    summary(&said, &expected)
}

/// The scenarios that a file of expected failures names for a side, each on a line of its own with its reason behind it.
fn scenarios<'a>(file: &'a str, side: &str) -> anyhow::Result<Vec<&'a str>> {
    let head = format!("{side}:");
    let section = file.lines().skip_while(|line| *line != head).skip(1).take_while(|line| line.starts_with(' '));
    let lines = section.filter_map(|line| line.trim().strip_prefix("- "));
    lines
        .map(|line| {
            let (name, reason) = line.split_once('#').unwrap_or((line, ""));
            ensure!(!reason.trim().is_empty(), "the expected failure `{}` has no reason", name.trim());
            Ok(name.trim())
        })
        .collect()
}

/// What the suite came to, from what it printed. A name that no scenario has would otherwise be expected to fail for ever.
fn summary(said: &str, expected: &[&str]) -> anyhow::Result<String> {
    let failed: Vec<&str> = said.lines().filter_map(|line| line.trim().strip_prefix("~ ")).collect();
    if let Some(unknown) = expected.iter().find(|name| !failed.contains(name)) {
        bail!("the suite has no scenario `{unknown}`, which is expected to fail\n{said}");
    }
    let passed = said.lines().filter(|line| line.starts_with("✓ ")).count();
    ensure!(passed > 0, "no scenario passed\n{said}");
    Ok(format!("{passed} scenarios passed, {} failed as expected", failed.len()))
}
