//! The tools as an MCP server, asked by the protocol's own client over both transports.

use std::sync::Arc;
use std::time::Duration;

use fanout_anthropic::HttpOptions;
use fanout_core::run::{Scheduler, SchedulerOptions};
use fanout_gateway::{McpOptions, serve_mcp};
use fanout_host::approvals::Approvals;
use rmcp::ClientHandler;
use rmcp::model::{CallToolRequestParams, CallToolResult, ContentBlock, ProgressNotificationParam};
use rmcp::service::{NotificationContext, RoleClient, RunningService, ServiceError, ServiceExt};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::client::send;
use crate::stage::Stage;

/// How a client reaches the tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Streams,
    Http,
}

const BOTH: [Over; 2] = [Over::Streams, Over::Http];

/// A client that remembers how far its calls were said to be, and how often that there are other tools.
#[derive(Clone, Default)]
struct Listener(watch::Sender<Vec<(f64, Option<String>)>>, watch::Sender<usize>);

impl ClientHandler for Listener {
    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.0.send_modify(|said| said.push((params.progress, params.message)));
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.1.send_modify(|told| *told += 1);
    }
}

type Client = RunningService<RoleClient, Listener>;

async fn connect(over: Over, stage: &Stage) -> Client {
    match over {
        Over::Streams => {
            let (client, server) = tokio::io::duplex(64 * 1024);
            let (reader, writer) = tokio::io::split(server);
            let scheduler = Scheduler::new(SchedulerOptions::default());
            let options = McpOptions {
                toolbox: Arc::clone(&stage.toolbox),
                scheduler,
                approvals: Approvals::in_memory(),
                approval_wait: Duration::from_secs(30),
                calls_max: 3,
                journal: None,
                notices: fanout_host::notify::Notices::default(),
            };
            tokio::spawn(serve_mcp(reader, writer, options, std::future::pending()));
            Listener::default().serve(client).await.unwrap()
        }
        Over::Http => {
            let config = StreamableHttpClientTransportConfig::with_uri(format!("http://{}/mcp", stage.address));
            let options = HttpOptions { base_url: format!("http://{}", stage.address), ..HttpOptions::default() };
            let (http, _) = options.connections().unwrap();
            let transport = StreamableHttpClientTransport::with_client(http, config);
            Listener::default().serve(transport).await.unwrap()
        }
    }
}

async fn call(client: &Client, tool: &'static str, id: &str) -> Result<CallToolResult, ServiceError> {
    let arguments = json!({ "id": id }).as_object().cloned().unwrap_or_default();
    client.call_tool(CallToolRequestParams::new(tool).with_arguments(arguments)).await
}

fn text(result: &CallToolResult) -> &str {
    match &result.content[..] {
        [ContentBlock::Text(text)] => &text.text,
        other => panic!("not one text: {other:?}"),
    }
}

/// The calls of the attempts that have started, without their runs.
async fn started(stage: &Stage, calls: usize) -> Vec<String> {
    let keys = stage.started(calls).await;
    keys.iter().map(|key| key.split_once('/').unwrap().1.to_owned()).collect()
}

#[tokio::test]
async fn tools_are_listed_with_their_schemas_and_with_hints_from_their_effects() {
    for over in BOTH {
        let stage = Stage::new();
        let client = connect(over, &stage).await;
        assert_eq!(client.peer_info().unwrap().server_info.as_ref().unwrap().name, "fanout");
        let tools = client.list_all_tools().await.unwrap();
        let hints = |name: &str| {
            let tool = tools.iter().find(|tool| tool.name == name).unwrap();
            assert_eq!(tool.description.as_deref(), Some(&*format!("does {name}")));
            assert_eq!(tool.input_schema["required"], json!(["id"]));
            let hints = tool.annotations.clone().unwrap();
            let said = (hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint, hints.open_world_hint);
            (said.0.unwrap(), said.1.unwrap(), said.2.unwrap(), said.3.unwrap())
        };
        assert_eq!(hints("echo"), (true, false, true, false), "{over:?}: it is declared to write nothing");
        assert_eq!(hints("pay"), (false, true, false, false), "{over:?}: it writes");
        assert_eq!(tools.len(), 4);
    }
}

