//! An MCP server that dies, does not come back, says nothing, or changes its tools under a toolbox.

use std::time::Duration;

use fanout_core::outcome::{ErrorCode, Outcome};
use fanout_core::tool::ToolError;
use fanout_tools::mcp::McpError;

use crate::mcp_server::{Script, server, text};

#[track_caller]
fn code(outcome: &Outcome) -> (ErrorCode, &str) {
    match &outcome.result {
        Err(error) => (error.code, &error.message),
        Ok(output) => panic!("it ended well: {output:?}"),
    }
}

#[tokio::test]
async fn a_call_in_a_server_that_dies_is_of_unknown_outcome_and_the_next_one_goes_well() {
    let script = Script::start("").await;
    let outcomes = script.batch(&["hang", "die"], &[]).await;
    for outcome in &outcomes {
        let (code, message) = code(outcome);
        assert_eq!(code, ErrorCode::OutcomeUnknown);
        assert!(message.contains("was gone before it answered; it said last: start 1 | dying of"), "{message}");
    }
    assert!(script.says("where").await.starts_with("start 2"));
}

#[tokio::test]
async fn a_repeatable_call_goes_again_on_the_server_that_was_started_anew() {
    let script = Script::start("").await;
    let outcomes = script.batch(&["second", "die"], &["second"]).await;
    assert_eq!(outcomes[0].result.as_ref().map(|output| output.value()), Ok("start 2".into()));
    assert_eq!(code(&outcomes[1]).0, ErrorCode::OutcomeUnknown);
    assert_eq!(script.starts(), 2);
}

#[tokio::test]
async fn a_server_that_does_not_come_back_is_sent_nothing() {
    let script = Script::start("once").await;
    assert!(matches!(script.attempt("die").await, Err(ToolError::Broken(_))));
    let error = script.attempt("where").await.unwrap_err();
    assert!(matches!(error, ToolError::NotSent(_)), "{error:?}");
    assert!(
        error.to_string().ends_with("it said last: start 2 | no licence was found for [redacted SECRET]"),
        "{error}"
    );
    let outcomes = script.batch(&["where"], &[]).await;
    let (code, message) = code(&outcomes[0]);
    assert_eq!(code, ErrorCode::Upstream);
    assert!(message.contains("no licence was found"), "{message}");
}

#[tokio::test]
async fn a_tool_that_is_gone_or_no_longer_harmless_is_refused_with_the_reason() {
    let script = Script::start("").await;
    assert_eq!(script.says("old").await, "called");
    assert_eq!(script.says("look").await, "called");
    assert_eq!(script.says("drop").await, "dropped");
    assert_eq!(script.says("relisted").await, "listed");
    let gone = script.attempt("old").await.unwrap_err();
    assert!(matches!(gone, ToolError::Failed(_)));
    assert!(
        gone.to_string().starts_with("nothing was sent: the MCP server `s` no longer has the tool `old`"),
        "{gone}"
    );
    let changed = script.attempt("look").await.unwrap_err();
    assert!(changed.to_string().contains("no longer says that `s__look` changes nothing"), "{changed}");
    assert_eq!(text(&script.attempt("where").await.unwrap()).split(',').next(), Some("start 1"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_says_a_word_is_not_awaited_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let error = server(folder.path(), "silent").list().await.unwrap_err();
    assert_eq!(error, McpError::Slow("60 s".to_owned()));
}

#[tokio::test]
async fn a_server_that_never_lists_its_tools_is_not_awaited_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), "mute");
    let asking = tokio::spawn(async move { server.list().await });
    while !folder.path().join("asked").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // From here on the clock runs ahead, because everybody waits.
    tokio::time::pause();
    assert_eq!(asking.await.unwrap().unwrap_err(), McpError::Slow("60 s".to_owned()));
}
