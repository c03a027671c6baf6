//! `fanout demo`.

use fanout_script::shop::{Latencies, Shop, ShopOptions, ShopState, planned, tools_toml};
use fanout_script::{Conversation, Server, ServerOptions, Turn};
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

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_does_in_two_turns_what_takes_five_and_both_are_drawn() {
    let came = Desk::with("[[[ not TOML").run(&["demo", "--plan"], "").await.code(0);
    let answers: Vec<&str> = came.out.lines().collect();
    assert_eq!(answers.len(), 2, "{}", came.out);
    assert_eq!(answers[0], answers[1], "both came to the same");
    assert!(answers[0].starts_with("Order #123 is processed: Ada Brook paid 98.08, rail carries it"), "{}", came.out);
    let drawn = |name: &str| came.err.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!((drawn("model  "), drawn("get_order  "), drawn("reserve_stock  ")), (5 + 2, 2, 4), "{}", came.err);
    assert_eq!((drawn("plan"), came.err.matches("critical path").count()), (0, 2), "{}", came.err);
    let row = |what: &str| came.said(what).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(row("model turns  ")[2..], ["5", "2", "60", "%"]);
    assert_eq!(row("calls  ")[1..], ["7", "7", "0", "%"]);
    for what in ["tokens, both ways", "bytes of the conversation at its end"] {
        let row = row(what);
        let [steps, plan, saved, "%"] = &row.iter().map(String::as_str).collect::<Vec<_>>()[row.len() - 4..] else {
            panic!("{row:?}")
        };
        let [steps, plan, saved] = [steps, plan, saved].map(|number| number.parse::<u64>().unwrap());
        assert_eq!(saved, (steps - plan) * 100 / steps, "{row:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_runs_as_json_lines_are_whole() {
    let came = Desk::new().run(&["demo", "--plan", "--json"], "").await.code(0);
    assert_eq!(came.err, "");
    let lines = came.lines();
    let ends: Vec<&Value> = lines.iter().filter(|line| line["type"] == "run_ended").collect();
    let [steps, plan] = ends[..] else { panic!("{ends:?}") };
    assert_ne!(steps["run"], plan["run"]);
    let turns = |end: &Value| (end["status"].clone(), end["turns"].as_u64(), end["calls"].as_u64());
    assert_eq!(turns(steps), ("done".into(), Some(5), Some(7)));
    assert_eq!(turns(plan), ("done".into(), Some(2), Some(7)));
    for end in [steps, plan] {
        assert!(end["elapsed_ms"].as_f64() >= end["critical_path_ms"].as_f64().map(|path| path - 1.0), "{end}");
    }
    let bundles = lines.iter().filter(|line| line["type"] == "bundle_arrived" && line["run"] == plan["run"]);
    assert_eq!(bundles.count(), 2, "the plan, and its `for_each`");
}

/// The shop's tables after `fanout run` with one of the demo's two models, and how often the model was asked.
async fn shop_after(turn: fn(&Conversation) -> Turn) -> (ShopState, usize) {
    let shop = Shop::start_with(ShopOptions { latencies: Latencies::none() }).unwrap();
    let claude = Server::start(ServerOptions::responder(turn)).unwrap();
    let desk = Desk::with(&tools_toml(&shop.base_url())).set("ANTHROPIC_BASE_URL", claude.base_url());
    desk.run(&["run", planned::PROMPT], "").await.code(0);
    assert!(claude.violations().is_empty(), "{:?}", claude.violations());
    (shop.state().unwrap(), claude.requests().len())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_leave_the_same_shop() {
    let untouched = Shop::start().unwrap().state().unwrap();
    let (steps, asked) = shop_after(planned::step).await;
    assert_eq!(asked, 5);
    let (plan, asked) = shop_after(planned::plan).await;
    assert_eq!(asked, 2);
    assert_eq!(steps, plan);
    assert_ne!(plan, untouched);
    assert_eq!(plan.tables["payments"], [["123", "1", "9808"]]);
    assert_eq!(plan.tables["inventory"][1][2], "9", "two, and a replacement: {:?}", plan.tables["inventory"]);
    assert_eq!(plan.tables["emails"][0][0], "ada@example.com");
}
