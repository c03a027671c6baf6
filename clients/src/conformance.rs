//! The official MCP conformance suite against `/mcp`.
//!
//! From the `fanout` binary: a gateway with tools of the names that the suite asks for. To whoever runs the tests: how many
//! scenarios passed, or what the suite said. What does not apply stands in `clients/mcp/expected-failures.yml`, each with its
//! reason; a scenario that fails and is not there is an error, and so is one that is there and passes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::install::{alone, conformance, root};
use crate::mcp::config;
use crate::stage::Gateway;
use crate::tools::Tools;

/// Longer than this the suite does not take, on however busy a machine.
const HANGS_AFTER: Duration = Duration::from_secs(300);

/// Runs every scenario for servers.
///
/// # Errors
/// What the suite said, if a scenario came to something else than what is expected of it.
pub async fn test(fanout: &Path) -> anyhow::Result<String> {
    let file = root().join("clients/mcp/expected-failures.yml");
    let expected = std::fs::read_to_string(&file).with_context(|| format!("reading `{}`", file.display()))?;
    let expected = scenarios(&expected)?;
    let (tools, folder) = (Tools::start().await?, tempfile::tempdir()?);
    let gateway = Gateway::of_tools(&config()?, tools.url(), fanout).await?;
    let mut command = conformance()?;
    alone(&mut command);
    command.args(["server", "--suite", "all", "--url"]).arg(format!("{}/mcp", gateway.url()));
    command.arg("--expected-failures").arg(&file).current_dir(folder.path()).kill_on_drop(true);
    let output = tokio::time::timeout(HANGS_AFTER, command.output()).await;
    let output = output.with_context(|| format!("the suite had not ended after {HANGS_AFTER:?}"))?;
    let output = output.with_context(|| format!("starting {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}\nthe gateway logged:\n{}", gateway.log());
    gateway.end().await?;
    summary(&said, &expected)
}

/// The scenarios that a file of expected failures names, each on a line of its own with its reason behind it.
fn scenarios(file: &str) -> anyhow::Result<Vec<&str>> {
    let lines = file.lines().filter_map(|line| line.trim().strip_prefix("- "));
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
