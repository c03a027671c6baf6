//! A real MCP server over streamable HTTP as a source of tools: the one that has all of the protocol.
//!
//! From [`servers`](crate::servers), which tries the same servers over their standard streams. To whoever runs the tests:
//! what `fanout call` and `serve` made of one that is far away, and of one that is killed and comes back.
//!
//! Between the two stands a relay that writes down what the server is sent.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;

use crate::install::{Servers, alone, on_node};
use crate::servers::{call, holds, post, results};
use crate::stage::Gateway;

/// What is tried, by name.
pub const TRIED: [&str; 4] = ["far_contents", "far_at_once", "far_timed_out", "far_killed"];

/// The relay is at `URL`.
const CONFIG: &str = r#"
[mcp_servers.all]
url = "${URL}"
tools.trigger-long-running-operation = { timeout = "60s" }

[mcp_servers.hasty]
url = "${URL}"
tools.trigger-long-running-operation = { timeout = "1s" }
"#;

/// The server. Dropping it kills it.
struct Remote {
    process: Child,
    port: u16,
}

impl Remote {
    /// Starts it at a port, and waits until it listens.
    async fn start(servers: &Servers, port: u16) -> anyhow::Result<Self> {
        let mut command = on_node("node")?;
        alone(&mut command);
        command.args([servers.everything(), "streamableHttp"]).env("PORT", port.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let mut process = command.spawn().with_context(|| format!("starting {command:?}"))?;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            ensure!(process.try_wait()?.is_none(), "{command:?} ended at once");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Self { process, port })
    }

    /// Kills it, with everything that it knew.
    async fn kill(mut self) -> anyhow::Result<u16> {
        self.process.kill().await?;
        Ok(self.port)
    }
}

/// What stands before the server.
struct Relay {
    url: String,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Relay {
    async fn before(port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (url, sent) = (format!("http://{}/mcp", listener.local_addr()?), Arc::<Mutex<Vec<u8>>>::default());
        let written = Arc::clone(&sent);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let written = Arc::clone(&written);
                // A server that is not there is one to which the connection is closed at once.
                tokio::spawn(
                    async move { relay(near, TcpStream::connect(("127.0.0.1", port)).await?, &written).await },
                );
            }
        });
        Ok(Self { url, sent })
    }

    fn was_sent(&self, wanted: &str) -> bool {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.windows(wanted.len()).any(|bytes| bytes == wanted.as_bytes())
    }

    async fn until_sent(&self, wanted: &str) {
        while !self.was_sent(wanted) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn relay(near: TcpStream, far: TcpStream, written: &Mutex<Vec<u8>>) -> std::io::Result<()> {
    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.into_split(), far.into_split());
    let up = async {
        let mut bytes = [0; 4096];
        while let read @ 1.. = near_in.read(&mut bytes).await? {
            written.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..read]);
            far_out.write_all(&bytes[..read]).await?;
        }
        std::io::Result::Ok(())
    };
    let down = async {
        tokio::io::copy(&mut far_in, &mut near_out).await?;
        Ok(())
    };
    // Whoever closes first closes both: a server that was killed says nothing more.
    tokio::select! { ended = up => ended, ended = down => ended }
}

/// A server, the relay before it, and a folder with the configuration.
async fn stage(servers: &Servers) -> anyhow::Result<(Remote, Relay, tempfile::TempDir)> {
    let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
    let remote = Remote::start(servers, port).await?;
    let (relay, folder) = (Relay::before(port).await?, tempfile::tempdir()?);
    std::fs::write(folder.path().join("fanout.toml"), CONFIG.replace("${URL}", &relay.url))?;
    Ok((remote, relay, folder))
}

/// Tries one thing.
///
/// # Errors
/// What went otherwise.
pub async fn hold(tried: &str, servers: &Servers, fanout: &Path) -> anyhow::Result<String> {
    match tried {
        "far_contents" => contents(servers, fanout).await,
        "far_at_once" => at_once(servers, fanout).await,
        "far_timed_out" => timed_out(servers, fanout).await,
        _ => killed(servers, fanout).await,
    }
}

