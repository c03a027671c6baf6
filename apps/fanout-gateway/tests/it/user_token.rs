//! The end user's token: it reaches the tools, and nobody else.

use serde_json::{Value, json};

use crate::client::send;
use crate::stage::{Stage, TOOL_CALLS, body};

const ALICE: (&str, &str) = ("fanout-user-token", "alice.t0ken");
const BOB: (&str, &str) = ("fanout-user-token", "bob.t0ken");
const KEY: (&str, &str) = ("idempotency-key", "k1");

#[tokio::test]
async fn a_token_reaches_the_tools_of_its_own_run() {
    let stage = Stage::new();
    for headers in [vec![ALICE], vec![], vec![BOB]] {
        assert_eq!(stage.post(TOOL_CALLS, &headers, &body("a=echo")).await.status, 200);
    }
    assert_eq!(stage.seen.tokens(), ["alice.t0ken", "none", "bob.t0ken"]);
}

#[tokio::test]
async fn a_token_that_a_tool_repeats_is_hidden() {
    let stage = Stage::new();
    let answer = stage.post(TOOL_CALLS, &[ALICE], &body("alice.t0ken=echo")).await;
    let said: Value = answer.json();
    assert_eq!(said["content"][0]["content"], json!(r#"{"id":"[redacted caller.token]"}"#));
}

#[tokio::test]
async fn nobody_is_answered_with_another_users_run() {
    let stage = Stage::new();
    assert_eq!(stage.post(TOOL_CALLS, &[KEY, ALICE], &body("a=echo")).await.status, 200);
    for other in [vec![KEY, BOB], vec![KEY]] {
        let error = stage.post(TOOL_CALLS, &other, &body("a=echo")).await.error();
        assert_eq!(error, (409, "invalid_request_error".to_owned(), "idempotency_key_reused".to_owned()));
    }
    assert_eq!(stage.post(TOOL_CALLS, &[KEY, ALICE], &body("a=echo")).await.status, 200);
    assert_eq!(stage.seen.tokens(), ["alice.t0ken"]);
}

#[tokio::test]
async fn a_token_that_is_none_is_400_and_is_not_repeated() {
    let stage = Stage::new();
    let long = "x".repeat(8 * 1024 + 1);
    for headers in [vec![("fanout-user-token", "Bearer s3cret")], vec![("fanout-user-token", &*long)], vec![ALICE, BOB]]
    {
        let answer = stage.post(TOOL_CALLS, &headers, &body("a=echo")).await;
        assert_eq!(answer.status, 400);
        assert!(answer.body.contains("fanout-user-token") && !answer.body.contains("s3cret"), "{}", answer.body);
    }
    assert!(stage.seen.tokens().is_empty());
}

#[tokio::test]
async fn a_session_of_mcp_is_one_users() {
    let stage = Stage::new();
    let ask = async |user: (&str, &str), session: Option<&str>, method: &str, params: Value| {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let mut headers = vec![
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", "2025-06-18"),
            user,
        ];
        headers.extend(session.map(|session| ("mcp-session-id", session)));
        send(stage.address, "POST", "/mcp", &headers, &body).await
    };
    let hello =
        json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let begun = ask(ALICE, None, "initialize", hello).await;
    let session = begun.header("mcp-session-id").unwrap().to_owned();
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-session-id", &*session),
        ALICE,
    ];
    send(stage.address, "POST", "/mcp", &headers, &ready).await;
    let call = json!({"name": "echo", "arguments": {"id": "a"}});
    let hers = ask(ALICE, Some(&session), "tools/call", call.clone()).await;
    assert!(hers.body.contains(r#"{\"id\":\"a\"}"#), "{}", hers.body);
    let his = ask(BOB, Some(&session), "tools/call", call).await;
    assert!(his.body.contains("another user's token: begin one anew"), "{}", his.body);
    assert_eq!(stage.seen.tokens(), ["alice.t0ken"]);
}
