//! The JSON lines: names and fields are a contract.

use std::time::Duration;

use fanout_core::event::{Event, What};
use fanout_core::tool::Progress;
use fanout_host::lines::line;
use serde_json::{Value, json};

#[track_caller]
fn check(what: What, expected: &Value) {
    let event = Event { run: "run_1".into(), at: Duration::from_millis(12), what };
    assert_eq!(line(&event).as_ref(), Some(expected));
}

#[test]
fn how_far_a_call_is_is_told() {
    let progress = Progress { done: 1.5, total: None, message: Some("reading".into()) };
    check(
        What::CallProgress { call: "a".into(), progress },
        &json!({
            "type": "call_progress", "run": "run_1", "at_ms": 12.0, "call": "a", "progress": 1.5, "total": null,
            "message": "reading",
        }),
    );
}

#[test]
fn waits_between_attempts_and_what_becomes_of_groups_are_told() {
    let wait = Duration::from_micros(1_500_040);
    check(
        What::CallBackoff { call: "a".into(), attempts: 2, wait },
        &json!({"type": "call_backoff", "run": "run_1", "at_ms": 12.0, "call": "a", "attempts": 2, "wait_ms": 1500.0}),
    );
    check(
        What::LimitPaused { group: "payments".into(), wait },
        &json!({"type": "limit_paused", "run": "run_1", "at_ms": 12.0, "group": "payments", "wait_ms": 1500.0}),
    );
    check(
        What::BreakerOpened { group: "payments".into(), wait },
        &json!({"type": "breaker_opened", "run": "run_1", "at_ms": 12.0, "group": "payments", "wait_ms": 1500.0}),
    );
}
