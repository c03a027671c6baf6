//! JSON in, JSON out: what comes back is what went in, whatever its type.

use fanout_core::tool::{Attempt, Tool, ToolError};
use serde_json::{Value, json};

use super::{call, nothing, one, postgres, run, sqlite, text, tool};

#[tokio::test]
async fn every_type_of_postgresql_is_shown_without_loss() {
    let schema = "create type mood as enum ('sad', 'ok'); create domain age as int check (value > 0);
        create type pair as (x int, y text);";
    let (_place, database) = postgres(schema).await;
    for (expression, shown) in [
        ("true", json!(true)),
        ("7::smallint", json!(7)),
        ("9223372036854775807::bigint", json!(9_223_372_036_854_775_807_i64)),
        ("0.1::real", json!(0.1)),
        ("1e300::float8", json!(1e300)),
        ("'NaN'::float8", json!("NaN")),
        ("'-Infinity'::real", json!("-Infinity")),
        (
            "12345678901234567890.123456789012345678901234567890::numeric",
            json!("12345678901234567890.123456789012345678901234567890"),
        ),
        ("-0.00010::numeric", json!("-0.00010")),
        ("100::numeric(10, 2)", json!("100.00")),
        ("1e20::numeric", json!("100000000000000000000")),
        ("0::numeric", json!("0")),
        ("10000::numeric", json!("10000")),
        ("0.5::numeric", json!("0.5")),
        ("'NaN'::numeric", json!("NaN")),
        ("'Infinity'::numeric", json!("Infinity")),
        ("'größe 👍'::text", json!("größe 👍")),
        ("'ab'::char(4)", json!("ab  ")),
        ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
        ("'\\x00ff'::bytea", json!("\\x00ff")),
        ("'{\"a\": [1, null]}'::jsonb", json!({"a": [1, null]})),
        ("'[1,  2]'::json", json!([1, 2])),
        ("'2026-11-23'::date", json!("2026-11-23")),
        ("'0044-03-15 BC'::date", json!("-0043-03-15")),
        ("'infinity'::date", json!("infinity")),
        ("'13:14:15.5'::time", json!("13:14:15.500")),
        ("'24:00'::time", json!("24:00:00")),
        ("'13:14:15+05:30'::timetz", json!("13:14:15+05:30")),
        ("'2026-11-23 13:14:15.123456'::timestamp", json!("2026-11-23T13:14:15.123456")),
        ("'2026-11-23 13:14:15+02'::timestamptz", json!("2026-11-23T11:14:15+00:00")),
        ("'-infinity'::timestamptz", json!("-infinity")),
        ("'1 year 2 months 3 days 04:05:06.7'::interval", json!("P1Y2M3DT4H5M6.7S")),
        ("'-1 day -00:00:00.5'::interval", json!("P-1DT-0.5S")),
        ("'0'::interval", json!("PT0S")),
        ("'10.0.0.1'::inet", json!("10.0.0.1")),
        ("'10.0.0.0/8'::cidr", json!("10.0.0.0/8")),
        ("'::1/64'::inet", json!("::1/64")),
        ("'08:00:2b:01:02:03'::macaddr", json!("08:00:2b:01:02:03")),
        ("b'10110'", json!("10110")),
        ("array[1, null, 3]", json!([1, null, 3])),
        ("array[array['a'], array['b']]", json!([["a"], ["b"]])),
        ("'{}'::text[]", json!([])),
        ("array['2026-11-23'::date]", json!(["2026-11-23"])),
        ("'sad'::mood", json!("sad")),
        ("array['ok', 'sad']::mood[]", json!(["ok", "sad"])),
        ("5::age", json!(5)),
        ("row(1, 'a')::pair", json!({"x": 1, "y": "a"})),
        ("null::int", json!(null)),
        ("pg_sleep(0)", json!(null)),
    ] {
        assert_eq!(one(&database, &format!("select {expression}"), nothing()).await, shown, "{expression}");
    }
    let ToolError::Failed(told) = run(&database, "select point(1, 2) as place", nothing()).await.unwrap_err() else {
        panic!("it has no form")
    };
    assert!(told.contains("`place`") && told.contains("type point") && told.contains("::text"), "{told}");
}

#[tokio::test]
async fn inputs_become_values_of_the_type_that_the_statement_asks_for() {
    let schema = "create type mood as enum ('sad', 'ok'); create table things (id uuid primary key, n numeric(20, 2),
        tags text[], data jsonb, moods mood[], at timestamptz, raw bytea, big bigint, flag boolean)";
    let (_place, database) = postgres(schema).await;
    let input = json!({
        "id": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "n": "12345678901234567.89", "tags": ["a\"b", "c\\d", null, "{}", ""],
        "data": {"k": ["v", 1.5, null]}, "moods": ["ok"], "at": "2026-11-23T13:14:15.123456+00:00", "raw": "\\x00ff",
        "big": 9_223_372_036_854_775_807_i64, "flag": true
    });
    let insert = "insert into things values (:id, :n, :tags, :data, :moods, :at, :raw, :big, :flag) returning *";
    let answer = run(&database, insert, input.clone()).await.unwrap();
    assert_eq!(answer, json!({"rows": [input], "count": 1}));
    // Absent and null are NULL; a text for a jsonb is a JSON text.
    let answer =
        run(&database, "select :a::int as a, :b::int as b, :c::jsonb as c", json!({"b": null, "c": "x"})).await;
    assert_eq!(answer.unwrap()["rows"][0], json!({"a": null, "b": null, "c": "x"}));
    let ids = json!({"ids": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]});
    assert_eq!(one(&database, "select count(*) from things where id = any(:ids)", ids).await, json!(1));
}

