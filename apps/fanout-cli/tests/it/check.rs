//! `fanout check`, and what becomes of the lines that it proposes.

use serde_json::{Value, json};

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
         2 m 00 s; limit {host}\n  waits for other calls of {host}; to be reviewed and added: reads = [\"order/{{id}}\"]\n\n\
         list_prices ({host}, repeatable)\n  reads {host}; writes nothing (inferred)\n  timeout 5.00 s; deadline 2 m 00 s; limit {host}\n  \
         waits for other calls of {host}; to be reviewed and added: reads = [\"price/*\"]\n\n\
         add_note ({host}, not repeatable: tried again only if nothing was carried out)\n  reads nothing; writes {host} (inferred)\n  timeout 30.00 s; \
         deadline 2 m 00 s; limit {host}; after get_order\n  waits for other calls of {host}; to be reviewed and added: \
         writes = [\"note/{{id}}\"]\n\n\
         plan (a whole graph of calls in one turn): here offered ([run] plan = true); by the gateway not offered ([server] plan = false)\n\n\
         limit groups: 1\n\n{host} (unasked)\n  for get_order, list_prices, add_note\n  no rate; 32 run at once; at most 1000 \
         wait, 60 s each\n  4 attempts, waits of up to 200 ms, doubling up to 10 s; left alone for 15 s once 50 % of 10 or \
         more attempts in 30 s failed\n"
    );
    let (file, rest) = text.split_once(": ").unwrap();
    assert!(file.ends_with("fanout.toml"), "{file}");
    assert_eq!(rest, expected);
    let lines = desk.run(&["check", "--json"], "").await.code(0).lines();
    assert_eq!(
        lines[2],
        json!({
            "type": "tool", "tool": "add_note", "source": host, "repeatable": false, "declared": false, "catalogue": null, "reads": [],
            "writes": [host], "timeout_ms": 30_000, "deadline_ms": 120_000, "limit": host, "after": ["get_order"], "exactly_once": null, "serialises": true,
            "proposed": "writes = [\"note/{id}\"]", "reasons": [], "approval": "never",
        })
    );
    assert_eq!(
        lines[3],
        json!({
            "type": "limit", "group": host, "unasked": true, "tools": ["get_order", "list_prices", "add_note"],
            "rate": null, "burst": 1, "concurrency": 32, "max_queue": 1_000, "max_wait_ms": 60_000,
            "retry": {"attempts": 4, "base_ms": 200, "max_ms": 10_000},
            "breaker": {"failure_ratio": 0.5, "window_ms": 30_000, "min_calls": 10, "cool_down_ms": 15_000},
        })
    );
    assert_eq!(lines[4], json!({"type": "plan", "run": true, "server": false}));
    let turned = format!("{}[run]\nplan = false\n[server]\nplan = true\n", undeclared(&api));
    let text = Desk::with(&turned).run(&["check"], "").await.code(0).out;
    let line = "\nplan (a whole graph of calls in one turn): here not offered ([run] plan = false); by the gateway offered ([server] plan = true)\n";
    assert!(text.contains(line), "{text}");
    assert_eq!(api.all(), 0);
}

/// The lines about tools.
async fn tools(desk: &Desk) -> Vec<Value> {
    let lines = desk.run(&["check", "--json"], "").await.code(0).lines();
    lines.into_iter().filter(|line| line["type"] == "tool").collect()
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
    for line in tools(&Desk::with(&config)).await {
        let name = format!("name = {}\n", line["tool"]);
        declared = declared.replace(&name, &format!("{name}{}\n", line["proposed"].as_str().unwrap()));
    }
    let desk = Desk::with(&declared);
    let after = desk.run(&["explain", "--json"], &calls).await.code(0).json();
    assert_eq!((&after["waves"], &after["critical_path"]), (&json!(1), &json!(["a"])));
    let lines = tools(&desk).await;
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
    let lines = tools(&Desk::with(&config)).await;
    assert!(lines.iter().all(|line| line["serialises"] == false && line["proposed"].is_null()), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_configuration_there_are_no_tools() {
    let came = Desk::new().run(&["check"], "").await.code(0);
    assert_eq!(came.out, "no fanout.toml here or above: the defaults hold, and there are no tools\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_which_calls_are_carried_out_exactly_once() {
    let config = r#"
[[tool]]
name = "look"
input = { id = { type = "integer" } }
sql = { database = "shop", statement = "select n from stock where id = :id" }

[[tool]]
name = "take"
input = { id = { type = "integer" } }
sql = { database = "shop", statement = "update stock set n = n - 1 where id = :id" }

[database.shop]
url = "sqlite://shop.db"
"#;
    let desk = Desk::with(config);
    let shop = rusqlite::Connection::open(desk.folder().join("shop.db")).unwrap();
    shop.execute_batch("create table stock (id integer primary key, n integer not null);").unwrap();
    let once = |lines: Vec<Value>| lines.iter().map(|line| line["exactly_once"].clone()).collect::<Vec<_>>();
    assert_eq!(once(tools(&desk).await), [Value::Null, json!(false)]);
    let out = desk.run(&["check"], "").await.code(0).out;
    assert!(
        out.contains("not exactly once") && out.contains("set `url` of [store] to that of [database.shop]"),
        "{out}"
    );
    assert!(!desk.folder().join(".fanout").exists(), "nothing is opened to say so");
    desk.write("fanout.toml", &format!("{config}\n[store]\nurl = \"sqlite://./shop.db\"\n"));
    assert_eq!(once(tools(&desk).await), [Value::Null, json!(true)]);
    let out = desk.run(&["check"], "").await.code(0).out;
    assert!(out.contains("\n  exactly once: ") && !out.contains("not exactly once"), "{out}");
    desk.write("fanout.toml", &format!("{config}\n[store]\nurl = \"memory:\"\n"));
    assert_eq!(once(tools(&desk).await), [Value::Null, json!(false)]);
}
