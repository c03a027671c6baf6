//! Calls in, results out.

use serde_json::{Value, json};

use crate::stage::{Stage, TOOL_CALLS, body};

/// Posts calls and checks the results: `id:ok` or `id:code` in program order, and what is unhandled.
#[track_caller]
fn check(body: &str, results: &str, unhandled: &[&str]) -> impl Future<Output = ()> {
    let (body, results) = (body.to_owned(), results.to_owned());
    let unhandled: Vec<String> = unhandled.iter().map(|id| (*id).to_owned()).collect();
    async move {
        let answer = Stage::new().post(TOOL_CALLS, &[], &body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.header("fanout-run-id").unwrap().starts_with("run_"), "{answer:?}");
        let json = answer.json();
        assert_eq!(json["role"], "user");
        let said: Vec<String> = json["content"].as_array().unwrap().iter().map(result).collect();
        assert_eq!(said.join(" "), results, "{json}");
        assert_eq!(json["unhandled"], json!(unhandled));
    }
}

fn result(block: &Value) -> String {
    let id = block["tool_use_id"].as_str().unwrap();
    assert_eq!(block["type"], "tool_result");
    if block["is_error"] != true {
        assert_eq!(serde_json::from_str::<Value>(block["content"].as_str().unwrap()).unwrap(), json!({ "id": id }));
        return format!("{id}:ok");
    }
    let error: Value = serde_json::from_str(block["content"].as_str().unwrap()).unwrap();
    format!("{id}:{}", error["error"]["code"].as_str().unwrap())
}

#[tokio::test]
async fn results_come_in_program_order_and_failures_are_results() {
    check(&body("a=echo b=fail c=echo"), "a:ok b:upstream c:ok", &[]).await;
    check(&body(""), "", &[]).await;
    check(
        r#"{"content":[{"type":"tool_use","id":"a","name":"echo","input":{}}],"unknown":"unhandled"}"#,
        "a:invalid_input",
        &[],
    )
    .await;
}

