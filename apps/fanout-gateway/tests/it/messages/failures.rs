//! What goes wrong upstream, as the client sees it.

use std::time::Duration;

use fanout_script::{Fault, Server, ServerOptions, Usage};
use serde_json::{Value, json};

use super::scene::{Scene, request, told, turn, user};

/// A first turn that fails like this: status and body are the upstream's own, and nobody asks twice.
async fn check(fault: Fault, status: u16, header: Option<(&str, &str)>, text: &str) {
    for stream in [false, true] {
        let scene = Scene::open([turn("done").always(fault.clone())]);
        let got = scene.ask(&request(stream, &[user("go")])).await;
        assert_eq!(got.status, status, "{}", got.text);
        assert!(got.text.contains(text), "{}", got.text);
        if let Some((name, value)) = header {
            assert_eq!(got.headers[name], value);
        }
        assert!(got.headers.contains_key("request-id"));
        assert_eq!(scene.server.requests().len(), 1);
    }
}

#[tokio::test]
async fn errors_of_the_upstream_pass_as_they_are() {
    check(Fault::rate_limited(7), 429, Some(("retry-after", "7")), r#""type":"rate_limit_error""#).await;
    check(Fault::overloaded(), 529, None, "overloaded_error").await;
    check(Fault::status(500), 500, None, "api_error").await;
    check(Fault::html(502), 502, Some(("content-type", "text/html")), "<title>502</title>").await;
}

#[tokio::test]
async fn what_is_wrong_with_a_request_the_upstream_says() {
    for body in [r#"{"model":"claude-test"}"#, "{}", r#"{"model":1,"max_tokens":1,"messages":[]}"#, "[1]", "not json"] {
        let mut scene = Scene::open([turn("done")]);
        scene.complaints = 1;
        let got = scene.post("/v1/messages", &[], body).await;
        assert_eq!(got.status, 400, "{body}: {}", got.text);
        assert!(got.text.contains("invalid_request_error"), "{}", got.text);
        assert_eq!(scene.server.requests()[0].body, body.as_bytes());
    }
}

#[tokio::test]
async fn an_error_in_a_stream_is_an_event_of_the_stream() {
    let scene = Scene::open([turn("hello").always(Fault::error_event(3))]);
    let got = scene.ask(&request(true, &[user("go")])).await;
    let events = got.events();
    let (name, data) = events.last().unwrap();
    assert_eq!((got.status, name.as_str(), &data["error"]["type"]), (200, "error", &json!("overloaded_error")));
    assert_eq!(scene.server.requests().len(), 1, "what was shown cannot be taken back");
}

#[tokio::test]
async fn a_later_turn_that_fails_is_asked_for_again() {
    for stream in [false, true] {
        let scene = Scene::open([turn("look, read r1"), turn("done").fault(Fault::overloaded())]);
        let message = scene.ask(&request(stream, &[user("go")])).await.message();
        assert_eq!(told(&message["content"]), "look, done");
        assert_eq!(scene.log.done(), "read r1");
        assert_eq!(scene.asked().len(), 3);
    }
}

#[tokio::test]
async fn a_later_turn_that_keeps_failing_ends_as_the_upstreams_error() {
    let limited = Fault::Status { status: 429, message: Some("spent".to_owned()), retry_after: None, html: None };
    for stream in [false, true] {
        let scene = Scene::open([turn("look, read r1"), turn("done").always(limited.clone())]);
        let got = scene.ask(&request(stream, &[user("go")])).await;
        assert!(got.text.contains("spent"), "{}", got.text);
        assert_eq!(got.status, if stream { 200 } else { 429 });
        assert_eq!(stream, got.events().last().is_some_and(|(name, _)| name == "error"));
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_a_502_that_says_so() {
    let server = Server::start(ServerOptions::default()).unwrap();
    let nobody = fanout_script::RefusedAddress::take().unwrap();
    let scene = Scene::before(server, &nobody.base_url().unwrap(), true);
    for (path, body) in [("/v1/messages", request(true, &[user("go")]).to_string()), ("/v1/files", "{}".to_owned())] {
        let got = scene.post(path, &[], body).await;
        assert_eq!(got.status, 502, "{path}: {}", got.text);
        assert!(got.text.contains("no connection to the API"), "{}", got.text);
    }
}

#[tokio::test]
async fn a_budget_ends_a_run_as_an_error_that_no_client_repeats() {
    let scene = Scene::open([turn("read r1"), turn("done")]);
    let body = request(false, &[user("go")]).to_string();
    let got = scene.post("/v1/messages", &[("fanout-max-cost", "0.000001")], body.clone()).await;
    assert_eq!(got.status, 400, "{}", got.text);
    assert_eq!(got.headers["x-should-retry"], "false");
    assert!(got.text.contains("max_cost_usd") && got.text.contains(r#""error_code":"budget""#), "{}", got.text);
    let got = scene.post("/v1/messages", &[("fanout-max-cost", "much")], body).await;
    assert_eq!(got.status, 400);
    assert_eq!(scene.server.requests().len(), 0);
}

#[tokio::test]
async fn a_run_ends_before_its_client_gives_up() {
    let scene = Scene::open([turn("peek p1"), turn("done")]);
    let body = request(false, &[user("go")]).to_string();
    let asked = scene.post("/v1/messages", &[("x-stainless-timeout", "0.2")], body);
    let got = tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap();
    assert_eq!((got.status, &got.headers["x-should-retry"]), (504, &"false".parse().unwrap()), "{}", got.text);
    scene.log.nobody_is_alive().await;
}

#[tokio::test]
async fn a_wait_past_the_end_of_a_run_is_told_at_once_and_to_everyone() {
    for stream in [false, true] {
        let scene = Scene::open([turn("done").always(Fault::rate_limited(100_000))]);
        let first = scene.ask(&request(stream, &[user("a")])).await;
        assert_eq!((first.status, &first.headers["retry-after"]), (429, &"100000".parse().unwrap()), "{}", first.text);
        let second = scene.ask(&request(stream, &[user("b")])).await;
        assert_eq!(second.status, 429, "{}", second.text);
        // After an hour somebody finds out whether the upstream meant it.
        assert_eq!(second.headers["retry-after"], "3600");
        assert!(second.text.contains(r#""error_code":"rate_limited""#), "{}", second.text);
        assert_eq!(scene.server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_team_whose_day_is_spent_is_told_when_it_ends_and_others_are_not() {
    // Output alone costs 1.5 cents a thousand tokens: six answers fit into ten cents, and the seventh may not.
    let usage = Usage { input_tokens: 100, output_tokens: 1_000, ..Usage::default() };
    let scene = Scene::open((0..8).map(|_| turn("done").usage(usage)));
    let (first, second, other) = (scene.key_of("support"), scene.key_of("support"), scene.key_of("sales"));
    let body = request(false, &[user("go")]).to_string();
    let mut answered = 0;
    let refused = loop {
        let key = if answered % 2 == 0 { &first } else { &second };
        let got = scene.post("/v1/messages", &[("x-api-key", key)], body.clone()).await;
        if got.status != 200 {
            break got;
        }
        answered += 1;
    };
    assert!((4..=6).contains(&answered), "both keys are one team's: {answered}");
    assert_eq!(refused.status, 429, "{}", refused.text);
    let error: Value = serde_json::from_str(&refused.text).unwrap();
    assert_eq!(error["error"]["type"], "rate_limit_error");
    assert_eq!(error["error"]["details"]["error_code"], "budget");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("`max_cost_usd_per_day` of [project.support]") && message.contains("00:00 UTC"),
        "{message}"
    );
    assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(scene.server.requests().len(), answered, "what is refused is not sent");
    assert_eq!(scene.post("/v1/messages", &[("x-api-key", &other)], body).await.status, 200);
}
