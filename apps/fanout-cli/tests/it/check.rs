//! `fanout check`, and what becomes of the lines that it proposes.

use serde_json::json;

use crate::api::Api;
use crate::binary::{Desk, content};

/// Two reads and a write of one host, without a word on what they touch.
fn undeclared(api: &Api) -> String {
    [
        api.tool("get_order", "GET", "ok/orders/{id}", ""),
        api.tool("list_prices", "GET", "ok/prices", "timeout = \"5s\""),
        api.tool("add_note", "POST", "ok/notes/{id}", "after = [\"get_order\"]"),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tool_is_listed_with_who_says_what_it_touches() {
    let api = Api::open().await;
    let desk = Desk::with(&undeclared(&api));
    let text = desk.run(&["check"], "").await.code(0).out;
    let host = api.url("").trim_end_matches('/').replace("http://", "http/");
    let expected = format!(
        "3 tools\n\nget_order ({host}, repeatable)\n  reads {host}; writes nothing (inferred)\n  timeout 30.00 s; deadline \
         2 m 00 s\n  waits for other calls of {host}; to be reviewed and added: reads = [\"order/{{id}}\"]\n\n\
         list_prices ({host}, repeatable)\n  reads {host}; writes nothing (inferred)\n  timeout 5.00 s; deadline 2 m 00 s\n  \
         waits for other calls of {host}; to be reviewed and added: reads = [\"price/*\"]\n\n\
         add_note ({host}, not repeatable: tried once)\n  reads nothing; writes {host} (inferred)\n  timeout 30.00 s; \
         deadline 2 m 00 s; after get_order\n  waits for other calls of {host}; to be reviewed and added: \
         writes = [\"note/{{id}}\"]\n"
    );
    let (file, rest) = text.split_once(": ").unwrap();
    assert!(file.ends_with("fanout.toml"), "{file}");
    assert_eq!(rest, expected);
    let lines = desk.run(&["check", "--json"], "").await.code(0).lines();
    assert_eq!(
        lines[2],
        json!({
            "type": "tool", "tool": "add_note", "source": host, "repeatable": false, "declared": false, "reads": [],
            "writes": [host], "timeout_ms": 30_000, "deadline_ms": 120_000, "after": ["get_order"], "serialises": true,
            "proposed": "writes = [\"note/{id}\"]",
        })
    );
    assert_eq!(api.all(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proposed_lines_make_the_waits_go_away() {
    let api = Api::open().await;
    let config = undeclared(&api).replace("after = [\"get_order\"]", "");
    let calls =
        content(&[("a", "get_order", r#"{"id":"1"}"#), ("b", "list_prices", "{}"), ("c", "add_note", r#"{"id":"1"}"#)]);
    let before = Desk::with(&config).run(&["explain", "--json"], &calls).await.code(0).json();
    assert_eq!(before["waves"], 2);
    let mut declared = config.clone();
    for line in Desk::with(&config).run(&["check", "--json"], "").await.code(0).lines() {
        let name = format!("name = {}\n", line["tool"]);
        declared = declared.replace(&name, &format!("{name}{}\n", line["proposed"].as_str().unwrap()));
    }
    let desk = Desk::with(&declared);
    let after = desk.run(&["explain", "--json"], &calls).await.code(0).json();
    assert_eq!((&after["waves"], &after["critical_path"]), (&json!(1), &json!(["a"])));
    let lines = desk.run(&["check", "--json"], "").await.code(0).lines();
    assert!(lines.iter().all(|line| line["declared"] == true && line["serialises"] == false), "{lines:?}");
    assert!(lines.iter().all(|line| line["proposed"].is_null()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_partly_declared_and_shares_a_key_is_warned_of() {
    let (shop, mail) = (Api::open().await, Api::open().await);
    let half = shop.tool("get_order", "GET", "ok/orders/{id}", "reads = [\"order/{id}\"]")
        + &shop.tool("add_note", "POST", "ok/notes/{id}", "");
    let alone = half.clone() + &mail.tool("send", "POST", "ok/send/{id}", "writes = [\"mail/{id}\"]");
    let out = Desk::with(&alone).run(&["check"], "").await.code(0).out;
    assert!(!out.contains("warning:"), "no key is shared: {out}");
    let shared = half + &mail.tool("send", "POST", "ok/send/{id}", "reads = [\"order/{id}\"]\nwrites = []");
    let desk = Desk::with(&shared);
    let out = desk.run(&["check"], "").await.code(0).out;
    let warning = out.lines().last().unwrap();
    assert!(warning.starts_with("warning: `add_note` says nothing of what it touches"), "{out}");
    assert!(warning.ends_with("to be reviewed and added: writes = [\"note/{id}\"]"), "{out}");
    let lines = desk.run(&["check", "--json"], "").await.code(0).lines();
    let last = lines.last().unwrap();
    assert_eq!((&last["type"], &last["tool"]), (&json!("warning"), &json!("add_note")));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_alone_need_no_declaration() {
    let api = Api::open().await;
    let config = api.tool("a", "GET", "ok/a", "") + &api.tool("b", "GET", "ok/b", "");
    let lines = Desk::with(&config).run(&["check", "--json"], "").await.code(0).lines();
    assert!(lines.iter().all(|line| line["serialises"] == false && line["proposed"].is_null()), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_configuration_there_are_no_tools() {
    let came = Desk::new().run(&["check"], "").await.code(0);
    assert_eq!(came.out, "no fanout.toml here or above: the defaults hold, and there are no tools\n");
}
