//! What an atomic plan comes to when nobody is in its way: as its calls one by one, or as if it had never been.

use std::time::{Duration, SystemTime};

use fanout_core::run::RunOptions;
use fanout_core::tool::CallerToken;
use fanout_testing::postgres::Postgres;
use fanout_tools::sql::{Database, DatabaseOptions, SqlTool};
use serde_json::{Value, json};

use super::shop::{Kept, Shop, answer, codes, plan, take};

fn reference(to: &str) -> Value {
    json!({ "$ref": to })
}

/// Each call, and the same with its references filled by hand from the answers so far.
type Flow = Vec<(&'static str, &'static str, Value, fn(&Value) -> Value)>;

fn flow() -> Flow {
    vec![
        ("seen", "left", json!({"sku": "a"}), |_| json!({"sku": "a"})),
        ("took", "take", json!({"sku": reference("seen#/rows/0/sku"), "n": 2}), |_| json!({"sku": "a", "n": 2})),
        ("all", "all", json!({}), |_| json!({})),
        (
            "given",
            "give",
            json!({"sku": reference("all#/rows/1/sku"), "n": reference("took#/rows/0/qty")}),
            |so_far| json!({"sku": so_far["all"]["rows"][1]["sku"], "n": so_far["took"]["rows"][0]["qty"]}),
        ),
        ("both", "both", json!({"from": "c", "to": "d"}), |_| json!({"from": "c", "to": "d"})),
        (
            "ordered",
            "order",
            json!({"id": 7, "sku": reference("given#/rows/0/sku"), "n": reference("both#/results/1/rows/0/qty")}),
            |so_far| {
                let n = &so_far["both"]["results"][1]["rows"][0]["qty"];
                json!({"id": 7, "sku": so_far["given"]["rows"][0]["sku"], "n": n})
            },
        ),
        ("absent", "left", json!({"sku": "z"}), |_| json!({"sku": "z"})),
        ("last", "all", json!({}), |_| json!({})),
    ]
}

#[tokio::test]
async fn a_plan_answers_and_leaves_behind_what_its_calls_do_one_by_one() {
    for (shop, other) in Shop::both().await.into_iter().zip(Shop::both().await) {
        let calls: Vec<_> = flow().into_iter().map(|(label, tool, input, _)| (label, tool, input)).collect();
        let outcome = shop.call("plan", plan(&calls)).await;
        let mut so_far = json!({});
        let mut texts = Vec::new();
        for (label, tool, _, by_hand) in flow() {
            let alone = other.call(tool, by_hand(&so_far)).await;
            so_far[label] = answer(&alone);
            let [fanout_core::outcome::Content::Text(text)] = &*alone.shown else { panic!("{alone:?}") };
            texts.push(format!("\"{label}\":{text}"));
        }
        let [fanout_core::outcome::Content::Text(text)] = &*outcome.shown else { panic!("{outcome:?}") };
        assert_eq!(**text, format!("{{{}}}", texts.join(",")), "to the byte");
        assert_eq!(outcome.attempts, 1);
        assert_eq!(shop.rows().await, other.rows().await);
        assert_eq!(shop.stock().await, [3, 8, 4, 6]);
    }
}

#[tokio::test]
async fn the_calls_of_a_for_each_are_part_of_the_whole() {
    for shop in Shop::both().await {
        let each = |skus: Value| {
            json!({"calls": [
                {"label": "took", "tool": "take", "for_each": skus, "input": {"sku": {"$ref": "item#"}, "n": 1}},
                {"label": "given", "tool": "give", "for_each": {"$ref": "took#"}, "input": {"sku": "d", "n": {"$ref": "item#/rows/0/qty"}}},
                {"label": "order", "tool": "order", "input": {"id": 9, "sku": "a", "n": {"$ref": "took#/1/rows/0/qty"}}},
            ], "atomic": true})
        };
        let outcome = shop.call("plan", each(json!(["a", "b"]))).await;
        assert_eq!(answer(&outcome)["order"]["rows"], json!([{"id": 9, "n": 4}]), "{}", answer(&outcome));
        assert_eq!(shop.stock().await, [4, 4, 5, 13]);
        let outcome = shop.call("plan", each(json!(["c", "nowhere"]))).await;
        let answer = answer(&outcome);
        assert_eq!(answer["took"][0]["error"]["code"], "skipped", "{answer}");
        assert_eq!(answer["took"][1]["error"]["code"], "conflict", "{answer}");
        assert!(
            answer["took"][1]["error"]["message"].as_str().unwrap().starts_with("`took/1` (`take`) was to meet"),
            "{answer}"
        );
        assert_eq!(shop.stock().await, [4, 4, 5, 13]);
    }
}

