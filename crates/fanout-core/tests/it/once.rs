//! Calls whose own database keeps what they came to: they may go again though they may have been carried out, and nothing is
//! claimed that nobody knows.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fanout_core::call::{Call, CallId, Position};
use fanout_core::event::What;
use fanout_core::once::Once;
use fanout_core::outcome::Output;
use fanout_core::run::{Past, RunOptions, Scheduler};
use fanout_core::tool::ToolError;
use serde_json::json;

use super::driver::{Does, all, toolbox, words};

/// A call whose attempts fail so, one after another, and then end well: its word, how many there were, and what it is told.
async fn check(database: &str, errors: &[ToolError]) -> (String, u32, String) {
    let left = Arc::new(Mutex::new(errors.to_vec()));
    let expected = database == "journal";
    let tool = Does::new("write", move |attempt| {
        assert_eq!(attempt.once.is_some(), expected);
        let mut left = left.lock().unwrap();
        let next = if left.is_empty() { Ok(Output::text("done")) } else { Err(left.remove(0)) };
        Box::pin(async { next })
    });
    let tool = tool.with(|spec| spec.database = Some(database.into()));
    let once = Some(Arc::new(Once::sqlite("journal")));
    let mut run = Scheduler::default().run(toolbox([tool]), RunOptions { once, ..RunOptions::new("run") });
    let outcomes = all(&mut run, [("write", json!({"key": "a"}))]).await;
    let told = outcomes[0].result.as_ref().err().map(|error| error.message.clone()).unwrap_or_default();
    (words(&outcomes), outcomes[0].attempts, told)
}

fn lost() -> ToolError {
    ToolError::Broken("lost its database".into())
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_carried_out_goes_again_where_the_row_decides_and_nowhere_else() {
    let (word, attempts, _) = check("journal", &[lost(), lost()]).await;
    assert_eq!((word.as_str(), attempts), ("ok", 3));
    let (word, attempts, _) = check("elsewhere", &[lost()]).await;
    assert_eq!((word.as_str(), attempts), ("outcome_unknown", 1));
}

#[tokio::test(start_paused = true)]
async fn a_failure_after_a_doubt_does_not_say_that_nothing_was_done() {
    let refused = || ToolError::NotSent("connection refused".into());
    let answered = ToolError::Conflict("somebody was first".into());
    for errors in [vec![lost(), answered.clone()], vec![lost(), refused(), refused(), refused()], vec![lost(); 4]] {
        let (word, attempts, told) = check("journal", &errors).await;
        assert_eq!((word.as_str(), attempts), ("outcome_unknown", errors.len() as u32), "{errors:?}");
        assert!(told.contains("may or may not have been carried out"), "{told}");
    }
    // Without a doubt before it is what it says.
    for (errors, word) in [(vec![refused(), answered], "conflict"), (vec![refused(); 4], "upstream")] {
        assert_eq!(check("journal", &errors).await.0, word, "{errors:?}");
    }
}

/// A call that was under way when its process ended: its word, and how often it was attempted since.
async fn resumed(once: &str, fails: Option<ToolError>) -> (String, usize) {
    let started = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&started);
    let tool = Does::new("write", move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let result = fails.clone().map_or_else(|| Ok(Output::text("done")), Err);
        Box::pin(async { result })
    });
    let tool = tool.with(|spec| spec.database = Some("journal".into()));
    let (call, input) = (CallId::from("c0"), Arc::new(json!({"key": "a"})));
    let mut past = Past::default();
    let arrived = What::CallArrived {
        call: call.clone(),
        tool: "write".into(),
        part_of: None,
        position: Position::block(0),
        declared: true,
        input: Arc::clone(&input),
        waits: Arc::from([]),
    };
    past.take(&arrived, 1);
    past.take(&What::AttemptStarted { call: call.clone(), number: 1 }, 2);
    let once = Some(Arc::new(Once::sqlite(once)));
    let mut run = Scheduler::default().run(toolbox([tool]), RunOptions { once, ..RunOptions::new("run") });
    let mut batch = run.batch();
    batch.remember(past);
    batch.call(Call::new(0, call, "write", (*input).clone())).unwrap();
    (words(&batch.finish().await), started.load(Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_a_call_goes_on_where_the_row_decides_and_stays_in_doubt() {
    assert_eq!(resumed("journal", None).await, ("ok".to_owned(), 1));
    assert_eq!(resumed("elsewhere", None).await, ("outcome_unknown".to_owned(), 0));
    // That nothing was kept by this attempt says nothing of the one before.
    let conflict = ToolError::Conflict("somebody was first".into());
    assert_eq!(resumed("journal", Some(conflict)).await, ("outcome_unknown".to_owned(), 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_stopped_in_doubt_is_of_unknown_outcome() {
    let hangs = Does::new("write", |attempt| {
        Box::pin(async move { if attempt.number == 1 { Err(lost()) } else { std::future::pending().await } })
    });
    let tool = hangs.with(|spec| spec.database = Some("journal".into()));
    let once = Some(Arc::new(Once::sqlite("journal")));
    let mut run = Scheduler::default().run(toolbox([tool]), RunOptions { once, ..RunOptions::new("run") });
    let outcomes = all(&mut run, [("write", json!({"key": "a"}))]).await;
    assert_eq!(words(&outcomes), "outcome_unknown");
    assert!(outcomes[0].attempts > 1, "{outcomes:?}");
}
