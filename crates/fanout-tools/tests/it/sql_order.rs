//! Calls whose inferred effects do not clash may run in either order: tried on SQLite, for pairs of calls from a seed.
//!
//! The judge never asks what was inferred: it runs both orders from the same rows, and compares what each call answered and
//! every row at the end. Rows come back in no order, so they are compared as a set.

use std::cell::Cell;

use fanout_core::effects::{Effects, EffectsSpec, Paths, Source};
use fanout_tools::sql::infer::{Catalog, infer};
use fanout_tools::sql::{Dialect, Statement, sqlite};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use rusqlite::types::Value as Stored;
use rusqlite::{Connection, params_from_iter};
use serde_json::{Map, Value, json};

const SCHEMA: &str = "
pragma foreign_keys = on;
create table accounts (id integer primary key, email text unique, balance int default 5);
create table stock (sku text primary key, qty int check (qty < 20));
create table orders (id int primary key, account_id int references accounts, note text) without rowid;
create table lines (order_id int references orders on delete cascade on update cascade, line int, sku text references stock,
                    primary key (line, order_id)) without rowid;
create table labels (name text primary key collate nocase, n int);
create table teams (id integer primary key, boss int references accounts on delete set null);
create table audited (id integer primary key, n int);
create table log (n int);
create trigger audit after update on audited begin insert into log select coalesce(sum(qty), 0) from stock; end;
create view mail as select o.id, a.email from orders o join accounts a on a.id = o.account_id;
insert into accounts values (1, 'a', 5), (2, 'b', 6);
insert into stock values ('a', 3), ('b', 4);
insert into orders values (1, 1, 'x'), (2, 2, 'y');
insert into lines values (1, 1, 'a'), (2, 1, 'b');
insert into labels values ('a', 1), ('b', 2);
insert into teams values (1, 1), (2, 2);
insert into audited values (1, 1), (2, 2);
";

const TABLES: [&str; 8] = ["accounts", "stock", "orders", "lines", "labels", "teams", "audited", "log"];

const STATEMENTS: [&str; 48] = [
    "select * from stock where sku = :sku",
    "select qty from stock where sku in (:sku, :other)",
    "select sum(qty) from stock",
    "select * from mail where id = :id",
    "select a.*, (select count(*) from orders o where o.account_id = a.id) from accounts a where a.id = :id",
    "select o.*, a.email from orders o join accounts a on a.id = o.account_id where o.id = :id",
    "select * from accounts a left join teams t on t.id = :id and t.boss = a.id where a.id = :at",
    "select * from lines where order_id = :id and :at = line",
    "select * from orders where id = :id or id = :at",
    "select * from orders where (id) = :id and note is not null",
    "with x as (select * from orders where id = :id) select x.id, l.line from x left join lines l on l.order_id = x.id",
    "select id from teams where id = :id union all select n from audited where id = :at",
    "select * from labels where name = :sku",
    "select * from log",
    "select * from teams where id = :id",
    "update stock set qty = qty - :n where sku = :sku returning qty",
    "update stock set qty = qty + 1 where sku = :sku and qty >= :n",
    "update stock set qty = (select count(*) from lines) where sku = :sku",
    "update stock set qty = a.balance from accounts a where stock.sku = :sku and a.id = :id",
    "update stock set sku = :other where sku = :sku",
    "update stock set qty = qty + 1 where sku = :sku or qty = :n",
    "update accounts set balance = :n where id = :id",
    "update accounts set email = :sku where id = :id",
    "update accounts set id = :at where id = :id",
    "update orders set account_id = :at where id = :id",
    "update orders set id = :at where id = :id",
    "update lines set sku = :sku where order_id = :id and line = :at",
    "update teams set boss = :at where id = :id",
    "update labels set n = :n where name = :sku",
    "update audited set n = :n where id = :id",
    "insert into audited values (:id, :n)",
    "insert into stock (sku, qty) values (:sku, :n)",
    "insert into stock values (:sku, 1), (:other, :n)",
    "insert into stock values (:sku, :n) on conflict (sku) do update set qty = qty + excluded.qty returning qty",
    "insert into stock values (:sku, :n) on conflict do nothing",
    "insert or replace into stock (sku, qty) values (:sku, :n)",
    "insert or replace into accounts (id, email) values (:id, :sku)",
    "insert into accounts (id, email, balance) values (:id, :sku, :n)",
    "insert into accounts (email) values (:sku) returning id",
    "insert into accounts (id, email) values (9, :sku)",
    "insert into orders (id, account_id) values (:id, :at)",
    "insert into lines (order_id, line, sku) values (:id, :at, :sku)",
    "insert into lines select id, :at, :sku from orders where account_id = :n",
    "delete from stock where sku = :sku",
    "delete from accounts where id = :id",
    "delete from orders where id = :id returning note",
    "delete from orders where account_id = :id",
    "delete from lines where line = cast(:at as integer) and order_id = :id",
];

/// One call: statements in one transaction, and its input.
#[derive(Clone, Debug)]
struct Call {
    statements: Vec<&'static str>,
    input: Map<String, Value>,
}

/// Two calls that have to do with one table, so that many come near each other.
fn pairs() -> impl Strategy<Value = (Call, Call)> {
    let pair = |table: &&str| (calls(table), calls(table), prop::collection::vec(any::<bool>(), 5));
    select(TABLES.as_slice()).prop_flat_map(move |table| pair(&table)).prop_map(|(first, mut second, shared)| {
        for ((name, value), is_shared) in first.input.iter().zip(shared) {
            if is_shared {
                second.input.insert(name.clone(), value.clone());
            }
        }
        (first, second)
    })
}

