//! Plans that meet others at the same rows: those of Fanout wait for one another, strangers are met in the database; then all
//! goes again as a whole, and counts once.

use std::sync::Arc;

use fanout_core::run::RunOptions;
use fanout_tools::sql::{Database, DatabaseOptions, SqlToolBuilder};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::shop::{Kept, Shop, WAITING, answer, codes, plan, stranger, take, tools, until};

#[tokio::test]
async fn a_row_that_a_stranger_changed_since_it_was_read_is_read_again() {
    let (shop, place) = Shop::postgres(|_| Vec::new()).await;
    for (at, has_b) in [(0, 4), (1, 3)] {
        // It reads `a`, and stands at `b`, which the stranger has; whoever changes `a` meanwhile made what was read untrue.
        let other = stranger(&place).await;
        other.batch_execute("begin; update stock set qty = qty where sku = 'b'").await.unwrap();
        let mut calls = vec![
            ("seen", "left", json!({"sku": "a"})),
            ("b", "take", take("b")),
            ("c", "give", json!({"sku": "c", "n": {"$ref": "seen#/rows/0/qty"}})),
        ];
        if at == 1 {
            calls.insert(0, ("d", "take", take("d")));
        }
        let before = shop.stock().await;
        let outcome = shop.begin(plan(&calls));
        until(&place, WAITING, "1").await;
        other.batch_execute("update stock set qty = qty + 10 where sku = 'a'; commit").await.unwrap();
        let outcome = outcome.await.unwrap();
        assert!(outcome.attempts >= 2 && !outcome.is_error(), "{outcome:?}");
        assert_eq!(answer(&outcome)["seen"]["rows"][0]["qty"], json!(before[0] + 10), "as it was the second time");
        let taken = i64::from(at == 1);
        assert_eq!(shop.stock().await, [before[0] + 10, has_b, before[2] + before[0] + 10, before[3] - taken]);
    }
}

#[tokio::test]
async fn a_deadlock_with_a_stranger_undoes_the_plan_as_a_whole_and_it_goes_again() {
    let (shop, place) = Shop::postgres(|_| Vec::new()).await;
    // The stranger has `b`, the plan takes `a`, each then wants the other's. The plan's own watch ends it.
    let other = stranger(&place).await;
    let has_b = "set deadlock_timeout = '1h'; begin; update stock set qty = qty + 100 where sku = 'b'";
    other.batch_execute(has_b).await.unwrap();
    let outcome = shop.begin(plan(&[("c", "take", take("c")), ("a", "take", take("a")), ("b", "take", take("b"))]));
    until(&place, WAITING, "1").await;
    other.batch_execute("update stock set qty = qty + 100 where sku = 'a'; commit").await.unwrap();
    let outcome = outcome.await.unwrap();
    assert!(outcome.attempts >= 2 && !outcome.is_error(), "{outcome:?}");
    assert_eq!(shop.stock().await, [104, 104, 4, 5]);
}

