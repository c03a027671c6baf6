//! Statements as tools, from a configuration to the rows.

use fanout_testing::postgres::Postgres;
use serde_json::{Value, json};

use crate::binary::{Came, Desk, content, ended};

const SCHEMA: &str =
    "create table inventory (sku text primary key, qty integer not null, version integer not null default 1);
    create table orders (id integer primary key, sku text references inventory (sku), n integer);
    insert into inventory (sku, qty) values ('a', 5), ('b', 5);";

/// The shop's tools, on a database at this URL.
fn config(url: &str) -> String {
    format!(
        r#"[database.shop]
url = "{url}"

[[tool]]
name = "get_stock"
input = {{ sku = {{ type = "string" }} }}
sql = {{ database = "shop", statement = "select qty, version from inventory where sku = :sku" }}

[[tool]]
name = "take_stock"
input = {{ sku = {{ type = "string" }}, n = {{ type = "integer" }}, version = {{ type = "integer" }} }}
sql = {{ database = "shop", statement = "update inventory set qty = qty - :n, version = version + 1 where sku = :sku and version = :version returning qty, version", expect_rows = 1 }}

[[tool]]
name = "count_orders"
sql = {{ database = "shop", statement = "select count(*) as n from orders" }}
"#
    )
}

/// A folder with the configuration and the shop's file.
fn shop() -> Desk {
    let desk = Desk::with(&config("sqlite://shop.db"));
    rusqlite::Connection::open(desk.folder().join("shop.db")).unwrap().execute_batch(SCHEMA).unwrap();
    desk
}

