//! What is said back and forth: bytes, order, containers, choices.

use fanout_anthropic::ToolChoice;
use fanout_script::{Block, Turn};
use serde_json::{Value, json};

use crate::stage::{Stage, call, calls, end_of, told};

#[tokio::test]
async fn results_go_back_in_call_order_in_one_user_message() {
    for stream in [true, false] {
        let stage = Stage::open([calls("read r1, write w1, read r2"), Turn::text("all done")]).streaming(stream);
        let report = stage.run().await;
        assert_eq!(end_of(&report), "done");
        assert_eq!(report.answer, "all done");
        assert_eq!((report.turns, report.calls), (2, 3));
        assert_eq!(told(&report.conversation), "u: text | a: read r1, write w1, read r2 | u: =r1, =w1, =r2 | a: text");
        let results = stage.asked()[1]["messages"][2]["content"].clone();
        assert_eq!(results[1]["content"], "write w1: fine");
        assert_eq!(results[1].get("is_error"), None);
    }
}

#[tokio::test]
async fn assistant_content_goes_back_byte_for_byte() {
    let blocks = [
        r#"{"type":"redacted_thinking","data":"\u00e9+/="}"#,
        r#"{"type":"thing_of_tomorrow","x":1.0,"y":"\u00e9","z":{"b":1e2,"a":[ ]}}"#,
    ];
    for stream in [true, false] {
        let turn = Turn::new([
            Block::thinking("", "sig+/=="),
            Block::raw(blocks[0]),
            Block::thinking("hm \"q\"\u{e9}", "sig2"),
            Block::text("I look \u{1F600}\u{7}"),
            Block::tool_use("read", r#"{"id":"r1", "n":1.0,"\u0065":"\/"}"#)
                .with_id("r1")
                .with_field("caller", r#"{"type":"direct"}"#)
                .with_field("field_of_tomorrow", r#"[1.0, null]"#),
            Block::raw(blocks[1]),
        ]);
        let stage = Stage::open([turn, Turn::text("ok")]).streaming(stream);
        let report = stage.run().await;
        assert_eq!(end_of(&report), "done");
        let body = String::from_utf8(stage.server.requests()[1].body.to_vec()).unwrap();
        for part in blocks.into_iter().chain([
            r#"{"type":"thinking","thinking":"","signature":"sig+/=="}"#,
            r#""input":{"id":"r1", "n":1.0,"\u0065":"\/"},"caller":{"type":"direct"},"field_of_tomorrow":[1.0, null]}"#,
        ]) {
            assert!(body.contains(part), "{part} is not in {body}");
        }
    }
}

#[tokio::test]
async fn tools_keep_their_bytes_and_only_the_last_is_marked_for_the_cache() {
    let stage = Stage::open([calls("read r1"), calls("read r2"), Turn::text("ok")]);
    stage.run().await;
    let asked = stage.server.requests();
    let tools = |at: usize| {
        let body = String::from_utf8(asked[at].body.to_vec()).unwrap();
        let from = body.find(r#""tools":["#).unwrap();
        body[from..body.find(r#","messages":"#).unwrap()].to_owned()
    };
    assert_eq!((tools(0), tools(1)), (tools(1), tools(2)));
    let bodies = stage.asked();
    let marked: Vec<bool> =
        bodies[0]["tools"].as_array().unwrap().iter().map(|tool| tool.get("cache_control").is_some()).collect();
    assert_eq!((marked.iter().filter(|marked| **marked).count(), marked.last()), (1, Some(&true)));
}

#[tokio::test]
async fn a_server_tools_call_is_never_answered_and_its_late_result_is_kept() {
    for stream in [true, false] {
        let stage = Stage::open([
            Turn::new([Block::server_tool_use("srvtoolu_1", "web_search", r#"{"query":"x"}"#), call("read", "r1")]),
            Turn::new([Block::server_result("web_search_tool_result", "srvtoolu_1", "[]"), call("write", "w1")]),
            Turn::text("ok"),
        ])
        .streaming(stream);
        let report = stage.run().await;
        assert_eq!(end_of(&report), "done");
        assert_eq!(
            told(&report.conversation),
            "u: text | a: server srvtoolu_1, read r1 | u: =r1 | a: web_search_tool_result, write w1 | u: =w1 | a: text"
        );
    }
}

#[tokio::test]
async fn a_container_is_carried_on_by_its_id() {
    for stream in [true, false] {
        let code = r#"{"type":"code_execution_20260120","tool_id":"srvtoolu_1"}"#;
        let calls = Turn::new([
            Block::server_tool_use("srvtoolu_1", "code_execution", r#"{"code":"x"}"#),
            call("read", "r1").with_field("caller", code),
        ]);
        let stage = Stage::open([calls, Turn::text("ok")]).streaming(stream);
        let stage = stage.container(r#"{"id":"container_1","expires_at":"2026-12-01T00:00:00Z"}"#);
        stage.run().await;
        let asked = stage.asked();
        assert_eq!(asked[0].get("container"), None);
        assert_eq!(asked[1]["container"], "container_1");
        assert_eq!(asked[1]["messages"][1]["content"][1]["caller"], serde_json::from_str::<Value>(code).unwrap());
    }
}

#[tokio::test]
async fn a_container_with_skills_keeps_them() {
    let stage = Stage::open([calls("read r1"), Turn::text("ok")]).container(r#"{"id":"container_1"}"#);
    let skills = fanout_anthropic::Raw::parse(r#"{"skills":[{"skill_id":"pdf"}]}"#).unwrap();
    let stage = stage.with(|options| options.extra.push(("container".to_owned(), skills)));
    stage.run().await;
    assert_eq!(stage.asked()[1]["container"], json!({"id": "container_1", "skills": [{"skill_id": "pdf"}]}));
}

#[tokio::test]
async fn a_forced_choice_holds_until_the_first_answer_that_counts() {
    let any = ToolChoice::Any { disable_parallel_tool_use: true };
    let tool = ToolChoice::Tool { name: "read".to_owned(), disable_parallel_tool_use: false };
    let auto = ToolChoice::Auto { disable_parallel_tool_use: true };
    let (any_json, tool_json) =
        (json!({"type": "any", "disable_parallel_tool_use": true}), json!({"type": "tool", "name": "read"}));
    let auto_alone = json!({"type": "auto", "disable_parallel_tool_use": true});
    for (choice, faults, expected) in [
        (any.clone(), vec![], vec![any_json.clone(), auto_alone.clone()]),
        (tool, vec![], vec![tool_json, json!({"type": "auto"})]),
        (auto, vec![], vec![auto_alone.clone(), auto_alone.clone()]),
        (ToolChoice::None, vec![], vec![json!({"type": "none"}), json!({"type": "none"})]),
        (
            any.clone(),
            vec![fanout_script::Fault::overloaded()],
            vec![any_json.clone(), any_json.clone(), auto_alone.clone()],
        ),
        (any, vec![fanout_script::Fault::cut_off(5)], vec![any_json.clone(), any_json, auto_alone]),
    ] {
        let turn = faults.into_iter().fold(calls("read r1"), Turn::fault);
        let stage = Stage::open([turn, Turn::text("ok")]).with(|options| options.tool_choice = Some(choice));
        assert_eq!(end_of(&stage.run().await), "done");
        let choices: Vec<Value> = stage.asked().iter().map(|body| body["tool_choice"].clone()).collect();
        assert_eq!(choices, expected);
    }
}
