//! Who is let in.

use std::net::IpAddr;
use std::time::Duration;

use fanout_host::keys::Grant;
use secrecy::ExposeSecret;

use crate::client::send;
use crate::stage::{Stage, TOOL_CALLS, body};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Posts a call with these headers and checks the error.
async fn refused(stage: &Stage, headers: &[(&str, &str)], error: (u16, &str, &str)) {
    let answer = send(stage.address, "POST", TOOL_CALLS, headers, &body("a=echo")).await;
    let (status, kind, code) = answer.error();
    assert_eq!((status, kind.as_str(), code.as_str()), error, "{headers:?}");
}

fn exposed() -> Stage {
    Stage::at(IpAddr::from([0, 0, 0, 0]), "", Duration::from_secs(60))
}

#[tokio::test]
async fn a_page_from_elsewhere_and_a_name_that_is_not_ours_are_refused() {
    let stage = Stage::new();
    let foreign = (403, "permission_error", "origin_refused");
    for origin in ["https://evil.example", "null", "file://", "http://localhost.evil.example", "chrome-extension://abc"]
    {
        refused(&stage, &[JSON, ("origin", origin)], foreign).await;
    }
    let named = (403, "permission_error", "host_refused");
    for host in ["evil.example", "localhost.evil.example:80", "10.0.0.1", ""] {
        refused(&stage, &[JSON, ("host", host)], named).await;
    }
    let own = format!("http://{}", stage.address);
    for headers in [("origin", own.as_str()), ("host", "localhost"), ("host", "[::1]:1")] {
        let answer = send(stage.address, "POST", TOOL_CALLS, &[JSON, headers], &body("a=echo")).await;
        assert_eq!(answer.status, 200, "{headers:?}");
    }
    assert_eq!(stage.started(3).await.len(), 3, "what was refused did not run");
}

#[tokio::test]
async fn a_body_must_be_json_and_small_enough() {
    let stage = Stage::new();
    let not_json = (415, "invalid_request_error", "not_json");
    refused(&stage, &[], not_json).await;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "jsonish", ""] {
        refused(&stage, &[("content-type", kind)], not_json).await;
    }
    for kind in ["application/json; charset=utf-8", "Application/JSON", "application/problem+json"] {
        let answer = send(stage.address, "POST", TOOL_CALLS, &[("content-type", kind)], &body("a=echo")).await;
        assert_eq!(answer.status, 200, "{kind}");
    }
    let large = (413, "request_too_large", "too_large");
    refused(&stage, &[JSON, ("content-length", "33554433")], large).await;
}

