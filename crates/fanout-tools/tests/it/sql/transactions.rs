//! One call, one transaction: all of it is kept or nothing, and whether it was is known.

use std::time::Duration;

use fanout_core::tool::{Attempt, Policy, Tool, ToolError};
use fanout_testing::postgres::Postgres;
use fanout_tools::sql::{Database, DatabaseOptions, SqlTool};
use serde_json::json;

use super::{call, nothing, one, postgres, run, sqlite, tool};

const STOCK: &str =
    "create table stock (sku text primary key, qty int check (qty >= 0), version int not null default 1);
    insert into stock values ('a', 5, 1), ('b', 5, 1);";

#[tokio::test]
async fn several_statements_are_kept_together_or_not_at_all() {
    let (_place, postgres) = postgres(STOCK).await;
    let (_folder, sqlite) = sqlite(STOCK);
    for database in [postgres, sqlite] {
        let moved = SqlTool::builder("move", &database)
            .statement("update stock set qty = qty - :n where sku = :from")
            .statement("update stock set qty = qty + :n where sku = :to")
            .statement("select sum(qty) as total from stock")
            .expect_rows(1)
            .build()
            .unwrap();
        let answer = call(&moved, json!({"from": "a", "to": "b", "n": 2})).await.unwrap();
        assert_eq!(answer["results"][0], json!({"count": 1}));
        assert_eq!(answer["results"][2]["rows"][0]["total"], json!(10));
        // The second one misses: the first is undone.
        let error = call(&moved, json!({"from": "a", "to": "nowhere", "n": 2})).await.unwrap_err();
        let ToolError::Conflict(told) = &error else { panic!("{error:?}") };
        assert!(told.contains("1 row in statement 2") && told.contains("met 0") && told.contains("`to`"), "{told}");
        // The first one breaks a rule of the table.
        let error = call(&moved, json!({"from": "a", "to": "b", "n": 100})).await.unwrap_err();
        assert!(matches!(error, ToolError::Failed(_)), "{error:?}");
        let left = run(&database, "select sku, qty from stock order by sku", nothing()).await.unwrap();
        assert_eq!(left["rows"], json!([{"sku": "a", "qty": 3}, {"sku": "b", "qty": 7}]));
    }
}