fn calls(table: &str) -> impl Strategy<Value = Call> + use<> {
    let near: Vec<&str> = STATEMENTS.into_iter().filter(|text| text.contains(table)).collect();
    let number = || {
        select(vec![
            json!(1),
            json!(2),
            json!(3),
            json!(4),
            json!("1"),
            json!("02"),
            json!(2.0),
            json!("3"),
            json!(null),
        ])
    };
    let text = || select(vec![json!("a"), json!("b"), json!("c"), json!("A"), json!(1), json!("1"), json!(1.0)]);
    let statements = prop::collection::vec(prop_oneof![3 => select(near), 1 => select(STATEMENTS.as_slice())], 1..3);
    (statements, number(), number(), select(vec![1, 2, 9]), text(), text()).prop_map(
        |(statements, id, at, n, sku, other)| {
            let input = [("id", id), ("at", at), ("n", json!(n)), ("sku", sku), ("other", other)];
            Call { statements, input: input.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
        },
    )
}

fn parsed(call: &Call) -> Vec<Statement> {
    call.statements.iter().map(|text| Statement::parse(Dialect::Sqlite, text).unwrap()).collect()
}

fn effects(call: &Call, catalog: &Catalog) -> Effects {
    let inference = infer("shop", &parsed(call), Some(catalog));
    let spec =
        EffectsSpec { inferred_reads: inference.reads, inferred_writes: inference.writes, ..EffectsSpec::default() };
    spec.resolve(&Source::from("sql/shop"), &Value::Object(call.input.clone()), &Paths::default())
}

/// What the call answers: its rows, or its error, after which nothing of it is left.
fn run(connection: &Connection, call: &Call) -> String {
    connection.execute_batch("savepoint call").unwrap();
    let answer: Result<Vec<Vec<String>>, rusqlite::Error> = parsed(call)
        .iter()
        .map(|statement| {
            let bound = statement.parameters().iter().map(|name| match &call.input[name] {
                Value::String(text) => Stored::Text(text.clone()),
                Value::Number(number) => {
                    number.as_i64().map_or_else(|| Stored::Real(number.as_f64().unwrap()), Stored::Integer)
                }
                _ => Stored::Null,
            });
            rows(connection, statement.text(), bound.collect())
        })
        .collect();
    connection.execute_batch(if answer.is_ok() { "release call" } else { "rollback to call; release call" }).unwrap();
    answer.map_or_else(|error| error.to_string(), |answer| format!("{answer:?}"))
}

fn rows(connection: &Connection, text: &str, bound: Vec<Stored>) -> Result<Vec<String>, rusqlite::Error> {
    let mut statement = connection.prepare(text)?;
    let columns = statement.column_count();
    let read = |row: &rusqlite::Row<'_>| {
        let values: Result<Vec<Stored>, _> = (0..columns).map(|at| row.get(at)).collect();
        values.map(|values| format!("{values:?}"))
    };
    let mut rows: Vec<String> = statement.query_map(params_from_iter(bound), read)?.collect::<Result<_, _>>()?;
    rows.sort();
    Ok(rows)
}

fn database() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    connection
}

/// The answers of both calls, the first of the pair first, and all rows at the end. The database is as it was again.
fn outcome(connection: &Connection, first: &Call, second: &Call, turned: bool) -> (String, String, Vec<Vec<String>>) {
    connection.execute_batch("savepoint pair").unwrap();
    let (one, other) = if turned {
        let other = run(connection, second);
        (run(connection, first), other)
    } else {
        let one = run(connection, first);
        (one, run(connection, second))
    };
    let all = TABLES.map(|table| rows(connection, &format!("select * from {table}"), Vec::new()).unwrap());
    connection.execute_batch("rollback to pair; release pair").unwrap();
    (one, other, all.into())
}

#[test]
fn calls_that_do_not_clash_may_run_in_either_order() {
    let database = database();
    let catalog = sqlite::catalog::load(&database).unwrap();
    let (apart, wrote) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(Config { cases: 20_000, failure_persistence: None, ..Config::default() });
    let tried = runner.run(&pairs(), |(first, second)| {
        let (one, other) = (effects(&first, &catalog), effects(&second, &catalog));
        if one.clash(&other).is_none() {
            apart.set(apart.get() + 1);
            wrote.set(wrote.get() + usize::from(!one.only_reads() && !other.only_reads()));
            let (as_named, turned) =
                (outcome(&database, &first, &second, false), outcome(&database, &first, &second, true));
            prop_assert_eq!(as_named, turned, "{:?} and {:?}", one.accesses, other.accesses);
        }
        Ok(())
    });
    tried.unwrap_or_else(|error| panic!("{error}"));
    // Were everything to clash, nothing would have been tried.
    assert!(apart.get() > 2_000 && wrote.get() > 500, "only {} pairs ran, {} of them writes", apart.get(), wrote.get());
}

#[test]
fn calls_that_clash_are_not_all_of_them_alike_in_both_orders() {
    // The judge sees a difference where there is one.
    let database = database();
    let catalog = sqlite::catalog::load(&database).unwrap();
    let input =
        || Map::from_iter([("sku", json!("a")), ("n", json!(1)), ("id", json!(1))].map(|(n, v)| (n.to_owned(), v)));
    let take = Call { statements: vec![STATEMENTS[15]], input: input() };
    let look = Call { statements: vec![STATEMENTS[0]], input: input() };
    assert_ne!(outcome(&database, &take, &look, false), outcome(&database, &take, &look, true));
    assert!(effects(&take, &catalog).clash(&effects(&look, &catalog)).is_some());
}