#[tokio::test]
async fn calls_of_tools_that_we_lack_are_the_clients_own() {
    check(&body("a=mine b=echo c=yours"), "b:ok", &["a", "c"]).await;
    check(&body("a=mine"), "", &["a"]).await;
    let errors = body("a=mine b=echo").replace(r#"{"content""#, r#"{"unknown":"error","content""#);
    check(&errors, "a:unknown_tool b:ok", &[]).await;
}

#[tokio::test]
async fn blocks_that_are_no_calls_are_of_no_matter() {
    let others = json!({"role": "assistant", "id": "msg_1", "content": [
        {"type": "text", "text": "I'll look."},
        {"type": "thinking", "thinking": "", "signature": "x"},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
        {"type": "something_new", "name": {"not": "a text"}},
        {"type": "tool_use", "id": "a", "name": "echo", "input": {"id": "a"}, "caller": {"type": "direct"}},
    ]});
    check(&others.to_string(), "a:ok", &[]).await;
}

#[tokio::test]
async fn a_body_that_cannot_be_understood_is_400() {
    let stage = Stage::new();
    for wrong in [
        "",
        "{",
        "null",
        "[]",
        "{}",
        r#"{"content":"text"}"#,
        r#"{"content":[],"unknown":"ignore"}"#,
        r#"{"content":[],"content":[]}"#,
        r#"{"content":[1]}"#,
        r#"{"content":[{"id":"a"}]}"#,
        r#"{"content":[{"type":"tool_use","name":"echo","input":{}}]}"#,
        r#"{"content":[{"type":"tool_use","id":"a","input":{}}]}"#,
        r#"{"content":[]} trailing"#,
        &body("a=echo a=echo"),
        &body("a=mine a=echo"),
    ] {
        for path in [TOOL_CALLS, "/fanout/v1/tool_calls/explain"] {
            let answer = stage.post(path, &[], wrong).await;
            let error = ("invalid_request_error".to_owned(), "invalid_request".to_owned());
            assert_eq!(answer.error(), (400, error.0, error.1), "{path} {wrong}");
        }
    }
    assert!(stage.seen.started.borrow().is_empty());
}

#[tokio::test]
async fn what_is_not_utf_8_is_400() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let stage = Stage::new();
    let headers = [("content-type", "application/json"), ("content-length", "2")];
    let mut stream = crate::client::begin(stage.address, "POST", TOOL_CALLS, &headers, "").await;
    stream.write_all(b"\"\xff").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn only_as_many_calls_run_as_one_response_may_have() {
    let stage = Stage::with("[run]\nmax_batch = 2");
    let json = stage.post(TOOL_CALLS, &[], &body("a=echo b=echo c=echo")).await.json();
    let said: Vec<String> = json["content"].as_array().unwrap().iter().map(result).collect();
    assert_eq!(said, ["a:ok", "b:ok", "c:budget"]);
}

#[tokio::test]
async fn a_run_ends_at_its_deadline_with_an_outcome_for_each_call() {
    let stage = Stage::with("[run]\ndeadline = \"50ms\"");
    let json = stage.post(TOOL_CALLS, &[], &body("a=hold b=echo c=pay")).await.json();
    let said: Vec<String> = json["content"].as_array().unwrap().iter().map(result).collect();
    assert_eq!(said, ["a:cancelled", "b:ok", "c:outcome_unknown"]);
}

#[tokio::test]
async fn the_graph_is_shown_and_nothing_runs() {
    let stage = Stage::new();
    let content = json!({"content": [
        {"type": "tool_use", "id": "a", "name": "pay", "input": {"id": "1"}},
        {"type": "tool_use", "id": "b", "name": "pay", "input": {"id": "1"}},
        {"type": "tool_use", "id": "c", "name": "mine", "input": {}},
    ]});
    let json = stage.post("/fanout/v1/tool_calls/explain", &[], &content.to_string()).await.json();
    assert_eq!((&json["waves"], &json["critical_path"]), (&json!(2), &json!(["a", "b"])));
    assert_eq!(json["calls"][1]["waits"], json!([{"on": "a", "why": "conflict", "key": "account/1"}]));
    assert_eq!(json["calls"][2]["error"]["code"], "unknown_tool");
    assert!(stage.seen.started.borrow().is_empty());
}

#[tokio::test]
async fn the_tools_are_ready_for_a_request() {
    let stage = Stage::new();
    let (first, second) = (stage.get("/fanout/v1/tools").await, stage.get("/fanout/v1/tools").await);
    assert_eq!(first.body, second.body);
    let tools = first.json();
    let names: Vec<_> = tools.as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["echo", "hold", "pay", "fail"]);
    assert_eq!(tools[0]["description"], "does echo");
    assert_eq!(tools[0]["input_schema"]["required"], json!(["id"]));
    assert!(!first.body.contains("cache_control"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_posts_at_once_are_each_answered_with_their_own_results() {
    let stage = std::sync::Arc::new(Stage::new());
    let mut posts = tokio::task::JoinSet::new();
    for number in 0..1000 {
        let stage = std::sync::Arc::clone(&stage);
        posts.spawn(async move {
            let calls = format!("x{number}=echo y{number}=hold z{number}=fail");
            let answer = stage.post(TOOL_CALLS, &[], &body(&calls)).await;
            let json = answer.json();
            let said: Vec<String> = json["content"].as_array().unwrap().iter().map(result).collect();
            assert_eq!(said, [format!("x{number}:ok"), format!("y{number}:ok"), format!("z{number}:upstream")]);
            answer.header("fanout-run-id").unwrap().to_owned()
        });
    }
    // All of them are under way at once before the first can end.
    stage.started(3000).await;
    stage.release(1000);
    let runs: std::collections::BTreeSet<String> = posts.join_all().await.into_iter().collect();
    assert_eq!(runs.len(), 1000);
    let metrics = stage.get("/metrics").await.body;
    assert!(metrics.contains("fanout_calls_total{tool=\"hold\",outcome=\"ok\"} 1000"), "{metrics}");
    stage.gateway.idle().await;
}

#[tokio::test]
async fn a_request_may_name_the_tools_that_it_uses() {
    let stage = Stage::new();
    let calls = body("a=echo b=fail");
    let answer = stage.post(TOOL_CALLS, &[("fanout-tools", "echo, pay")], &calls).await.json();
    assert_eq!((&answer["unhandled"], answer["content"].as_array().unwrap().len()), (&json!(["b"]), 1));
    let answer = stage.post(TOOL_CALLS, &[("fanout-tools", "none")], &calls).await.json();
    assert_eq!(answer["unhandled"], json!(["a", "b"]));
    let error = stage.post(TOOL_CALLS, &[("fanout-tools", "echo,ecko")], &calls).await;
    assert!(error.status == 400 && error.body.contains("`ecko`"), "{}", error.body);
}