#[tokio::test]
async fn a_version_that_moved_on_is_a_conflict_and_nothing_is_kept() {
    let (_place, postgres) = postgres(STOCK).await;
    let (_folder, sqlite) = sqlite(STOCK);
    for database in [postgres, sqlite] {
        database.learn().await.unwrap();
        let statement = "update stock set qty = qty - :n, version = version + 1 where sku = :sku and version = :version \
                         returning qty, version";
        let take = tool(&database, statement).expect_rows(1).build().unwrap();
        let taken = call(&take, json!({"sku": "a", "n": 1, "version": 1})).await.unwrap();
        assert_eq!(taken, json!({"rows": [{"qty": 4, "version": 2}], "count": 1}));
        let error = call(&take, json!({"sku": "a", "n": 1, "version": 1})).await.unwrap_err();
        let ToolError::Conflict(told) = &error else { panic!("{error:?}") };
        assert!(told.contains(r#"It is now {"sku":"a","version":2,"qty":4}: try again"#), "{told}");
        let error = call(&take, json!({"sku": "c", "n": 1, "version": 1})).await.unwrap_err();
        assert!(matches!(&error, ToolError::Conflict(told) if told.contains("There is none such now")), "{error:?}");
        // A read that is to find something.
        let read = tool(&database, "select qty from stock where sku = :sku").expect_rows(1).build().unwrap();
        assert_eq!(call(&read, json!({"sku": "a"})).await.unwrap()["rows"], json!([{"qty": 4}]));
        assert!(matches!(call(&read, json!({"sku": "c"})).await, Err(ToolError::Conflict(_))));
    }
}

#[tokio::test]
async fn a_write_is_counted_also_where_it_stands_behind_a_named_query() {
    let (_place, postgres) = postgres(STOCK).await;
    let (_folder, sqlite) = sqlite(STOCK);
    for database in [postgres, sqlite] {
        let take = SqlTool::builder("take", &database)
            .statement("with asked as (select 1) update stock set qty = qty - 1 where sku = :sku and qty >= :n")
            .statement("insert into stock (sku, qty) values ('sold', 1)")
            .statement("with all_of as (select * from stock) select count(*) as n from all_of where false")
            .expect_rows(1)
            .build()
            .unwrap();
        let error = call(&take, json!({"sku": "a", "n": 100})).await.unwrap_err();
        let ToolError::Conflict(told) = &error else { panic!("{error:?}") };
        assert!(told.contains("statement 1") && told.contains("met 0"), "{told}");
        assert_eq!(one(&database, "select count(*) from stock", nothing()).await, json!(2));
        call(&take, json!({"sku": "a", "n": 5})).await.unwrap();
    }
}

#[tokio::test]
async fn what_reads_cannot_write_whatever_it_calls() {
    let schema = format!(
        "{STOCK} create function sneak() returns int language plpgsql stable as
         $$ begin execute 'delete from stock'; return 1; end $$;"
    );
    let (_place, database) = postgres(&schema).await;
    let sneak = tool(&database, "select sneak()").writes([]).build().unwrap();
    assert!(sneak.spec().repeatable());
    let error = call(&sneak, nothing()).await.unwrap_err();
    assert!(matches!(&error, ToolError::Failed(_)), "{error:?}");
    assert_eq!(one(&database, "select count(*) from stock", nothing()).await, json!(2));

    let (_folder, database) = sqlite(STOCK);
    let wrong = tool(&database, "delete from stock").writes([]).build().unwrap_err();
    assert!(wrong.to_string().contains("`delete` writes"), "{wrong}");
    // By a word that does not say what it does.
    let sneak = tool(&database, "with x as (select 1) delete from stock where 1 in x").writes([]).build().unwrap();
    let error = call(&sneak, nothing()).await.unwrap_err();
    let ToolError::Failed(told) = &error else { panic!("{error:?}") };
    assert!(told.contains("taken to read only") && told.contains("`writes`"), "{told}");
    assert_eq!(one(&database, "select count(*) from stock", nothing()).await, json!(2));
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_stopped_by_the_database_and_undone() {
    let (place, postgres) = postgres(STOCK).await;
    let options =
        DatabaseOptions { statement_timeout: Duration::from_millis(200), ..DatabaseOptions::new(place.user_url()) };
    let hurried = Database::new("shop", options).unwrap();
    let slow = SqlTool::builder("slow", &hurried)
        .statement("update stock set qty = 0 where sku = 'a'")
        .statement("select pg_sleep(60)")
        .writes(["stock/a"])
        .build()
        .unwrap();
    let error = call(&slow, nothing()).await.unwrap_err();
    let ToolError::Failed(told) = &error else { panic!("{error:?}") };
    assert!(told.contains("statement timeout") && told.contains("nothing was kept"), "{told}");
    assert_eq!(one(&postgres, "select qty from stock where sku = 'a'", nothing()).await, json!(5));
    // A tool's own time-out is sooner: the database gives up before it.
    let policy = Policy { timeout: Duration::from_millis(300), ..Policy::default() };
    let slow = tool(&postgres, "select pg_sleep(60)").policy(policy).build().unwrap();
    assert!(matches!(call(&slow, nothing()).await, Err(ToolError::Failed(_))));

    let (folder, _) = sqlite(STOCK);
    let url = format!("sqlite://{}", folder.path().join("shop.db").display());
    let options = DatabaseOptions { statement_timeout: Duration::from_millis(200), ..DatabaseOptions::new(url) };
    let hurried = Database::new("shop", options).unwrap();
    let endless = "with recursive s(n) as (select 1 union all select n + 1 from s) select count(*) from s";
    let error = run(&hurried, endless, nothing()).await.unwrap_err();
    let ToolError::Failed(told) = &error else { panic!("{error:?}") };
    assert!(told.contains("`statement_timeout` of 200ms"), "{told}");
    assert_eq!(one(&hurried, "select count(*) from stock", nothing()).await, json!(2), "the connection is as it was");
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_stops_in_the_server_and_leaves_nothing() {
    let (place, database) = postgres(STOCK).await;
    let slow = SqlTool::builder("slow", &database)
        .statement("update stock set qty = 0 where sku = 'a'")
        .statement("select pg_sleep(60)")
        .writes(["stock/a"])
        .build()
        .unwrap();
    let running = "select count(*) from pg_stat_activity where query like '%pg_sleep%' and pid <> pg_backend_pid()
        and state = 'active'";
    let call = tokio::spawn(slow.call(Attempt::detached("slow", nothing())));
    while place.sql(running).await.unwrap().trim() != "1" {
        tokio::task::yield_now().await;
    }
    call.abort();
    assert!(call.await.is_err_and(|error| error.is_cancelled()));
    while place.sql(running).await.unwrap().trim() != "0" {
        tokio::task::yield_now().await;
    }
    // It was undone, and whoever waited for its rows goes on.
    let after =
        run(&database, "update stock set qty = qty - 1 where sku = 'a' returning qty", nothing()).await.unwrap();
    assert_eq!(after["rows"], json!([{"qty": 4}]));
}

#[tokio::test]
async fn a_connection_that_breaks_before_commit_has_kept_nothing() {
    let (place, database) = postgres(STOCK).await;
    // One that was kept and is gone by now: the call takes another.
    assert_eq!(one(&database, "select count(*) from stock", nothing()).await, json!(2));
    place.kill_backends().await.unwrap();
    assert_eq!(one(&database, "select count(*) from stock", nothing()).await, json!(2));

    let slow = SqlTool::builder("slow", &database)
        .statement("update stock set qty = 0 where sku = 'a'")
        .statement("select pg_sleep(60)")
        .writes(["stock/a"])
        .build()
        .unwrap();
    let call = tokio::spawn(slow.call(Attempt::detached("slow", nothing())));
    let running = "select count(*) from pg_stat_activity where query like '%pg_sleep%' and pid <> pg_backend_pid()";
    while place.sql(running).await.unwrap().trim() != "1" {
        tokio::task::yield_now().await;
    }
    place.kill_backends().await.unwrap();
    let error = call.await.unwrap().unwrap_err();
    let ToolError::NotSent(told) = &error else { panic!("{error:?}") };
    assert!(told.contains("administrator command") || told.contains("connection"), "{told}");
    assert_eq!(one(&database, "select qty from stock where sku = 'a'", nothing()).await, json!(5));
}

#[tokio::test]
async fn a_database_that_is_not_there_has_done_nothing() {
    let nowhere = Database::new("shop", DatabaseOptions::new("postgres://a:s3cret@127.0.0.1:1/x")).unwrap();
    let error = run(&nowhere, "insert into stock values ('c', 1)", nothing()).await.unwrap_err();
    let ToolError::NotSent(told) = &error else { panic!("{error:?}") };
    assert!(told.contains("no connection") && !told.contains("s3cret"), "{told}");
    assert!(nowhere.learn().await.unwrap_err().to_string().contains("cannot be asked"));
    let place = Postgres::shared().unwrap().database().await.unwrap();
    let wrong = place.user_url().replace(place.user(), "nobody");
    let error =
        run(&Database::new("shop", DatabaseOptions::new(wrong)).unwrap(), "select 1", nothing()).await.unwrap_err();
    assert!(matches!(&error, ToolError::Failed(told) if told.contains("authentication")), "{error:?}");
    let absent = Database::new("shop", DatabaseOptions::new("sqlite:///nowhere/shop.db")).unwrap();
    let error = run(&absent, "select 1", nothing()).await.unwrap_err();
    assert!(matches!(&error, ToolError::NotSent(told) if told.contains("unable to open")), "{error:?}");
}

#[tokio::test]
async fn two_that_wait_for_each_other_are_undone_and_may_go_again() {
    let (place, database) = postgres(STOCK).await;
    let swap = |first: &str, second: &str| {
        SqlTool::builder("swap", &database)
            .statement(format!("update stock set qty = qty where sku = '{first}'"))
            .statement("select pg_sleep(0.3)")
            .statement(format!("update stock set qty = qty where sku = '{second}'"))
            .writes(["stock/*"])
            .build()
            .unwrap()
    };
    let (one, other) = (swap("a", "b"), swap("b", "a"));
    let (one, other) = tokio::join!(call(&one, nothing()), call(&other, nothing()));
    let undone = [one, other].into_iter().filter_map(Result::err).collect::<Vec<_>>();
    assert!(matches!(&undone[..], [ToolError::RolledBack(_)]), "{undone:?}");
    drop(place);
}
