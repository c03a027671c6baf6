//! A plan that is broken off: a killed connection, a line that is cut, a time-out, a cancelled batch. Nothing is kept, or all,
//! and nothing is left running.

use std::sync::Arc;
use std::time::Duration;

use fanout_core::call::Call;
use fanout_core::run::RunOptions;
use fanout_testing::postgres::Database as Place;
use fanout_tools::sql::{Database, DatabaseOptions, SqlTool};
use serde_json::{Value, json};

use super::shop::{BUSY, Kept, SCHEMA, Shop, WAITING, answer, codes, plan, stranger, take, tools, until};
use crate::sql::commits::{Cut, through_cut_line};
use crate::sql::{postgres, sqlite};

fn takes(skus: &[&'static str]) -> Value {
    let calls: Vec<_> = skus.iter().map(|sku| (*sku, "take", take(sku))).collect();
    plan(&calls)
}

/// Ends every connection of ours, and no stranger's.
async fn kill(place: &Place) {
    let kill = "select pg_terminate_backend(pid) from pg_stat_activity where usename = ";
    place.sql(&format!("{kill}'{}'", place.user())).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_is_killed_in_any_member_leaves_nothing_and_all_goes_again() {
    let (shop, place) = Shop::postgres(|_| Vec::new()).await;
    for (done, sku) in (1..).zip(["a", "b", "c"]) {
        // Somebody has the row, so that the plan stands at it.
        let other = stranger(&place).await;
        other.batch_execute(&format!("begin; update stock set qty = qty where sku = '{sku}'")).await.unwrap();
        let plan = shop.begin(takes(&["a", "b", "c"]));
        until(&place, WAITING, "1").await;
        kill(&place).await;
        other.batch_execute("rollback").await.unwrap();
        let outcome = plan.await.unwrap();
        assert_eq!(codes(&outcome), ["ok"; 3], "{}", answer(&outcome));
        assert!(outcome.attempts >= 2, "{outcome:?}");
        let left = 5 - done;
        assert_eq!(shop.stock().await, [left, left, left, 5], "once each");
        assert_eq!(answer(&outcome)["c"]["rows"], json!([{ "qty": left }]));
    }
}

#[tokio::test]
async fn a_database_that_is_gone_for_good_has_kept_nothing_and_says_so() {
    let (shop, place) = Shop::postgres(|_| Vec::new()).await;
    let other = stranger(&place).await;
    other.batch_execute("begin; update stock set qty = qty where sku = 'b'").await.unwrap();
    let plan = shop.begin(takes(&["a", "b", "c"]));
    until(&place, WAITING, "1").await;
    let user = place.user();
    place.sql(&format!("alter role {user} nologin")).await.unwrap();
    kill(&place).await;
    other.batch_execute("rollback").await.unwrap();
    let outcome = plan.await.unwrap();
    // The second attempt did not even begin.
    assert_eq!(codes(&outcome), ["upstream"; 3], "it is nobody's alone: {}", answer(&outcome));
    let told = answer(&outcome)["a"]["error"]["message"].as_str().unwrap().to_owned();
    assert!(told.starts_with("`plan` found no connection") && told.contains("Nothing was"), "{told}");
    place.sql(&format!("alter role {user} login")).await.unwrap();
    assert_eq!(shop.stock().await, [5; 4]);
}

async fn at_commit(cut: Cut) -> (Vec<String>, u32, Vec<i64>) {
    let (place, direct) = postgres(SCHEMA).await;
    let (url, _) = through_cut_line(&place.user_url(), cut).await;
    let database = Database::new("shop", DatabaseOptions::new(url)).unwrap();
    let kept = Shop::new(direct, Kept::Server(place), []);
    let shop = Shop::new(database.clone(), Kept::of(&kept), tools(&database));
    let outcome = shop.call("plan", takes(&["a", "b"])).await;
    (codes(&outcome), outcome.attempts, kept.stock().await)
}

#[tokio::test]
async fn a_line_that_is_cut_at_commit_leaves_all_or_nothing_and_it_is_known_which() {
    assert_eq!(at_commit(Cut::Behind).await, (vec!["ok".to_owned(); 2], 1, vec![4, 4, 5, 5]));
    // It never arrived, so all of it went again.
    assert_eq!(at_commit(Cut::Before).await, (vec!["ok".to_owned(); 2], 2, vec![4, 4, 5, 5]));
    // Nobody can be asked: it is not guessed.
    assert_eq!(at_commit(Cut::Off).await, (vec!["outcome_unknown".to_owned(); 2], 1, vec![4, 4, 5, 5]));
}

/// The shop with a call that takes for ever, on both.
async fn with_slow(statement_timeout: Duration) -> ([Shop; 2], Place) {
    let (place, _) = postgres(SCHEMA).await;
    let options = DatabaseOptions { statement_timeout, ..DatabaseOptions::new(place.user_url()) };
    let database = Database::new("shop", options).unwrap();
    let slow = SqlTool::builder("slow", &database).statement("select pg_sleep(600)");
    let server = Shop::new(database.clone(), Kept::Server(place.clone()), tools(&database).into_iter().chain([slow]));
    let (folder, _) = sqlite(SCHEMA);
    let url = format!("sqlite://{}", folder.path().join("shop.db").display());
    let options = DatabaseOptions { statement_timeout, ..DatabaseOptions::new(url) };
    let database = Database::new("shop", options).unwrap();
    let endless = "with recursive s(n) as (select 1 union all select n + 1 from s) select count(*) from s";
    let slow = SqlTool::builder("slow", &database).statement(endless);
    let file = Shop::new(database.clone(), Kept::File(folder), tools(&database).into_iter().chain([slow]));
    ([server, file], place)
}

/// The slow call at each place among others.
fn slow_at(at: usize) -> Value {
    let mut calls: Vec<_> = ["a", "b"].into_iter().map(|sku| (sku, "take", take(sku))).collect();
    calls.insert(at, ("slow", "slow", json!({})));
    plan(&calls)
}

#[tokio::test]
async fn a_statement_that_takes_too_long_undoes_all_and_is_named() {
    let (shops, place) = with_slow(Duration::from_millis(200)).await;
    for shop in shops {
        for at in 0..3 {
            let outcome = shop.call("plan", slow_at(at)).await;
            let answer = answer(&outcome);
            let told = answer["slow"]["error"]["message"].as_str().unwrap();
            assert!(told.contains("`slow` (`slow`)") && told.contains("statement_timeout"), "{told}");
            let mut expected = vec!["skipped"; 3];
            expected[at] = "upstream";
            assert_eq!(codes(&outcome), expected);
            assert_eq!(shop.stock().await, [5; 4]);
        }
    }
    until(&place, BUSY, "0").await;
}

#[tokio::test]
async fn a_plan_that_is_cancelled_in_the_middle_leaves_nothing_and_nothing_runs_on() {
    let ([server, file], place) = with_slow(Duration::from_secs(3600)).await;
    for at in 0..3 {
        let mut run = server.scheduler.run(Arc::clone(&server.toolbox), RunOptions::new("r"));
        let mut batch = run.batch();
        batch.call(Call::new(0, "p", "plan", slow_at(at))).unwrap();
        batch.commit();
        let sleeping =
            "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()";
        tokio::select! {
            () = async { loop { batch.progress().await } } => {}
            () = until(&place, sleeping, "1") => {}
        }
        batch.cancel("enough");
        let outcome = batch.finish().await.remove(0);
        assert_eq!(codes(&outcome), ["outcome_unknown"; 3], "{outcome:?}");
        server.database.unused().await;
        until(&place, BUSY, "0").await;
        assert_eq!(server.stock().await, [5; 4]);

        let mut run = file.scheduler.run(Arc::clone(&file.toolbox), RunOptions::new("r"));
        let mut batch = run.batch();
        batch.call(Call::new(0, "p", "plan", slow_at(at))).unwrap();
        batch.commit();
        // It is at it as soon as nobody else may write.
        let other = rusqlite::Connection::open(file.path()).unwrap();
        other.busy_timeout(Duration::ZERO).unwrap();
        let is_at_it = || other.execute_batch("begin immediate; rollback").is_err();
        tokio::select! {
            () = async { loop { batch.progress().await } } => {}
            () = async { while !is_at_it() { tokio::task::yield_now().await } } => {}
        }
        batch.cancel("enough");
        let outcome = batch.finish().await.remove(0);
        assert_eq!(codes(&outcome), ["outcome_unknown"; 3], "{outcome:?}");
        file.database.unused().await;
        assert_eq!(file.stock().await, [5; 4]);
    }
}
