//! Every source in one batch: two real MCP servers, an OpenAPI document, an endpoint and a program.
//!
//! From `clients/servers`, an API on loopback, and the `fanout` binary. To whoever runs the tests: what `check`, `explain`, `call`
//! and `serve` made of one configuration of all of them.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Router;
use axum::extract::State;
use axum::http::{Method, Uri};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::install::{Servers, alone, on_node};

/// What is tried, by name.
pub const TRIED: [&str; 3] = ["one_batch", "one_graph", "one_killed"];

/// Longer than this nothing here takes: then somebody waits for what never comes.
const HANGS_AFTER: Duration = Duration::from_secs(60);

const DOCUMENT: &str = r#"
openapi: 3.1.0
info: { title: Shop, version: "1" }
paths:
  /orders/{id}:
    parameters: [{ name: id, in: path, required: true, schema: { type: string } }]
    get: { operationId: get_order, responses: { "200": { description: The order. } } }
    put:
      operationId: put_order
      requestBody: { content: { application/json: { schema: { type: object, properties: { state: { type: string } } } } } }
      responses: { "200": { description: The order. } }
"#;

const CONFIG: &str = r#"
[openapi.shop]
spec     = "shop.yaml"
base_url = "${API}"
tools.get_order = { reads = ["order/{id}"] }
tools.put_order = { writes = ["order/{id}"] }

[mcp_servers.files]
command = "node"
args    = ["${FILES}", "."]
tools.read_text_file = { reads = ["file/{path...}"], writes = [] }
tools.write_file     = { writes = ["file/{path...}"] }

[mcp_servers.all]
command = "sh"               # notes its process, and repeats to a file what it says
args    = ["-c", 'rm -f said; mkfifo said; tee said.log <said & echo $$ >pid; exec node "$EVERYTHING" >said']
env     = { EVERYTHING = "${EVERYTHING}" }
tools.echo = { reads = ["echo/{message}"], writes = [] }
tools.trigger-long-running-operation = { writes = ["operation/*"] }

[[tool]]
name   = "get_stock"
input  = { sku = { type = "string" } }
http   = { method = "GET", url = "${API}/stock/{sku}" }
reads  = ["stock/{sku}"]

[[tool]]
name    = "count"
input   = { path = { type = "string" } }
command = { program = "wc", args = ["-c", "--", "{path}"], env = ["PATH"] }
reads   = ["file/{path...}"]
writes  = []
"#;

/// Tries one thing.
///
/// # Errors
/// What went otherwise.
pub async fn hold(tried: &str, servers: &Servers, fanout: &Path) -> anyhow::Result<String> {
    let trial = async {
        let desk = Desk::open(servers, fanout).await?;
        match tried {
            "one_batch" => one_batch(&desk).await,
            "one_graph" => one_graph(&desk).await,
            _ => one_killed(&desk).await,
        }
    };
    let done = tokio::time::timeout(HANGS_AFTER, trial).await;
    done.with_context(|| format!("it was not done after {HANGS_AFTER:?}"))?
}

/// A folder with the configuration, and the API.
struct Desk<'a> {
    folder: tempfile::TempDir,
    servers: &'a Servers,
    fanout: &'a Path,
    api: String,
    seen: Seen,
    served: JoinHandle<()>,
}

/// The requests to the API, in their order.
type Seen = Arc<Mutex<Vec<String>>>;

impl Drop for Desk<'_> {
    fn drop(&mut self) {
        self.served.abort();
    }
}

impl<'a> Desk<'a> {
    async fn open(servers: &'a Servers, fanout: &'a Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        for (name, text) in [("fanout.toml", CONFIG), ("shop.yaml", DOCUMENT), ("note.txt", "a note\n")] {
            std::fs::write(folder.path().join(name), text)?;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let api = format!("http://{}", listener.local_addr()?);
        let seen = Seen::default();
        let app = Router::new().fallback(answer).with_state(Arc::clone(&seen));
        let served = tokio::spawn(async move { axum::serve(listener, app).await.unwrap_or_default() });
        Ok(Self { folder, servers, fanout, api, seen, served })
    }

    fn start(&self, args: &[&str]) -> anyhow::Result<tokio::process::Child> {
        let mut command: Command = on_node(self.fanout.to_str().context("a path that is no text")?)?;
        alone(&mut command);
        command.envs(self.servers.variables()).env("API", &self.api).current_dir(self.folder.path()).kill_on_drop(true);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command.spawn()?)
    }

