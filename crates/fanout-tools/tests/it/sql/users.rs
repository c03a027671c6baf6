//! In the name of end users: row-level security holds, on every connection, for each call anew.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fanout_core::call::Call;
use fanout_core::run::{RunOptions, Scheduler};
use fanout_core::tool::{Attempt, CallerToken, Tool, ToolError};
use fanout_core::toolbox::Toolbox;
use fanout_testing::postgres::{Database as Place, Pgbouncer, Postgres};
use fanout_tools::sql::{Database, DatabaseOptions, SqlTool};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::{nothing, run};

const ALICE: &str = "aaaaaaaa-0000-4000-8000-000000000001";
const BOB: &str = "bbbbbbbb-0000-4000-8000-000000000002";

const SCHEMA: &str = "create table orders (id int primary key, owner uuid not null, total int not null);
    alter table orders enable row level security;
    create policy own on orders using (owner = auth.uid()) with check (owner = auth.uid());
    grant select, insert, update, delete on orders to authenticated;
    insert into orders select n, 'aaaaaaaa-0000-4000-8000-000000000001', n from generate_series(1, 5) n;
    insert into orders select n, 'bbbbbbbb-0000-4000-8000-000000000002', n from generate_series(6, 12) n;";

/// A database set up as Supabase does it, and the URL of the role that may only become others.
async fn place() -> (Postgres, Place, String) {
    let server = Postgres::shared().unwrap();
    let place = server.database().await.unwrap();
    let url = place.supabase().await.unwrap();
    place.sql(SCHEMA).await.unwrap();
    (server, place, url)
}

fn in_names_of_users(url: &str) -> Database {
    Database::new("shop", DatabaseOptions { role_from_claims: true, ..DatabaseOptions::new(url) }).unwrap()
}

fn claims(of: &Value) -> Map<String, Value> {
    of.as_object().unwrap().clone()
}

fn token(sub: &str) -> CallerToken {
    let claims = claims(&json!({"sub": sub, "role": "authenticated"}));
    CallerToken::verified("t0ken", claims, SystemTime::now() + Duration::from_secs(3600))
}

async fn call(tool: &SqlTool, token: Option<CallerToken>, input: Value) -> Result<Value, ToolError> {
    let mut attempt = Attempt::detached("orders", input);
    attempt.caller_token = token;
    tool.call(attempt).await.map(|output| output.value())
}

fn statement(database: &Database, text: &str) -> SqlTool {
    SqlTool::builder("orders", database).statement(text).build().unwrap()
}

#[tokio::test]
async fn who_says_not_who_they_are_sees_nothing() {
    let (_server, place, url) = place().await;
    // The role that connects is nobody, and a user without claims owns no rows.
    let role = "select rolsuper or rolbypassrls from pg_roles where rolname = 'authenticator'";
    assert_eq!(place.sql(role).await.unwrap().trim(), "f");
    let unclaimed = "set role authenticated; select count(*) from orders";
    assert_eq!(place.sql(unclaimed).await.unwrap().lines().last(), Some("0"));
    let plain = Database::new("shop", DatabaseOptions::new(&*url)).unwrap();
    let error = run(&plain, "select * from orders", nothing()).await.unwrap_err();
    assert!(matches!(&error, ToolError::NotPermitted(told) if told.contains("permission denied")), "{error:?}");

    let database = in_names_of_users(&url);
    let read = statement(&database, "select id from orders");
    let in_a_moment = SystemTime::now() + Duration::from_secs(60);
    for (token, part) in [
        (None, "no end user's token"),
        (Some(CallerToken::from("t0ken")), "was not verified"),
        (
            Some(CallerToken::verified("t0ken", claims(&json!({"role": "authenticated"})), SystemTime::UNIX_EPOCH)),
            "expired",
        ),
        (Some(CallerToken::verified("t0ken", claims(&json!({"sub": ALICE})), in_a_moment)), "`role`"),
        (Some(CallerToken::verified("t0ken", claims(&json!({"role": 7})), in_a_moment)), "`role`"),
        (Some(CallerToken::verified("t0ken", claims(&json!({"role": "none"})), in_a_moment)), "`role`"),
        (Some(CallerToken::verified("t0ken", claims(&json!({"role": "postgres"})), in_a_moment)), "`postgres`"),
        (Some(CallerToken::verified("t0ken", claims(&json!({"role": "no one"})), in_a_moment)), "`no one`"),
    ] {
        let error = call(&read, token, nothing()).await.unwrap_err();
        let ToolError::NotPermitted(told) = &error else { panic!("{part}: {error:?}") };
        assert!(told.contains(part) && told.contains("Nothing was") && !told.contains("t0ken"), "{told}");
    }
}