#[tokio::test]
async fn other_tools_are_announced_and_are_for_the_calls_that_come_then() {
    let stage = Stage::new();
    let client = Arc::new(connect(Over::Http, &stage).await);
    let pays = |tool| {
        let client = Arc::clone(&client);
        tokio::spawn(async move { call(&client, tool, "a").await })
    };
    let first = pays("pay");
    started(&stage, 1).await;
    stage.reload(&["echo", "pay"]).await;
    client.service().1.subscribe().wait_for(|told| *told == 1).await.unwrap();
    let names =
        |tools: Vec<rmcp::model::Tool>| tools.into_iter().map(|tool| tool.name.into_owned()).collect::<Vec<_>>();
    assert_eq!(names(client.list_all_tools().await.unwrap()), ["echo", "pay"]);
    assert!(matches!(call(&client, "hold", "b").await, Err(ServiceError::McpError(_))), "it is gone");
    // The new tool's call waits for the old one's: they touch one account, whichever configuration they are of.
    let second = pays("pay");
    let waits = |said: &Vec<(f64, Option<String>)>| said.iter().filter(|(step, _)| *step == 0.0).count();
    client.service().0.subscribe().wait_for(|said| waits(said) == 2).await.unwrap();
    assert_eq!(text(&call(&client, "echo", "b").await.unwrap()), r#"{"id":"b"}"#);
    assert_eq!(started(&stage, 2).await, ["c1", "c3"]);
    stage.release(2);
    for paid in [first, second] {
        assert_eq!(paid.await.unwrap().unwrap().is_error, Some(false));
    }
    assert_eq!(started(&stage, 3).await[2], "c2");
}

#[tokio::test]
async fn a_call_is_answered_with_text_and_data_and_a_failure_is_a_result() {
    for over in BOTH {
        let stage = Stage::new();
        let client = connect(over, &stage).await;
        let result = call(&client, "echo", "a").await.unwrap();
        assert_eq!((text(&result), result.is_error), (r#"{"id":"a"}"#, Some(false)), "{over:?}");
        assert_eq!(result.structured_content, Some(json!({"id": "a"})));
        let result = call(&client, "fail", "a").await.unwrap();
        let body: Value = serde_json::from_str(text(&result)).unwrap();
        assert_eq!((&body["error"]["code"], result.is_error), (&json!("upstream"), Some(true)), "{over:?}");
        let wrong = client.call_tool(CallToolRequestParams::new("echo")).await.unwrap();
        let body: Value = serde_json::from_str(text(&wrong)).unwrap();
        assert_eq!((&body["error"]["code"], wrong.is_error), (&json!("invalid_input"), Some(true)), "{over:?}");
        match call(&client, "nobody", "a").await {
            Err(ServiceError::McpError(error)) => assert_eq!(error.code.0, -32602, "{over:?}: {error}"),
            other => panic!("{over:?}: {other:?}"),
        }
        let of_call =
            |end| [Some((0.0, "waiting")), Some((1.0, "started")), (over == Over::Http).then_some((2.0, end))];
        let mut calls = [of_call("ok"), of_call("upstream"), of_call("invalid_input")];
        calls[2][1] = None;
        let expected: Vec<_> = calls.as_flattened().iter().flatten().copied().collect();
        let mut progress = client.service().0.subscribe();
        let progress = progress.wait_for(|said| said.len() >= expected.len()).await.unwrap().clone();
        let said: Vec<_> = progress.iter().map(|(step, message)| (*step, message.as_deref().unwrap())).collect();
        assert_eq!(said, expected, "{over:?}");
    }
}

#[tokio::test]
async fn what_a_tool_says_of_its_progress_is_a_part_of_the_second_step() {
    for over in BOTH {
        let stage = Stage::new();
        let client = connect(over, &stage).await;
        let mut progress = client.service().0.subscribe();
        let releasing = async {
            let said = progress.wait_for(|said| said.len() >= 3).await.unwrap().clone();
            stage.release(1);
            said
        };
        let (result, said) = tokio::join!(call(&client, "hold", "says"), releasing);
        assert_eq!(text(&result.unwrap()), r#"{"id":"says"}"#);
        let said: Vec<_> = said.iter().map(|(step, message)| (*step, message.as_deref().unwrap())).collect();
        assert_eq!(said, [(0.0, "waiting"), (1.0, "started"), (1.25, "a quarter")], "{over:?}");
    }
}

#[tokio::test]
async fn calls_of_a_session_run_together_and_those_that_clash_keep_their_order() {
    for over in BOTH {
        let stage = Stage::new();
        let client = connect(over, &stage).await;
        let (first, second, other) = (call(&client, "pay", "a"), call(&client, "pay", "a"), call(&client, "hold", "b"));
        let watch = async {
            // Both that may run do so at once, while nothing has ended; the second payment waits for the first.
            let mut ids = started(&stage, 2).await;
            ids.sort();
            assert_eq!(ids, ["c1", "c3"], "{over:?}");
            stage.release(2);
            assert_eq!(started(&stage, 3).await[2], "c2", "{over:?}");
            stage.release(1);
        };
        let (first, second, other, ()) = tokio::join!(biased; first, second, other, watch);
        for result in [first, second, other] {
            assert_eq!(result.unwrap().is_error, Some(false), "{over:?}");
        }
        let keys = stage.started(3).await;
        let runs: Vec<&str> = keys.iter().map(|key| key.split_once('/').unwrap().0).collect();
        assert!(runs.iter().all(|run| *run == runs[0]), "a session is one run: {runs:?}");
    }
}

#[tokio::test]
async fn a_call_too_many_at_once_is_answered_and_not_run() {
    for over in BOTH {
        let stage = Stage::with("[run]\nmax_calls = 3");
        let client = connect(over, &stage).await;
        let held = ["a", "b", "c"].map(|id| call(&client, "hold", id));
        let more = async {
            started(&stage, 3).await;
            let result = call(&client, "echo", "d").await.unwrap();
            let body: Value = serde_json::from_str(text(&result)).unwrap();
            assert_eq!((&body["error"]["code"], result.is_error), (&json!("budget"), Some(true)), "{over:?}");
            assert!(body["error"]["message"].as_str().unwrap().contains("max_calls"), "{body}");
            stage.release(3);
        };
        let [a, b, c] = held;
        let (a, b, c, ()) = tokio::join!(a, b, c, more);
        assert!([a, b, c].into_iter().all(|result| result.unwrap().is_error == Some(false)), "{over:?}");
        assert_eq!(call(&client, "echo", "d").await.unwrap().is_error, Some(false), "{over:?}: there is room again");
        assert_eq!(stage.started(4).await.len(), 4, "{over:?}: the one too many never ran");
    }
}

/// Calls `plan` with these calls, written `label=tool`; the tool's input names the label.
async fn plan(client: &Client, calls: &str) -> CallToolResult {
    let one = |(label, tool): (&str, &str)| json!({"label": label, "tool": tool, "input": {"id": label}});
    let calls: Vec<Value> = calls.split(' ').filter_map(|call| call.split_once('=')).map(one).collect();
    let arguments = json!({ "calls": calls }).as_object().cloned().unwrap_or_default();
    client.call_tool(CallToolRequestParams::new("plan").with_arguments(arguments)).await.unwrap()
}

#[tokio::test]
async fn a_plan_is_a_tool_like_any_other_whose_calls_nobody_sees() {
    for over in BOTH {
        let stage = Stage::with("[server]\nplan = true\n[run]\nmax_calls = 3");
        let client = connect(over, &stage).await;
        let tools = client.list_all_tools().await.unwrap();
        let listed = tools.iter().find(|tool| tool.name == "plan").unwrap();
        let schema = &listed.input_schema["properties"]["calls"]["items"]["properties"]["tool"];
        assert_eq!(schema["enum"], json!(["echo", "hold", "pay", "fail"]), "{over:?}: by the names that it has here");
        let hints = listed.annotations.clone().unwrap();
        assert_eq!((hints.read_only_hint, hints.destructive_hint), (Some(false), Some(true)), "{over:?}: it may pay");
        let result = plan(&client, "a=echo b=fail").await;
        let answer: Value = serde_json::from_str(text(&result)).unwrap();
        assert_eq!((&answer["a"], result.is_error), (&json!({"id": "a"}), Some(false)), "{over:?}");
        assert_eq!(answer["b"]["error"]["code"], "upstream", "{over:?}: {answer}");
        let (held, ()) = tokio::join!(plan(&client, "c=hold d=pay e=echo f=echo g=echo"), async {
            started(&stage, 4).await;
            stage.release(2);
        });
        let answer: Value = serde_json::from_str(text(&held)).unwrap();
        let codes = ["c", "d", "e", "f", "g"].map(|label| answer[label]["error"]["code"].as_str().unwrap_or("ok"));
        assert_eq!(codes, ["ok", "ok", "ok", "budget", "budget"], "{over:?}: {answer}");
        let malformed = plan(&client, "a=echo a=plan").await;
        assert_eq!(malformed.is_error, Some(true), "{over:?}");
        assert!(text(&malformed).contains("has that label already") && text(&malformed).contains("a plan in it"));
    }
}

#[tokio::test]
async fn a_cancelled_call_is_stopped_and_no_other() {
    for over in BOTH {
        let stage = Stage::new();
        let client = connect(over, &stage).await;
        let kept = tokio::spawn({
            let client = client.peer().clone();
            let params = CallToolRequestParams::new("hold");
            let params = params.with_arguments(json!({"id": "kept"}).as_object().cloned().unwrap_or_default());
            async move { client.call_tool(params).await }
        });
        started(&stage, 1).await;
        tokio::select! {
            result = call(&client, "hold", "dropped") => panic!("{over:?}: {result:?}"),
            // Dropping the call tells the server that it is cancelled.
            _ = started(&stage, 2) => {}
        }
        stage.stopped(1).await;
        stage.release(1);
        assert_eq!(kept.await.unwrap().unwrap().is_error, Some(false), "{over:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_takes_its_calls_along() {
    for over in BOTH {
        let stage = Stage::new();
        let client = connect(over, &stage).await;
        tokio::select! {
            result = call(&client, "hold", "a") => panic!("{over:?}: {result:?}"),
            _ = started(&stage, 1) => {}
        }
        client.cancel().await.unwrap();
        stage.stopped(1).await;
    }
}

#[tokio::test]
async fn a_request_without_a_session_is_a_run_of_its_own() {
    let stage = Stage::new();
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({"name": "echo", "arguments": {"id": "a"}, "_meta": meta});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "echo"),
    ];
    for _ in 0..2 {
        let answer = send(stage.address, "POST", "/mcp", &headers, &body).await;
        assert!(answer.body.contains(r#""structuredContent":{"id":"a"}"#), "{}", answer.body);
    }
    let keys = stage.started(2).await;
    assert!(keys[0] != keys[1] && keys.iter().all(|key| key.ends_with("/c1")), "{keys:?}");
}

#[tokio::test]
async fn the_door_stands_before_it_and_closing_ends_its_sessions() {
    let mut stage = Stage::new();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    let headers = [("content-type", "application/json"), ("origin", "https://evil.example")];
    assert_eq!(send(stage.address, "POST", "/mcp", &headers, &body).await.status, 403);
    let client = connect(Over::Http, &stage).await;
    let running = call(&client, "hold", "a");
    let close = async {
        started(&stage, 1).await;
        stage.release(1);
    };
    let (result, ()) = tokio::join!(running, close);
    assert_eq!(result.unwrap().is_error, Some(false));
    // The client keeps its stream open; the gateway ends all the same.
    stage.close().await.unwrap();
}