#[tokio::test]
async fn a_failure_in_any_member_undoes_all_and_each_says_what_became_of_it() {
    let wrongs: [(&str, Value, &str, &str); 6] = [
        ("take", json!({"sku": "d", "n": 100}), "upstream", "`x` (`take`), and nothing was kept"),
        ("take", json!({"sku": "nowhere", "n": 1}), "conflict", "`x` (`take`) was to meet 1 row and met 0"),
        ("order", json!({"id": 1, "sku": "a", "n": 1}), "upstream", "`x` (`order`)"),
        (
            "take",
            json!({"sku": "d", "n": {"$ref": "m0#/rows/0/nothing"}}),
            "unresolved_reference",
            "m0#/rows/0/nothing",
        ),
        ("take", json!({"sku": {"$ref": "m0#/rows/0/qty"}, "n": 1}), "invalid_input", "sku"),
        ("no", json!({}), "upstream", "`x` (`no`)"),
    ];
    let no = |database: &Database| {
        vec![SqlTool::builder("no", database).statement("insert into orders (id, sku, n) values (50, null, 1)")]
    };
    for shop in [Shop::postgres(no).await.0, Shop::sqlite(no).await] {
        let before = shop.rows().await;
        for (tool, input, code, part) in &wrongs {
            for at in 0..4 {
                let has_reference = input.to_string().contains("$ref");
                if at == 0 && has_reference {
                    continue;
                }
                let mut calls: Vec<_> = ["m0", "m1", "m2"]
                    .into_iter()
                    .zip(["a", "b", "c"])
                    .map(|(label, sku)| (label, "take", take(sku)))
                    .collect();
                calls.insert(at, ("x", tool, input.clone()));
                let outcome = shop.call("plan", plan(&calls)).await;
                let mut expected = vec!["skipped".to_owned(); 4];
                expected[at] = (*code).to_owned();
                assert_eq!(codes(&outcome), expected, "{tool} {input} at {at}: {}", answer(&outcome));
                let answer = answer(&outcome);
                let told = answer["x"]["error"]["message"].as_str().unwrap();
                assert!(told.contains(part), "{told}");
                for (place, (label, ..)) in calls.iter().enumerate().filter(|(place, _)| *place != at) {
                    let told = answer[label]["error"]["message"].as_str().unwrap();
                    let what = if place < at { "undone" } else { "not run" };
                    assert_eq!(told, format!("{what}: the plan is atomic, and `x` (`{tool}`) failed"));
                }
                assert!(outcome.is_error() && outcome.attempts == 1, "{outcome:?}");
                assert_eq!(shop.rows().await, before, "{tool} {input} at {at}");
            }
        }
    }
}

