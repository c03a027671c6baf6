//! Real MCP servers as a source of tools: those of the protocol's own project, two on Node and two on Python.
//!
//! From `clients/servers`: what is installed and how it is started. To whoever runs the tests: what `fanout check`, `call` and
//! `serve` made of them.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::install::{Servers, alone, on_node, root};
use crate::remote;
use crate::stage::Gateway;

/// What is tried, by name.
pub const TRIED: [&str; 7] = ["listed", "called", "contents", "at_once", "timed_out", "killed", "killed_repeatable"];

/// Longer than this nothing here takes: then somebody waits for what never comes.
const HANGS_AFTER: Duration = Duration::from_secs(120);

/// Tries one thing, in a folder of its own with a repository and a file.
///
/// # Errors
/// What went otherwise.
pub async fn hold(tried: &str, servers: &Servers, fanout: &Path) -> anyhow::Result<String> {
    let trial = match tried {
        "listed" => tokio::time::timeout(HANGS_AFTER, listed(servers, fanout)).await,
        "called" => tokio::time::timeout(HANGS_AFTER, called(servers, fanout)).await,
        "contents" => tokio::time::timeout(HANGS_AFTER, contents(servers, fanout)).await,
        "at_once" => tokio::time::timeout(HANGS_AFTER, at_once(servers, fanout)).await,
        "timed_out" => tokio::time::timeout(HANGS_AFTER, timed_out(servers, fanout)).await,
        "killed" => tokio::time::timeout(HANGS_AFTER, killed(servers, fanout)).await,
        "killed_repeatable" => tokio::time::timeout(HANGS_AFTER, killed_repeatable(servers, fanout)).await,
        far => tokio::time::timeout(HANGS_AFTER, remote::hold(far, servers, fanout)).await,
    };
    trial.with_context(|| format!("it was not done after {HANGS_AFTER:?}"))?
}

/// The configuration of all of them.
fn config() -> anyhow::Result<String> {
    let file = root().join("clients/servers/fanout.toml");
    std::fs::read_to_string(&file).with_context(|| format!("reading `{}`", file.display()))
}

/// A folder with a repository of one commit, a file and the configuration.
fn folder() -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("fanout.toml"), config()?)?;
    prepare(folder.path())?;
    Ok(folder)
}

fn prepare(folder: &Path) -> anyhow::Result<()> {
    std::fs::write(folder.join("note.txt"), "a note\n")?;
    let who = ["-c", "user.name=t", "-c", "user.email=t@example.com"];
    for args in [&["init", "--quiet"][..], &["add", "note.txt"], &["commit", "--quiet", "-m", "the first commit"]] {
        let status = std::process::Command::new("git").args(who).args(args).current_dir(folder).status();
        ensure!(status.context("git is needed")?.success(), "git {args:?} failed");
    }
    Ok(())
}

fn command(servers: &Servers, fanout: &Path, folder: &Path) -> anyhow::Result<Command> {
    let mut command = on_node(fanout.to_str().context("a path that is no text")?)?;
    alone(&mut command);
    command.envs(servers.variables()).current_dir(folder).kill_on_drop(true);
    Ok(command)
}

/// The results of a batch of `fanout call`, in order.
///
/// # Errors
/// When they are not as many as the calls.
pub async fn call(
    servers: &Servers,
    fanout: &Path,
    folder: &Path,
    calls: &[(&str, Value)],
) -> anyhow::Result<Vec<Value>> {
    let mut command = command(servers, fanout, folder)?;
    let mut process =
        command.arg("call").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = process.stdin.take().context("its standard input")?;
    stdin.write_all(content(calls).to_string().as_bytes()).await?;
    drop(stdin);
    let output = process.wait_with_output().await?;
    let message: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("fanout call said: {}", String::from_utf8_lossy(&output.stderr)))?;
    results(&message, calls.len())
}

fn content(calls: &[(&str, Value)]) -> Value {
    let block = |(at, (tool, input)): (usize, &(&str, Value))| json!({ "type": "tool_use", "id": format!("toolu_{at}"), "name": tool, "input": input });
    calls.iter().enumerate().map(block).collect()
}

/// The results in a message of that many.
///
/// # Errors
/// When there are not so many.
pub fn results(message: &Value, count: usize) -> anyhow::Result<Vec<Value>> {
    let results = message["content"].as_array().with_context(|| format!("no results: {message}"))?;
    ensure!(results.len() == count, "{count} calls and other results: {message}");
    Ok(results.clone())
}

/// Checks that a result ended well and holds this.
///
/// # Errors
/// When it does not.
pub fn holds(result: &Value, wanted: &str) -> anyhow::Result<()> {
    let is_error = result["is_error"] == true;
    ensure!(!is_error && result["content"].to_string().contains(wanted), "it lacks `{wanted}`: {result}");
    Ok(())
}

