//! What `fanout init` makes, used as its own last lines say: the Python script asks through the gateway, and the Next.js app
//! is checked by its own compiler.
//!
//! From the `fanout` binary. To whoever runs the tests. What the templates need besides is that of the other clients: the same
//! SDKs of the same versions.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use fanout_script::Fidelity;
use tokio::process::Command;

use crate::install::{alone, node_package, on_node, python_program, root};
use crate::stage::{Gateway, Stage};

/// Longer than this no step takes, on however busy a machine.
const HANGS_AFTER: Duration = Duration::from_secs(300);

/// What is tried.
pub const TRIED: [&str; 2] = ["python starter", "nextjs starter"];

/// Makes one starter and uses it.
///
/// # Errors
/// When a step fails; the error holds what it said.
pub async fn hold(name: &str, fanout: &Path) -> anyhow::Result<String> {
    if name == TRIED[0] { python(fanout).await } else { nextjs(fanout).await }
}

async fn python(fanout: &Path) -> anyhow::Result<String> {
    let stage = Stage::open(&root().join("clients/scripts/late.json"), Fidelity::default())?;
    let folder = made(fanout, "python").await?;
    let gateway = Gateway::of_starter(folder, &stage.claude(), fanout).await?;
    let mut ask = Command::new(python_program()?);
    alone(&mut ask);
    ask.arg("ask.py").current_dir(gateway.folder()).env("FANOUT_URL", gateway.url());
    let said = run(ask).await.with_context(|| format!("the gateway logged:\n{}", gateway.log()))?;
    ensure!(said.contains("Grace") && said.contains(r#""notes":["late"]"#), "it answered: {said}");
    gateway.end().await?;
    stage.close().await?;
    Ok("answered".to_owned())
}

async fn nextjs(fanout: &Path) -> anyhow::Result<String> {
    let installed = node_package("nextjs", &root().join("examples/nextjs"))?;
    let wanted = |text: String| text.split_once("\"dependencies\"").map(|(_, rest)| rest.trim_end().to_owned());
    let folder = made(fanout, "nextjs-supabase").await?;
    let [ours, theirs] = [installed.as_path(), folder.path()].map(|place| place.join("package.json"));
    let same = wanted(std::fs::read_to_string(ours)?) == wanted(std::fs::read_to_string(theirs)?);
    ensure!(same, "the starter and examples/nextjs want different packages");
    std::os::unix::fs::symlink(installed.join("node_modules"), folder.path().join("node_modules"))?;
    let mut check = on_node("node")?;
    alone(&mut check);
    check.args(["node_modules/typescript/bin/tsc", "--noEmit", "--incremental", "false"]).current_dir(folder.path());
    run(check).await?;
    Ok("compiled".to_owned())
}

async fn made(fanout: &Path, template: &str) -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let mut init = Command::new(fanout);
    alone(&mut init);
    init.args(["init", "--template", template, "."]).current_dir(folder.path());
    run(init).await?;
    Ok(folder)
}

/// What a program says on standard output.
async fn run(mut command: Command) -> anyhow::Result<String> {
    command.kill_on_drop(true);
    let output = tokio::time::timeout(HANGS_AFTER, command.output()).await;
    let output = output.with_context(|| format!("{command:?} had not ended after {HANGS_AFTER:?}"))?;
    let output = output.with_context(|| format!("starting {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command:?} failed:\n{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}
