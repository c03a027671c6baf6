//! What a person takes out of use: tools, and whole limit groups.
//!
//! Time is paused.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanout_core::approval::Approval;
use fanout_core::call::Call;
use fanout_core::limits::{BreakerState, LimitOptions};
use fanout_core::outcome::{Content, Outcome, Output};
use fanout_core::plan::AtomicPart;
use fanout_core::retry::Backoff;
use fanout_core::run::{RunOptions, Scheduler, SchedulerOptions};
use fanout_core::tool::ToolError;
use fanout_core::toolbox::Toolbox;
use serde_json::{Value, json};

use super::driver::{Does, all, ms, toolbox, words};

/// A tool that takes 100 ms, and counts how often it began.
fn counted(name: &str, began: &Arc<AtomicUsize>) -> Does {
    let began = Arc::clone(began);
    Does::new(name, move |_| {
        began.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {
            tokio::time::sleep(ms(100)).await;
            Ok(Output::text("done"))
        })
    })
}

fn text(outcome: &Outcome) -> &str {
    let Content::Text(text) = &outcome.shown[0] else { panic!("{outcome:?}") };
    text
}

/// Without an approver a call that asks is `denied`: that it is not permitted comes first.
#[tokio::test(start_paused = true)]
async fn a_tool_out_of_use_is_refused_wherever_it_is_called_and_nobody_is_asked() {
    let began = Arc::default();
    let mut tools = Toolbox::new();
    let pay = counted("pay", &began).with(|spec| {
        spec.policy.approval = Approval::Always;
        spec.atomic = Some(AtomicPart(Arc::new(())));
    });
    tools.add(pay).unwrap();
    tools.add(counted("look", &Arc::default())).unwrap();
    tools.add_plan(10_000).unwrap();
    let scheduler = Scheduler::default();
    scheduler.disable([("pay".into(), "`pay` is out of use".into())]);
    let mut run = scheduler.run(Arc::new(tools), RunOptions::new("run"));
    let member = |label: &str| json!({"label": label, "tool": "pay", "input": {"key": label}});
    let each = json!({"label": "e", "tool": "pay", "for_each": [1, 2], "input": {"key": {"$ref": "item#"}}});
    let look = json!({"label": "l", "tool": "look", "input": {"key": 9}});
    let outcomes = all(
        &mut run,
        [
            ("pay", json!({"key": 1})),
            ("plan", json!({"calls": [look, member("a"), each]})),
            ("plan", json!({"calls": [member("b")], "atomic": true})),
        ],
    )
    .await;
    assert_eq!(words(&outcomes), "not_permitted ok not_permitted");
    let answer: Value = serde_json::from_str(text(&outcomes[1])).unwrap();
    assert_eq!(answer["l"], "done");
    assert_eq!(answer["a"]["error"]["message"], "`pay` is out of use");
    assert_eq!(answer["e"].to_string().matches("not_permitted").count(), 2, "{answer}");
    assert!(text(&outcomes[2]).contains("`pay` is out of use"));
    assert_eq!(began.load(Ordering::SeqCst), 0);

    scheduler.disable([("plan".into(), "no plans".into())]);
    let plan = || ("plan", json!({"calls": [{"label": "l", "tool": "look", "input": {"key": 1}}]}));
    assert_eq!(words(&all(&mut run, [plan()]).await), "not_permitted");
    scheduler.disable([]);
    assert_eq!(words(&all(&mut run, [plan()]).await), "ok");
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_refused_when_it_would_begin_and_what_runs_goes_on() {
    let began = Arc::default();
    let scheduler = Scheduler::default();
    let mut run = scheduler.run(toolbox([counted("pay", &began)]), RunOptions::new("run"));
    let mut batch = run.batch();
    for id in ["a", "b"] {
        batch.call(Call::new(0, id, "pay", json!({"key": "same"}))).unwrap();
    }
    batch.commit();
    let order = async {
        tokio::time::sleep(ms(50)).await;
        scheduler.disable([("pay".into(), "out of use".into())]);
    };
    let (outcomes, ()) = tokio::join!(batch.finish(), order);
    assert_eq!((words(&outcomes).as_str(), began.load(Ordering::SeqCst)), ("ok not_permitted", 1));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_held_sends_away_who_waits_and_lets_them_in_again() {
    let began = Arc::default();
    let limits = [("api".into(), LimitOptions::at_once(1))].into();
    let scheduler = Scheduler::new(SchedulerOptions { limits, ..SchedulerOptions::default() });
    let tools = toolbox([counted("pay", &began).with(|spec| spec.policy.limit = Some("api".into()))]);
    let mut run = scheduler.run(tools, RunOptions::new("run"));
    let calls = || (0..3).map(|key| ("pay", json!({ "key": key })));
    let hold = async {
        tokio::time::sleep(ms(50)).await;
        scheduler.hold(&"api".into(), Some(Duration::from_secs(60)));
    };
    let (outcomes, ()) = tokio::join!(all(&mut run, calls()), hold);
    assert_eq!(words(&outcomes), "ok circuit_open circuit_open", "what runs goes on");
    assert!(outcomes[1].result.as_ref().unwrap_err().message.contains("taken out of use by a person"));
    assert_eq!(scheduler.limits()[0].breaker, BreakerState::Held);
    assert_eq!(words(&all(&mut run, calls()).await), "circuit_open circuit_open circuit_open");
    assert_eq!(began.load(Ordering::SeqCst), 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(words(&all(&mut run, calls()).await), "ok ok ok", "its time is over");
    scheduler.hold(&"api".into(), Some(Duration::MAX));
    tokio::time::sleep(Duration::from_secs(1_000_000)).await;
    assert_eq!(words(&all(&mut run, calls()).await), "circuit_open circuit_open circuit_open");
    scheduler.hold(&"api".into(), None);
    assert_eq!(words(&all(&mut run, calls()).await), "ok ok ok");
    scheduler.hold(&"nobody".into(), None);
    assert_eq!(scheduler.limits().len(), 1, "what is let through makes no group");
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_opened_by_itself_is_closed_by_hand() {
    let is_down = Arc::new(Mutex::new(true));
    let down = Arc::clone(&is_down);
    let tool = Does::new("pay", move |_| {
        let is_down = *down.lock().unwrap();
        Box::pin(
            async move { if is_down { Err(ToolError::NotSent("refused".into())) } else { Ok(Output::text("done")) } },
        )
    });
    let retry = Backoff { attempts: 1, ..Backoff::default() };
    let limits = [("api".into(), LimitOptions { retry, ..LimitOptions::default() })].into();
    let scheduler = Scheduler::new(SchedulerOptions { limits, ..SchedulerOptions::default() });
    let mut run =
        scheduler.run(toolbox([tool.with(|spec| spec.policy.limit = Some("api".into()))]), RunOptions::new("r"));
    all(&mut run, (0..10).map(|key| ("pay", json!({ "key": key })))).await;
    *is_down.lock().unwrap() = false;
    assert_eq!(words(&all(&mut run, [("pay", json!({"key": 1}))]).await), "circuit_open");
    scheduler.hold(&"api".into(), None);
    assert_eq!(words(&all(&mut run, [("pay", json!({"key": 1}))]).await), "ok");
}
