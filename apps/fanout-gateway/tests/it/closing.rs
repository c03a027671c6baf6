//! Stopping in good order.

use std::net::IpAddr;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::client::{Answer, send};
use crate::stage::{Stage, TOOL_CALLS, body};

const HEADERS: [(&str, &str); 1] = [("content-type", "application/json")];

fn stage(grace: Duration) -> Stage {
    Stage::at(IpAddr::from([127, 0, 0, 1]), "", grace)
}

/// Posts calls, and gives the answer to be waited for.
fn post(stage: &Stage, calls: &'static str) -> JoinHandle<Answer> {
    let address = stage.address;
    tokio::spawn(async move { send(address, "POST", TOOL_CALLS, &HEADERS, &body(calls)).await })
}

#[tokio::test]
async fn what_runs_is_given_time_and_nobody_new_is_let_in() {
    let mut stage = stage(Duration::from_secs(60));
    let running = post(&stage, "a=hold");
    stage.started(1).await;
    let served = stage.close();
    while tokio::net::TcpStream::connect(stage.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!served.is_finished());
    stage.release(1);
    let answer = running.await.unwrap();
    assert!(answer.json()["content"][0]["is_error"].is_null(), "{}", answer.body);
    served.await.unwrap();
}

#[tokio::test]
async fn what_does_not_end_in_time_is_stopped_and_still_answered() {
    let mut stage = stage(Duration::from_millis(10));
    let running = post(&stage, "a=hold b=pay c=echo");
    stage.started(3).await;
    stage.close().await.unwrap();
    let content = running.await.unwrap().json()["content"].to_string();
    assert!(content.contains("cancelled") && content.contains("outcome_unknown"), "{content}");
}

#[tokio::test]
async fn a_gateway_that_stops_takes_no_calls_and_says_that_it_is_not_ready() {
    let stage = stage(Duration::from_secs(60));
    stage.gateway.close();
    let closing = (503, "overloaded_error".to_owned(), "closing".to_owned());
    assert_eq!(post(&stage, "a=echo").await.unwrap().error(), closing);
    assert_eq!(stage.get("/readyz").await.error(), closing);
    assert_eq!(stage.get("/livez").await.status, 200);
    assert!(stage.seen.started.borrow().is_empty());
}
