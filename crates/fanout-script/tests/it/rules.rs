//! Every rule that one request can break by itself: a request that is refused with the right words, and one that passes.

use fanout_script::{Rule, ServerOptions};

use crate::wire::{Desk, TOOLS, request, send};

/// Sends `body`; `refused` is the rule, the status and a piece of the message, or `None` if it must pass.
async fn check_body(body: &str, refused: Option<(Rule, u16, &str)>) {
    let desk = Desk::open(ServerOptions::default());
    let answer = desk.post(body).await;
    assert!(answer.header("request-id").is_some_and(|id| id.starts_with("req_")));
    let violations = desk.server.violations();
    match refused {
        None => {
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(violations, []);
        }
        Some((rule, status, words)) => {
            assert_eq!(answer.status, status, "{}", answer.text());
            let error = answer.json();
            assert_eq!(error["type"], "error");
            assert!(error["error"]["type"].is_string());
            assert_eq!(error["request_id"], answer.header("request-id").expect("a request id"));
            assert!(answer.message().contains(words), "`{words}` is not in `{}`", answer.message());
            assert_eq!(violations.iter().map(|violation| violation.rule).collect::<Vec<_>>(), [rule]);
        }
    }
}

const CALLS: &str = r#"{"role":"user","content":"go"},{"role":"assistant","content":[
    {"type":"tool_use","id":"a","name":"look","input":{}},{"type":"tool_use","id":"b","name":"look","input":{}}]}"#;
const RESULT_A: &str = r#"{"type":"tool_result","tool_use_id":"a","content":"1"}"#;
const RESULT_B: &str = r#"{"type":"tool_result","tool_use_id":"b"}"#;
const TEXT: &str = r#"{"type":"text","text":"and?"}"#;

