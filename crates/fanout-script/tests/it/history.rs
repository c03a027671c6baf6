//! What was said comes back as it was said, and nothing before it changes.

use fanout_script::{Block, Fidelity, Rule, Script, ServerOptions, Turn};

use crate::wire::{Desk, TOOLS, content_of, results, user};

const SYSTEM: &str = r#""be brief""#;

/// A request whose every part can be altered.
fn body(system: &str, tools: &str, messages: &[&str]) -> String {
    let messages = messages.join(",");
    format!(r#"{{"model":"m","max_tokens":9,"system":{system},"tools":{tools},"messages":[{messages}]}}"#)
}

fn thinking_turn() -> Turn {
    Turn::new([
        Block::thinking("Hm.", "sig"),
        Block::thinking("", "empty"),
        Block::redacted_thinking("xyz"),
        Block::text("Grüße"),
        Block::tool_use("look", r#"{"b":1.0,"a":"é"}"#).with_id("a"),
        Block::raw(r#"{"type":"block_of_tomorrow","n":1.50}"#),
    ])
}

fn plain_turn() -> Turn {
    Turn::new([Block::text("Grüße"), Block::tool_use("look", r#"{"b":1.0}"#).with_id("a")])
}

/// Lets the model say `turn`, and sends it back with one piece of the second request replaced.
async fn check(turn: Turn, fidelity: Fidelity, (from, to): (&str, &str), refused: Option<(Rule, &str)>) {
    let script = Script::new([turn, Turn::text("done")]);
    let desk = Desk::open(ServerOptions::script(script).fidelity(fidelity));
    let ask = user("go");
    let said = content_of(&desk.post(&body(SYSTEM, TOOLS, &[&ask])).await.text());
    let assistant = format!(r#"{{"role":"assistant","content":{said}}}"#);
    let whole = body(SYSTEM, TOOLS, &[&ask, &assistant, &results(&["a"])]);
    assert!(whole.contains(from), "`{from}` is not in `{whole}`");
    let answer = desk.post(&whole.replacen(from, to, 1)).await;
    match refused {
        None => assert_eq!(answer.status, 200, "{from} -> {to}: {}", answer.text()),
        Some((rule, words)) => {
            assert_eq!(answer.status, 400, "{from} -> {to} must be refused");
            assert!(answer.message().contains(words), "`{words}` is not in `{}`", answer.message());
            assert_eq!(desk.server.violations()[0].rule, rule);
        }
    }
}

#[tokio::test]
async fn an_unchanged_history_passes() {
    for fidelity in [Fidelity::Bytes, Fidelity::Values, Fidelity::Off] {
        check(thinking_turn(), fidelity, ("go", "go"), None).await;
    }
}

#[tokio::test]
async fn thinking_goes_back_exactly_as_it_came() {
    let altered = Some((Rule::Thinking, "cannot be modified"));
    for fidelity in [Fidelity::Bytes, Fidelity::Values] {
        for change in [
            (r#""thinking":"Hm.""#, r#""thinking":"Hm""#),
            (r#""signature":"sig""#, r#""signature":"gis""#),
            (r#"{"type":"thinking","thinking":"","signature":"empty"},"#, ""),
            (r#"{"type":"redacted_thinking","data":"xyz"},"#, ""),
            (r#""data":"xyz""#, r#""data":"zyx""#),
        ] {
            check(thinking_turn(), fidelity, change, altered).await;
        }
    }
}

#[tokio::test]
async fn every_other_block_goes_back_byte_for_byte() {
    let altered = Some((Rule::AssistantContent, "byte for byte"));
    for change in [
        ("Grüße", "Gr\\u00fc\\u00dfe"),
        (r#"{"b":1.0,"#, r#"{"b":1,"#),
        (r#"{"b":1.0,"a":"é"}"#, r#"{"a":"é","b":1.0}"#),
        (r#","n":1.50}"#, r#","n":1.5}"#),
        (r#",{"type":"block_of_tomorrow","n":1.50}"#, ""),
        (r#"{"type":"text","text":"Grüße"}"#, r#"{"text":"Grüße","type":"text"}"#),
    ] {
        check(thinking_turn(), Fidelity::Bytes, change, altered).await;
    }
}

#[tokio::test]
async fn by_values_the_spelling_is_free_and_the_value_is_not() {
    for change in [("Grüße", "Gr\\u00fc\\u00dfe"), (r#"{"b":1.0,"a":"é"}"#, r#"{"a":"é","b":1}"#)] {
        check(thinking_turn(), Fidelity::Values, change, None).await;
    }
    let altered = Some((Rule::AssistantContent, "byte for byte"));
    check(thinking_turn(), Fidelity::Values, (r#""a":"é""#, r#""a":"e""#), altered).await;
}

#[tokio::test]
async fn nothing_before_a_thinking_block_is_edited() {
    for fidelity in [Fidelity::Bytes, Fidelity::Values] {
        for (change, what) in [
            (("be brief", "be long"), "system: everything before a `thinking` block"),
            (("input_schema", "description\":\"new\",\"input_schema"), "tools: everything before"),
            ((r#""content":"go""#, r#""content":"run""#), "messages.0: everything before"),
            (
                (
                    r#"{"role":"user","content":"go"}"#,
                    r#"{"role":"user","content":"go"},{"role":"user","content":"!"}"#,
                ),
                "messages.1",
            ),
        ] {
            check(thinking_turn(), fidelity, change, Some((Rule::AppendOnly, what))).await;
        }
    }
}

#[tokio::test]
async fn without_thinking_an_edit_is_refused_byte_for_byte_and_let_pass_by_values() {
    let edit = (r#""content":"go""#, r#""content":"run""#);
    check(plain_turn(), Fidelity::Bytes, edit, Some((Rule::AppendOnly, "everything before an assistant message")))
        .await;
    check(plain_turn(), Fidelity::Values, edit, None).await;
    check(thinking_turn(), Fidelity::Off, edit, None).await;
}

#[tokio::test]
async fn a_cache_marker_may_come_and_go() {
    let marked = r#","content":"ok","cache_control":{"type":"ephemeral"}"#;
    check(thinking_turn(), Fidelity::Bytes, (r#","content":"ok""#, marked), None).await;
    let tool = (r#"{"name":"look""#, r#"{"cache_control":{"type":"ephemeral"},"name":"look""#);
    check(thinking_turn(), Fidelity::Bytes, tool, None).await;
}

#[tokio::test]
async fn a_mixed_turn_and_a_pause_keep_their_tools() {
    let mixed = Turn::new([
        Block::server_tool_use("srvtoolu_1", "web_search", "{}"),
        Block::tool_use("look", "{}").with_id("a"),
    ]);
    let tools = ("input_schema", "description\":\"new\",\"input_schema");
    let refused = Some((Rule::MixedTurn, "`tools` must stay the same"));
    check(mixed.clone(), Fidelity::Values, tools, refused).await;
    check(mixed, Fidelity::Values, ("go", "go"), None).await;
}

#[tokio::test]
async fn a_paused_turn_is_sent_back_as_the_last_message_and_goes_on() {
    let script = Script::new([
        Turn::new([Block::server_tool_use("srvtoolu_1", "web_search", "{}")]).stop("pause_turn"),
        Turn::new([Block::server_result("web_search_tool_result", "srvtoolu_1", "[]"), Block::text("found")]),
    ]);
    let desk = Desk::open(ServerOptions::script(script));
    let ask = user("go");
    let first = desk.post(&body(SYSTEM, TOOLS, &[&ask])).await;
    assert_eq!(first.json()["stop_reason"], "pause_turn");
    let assistant = format!(r#"{{"role":"assistant","content":{}}}"#, content_of(&first.text()));
    let second = desk.post(&body(SYSTEM, TOOLS, &[&ask, &assistant])).await;
    assert_eq!(second.json()["content"][1]["text"], "found");
    let other = desk.post(&body(SYSTEM, "[]", &[&ask, &assistant])).await;
    assert_eq!(other.status, 400);
    assert_eq!(desk.server.violations()[0].rule, Rule::MixedTurn);
}

#[tokio::test]
async fn a_text_block_does_not_go_back_as_a_string() {
    for (fidelity, status) in [(Fidelity::Bytes, 400), (Fidelity::Values, 200)] {
        let script = Script::new([Turn::text("hello"), Turn::text("done")]);
        let desk = Desk::open(ServerOptions::script(script).fidelity(fidelity));
        desk.post(&body(SYSTEM, TOOLS, &[&user("go")])).await;
        let string = r#"{"role":"assistant","content":"hello"}"#;
        let answer = desk.post(&body(SYSTEM, TOOLS, &[&user("go"), string, &user("on")])).await;
        assert_eq!(answer.status, status, "{fidelity:?}");
    }
}

#[tokio::test]
async fn a_message_that_the_model_never_said_is_not_judged() {
    let desk = Desk::open(ServerOptions::default());
    let own = r#"{"role":"assistant","content":"I said so"}"#;
    assert_eq!(desk.post(&body(SYSTEM, TOOLS, &[&user("go"), own, &user("on")])).await.status, 200);
}
