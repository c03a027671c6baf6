//! Every way in which a response can stop.

use fanout_script::{Block, Fault, Turn};

use crate::stage::{Stage, call, calls, end_of, told};

/// Runs these turns, streamed and not. `work` is what tools that write did.
async fn check(turns: &[Turn], end: &str, conversation: &str, work: &[&str]) {
    for stream in [true, false] {
        let stage = Stage::open(turns.to_vec()).streaming(stream);
        let report = stage.run().await;
        let context = format!("stream: {stream}, log: {:?}", stage.log.lines());
        assert!(end_of(&report).starts_with(end), "{} is not {end}; {context}", end_of(&report));
        assert_eq!(told(&report.conversation), conversation, "{context}");
        let done: Vec<String> = stage.log.work().into_iter().filter(|work| work.starts_with("write")).collect();
        assert_eq!(done, work, "{context}");
    }
}

fn text() -> Turn {
    Turn::text("ok")
}

fn mixed() -> Turn {
    Turn::new([Block::text("I try."), call("read", "r1"), call("write", "w1")])
}

#[tokio::test]
async fn an_answer_ends_the_run() {
    check(&[text()], "done", "u: text | a: text", &[]).await;
    check(&[text().stop("stop_sequence")], "done", "u: text | a: text", &[]).await;
    check(&[Turn::new([])], "done", "u: text", &[]).await;
    check(&[calls("read r1"), Turn::new([])], "done", "u: text | a: read r1 | u: =r1", &[]).await;
}

#[tokio::test]
async fn calls_run_only_if_the_response_asks_for_its_tools() {
    let answered = "u: text | a: text, read r1, write w1 | u: !r1 cancelled, !w1 cancelled | a: text";
    for reason in ["end_turn", "stop_sequence", "reason_of_tomorrow", "pause_turn"] {
        check(&[mixed().stop(reason), text()], "done", answered, &[]).await;
    }
    let ran = "u: text | a: text, read r1, write w1 | u: =r1, =w1 | a: text";
    check(&[mixed().stop("tool_use"), text()], "done", ran, &["write w1"]).await;
}

