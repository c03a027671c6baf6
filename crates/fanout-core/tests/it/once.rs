//! Calls whose own database keeps what they came to: they may go again though they may have been carried out, and nothing is
//! claimed that nobody knows.

use std::sync::{Arc, Mutex};

use fanout_core::once::Once;
use fanout_core::outcome::Output;
use fanout_core::run::{RunOptions, Scheduler};
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