#[tokio::test]
async fn a_body_without_a_length_is_cut_off_where_it_grows_too_large() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let stage = Stage::new();
    let headers = [JSON, ("transfer-encoding", "chunked")];
    let mut stream = crate::client::begin(stage.address, "POST", TOOL_CALLS, &headers, "").await;
    let (mut reading, mut writing) = stream.split();
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
    let mut answer = [0; 12];
    let write = async {
        // Once it is refused, what is still sent finds a closed door.
        while writing.write_all(chunk.as_bytes()).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    tokio::select! {
        read = reading.read_exact(&mut answer) => assert_eq!(read.unwrap(), 12),
        () = write => {}
    }
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn any_address_but_loopback_demands_a_key() {
    let stage = exposed();
    let missing = (401, "authentication_error", "key_missing");
    refused(&stage, &[JSON], missing).await;
    refused(&stage, &[JSON, ("authorization", "Basic abc")], missing).await;
    let wrong = (401, "authentication_error", "key_unknown");
    refused(&stage, &[JSON, ("x-api-key", "sk-ant-mine")], wrong).await;
    let (key, secret) = stage.keys.add(Grant::default()).unwrap();
    let secret = secret.expose_secret().to_owned();
    let bearer = format!("Bearer {secret}");
    for header in [("x-api-key", secret.as_str()), ("authorization", bearer.as_str())] {
        assert_eq!(stage.post(TOOL_CALLS, &[header], &body("a=echo")).await.status, 200, "{header:?}");
    }
    refused(&stage, &[JSON, ("x-api-key", &format!("{secret}0"))], wrong).await;
    stage.keys.revoke(&key.id).unwrap();
    refused(&stage, &[JSON, ("x-api-key", &secret)], wrong).await;
    for (path, status) in
        [("/livez", 200), ("/readyz", 200), ("/openapi.json", 200), ("/metrics", 401), ("/fanout/v1/tools", 401)]
    {
        assert_eq!(stage.get(path).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn a_name_for_others_demands_a_key_on_loopback_too() {
    let stage = Stage::with("[server]\nhosts = [\"fanout.example.com\"]");
    assert!(stage.gateway.demands_keys());
    let missing = (401, "authentication_error", "key_missing");
    refused(&stage, &[JSON, ("host", "fanout.example.com")], missing).await;
    refused(&stage, &[JSON], missing).await;
}

#[tokio::test]
async fn loopback_asks_for_no_key_and_takes_none_that_does_not_hold() {
    let stage = Stage::new();
    let (_, secret) = stage.keys.add(Grant::default()).unwrap();
    let wrong = (401, "authentication_error", "key_unknown");
    refused(&stage, &[JSON, ("x-api-key", "fanout_0123")], wrong).await;
    for headers in [("accept", "*/*"), ("x-api-key", "sk-ant-mine"), ("x-api-key", secret.expose_secret())] {
        assert_eq!(stage.post(TOOL_CALLS, &[headers], &body("a=echo")).await.status, 200);
    }
}

#[tokio::test]
async fn callers_do_not_share_idempotency_keys() {
    let stage = exposed();
    let mut runs = Vec::new();
    for _ in 0..2 {
        let (_, secret) = stage.keys.add(Grant::default()).unwrap();
        let headers = [("x-api-key", secret.expose_secret()), ("idempotency-key", "k")];
        runs.push(stage.post(TOOL_CALLS, &headers, &body("a=echo")).await.header("fanout-run-id").unwrap().to_owned());
    }
    assert_ne!(runs[0], runs[1]);
    assert_eq!(stage.started(2).await.len(), 2);
}

#[tokio::test]
async fn keys_that_cannot_be_read_let_nobody_in() {
    let stage = exposed();
    std::fs::write(stage.keys.path(), "nonsense").unwrap();
    refused(&stage, &[JSON, ("x-api-key", "fanout_x")], (500, "api_error", "keys_unreadable")).await;
}

#[tokio::test]
async fn a_chain_of_gateways_that_has_no_end_is_refused() {
    let stage = Stage::new();
    refused(&stage, &[JSON, ("fanout-hop", "99")], (508, "api_error", "loop")).await;
    refused(&stage, &[JSON, ("fanout-hop", "x")], (400, "invalid_request_error", "invalid_request")).await;
    assert_eq!(stage.post(TOOL_CALLS, &[("fanout-hop", "1, other")], &body("a=echo")).await.status, 200);
}

#[tokio::test]
async fn a_gateway_that_is_its_own_upstream_says_which_setting_is_wrong() {
    let stage = Stage::new();
    let request = r#"{"model":"claude-sonnet-5-5","max_tokens":1,"messages":[{"role":"user","content":"x"}]}"#;
    for answer in [stage.post("/v1/messages", &[], request).await, stage.get("/v1/models").await] {
        assert_eq!(answer.error(), (508, "api_error".to_owned(), "loop".to_owned()));
        assert!(answer.body.contains("`base_url` of [model]"), "{}", answer.body);
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_in_the_same_shape() {
    let stage = Stage::new();
    let answer = send(stage.address, "GET", TOOL_CALLS, &[], "").await;
    assert_eq!(answer.error(), (405, "invalid_request_error".to_owned(), "unknown_method".to_owned()));
    assert_eq!(answer.header("allow"), Some("POST"));
    let error = stage.get("/nowhere").await.error();
    assert_eq!(error, (404, "not_found_error".to_owned(), "unknown_path".to_owned()));
}
