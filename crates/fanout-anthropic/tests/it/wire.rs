//! What this crate prints: requests, messages, tools. What it reads comes back as it was.

use std::sync::Arc;

use fanout_anthropic::{
    Block, Input, Message, Raw, Request, Response, ResultContent, Role, StopReason, Thread, ToolChoice, ToolDef,
    ToolResult, ToolUse, Usage, View, WireError, tools_json,
};
use serde_json::json;

fn raw(text: &str) -> Raw {
    Raw::parse(text).unwrap()
}

fn result(id: &str, content: Vec<ResultContent>, is_error: bool) -> ToolResult {
    ToolResult { tool_use_id: id.to_owned(), content, is_error }
}

#[test]
fn a_raw_value_keeps_its_text_and_nothing_around_it() {
    for text in ["1.0", "1e5", "-0", r#""\u00e9\/""#, r#"{"b":1 , "a":[ 2.50 ],"a":null}"#, "null"] {
        assert_eq!(raw(text).as_str(), text);
        assert_eq!(raw(&format!(" \n{text}\t")).as_str(), text);
    }
    for text in ["", "{", "1 2", "{'a':1}", "01"] {
        assert!(matches!(Raw::parse(text), Err(WireError::NotJson { .. })), "{text}");
    }
    assert_eq!(Raw::from_value(&json!({"a": 1})).unwrap().as_str(), r#"{"a":1}"#);
}

#[test]
fn each_kind_of_block_is_told_apart() {
    let call = |input| View::ToolUse(ToolUse { id: "toolu_1".to_owned(), name: "get".to_owned(), input });
    for (text, want) in [
        (r#"{"type":"text","text":"caf\u00e9"}"#, View::Text("café".to_owned())),
        (r#"{"input":{"n":1.0},"type":"tool_use","name":"get","id":"toolu_1"}"#, call(Input::Json(json!({"n": 1.0})))),
        (r#"{"type":"tool_use","id":"toolu_1","name":"get"}"#, call(Input::Json(json!({})))),
        (
            r#"{"type":"tool_use","id":"toolu_1","name":"get","input":{"n":1e999}}"#,
            call(Input::Invalid(r#"{"n":1e999}"#.to_owned())),
        ),
        (
            r#"{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{}}"#,
            View::ServerToolUse { id: "srvtoolu_1".to_owned(), name: "web_search".to_owned() },
        ),
        (
            r#"{"type":"mcp_tool_use","id":"mcptoolu_1","name":"find","server_name":"x","input":{}}"#,
            View::ServerToolUse { id: "mcptoolu_1".to_owned(), name: "find".to_owned() },
        ),
        (
            r#"{"type":"tool_result","tool_use_id":"toolu_1","is_error":true}"#,
            View::ToolResult { tool_use_id: "toolu_1".to_owned(), is_error: true },
        ),
        (r#"{"type":"thinking","thinking":"","signature":"x"}"#, View::Thinking),
        (r#"{"type":"redacted_thinking","data":"x"}"#, View::Thinking),
        (r#"{"type":"tomorrow","name":{"a":1},"text":7}"#, View::Other { kind: "tomorrow".to_owned() }),
    ] {
        let block = Block::parse(raw(text)).unwrap();
        assert_eq!(block.view(), &want, "{text}");
        assert_eq!(block.raw().as_str(), text);
        assert!(block.is_whole());
    }
}

#[test]
fn a_block_that_cannot_be_used_is_refused_with_its_reason() {
    for (text, want) in [
        ("7", "malformed JSON in `content block`: invalid type: integer `7`, expected an object at line 1 column 1"),
        (r#"{"text":"x"}"#, "`type` must be a string in this content block"),
        (r#"{"type":"text","text":7}"#, "`text` must be a string in this content block"),
        (r#"{"type":"tool_use","name":"get","input":{}}"#, "`id` must be a string in this content block"),
    ] {
        assert_eq!(Block::parse(raw(text)).unwrap_err().to_string(), want, "{text}");
    }
}

#[test]
fn a_message_is_printed_once_and_kept() {
    let blocks = [r#"{"type":"thinking","thinking":"","signature":"a\/b"}"#, r#"{ "type":"text", "text":"x" }"#]
        .map(|text| Block::parse(raw(text)).unwrap());
    for (message, want) in [
        (Message::user_text("a \"b\"\n"), r#"{"role":"user","content":"a \"b\"\n"}"#),
        (
            Message::assistant(&blocks),
            r#"{"role":"assistant","content":[{"type":"thinking","thinking":"","signature":"a\/b"},{ "type":"text", "text":"x" }]}"#,
        ),
        (Message::assistant(&[]), r#"{"role":"assistant","content":[]}"#),
        (
            Message::tool_results(vec![
                result("toolu_1", vec![ResultContent::Text("ok".to_owned())], false),
                result("toolu_2", vec![], true),
                result(
                    "toolu_3",
                    vec![
                        ResultContent::Text("see".to_owned()),
                        ResultContent::Image { media_type: "image/png".to_owned(), data_base64: "AAAA".to_owned() },
                        ResultContent::Raw(raw(r#"{"type":"document" }"#)),
                    ],
                    false,
                ),
            ]),
            concat!(
                r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1","content":"ok"},"#,
                r#"{"type":"tool_result","tool_use_id":"toolu_2","is_error":true},"#,
                r#"{"type":"tool_result","tool_use_id":"toolu_3","content":[{"type":"text","text":"see"},"#,
                r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}},"#,
                r#"{"type":"document" }]}]}"#
            ),
        ),
    ] {
        assert_eq!(message.raw().as_str(), want);
        assert_eq!(Message::parse(raw(want)).unwrap(), message);
    }
}

#[test]
fn a_client_message_is_read_without_being_changed() {
    let text = r#"{"content" : [ {"type":"tool_result","tool_use_id":"t"} ], "x":1.0, "role":"user"}"#;
    let message = Message::parse(raw(text)).unwrap();
    assert_eq!((message.role(), message.raw().as_str()), (Role::User, text));
    assert_eq!(message.blocks().unwrap()[0].raw().as_str(), r#"{"type":"tool_result","tool_use_id":"t"}"#);
    let message = Message::parse(raw(r#"{"role":"system","content":"be \u0062rief"}"#)).unwrap();
    assert_eq!(message.role(), Role::Other);
    assert_eq!(message.blocks().unwrap(), [Block::text("be brief")]);
    for text in ["[]", r#"{"role":"user"}"#, r#"{"role":1,"content":[]}"#, r#"{"role":"user","content":{}}"#] {
        assert!(Message::parse(raw(text)).is_err(), "{text}");
    }
}

#[test]
fn tools_have_stable_bytes() {
    let tool = |name: &str, cache| ToolDef {
        name: name.to_owned(),
        description: "Gets \"it\".".to_owned(),
        input_schema: json!({"type": "object"}),
        cache,
    };
    assert_eq!(
        &*tools_json(&[tool("a", false), tool("b-2_C", true)]).unwrap(),
        concat!(
            r#"[{"name":"a","description":"Gets \"it\".","input_schema":{"type":"object"}},"#,
            r#"{"name":"b-2_C","description":"Gets \"it\".","input_schema":{"type":"object"},"#,
            r#""cache_control":{"type":"ephemeral"}}]"#
        )
    );
    assert_eq!(&*tools_json(&[]).unwrap(), "[]");
    for name in ["", "a.b", "é", "a b", &"x".repeat(129)] {
        assert_eq!(tools_json(&[tool(name, false)]), Err(WireError::ToolName { name: name.to_owned() }));
    }
    assert!(tools_json(&[tool(&"x".repeat(128), false)]).is_ok());
}

#[test]
fn a_request_prints_and_reads_back() {
    let small = Request::new("claude", 10, vec![Message::user_text("hi")]);
    let small_text = r#"{"model":"claude","max_tokens":10,"messages":[{"role":"user","content":"hi"}]}"#;
    let full = Request {
        system: Some(raw(r#"[{"type":"text","text":"x"}]"#)),
        tools: Some(Arc::from(r#"[{"name":"a" }]"#)),
        tool_choice: Some(ToolChoice::Tool { name: "a".to_owned(), disable_parallel_tool_use: true }),
        stream: true,
        thread: Some(Thread::Continue { previous_message_id: "msg_1".to_owned() }),
        extra: vec![("temperature".to_owned(), raw("1.0")), ("thinking".to_owned(), raw(r#"{"type":"enabled"}"#))],
        ..small.clone()
    };
    let full_text = concat!(
        r#"{"model":"claude","max_tokens":10,"system":[{"type":"text","text":"x"}],"tools":[{"name":"a" }],"#,
        r#""tool_choice":{"type":"tool","name":"a","disable_parallel_tool_use":true},"#,
        r#""messages":[{"role":"user","content":"hi"}],"stream":true,"#,
        r#""thread":{"type":"continue","previous_message_id":"msg_1"},"temperature":1.0,"thinking":{"type":"enabled"}}"#
    );
    for (request, text) in [(small, small_text), (full, full_text)] {
        assert_eq!(String::from_utf8(request.to_bytes()).unwrap(), text);
        assert_eq!(Request::parse(text.as_bytes()).unwrap(), request);
    }
}

#[test]
fn what_a_request_has_no_place_for_is_kept_in_order() {
    let text = concat!(
        r#"{"z":1e5,"messages":[],"tool_choice":{"type":"auto","new":1},"max_tokens":5,"thread":{"type":"fork"},"#,
        r#""stream":null,"system":null,"tools":{"odd":1},"a":{ "b":1.0 },"model":"m"}"#
    );
    let request = Request::parse(text.as_bytes()).unwrap();
    let extra: Vec<_> = request.extra.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(
        extra,
        [
            ("z", "1e5"),
            ("tool_choice", r#"{"type":"auto","new":1}"#),
            ("thread", r#"{"type":"fork"}"#),
            ("stream", "null"),
            ("system", "null"),
            ("tools", r#"{"odd":1}"#),
            ("a", r#"{ "b":1.0 }"#),
        ]
    );
    assert_eq!(Request::parse(&request.to_bytes()).unwrap(), request);
}

#[test]
fn a_request_that_lacks_what_every_request_has_is_refused() {
    for (text, want) in [
        (r#"{"max_tokens":1,"messages":[]}"#, "`model` must be a string"),
        (r#"{"model":"m","messages":[]}"#, "`max_tokens` must be a whole number"),
        (r#"{"model":"m","max_tokens":1.5,"messages":[]}"#, "`max_tokens` must be a whole number"),
        (r#"{"model":"m","max_tokens":1}"#, "`messages` must be an array"),
        (r#"{"model":"m","max_tokens":1,"messages":{}}"#, "`messages` must be an array"),
        (r#"{"model":"m","max_tokens":1,"messages":[{"role":"user"}]}"#, "`content` must be there in each message"),
    ] {
        assert_eq!(Request::parse(text.as_bytes()).unwrap_err().to_string(), want, "{text}");
    }
    assert!(Request::parse(b"\xff").is_err());
    assert!(Request::parse(b"[]").is_err());
}

#[test]
fn each_tool_choice_prints_and_reads_back() {
    let choices = [
        ToolChoice::Auto { disable_parallel_tool_use: false },
        ToolChoice::Auto { disable_parallel_tool_use: true },
        ToolChoice::Any { disable_parallel_tool_use: true },
        ToolChoice::Tool { name: "a".to_owned(), disable_parallel_tool_use: false },
        ToolChoice::None,
    ];
    for choice in choices {
        let request = Request { tool_choice: Some(choice), ..Request::new("m", 1, vec![]) };
        assert_eq!(Request::parse(&request.to_bytes()).unwrap(), request);
    }
}

#[test]
fn each_stop_reason_has_its_name() {
    for (reason, name) in [
        (StopReason::EndTurn, "end_turn"),
        (StopReason::MaxTokens, "max_tokens"),
        (StopReason::StopSequence, "stop_sequence"),
        (StopReason::ToolUse, "tool_use"),
        (StopReason::PauseTurn, "pause_turn"),
        (StopReason::Refusal, "refusal"),
        (StopReason::ModelContextWindowExceeded, "model_context_window_exceeded"),
        (StopReason::Other("tomorrow".to_owned()), "tomorrow"),
    ] {
        assert_eq!(StopReason::from_name(name), reason);
        assert_eq!(reason.name(), name);
    }
}

#[test]
fn usage_adds_up() {
    let one = Usage { input_tokens: 1, output_tokens: 2, cache_creation_input_tokens: 3, cache_read_input_tokens: 4 };
    assert_eq!(one.total(), 10);
    assert_eq!((one + one).total(), 20);
    assert_eq!((Usage { input_tokens: u64::MAX, ..one } + one).input_tokens, u64::MAX);
}

#[test]
fn a_response_without_what_it_needs_is_refused() {
    let whole = r#"{"id":"m","model":"c","content":[],"stop_reason":"end_turn"}"#;
    assert_eq!(Response::parse(whole).unwrap().usage, Usage::default());
    for field in ["id", "model", "content", "stop_reason"] {
        let text = whole.replace(&format!(r#""{field}""#), r#""other""#);
        let error = Response::parse(&text).unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{field}` must be")), "{error}");
    }
}

#[test]
fn a_body_is_cut_into_its_blocks_and_nothing_is_lost() {
    let blocks = [
        "{\n \"text\" : \"caf\\u00e9 \\/\",\n \"type\":\"text\"}",
        r#"{"type":"tool_use","id":"t","name":"n","input":{"x":1.0 , "x":1e5}}"#,
    ];
    let text = format!(
        "{{\"stop_reason\":\"tool_use\", \"content\" : [ {} ,\n{}],\"model\":\"c\",\"container\":{{\"id\" :1}},\"id\":\"m\",\"usage\":{{\"input_tokens\":3,\"output_tokens\":null,\"new\":1.0}} }}",
        blocks[0], blocks[1]
    );
    let response = Response::parse(&text).unwrap();
    assert_eq!(response.blocks.iter().map(|block| block.raw().as_str()).collect::<Vec<_>>(), blocks);
    assert_eq!(response.usage, Usage { input_tokens: 3, ..Usage::default() });
    assert_eq!(response.usage_raw.as_ref().unwrap().as_str(), r#"{"input_tokens":3,"output_tokens":null,"new":1.0}"#);
    assert_eq!(response.extra, [("container".to_owned(), raw(r#"{"id" :1}"#))]);
    assert_eq!(Response::parse(&response.to_json()).unwrap(), response);
}

#[test]
fn a_value_of_any_depth_is_survived() {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let text = format!(r#"{{"type":"tool_use","id":"t","name":"n","input":{{"a":{deep}}}}}"#);
    let block = Block::parse(raw(&text)).unwrap();
    assert_eq!(block.raw().as_str(), text);
    assert!(matches!(block.view(), View::ToolUse(ToolUse { input: Input::Invalid(_), .. })));
}
