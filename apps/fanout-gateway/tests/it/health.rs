//! Whether it lives, what it counts, what it says of itself.

use std::collections::BTreeSet;

use crate::stage::{Stage, TOOL_CALLS, body};

/// Names, types and labels are a contract.
const NAMES: [(&str, &str, &[&str]); 7] = [
    ("fanout_calls_total", "counter", &["tool", "outcome"]),
    ("fanout_call_duration_seconds", "histogram", &[]),
    ("fanout_call_wait_seconds", "histogram", &["why"]),
    ("fanout_limit_queue_depth", "gauge", &["group"]),
    ("fanout_breaker_open", "gauge", &["group"]),
    ("fanout_runs_active", "gauge", &[]),
    ("fanout_cost_usd_total", "counter", &["project", "model"]),
];

/// The labels of a sample's line.
fn labels(line: &str) -> BTreeSet<&str> {
    let inside = line.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(inside, _)| inside);
    inside
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, _)| name)
        .filter(|name| *name != "le")
        .collect()
}

#[tokio::test]
async fn the_metrics_have_the_names_and_labels_of_the_contract_and_no_others() {
    let stage = Stage::new();
    let calls = body("a=echo b=fail x=hold");
    let answer = tokio::join!(stage.post(TOOL_CALLS, &[], &calls), async {
        stage.started(3).await;
        let during = stage.get("/metrics").await.body;
        assert!(during.contains("\nfanout_runs_active 1\n"), "{during}");
        stage.release(1);
    });
    let run = answer.0.header("fanout-run-id").unwrap().to_owned();
    stage.gateway.idle().await;
    let answer = stage.get("/metrics").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = answer.body;
    let types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let expected: Vec<String> = NAMES.iter().map(|(name, kind, _)| format!("# TYPE {name} {kind}")).collect();
    assert_eq!(types, expected);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let base = |name: &&(&str, &str, &[&str])| {
            let rest = line.strip_prefix(name.0).unwrap_or("_");
            ["", "_bucket", "_sum", "_count"]
                .iter()
                .any(|end| rest.strip_prefix(end).is_some_and(|rest| rest.starts_with(['{', ' '])))
        };
        let (_, _, known) = NAMES.iter().find(base).unwrap_or_else(|| panic!("{line}"));
        assert_eq!(labels(line), known.iter().copied().collect(), "{line}");
        let value = line.rsplit_once(' ').unwrap().1;
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    assert!(!text.contains(&run), "a run is no label");
    for line in [
        "fanout_calls_total{tool=\"echo\",outcome=\"ok\"} 1",
        "fanout_calls_total{tool=\"fail\",outcome=\"upstream\"} 1",
        "fanout_call_duration_seconds_count 3",
        "fanout_call_wait_seconds_count{why=\"lock\"} 3",
        "fanout_call_wait_seconds_count{why=\"limit\"} 3",
        "fanout_call_wait_seconds_count{why=\"conflict\"} 0",
        "fanout_limit_queue_depth{group=\"in_flight\"} 0",
        "fanout_runs_active 0",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn what_a_call_waited_for_is_counted_by_its_reason() {
    let stage = Stage::with("[scheduler]\nmax_in_flight = 1");
    let same = body("a=pay b=pay").replace("\"id\":\"b\"}", "\"id\":\"a\"}");
    let (answer, ()) = tokio::join!(stage.post(TOOL_CALLS, &[], &same), async {
        stage.started(1).await;
        let other = crate::client::begin(
            stage.address,
            "POST",
            TOOL_CALLS,
            &[("content-type", "application/json")],
            &body("c=hold"),
        )
        .await;
        while !stage.get("/metrics").await.body.contains("fanout_limit_queue_depth{group=\"in_flight\"} 1") {
            tokio::task::yield_now().await;
        }
        stage.release(3);
        drop(other);
    });
    assert_eq!(answer.status, 200);
    stage.gateway.idle().await;
    let text = stage.get("/metrics").await.body;
    assert!(text.contains("fanout_call_wait_seconds_count{why=\"conflict\"} 1"), "{text}");
    assert!(text.contains("fanout_limit_queue_depth{group=\"in_flight\"} 0"), "{text}");
}

#[tokio::test]
async fn a_tool_that_nobody_has_is_no_label() {
    let stage = Stage::new();
    let calls = body("a=made_up b=made_up_too").replace(r#"{"content""#, r#"{"unknown":"error","content""#);
    stage.post(TOOL_CALLS, &[], &calls).await;
    let text = stage.get("/metrics").await.body;
    assert!(text.contains("fanout_calls_total{tool=\"(unknown)\",outcome=\"unknown_tool\"} 2"), "{text}");
    assert!(!text.contains("made_up"));
}

#[tokio::test]
async fn it_says_that_it_lives_and_what_there_is() {
    let stage = Stage::new();
    for path in ["/livez", "/readyz"] {
        let answer = stage.get(path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"), "{path}");
        assert!(answer.header("request-id").unwrap().starts_with("req_"));
    }
    let document = stage.get("/openapi.json").await;
    assert_eq!(document.json()["openapi"], "3.1.0");
}