async fn contents(servers: &Servers, fanout: &Path) -> anyhow::Result<String> {
    let (_remote, _relay, folder) = stage(servers).await?;
    let calls = [
        ("all__get-tiny-image", json!({})),
        ("all__get-structured-content", json!({"location": "New York"})),
        ("all__get-resource-links", json!({"count": 2})),
        ("all__get-resource-reference", json!({"resourceType": "Text", "resourceId": 1})),
        ("all__get-resource-reference", json!({"resourceType": "Text", "resourceId": -1})),
        ("all__trigger-long-running-operation", json!({"duration": 1, "steps": 4})),
    ];
    let results = call(servers, fanout, folder.path(), &calls).await?;
    holds(&results[0], "\"media_type\":\"image/png\"")?;
    holds(&results[1], "temperature")?;
    holds(&results[2], "[link to the resource")?;
    holds(&results[3], "[resource ")?;
    ensure!(results[4]["is_error"] == true && results[4].to_string().contains("Invalid resourceId"), "{}", results[4]);
    holds(&results[5], "completed")?;
    Ok("a picture, data, links, a resource, its own error, and a call with progress".to_owned())
}

async fn at_once(servers: &Servers, fanout: &Path) -> anyhow::Result<String> {
    let (_remote, relay, folder) = stage(servers).await?;
    let count = 200;
    let numbers: Vec<String> = (0..count).map(|number| format!("number {number}.")).collect();
    let calls: Vec<_> = numbers.iter().map(|text| ("all__echo", json!({ "message": text }))).collect();
    for (result, wanted) in call(servers, fanout, folder.path(), &calls).await?.iter().zip(&numbers) {
        holds(result, wanted)?;
    }
    ensure!(relay.was_sent("mcp-session-id"), "there was no session");
    Ok(format!("{count} calls in one session, each with its own answer"))
}

async fn timed_out(servers: &Servers, fanout: &Path) -> anyhow::Result<String> {
    let (_remote, relay, folder) = stage(servers).await?;
    let calls = [
        ("hasty__trigger-long-running-operation", json!({"duration": 100, "steps": 100})),
        ("all__trigger-long-running-operation", json!({"duration": 4, "steps": 1})),
    ];
    let results = call(servers, fanout, folder.path(), &calls).await?;
    ensure!(results[0].to_string().contains("outcome_unknown"), "{}", results[0]);
    holds(&results[1], "completed")?;
    ensure!(relay.was_sent("notifications/cancelled"), "the server was not told");
    Ok("the server was told that nobody waits".to_owned())
}

/// The server is killed in the middle of a call and comes back knowing no session.
async fn killed(servers: &Servers, fanout: &Path) -> anyhow::Result<String> {
    let (remote, relay, _folder) = stage(servers).await?;
    let gateway = Gateway::of_servers(CONFIG, &[("URL", &relay.url)], fanout).await?;
    let calls = [("all__trigger-long-running-operation", json!({"duration": 100, "steps": 1000}))];
    let killing = async {
        relay.until_sent("trigger-long-running-operation").await;
        Remote::start(servers, remote.kill().await?).await
    };
    let (message, back) = tokio::join!(post(&gateway, &calls), killing);
    let back = back?;
    let lost = results(&message?, 1)?;
    ensure!(lost[0].to_string().contains("outcome_unknown"), "{}", lost[0]);
    let texts: Vec<String> = (0..16).map(|number| format!("again {number}.")).collect();
    let calls: Vec<_> = texts.iter().map(|text| ("all__echo", json!({ "message": text }))).collect();
    for (result, wanted) in results(&post(&gateway, &calls).await?, calls.len())?.iter().zip(&texts) {
        holds(result, wanted)?;
    }
    gateway.end().await?;
    back.kill().await?;
    Ok("its call is of unknown outcome, and those after its return go well in a new session".to_owned())
}
