//! `fanout runs replay`: a run once more, with what was recorded of it or with the world as it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanout_script::{Block, Fault, Script, Server, ServerOptions, Turn};
use serde_json::{Value, json};

use crate::api::Api;
use crate::binary::{Desk, content};

/// The newest run's id.
async fn newest(desk: &Desk) -> String {
    row(desk).await["id"].as_str().unwrap().to_owned()
}

async fn row(desk: &Desk) -> Value {
    desk.run(&["runs", "list", "--limit", "1", "--json"], "").await.code(0).lines()[0].clone()
}

/// The lines of that type.
fn of_type<'a>(lines: &'a [Value], wanted: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == wanted).collect()
}

/// What was different: where, what, then and now.
fn differences(lines: &[Value]) -> Vec<Value> {
    let found = of_type(lines, "difference").into_iter();
    found.map(|line| json!([line["turn"], line["position"], line["what"], line["then"], line["now"]])).collect()
}

fn claude(turns: impl IntoIterator<Item = Turn>) -> Server {
    Server::start(ServerOptions::script(Script::new(turns))).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_answers_give_the_same_run_and_nobody_is_asked() {
    let api = Api::open().await;
    let calls = || [("get", json!({"id": "1"})), ("put", json!({"id": "2"})), ("gone", json!({}))];
    let server = claude([Turn::calls(calls()), Turn::calls(calls()), Turn::text("All is well.")]);
    let config = api.tool("get", "GET", "slow/{id}", "") + &api.tool("put", "PUT", "fail/{id}", "");
    let desk = Desk::with(&config).set("ANTHROPIC_BASE_URL", server.base_url());
    desk.run(&["run", "Is all well?"], "").await.code(0);
    let (run, asked, called) = (newest(&desk).await, server.requests().len(), api.all());

    let came = desk.run(&["runs", "replay", &run], "").await.code(0);
    assert!(came.out.starts_with("no differences: 6 calls, 3 turns; run_"), "{}", came.out);
    assert!(came.err.contains("then: took") && came.err.contains("now:  took"), "{}", came.err);
    assert_eq!((server.requests().len(), api.all()), (asked, called), "nobody was asked");

    let row = row(&desk).await;
    assert_eq!(
        (&row["kind"], &row["state"], &row["title"]),
        (&json!("replay"), &json!("done"), &json!("Is all well?"))
    );
    let again = row["id"].as_str().unwrap();
    let [then, now] = [&run, again].map(|run| desk.start(&["runs", "show", run, "--json"], ""));
    let [then, now] = [crate::binary::ended(then).await.lines(), crate::binary::ended(now).await.lines()];
    let results = |lines: &[Value]| -> Vec<Value> {
        let mut ended = of_type(lines, "call_ended");
        ended.sort_by_key(|line| line["call"].to_string());
        ended.iter().map(|line| json!([line["call"], line["outcome"], line["content"]])).collect()
    };
    assert_eq!(results(&then), results(&now));
    let lines = desk.run(&["runs", "replay", again, "--json"], "").await.code(0).lines();
    let end = lines.last().unwrap();
    assert_eq!((&end["type"], &end["replay_of"], &end["differences"]), (&json!("run_ended"), &json!(again), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_the_same_again_with_its_plans_and_failures() {
    let api = Api::open().await;
    let desk = Desk::with(
        &(api.tool("get", "GET", "ok/{id}", "")
            + &api.tool("post", "POST", "fail/{id}", "")
            + r#"
[[tool]]
name = "take"
input = { sku = { type = "string" } }
sql = { database = "shop", statement = "update stock set n = n - 1 where sku = :sku returning n", expect_rows = 1 }

[database.shop]
url = "sqlite://shop.db"
"#),
    );
    let shop = rusqlite::Connection::open(desk.folder().join("shop.db")).unwrap();
    shop.execute_batch(
        "create table stock (sku text primary key, n integer not null); insert into stock values ('s', 9);",
    )
    .unwrap();
    let plan = r#"{"calls":[{"label":"a","tool":"get","input":{"id":"7"}},
        {"label":"b","tool":"get","input":{"id":{"$ref":"a#/path"}}}],"return":["b"]}"#;
    let atomic = |sku: &str| {
        format!(
            r#"{{"calls":[{{"label":"a","tool":"take","input":{{"sku":"s"}}}},
            {{"label":"b","tool":"take","input":{{"sku":"{sku}"}}}}],"return":["b"],"atomic":true}}"#
        )
    };
    let batch = content(&[
        ("1", "get", r#"{"id":"1"}"#),
        ("2", "post", r#"{"id":"1"}"#),
        ("3", "get", r#"{"id":1}"#),
        ("4", "nothing_such", "{}"),
        ("5", "plan", plan),
        ("6", "plan", &atomic("s")),
        ("7", "plan", &atomic("none")),
    ]);
    let reply = desk.run(&["call"], &batch).await.code(0).results();
    assert_eq!(reply.iter().filter(|(_, is_error, _)| *is_error).count(), 4, "{reply:?}");
    let (run, called) = (newest(&desk).await, api.all());
    let lines = desk.run(&["runs", "replay", &run, "--json"], "").await.code(0).lines();
    assert_eq!(differences(&lines), Vec::<Value>::new());
    assert_eq!(api.all(), called);
    let stock: i64 = shop.query_row("select n from stock", [], |row| row.get(0)).unwrap();
    assert_eq!(stock, 7, "nothing was taken again");
    // With the world as it is now two more are taken, and so the results are others.
    let lines = desk.run(&["runs", "replay", "--live", &run, "--json"], "").await.code(1).lines();
    let found = differences(&lines);
    let places: Vec<_> = found.iter().map(|found| (found[0].clone(), found[1].clone(), found[2].clone())).collect();
    assert_eq!(places, [(json!(0), json!("5"), json!("result"))], "{found:?}");
    assert_eq!(row(&desk).await["kind"], "batch");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_declaration_shows_in_the_figures_and_a_changed_schema_in_the_results() {
    let api = Api::open().await;
    let tool = |more: &str| api.tool("put", "PUT", "slow/{id}", more);
    let desk = Desk::with(&tool(""));
    let batch = content(&[("1", "put", r#"{"id":"a"}"#), ("2", "put", r#"{"id":"b"}"#)]);
    desk.run(&["call"], &batch).await.code(0);
    let run = newest(&desk).await;
    let waits = |lines: &[Value]| -> usize {
        of_type(lines, "call_arrived").iter().map(|line| line["waits"].as_array().unwrap().len()).sum()
    };
    let lines = desk.run(&["runs", "replay", &run, "--json"], "").await.code(0).lines();
    assert_eq!(waits(&lines), 1);

    desk.write("fanout.toml", &tool("writes = [\"thing/{id}\"]"));
    let lines = desk.run(&["runs", "replay", &run, "--json"], "").await.code(0).lines();
    assert_eq!(waits(&lines), 0);
    let end = lines.last().unwrap();
    let [all, longest] = ["one_by_one_ms", "critical_path_ms"].map(|figure| end[figure].as_f64().unwrap());
    assert!(longest < all, "both run at once: {end}");
    let then = desk.run(&["runs", "show", &run, "--json"], "").await.code(0).lines();
    assert!(all >= then.last().unwrap()["one_by_one_ms"].as_f64().unwrap(), "each takes what it took, or more: {end}");
    assert_eq!(api.all(), 2);

    desk.write("fanout.toml", &tool("").replace("\"string\"", "\"integer\""));
    let came = desk.run(&["runs", "replay", &run], "").await.code(1);
    assert!(came.out.contains("call 0: result\n  then: {\"path\":\"a\"}\n  now:  error: "), "{}", came.out);
    assert!(came.out.contains("\n2 differences; run_"), "{}", came.out);
    desk.write("fanout.toml", &tool("").replace("\"put\"", "\"set\""));
    let lines = desk.run(&["runs", "replay", &run, "--json"], "").await.code(1).lines();
    assert!(differences(&lines)[0][4]["content"][0]["text"].as_str().unwrap().contains("unknown_tool"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_replay_tells_what_the_world_and_the_model_say_now() {
    let left = Arc::new(AtomicUsize::new(9));
    let said = Arc::clone(&left);
    let server = Server::start(ServerOptions::responder(move |conversation| match conversation.assistant_turns() {
        0 => Turn::calls([("stock", json!({"sku": "s"}))]),
        _ => Turn::text(format!("{} are left.", said.load(Ordering::SeqCst))),
    }))
    .unwrap();
    let desk = Desk::with(
        r#"
[[tool]]
name = "stock"
input = { sku = { type = "string" } }
sql = { database = "shop", statement = "select n from stock where sku = :sku" }

[database.shop]
url = "sqlite://shop.db"
"#,
    )
    .set("ANTHROPIC_BASE_URL", server.base_url());
    let shop = rusqlite::Connection::open(desk.folder().join("shop.db")).unwrap();
    shop.execute_batch(
        "create table stock (sku text primary key, n integer not null); insert into stock values ('s', 9);",
    )
    .unwrap();
    desk.run(&["run", "--system", "Count.", "How many?"], "").await.code(0);
    shop.execute("update stock set n = 4", []).unwrap();
    left.store(4, Ordering::SeqCst);
    let run = newest(&desk).await;
    assert!(desk.run(&["runs", "replay", &run], "").await.code(0).out.starts_with("no differences"));
    let lines = desk.run(&["runs", "replay", "--live", &run, "--json"], "").await.code(1).lines();
    let found = differences(&lines);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((&found[0][0], &found[0][1], &found[0][2]), (&json!(1), &json!("0"), &json!("result")));
    assert!(found[0][3].to_string().contains("9") && found[0][4].to_string().contains("4"), "{found:?}");
    assert_eq!(found[1], json!([null, null, "answer", "9 are left.", "4 are left."]));
    assert_eq!(row(&desk).await["kind"], "agent");
    let body = |at: usize| -> Value { serde_json::from_slice(&server.requests()[at].body).unwrap() };
    assert_eq!(body(0), body(2), "it is asked as it was then");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ended_badly_ends_so_again() {
    let turn = || Turn::new([Block::text("I look."), Block::tool_use("nothing_such", "{}")]);
    let server = claude([turn(), turn()]);
    let desk = Desk::with("[run]\nmax_turns = 1\n").set("ANTHROPIC_BASE_URL", server.base_url());
    desk.run(&["run", "hi"], "").await.code(3);
    let run = newest(&desk).await;
    let came = desk.run(&["runs", "replay", &run], "").await.code(0);
    assert!(came.out.contains("ended as `budget` (the run has used its 1 turns"), "{}", came.out);
    // With more turns today it would have gone on, and nobody knows how.
    desk.write("fanout.toml", "");
    let came = desk.run(&["runs", "replay", &run], "").await.code(1);
    assert!(came.out.contains("\nstate\n  then: budget\n  now:  failed\n2 differences; "), "{}", came.out);
    assert!(came.out.contains("no further answer of the model is recorded: the run ended as `budget`"), "{}", came.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_run_again_is_refused_with_the_reason() {
    let desk = Desk::with("");
    let came = desk.run(&["runs", "replay", "run_none"], "").await.code(2);
    assert!(came.said("error:").contains("there is no run `run_none`"), "{}", came.err);
    desk.run(&["call"], &content(&[("1", "nothing_such", "{}")])).await.code(0);
    let run = newest(&desk).await;
    let change = |what: &str| {
        let journal = rusqlite::Connection::open(desk.folder().join(".fanout/fanout.db")).unwrap();
        journal.execute_batch(what).unwrap();
    };
    for (what, said) in [
        ("update fanout_run set state = 'queued'", "is `queued`: only one that has ended can be run again"),
        (
            "update fanout_run set state = 'done'; \
             update fanout_event set text = replace(text, '\"kind\":\"batch\"', '\"kind\":\"message\"')",
            "is a `message`, whose client had what it was given",
        ),
        ("delete from fanout_event where n = 1", "does not have what the run"),
    ] {
        change(what);
        let came = desk.run(&["runs", "replay", &run], "").await.code(2);
        assert!(came.said("error:").contains(said), "{}", came.err);
    }
    desk.write("fanout.toml", "[store]\nurl = \"memory:\"\n");
    let came = desk.run(&["runs", "replay", &run], "").await.code(2);
    assert!(came.said("error:").contains("nothing is kept"), "{}", came.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn however_the_model_stopped_it_stops_so_again() {
    let cut_off = || Turn::new([Block::text("It is"), Block::tool_use("nothing_such", "{\"a\":1}")]).stop("max_tokens");
    for (name, turns, ends) in [
        ("it refused", vec![Turn::text("No.").stop("refusal")], 1),
        ("it paused", vec![Turn::text("Wait.").stop("pause_turn"), Turn::text("Now.")], 0),
        ("it was cut off twice", vec![Turn::text("It is").stop("max_tokens")], 1),
        ("a call was cut off twice", vec![cut_off(), Turn::text("Well.")], 0),
        ("it was full", vec![Turn::text("It is").stop("model_context_window_exceeded")], 1),
        ("it failed", vec![Turn::text("").always(Fault::status(400))], 1),
        ("it failed at first", vec![Turn::text("Now.").fault(Fault::status(529))], 0),
    ] {
        let server = claude(turns);
        let desk = Desk::new().set("ANTHROPIC_BASE_URL", server.base_url());
        let came = desk.run(&["run", "hi"], "").await;
        assert_eq!(came.code, Some(ends), "{name}: {}", came.err);
        let (run, asked) = (newest(&desk).await, server.requests().len());
        let came = desk.run(&["runs", "replay", &run], "").await;
        assert_eq!(came.code, Some(0), "{name}: {}{}", came.out, came.err);
        assert_eq!(server.requests().len(), asked, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_in_vain_is_so_again_and_the_run_goes_on() {
    let asked = Arc::new(AtomicUsize::new(0));
    let server = Server::start(ServerOptions::responder(move |conversation| {
        let cut_off =
            || Turn::new([Block::text("I look."), Block::tool_use("nothing_such", "{\"a\":1}"), Block::text("It")]);
        match (conversation.assistant_turns(), asked.fetch_add(1, Ordering::SeqCst)) {
            (0, 0) => cut_off().stop("max_tokens"),
            (0, _) => cut_off().always(Fault::status(400)),
            (1, _) => Turn::calls([("nothing_such", json!({"b": 1}))]),
            _ => Turn::text("Well."),
        }
    }))
    .unwrap();
    let desk = Desk::new().set("ANTHROPIC_BASE_URL", server.base_url());
    assert_eq!(desk.run(&["run", "hi"], "").await.code(0).out, "Well.\n");
    let (run, asked) = (newest(&desk).await, server.requests().len());
    assert_eq!(asked, 4);
    let came = desk.run(&["runs", "replay", &run], "").await.code(0);
    assert!(came.out.starts_with("no differences: ") && came.out.contains("ended as `done`"), "{}", came.out);
    assert_eq!(server.requests().len(), asked);
}