#[tokio::test]
async fn each_user_reads_and_writes_their_own_rows_and_no_others() {
    let (_server, _place, url) = place().await;
    let database = in_names_of_users(&url);
    let read = statement(&database, "select id from orders order by id");
    let ids =
        |answer: &Value| answer["rows"].as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect();
    let alices: Vec<i64> = ids(&call(&read, Some(token(ALICE)), nothing()).await.unwrap());
    let bobs: Vec<i64> = ids(&call(&read, Some(token(BOB)), nothing()).await.unwrap());
    assert_eq!((alices, bobs), ((1..=5).collect(), (6..=12).collect()));
    let write = statement(&database, "update orders set total = :total where id = :id");
    let written = call(&write, Some(token(ALICE)), json!({"id": 6, "total": 0})).await.unwrap();
    assert_eq!(written, json!({"count": 0}), "it is Bob's");
    let write = statement(&database, "insert into orders values (:id, :owner, 1)");
    let error = call(&write, Some(token(ALICE)), json!({"id": 99, "owner": BOB})).await.unwrap_err();
    assert!(matches!(&error, ToolError::NotPermitted(told) if told.contains("row-level security")), "{error:?}");
    // What a claim says is a value too.
    let hostile = claims(&json!({"sub": ALICE, "role": "authenticated", "name": "'); drop table orders; --"}));
    let hostile = CallerToken::verified("t0ken", hostile, SystemTime::now() + Duration::from_secs(60));
    let name = statement(&database, "select auth.jwt() ->> 'name' as name");
    let said = call(&name, Some(hostile), nothing()).await.unwrap();
    assert_eq!(said["rows"], json!([{"name": "'); drop table orders; --"}]));
}

/// Calls of two users, mixed on the same connections; each row that comes back is the caller's own.
async fn mixed(url: &str, calls: usize) {
    let database = in_names_of_users(url);
    database.learn().await.unwrap();
    let mut toolbox = Toolbox::new();
    let who =
        "select owner::text, auth.uid()::text as uid, current_user::text as role from orders where id = any(:ids)";
    toolbox.add(SqlTool::builder("read", &database).statement(who).build().unwrap()).unwrap();
    let more = "update orders set total = total + 1 where id = any(:ids)";
    toolbox.add(SqlTool::builder("write", &database).statement(more).build().unwrap()).unwrap();
    let (scheduler, toolbox) = (Scheduler::default(), Arc::new(toolbox));
    let mut all = JoinSet::new();
    for number in 0..calls {
        let (me, own) = if number % 2 == 0 { (ALICE, 5) } else { (BOB, 7) };
        let options = RunOptions { caller_token: Some(token(me)), ..RunOptions::new(format!("r{number}").as_str()) };
        let mut run = scheduler.run(Arc::clone(&toolbox), options);
        all.spawn(async move {
            let tool = if number % 10 < 2 { "write" } else { "read" };
            let mut batch = run.batch();
            batch.call(Call::new(0, "c", tool, json!({"ids": (1..=12).collect::<Vec<_>>()}))).unwrap();
            batch.commit();
            let outcome = batch.finish().await.remove(0);
            let answer = outcome.result.as_ref().unwrap_or_else(|error| panic!("{}", error.message)).value();
            assert_eq!(answer["count"], json!(own), "{answer}");
            for row in answer["rows"].as_array().into_iter().flatten() {
                assert_eq!(row, &json!({"owner": me, "uid": me, "role": "authenticated"}));
            }
        });
        if all.len() >= 500 {
            all.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_of_two_users_on_the_same_connections_cross_no_row() {
    let (_server, _place, url) = place().await;
    mixed(&url, 10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_user_is_left_for_the_next_one_behind_a_transaction_pooler() {
    let (server, _place, url) = place().await;
    let pooler = Pgbouncer::start(&server).unwrap();
    let url = pooler.url(&url);
    mixed(&url, 2_000).await;
    let plain = Database::new("shop", DatabaseOptions::new(&*url)).unwrap();
    let left = "select current_user::text as role, coalesce(current_setting('request.jwt.claims', true), '') as claims";
    for _ in 0..20 {
        let left = run(&plain, left, nothing()).await.unwrap();
        assert_eq!(left["rows"], json!([{"role": "authenticator", "claims": ""}]));
    }
}
