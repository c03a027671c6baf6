//! Limit groups, retries and breakers, as people and the model meet them.

use fanout_script::{Script, Server, ServerOptions, Turn};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::api::Api;
use crate::binary::{Came, Desk, code_of, content, results};
use crate::process::Served;

/// A tool of this path in the group `payments`, of which these lines are known.
fn limited(api: &Api, path: &str, lines: &str) -> Desk {
    let tool = api.tool("pay", "GET", path, "limit = \"payments\"\nreads = [\"payment/{id}\"]\nwrites = []");
    Desk::with(&format!("[limits.payments]\n{lines}\n\n{tool}"))
}

/// Calls of `pay`, one for each id.
fn pays(ids: &[&str]) -> String {
    let calls: Vec<_> = ids.iter().map(|id| (*id, "pay", r#"{"id":"1"}"#)).collect();
    content(&calls)
}

/// The lines of this type.
fn of(came: &Came, kind: &str) -> Vec<Value> {
    came.lines().into_iter().filter(|line| line["type"] == kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_the_far_side_asks_for_is_kept_and_told() {
    let api = Api::open().await;
    let desk = limited(&api, "busy/{id}", "concurrency = 1");
    let came = desk.run(&["call", "--json"], &pays(&["a"])).await.code(0);
    assert_eq!(api.all(), 2);
    let [backoff] = &of(&came, "call_backoff")[..] else { panic!("{}", came.out) };
    assert_eq!((&backoff["call"], &backoff["attempts"]), (&json!("a"), &json!(1)));
    assert!(backoff["wait_ms"].as_f64().unwrap() >= 1_000.0, "never shorter than what was asked for: {backoff}");
    let [paused] = &of(&came, "limit_paused")[..] else { panic!("{}", came.out) };
    assert_eq!((&paused["group"], &paused["wait_ms"]), (&json!("payments"), &json!(1_000.0)));
    let ended = &of(&came, "call_ended")[0];
    assert_eq!((&ended["outcome"], &ended["attempts"]), (&json!("ok"), &json!(2)));
    let end = &of(&came, "run_ended")[0];
    assert!(end["one_by_one_ms"].as_f64().unwrap() >= 1_000.0, "backoff is the call's own time: {end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_says_in_words_who_waits_for_what() {
    let api = Api::open().await;
    let came = limited(&api, "busy/{id}", "").run(&["call"], &pays(&["a"])).await.code(0);
    assert!(came.err.contains("  waits 1.00 s for payments: asked by the far side\n"), "{}", came.err);
    assert!(came.err.contains("  pay goes again in 1.") && came.err.contains(" s: attempt 1 failed\n"), "{}", came.err);
    let lines = "concurrency = 1\nretry = { attempts = 1 }\nbreaker = { min_calls = 2, cool_down = \"15s\" }";
    let came = limited(&api, "fail/{id}", lines).run(&["call"], &pays(&["a", "b", "c"])).await.code(0);
    assert!(came.err.contains("payments is failing: nothing is sent to it for 15.00 s\n"), "{}", came.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_fails_is_left_alone() {
    let api = Api::open().await;
    let lines = "concurrency = 1\nretry = { attempts = 1 }\nbreaker = { min_calls = 2, cool_down = \"1m\" }";
    let came = limited(&api, "fail/{id}", lines).run(&["call", "--json"], &pays(&["a", "b", "c", "d"])).await.code(0);
    assert_eq!(api.all(), 2);
    let [opened] = &of(&came, "breaker_opened")[..] else { panic!("{}", came.out) };
    assert_eq!((&opened["group"], &opened["wait_ms"]), (&json!("payments"), &json!(60_000.0)));
    let codes: Vec<Value> = of(&came, "call_ended").iter().map(|line| line["outcome"].clone()).collect();
    assert_eq!(codes, ["upstream", "upstream", "circuit_open", "circuit_open"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_section_that_no_tool_uses_is_warned_of_and_nothing_more() {
    let api = Api::open().await;
    let desk = Desk::with(&format!("[limits.paymants]\n{}", api.tool("pay", "GET", "ok/{id}", "")));
    let came = desk.run(&["check"], "").await.code(0);
    assert!(came.err.contains("fanout.toml:1:9: no tool uses [limits.paymants]; "), "{}", came.err);
}

/// A fenced block of the page for users, by its language and its place among those.
fn block(language: &str, at: usize) -> &'static str {
    let page = include_str!("../../../../docs/limits.md");
    let rest = page.split(&format!("```{language}\n")).nth(at + 1).unwrap();
    rest.split("```").next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_check_shows_on_the_page_is_what_it_shows() {
    let came = Desk::with(block("toml", 0)).run(&["check"], "").await.code(0);
    assert!(came.out.ends_with(&format!("\n\n{}", block("text", 0))), "{}", came.out);
    let all = [block("toml", 0), block("toml", 1)].concat();
    let came = Desk::with(&all).run(&["check"], "").await.code(0);
    assert!(came.out.contains("\nhttp/api.example.com\n  for get_user\n  10/s; 32 run at once;"), "{}", came.out);
    assert_eq!(came.err, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_model_reads_on_the_page_is_what_it_reads() {
    let api = Api::open().await;
    let page = block("toml", 0);
    let calls = content(&[("a", "get_payment", r#"{"id":"1"}"#), ("b", "get_payment", r#"{"id":"2"}"#)]);
    for (at, path, from, to) in [
        (0, "ok", [("50/s", "1/s"), ("= 10  ", "= 1  "), ("= 1000", "= 0")], ["a", "b"]),
        (
            1,
            "fail",
            [("= 8", "= 1"), ("attempts = 4", "attempts = 1"), ("min_calls = 10", "min_calls = 1")],
            ["a", "b"],
        ),
    ] {
        let url = api.url(path);
        let config = from.iter().fold(page.replace("https://pay.example.com", &url), |config, (old, new)| {
            assert!(config.contains(old), "{old}");
            config.replace(old, new)
        });
        let came = Desk::with(&config).run(&["call"], &calls).await.code(0);
        let [(first, ..), (second, is_error, text)] = &came.results()[..] else { panic!("{}", came.out) };
        assert_eq!([first, second], to);
        assert!(is_error);
        let (said, shown): (Value, Value) =
            (serde_json::from_str(text).unwrap(), serde_json::from_str(block("json", at)).unwrap());
        assert_eq!(said, shown);
    }
}

/// The most that the API held at once, and how many it saw, of 792 calls in one response.
fn check_storm(api: &Api, results: &[(String, bool, String)]) {
    assert_eq!(results.len(), 792);
    assert!(results[..256].iter().all(|(_, is_error, _)| !is_error), "{:?}", results[0]);
    for (_, is_error, text) in &results[256..] {
        assert!(is_error);
        assert_eq!(code_of(text), "budget");
        assert!(text.contains("only the first 256") && text.contains("`max_batch`"), "{text}");
        assert!(text.contains("ask for the others again, fewer at once"), "{text}");
    }
    assert_eq!((api.all(), api.most()), (256, 32));
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_hundred_and_ninety_two_calls_are_clear_errors_and_no_storm() {
    let api = Api::open().await;
    // None is answered before 32 are there: so many must run at once, and no more may.
    let desk = Desk::with(&api.tool("get", "GET", "together/32/{id}", ""));
    let ids: Vec<String> = (0..792).map(|n| format!("t{n}")).collect();
    let calls: Vec<_> = ids.iter().map(|id| (id.as_str(), "get", r#"{"id":"1"}"#)).collect();
    let came = desk.run(&["call"], &content(&calls)).await.code(0);
    check_storm(&api, &came.results());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_asks_for_seven_hundred_and_ninety_two_calls_at_once_is_told_and_goes_on() {
    let api = Api::open().await;
    let calls = Turn::calls((0..792).map(|n| ("get", json!({"id": n.to_string()}))));
    let server = Server::start(ServerOptions::script(Script::new([calls, Turn::text("done")]))).unwrap();
    let tool = api.tool("get", "GET", "together/32/{id}", "");
    let config = format!("[run]\nmax_calls = 1000\n{tool}");
    let desk = Desk::with(&config).set("ANTHROPIC_BASE_URL", server.base_url());
    assert_eq!(desk.run(&["run", "go"], "").await.code(0).out, "done\n");
    assert_eq!(server.violations(), []);
    let body: Value = serde_json::from_slice(&server.requests()[1].body).unwrap();
    check_storm(&api, &results(body["messages"].as_array().unwrap().last().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_calls_are_used_up_at_once_ends_as_a_budget() {
    let api = Api::open().await;
    let calls = Turn::calls((0..792).map(|n| ("get", json!({"id": n.to_string()}))));
    let server = Server::start(ServerOptions::script(Script::new([calls]))).unwrap();
    let desk = Desk::with(&api.tool("get", "GET", "together/32/{id}", ""));
    let came = desk.set("ANTHROPIC_BASE_URL", server.base_url()).run(&["run", "go"], "").await.code(3);
    assert_eq!(came.said("budget:"), "budget: the run has used its 500 calls (`max_calls`)");
    assert_eq!((api.all(), api.most(), server.requests().len()), (256, 32, 1));
}

#[test]
fn the_gateways_metrics_and_log_show_every_group() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let api = runtime.block_on(Api::open());
    let lines = "concurrency = 1\nretry = { attempts = 1 }\nbreaker = { min_calls = 2 }";
    let desk = limited(&api, "fail/{id}", lines);
    desk.write(
        "fanout.toml",
        &(std::fs::read_to_string(desk.folder().join("fanout.toml")).unwrap() + &api.tool("get", "GET", "ok/x", "")),
    );
    let served = Served::start(desk.folder(), &[("FANOUT_SERVER__LISTEN", "127.0.0.1:0")], &[]);
    let host = api.url("").trim_end_matches('/').replace("http://", "http/");
    let metrics = || served.send("GET", "/metrics", &[], "").1;
    let line = |name: &str, group: &str, value: u8| format!("\n{name}{{group=\"{group}\"}} {value}\n");
    assert!(metrics().contains(&line("fanout_breaker_open", "payments", 0)), "{}", metrics());
    let call = |id: &str, name: &str, input: &str| format!("{{\"content\":{}}}", content(&[(id, name, input)]));
    let post = |body: &str| served.send("POST", "/fanout/v1/tool_calls", &[], body);
    assert_eq!(post(&call("x", "get", "{}")).0, 200);
    let many = format!("{{\"content\":{}}}", pays(&["a", "b", "c"]));
    let (status, body) = post(&many);
    assert_eq!(status, 200);
    let message: Value = serde_json::from_str(&body).unwrap();
    let codes: Vec<String> = results(&message).iter().map(|(_, _, text)| code_of(text)).collect();
    assert_eq!(codes, ["upstream", "upstream", "circuit_open"]);
    let text = metrics();
    for line in [
        line("fanout_breaker_open", "payments", 1),
        line("fanout_breaker_open", &host, 0),
        line("fanout_limit_queue_depth", "payments", 0),
        line("fanout_limit_queue_depth", &host, 0),
        line("fanout_limit_queue_depth", "in_flight", 0),
    ] {
        assert!(text.contains(&line), "{line}{text}");
    }
    let logged = served.logged("breaker opened");
    assert!(logged.contains("payments") && logged.contains("WARN"), "{logged}");
    served.stop(Signal::TERM);
}