/// Two plans at the same rows in opposite order, so many times; each takes one of each.
async fn head_on(shop: &Shop, rounds: i64, by_reference: bool) {
    shop.call("give", json!({"sku": "a", "n": 2 * rounds - 5})).await;
    shop.call("give", json!({"sku": "b", "n": 2 * rounds - 5})).await;
    let sku = |sku: &str| if by_reference { json!({ "$ref": format!("seen_{sku}#/rows/0/sku") }) } else { json!(sku) };
    let of = |first: &str, second: &str| {
        let take = |of: &str| json!({"label": of, "tool": "take", "input": {"sku": sku(of), "n": 1}});
        let see = |of: &str| json!({"label": format!("seen_{of}"), "tool": "left", "input": {"sku": of}});
        let mut calls = vec![take(first), take(second)];
        if by_reference {
            calls.splice(0..0, [see(first), see(second)]);
        }
        json!({"calls": calls, "atomic": true})
    };
    let mut attempts = 0;
    for _ in 0..rounds {
        let (one, other) = (shop.begin(of("a", "b")), shop.begin(of("b", "a")));
        for ended in [one.await.unwrap(), other.await.unwrap()] {
            assert!(!ended.is_error(), "{}", answer(&ended));
            attempts += i64::from(ended.attempts);
        }
    }
    assert_eq!(attempts, 2 * rounds, "they never met in the database: their locks were taken in one step");
    assert_eq!(shop.stock().await[..2], [0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_plans_in_opposite_order_never_stand_in_each_others_way() {
    for by_reference in [false, true] {
        for shop in Shop::both().await {
            head_on(&shop, 50, by_reference).await;
        }
        for shop in Shop::both().await {
            // One connection, which nobody holds while it waits for a lock.
            let options = DatabaseOptions { pool: 1, ..DatabaseOptions::new(shop.url()) };
            let narrow = Database::new("shop", options).unwrap();
            narrow.learn().await.unwrap();
            let narrow = Shop::new(narrow.clone(), Kept::of(&shop), tools(&narrow));
            head_on(&narrow, 50, by_reference).await;
        }
    }
}

/// A plan and single calls of the same rows, from runs that do not know of each other and without any locks of ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_plans_without_locks_of_ours_loses_nothing() {
    for shop in Shop::both().await {
        let parallel = tools(&shop.database).into_iter().map(SqlToolBuilder::undeclared_parallel);
        let crowd = Shop::new(shop.database.clone(), Kept::of(&shop), parallel);
        let skus = ["a", "b", "c", "d"];
        let mut all = JoinSet::new();
        for number in 0..40_usize {
            let (from, to) = (skus[number % 4], skus[(number + 1 + number / 4 % 3) % 4]);
            // What is taken there is what is given here, less what the row says that it cannot.
            let calls = [
                ("from", "left", json!({"sku": from})),
                ("taken", "take", json!({"sku": from, "n": 1 + number % 3})),
                ("given", "give", json!({"sku": to, "n": 1 + number % 3})),
            ];
            let (crowd, plan) = (crowd.clone(), plan(&calls));
            all.spawn(async move { crowd.call_as(RunOptions::new(format!("r{number}").as_str()), "plan", plan).await });
        }
        let mut done = 0;
        for outcome in all.join_all().await {
            let codes = codes(&outcome);
            done += usize::from(codes == ["ok"; 3]);
            let is_told = codes == ["ok"; 3] || codes.iter().filter(|code| *code != "skipped").count() == 1;
            assert!(is_told, "{}", answer(&outcome));
        }
        assert!(done > 0, "some went through");
        let stock = shop.stock().await;
        assert_eq!(stock.iter().sum::<i64>(), 20, "{stock:?}");
    }
}

#[tokio::test]
async fn a_plan_waits_for_what_touches_its_rows_in_the_batch_and_holds_back_what_comes_after() {
    for shop in Shop::both().await {
        let mut run = shop.scheduler.run(Arc::clone(&shop.toolbox), RunOptions::new("r"));
        let mut batch = run.batch();
        let both: Value = plan(&[("a", "take", take("a")), ("b", "left", json!({"sku": "b"}))]);
        let calls = [
            ("1", "take", take("a")),
            ("2", "take", take("b")),
            ("3", "take", take("c")),
            ("p", "plan", both),
            ("4", "left", json!({"sku": "a"})),
            ("5", "left", json!({"sku": "b"})),
            ("6", "take", take("b")),
        ];
        for (at, (id, tool, input)) in (0..).zip(calls) {
            batch.call(fanout_core::call::Call::new(at, id, tool, input)).unwrap();
        }
        let waits: Vec<(String, Vec<String>)> = batch
            .arrived()
            .map(|call| (call.call.to_string(), call.waits.iter().map(|wait| wait.on.to_string()).collect()))
            .collect();
        let of = |id: &str| waits.iter().find(|(call, _)| call == id).map(|(_, on)| on.join(" ")).unwrap();
        assert_eq!([of("p"), of("4"), of("5"), of("6")], ["1 2", "p", "2", "2 p 5"].map(str::to_owned), "{waits:?}");
        let outcomes = batch.finish().await;
        assert_eq!(answer(&outcomes[3])["a"]["rows"], json!([{"qty": 3}]));
        assert_eq!(answer(&outcomes[3])["b"]["rows"], json!([{"sku": "b", "qty": 4}]));
        assert_eq!(shop.stock().await, [3, 3, 4, 5]);
    }
}
