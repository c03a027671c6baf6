//! Server-held threads: created, continued once, and refused with the code that makes a client replay.

use fanout_script::{Block, Fault, Rule, Script, ServerOptions, Turn};
use serde_json::{Value, json};

use crate::wire::{Answer, Desk};

fn desk(script: Script) -> Desk {
    let mut desk = Desk::open(ServerOptions::script(script));
    desk.headers = vec![("anthropic-version", "2026-10-21"), ("anthropic-beta", "other, message-threads-2026-08-12")];
    desk
}

fn two_turns() -> Script {
    Script::new([Turn::new([Block::tool_use("look", "{}").with_id("a")]), Turn::text("done")])
}

fn create() -> Value {
    json!({"model": "m", "max_tokens": 9, "thread": {"type": "create"},
        "tools": [{"name": "look", "input_schema": {"type": "object"}}],
        "messages": [{"role": "user", "content": "go"}]})
}

fn next(previous: &str) -> Value {
    let mut body = create();
    body["thread"] = json!({"type": "continue", "previous_message_id": previous});
    body["messages"] = json!([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}]);
    body.as_object_mut().expect("an object").remove("tools");
    body
}

async fn post(desk: &Desk, body: &Value) -> Answer {
    desk.post(&body.to_string()).await
}

fn id(answer: &Answer) -> String {
    answer.json()["id"].as_str().expect("a message id").to_owned()
}

fn code(answer: &Answer) -> String {
    answer.json()["error"]["details"]["error_code"].as_str().unwrap_or("none").to_owned()
}

#[tokio::test]
async fn a_thread_holds_what_was_said_and_is_continued_once() {
    let desk = desk(two_turns());
    let first = id(&post(&desk, &create()).await);
    let second = post(&desk, &next(&first)).await;
    assert_eq!(second.json()["content"][0]["text"], "done", "the server knows the first turn");
    let again = post(&desk, &next(&first)).await;
    assert_eq!((again.status, code(&again).as_str()), (400, "thread_already_continued"));
    let mut more = next(&id(&second));
    more["messages"] = json!([{"role": "user", "content": "and?"}]);
    assert_eq!(post(&desk, &more).await.status, 200, "its last message can be continued");
    assert_eq!(desk.server.violations().iter().map(|violation| violation.rule).collect::<Vec<_>>(), [Rule::Thread]);
}

#[tokio::test]
async fn the_rules_hold_for_the_whole_thread() {
    let desk = desk(two_turns());
    let first = id(&post(&desk, &create()).await);
    let mut body = next(&first);
    body["messages"] = json!([{"role": "user", "content": "never mind"}]);
    let answer = post(&desk, &body).await;
    assert!(answer.message().contains("without `tool_result` blocks"), "{}", answer.text());
    assert_eq!(post(&desk, &next(&first)).await.status, 200, "a refused continuation leaves the thread open");
}

#[tokio::test]
async fn an_unknown_thread_and_a_changed_definition_are_told_apart() {
    let desk = desk(two_turns());
    let answer = post(&desk, &next("msg_x")).await;
    assert_eq!((answer.status, code(&answer).as_str()), (404, "thread_not_found"));
    let first = id(&post(&desk, &create()).await);
    for (field, value) in [("tools", json!([])), ("model", json!("n")), ("system", json!("be brief"))] {
        let mut body = next(&first);
        body[field] = value;
        let answer = post(&desk, &body).await;
        assert_eq!(code(&answer), "thread_fingerprint_mismatch");
        assert!(answer.message().ends_with(field), "{}", answer.message());
    }
    let mut body = next(&first);
    body["tools"] = create()["tools"].clone();
    assert_eq!(
        post(&desk, &body).await.message(),
        "tools: a continuation takes it from the thread and must not repeat it"
    );
    assert_eq!(post(&desk, &next(&first)).await.status, 200);
}

#[tokio::test]
async fn what_no_thread_supports_is_refused() {
    for (field, value) in [
        ("context_management", json!({})),
        ("fallbacks", json!([{"model": "n"}])),
        ("thinking", json!({"type": "adaptive"})),
        ("cache_control", json!({"type": "ephemeral"})),
        ("system", json!([{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}])),
    ] {
        let desk = desk(two_turns());
        let mut body = create();
        body[field] = value;
        let answer = post(&desk, &body).await;
        assert_eq!((answer.status, code(&answer).as_str()), (400, "thread_unsupported_request"), "{field}");
        let named = if field == "system" { "cache_control" } else { field };
        assert_eq!(answer.json()["error"]["details"]["unsupported"], json!([named]));
    }
}

#[tokio::test]
async fn a_paused_turn_goes_on_without_new_messages() {
    let pause = Turn::new([Block::server_tool_use("srvtoolu_1", "web_search", "{}")]).stop("pause_turn");
    let found = Turn::new([Block::server_result("web_search_tool_result", "srvtoolu_1", "[]"), Block::text("found")]);
    let desk = desk(Script::new([pause, found]));
    let mut body = next(&id(&post(&desk, &create()).await));
    body["messages"] = json!([]);
    assert_eq!(post(&desk, &body).await.json()["content"][1]["text"], "found");
}

#[tokio::test]
async fn a_thread_needs_its_beta_and_its_version() {
    let full = [("anthropic-version", "2026-10-21"), ("anthropic-beta", "message-threads-2026-08-12")];
    for headers in [vec![full[0]], vec![("anthropic-version", "2023-06-01"), full[1]]] {
        let mut desk = desk(two_turns());
        desk.headers = headers;
        let answer = post(&desk, &create()).await;
        assert_eq!(answer.message(), "thread: Extra inputs are not permitted");
    }
}

#[tokio::test]
async fn a_failed_or_broken_continuation_can_be_tried_again() {
    for fault in [Fault::overloaded(), Fault::CutAfterEvents { events: 3 }] {
        let script = Script::new([two_turns().turns.remove(0), Turn::text("done").fault(fault)]);
        let desk = desk(script);
        let first = id(&post(&desk, &create()).await);
        let mut body = next(&first);
        body["stream"] = json!(true);
        let broken = post(&desk, &body).await;
        assert!(broken.status == 529 || broken.broken);
        let answer = post(&desk, &body).await;
        assert!(answer.text().contains("message_stop"), "{}", answer.text());
    }
}

#[tokio::test]
async fn one_continuation_at_a_time() {
    // The stream stands still after its first event until the client goes away.
    let pause = Fault::Pause { after_events: 1, pause_ms: 3_600_000, ping_ms: 0 };
    let script = Script::new([two_turns().turns.remove(0), Turn::text("done").fault(pause)]);
    let desk = desk(script);
    let first = id(&post(&desk, &create()).await);
    let mut body = next(&first);
    body["stream"] = json!(true);
    let mut slow = crate::wire::Opened::post(&desk, &body.to_string()).await;
    slow.read_until("message_start").await;
    let answer = post(&desk, &next(&first)).await;
    assert_eq!((answer.status, code(&answer).as_str()), (400, "thread_continue_in_flight"));
}
