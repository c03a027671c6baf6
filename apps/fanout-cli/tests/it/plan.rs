//! The page about plans is true: each example is run, and answered as it says.

use serde_json::{Value, json};

use crate::binary::Desk;

const PAGE: &str = include_str!("../../../../docs/plan.md");

/// The fenced blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    PAGE.split(&fence).skip(1).map(|block| block.split("```").next().unwrap()).collect()
}

/// A folder with the configuration and the shop's file.
fn shop() -> Desk {
    let desk = Desk::with(blocks("toml")[0]);
    rusqlite::Connection::open(desk.folder().join("shop.db")).unwrap().execute_batch(blocks("sql")[0]).unwrap();
    desk
}

fn asked(plan: &Value) -> String {
    json!([{"type": "tool_use", "id": "p", "name": "plan", "input": plan}]).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_answered_as_the_page_says() {
    let examples = blocks("json");
    assert!(examples.len() >= 8 && examples.len().is_multiple_of(2));
    for example in examples.chunks(2) {
        let [plan, answer] = [0, 1].map(|at| serde_json::from_str::<Value>(example[at]).unwrap());
        let came = shop().run(&["call"], &asked(&plan)).await.code(0);
        let results = came.results();
        assert_eq!(results.len(), 1);
        let text: Value = serde_json::from_str(&results[0].2).unwrap();
        assert_eq!(text, answer, "{}\n{}", example[0], results[0].2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_a_plan_are_counted_at_the_end() {
    let plan: Value = serde_json::from_str(blocks("json")[0]).unwrap();
    let out = shop().run(&["--json", "call"], &asked(&plan)).await.code(0).out;
    let end: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((&end["type"], &end["calls"]), (&"run_ended".into(), &2.into()), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_drawn_call_by_call() {
    let plan: Value = serde_json::from_str(blocks("json")[2]).unwrap();
    let text = shop().run(&["explain"], &asked(&plan)).await.code(0).out;
    for line in [
        "wave 1\n  get_lines (p/lines)\n",
        "wave 2\n  take_stock (p/take), once for each element\n",
        "    waits for p/lines: reference\n",
        "wave 3\n  close_order (p/close)\n",
        "    waits for p/take: order\n",
        "3 calls in 3 waves; critical path: p/lines → p/take → p/close\n",
    ] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
    let drawn = shop().run(&["explain", "--format", "mermaid"], &asked(&plan)).await.code(0).out;
    assert!(drawn.contains("  c1[\"take_stock × ?<br/>p/take\"]\n"), "{drawn}");
    assert!(drawn.contains("  c0 -->|\"reference\"| c1\n"), "{drawn}");
    let malformed: Value = serde_json::from_str(blocks("json")[6]).unwrap();
    let text = shop().run(&["explain"], &asked(&malformed)).await.code(0).out;
    assert!(text.contains("  plan (p)\n    will not run: ") && text.contains("get_ordr"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_plan_in_the_configuration_there_is_none() {
    let text = format!("{}\n[run]\nplan = false\n", blocks("toml")[0]);
    let desk = Desk::with(&text);
    rusqlite::Connection::open(desk.folder().join("shop.db")).unwrap().execute_batch(blocks("sql")[0]).unwrap();
    let came = desk.run(&["call"], &asked(&json!({"calls": []}))).await.code(0);
    assert_eq!(crate::binary::code_of(&came.results()[0].2), "unknown_tool");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_writes_is_no_line_of_the_picture() {
    let forged = "x\nwave 9";
    let call = serde_json::json!([{"type": "tool_use", "id": forged, "name": forged, "input": {}}]).to_string();
    let text = shop().run(&["explain"], &call).await.code(0).out;
    assert!(text.starts_with("wave 1\n") && !text.contains("\nwave 9"), "{text}");
}
