//! What the model says arrives as it was written: streamed and whole, from scripts, closures, scenarios and files.

use std::process::Stdio;

use fanout_script::{Block, Conversation, Script, ServerOptions, Turn, Usage};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::wire::{Desk, content_of, request, results, send, user};

/// Puts the blocks of a stream together again, as text: starts, and what the deltas add to them.
fn assembled(answer: &crate::wire::Answer) -> Vec<(String, String)> {
    let mut blocks: Vec<(String, String)> = Vec::new();
    for (name, data) in answer.events() {
        match name.as_str() {
            "content_block_start" => {
                assert_eq!(data["index"], blocks.len());
                blocks.push((data["content_block"]["type"].as_str().expect("a type").to_owned(), String::new()));
            }
            "content_block_delta" => {
                assert_eq!(data["index"], blocks.len() - 1);
                let delta = &data["delta"];
                for key in ["text", "partial_json", "thinking", "signature"] {
                    blocks.last_mut().expect("a block").1.push_str(delta[key].as_str().unwrap_or_default());
                }
            }
            _ => {}
        }
    }
    blocks
}

fn everything() -> Turn {
    Turn::new([
        Block::thinking("Let me see.", "sig=="),
        Block::thinking("", "empty=="),
        Block::redacted_thinking("abc"),
        Block::text("Grüße, \"world\" 🦀"),
        Block::server_tool_use("srvtoolu_1", "web_search", r#"{"q":"x"}"#),
        Block::server_result("web_search_tool_result", "srvtoolu_1", "[]"),
        Block::tool_use("look", r#"{ "b":1.0, "a":1e3,"e":"é\/"}"#)
            .with_id("toolu_x")
            .with_field("caller", r#"{"type":"direct"}"#),
        Block::tool_use("look", "").with_id("toolu_y"),
        Block::raw(r#"{"type":"block_of_tomorrow", "n":1.50}"#),
    ])
}

#[tokio::test]
async fn a_whole_message_has_every_block_in_its_own_spelling() {
    let desk = Desk::open(ServerOptions::script(Script::new([everything()])));
    let answer = desk.ask(&format!("[{}]", user("go")), false).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let blocks = [
        r#"{"type":"thinking","thinking":"Let me see.","signature":"sig=="}"#,
        r#"{"type":"thinking","thinking":"","signature":"empty=="}"#,
        r#"{"type":"redacted_thinking","data":"abc"}"#,
        r#"{"type":"text","text":"Grüße, \"world\" 🦀"}"#,
        r#"{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{"q":"x"}}"#,
        r#"{"type":"web_search_tool_result","tool_use_id":"srvtoolu_1","content":[]}"#,
        r#"{"type":"tool_use","id":"toolu_x","name":"look","input":{ "b":1.0, "a":1e3,"e":"é\/"},"caller":{"type":"direct"}}"#,
        r#"{"type":"tool_use","id":"toolu_y","name":"look","input":{}}"#,
        r#"{"type":"block_of_tomorrow", "n":1.50}"#,
    ];
    assert_eq!(content_of(&answer.text()), format!("[{}]", blocks.join(",")));
    assert_eq!(answer.json()["stop_reason"], "tool_use");
}

#[tokio::test]
async fn a_stream_begins_with_message_start_and_ping_and_carries_the_same_blocks_in_pieces() {
    let desk = Desk::open(ServerOptions::script(Script::new([everything()])));
    let answer = desk.ask(&format!("[{}]", user("go")), true).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let names = answer.event_names();
    assert_eq!(names[..3], ["message_start", "ping", "content_block_start"]);
    assert_eq!(names[names.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    for (name, data) in answer.events() {
        assert_eq!(data["type"], name);
    }
    let pairs = assembled(&answer);
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(kind, text)| (kind.as_str(), text.as_str())).collect();
    assert_eq!(
        pairs,
        [
            ("thinking", "Let me see.sig=="),
            ("thinking", "empty=="),
            ("redacted_thinking", ""),
            ("text", "Grüße, \"world\" 🦀"),
            ("server_tool_use", r#"{"q":"x"}"#),
            ("web_search_tool_result", ""),
            ("tool_use", r#"{ "b":1.0, "a":1e3,"e":"é\/"}"#),
            ("tool_use", ""),
            ("block_of_tomorrow", ""),
        ]
    );
    assert!(answer.text().contains(r#""content_block":{"type":"block_of_tomorrow", "n":1.50}"#));
    assert_eq!(answer.chunks.len(), 1, "unpaced, all events leave in one write");
}

#[tokio::test]
async fn a_closure_sees_the_request_and_the_results_of_the_last_message() {
    let desk = Desk::open(ServerOptions::responder(|conversation: &Conversation| {
        assert_eq!((conversation.model(), conversation.max_tokens()), ("claude-sonnet-5-5", 64));
        assert_eq!(conversation.tools()[0]["name"], "look");
        match conversation.assistant_turns() {
            0 => Turn::new([Block::tool_use("look", "{}").with_id("a"), Block::tool_use("look", "{}").with_id("b")]),
            _ => Turn::text(
                conversation
                    .tool_results()
                    .iter()
                    .map(|result| {
                        format!("{} {} {:?} {}", result.tool_use_id, result.tool, result.text, result.is_error)
                    })
                    .collect::<Vec<_>>()
                    .join("; "),
            ),
        }
    }));
    let said = content_of(&desk.ask(&format!("[{}]", user("go")), false).await.text());
    let reply = r#"{"role":"user","content":[
        {"type":"tool_result","tool_use_id":"a","content":[{"type":"text","text":"x"},{"type":"text","text":"y"}]},
        {"type":"tool_result","tool_use_id":"b","content":"no","is_error":true}]}"#;
    let messages = format!(r#"[{},{{"role":"assistant","content":{said}}},{reply}]"#, user("go"));
    let answer = desk.ask(&messages, false).await;
    assert_eq!(answer.json()["content"][0]["text"], r#"a look "x\ny" false; b look "no" true"#);
}

#[tokio::test]
async fn a_scenario_in_the_prompt_is_played_and_ends_with_done() {
    let desk = Desk::open(ServerOptions::default());
    let prompt = user(r#"Play {"turns":[[{"name":"look","input":{"x":1.0}},{"name":"look"}]],"think_ms":1} please"#);
    let first = desk.ask(&format!("[{prompt}]"), false).await;
    let said = content_of(&first.text());
    assert!(said.contains(r#""input":{"x":1.0}"#) && said.contains(r#""input":{}"#), "{said}");
    let ids: Vec<String> = first.json()["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|block| block["id"].as_str().unwrap().to_owned())
        .collect();
    let answers = results(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    let last = desk.ask(&format!(r#"[{prompt},{{"role":"assistant","content":{said}}},{answers}]"#), false).await;
    assert_eq!(
        (last.json()["content"][0]["text"].as_str(), last.json()["stop_reason"].as_str()),
        (Some("done"), Some("end_turn"))
    );
    assert_eq!(desk.server.violations(), []);
}

#[tokio::test]
async fn without_parallel_calls_the_model_makes_one() {
    let desk = Desk::open(ServerOptions::script(Script::new([Turn::calls([
        ("look", serde_json::json!({"n": 1})),
        ("look", serde_json::json!({"n": 2})),
    ])])));
    let body = request(&format!("[{}]", user("go")), false);
    let one = body.replacen('{', r#"{"tool_choice":{"type":"auto","disable_parallel_tool_use":true},"#, 1);
    assert_eq!(desk.post(&body).await.json()["content"].as_array().unwrap().len(), 2);
    assert_eq!(desk.post(&one).await.json()["content"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn usage_comes_from_sizes_unless_the_script_says_it() {
    let usage =
        Usage { input_tokens: 7, output_tokens: 8, cache_creation_input_tokens: 9, cache_read_input_tokens: 10 };
    let script = Script::new([Turn::text("x".repeat(400)), Turn::text("x").usage(usage)]);
    let desk = Desk::open(ServerOptions::script(script));
    let first = desk.ask(&format!("[{}]", user("go")), true).await;
    let delta = &first.events().into_iter().find(|(name, _)| name == "message_delta").unwrap().1["usage"];
    assert_eq!(delta["output_tokens"], 100);
    let messages = format!(
        r#"[{},{{"role":"assistant","content":[{{"type":"text","text":"{}"}}]}},{}]"#,
        user("go"),
        "x".repeat(400),
        user("on")
    );
    let second = desk.ask(&messages, false).await.json();
    assert_eq!(second["usage"]["cache_read_input_tokens"], 10);
    assert_eq!(second["usage"]["input_tokens"], 7);
}

#[tokio::test]
async fn tokens_are_counted_without_a_turn() {
    let desk = Desk::open(ServerOptions::default());
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;
    let path = "/v1/messages/count_tokens";
    let answer = send(&desk.server.base_url(), "POST", path, &desk.headers, body.as_bytes()).await.unwrap();
    assert_eq!(answer.json()["input_tokens"], body.len() / 4);
}

#[tokio::test]
async fn a_script_is_read_from_json_with_blocks_as_on_the_wire() {
    let script = Script::from_json(
        r#"{"turns":[{"content":[{"type":"tool_use","id":"t","name":"look","input":{"b":1.0}, "x":1}],
            "pace":{"think_ms":1},"faults":[{"type":"status","status":429,"retry_after":{"seconds":2}}]}]}"#,
    )
    .unwrap();
    let desk = Desk::open(ServerOptions::script(script));
    let ask = format!("[{}]", user("go"));
    let first = desk.ask(&ask, false).await;
    assert_eq!((first.status, first.header("retry-after")), (429, Some("2")));
    let second = desk.ask(&ask, false).await;
    assert_eq!(content_of(&second.text()), r#"[{"type":"tool_use","id":"t","name":"look","input":{"b":1.0},"x":1}]"#);
    assert!(Script::from_json(r#"{"turns":[{"contents":[]}]}"#).is_err());
}

#[tokio::test]
async fn an_input_that_is_no_json_is_written_down_as_text() {
    let script = r#"{"turns":[{"content":[{"type":"tool_use","name":"look","input_text":"{\"x\":"}]}]}"#;
    let desk = Desk::open(ServerOptions::script(Script::from_json(script).unwrap()));
    let answer = desk.ask(&format!("[{}]", user("go")), true).await;
    assert_eq!(assembled(&answer), [("tool_use".to_owned(), r#"{"x":"#.to_owned())]);
}

#[test]
fn every_fault_can_be_written_in_json() {
    for fault in [
        r#"{"type":"none"}"#,
        r#"{"type":"together","faults":[{"type":"byte_order_mark"},{"type":"line_ends","end":"crlf"}]}"#,
        r#"{"type":"status","status":502,"html":"<html>"}"#,
        r#"{"type":"status","status":429,"message":"slow down","retry_after":{"date":5}}"#,
        r#"{"type":"reset"}"#,
        r#"{"type":"error_event","after_events":1,"error_type":"overloaded_error"}"#,
        r#"{"type":"cut_after_bytes","bytes":1}"#,
        r#"{"type":"cut_after_events","events":1}"#,
        r#"{"type":"end_after_events","events":1}"#,
        r#"{"type":"cut_off","stop_reason":"max_tokens","keep":1}"#,
        r#"{"type":"refusal","after_blocks":1}"#,
        r#"{"type":"unknown_events"}"#,
        r#"{"type":"unknown_fields"}"#,
        r#"{"type":"slow","bytes":1,"delay_ms":1}"#,
        r#"{"type":"pause","after_events":1,"pause_ms":1,"ping_ms":1}"#,
    ] {
        let script = format!(r#"{{"turns":[{{"always":[{fault}],"faults":[{fault}]}}]}}"#);
        assert!(Script::from_json(&script).is_ok(), "{fault}: {:?}", Script::from_json(&script));
    }
    assert!(Script::from_json(r#"{"turns":[{"faults":[{"type":"fire"}]}]}"#).is_err());
}

#[tokio::test]
async fn the_program_prints_its_base_url_first() {
    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_fanout-script"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let base_url = lines.next_line().await.unwrap().unwrap();
    let headers = [("anthropic-version", "2023-06-01")];
    let body = request(&format!("[{}]", user("hi")), false);
    let answer = send(&base_url, "POST", "/v1/messages", &headers, body.as_bytes()).await.unwrap();
    assert_eq!(answer.status, 200);
}
