//! An MCP server over streamable HTTP that forgets sessions, breaks streams and answers what was not asked.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use fanout_core::tool::{Attempt, Policy, Tool, ToolError};
use fanout_tools::http::HttpClient;
use fanout_tools::mcp::{McpReach, McpServer, McpTool, McpToolOptions};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::mcp_server::text;

/// How the server answers a session that it does not know: the status, and the id of the error.
type Refusal = (StatusCode, Option<Value>);

#[derive(Clone)]
struct Forgetful {
    refusal: Refusal,
    /// The session that it knows, and how many there have been; none is ever known to one that forgets at once.
    sessions: Arc<Mutex<(Option<usize>, usize)>>,
    forgets_at_once: bool,
}

impl Forgetful {
    /// Starts it; its two tools say in which session they are called, and break the stream of their answer.
    async fn start(refusal: Refusal, forgets_at_once: bool) -> (Self, [McpTool; 2]) {
        let this = Self { refusal, sessions: Arc::default(), forgets_at_once };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let reach = McpReach::Http { url: url.into(), headers: Vec::new(), client: HttpClient::new(), access: None };
        let server = McpServer::new("s", reach).unwrap();
        let listed = server.list().await.unwrap();
        let options = || McpToolOptions { policy: Policy::default(), ..McpToolOptions::default() };
        (this, [0, 1].map(|at| server.tool(&listed[at], options()).unwrap()))
    }

    fn forget(&self) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).0 = None;
    }

    fn opened(&self) -> usize {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

async fn answer(State(server): State<Forgetful>, method: Method, headers: HeaderMap, body: Bytes) -> Response {
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    let result =
        |result: Value| axum::Json(json!({ "jsonrpc": "2.0", "id": said["id"], "result": result })).into_response();
    if said["method"] == "initialize" {
        let mut sessions = server.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        *sessions = (Some(sessions.1 + 1), sessions.1 + 1);
        let answer = result(json!({
            "protocolVersion": "2025-06-18", "capabilities": { "tools": {} }, "serverInfo": { "name": "f", "version": "1" },
        }));
        return ([("mcp-session-id", sessions.1.to_string())], answer).into_response();
    }
    let session = headers.get("mcp-session-id").and_then(|id| id.to_str().ok()?.parse::<usize>().ok());
    let known = server.sessions.lock().unwrap_or_else(PoisonError::into_inner).0;
    let is_call = said["method"] == "tools/call";
    if session != known || (server.forgets_at_once && is_call) {
        let (status, id) = &server.refusal;
        let mut error =
            json!({ "jsonrpc": "2.0", "error": { "code": -32000, "message": "No valid session ID provided" } });
        if let Some(id) = id {
            error["id"] = id.clone();
        }
        return (*status, axum::Json(error)).into_response();
    }
    match said["method"].as_str() {
        Some("tools/list") => result(json!({ "tools": [
            { "name": "where", "inputSchema": { "type": "object" } },
            { "name": "break", "inputSchema": { "type": "object" } },
        ] })),
        Some("tools/call") if said["params"]["name"] == "break" => {
            // The begin of a stream that can be taken up again, were the session still known.
            server.forget();
            ([("content-type", "text/event-stream")], Body::from("id: 1\nretry: 1\ndata:\n\n")).into_response()
        }
        Some("tools/call") => {
            result(json!({ "content": [{ "type": "text", "text": session.map(|id| id.to_string()) }] }))
        }
        _ if method == Method::GET => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        _ => StatusCode::ACCEPTED.into_response(),
    }
}

async fn attempt(tool: &McpTool) -> Result<String, ToolError> {
    tool.call(Attempt::detached(tool.spec().name, json!({}))).await.map(|output| text(&output))
}

/// As the protocol says it; as one of its SDKs does; as servers made after its examples do.
fn refusals() -> [Refusal; 3] {
    let bad = StatusCode::BAD_REQUEST;
    [(StatusCode::NOT_FOUND, Some(Value::Null)), (bad, Some(json!("server-error"))), (bad, None)]
}

#[tokio::test]
async fn calls_in_a_session_that_the_server_forgot_are_all_made_in_one_new_one() {
    for refusal in refusals() {
        let (server, [asks, _]) = Forgetful::start(refusal.clone(), false).await;
        assert_eq!(attempt(&asks).await.unwrap(), "1", "{refusal:?}");
        server.forget();
        let calls: Vec<_> = (0..16)
            .map(|_| {
                tokio::spawn({
                    let asks = asks.clone();
                    async move { attempt(&asks).await }
                })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), "2", "{refusal:?}");
        }
        assert_eq!(server.opened(), 2);
    }
}

#[tokio::test]
async fn a_call_that_no_session_takes_was_not_sent() {
    for refusal in refusals() {
        let (server, [asks, _]) = Forgetful::start(refusal.clone(), true).await;
        let error = attempt(&asks).await.unwrap_err();
        assert!(matches!(error, ToolError::NotSent(_)), "{refusal:?}: {error:?}");
        assert!(error.to_string().ends_with("it does not know the session that it opened"), "{error}");
        assert_eq!(server.opened(), 2);
    }
}

#[tokio::test]
async fn a_call_whose_stream_cannot_be_taken_up_again_may_have_been_carried_out() {
    for refusal in refusals() {
        let (_server, [asks, breaks]) = Forgetful::start(refusal.clone(), false).await;
        let error = attempt(&breaks).await.unwrap_err();
        assert!(matches!(error, ToolError::Broken(_)), "{refusal:?}: {error:?}");
        assert_eq!(attempt(&asks).await.unwrap(), "2");
    }
}
