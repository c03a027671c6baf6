//! Stopping a run from outside, at every point.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use fanout_agent::{Conversation, Report, RunSettings};
use fanout_script::{Fault, Pace, RetryAfter, Turn};

use crate::stage::{Log, Stage, calls, end_of, told};

/// Runs, and stops the run once `when` is over.
async fn stopped<F: Future<Output = ()>>(stage: &Stage, when: impl FnOnce(Arc<Log>) -> F) -> Report {
    let settings = stage.settings();
    let (cancel, log) = (settings.cancel.clone(), Arc::clone(&stage.log));
    let stop = async {
        when(log).await;
        cancel.cancel("a person stopped it");
        cancel.cancel("a second reason counts for nothing");
    };
    let (report, ()) = tokio::join!(stage.run_as(settings), stop);
    assert_eq!(end_of(&report), "cancelled: a person stopped it");
    stage.log.nobody_is_alive().await;
    report
}

fn thinks() -> Pace {
    Pace::new(Duration::from_secs(60), 0.0)
}

#[tokio::test]
async fn a_run_that_was_stopped_before_it_began_asks_nothing() {
    let stage = Stage::open([Turn::text("ok")]);
    let settings = stage.settings();
    settings.cancel.cancel("too late");
    let report = stage.run_as(settings).await;
    assert_eq!((end_of(&report).as_str(), stage.asked().len()), ("cancelled: too late", 0));
    assert_eq!(stage.log.lines(), ["run cancelled"]);
}

#[tokio::test]
async fn while_the_model_thinks() {
    let stage = Stage::open([calls("write w1").pace(thinks())]);
    // Not `stopped`: the request that checks the conversation would be thought about for as long.
    let settings = stage.settings();
    let (cancel, log) = (settings.cancel.clone(), Arc::clone(&stage.log));
    let agent = stage.agent();
    let run = agent.run(Conversation::from_prompt("go"), settings);
    let stop = async {
        log.until("ask 1").await;
        cancel.cancel("enough");
    };
    let (report, ()) = tokio::join!(run, stop);
    assert_eq!((end_of(&report).as_str(), told(&report.conversation).as_str()), ("cancelled: enough", "u: text"));
}

#[tokio::test]
async fn while_the_model_speaks() {
    let speaks = Fault::Pause { after_events: 12, pause_ms: 60_000, ping_ms: 0 };
    let stage = Stage::open([calls("read r1, peek p1, write w1, read r2").fault(speaks)]);
    let report = stopped(&stage, |log| async move {
        log.until("r1 ok").await;
        log.until("start p1").await;
    })
    .await;
    assert_eq!(told(&report.conversation), "u: text");
    assert!(stage.log.has("discard 1") && stage.log.has("run cancelled"));
    assert_eq!(stage.log.work(), ["read r1"]);
}

#[tokio::test]
async fn while_calls_run() {
    let mut turn = calls("read r1, stay s1, peek p1, write w1");
    turn.content.push(fanout_script::Block::tool_use("read", r#"{"id":"s1"}"#).with_id("x1"));
    let stage = Stage::open([turn, Turn::text("ok")]);
    let report = stopped(&stage, |log| async move {
        log.until("w1 ok").await;
        log.until("start s1").await;
        log.until("start p1").await;
    })
    .await;
    // Of the write that was sent nobody knows; what waited for it was never sent.
    let answers = "=r1, !s1 outcome_unknown, !p1 cancelled, =w1, !x1 cancelled";
    let said = "read r1, stay s1, peek p1, write w1, read x1";
    assert_eq!(told(&report.conversation), format!("u: text | a: {said} | u: {answers}"));
    assert!(stage.log.at("end 1") < stage.log.at("run cancelled"));
}

#[tokio::test]
async fn while_a_failed_request_waits_for_its_next_try() {
    let busy = Fault::Status { status: 429, message: None, retry_after: Some(RetryAfter::Seconds(600)), html: None };
    let stage = Stage::open([calls("write w1").fault(busy)]);
    // The answer is there once the server has seen the request, and nothing else can happen for ten minutes.
    let server = &stage.server;
    let report = stopped(&stage, |_| async move {
        while server.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    })
    .await;
    assert_eq!(told(&report.conversation), "u: text");
    assert_eq!(stage.asked().len(), 1);
}

/// Drops a run once `line` is in the log, and lets a second one write the same keys.
async fn dropped(turn: Turn, line: &str) {
    let stage = Stage::open([turn, Turn::text("ok")]);
    let agent = stage.agent();
    tokio::select! {
        _ = agent.run(Conversation::from_prompt("go"), stage.settings()) => unreachable!("the gate is shut"),
        () = stage.log.until(line) => {}
    }
    stage.log.nobody_is_alive().await;
    assert!(!stage.log.work().contains(&"stay s1".to_owned()));
    stage.log.open_gate();
    let report = agent.run(Conversation::from_prompt("go"), RunSettings::default()).await;
    assert_eq!(end_of(&report), "done");
    assert_eq!(stage.log.times("stay s1"), 1);
}

#[tokio::test]
async fn a_dropped_run_leaves_no_attempt_and_no_lock_behind() {
    let mut turn = calls("stay s1, peek p1");
    turn.content.push(fanout_script::Block::tool_use("write", r#"{"id":"s1"}"#).with_id("x1"));
    dropped(turn, "start s1").await;
    let speaks = Fault::Pause { after_events: 6, pause_ms: 60_000, ping_ms: 0 };
    dropped(calls("peek p1, stay s1").fault(speaks), "start p1").await;
}

#[test]
fn a_run_can_be_dropped_outside_of_its_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (stage, run) = runtime.block_on(async {
        let stage = Stage::open([calls("stay s1"), Turn::text("ok")]);
        let agent = stage.agent();
        let settings = stage.settings();
        let mut run = Box::pin(async move { agent.run(Conversation::from_prompt("go"), settings).await });
        tokio::select! {
            _ = &mut run => unreachable!("the gate is shut"),
            () = stage.log.until("start s1") => {}
        }
        (stage, run)
    });
    drop(run);
    runtime.block_on(stage.log.nobody_is_alive());
}