    /// What `fanout` with these arguments says to these calls.
    async fn ask(&self, args: &[&str], calls: &Value) -> anyhow::Result<Value> {
        let mut process = self.start(args)?;
        let mut stdin = process.stdin.take().context("its standard input")?;
        stdin.write_all(calls.to_string().as_bytes()).await?;
        drop(stdin);
        let output = process.wait_with_output().await?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("fanout {args:?} said: {}", String::from_utf8_lossy(&output.stderr)))
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn answer(State(seen): State<Seen>, method: Method, uri: Uri, body: String) -> String {
    let request = format!("{method} {uri} {body}");
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(request.trim_end().to_owned());
    format!("answered {method} {uri}")
}

fn block((id, tool, input): (&str, &str, Value)) -> Value {
    json!({ "type": "tool_use", "id": id, "name": tool, "input": input })
}

/// Two reads of a file by two sources, a write of it by one of them, and a read again; an order that is read, written and read
/// again; and what touches neither.
fn calls() -> Value {
    let calls = [
        ("read", "files__read_text_file", json!({ "path": "note.txt" })),
        ("count", "count", json!({ "path": "note.txt" })),
        ("write", "files__write_file", json!({ "path": "note.txt", "content": "another note\n" })),
        ("again", "count", json!({ "path": "note.txt" })),
        ("order", "shop__get_order", json!({ "id": "7" })),
        ("put", "shop__put_order", json!({ "id": "7", "state": "paid" })),
        ("stock", "get_stock", json!({ "sku": "lamp" })),
        ("echo", "all__echo", json!({ "message": "hello" })),
    ];
    calls.into_iter().map(block).collect()
}

async fn one_batch(desk: &Desk<'_>) -> anyhow::Result<String> {
    let reply = desk.ask(&["call"], &calls()).await?;
    let wanted = [
        ("read", "a note"),
        ("count", "7 note.txt"),
        ("write", "Successfully wrote"),
        ("again", "13 note.txt"),
        ("order", "answered GET /orders/7"),
        ("put", "answered PUT /orders/7"),
        ("stock", "answered GET /stock/lamp"),
        ("echo", "hello"),
    ];
    check(&reply, &wanted)?;
    let seen = desk.seen();
    let place =
        |request: &str| seen.iter().position(|seen| seen == request).with_context(|| format!("no {request}: {seen:?}"));
    ensure!(
        place("GET /orders/7")? < place(r#"PUT /orders/7 {"state":"paid"}"#)?,
        "the order was written before it was read"
    );
    place("GET /stock/lamp")?;
    Ok("two MCP servers, an OpenAPI document, an endpoint and a program answer one batch".to_owned())
}

/// Holds the results of a reply against these, in order.
fn check(reply: &Value, wanted: &[(&str, &str)]) -> anyhow::Result<()> {
    let results = reply["content"].as_array().with_context(|| format!("no results: {reply}"))?;
    ensure!(results.len() == wanted.len(), "{} calls and {} results", wanted.len(), results.len());
    for (result, (id, text)) in results.iter().zip(wanted) {
        let is_it = result["tool_use_id"] == *id && result["is_error"] != true;
        ensure!(is_it && result["content"].to_string().contains(text), "`{id}` lacks `{text}`: {result}");
    }
    Ok(())
}

async fn one_graph(desk: &Desk<'_>) -> anyhow::Result<String> {
    let graph = desk.ask(&["explain", "--format", "json"], &calls()).await?;
    let mut edges = Vec::new();
    for call in graph["calls"].as_array().context("no calls")? {
        for wait in call["waits"].as_array().context("no waits")? {
            edges.push(
                format!("{} after {} ({} {})", call["id"], wait["on"], wait["why"], wait["key"]).replace('"', ""),
            );
        }
    }
    let expected = [
        "write after read (conflict file/note.txt)",
        "write after count (conflict file/note.txt)",
        "again after write (conflict file/note.txt)",
        "put after order (conflict order/7)",
    ];
    ensure!(edges == expected, "the edges are {edges:?}");
    ensure!(graph["waves"] == 3, "{} waves", graph["waves"]);
    ensure!(desk.seen().is_empty(), "explaining asked the API: {:?}", desk.seen());
    Ok("the edges are those of the file and the order, across sources, and no others".to_owned())
}

async fn one_killed(desk: &Desk<'_>) -> anyhow::Result<String> {
    let long = block(("long", "all__trigger-long-running-operation", json!({ "duration": 50, "steps": 500 })));
    let mut all = vec![long];
    all.extend(calls().as_array().cloned().unwrap_or_default().into_iter().filter(|call| call["name"] != "all__echo"));
    let killing = async {
        let said = desk.folder.path().join("said.log");
        while !std::fs::read_to_string(&said).is_ok_and(|said| said.contains("notifications/progress")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let id = std::fs::read_to_string(desk.folder.path().join("pid"))?;
        ensure!(Command::new("kill").args(["-KILL", id.trim()]).status().await?.success(), "kill failed");
        Ok(())
    };
    let calls = Value::from(all);
    let (reply, killed) = tokio::join!(desk.ask(&["call"], &calls), killing);
    killed?;
    let mut reply = reply?;
    let results = reply["content"].as_array_mut().context("no results")?;
    let lost = results.remove(0);
    ensure!(lost.to_string().contains("outcome_unknown"), "the killed server's call: {lost}");
    let wanted = [
        ("read", "a note"),
        ("count", "7 note.txt"),
        ("write", "Successfully wrote"),
        ("again", "13 note.txt"),
        ("order", "answered GET /orders/7"),
        ("put", "answered PUT /orders/7"),
        ("stock", "answered GET /stock/lamp"),
    ];
    check(&reply, &wanted)?;
    Ok("a server that is killed hurts its own call alone".to_owned())
}