async fn listed(servers: &Servers, fanout: &Path) -> anyhow::Result<String> {
    let folder = folder()?;
    let output = command(servers, fanout, folder.path())?.args(["check", "--json"]).output().await?;
    ensure!(output.status.success(), "fanout check: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let tools: Vec<&Value> = lines.iter().filter(|line| line["type"] == "tool").collect();
    let (files, git, time) = (
        json!("@modelcontextprotocol/server-filesystem 2026.8.31"),
        json!("mcp-server-git 2026.10.19"),
        json!("mcp-server-time 2026.10.19"),
    );
    for (name, reads, repeatable, catalogue) in [
        ("all__echo", json!(["mcp/all"]), false, Value::Null),
        // What is declared in the configuration wins.
        ("files__read_text_file", json!(["file/{path...}"]), true, Value::Null),
        ("files__get_file_info", json!(["file/*"]), true, files.clone()),
        ("files__move_file", json!([]), false, files),
        ("git__git_log", json!(["git/*"]), true, git),
        ("time__get_current_time", json!([]), true, time),
    ] {
        let tool = tools.iter().find(|tool| tool["tool"] == name).with_context(|| format!("no `{name}`:\n{text}"))?;
        let is_right = tool["reads"] == reads && tool["repeatable"] == repeatable && tool["catalogue"] == catalogue;
        ensure!(is_right, "{tool}");
    }
    Ok(format!("{} tools of 5 servers", tools.len()))
}

async fn called(servers: &Servers, fanout: &Path) -> anyhow::Result<String> {
    let folder = folder()?;
    let calls = [
        ("all__get-sum", json!({"a": 2, "b": 40})),
        ("files__read_text_file", json!({"path": "note.txt"})),
        ("git__git_log", json!({"repo_path": "."})),
        ("time__get_current_time", json!({"timezone": "UTC"})),
        ("files__write_file", json!({"path": "note.txt", "content": "another"})),
        ("files__read_text_file", json!({"path": "note.txt"})),
    ];
    let results = call(servers, fanout, folder.path(), &calls).await?;
    for (result, wanted) in results.iter().zip(["42", "a note", "the first commit", "UTC", "note.txt", "another"]) {
        holds(result, wanted)?;
    }
    let id = std::fs::read_to_string(folder.path().join("pid"))?;
    ensure!(!is_alive(id.trim()).await?, "a server is left behind: process {id}");
    Ok("one batch, all servers; none is left behind".to_owned())
}

async fn is_alive(id: &str) -> anyhow::Result<bool> {
    let status = Command::new("kill").args(["-0", id]).stderr(Stdio::null()).status();
    Ok(status.await?.success())
}

async fn contents(servers: &Servers, fanout: &Path) -> anyhow::Result<String> {
    let folder = folder()?;
    let calls = [
        ("all__get-tiny-image", json!({})),
        ("all__get-structured-content", json!({"location": "New York"})),
        ("all__get-resource-links", json!({"count": 2})),
        ("all__get-resource-reference", json!({"resourceType": "Text", "resourceId": 1})),
        ("files__read_text_file", json!({"path": "absent.txt"})),
        ("all__get-env", json!({})),
    ];
    let results = call(servers, fanout, folder.path(), &calls).await?;
    holds(&results[0], "\"media_type\":\"image/png\"")?;
    holds(&results[1], "temperature")?;
    holds(&results[2], "[link to the resource")?;
    holds(&results[3], "[resource ")?;
    ensure!(results[4]["is_error"] == true && results[4].to_string().contains("ENOENT"), "{}", results[4]);
    let inherited = results[5].to_string();
    ensure!(inherited.contains("PATH") && !inherited.contains("PYTHON"), "it inherits what it should not: {inherited}");
    Ok("a picture, data, links, a resource, its own error, and only the variables it was given".to_owned())
}

async fn at_once(servers: &Servers, fanout: &Path) -> anyhow::Result<String> {
    let folder = folder()?;
    let count = 200;
    let numbers: Vec<String> = (0..count).map(|number| format!("number {number}.")).collect();
    let calls: Vec<_> = numbers.iter().map(|text| ("all__echo", json!({ "message": text }))).collect();
    let results = call(servers, fanout, folder.path(), &calls).await?;
    for (result, wanted) in results.iter().zip(&numbers) {
        holds(result, wanted)?;
    }
    Ok(format!("{count} calls on one connection, each with its own answer"))
}

async fn timed_out(servers: &Servers, fanout: &Path) -> anyhow::Result<String> {
    let folder = folder()?;
    // The second one goes on after the first is given up: fanout does not end at once, and with it both servers.
    let calls = [
        ("heard__trigger-long-running-operation", json!({"duration": 100, "steps": 100})),
        ("all__trigger-long-running-operation", json!({"duration": 4, "steps": 1})),
    ];
    let results = call(servers, fanout, folder.path(), &calls).await?;
    ensure!(results[0].to_string().contains("outcome_unknown"), "{}", results[0]);
    holds(&results[1], "completed")?;
    let heard = std::fs::read_to_string(folder.path().join("heard.log"))?;
    ensure!(heard.contains("notifications/cancelled"), "the server was not told: {heard}");
    Ok("the server was told that nobody waits".to_owned())
}

/// A server is killed in the middle of a call, while others work.
async fn killed(servers: &Servers, fanout: &Path) -> anyhow::Result<String> {
    let variables: Vec<(&str, &str)> = servers.variables();
    let node = on_node("node")?;
    let path = node.as_std().get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, path)| path?.to_str());
    let variables = [variables, path.map(|path| ("PATH", path)).into_iter().collect()].concat();
    let gateway = Gateway::of_servers(&config()?, &variables, fanout).await?;
    prepare(gateway.folder())?;
    let calls = [
        ("all__trigger-long-running-operation", json!({"duration": 100, "steps": 1000})),
        ("files__read_text_file", json!({"path": "note.txt"})),
        ("git__git_log", json!({"repo_path": "."})),
        ("time__get_current_time", json!({"timezone": "UTC"})),
    ];
    let killing = async {
        until_said(&gateway.folder().join("said.log"), "notifications/progress").await;
        let id = std::fs::read_to_string(gateway.folder().join("pid"))?;
        ensure!(Command::new("kill").args(["-KILL", id.trim()]).status().await?.success(), "kill failed");
        Ok(())
    };
    let (message, done) = tokio::join!(post(&gateway, &calls), killing);
    done?;
    let results = results(&message?, calls.len())?;
    ensure!(results[0].to_string().contains("outcome_unknown"), "{}", results[0]);
    for (result, wanted) in results[1..].iter().zip(["a note", "the first commit", "UTC"]) {
        holds(result, wanted)?;
    }
    let next = post(&gateway, &[("all__echo", json!({"message": "again"}))]).await?;
    holds(&next["content"][0], "again")?;
    gateway.end().await?;
    Ok("its own call is of unknown outcome, all others went well, and so does the next".to_owned())
}