#[tokio::test]
async fn what_an_input_says_never_becomes_sql() {
    let schema = "create table notes (id int primary key, text text); insert into notes values (1, 'one'), (2, 'two');";
    let hostile =
        ["'; drop table notes; --", "1 or 1=1", "$1", ":id", "\\'; delete from notes; --", "$$x$$", "/*", "1); --"];
    let (_place, postgres) = postgres(schema).await;
    let (_folder, sqlite) = sqlite(schema);
    for database in [postgres, sqlite] {
        for text in hostile {
            let found = run(&database, "select id from notes where text = :t", json!({"t": text})).await.unwrap();
            assert_eq!(found["rows"].as_array().map_or(0, Vec::len), 0, "{text}");
            let kept =
                run(&database, "update notes set text = :t where id = 1 returning text", json!({"t": text})).await;
            assert_eq!(kept.unwrap()["rows"], json!([{"text": text}]));
        }
        assert_eq!(one(&database, "select count(*) as n from notes", nothing()).await, json!(2));
    }
}

#[tokio::test]
async fn an_input_that_does_not_fit_is_the_models_to_mend() {
    let (_place, database) = postgres("create table t (id int primary key check (id > 0))").await;
    for (statement, input) in [
        ("select :n::int", json!({"n": "seven"})),
        ("select :n::uuid", json!({"n": "x"})),
        ("insert into t values (:n)", json!({"n": 99_999_999_999_i64})),
        ("select :n::text", json!({"n": "a\u{0}b"})),
        ("select 1 / :n::int", json!({"n": 0})),
    ] {
        let error = run(&database, statement, input).await.unwrap_err();
        assert!(matches!(error, ToolError::BadInput(_)), "{statement}: {error:?}");
    }
    let error = run(&database, "insert into t values (:n)", json!({"n": -1})).await.unwrap_err();
    let ToolError::Failed(told) = &error else { panic!("{error:?}") };
    assert!(told.contains("check constraint") && told.contains("23514"), "{told}");
}

#[tokio::test]
async fn columns_keep_their_order_and_each_has_a_name_of_its_own() {
    let (_place, postgres) = postgres("").await;
    let (_folder, sqlite) = sqlite("");
    for database in [postgres, sqlite] {
        let statement = "select 1 as z, 2 as a, 3 as z, 4 as a_2, 5 as a";
        let tool = tool(&database, statement).build().unwrap();
        let output = tool.call(Attempt::detached("t", nothing())).await.unwrap();
        assert_eq!(text(&output), r#"{"rows":[{"z":1,"a":2,"z_2":3,"a_2":4,"a_3":5}],"count":1}"#);
    }
}

#[tokio::test]
async fn what_is_too_much_is_cut_or_refused_and_says_so() {
    let (_place, postgres) = postgres("create table t (n int)").await;
    let (_folder, sqlite) = sqlite("create table t (n int)");
    let many = "with recursive s(n) as (select 1 union all select n + 1 from s where n < 5000) ";
    for database in [&postgres, &sqlite] {
        let few = tool(database, &format!("{many} select n from s order by n")).max_rows(3).build().unwrap();
        for _ in 0..3 {
            let answer = call(&few, nothing()).await.unwrap();
            assert_eq!(answer["rows"], json!([{"n": 1}, {"n": 2}, {"n": 3}]));
            assert!(answer["note"].as_str().is_some_and(|note| note.contains("first 3 rows")), "{answer}");
        }
        // What was written is counted in full.
        let writes =
            tool(database, &format!("insert into t {many} select n from s returning n")).max_rows(3).build().unwrap();
        let answer = call(&writes, nothing()).await.unwrap();
        assert_eq!((answer["rows"].as_array().map(Vec::len), &answer["count"]), (Some(3), &json!(5000)), "{answer}");
    }
    let huge = tool(&postgres, "insert into t values (1) returning repeat('x', 20000000)").build().unwrap();
    assert!(matches!(call(&huge, nothing()).await, Err(ToolError::TooLarge(_))));
    assert_eq!(one(&postgres, "select count(*) from t", nothing()).await, json!(5000), "nothing was kept");
    let huge = tool(&sqlite, "insert into t values (1) returning hex(zeroblob(10000000))").build().unwrap();
    assert!(matches!(call(&huge, nothing()).await, Err(ToolError::TooLarge(_))));
    assert_eq!(one(&sqlite, "select count(*) from t", nothing()).await, json!(5000), "nothing was kept");
}

#[tokio::test]
async fn sqlite_takes_lists_as_json_and_gives_back_what_it_holds() {
    let (_folder, database) = sqlite("create table t (a integer primary key, b text, c real, d blob)");
    let insert = "insert into t values (:a, :b, :c, x'00ff') returning *";
    let answer = run(&database, insert, json!({"a": 7, "b": "größe", "c": 1.5})).await.unwrap();
    assert_eq!(answer["rows"], json!([{"a": 7, "b": "größe", "c": 1.5, "d": "\\x00ff"}]));
    let found = run(&database, "select value from json_each(:list)", json!({"list": [1, "a", null]})).await.unwrap();
    assert_eq!(found["rows"], json!([{"value": 1}, {"value": "a"}, {"value": Value::Null}]));
}
