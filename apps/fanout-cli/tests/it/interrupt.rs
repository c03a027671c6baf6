//! Signals while it works.
#![cfg(unix)]

use rustix::process::{Pid, Signal, kill_process};

use fanout_script::{Block, Pace, Script, Server, ServerOptions, Turn};

use crate::api::Api;
use crate::binary::{Desk, code_of, content, ended, results};

fn send(child: &std::process::Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_batch_still_answers_every_call() {
    for signal in [Signal::INT, Signal::TERM] {
        let api = Api::open().await;
        let config = api.tool("get", "GET", "ok/{id}", "reads = [\"a\"]")
            + &api.tool("read", "GET", "hang/r", "reads = [\"b\"]")
            + &api.tool("write", "POST", "hang/w", "writes = [\"c\"]");
        let calls = content(&[
            ("1", "read", "{}"),
            ("2", "write", "{}"),
            // Waits for the one before, so it is never sent.
            ("3", "write", "{}"),
            ("4", "nothing_such", "{}"),
        ]);
        let desk = Desk::with(&config);
        let child = desk.start(&["call"], &calls);
        api.until(2).await;
        send(&child, signal);
        let came = ended(child).await.code(130);
        let results = came.results();
        let codes: Vec<(&str, String)> = results.iter().map(|(id, _, text)| (id.as_str(), code_of(text))).collect();
        let expected = [("1", "cancelled"), ("2", "outcome_unknown"), ("3", "cancelled"), ("4", "unknown_tool")];
        assert_eq!(codes, expected.map(|(id, code)| (id, code.to_owned())));
        assert!(came.err.contains("stopping; once more stops at once"), "{}", came.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_batch_answers_in_json_lines_too() {
    let api = Api::open().await;
    let desk = Desk::with(&api.tool("read", "GET", "hang/r", ""));
    let child = desk.start(&["call", "--json"], &content(&[("1", "read", "{}")]));
    api.until(1).await;
    send(&child, Signal::INT);
    let lines = ended(child).await.code(130).lines();
    assert_eq!(lines.last().unwrap()["status"], "cancelled");
    assert_eq!(results(&lines[lines.len() - 2]["message"]).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_says_so() {
    let api = Api::open().await;
    let turn = Turn::new([Block::tool_use("read", "{}")]);
    let server = Server::start(ServerOptions::script(Script::new([turn]))).unwrap();
    let desk = Desk::with(&api.tool("read", "GET", "hang/r", "")).set("ANTHROPIC_BASE_URL", server.base_url());
    let child = desk.start(&["run", "go"], "");
    api.until(1).await;
    send(&child, Signal::TERM);
    let came = ended(child).await.code(130);
    assert_eq!(came.err.lines().last(), Some("cancelled: interrupted"));
    assert_eq!(server.violations(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_while_the_model_thinks_ends_the_run() {
    let think = Pace { think_ms: 600_000, ..Pace::default() };
    let server = Server::start(ServerOptions::script(Script::new([Turn::text("late").pace(think)]))).unwrap();
    let desk = Desk::new().set("ANTHROPIC_BASE_URL", server.base_url());
    let child = desk.start(&["run", "go"], "");
    while server.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    send(&child, Signal::INT);
    assert_eq!(ended(child).await.code(130).err.lines().last(), Some("cancelled: interrupted"));
}