/// A server is killed in the middle of a batch of `fanout call`, in a call that may be made again.
async fn killed_repeatable(servers: &Servers, fanout: &Path) -> anyhow::Result<String> {
    let folder = folder()?;
    let config = config()?.replacen("{ timeout = \"60s\" }", "{ timeout = \"60s\", idempotent = true }", 1);
    std::fs::write(folder.path().join("fanout.toml"), config)?;
    let calls = [
        ("all__trigger-long-running-operation", json!({"duration": 3, "steps": 30})),
        ("files__read_text_file", json!({"path": "note.txt"})),
        ("git__git_log", json!({"repo_path": "."})),
    ];
    let killing = async {
        until_said(&folder.path().join("said.log"), "notifications/progress").await;
        let id = std::fs::read_to_string(folder.path().join("pid"))?;
        ensure!(Command::new("kill").args(["-KILL", id.trim()]).status().await?.success(), "kill failed");
        anyhow::Ok(id)
    };
    let (results, killed) = tokio::join!(call(servers, fanout, folder.path(), &calls), killing);
    for (result, wanted) in results?.iter().zip(["completed", "a note", "the first commit"]) {
        holds(result, wanted)?;
    }
    ensure!(std::fs::read_to_string(folder.path().join("pid"))? != killed?, "it was not started again");
    Ok("its call went again on the server that was started anew, and the others went well".to_owned())
}

/// Waits until a server has written this to its file.
async fn until_said(file: &Path, wanted: &str) {
    while !std::fs::read_to_string(file).is_ok_and(|said| said.contains(wanted)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One batch at the gateway.
///
/// # Errors
/// When the gateway does not answer.
pub async fn post(gateway: &Gateway, calls: &[(&str, Value)]) -> anyhow::Result<Value> {
    let address = gateway.url().strip_prefix("http://").context("an http address")?;
    let body = json!({ "content": content(calls) }).to_string();
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "POST /fanout/v1/tool_calls HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let Some((_, body)) = answer.split_once("\r\n\r\n") else { bail!("no answer: {answer}; {}", gateway.log()) };
    serde_json::from_str(body).with_context(|| format!("the gateway answered {answer}"))
}
