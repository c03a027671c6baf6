//! Every kind of event comes back as it went in.

use std::sync::Arc;
use std::time::Duration;

use fanout_core::approval::{Decision, Said};
use fanout_core::call::Position;
use fanout_core::effects::Key;
use fanout_core::event::{RunKind, Tokens, Wait, What, Why};
use fanout_core::outcome::{CallError, Content, ErrorCode, Outcome, Output};
use fanout_journal::record::{FORM, RecordError, read, write};
use serde_json::json;

fn outcome(part_of: Option<&str>, result: Result<Output, CallError>) -> Arc<Outcome> {
    let shown: Arc<[Content]> = Arc::from([Content::Text("shown".into())]);
    let (call, part_of) = ("toolu_1/a/3".into(), part_of.map(Into::into));
    Arc::new(Outcome { call, part_of, result: result.map(Arc::new), shown, attempts: 2 })
}

fn decided(decision: Decision) -> What {
    What::ApprovalDecided { call: "toolu_1".into(), approval: "apr_1".into(), decision }
}

/// One of each kind, and of each shape within it.
fn events() -> Vec<What> {
    let wait = |key: Option<&str>| Wait {
        on: "toolu_0".into(),
        why: Why::Conflict,
        key: key.map(Key::printed),
        undeclared: key.is_none(),
    };
    let image = Content::Image { media_type: "image/png".into(), data: "iVBORw0=".into() };
    let full = Output {
        content: vec![Content::Text("the whole\u{0}\n\u{2028}".into()), image],
        structured: Some(json!({"a": [1, 2.5, null, 18446744073709551615_u64]})),
        is_error: true,
    };
    let error = CallError {
        retry_after: Some(Duration::from_micros(1_500_001)),
        invalid_json: Some("{\"a\":".into()),
        ..CallError::new(ErrorCode::RateLimited, "later")
    };
    vec![
        What::RunStarted { kind: RunKind::Agent, given: "{\"messages\":[]}".into() },
        What::RunResumed,
        What::TurnStarted { turn: 1 },
        What::ModelEnded {
            turn: 1,
            stop_reason: "tool_use".into(),
            tokens: Tokens { input: 1, output: 2, cache_read: 3, cache_write: 4 },
            cost_usd: Some(0.25),
            state: Some("\"container_1\"".into()),
        },
        What::Appended { message: "{\"role\":\"assistant\",\"content\":[ ]}".into() },
        What::ModelFailed { turn: 2, error: "overloaded".into(), again_after: Some(Duration::from_millis(3)) },
        What::ModelFailed { turn: 2, error: "refused".into(), again_after: None },
        What::CallArrived {
            call: "toolu_1".into(),
            tool: "get_user".into(),
            part_of: Some("toolu_9".into()),
            position: Position::block(3).part(0).part(17),
            declared: true,
            input: Arc::new(json!({"id": "7", "n": -1})),
            waits: Arc::from([wait(Some("orders/*")), wait(Some("a%2Fb/c")), wait(None)]),
        },
        What::BundleArrived {
            call: "toolu_9".into(),
            tool: "plan".into(),
            part_of: None,
            position: Position::block(0),
            waits: Arc::from([]),
        },
        What::CallWaits { call: "toolu_1".into(), waits: Arc::from([wait(None)]) },
        What::ApprovalAsked { call: "toolu_1".into(), tool: "pay".into(), approval: "apr_1".into() },
        decided(Decision::Approved(Said { by: Some("kim".into()), words: Some("fine,\n\"but\"".into()) })),
        decided(Decision::Denied(Said { by: Some("kim".into()), words: None })),
        decided(Decision::Expired),
        What::CallReady { call: "toolu_1".into(), filled: None },
        What::CallReady { call: "toolu_1".into(), filled: Some(Arc::new(json!({"id": 8}))) },
        What::CallLocked { call: "toolu_1".into() },
        What::AttemptStarted { call: "toolu_1".into(), number: 2 },
        What::AttemptEnded { call: "toolu_1".into(), number: 2, error: Some("no".into()) },
        What::CallBackoff { call: "toolu_1".into(), attempts: 2, wait: Duration::from_micros(7) },
        What::LimitPaused { group: "crm".into(), wait: Duration::from_secs(1) },
        What::BreakerOpened { group: "crm".into(), wait: Duration::from_secs(15) },
        What::CallEnded { outcome: outcome(Some("toolu_9"), Ok(full)) },
        What::CallEnded { outcome: outcome(None, Err(error)) },
        What::BundleEnded { outcome: outcome(None, Ok(Output::text("shown"))) },
        What::StrayGivenUp { call: "toolu_1".into() },
        What::TurnDiscarded { turn: 1, reason: "cut".into() },
        What::TurnEnded { turn: 1 },
        What::RunEnded { status: "done", reason: None },
    ]
}

#[test]
fn every_event_comes_back_as_it_went_in() {
    for what in events() {
        let text = write(&what).unwrap();
        let back = read(FORM, &text).unwrap();
        assert_eq!(format!("{back:?}"), format!("{what:?}"), "{text}");
    }
}

#[test]
fn of_a_call_that_nobody_refers_to_only_what_is_shown_is_kept() {
    let big = Output { structured: Some(json!({"much": "more"})), ..Output::text("much more") };
    let text = write(&What::CallEnded { outcome: outcome(None, Ok(big)) }).unwrap();
    assert!(!text.contains("much"), "{text}");
}

#[test]
fn what_a_newer_version_wrote_is_refused_and_what_is_damaged_too() {
    let text = write(&What::RunResumed).unwrap();
    assert!(matches!(read(FORM + 1, &text), Err(RecordError::Newer(_))));
    let mistakes = [
        "",
        "{",
        "{\"e\":\"unheard_of\"}",
        "{\"e\":\"run_started\",\"kind\":\"x\",\"given\":\"\"}",
        "{\"e\":\"call_arrived\",\"call\":\"a\",\"tool\":\"t\",\"at\":\"1.x\"}",
        "{\"e\":\"approval_decided\",\"call\":\"a\",\"approval\":\"b\",\"decision\":\"perhaps\"}",
        "{\"e\":\"run_ended\",\"status\":\"fine\"}",
    ];
    for text in mistakes {
        assert!(read(FORM, text).is_err(), "{text}");
    }
}
