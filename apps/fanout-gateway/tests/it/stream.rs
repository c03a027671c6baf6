//! Results as they end, and clients that hang up.

use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::client::begin;
use crate::stage::{Stage, TOOL_CALLS, body};

const STREAM: (&str, &str) = ("accept", "text/event-stream");
const JSON: (&str, &str) = ("content-type", "application/json");

/// Reads until the text stands in what was read.
async fn read_until(stream: &mut TcpStream, read: &mut String, wanted: &str) {
    while !read.contains(wanted) {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await.unwrap();
        assert!(count > 0, "the stream ended before `{wanted}`: {read}");
        read.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
}

#[tokio::test]
async fn each_result_is_told_as_it_ends_and_all_of_them_at_the_end() {
    let stage = Stage::new();
    let answer = tokio::spawn({
        let (address, body) = (stage.address, body("a=hold b=echo c=mine"));
        async move { crate::client::send(address, "POST", TOOL_CALLS, &[JSON, STREAM], &body).await }
    });
    stage.started(2).await;
    stage.release(1);
    let answer = answer.await.unwrap();
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert!(answer.header("fanout-run-id").is_some() && answer.header("request-id").is_some());
    let events = answer.events();
    let told: Vec<(&str, &Value)> = events.iter().map(|(name, data)| (name.as_str(), &data["tool_use_id"])).collect();
    assert_eq!(told[..2], [("tool_result", &Value::from("b")), ("tool_result", &Value::from("a"))]);
    let (last, message) = &events[2];
    assert_eq!((last.as_str(), &message["role"], events.len()), ("message", &Value::from("user"), 3));
    assert_eq!(message["content"], Value::from(vec![events[1].1.clone(), events[0].1.clone()]));
    assert_eq!(message["unhandled"], serde_json::json!(["c"]));
}

#[tokio::test]
async fn a_result_is_there_while_others_still_run() {
    let stage = Stage::new();
    let mut stream = begin(stage.address, "POST", TOOL_CALLS, &[JSON, STREAM], &body("a=hold b=echo")).await;
    let mut read = String::new();
    read_until(&mut stream, &mut read, "\"tool_use_id\":\"b\"").await;
    assert!(!read.contains("event: message"));
    stage.release(1);
    read_until(&mut stream, &mut read, "event: message").await;
}

#[tokio::test]
async fn how_far_a_call_is_is_told_while_it_runs() {
    let stage = Stage::new();
    let mut stream = begin(stage.address, "POST", TOOL_CALLS, &[JSON, STREAM], &body("says=hold b=hold")).await;
    let mut read = String::new();
    read_until(&mut stream, &mut read, "event: progress\ndata: ").await;
    read_until(&mut stream, &mut read, "a quarter").await;
    let said = read.split("event: progress\ndata: ").nth(1).unwrap().lines().next().unwrap();
    let expected = serde_json::json!({"tool_use_id": "says", "progress": 1.0, "total": 4.0, "message": "a quarter"});
    assert_eq!(serde_json::from_str::<Value>(said).unwrap(), expected);
    stage.release(2);
    read_until(&mut stream, &mut read, "event: message").await;
    assert_eq!(read.matches("event: progress").count(), 1);
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_what_may_be_cancelled() {
    for accept in [STREAM, ("accept", "application/json")] {
        let stage = Stage::new();
        let stream = begin(stage.address, "POST", TOOL_CALLS, &[JSON, accept], &body("a=hold b=hold")).await;
        stage.started(2).await;
        drop(stream);
        stage.stopped(2).await;
        stage.gateway.idle().await;
        let metrics = stage.get("/metrics").await.body;
        assert!(metrics.contains("fanout_calls_total{tool=\"hold\",outcome=\"cancelled\"} 2"), "{metrics}");
    }
}

#[tokio::test]
async fn a_call_that_must_not_be_sent_twice_is_not_given_up_on() {
    let stage = Stage::new();
    let stream = begin(stage.address, "POST", TOOL_CALLS, &[JSON], &body("a=pay b=hold")).await;
    stage.started(2).await;
    drop(stream);
    // Another client that hangs up is told of; when it is gone, the first one's end was seen long ago.
    let other = begin(stage.address, "POST", TOOL_CALLS, &[JSON], &body("c=hold")).await;
    stage.started(3).await;
    drop(other);
    stage.stopped(1).await;
    stage.release(2);
    stage.gateway.idle().await;
    let metrics = stage.get("/metrics").await.body;
    assert!(metrics.contains("fanout_calls_total{tool=\"pay\",outcome=\"ok\"} 1"), "{metrics}");
    assert!(metrics.contains("fanout_calls_total{tool=\"hold\",outcome=\"ok\"} 1"), "{metrics}");
}
