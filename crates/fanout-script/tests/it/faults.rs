//! Each fault as it looks on the wire.

use fanout_script::{Block, Fault, LineEnd, RefusedAddress, RetryAfter, Rule, Script, ServerOptions, Turn};
use serde_json::json;

use crate::wire::{Answer, Desk, content_of, request, results, send, user};

fn call() -> Turn {
    Turn::new([Block::text("I look."), Block::tool_use("look", r#"{"place":"here"}"#).with_id("a")])
}

fn desk(turn: Turn) -> Desk {
    Desk::open(ServerOptions::script(Script::new([turn])))
}

async fn once(fault: Fault, stream: bool) -> Answer {
    desk(call().fault(fault)).ask(&format!("[{}]", user("go")), stream).await
}

#[tokio::test]
async fn a_status_has_the_type_that_the_api_gives_it() {
    for (status, kind) in [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "api_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ] {
        let answer = once(Fault::status(status), true).await;
        assert_eq!((answer.status, answer.json()["error"]["type"].as_str()), (status, Some(kind)));
        assert_eq!(answer.header("retry-after"), None);
        assert_eq!(answer.json()["request_id"], answer.header("request-id").unwrap());
    }
}

#[tokio::test]
async fn retry_after_is_a_number_or_a_date() {
    assert_eq!(once(Fault::rate_limited(60), true).await.header("retry-after"), Some("60"));
    let date = Fault::Status { status: 429, message: None, retry_after: Some(RetryAfter::Date(60)), html: None };
    let answer = once(date, true).await;
    assert!(answer.header("retry-after").is_some_and(|date| date.ends_with(" GMT")));
}

#[tokio::test]
async fn a_proxys_page_is_no_json() {
    let answer = once(Fault::html(502), false).await;
    assert_eq!((answer.status, answer.header("content-type")), (502, Some("text/html")));
    assert!(answer.text().starts_with("<html>"));
}

#[tokio::test]
async fn faults_are_taken_in_order_one_per_attempt_and_conversation() {
    let desk = desk(call().fault(Fault::overloaded()).fault(Fault::None).fault(Fault::status(500)));
    for (prompt, status) in [("go", 529), ("other", 529), ("go", 200), ("go", 500), ("go", 200), ("other", 200)] {
        assert_eq!(desk.ask(&format!("[{}]", user(prompt)), true).await.status, status, "{prompt}");
    }
    assert_eq!(desk.server.violations(), []);
}

#[tokio::test]
async fn a_scripted_400_must_not_be_asked_for_again() {
    let desk = desk(call().always(Fault::status(400)));
    for _ in 0..2 {
        assert_eq!(desk.ask(&format!("[{}]", user("go")), true).await.status, 400);
    }
    let violations = desk.server.violations();
    assert_eq!((violations.len(), violations[0].rule, violations[0].request), (1, Rule::RepeatedRefusal, 1));
}

#[tokio::test]
async fn a_reset_leaves_no_byte() {
    let desk = desk(call().fault(Fault::Reset));
    let ask = request(&format!("[{}]", user("go")), true);
    let error = desk.try_post(&ask).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(desk.post(&ask).await.status, 200);
}

#[tokio::test]
async fn a_refused_address_refuses() {
    let address = RefusedAddress::take().unwrap();
    let error = send(&address.base_url().unwrap(), "POST", "/v1/messages", &[], b"").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn an_error_event_ends_the_stream_after_http_200() {
    let answer = once(Fault::error_event(3), true).await;
    assert_eq!((answer.status, answer.broken), (200, false));
    assert_eq!(answer.event_names(), ["message_start", "ping", "content_block_start", "error"]);
    assert_eq!(answer.events()[3].1["error"]["type"], "overloaded_error");
    let whole = once(Fault::error_event(3), false).await;
    assert_eq!((whole.status, whole.json()["error"]["type"].as_str()), (529, Some("overloaded_error")));
}

#[tokio::test]
async fn a_cut_stream_ends_at_its_byte_or_event() {
    let answer = once(Fault::CutAfterBytes { bytes: 20 }, true).await;
    assert_eq!((answer.status, answer.broken, answer.text().as_str()), (200, true, "event: message_start"));
    let answer = once(Fault::CutAfterEvents { events: 2 }, true).await;
    assert!(answer.broken);
    assert_eq!(answer.event_names(), ["message_start", "ping"]);
    let answer = once(Fault::EndAfterEvents { events: 2 }, true).await;
    assert!(!answer.broken);
    assert_eq!(answer.event_names(), ["message_start", "ping"]);
    let answer = once(Fault::CutAfterBytes { bytes: 5 }, false).await;
    assert_eq!((answer.broken, answer.body.len()), (true, 5));
    for (fault, broken) in [(Fault::CutAfterEvents { events: 2 }, true), (Fault::EndAfterEvents { events: 2 }, false)] {
        let answer = once(fault, false).await;
        assert_eq!(answer.broken, broken);
        assert!(serde_json::from_str::<serde_json::Value>(&answer.text()).is_err());
    }
}

fn reason(answer: &Answer) -> serde_json::Value {
    let events = answer.events();
    events.iter().find(|(name, _)| name == "message_delta").expect("a message_delta").1["delta"]["stop_reason"].clone()
}

fn input(answer: &Answer) -> String {
    let deltas = answer.events().into_iter().filter(|(_, data)| data["delta"]["type"] == "input_json_delta");
    deltas.map(|(_, data)| data["delta"]["partial_json"].as_str().expect("a text").to_owned()).collect()
}

#[tokio::test]
async fn a_cut_off_call_has_half_an_input_and_its_stop_reason() {
    for (fault, stop) in
        [(Fault::cut_off(8), "max_tokens"), (Fault::context_window(8), "model_context_window_exceeded")]
    {
        let answer = once(fault, true).await;
        assert_eq!((reason(&answer), input(&answer).as_str()), (json!(stop), r#"{"place""#));
    }
}

#[tokio::test]
async fn a_cut_off_call_may_be_given_back_with_an_error_or_left_out() {
    for (keep, last) in [(true, results(&["a", "b"])), (false, results(&["a"]))] {
        let turn = Turn::new([
            Block::tool_use("look", "{}").with_id("a"),
            Block::tool_use("look", r#"{"place":"here"}"#).with_id("b"),
        ]);
        let desk = desk(turn.fault(Fault::cut_off(8)));
        let said = content_of(&desk.ask(&format!("[{}]", user("go")), false).await.text());
        let mut blocks: Vec<serde_json::Value> = serde_json::from_str(&said).unwrap();
        assert_eq!(blocks.len(), 2);
        let said = if keep { said } else { format!("[{}]", blocks_text(&said, blocks.remove(0).to_string().len())) };
        let messages = format!(r#"[{},{{"role":"assistant","content":{said}}},{last}]"#, user("go"));
        let answer = desk.ask(&messages, false).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// The first block's text: all blocks here are of one length in any spelling.
fn blocks_text(content: &str, length: usize) -> String {
    content[1..=length].to_owned()
}

#[tokio::test]
async fn a_refusal_comes_after_whole_blocks() {
    let turn = Turn::new([Block::tool_use("look", "{}"), Block::tool_use("look", "{}")]);
    let answer = desk(turn.fault(Fault::Refusal { after_blocks: 1 })).ask(&format!("[{}]", user("go")), true).await;
    assert_eq!(reason(&answer), "refusal");
    assert_eq!(answer.event_names().iter().filter(|name| *name == "content_block_stop").count(), 1);
}

#[tokio::test]
async fn unknown_stop_reasons_events_and_fields_are_said() {
    let answer = desk(call().stop("reason_of_tomorrow")).ask(&format!("[{}]", user("go")), true).await;
    assert_eq!(reason(&answer), "reason_of_tomorrow");
    let names = once(Fault::UnknownEvents, true).await.event_names();
    assert_eq!(names[..4], ["event_of_tomorrow", "message_start", "event_of_tomorrow", "ping"]);
    let answer = once(Fault::UnknownFields, true).await;
    assert!(answer.text().matches("field_of_tomorrow").count() > 5);
    let answer = once(Fault::UnknownFields, false).await;
    assert_eq!(answer.json()["field_of_tomorrow"], json!({"a": [1.0, null]}));
}

#[tokio::test]
async fn slow_bytes_come_one_at_a_time() {
    let answer = once(Fault::Slow { bytes: 1, delay_ms: 0 }, true).await;
    assert!(answer.chunks.iter().all(|size| *size == 1));
    assert_eq!(answer.chunks.len(), answer.body.len());
    assert_eq!(answer.event_names().last().map(String::as_str), Some("message_stop"));
}

#[tokio::test]
async fn a_long_pause_is_filled_with_pings() {
    let names = once(Fault::Pause { after_events: 3, pause_ms: 10, ping_ms: 3 }, true).await.event_names();
    let expected = ["message_start", "ping", "content_block_start", "ping", "ping", "ping", "content_block_delta"];
    assert_eq!(names[..7], expected);
}

#[tokio::test]
async fn line_ends_and_a_byte_order_mark_change_no_event() {
    let plain = once(Fault::None, true).await.text();
    for (end, line_end) in [(LineEnd::Cr, "\r"), (LineEnd::Crlf, "\r\n")] {
        let mark = Fault::Together { faults: vec![Fault::ByteOrderMark, Fault::LineEnds { end }] };
        let text = once(mark, true).await.text();
        let text = text.strip_prefix('\u{feff}').expect("a byte order mark");
        assert_eq!(text.replace(line_end, "\n"), plain);
    }
}

#[tokio::test]
async fn input_that_is_no_json_streams_as_it_is() {
    let turn = Turn::new([Block::tool_use("look", r#"{"place": here"#).with_id("a")]);
    let desk = desk(turn);
    let answer = desk.ask(&format!("[{}]", user("go")), true).await;
    assert_eq!(input(&answer), r#"{"place": here"#);
    assert_eq!(reason(&answer), "tool_use");
    let said =
        r#"{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"look","input":{"INVALID_JSON":"x"}}]}"#;
    let answer = desk.ask(&format!("[{},{said},{}]", user("go"), results(&["a"])), false).await;
    assert_eq!(answer.status, 200, "any object may go back in its place: {}", answer.text());
}

#[tokio::test]
async fn two_calls_may_have_one_id_and_a_message_no_content() {
    let twin = || Block::tool_use("look", "{}").with_id("same");
    let desk_twins = desk(Turn::new([twin(), twin()]));
    let said = content_of(&desk_twins.ask(&format!("[{}]", user("go")), false).await.text());
    for ids in [vec!["same", "same"], vec!["same"]] {
        let messages = format!(r#"[{},{{"role":"assistant","content":{said}}},{}]"#, user("go"), results(&ids));
        assert_eq!(desk_twins.ask(&messages, false).await.status, 200);
    }
    let empty = desk(Turn::default()).ask(&format!("[{}]", user("go")), true).await;
    assert_eq!(empty.event_names(), ["message_start", "ping", "message_delta", "message_stop"]);
}