fn turn() -> String {
    content(&[
        ("a", "get_stock", r#"{"sku": "a"}"#),
        ("b", "take_stock", r#"{"sku": "a", "n": 2, "version": 1}"#),
        ("c", "get_stock", r#"{"sku": "a"}"#),
        ("d", "take_stock", r#"{"sku": "a", "n": 1, "version": 1}"#),
        ("e", "get_stock", r#"{"sku": "b"}"#),
        ("f", "count_orders", "{}"),
    ])
}

#[track_caller]
fn check_turn(came: &Came) {
    let results: Vec<Value> = came.results().iter().map(|(_, _, text)| serde_json::from_str(text).unwrap()).collect();
    assert_eq!(results[0]["rows"], json!([{"qty": 5, "version": 1}]));
    assert_eq!(results[1]["rows"], json!([{"qty": 3, "version": 2}]));
    assert_eq!(results[2]["rows"], json!([{"qty": 3, "version": 2}]));
    assert_eq!(results[3]["error"]["code"], "conflict", "{}", results[3]);
    assert_eq!(results[4]["rows"], json!([{"qty": 5, "version": 1}]));
    assert_eq!(results[5]["rows"], json!([{"n": 0}]));
}

#[tokio::test]
async fn a_turn_reads_and_writes_rows_as_one_by_one() {
    check_turn(&shop().run(&["call"], &turn()).await.code(0));
    let place = Postgres::shared().unwrap().database().await.unwrap();
    place.sql(SCHEMA).await.unwrap();
    let desk = Desk::with(&config("${DATABASE_URL}")).set("DATABASE_URL", place.user_url());
    check_turn(&desk.run(&["call"], &turn()).await.code(0));
}

#[tokio::test]
async fn what_waits_for_what_is_seen_down_to_the_row() {
    let graph = shop().run(&["explain", "--format", "json"], &turn()).await.code(0).out;
    let graph: Value = serde_json::from_str(&graph).unwrap();
    let waits = |id: &str| -> Vec<String> {
        let call = graph["calls"].as_array().unwrap().iter().find(|call| call["id"] == id).unwrap();
        call["waits"].as_array().unwrap().iter().map(|wait| format!("{} {}", wait["on"], wait["key"])).collect()
    };
    let row = "\"sql/shop/inventory/a\"";
    assert_eq!(waits("b"), [format!("\"a\" {row}")]);
    assert_eq!(waits("c"), [format!("\"b\" {row}")]);
    assert!(waits("e").is_empty() && waits("f").is_empty(), "{graph}");
}

#[tokio::test]
async fn check_says_what_each_tool_touches_and_why() {
    let checked = shop().run(&["check"], "").await.code(0).out;
    for part in [
        "reads sql/shop/inventory/{sku}; writes nothing (inferred)",
        "reads nothing; writes sql/shop/inventory/{sku} (inferred)",
        "reads sql/shop/orders/*; writes nothing (inferred)",
        "limit sql/shop",
        "20 run at once",
    ] {
        assert!(checked.contains(part), "{part}:\n{checked}");
    }
    assert!(!checked.contains("to be reviewed and added"), "{checked}");
    let lines = shop().run(&["check", "--json"], "").await.code(0).out;
    let tool: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert!(tool["reasons"][0].as_str().is_some_and(|why| why.contains("inventory") && why.contains("sku")), "{tool}");
}

#[tokio::test]
async fn what_the_database_would_refuse_is_told_before_a_call() {
    let desk = Desk::with(&config("sqlite://shop.db").replace("version from", "versoin from"));
    rusqlite::Connection::open(desk.folder().join("shop.db")).unwrap().execute_batch(SCHEMA).unwrap();
    let checked = desk.run(&["check"], "").await.code(2);
    let told = "the database `shop` refuses a statement of `get_stock`: no such column: versoin";
    assert!(checked.err.contains(told) && checked.err.contains("fanout.toml:4:"), "{}", checked.err);
}

#[tokio::test]
async fn a_database_that_cannot_be_had_is_told_and_nothing_is_lost() {
    // The file is not there: no call is carried out, and each is told so.
    let desk = Desk::with(&config("sqlite://shop.db"));
    let called = desk.run(&["call"], &content(&[("a", "get_stock", r#"{"sku": "a"}"#)])).await.code(0);
    assert!(called.err.contains("the tools of the database `shop` are taken to touch all of it"), "{}", called.err);
    assert!(
        called.out.contains("cannot open its database") && called.out.contains("Nothing was carried out"),
        "{}",
        called.out
    );
    assert!(!desk.folder().join("shop.db").exists());
    // A variable that is not set: the tools are missing where they would run, and shown where they are looked at.
    let desk = Desk::with(&config("${DATABASE_URL}"));
    let called = desk.run(&["call"], &content(&[("a", "get_stock", r#"{"sku": "a"}"#)])).await.code(0);
    assert!(called.err.contains("DATABASE_URL") && called.err.contains("its tools are missing"), "{}", called.err);
    assert!(called.out.contains("unknown_tool"), "{}", called.out);
    let checked = desk.run(&["check"], "").await.code(2);
    assert!(
        checked.out.contains("sql/shop/*") && checked.err.contains("shown as touching all of it"),
        "{}",
        checked.err
    );
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_interrupted_is_stopped_in_the_server_before_the_command_ends() {
    let place = Postgres::shared().unwrap().database().await.unwrap();
    place.sql(SCHEMA).await.unwrap();
    let slow = r#"
[database.shop]
url = "${DATABASE_URL}"
statement_timeout = "1m"

[[tool]]
name = "slow"
timeout = "5m"
sql = { database = "shop", statements = ["update inventory set qty = 0 where sku = 'a'", "select pg_sleep(50)"] }
"#;
    let desk = Desk::with(slow).set("DATABASE_URL", place.user_url());
    let child = desk.start(&["call"], &content(&[("a", "slow", "{}")]));
    let running = "select count(*) from pg_stat_activity where state <> 'idle' and query like '%pg_sleep%' and pid <> pg_backend_pid()";
    while place.sql(running).await.unwrap().trim() != "1" {
        tokio::task::yield_now().await;
    }
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    ended(child).await.code(130);
    assert_eq!(place.sql(running).await.unwrap().trim(), "0");
    assert_eq!(place.sql("select qty from inventory where sku = 'a'").await.unwrap().trim(), "5");
}