#[tokio::test]
async fn nothing_is_taken_from_a_response_that_stopped_for_an_unknown_reason() {
    let turn = Turn::new([Block::tool_use("read", r#"{"id":"#).with_id("r1")]).stop("reason_of_tomorrow");
    let conversation = "u: text | a: read r1 | u: !r1 cancelled | a: text";
    let stage = Stage::open([turn, text()]);
    assert_eq!(told(&stage.run().await.conversation), conversation);
    let turn = Turn::new([Block::text("so"), Block::thinking("hm", "sig")]).stop("reason_of_tomorrow");
    check(&[turn], "done", "u: text | a: text, thinking", &[]).await;
}

#[tokio::test]
async fn a_request_for_tools_without_calls_is_malformed() {
    check(&[text().stop("tool_use")], "failed: malformed_response", "u: text | a: text", &[]).await;
    check(&[Turn::new([]).stop("tool_use")], "failed: malformed_response", "u: text", &[]).await;
    check(&[Turn::new([]).stop("pause_turn")], "failed: malformed_response", "u: text", &[]).await;
}

#[tokio::test]
async fn a_paused_turn_goes_on_with_its_content_unchanged() {
    let paused = || {
        Turn::new([Block::text("so"), Block::server_tool_use("srvtoolu_1", "web_search", r#"{"q":1.0}"#)])
            .stop("pause_turn")
    };
    let conversation = "u: text | a: text, server srvtoolu_1 | a: text";
    check(&[paused(), text()], "done", conversation, &[]).await;
    let stage = Stage::open(vec![paused(); 9]).with(|options| options.limits.turns_max = 4);
    let report = stage.run().await;
    assert!(end_of(&report).starts_with("budget: "), "{}", end_of(&report));
    assert_eq!((report.turns, stage.asked().len()), (4, 4));
}

#[tokio::test]
async fn a_refusal_voids_all_that_was_said() {
    for after_blocks in 0..=3 {
        let turn = mixed().fault(Fault::Refusal { after_blocks });
        check(&[turn], "refused", "u: text", &[]).await;
    }
}

#[tokio::test]
async fn a_cut_off_answer_is_asked_for_once_more_with_twice_the_tokens() {
    let whole = "u: text | a: text, read r1, write w1 | u: =r1, =w1 | a: text";
    for keep in [0, 5] {
        check(&[mixed().fault(Fault::cut_off(keep)), text()], "done", whole, &["write w1"]).await;
    }
    let stage = Stage::open([mixed().fault(Fault::cut_off(5)), text()]);
    stage.run().await;
    let tokens: Vec<u64> = stage.asked().iter().map(|body| body["max_tokens"].as_u64().unwrap()).collect();
    assert_eq!(tokens, [1_000, 2_000, 1_000]);
}

#[tokio::test]
async fn the_wider_request_stays_wide_when_it_is_tried_again() {
    let turn = mixed().fault(Fault::cut_off(5)).fault(Fault::overloaded());
    let stage = Stage::open([turn, text()]);
    assert_eq!(end_of(&stage.run().await), "done");
    let tokens: Vec<u64> = stage.asked().iter().map(|body| body["max_tokens"].as_u64().unwrap()).collect();
    assert_eq!(tokens, [1_000, 2_000, 2_000, 1_000]);
}

#[tokio::test]
async fn an_answer_cut_off_twice_keeps_its_whole_blocks_and_answers_their_calls_with_errors() {
    // Only a stream shows that an input is not all there; a whole answer has `{}` in its place.
    let lost = ("u: text | a: text, read r1 | u: !r1 cancelled", true, 5);
    let empty = "u: text | a: text, read r1, write w1 | u: !r1 cancelled, !w1 cancelled";
    for (conversation, stream, keep) in [lost, (empty, true, 0), (empty, false, 0), (empty, false, 5)] {
        let stage = Stage::open([mixed().always(Fault::cut_off(keep)), text()]).streaming(stream);
        let report = stage.run().await;
        assert_eq!(told(&report.conversation), format!("{conversation} | a: text"));
        assert_eq!((end_of(&report).as_str(), report.turns, stage.log.work()), ("done", 3, vec![]));

        let stage = Stage::open([mixed().fault(Fault::context_window(keep)), text()]).streaming(stream);
        let report = stage.run().await;
        assert_eq!(
            (end_of(&report).as_str(), told(&report.conversation).as_str()),
            ("failed: context_window", conversation)
        );
    }
    let stage = Stage::open([calls("write w1").always(Fault::cut_off(5))]);
    let report = stage.run().await;
    assert_eq!((end_of(&report).as_str(), told(&report.conversation).as_str()), ("failed: max_tokens", "u: text"));
}

#[tokio::test]
async fn a_thought_goes_back_only_with_its_signature() {
    for (signature, conversation) in [("sig", "u: text | a: text, thinking"), ("", "u: text | a: text")] {
        let turn = Turn::new([Block::text("so"), Block::thinking("hm", signature)]).stop("max_tokens");
        let agent = Stage::open([turn]);
        let report = agent.agent().run(fanout_agent::Conversation::from_prompt("go"), agent.settings()).await;
        assert_eq!(
            (end_of(&report).as_str(), told(&report.conversation).as_str()),
            ("failed: max_tokens", conversation)
        );
    }
}

#[tokio::test]
async fn a_wider_request_that_is_refused_falls_back_to_the_cut_answer() {
    let refused = Fault::Status {
        status: 400,
        message: Some("max_tokens: 2000 > 1000".to_owned()),
        retry_after: None,
        html: None,
    };
    let turn = mixed().fault(Fault::cut_off(5)).fault(refused);
    let report = Stage::open([turn, text()]).run().await;
    assert_eq!(told(&report.conversation), "u: text | a: text, read r1 | u: !r1 cancelled | a: text");
    assert_eq!(end_of(&report), "done");
}

#[tokio::test]
async fn text_that_is_cut_off_twice_is_kept_and_is_no_success() {
    let long = || Turn::text("a long story");
    check(&[long().always(Fault::cut_off(6))], "failed: max_tokens", "u: text | a: text", &[]).await;
    check(&[long().fault(Fault::cut_off(6))], "done", "u: text | a: text", &[]).await;
    let stage = Stage::open([long().always(Fault::cut_off(6))]);
    assert_eq!(stage.run().await.answer, "a long");
}

#[tokio::test]
async fn a_full_context_window_fails_the_run_and_leaves_a_valid_history() {
    let whole = Turn::text("so").stop("model_context_window_exceeded");
    check(&[whole], "failed: context_window", "u: text | a: text", &[]).await;
}

#[tokio::test]
async fn an_id_that_is_there_twice_is_malformed_whatever_the_response_stopped_for() {
    for reason in ["tool_use", "end_turn", "model_context_window_exceeded"] {
        let turn = Turn::new([call("write", "w1"), call("read", "r1"), call("write", "w1")]).stop(reason);
        check(&[turn], "failed: malformed_response", "u: text", &[]).await;
    }
}

#[tokio::test]
async fn every_call_that_is_answered_is_recorded_though_it_never_ran() {
    for (turn, end) in [(mixed().stop("end_turn"), 2), (mixed().always(Fault::cut_off(5)), 3)] {
        let stage = Stage::open([turn, text()]).with(|options| options.early_start = false);
        let report = stage.run().await;
        assert_eq!((end_of(&report).as_str(), report.turns), ("done", end));
        assert!(stage.log.at("call r1") < stage.log.at("r1 cancelled"), "{:?}", stage.log.lines());
        assert!(stage.log.has(&format!("end {}", end - 1)), "{:?}", stage.log.lines());
    }
}
