//! As many MCP sessions over HTTP as there may be, and one more.

use serde_json::{Value, json};

use crate::client::{Answer, begin, send};
use crate::stage::Stage;

/// How many there may be.
const SESSIONS_MAX: usize = 1024;

const JSON: (&str, &str) = ("content-type", "application/json");
const BOTH: (&str, &str) = ("accept", "application/json, text/event-stream");

fn message(mut message: Value) -> String {
    message["jsonrpc"] = "2.0".into();
    message.to_string()
}

async fn initialize(stage: &Stage) -> Answer {
    let client = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
    let body = message(json!({"id": 0, "method": "initialize", "params": params}));
    send(stage.address, "POST", "/mcp", &[JSON, BOTH], &body).await
}

/// Begins a session and gives its id.
async fn begun(stage: &Stage) -> String {
    let answer = initialize(stage).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let id = answer.header("mcp-session-id").unwrap().to_owned();
    let body = message(json!({"method": "notifications/initialized"}));
    assert_eq!(send(stage.address, "POST", "/mcp", &[JSON, BOTH, ("mcp-session-id", &id)], &body).await.status, 202);
    id
}

async fn ping(stage: &Stage, session: &str) -> u16 {
    let body = message(json!({"id": 1, "method": "ping"}));
    send(stage.address, "POST", "/mcp", &[JSON, BOTH, ("mcp-session-id", session)], &body).await.status
}

#[tokio::test]
async fn past_the_bound_an_idle_session_makes_room_and_without_one_the_client_is_told() {
    let stage = Stage::new();
    let mut sessions = Vec::new();
    for _ in 0..=SESSIONS_MAX {
        sessions.push(begun(&stage).await);
    }
    let oldest = sessions.remove(0);
    assert_eq!((ping(&stage, &oldest).await, ping(&stage, &sessions[0]).await), (404, 200));
    let mut calls = Vec::new();
    for (at, session) in sessions.iter().enumerate() {
        let params = json!({"name": "hold", "arguments": {"id": format!("{at}")}});
        let body = message(json!({"id": 2, "method": "tools/call", "params": params}));
        calls.push(begin(stage.address, "POST", "/mcp", &[JSON, BOTH, ("mcp-session-id", session)], &body).await);
    }
    stage.started(SESSIONS_MAX).await;
    let refused = initialize(&stage).await;
    assert_eq!(refused.error(), (503, "overloaded_error".to_owned(), "too_many_sessions".to_owned()));
    assert_eq!(ping(&stage, &sessions[0]).await, 200, "none of those that are busy has gone");
    // What has no session needs no room.
    assert_eq!(stage.get("/fanout/v1/tools").await.status, 200);
    // A call that is cancelled ends: its session is idle.
    let cancel = message(json!({"method": "notifications/cancelled", "params": {"requestId": 2}}));
    send(stage.address, "POST", "/mcp", &[JSON, BOTH, ("mcp-session-id", &sessions[7])], &cancel).await;
    stage.stopped(1).await;
    while initialize(&stage).await.status != 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!((ping(&stage, &sessions[7]).await, ping(&stage, &sessions[0]).await), (404, 200));
}