/// Answers the calls `a` and `b` with these blocks.
async fn check_answer(blocks: &[&str], refused: Option<(Rule, &str)>) {
    let messages = format!(r#"[{CALLS},{{"role":"user","content":[{}]}}]"#, blocks.join(","));
    check_body(&request(&messages, false), refused.map(|(rule, words)| (rule, 400, words))).await;
}

#[tokio::test]
async fn every_call_has_one_result_in_the_very_next_message() {
    check_answer(&[RESULT_A, RESULT_B], None).await;
    check_answer(&[RESULT_B, RESULT_A, TEXT], None).await;
    let missing = "`tool_use` ids were found without `tool_result` blocks immediately after: b";
    check_answer(&[RESULT_A], Some((Rule::ResultMissing, missing))).await;
    check_answer(&[RESULT_A, RESULT_B, RESULT_A], Some((Rule::ResultTwice, "must have a single result"))).await;
    let extra = r#"{"type":"tool_result","tool_use_id":"c"}"#;
    check_answer(&[RESULT_A, RESULT_B, extra], Some((Rule::ResultExtra, "unexpected `tool_use_id`"))).await;
}

#[tokio::test]
async fn a_history_does_not_end_with_open_calls_nor_part_them_from_their_results() {
    let between =
        format!(r#"[{CALLS},{{"role":"user","content":"wait"}},{{"role":"user","content":[{RESULT_A},{RESULT_B}]}}]"#);
    let missing = Some((Rule::ResultMissing, 400, "without `tool_result` blocks immediately after: a, b"));
    check_body(&request(&between, false), missing).await;
    check_body(&request(&format!("[{CALLS}]"), false), missing).await;
    let alone = format!(r#"[{{"role":"user","content":[{RESULT_A}]}}]"#);
    check_body(&request(&alone, false), Some((Rule::ResultExtra, 400, "unexpected `tool_use_id`"))).await;
}

#[tokio::test]
async fn results_come_before_all_else() {
    check_answer(&[TEXT, RESULT_A, RESULT_B], Some((Rule::ResultsFirst, "must come first"))).await;
    check_answer(&[RESULT_A, TEXT, RESULT_B], Some((Rule::ResultsFirst, "before any `text`"))).await;
}

#[tokio::test]
async fn while_a_server_tool_works_only_results_may_follow() {
    let mixed = |server: &str, answer: &str| {
        let call = r#"{"type":"tool_use","id":"a","name":"look","input":{}}"#;
        request(
            &format!(
                r#"[{{"role":"user","content":"go"}},{{"role":"assistant","content":[{server},{call}]}},{{"role":"user","content":[{answer}]}}]"#
            ),
            false,
        )
    };
    let open = r#"{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{}}"#;
    let closed = format!(r#"{open},{{"type":"web_search_tool_result","tool_use_id":"srvtoolu_1","content":[]}}"#);
    check_body(&mixed(open, RESULT_A), None).await;
    let with_text = format!("{RESULT_A},{TEXT}");
    let only = Some((Rule::MixedTurn, 400, "only `tool_result` blocks may follow while srvtoolu_1"));
    check_body(&mixed(open, &with_text), only).await;
    check_body(&mixed(&closed, &with_text), None).await;
    let answered = format!(r#"{RESULT_A},{{"type":"tool_result","tool_use_id":"srvtoolu_1"}}"#);
    let never = Some((Rule::ServerToolAnswered, 400, "never comes from the client"));
    check_body(&mixed(open, &answered), never).await;
}

/// Sends a request with these further fields beside the usual ones.
async fn check_fields(model: &str, fields: &str, refused: Option<(Rule, &str)>) {
    let body = format!(r#"{{"model":"{model}","max_tokens":9,"messages":[{{"role":"user","content":"hi"}}]{fields}}}"#);
    check_body(&body, refused.map(|(rule, words)| (rule, 400, words))).await;
}

#[tokio::test]
async fn tool_names_fit_the_pattern_and_are_unique() {
    let tools = |names: &[&str]| {
        let tools: Vec<String> =
            names.iter().map(|name| format!(r#"{{"name":"{name}","input_schema":{{"type":"object"}}}}"#)).collect();
        format!(r#","tools":[{}]"#, tools.join(","))
    };
    let long = "x".repeat(129);
    let pattern = Some((Rule::ToolName, "'^[a-zA-Z0-9_-]{1,128}$'"));
    for (names, refused) in [
        (vec!["a-Z_9", &long[..128]], None),
        (vec!["a.b"], pattern),
        (vec![""], pattern),
        (vec!["é"], pattern),
        (vec![&long], pattern),
        (vec!["a", "a"], Some((Rule::ToolName, "must be unique"))),
    ] {
        check_fields("m", &tools(&names), refused).await;
    }
    check_fields("m", r#","tools":[{"name":"a"}]"#, Some((Rule::Field, "input_schema: Field required"))).await;
    check_fields("m", r#","tools":[{"type":"web_search_20250305","name":"web_search"}]"#, None).await;
}

#[tokio::test]
async fn a_forced_choice_is_refused_where_the_model_does_not_allow_it() {
    let forced = |kind: &str| format!(r#","tools":{TOOLS},"tool_choice":{{"type":"{kind}","name":"look"}}"#);
    for model in ["claude-opus-5-5", "claude-sonnet-5-5", "claude-fable-5-1", "claude-mythos-5-1-20260901"] {
        for kind in ["any", "tool"] {
            check_fields(model, &forced(kind), Some((Rule::ToolChoice, "is not supported by"))).await;
        }
        check_fields(model, &forced("auto"), None).await;
    }
    check_fields("claude-haiku-5", &forced("any"), None).await;
    let thinking = format!(r#"{},"thinking":{{"type":"enabled","budget_tokens":5}}"#, forced("any"));
    check_fields("claude-haiku-5", &thinking, Some((Rule::ToolChoice, "Thinking may not be enabled"))).await;
}

#[tokio::test]
async fn disable_parallel_tool_use_sits_inside_the_choice() {
    let inside = format!(r#","tools":{TOOLS},"tool_choice":{{"type":"auto","disable_parallel_tool_use":true}}"#);
    check_fields("m", &inside, None).await;
    let outside = r#","disable_parallel_tool_use":true"#;
    check_fields("m", outside, Some((Rule::ToolChoice, "Extra inputs are not permitted"))).await;
}

#[tokio::test]
async fn at_most_four_cache_markers_and_an_input_is_no_place_for_one() {
    let marked = |count: usize| {
        let block = r#"{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}"#;
        let plain = r#"{"type":"text","text":"{\"cache_control\":1}"}"#;
        format!(r#","system":[{}]"#, [vec![block; count], vec![plain]].concat().join(","))
    };
    check_fields("m", &marked(4), None).await;
    check_fields("m", &marked(5), Some((Rule::CacheMarkers, "A maximum of 4 blocks with cache_control"))).await;
}

#[tokio::test]
async fn required_fields_are_required_and_have_their_kinds() {
    let hi = r#"[{"role":"user","content":"hi"}]"#;
    for (body, words) in [
        (format!(r#"{{"max_tokens":1,"messages":{hi}}}"#), "model: Field required"),
        (format!(r#"{{"model":"m","messages":{hi}}}"#), "max_tokens: Field required"),
        (r#"{"model":"m","max_tokens":1}"#.to_owned(), "messages: Field required"),
        (r#"{"model":"m","max_tokens":1,"messages":[]}"#.to_owned(), "at least one message"),
        (format!(r#"{{"model":"m","max_tokens":"1","messages":{hi}}}"#), "max_tokens: Input should be"),
        (request(r#"[{"role":"robot","content":"hi"}]"#, false), "messages.0.role"),
        (request(r#"[{"role":"user","content":[{"text":"hi"}]}]"#, false), "messages.0.content.0.type"),
        (request(r#"[{"role":"user","content":[]}]"#, false), "non-empty content"),
    ] {
        check_body(&body, Some((Rule::Field, 400, words))).await;
    }
    check_body(r#"{"model":"#, Some((Rule::Json, 400, "not valid JSON"))).await;
}

#[tokio::test]
async fn more_than_32_mb_are_too_large() {
    let body = request(&format!("[{}]", crate::wire::user(&"x".repeat(33 << 20))), false);
    check_body(&body, Some((Rule::Size, 413, "exceeds the maximum size"))).await;
}

#[tokio::test]
async fn a_server_with_a_key_asks_for_it_in_either_header() {
    let hi = request(r#"[{"role":"user","content":"hi"}]"#, false);
    for (header, status) in [
        (("x-api-key", "secret"), 200),
        (("authorization", "Bearer secret"), 200),
        (("x-api-key", "wrong"), 401),
        (("x-api-key", ""), 401),
        (("authorization", "Bearer "), 401),
        (("x-other", "anything"), 401),
    ] {
        let mut desk = Desk::open(ServerOptions::default().key("secret"));
        desk.headers.push(header);
        let answer = desk.post(&hi).await;
        assert_eq!(answer.status, status, "{header:?}");
        if status == 401 {
            assert_eq!(answer.json()["error"]["type"], "authentication_error");
        }
        let received = desk.server.requests();
        assert!(!format!("{received:?}").contains("secret"), "the key is not kept");
        assert_eq!(received[0].body, hi.as_bytes());
    }
}

#[tokio::test]
async fn the_version_header_and_the_path_are_asked_for() {
    let mut desk = Desk::open(ServerOptions::default());
    let answer = send(&desk.server.base_url(), "POST", "/v1/message", &desk.headers, b"{}").await.unwrap();
    assert_eq!((answer.status, answer.json()["error"]["type"].as_str()), (404, Some("not_found_error")));
    desk.headers.clear();
    let answer = desk.ask(r#"[{"role":"user","content":"hi"}]"#, false).await;
    assert_eq!((answer.status, answer.message().as_str()), (400, "anthropic-version: header is required"));
}

#[tokio::test]
async fn an_identical_request_after_a_400_is_a_violation_of_its_own() {
    let desk = Desk::open(ServerOptions::default());
    for _ in 0..2 {
        assert_eq!(desk.post(r#"{"model":"m"}"#).await.status, 400);
    }
    let rules: Vec<_> =
        desk.server.violations().into_iter().map(|violation| (violation.request, violation.rule)).collect();
    assert_eq!(rules, [(0, Rule::Field), (1, Rule::Field), (1, Rule::RepeatedRefusal)]);
}

#[tokio::test]
async fn a_system_message_among_the_others_needs_its_beta_header() {
    let body =
        r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"},{"role":"system","content":"now"}]}"#;
    check_body(body, Some((Rule::Field, 400, "messages.1.role: Input should be 'user' or 'assistant'"))).await;
}
