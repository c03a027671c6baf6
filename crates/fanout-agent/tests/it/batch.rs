//! What becomes of the calls of one response.

use fanout_script::{Block, Turn};
use serde_json::json;

use crate::stage::{Stage, call, calls, end_of, told};

#[tokio::test]
async fn one_batch_with_every_kind_of_failure_gives_five_outcomes_in_order() {
    for stream in [true, false] {
        let turn = Turn::new([
            call("hang", "h1"),
            call("nobody", "n1"),
            Block::tool_use("write", r#"{"id":5}"#).with_id("b1"),
            call("panic", "p1"),
            call("fail", "f1"),
        ]);
        let stage = Stage::open([turn, Turn::text("ok")]).streaming(stream);
        let report = stage.run().await;
        let outcomes = "!h1 outcome_unknown, !n1 unknown_tool, !b1 invalid_input, !p1 internal, !f1 upstream";
        let calls = "hang h1, nobody n1, write b1, panic p1, fail f1";
        assert_eq!(told(&report.conversation), format!("u: text | a: {calls} | u: {outcomes} | a: text"));
        assert_eq!(end_of(&report), "done");
    }
}

#[tokio::test]
async fn an_input_that_is_no_json_is_shown_back_to_the_model() {
    for (input, shown) in [(r#"{"id":"#, r#"{"id":"#), ("[1]", "[1]"), ("not json", "not json")] {
        let turn = Turn::new([Block::tool_use("write", input).with_id("w1"), call("read", "r1")]);
        let stage = Stage::open([turn, Turn::text("ok")]);
        let report = stage.run().await;
        assert_eq!(told(&report.conversation), "u: text | a: write w1, read r1 | u: !w1 INVALID_JSON, =r1 | a: text");
        let content = stage.asked()[1]["messages"][2]["content"][0]["content"].clone();
        assert_eq!(content, json!({"INVALID_JSON": shown}).to_string());
        assert_eq!(stage.log.work(), ["read r1"]);
    }
}

#[tokio::test]
async fn an_absent_input_is_an_empty_object() {
    let turn = Turn::new([Block::tool_use("read", "").with_id("r1")]);
    let stage = Stage::open([turn, Turn::text("ok")]);
    assert_eq!(told(&stage.run().await.conversation), "u: text | a: read r1 | u: !r1 invalid_input | a: text");
}

/// Nine turns of these calls, each with fresh ids.
async fn repeats(turn: impl Fn(usize) -> Turn) -> (String, u32) {
    let stage = Stage::open((0..9).map(turn).chain([Turn::text("ok")]));
    let report = stage.run().await;
    (end_of(&report), report.turns)
}

fn with_input(tool: &str, id: usize, input: &str) -> Turn {
    Turn::new([Block::tool_use(tool, input).with_id(format!("c{id}"))])
}

#[tokio::test]
async fn a_plan_that_is_wrong_in_the_same_way_ends_the_run_and_one_that_runs_does_not() {
    let planned = async |tool: &str| {
        let plan = format!(r#"{{"calls":[{{"label":"a","tool":"{tool}","input":{{"id":"x"}}}}]}}"#);
        let turns = (0..9).map(|turn| with_input("plan", turn, &plan)).chain([Turn::text("ok")]);
        let report = Stage::open(turns).planning().run().await;
        (end_of(&report), report.turns)
    };
    let (end, turns) = planned("nobody").await;
    assert!(end.starts_with("failed: repeated_error") && turns == 5, "{end} after {turns}");
    let (end, turns) = planned("fail").await;
    assert!(end.starts_with("failed: repeated_error") && turns == 5, "{end} after {turns}");
    assert_eq!(planned("read").await, ("done".to_owned(), 10));
}

#[tokio::test]
async fn five_equal_calls_with_equal_errors_end_the_run() {
    for (tool, input) in [
        ("fail", r#"{"id":"x"}"#),
        ("grumble", r#"{"id":"x"}"#),
        ("nobody", r#"{"id":"x"}"#),
        ("read", r#"{"id":7}"#),
        ("read", r#"{"id":"#),
    ] {
        let (end, turns) = repeats(|turn| with_input(tool, turn, input)).await;
        assert!(end.starts_with("failed: repeated_error"), "{tool} {input}: {end}");
        assert_eq!(turns, 5, "{tool} {input}");
    }
    let respelled = |turn: usize| with_input("fail", turn, [r#"{"id":"x"}"#, r#"{ "id" : "\u0078" }"#][turn % 2]);
    assert!(repeats(respelled).await.0.starts_with("failed: repeated_error"), "spelling is no difference");
}

#[tokio::test]
async fn different_calls_do_not_end_the_run_however_often_they_fail() {
    assert_eq!(repeats(|turn| with_input("fail", turn, &format!(r#"{{"id":"{turn}"}}"#))).await.0, "done");
    let in_turns = |turn: usize| with_input(["fail", "read"][turn % 2], turn, r#"{"id":"x"}"#);
    assert_eq!(repeats(in_turns).await.0, "done");
    let two = |turn: usize| {
        with_input("fail", turn, r#"{"id":"x"}"#)
            .block(Block::tool_use("fail", r#"{"id":"y"}"#).with_id(format!("d{turn}")))
    };
    assert_eq!(repeats(two).await.0, "done");
    assert_eq!(repeats(|turn| with_input("read", turn, r#"{"id":"x"}"#)).await.0, "done");
}

#[tokio::test]
async fn calls_past_the_batchs_bound_are_answered_and_the_run_goes_on() {
    for early in [true, false] {
        let stage = Stage::open([calls("read r1, read r2, read r3, write w1"), Turn::text("ok")]);
        let stage = stage.with(|options| (options.limits.batch_max, options.early_start) = (2, early));
        let report = stage.run().await;
        assert_eq!(end_of(&report), "done");
        let answers = "=r1, =r2, !r3 budget, !w1 budget";
        let said = "read r1, read r2, read r3, write w1";
        assert_eq!(told(&report.conversation), format!("u: text | a: {said} | u: {answers} | a: text"));
        assert_eq!(stage.log.all_work(), ["read r1", "read r2"]);
    }
}
