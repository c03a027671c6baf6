//! The same request twice.

use crate::client::begin;
use crate::stage::{Stage, TOOL_CALLS, body};

const KEY: (&str, &str) = ("idempotency-key", "k1");

#[tokio::test]
async fn the_same_key_is_one_run_and_gets_the_same_answer() {
    let stage = Stage::new();
    let calls = body("a=pay b=echo");
    let (first, second) = tokio::join!(stage.post(TOOL_CALLS, &[KEY], &calls), async {
        stage.started(2).await;
        let second = stage.post(TOOL_CALLS, &[KEY], &calls);
        stage.release(1);
        second.await
    });
    let third = stage.post(TOOL_CALLS, &[KEY], &calls).await;
    for again in [second, third] {
        assert_eq!((again.status, &again.body), (200, &first.body));
        assert_eq!(again.header("fanout-run-id"), first.header("fanout-run-id"));
        assert_ne!(again.header("request-id"), first.header("request-id"));
    }
    let streamed = stage.post(TOOL_CALLS, &[KEY, ("accept", "text/event-stream")], &calls).await;
    assert_eq!(streamed.events().last().unwrap().1, first.json());
    assert_eq!(stage.started(2).await.len(), 2, "the tools ran once");
}

#[tokio::test]
async fn two_posts_without_a_key_are_two_runs() {
    let stage = Stage::new();
    let (first, second) =
        (stage.post(TOOL_CALLS, &[], &body("a=echo")).await, stage.post(TOOL_CALLS, &[], &body("a=echo")).await);
    assert_ne!(first.header("fanout-run-id"), second.header("fanout-run-id"));
    assert_eq!(stage.started(2).await.len(), 2);
}

#[tokio::test]
async fn another_body_under_a_key_is_409() {
    let stage = Stage::new();
    assert_eq!(stage.post(TOOL_CALLS, &[KEY], &body("a=echo")).await.status, 200);
    for other in [body("a=fail"), body("b=echo"), format!("{} ", body("a=echo"))] {
        let error = stage.post(TOOL_CALLS, &[KEY], &other).await.error();
        assert_eq!(error, (409, "invalid_request_error".to_owned(), "idempotency_key_reused".to_owned()));
    }
    assert_eq!(stage.started(1).await.len(), 1);
}

#[tokio::test]
async fn a_key_that_is_none_is_400() {
    let stage = Stage::new();
    for key in ["", " ", "é", &"k".repeat(256)] {
        let answer = stage.post(TOOL_CALLS, &[("idempotency-key", key)], &body("a=echo")).await;
        assert_eq!(answer.error().0, 400, "{key:?}");
    }
    assert_eq!(stage.post(TOOL_CALLS, &[("idempotency-key", &"k".repeat(255))], &body("a=echo")).await.status, 200);
}

#[tokio::test]
async fn tools_see_the_same_key_on_any_process() {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let stage = Stage::new();
        let answer = stage.post(TOOL_CALLS, &[KEY], &body("a=echo")).await;
        let keys = stage.started(1).await;
        assert_eq!(keys, [format!("{}/a", answer.header("fanout-run-id").unwrap())]);
        seen.push(keys);
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn who_comes_back_in_time_finds_the_run_that_it_began() {
    let stage = Stage::with("[server]\ndisconnect_grace = \"1h\"");
    let headers = [("content-type", "application/json"), KEY];
    let stream = begin(stage.address, "POST", TOOL_CALLS, &headers, &body("a=hold")).await;
    stage.started(1).await;
    drop(stream);
    // The gateway has seen the other client hang up by the time that this one's calls are stopped.
    let other = begin(stage.address, "POST", TOOL_CALLS, &headers[..1], &body("x=hold")).await;
    stage.started(2).await;
    drop(other);
    stage.stopped(1).await;
    let calls = body("a=hold");
    let (answer, ()) = tokio::join!(stage.post(TOOL_CALLS, &[KEY], &calls), async { stage.release(1) });
    assert_eq!(answer.json()["content"][0]["tool_use_id"], "a");
    assert!(answer.json()["content"][0]["is_error"].is_null(), "{}", answer.body);
    assert_eq!(stage.started(2).await.len(), 2);
}

#[tokio::test]
async fn nobody_comes_back_in_time_and_the_run_is_cancelled() {
    let stage = Stage::with("[server]\ndisconnect_grace = \"1ms\"");
    let headers = [("content-type", "application/json"), KEY];
    let stream = begin(stage.address, "POST", TOOL_CALLS, &headers, &body("a=hold")).await;
    stage.started(1).await;
    drop(stream);
    stage.stopped(1).await;
    let answer = stage.post(TOOL_CALLS, &[KEY], &body("a=hold")).await;
    assert!(answer.body.contains("\\\"cancelled\\\""), "{}", answer.body);
}
