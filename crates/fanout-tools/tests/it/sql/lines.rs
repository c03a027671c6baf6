//! The line to the server: TLS as libpq means it, and poolers in between.

use fanout_core::tool::ToolError;
use fanout_testing::postgres::{Pgbouncer, Postgres};
use fanout_tools::sql::{Database, DatabaseOptions};
use serde_json::json;
use tokio::task::JoinSet;

use super::{call, nothing, one, postgres, run, tool};

fn open(url: &str) -> Database {
    Database::new("shop", DatabaseOptions::new(url)).unwrap()
}

#[tokio::test]
async fn tls_is_demanded_and_proven_as_sslmode_says() {
    let server = Postgres::shared().unwrap();
    let place = server.database().await.unwrap();
    let by_name = place.user_url();
    let by_address = by_name.replace("localhost", "127.0.0.1");
    let authority = server.authority();
    let authority = authority.display();
    let is_encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    for (url, encrypted) in [
        (format!("{by_address}?sslmode=disable"), false),
        (by_address.clone(), true),
        (format!("{by_address}?sslmode=require"), true),
        (format!("{by_name}?sslmode=verify-full&sslrootcert={authority}"), true),
        // The certificate is for another name, and its root is known.
        (format!("{by_address}?sslmode=verify-ca&sslrootcert={authority}"), true),
        (format!("{by_address}?sslmode=require&sslrootcert={authority}"), true),
    ] {
        assert_eq!(one(&open(&url), is_encrypted, nothing()).await, json!(encrypted), "{url}");
    }
    for (url, part) in [
        // For another name.
        (format!("{by_address}?sslmode=verify-full&sslrootcert={authority}"), "not valid for name"),
        // Of a root that nobody knows.
        (format!("{by_name}?sslmode=verify-full"), "certificate"),
        (format!("{by_name}?sslmode=verify-ca"), "certificate"),
    ] {
        let refused = run(&open(&url), is_encrypted, nothing()).await;
        let Err(ToolError::NotSent(told)) = &refused else { panic!("{url}: {refused:?}") };
        assert!(told.to_lowercase().contains(part), "{told}");
    }
    place.demand_tls().await.unwrap();
    let error = run(&open(&format!("{by_address}?sslmode=disable")), is_encrypted, nothing()).await.unwrap_err();
    assert!(matches!(&error, ToolError::Failed(told) if told.contains("encryption")), "{error:?}");
    assert_eq!(one(&open(&by_address), is_encrypted, nothing()).await, json!(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_transaction_pooler_every_statement_finds_its_types() {
    let schema = "create type mood as enum ('sad', 'ok'); create table t (n int primary key, mood mood not null);
        create table log (n int)";
    let (place, direct) = postgres(schema).await;
    let pooler = Pgbouncer::start(&Postgres::shared().unwrap()).unwrap();
    let database = open(&pooler.url(&place.user_url()));
    let write = tool(&database, "insert into t values (:n, :mood) returning n, mood").build().unwrap();
    let read = tool(&database, "select array_agg(mood) as moods from t where n = any(:ns)").build().unwrap();
    let mut all = JoinSet::new();
    for n in 0..400 {
        let (write, read) = (write.clone(), read.clone());
        all.spawn(async move {
            // What meets another client's statement of the same name was undone, and goes again.
            let mut written = call(&write, json!({"n": n, "mood": "ok"})).await;
            while let Err(ToolError::RolledBack(_)) = written {
                written = call(&write, json!({"n": n, "mood": "ok"})).await;
            }
            assert_eq!(written.unwrap()["rows"], json!([{"n": n, "mood": "ok"}]));
            let mut found = call(&read, json!({"ns": [n]})).await;
            while let Err(ToolError::RolledBack(_)) = found {
                found = call(&read, json!({"ns": [n]})).await;
            }
            assert_eq!(found.unwrap()["rows"], json!([{"moods": ["ok"]}]));
        });
    }
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
    assert_eq!(one(&direct, "select count(*) from t", nothing()).await, json!(400));
    // Stopping a statement reaches the server through the pooler too.
    let slow = tool(&database, "select pg_sleep(60)").build().unwrap();
    let running = "select count(*) from pg_stat_activity where state = 'active' and query like '%pg_sleep%'
        and pid <> pg_backend_pid()";
    let sleeping = tokio::spawn(async move { call(&slow, nothing()).await });
    while place.sql(running).await.unwrap().trim() != "1" {
        tokio::task::yield_now().await;
    }
    sleeping.abort();
    while place.sql(running).await.unwrap().trim() != "0" {
        tokio::task::yield_now().await;
    }
    // And the pooler lives on: some end when a request to cancel is hung up too soon.
    for n in 0..10 {
        assert_eq!(one(&database, "select :n::int", json!({ "n": n })).await, json!(n));
    }
}
