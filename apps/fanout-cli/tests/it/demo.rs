//! `fanout demo`.

use serde_json::Value;

use crate::binary::Desk;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_needs_nothing_and_shows_everything() {
    // Variables that are set for real work must not change it; nor must a configuration.
    let desk =
        Desk::with("[[[ not TOML").set("ANTHROPIC_BASE_URL", "http://127.0.0.1:1").set("FANOUT_RUN__MAX_TURNS", "1");
    let came = desk.run(&["demo"], "").await.code(0);
    assert!(came.out.starts_with("Order #123 is processed."), "{}", came.out);
    assert!(came.out.contains("(10 left, then 9 left)"), "the two writes to one shelf kept their order: {}", came.out);
    assert!(came.out.contains("pigeon carries at most"), "the failing call is told: {}", came.out);
    assert!(!came.out.contains('\u{1b}') && !came.err.contains('\u{1b}'), "no colours but on a terminal");
    for drawn in ["░░", "██", "waited", "reserve_stock (inventory/desk-lamp)", "upstream"] {
        assert!(came.err.contains(drawn), "the waterfall shows `{drawn}`:\n{}", came.err);
    }
    let took = came.said("took ");
    for figure in ["one by one", "critical path", "saved", "%"] {
        assert!(took.contains(figure), "{took}");
    }
    assert_eq!(came.err.lines().last(), Some("  [[tool]] `add_note`: writes = [\"note/{order_id}\"]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_as_json_lines_holds_together() {
    let came = Desk::new().set("NO_COLOR", "1").run(&["demo", "--json"], "").await.code(0);
    assert_eq!(came.err, "", "standard error is silent");
    let lines = came.lines();
    assert_eq!(lines[0]["type"], "run_started");
    let run = &lines[0]["run"];
    assert!(lines.iter().all(|line| line["run"] == *run && line["type"].is_string()));
    let events: Vec<&Value> = lines.iter().filter(|line| line["at_ms"].is_number()).collect();
    assert!(events.is_sorted_by_key(|line| line["at_ms"].as_f64().unwrap()), "events come as they happened");
    let of = |kind: &str| events.iter().filter(|line| line["type"] == kind).count();
    assert_eq!((of("call_arrived"), of("call_started"), of("call_ended"), of("model_ended")), (10, 10, 10, 3));
    assert_eq!(events.iter().filter(|line| line["outcome"] == "upstream").count(), 1);
    let answer = &lines[lines.len() - 2];
    assert_eq!(answer["type"], "answer");
    assert!(answer["text"].as_str().unwrap().starts_with("Order #123 is processed."));
    let end = lines.last().unwrap();
    assert_eq!((end["type"].as_str(), end["status"].as_str()), (Some("run_ended"), Some("done")));
    assert_eq!((end["turns"].as_u64(), end["calls"].as_u64()), (Some(3), Some(10)));
    assert!(end["usage"]["input_tokens"].as_u64() > Some(0) && end["usage"]["output_tokens"].as_u64() > Some(0));
    assert!(end["cost_usd"].as_f64() > Some(0.0));
    let figure = |name: &str| end[name].as_f64().unwrap();
    let (elapsed, one_by_one, path) = (figure("elapsed_ms"), figure("one_by_one_ms"), figure("critical_path_ms"));
    assert!(one_by_one >= path, "{end}");
    assert!(elapsed >= path - 1.0, "no schedule beats the critical path: {end}");
    assert!(one_by_one >= elapsed, "these calls overlap: {end}");
}
