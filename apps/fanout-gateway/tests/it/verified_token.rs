//! The end user's token where `[server] jwt` has it verified: it counts or it does not, on every way in.

use std::net::TcpListener;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanout_script::{Script, Server, ServerOptions, Turn};
use ring::hmac;
use serde_json::{Value, json};

use crate::client::{Answer, send};
use crate::stage::{Stage, TOOL_CALLS, body};

const SECRET: &str = "a secret of the issuer and the gateway alone";

fn jwt(secret: &str) -> String {
    format!("[server]\njwt = {{ secret = \"{secret}\", audience = \"authenticated\" }}\n")
}

/// A token of this user that is good for so many more seconds.
fn token(user: &str, secret: &str, seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let claims = json!({ "sub": user, "role": "authenticated", "aud": "authenticated", "exp": now + seconds });
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", part(json!({ "alg": "HS256", "typ": "JWT" })), part(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Asks for one call of `echo` in every way there is.
async fn ask_everywhere(stage: &Stage, token: &str) -> [Answer; 3] {
    let user = ("fanout-user-token", token);
    let batch = stage.post(TOOL_CALLS, &[user], &body("a=echo")).await;
    let said = json!({"model": "claude-test", "max_tokens": 9, "messages": [{"role": "user", "content": "go"}]});
    let headers = [user, ("anthropic-version", "2023-06-01"), ("x-api-key", "theirs")];
    let message = stage.post("/v1/messages", &headers, &said.to_string()).await;
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2025-06-18"),
        user,
    ];
    let hello =
        json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let say = |method: &str, params: Value| {
        json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
    };
    let begun = send(stage.address, "POST", "/mcp", &headers, &say("initialize", hello)).await;
    let Some(session) = begun.header("mcp-session-id") else { return [batch, message, begun] };
    let headers = [headers.as_slice(), &[("mcp-session-id", session)]].concat();
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
    send(stage.address, "POST", "/mcp", &headers, &ready).await;
    let call = say("tools/call", json!({"name": "echo", "arguments": {"id": "a"}}));
    [batch, message, send(stage.address, "POST", "/mcp", &headers, &call).await]
}

fn claude() -> Server {
    let script = Script::new([Turn::calls([("echo", json!({"id": "a"}))]), Turn::text("done")]);
    Server::start(ServerOptions::script(script)).unwrap()
}

#[tokio::test]
async fn a_token_that_holds_has_its_claims_on_every_way_in() {
    let claude = claude();
    let stage = Stage::before(&claude.base_url(), &jwt(SECRET));
    for answer in ask_everywhere(&stage, &token("alice", SECRET, 60)).await {
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert_eq!(stage.seen.subjects(), ["alice"; 3]);
}

#[tokio::test]
async fn a_token_that_does_not_hold_is_401_on_every_way_in_and_runs_nothing() {
    let claude = claude();
    let stage = Stage::before(&claude.base_url(), &jwt(SECRET));
    for (token, why) in [
        (token("alice", SECRET, -3_600), "it has expired: get a new one"),
        (token("alice", "another secret, as long as the right one", 60), "its signature is wrong"),
        ("opaque.t0ken".to_owned(), "it is no signed JSON Web Token"),
    ] {
        for answer in ask_everywhere(&stage, &token).await {
            let refused = (401, "authentication_error".to_owned(), "user_token_refused".to_owned());
            assert_eq!(answer.error(), refused);
            assert!(answer.body.contains(why) && !answer.body.contains(&token), "{}", answer.body);
        }
    }
    assert!(stage.seen.subjects().is_empty());
}

#[tokio::test]
async fn a_request_without_a_token_goes_on_without_claims() {
    let stage = Stage::with(&jwt(SECRET));
    assert_eq!(stage.post(TOOL_CALLS, &[], &body("a=echo")).await.status, 200);
    assert_eq!(stage.seen.subjects(), [Value::Null]);
}

#[tokio::test]
async fn a_token_that_nobody_verifies_has_no_claims() {
    let stage = Stage::new();
    let token = token("alice", SECRET, 60);
    assert_eq!(stage.post(TOOL_CALLS, &[("fanout-user-token", &token)], &body("a=echo")).await.status, 200);
    assert_eq!((stage.seen.subjects(), stage.seen.tokens()), (vec![Value::Null], vec![token]));
}

#[tokio::test]
async fn what_anybody_may_ask_is_answered_whatever_the_token() {
    let stage = Stage::with(&jwt(SECRET));
    let user = [("fanout-user-token", "opaque")];
    assert_eq!(send(stage.address, "GET", "/livez", &user, "").await.status, 200);
    assert_eq!(send(stage.address, "GET", "/fanout/v1/tools", &user, "").await.status, 401);
}

#[tokio::test]
async fn while_the_keys_cannot_be_had_it_is_503_with_the_time_to_come_back() {
    // Free a moment ago, and nobody listens there now.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stage = Stage::with(&format!("[server]\njwt = {{ jwks_url = \"http://{nobody}/keys\" }}\n"));
    let token = format!("{}.e30.AAAA", URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"k"}"#));
    let answer = stage.post(TOOL_CALLS, &[("fanout-user-token", &token)], &body("a=echo")).await;
    let unverifiable = (503, "overloaded_error".to_owned(), "user_token_unverifiable".to_owned());
    assert_eq!(answer.error(), unverifiable);
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert!(stage.seen.subjects().is_empty());
}

#[tokio::test]
async fn a_reload_has_tokens_verified_by_the_new_keys() {
    let other = "another secret of the issuer and the gateway";
    let stage = Stage::with(&jwt(SECRET));
    let ask = async |secret: &str| {
        let token = token("alice", secret, 60);
        stage.post(TOOL_CALLS, &[("fanout-user-token", &token)], &body("a=echo")).await.status
    };
    assert_eq!((ask(SECRET).await, ask(other).await), (200, 401));
    stage.reload_with(&jwt(other)).await;
    assert_eq!((ask(SECRET).await, ask(other).await), (401, 200));
    stage.reload_with("").await;
    assert_eq!(ask(SECRET).await, 200);
    assert_eq!(stage.seen.subjects(), [json!("alice"), json!("alice"), Value::Null]);
}
