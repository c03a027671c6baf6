//! `fanout call`: one batch in, one user message out.

use std::io::Read;

use serde_json::Value;

use crate::api::Api;
use crate::binary::{Desk, code_of, content, ended, results};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_its_content_and_a_whole_response_are_answered_alike() {
    let api = Api::open().await;
    let desk = Desk::with(&api.tool("get", "GET", "ok/{id}", ""));
    let content = content(&[("a", "get", r#"{"id":"1"}"#), ("b", "get", r#"{"id":"2"}"#)]);
    let shapes = [
        content.clone(),
        format!(r#"{{"role":"assistant","content":{content}}}"#),
        format!(
            r#"{{"id":"msg_1","type":"message","role":"assistant","model":"m","content":{content},"stop_reason":"tool_use","usage":{{"input_tokens":1}}}}"#
        ),
    ];
    for shape in shapes {
        let results = desk.run(&["call"], &shape).await.code(0).results();
        let expected =
            [("a", r#"{"path":"1"}"#), ("b", r#"{"path":"2"}"#)].map(|(id, text)| (id.into(), false, text.into()));
        assert_eq!(results, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_each_call_has_its_result_in_order() {
    let api = Api::open().await;
    let config = api.tool("fail", "GET", "fail/{id}", "")
        + &api.tool("hang", "POST", "hang/x", "timeout = \"100ms\"\nwrites = [\"hang\"]")
        + &api.tool("get", "GET", "ok/{id}", "reads = [\"x/{id}\"]")
        + &api.tool("stuck", "GET", "hang/y", "timeout = \"100ms\"\nreads = [\"stuck\"]");
    let calls = content(&[
        ("1", "fail", r#"{"id":"1"}"#),
        ("2", "nothing_such", "{}"),
        ("3", "get", r#"{"id":3}"#),
        ("4", "hang", "{}"),
        ("5", "stuck", "{}"),
        ("6", "get", r#"{"id":"6"}"#),
    ]);
    let came = Desk::with(&config).run(&["call"], &calls).await.code(0);
    let results = came.results();
    let ids: Vec<&str> = results.iter().map(|(id, ..)| id.as_str()).collect();
    assert_eq!(ids, ["1", "2", "3", "4", "5", "6"]);
    let codes: Vec<String> = results[..5].iter().map(|(_, _, text)| code_of(text)).collect();
    assert_eq!(codes, ["upstream", "unknown_tool", "invalid_input", "outcome_unknown", "timeout"]);
    assert!(results[..5].iter().all(|(_, is_error, _)| *is_error) && !results[5].1);
    assert!(came.err.contains("✗ nothing_such 0 ms unknown_tool: there is no tool `nothing_such`"), "{}", came.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undeclared_trio_runs_in_waves_and_is_told_the_lines_to_add() {
    let api = Api::open().await;
    let config = api.tool("get_order", "GET", "together/2/{id}", "")
        + &api.tool("get_stock", "GET", "together/2/{id}", "")
        + &api.tool("add_note", "POST", "slow/{id}", "");
    let came = Desk::with(&config).run(&["call"], &trio()).await.code(0);
    assert!(came.results().iter().all(|(_, is_error, _)| !is_error));
    assert_eq!(api.most(), 2, "the write waits for both reads of its host");
    assert!(came.err.contains("for want of a declaration"), "{}", came.err);
    for line in [
        "`add_note`: writes = [\"note/{id}\"]",
        "`get_order`: reads = [\"order/{id}\"]",
        "`get_stock`: reads = [\"stock/{id}\"]",
    ] {
        assert!(came.err.contains(line), "{}", came.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_trio_runs_side_by_side() {
    let api = Api::open().await;
    // None of them is answered before all three are there.
    let config = api.tool("get_order", "GET", "together/3/{id}", "reads = [\"order/{id}\"]")
        + &api.tool("get_stock", "GET", "together/3/{id}", "reads = [\"stock/{id}\"]")
        + &api.tool("add_note", "POST", "together/3/{id}", "writes = [\"note/{id}\"]");
    let came = Desk::with(&config).run(&["call"], &trio()).await.code(0);
    assert!(came.results().iter().all(|(_, is_error, _)| !is_error));
    assert_eq!(api.most(), 3);
    assert!(!came.err.contains("for want of a declaration"), "{}", came.err);
}

fn trio() -> String {
    content(&[
        ("a", "get_order", r#"{"id":"1"}"#),
        ("b", "get_stock", r#"{"id":"1"}"#),
        ("c", "add_note", r#"{"id":"1"}"#),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_calls_find_a_budget_for_the_first_few() {
    let api = Api::open().await;
    let desk = Desk::with(&api.tool("get", "GET", "ok/{id}", ""));
    let ids: Vec<String> = (0..10_000).map(|n| format!("t{n}")).collect();
    let calls: Vec<_> = ids.iter().map(|id| (id.as_str(), "get", r#"{"id":"1"}"#)).collect();
    let came = desk.run(&["call"], &content(&calls)).await.code(0);
    let results = came.results();
    assert!(results.iter().map(|(id, ..)| id).eq(&ids), "one result each, in order");
    assert!(results[..256].iter().all(|(_, is_error, _)| !is_error));
    assert!(results[256..].iter().all(|(_, _, text)| code_of(text) == "budget"));
    assert_eq!(api.all(), 256);
    assert_eq!(
        came.err.lines().filter(|line| line.contains("only the first 256 calls of one response run")).count(),
        1
    );
    assert!(came.err.lines().count() < 300, "a terminal is not flooded with one reason");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_of_a_response_that_was_cut_off_runs() {
    let api = Api::open().await;
    let desk = Desk::with(&api.tool("get", "GET", "ok/{id}", ""));
    let content = content(&[("a", "get", r#"{"id":"1"}"#), ("b", "get", "{}")]);
    for stop in ["max_tokens", "model_context_window_exceeded", "end_turn"] {
        let response = format!(r#"{{"role":"assistant","content":{content},"stop_reason":"{stop}"}}"#);
        let results = desk.run(&["call"], &response).await.code(0).results();
        assert_eq!(results.len(), 2);
        assert!(results.iter().all(|(_, is_error, text)| *is_error && text.contains(stop)), "{results:?}");
    }
    assert_eq!(api.all(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_the_batch_and_still_answers() {
    let api = Api::open().await;
    let desk = Desk::with(&(api.tool("hang", "GET", "hang/x", "") + "[run]\ndeadline = \"100ms\"\n"));
    let lines = desk.run(&["call", "--json"], &content(&[("a", "hang", "{}")])).await.code(0).lines();
    let end = lines.last().unwrap();
    assert_eq!((end["type"].as_str(), end["status"].as_str()), (Some("run_ended"), Some("budget")));
    assert_eq!(end["reason"], "the run has used its 100ms (`deadline`)");
    assert_eq!(results(&lines[lines.len() - 2]["message"])[0].0, "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_tell_every_step_and_end_with_the_reply() {
    let api = Api::open().await;
    let desk = Desk::with(&api.tool("get", "GET", "ok/{id}", ""));
    let came = desk.run(&["call", "--json"], &content(&[("a", "get", r#"{"id":"1"}"#)])).await.code(0);
    let lines = came.lines();
    let kinds: Vec<&str> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    let (events, ends) = kinds.split_at(kinds.len() - 2);
    assert_eq!(ends, ["reply", "run_ended"]);
    for kind in ["run_started", "call_arrived", "call_ready", "call_started", "attempt_ended", "call_ended"] {
        assert_eq!(events.iter().filter(|event| **event == kind).count(), 1, "{kind}: {kinds:?}");
    }
    let [.., reply, end] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(results(&reply["message"]), [("a".to_owned(), false, r#"{"path":"1"}"#.to_owned())]);
    for field in ["elapsed_ms", "one_by_one_ms", "critical_path_ms", "turns", "calls"] {
        assert!(end[field].is_number(), "{field}: {end}");
    }
    assert_eq!(
        (&end["status"], &end["calls"], end["usage"].is_object()),
        (&Value::from("done"), &Value::from(1), true)
    );
    assert_eq!(came.err, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_hangs_up_is_no_reason_to_panic() {
    let api = Api::open().await;
    let desk = Desk::with(&api.tool("get", "GET", "ok/{id}", ""));
    // More than a pipe holds, so that somebody notices.
    let ids: Vec<String> = (0..2_000).map(|n| format!("t{n}")).collect();
    let calls: Vec<_> = ids.iter().map(|id| (id.as_str(), "get", r#"{"id":"1"}"#)).collect();
    for command in [&["call"][..], &["call", "--json"], &["explain"], &["explain", "--format", "mermaid"]] {
        let mut child = desk.start(command, &content(&calls));
        let mut out = child.stdout.take().unwrap();
        let mut first = [0];
        assert_eq!(out.read(&mut first).unwrap(), 1);
        drop(out);
        ended(child).await.code(0);
        let mut child = desk.start(command, &content(&calls));
        drop(child.stderr.take());
        ended(child).await.code(0);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_finds_no_room_is_a_failure() {
    let api = Api::open().await;
    let desk = Desk::with(&api.tool("get", "GET", "ok/{id}", ""));
    let input = content(&[("a", "get", r#"{"id":"1"}"#)]);
    for command in [&["call"][..], &["call", "--json"], &["explain"], &["check"], &["demo"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let child = desk.command(env!("CARGO_BIN_EXE_fanout")).args(command).stdout(full).spawn().unwrap();
        let came = ended(crate::binary::feed(child, &input)).await.code(1);
        assert!(came.err.contains("standard output cannot be written"), "{command:?}: {}", came.err);
    }
}
