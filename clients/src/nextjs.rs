//! The Next.js app of `examples/nextjs`, built and asked as it stands.
//!
//! From the `fanout` binary: `fanout serve --demo`. To the app's own test, which starts it and calls its routes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::install::{alone, node_package, on_node, root};
use crate::stage::Gateway;

/// Longer than this neither the build nor the test takes, on however busy a machine.
const HANGS_AFTER: Duration = Duration::from_secs(300);

/// Installs the app, builds it, and runs its test against a gateway.
///
/// # Errors
/// When a step fails; the error holds what it said.
pub async fn test(fanout: &Path) -> anyhow::Result<String> {
    let place = node_package("nextjs", &root().join("examples/nextjs"))?;
    npm(&place, &["run", "build"], &[]).await?;
    let gateway = Gateway::demo(fanout).await?;
    let answered = npm(&place, &["test"], &[("FANOUT_URL", gateway.url())]).await;
    answered.with_context(|| format!("the gateway logged:\n{}", gateway.log()))?;
    gateway.end().await?;
    Ok("answered".to_owned())
}

/// Runs npm in the folder of a Next.js app, with these variables.
///
/// # Errors
/// When it fails; the error holds what it said.
pub async fn npm(place: &Path, args: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut command = on_node("npm")?;
    alone(&mut command);
    command.args(args).current_dir(place).kill_on_drop(true);
    command.env("NEXT_TELEMETRY_DISABLED", "1").envs(variables.iter().copied());
    let output = tokio::time::timeout(HANGS_AFTER, command.output()).await;
    let output = output.with_context(|| format!("`npm {}` had not ended after {HANGS_AFTER:?}", args.join(" ")))?;
    let output = output.with_context(|| format!("starting {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`npm {}` failed:\n{said}", args.join(" "));
    Ok(())
}
