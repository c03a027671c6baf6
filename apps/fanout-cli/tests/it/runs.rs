//! `fanout runs`: what is shown of the runs that the journal has.

use fanout_script::{Script, Server, ServerOptions, Turn, Usage};
use serde_json::{Value, json};

use crate::api::Api;
use crate::binary::Desk;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_shown_with_what_each_turn_took_and_what_each_call_waited_for() {
    let api = Api::open().await;
    let usage = Usage { input_tokens: 1_000, output_tokens: 500, cache_read_input_tokens: 70, ..Usage::default() };
    let calls = Turn::calls([("put", json!({"id": "a"})), ("put", json!({"id": "b"})), ("nothing_such", json!({}))]);
    let server = Server::start(ServerOptions::script(Script::new([
        calls.usage(usage),
        Turn::text("Both are put.").usage(usage),
    ])))
    .unwrap();
    let config = "[prices.\"m\"]\ninput = 1.0\noutput = 10.0\ncache_read = 0\ncache_write = 0\n[model]\nname = \"m\"\n";
    let desk = Desk::with(&(config.to_owned() + &api.tool("put", "PUT", "slow/{id}", "")))
        .set("ANTHROPIC_BASE_URL", server.base_url());
    desk.run(&["run", "Put both."], "").await.code(0);
    let out = desk.run(&["runs", "show", "run_"], "").await.code(0).out;
    let host = api.url("").trim_end_matches('/').replace("http://", "http/");
    let detail = |start: &str| out.lines().rfind(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{out}"));
    for turn in ["turn 1: ", "turn 2: "] {
        assert!(detail(turn).ends_with(", 1000 tokens in, 500 out, 70 read from the cache, $0.0060"), "{out}");
    }
    assert!(detail("  1 put: waited ").ends_with(&format!(" for put ({host})")), "{out}");
    assert!(
        !out.contains("  0 put") && !out.contains("  2 nothing_such"),
        "who waited for nothing is not named: {out}"
    );

    let lines = desk.run(&["runs", "show", "run_", "--json"], "").await.code(0).lines();
    let ended: Vec<&Value> = lines.iter().filter(|line| line["type"] == "model_ended").collect();
    assert_eq!((&ended[0]["usage"]["output_tokens"], &ended[0]["cost_usd"]), (&json!(500), &json!(0.006)));
    assert_eq!(lines.last().unwrap()["usage"]["input_tokens"], 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_run_without_calls_no_empty_picture_is_drawn() {
    let server = Server::start(ServerOptions::script(Script::new([Turn::text("Hello.")]))).unwrap();
    let desk = Desk::new().set("ANTHROPIC_BASE_URL", server.base_url());
    desk.run(&["run", "hi"], "").await.code(0);
    let out = desk.run(&["runs", "show", "run_"], "").await.code(0).out;
    assert!(out.contains("\nturn 1: ") && out.contains("\n1 turns, 0 calls, "), "{out}");
    assert!(!out.contains("critical path") && !out.contains("░"), "{out}");
}