#[tokio::test]
async fn what_only_the_end_of_the_transaction_finds_out_is_everybodys_failure() {
    for shop in Shop::both().await {
        let before = shop.rows().await;
        let astray = ("b", "order", json!({"id": 2, "sku": "nowhere", "n": 1}));
        let outcome =
            shop.call("plan", plan(&[("a", "take", take("a")), astray.clone(), ("c", "take", take("b"))])).await;
        assert_eq!(codes(&outcome), ["upstream"; 3]);
        let answer = answer(&outcome);
        for label in ["a", "b", "c"] {
            let told = answer[label]["error"]["message"].as_str().unwrap();
            assert!(told.contains("`plan`") && told.to_lowercase().contains("foreign key"), "{told}");
        }
        assert_eq!(shop.rows().await, before);
        // What mends it before the end is there in time.
        let mend = ("m", "give", json!({"sku": "a", "n": 1}));
        let outcome = shop.call("plan", plan(&[("o", "order", json!({"id": 2, "sku": "a", "n": 1})), mend])).await;
        assert!(!outcome.is_error(), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_miss_shows_the_row_as_the_members_before_it_left_it() {
    for shop in Shop::both().await {
        let versioned = SqlTool::builder("at", &shop.database)
            .statement("update stock set qty = :to where sku = :sku and qty = :from")
            .expect_rows(1);
        let shop = Shop::new(
            shop.database.clone(),
            Kept::of(&shop),
            super::shop::tools(&shop.database).into_iter().chain([versioned]),
        );
        let from_five = json!({"sku": "a", "from": 5, "to": 9});
        let outcome = shop.call("plan", plan(&[("t", "take", take("a")), ("x", "at", from_five)])).await;
        let answer = answer(&outcome);
        let told = answer["x"]["error"]["message"].as_str().unwrap();
        assert!(told.contains(r#"It is now {"sku":"a","qty":4}"#), "{told}");
        assert_eq!(shop.stock().await, [5, 5, 5, 5]);
    }
}

#[tokio::test]
async fn a_member_that_reads_cannot_write_also_where_others_do() {
    let (mut shop, place) = Shop::postgres(|_| Vec::new()).await;
    place
        .sql(
            "create function sneak() returns int language plpgsql security definer as
              $$ begin execute 'delete from orders'; return 1; end $$",
        )
        .await
        .unwrap();
    shop.database.learn().await.unwrap();
    let sneaks = |database: &Database, statement: &str| {
        let sneak = SqlTool::builder("sneak", database).statement(statement).writes([]);
        super::shop::tools(database).into_iter().chain([sneak]).collect::<Vec<_>>()
    };
    shop = Shop::new(shop.database.clone(), Kept::of(&shop), sneaks(&shop.database, "select sneak()"));
    let file = Shop::sqlite(|_| Vec::new()).await;
    let by_name = "with x as (select 1) delete from orders where 1 in x";
    let file = Shop::new(file.database.clone(), Kept::of(&file), sneaks(&file.database, by_name));
    for shop in [shop, file] {
        let before = shop.rows().await;
        let sneak = ("s", "sneak", json!({}));
        let outcome = shop.call("plan", plan(&[("a", "take", take("a")), sneak, ("b", "take", take("b"))])).await;
        assert_eq!(codes(&outcome), ["skipped", "upstream", "skipped"]);
        let answer = answer(&outcome);
        let told = answer["s"]["error"]["message"].as_str().unwrap();
        assert!(told.contains("`s` (`sneak`) is taken to read only"), "{told}");
        assert_eq!(shop.rows().await, before);
        // A read that is one does no harm to the writes behind it.
        let read = ("r", "left", json!({"sku": "a"}));
        let outcome = shop
            .call("plan", plan(&[read.clone(), ("a", "take", take("a")), read_again(), ("b", "take", take("b"))]))
            .await;
        assert!(!outcome.is_error(), "{outcome:?}");
        assert_eq!(shop.stock().await, [4, 4, 5, 5]);
    }
}

fn read_again() -> (&'static str, &'static str, Value) {
    ("again", "left", json!({"sku": "a"}))
}

#[tokio::test]
async fn a_plan_is_as_isolated_as_its_members_need_it_together() {
    let level = "current_setting('transaction_isolation') || ' ' || current_setting('transaction_read_only') || ' ' ||
                 current_setting('statement_timeout')";
    let (shop, _place) = Shop::postgres(|database| {
        let gives = format!("update stock set qty = qty + 1 where sku = :sku returning {level} as level");
        let soon =
            fanout_core::tool::Policy { timeout: Duration::from_secs(2), ..fanout_core::tool::Policy::default() };
        vec![
            SqlTool::builder("found", database).statement(&*gives).expect_rows(1).policy(soon),
            SqlTool::builder("perhaps", database).statement(&*gives),
            SqlTool::builder("level", database).statement(format!("select {level} as level")),
        ]
    })
    .await;
    for (tools, expected) in [
        (vec!["found"], vec!["read committed off 1800ms"]),
        (vec!["perhaps"], vec!["read committed off 10s"]),
        (vec!["found", "found"], vec!["read committed off 1800ms"; 2]),
        // Two rows that are not found are not locked: another may put one there in between.
        (vec!["perhaps", "perhaps"], vec!["serializable off 10s"; 2]),
        (vec!["found", "perhaps"], vec!["serializable off 1800ms", "serializable off 10s"]),
        (
            vec!["level", "found", "level", "perhaps"],
            vec!["serializable on 10s", "serializable off 1800ms", "serializable on 10s", "serializable off 10s"],
        ),
        (vec!["level"], vec!["read committed on 10s"]),
        (vec!["level", "level"], vec!["repeatable read on 10s"; 2]),
    ] {
        let labels: Vec<String> = (0..tools.len()).map(|at| format!("m{at}")).collect();
        let calls: Vec<_> =
            labels.iter().zip(&tools).map(|(label, tool)| (label.as_str(), *tool, json!({"sku": "a"}))).collect();
        let outcome = shop.call("plan", plan(&calls)).await;
        let answer = answer(&outcome);
        let levels: Vec<&str> = labels
            .iter()
            .map(|label| answer[label]["rows"][0]["level"].as_str().unwrap_or_else(|| panic!("{answer}")))
            .collect();
        assert_eq!(levels, expected, "{tools:?}");
    }
}

#[tokio::test]
async fn each_user_keeps_to_their_own_rows_in_a_plan_too() {
    let (alice, bob) = ("aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002");
    let place = Postgres::shared().unwrap().database().await.unwrap();
    let url = place.supabase().await.unwrap();
    place
        .sql("create table orders (id int primary key, owner uuid not null, total int not null);
              alter table orders enable row level security;
              create policy own on orders using (owner = auth.uid()) with check (owner = auth.uid());
              grant select, insert, update, delete on orders to authenticated;
              insert into orders values (1, 'aaaaaaaa-0000-4000-8000-000000000001', 1), (2, 'aaaaaaaa-0000-4000-8000-000000000001', 1),
                                        (3, 'bbbbbbbb-0000-4000-8000-000000000002', 1)")
        .await
        .unwrap();
    let options = DatabaseOptions { role_from_claims: true, ..DatabaseOptions::new(url) };
    let database = Database::new("shop", options).unwrap();
    database.learn().await.unwrap();
    let tool = |name: &str, statement: &str| SqlTool::builder(name, &database).statement(statement);
    let tools = [
        tool("set", "update orders set total = :total where id = :id").expect_rows(1),
        tool("add", "insert into orders values (:id, :owner, 1)"),
        tool("ids", "select id, current_user::text as role from orders order by id"),
    ];
    let shop = Shop::new(database.clone(), Kept::Server(place.clone()), tools);
    let token = |sub: &str| {
        let claims = json!({"sub": sub, "role": "authenticated"}).as_object().unwrap().clone();
        CallerToken::verified("t0ken", claims, SystemTime::now() + Duration::from_secs(3600))
    };
    let call = async |token: Option<CallerToken>, plan: Value| {
        let options = RunOptions { caller_token: token, ..RunOptions::new("r") };
        shop.call_as(options, "plan", plan).await
    };
    let set = |label, id: i64| (label, "set", json!({"id": id, "total": 9}));
    let totals = "select string_agg(total::text, ' ' order by id) from orders";
    // Another's row in the middle is not there.
    let outcome = call(Some(token(alice)), plan(&[set("a", 1), set("b", 3), set("c", 2)])).await;
    assert_eq!(codes(&outcome), ["skipped", "conflict", "skipped"], "{}", answer(&outcome));
    // And cannot be made.
    let outcome = call(Some(token(alice)), plan(&[set("a", 1), ("b", "add", json!({"id": 8, "owner": bob}))])).await;
    assert_eq!(codes(&outcome), ["skipped", "not_permitted"], "{}", answer(&outcome));
    let outcome = call(None, plan(&[set("a", 1), set("b", 2)])).await;
    assert_eq!(codes(&outcome), ["not_permitted"; 2], "{}", answer(&outcome));
    assert_eq!(place.sql(totals).await.unwrap().trim(), "1 1 1");
    let outcome = call(Some(token(alice)), plan(&[set("a", 1), ("b", "ids", json!({})), set("c", 2)])).await;
    let rows = json!([{"id": 1, "role": "authenticated"}, {"id": 2, "role": "authenticated"}]);
    assert_eq!(answer(&outcome)["b"]["rows"], rows);
    let outcome = call(Some(token(bob)), plan(&[("a", "ids", json!({})), set("b", 3)])).await;
    assert_eq!(answer(&outcome)["a"]["rows"], json!([{"id": 3, "role": "authenticated"}]));
    assert_eq!(place.sql(totals).await.unwrap().trim(), "9 9 9");
}

#[tokio::test]
async fn calls_on_other_connections_are_no_one_transaction() {
    for shop in Shop::both().await {
        let same_name = Database::new("shop", DatabaseOptions::new("sqlite:///nowhere.db")).unwrap();
        let strange = SqlTool::builder("strange", &same_name).statement("select 1");
        let shop = Shop::new(
            shop.database.clone(),
            Kept::of(&shop),
            super::shop::tools(&shop.database).into_iter().chain([strange]),
        );
        let outcome = shop.call("plan", plan(&[("a", "take", take("a")), ("b", "strange", json!({}))])).await;
        let answer = answer(&outcome);
        let told = answer["a"]["error"]["message"].as_str().unwrap();
        assert!(told.contains("`b` (`strange`) has other connections") && told.contains("Nothing was done"), "{told}");
        assert_eq!(shop.stock().await, [5, 5, 5, 5]);
    }
}
