//! What statements touch, over a catalog made by hand: one table per rule.

use std::collections::BTreeSet;

use fanout_core::effects::Canonical;

use super::catalog::{
    Action, Catalog, Column, Events, Function, Kind, Mention, Name, Reference, Relation, Trigger, Uses, Volatility,
};
use super::{Inference, infer};
use crate::sql::{Dialect, Statement};

fn column(text: &str) -> Column {
    let (name, kind) = text.split_once(' ').unwrap_or((text, ""));
    let form = match kind.split(' ').next() {
        Some("int") => Some(Canonical::Integer),
        Some("uuid") => Some(Canonical::Uuid),
        Some("text" | "varchar") => Some(Canonical::Text),
        _ => None,
    };
    let is_numbered = kind.ends_with("serial");
    Column {
        name: name.to_owned(),
        form,
        is_limited: kind.starts_with("varchar"),
        has_default: is_numbered,
        is_numbered,
        is_generated: kind.ends_with("generated"),
        is_partitioning: kind.ends_with("partitioning"),
    }
}

fn names(text: &str) -> Vec<String> {
    text.split(',').filter(|name| !name.is_empty()).map(|name| name.trim().to_owned()).collect()
}

fn table(key: &str, columns: &[&str]) -> Relation {
    let columns = columns.iter().map(|text| column(text)).collect();
    Relation { columns, primary_key: names(key), ..Relation::default() }
}

fn points(columns: &str, target: &str, on: Action) -> Reference {
    let target = Name::new("public", target);
    Reference { columns: names(columns), target, target_columns: Vec::new(), on_delete: on, on_update: on }
}

fn points_in(schema: &str, columns: &str, target: &str) -> Reference {
    Reference { target: Name::new(schema, target), ..points(columns, target, Action::Cascade) }
}

fn uses(relations: &[&str], functions: &[Name]) -> Uses {
    Uses {
        relations: relations.iter().map(|name| Name::new("public", *name)).collect(),
        functions: functions.iter().cloned().collect(),
    }
}

fn function(volatility: Volatility, body: Option<&str>) -> Vec<Function> {
    let language = if body.is_some() { "sql" } else { "plpgsql" };
    vec![Function { volatility, language: language.to_owned(), body: body.map(str::to_owned), of_row: false }]
}

/// A shop with one of everything.
fn shop() -> Catalog {
    let update = Events { update: true, ..Events::default() };
    let uid = Name::new("auth", "uid");
    let mut shop = Catalog::new(Dialect::Postgres);
    let mut add = |name: &str, relation| shop.relations.insert(Name::new("public", name), relation);
    add("inventory", table("sku", &["sku text", "qty", "version int"]));
    add(
        "customers",
        Relation { uniques: vec![Some(names("email"))], ..table("id", &["id int", "email text", "name text"]) },
    );
    add(
        "orders",
        Relation {
            references: vec![points("customer_id", "customers", Action::Refuse)],
            ..table("id", &["id int", "customer_id int", "note text"])
        },
    );
    add(
        "order_items",
        Relation {
            references: vec![points("order_id", "orders", Action::Cascade), points("sku", "inventory", Action::Refuse)],
            ..table("order_id,line", &["order_id int", "line int", "sku text", "qty"])
        },
    );
    add("tokens", table("id", &["id uuid", "note text"]));
    add("prices", table("id", &["id numeric", "amount"]));
    add("codes", table("code", &["code varchar", "note text"]));
    add("folded", Relation { uniques: vec![None], ..table("code", &["code text", "note text"]) });
    add("bare", table("", &["id int"]));
    add(
        "audited",
        Relation {
            triggers: vec![Trigger { name: "audit".to_owned(), on: update }],
            ..table("id", &["id int", "n int"])
        },
    );
    add("logs", table("id", &["id int serial", "text text"]));
    add("counted", table("id", &["id int", "at int serial"]));
    add("events", table("id,day", &["id int", "day int partitioning", "n"]));
    let part = Relation {
        root: Some(Name::new("public", "events")),
        triggers: vec![Trigger { name: "gone".to_owned(), on: Events { delete: true, ..Events::default() } }],
        ..table("id,day", &["id int", "day int", "n"])
    };
    add("events_1", part);
    let slug = ["id int", "name text", "slug text generated"];
    add("slugs", Relation { uniques: vec![Some(names("slug"))], ..table("id", &slug) });
    add(
        "slugged",
        Relation {
            references: vec![points("of,slug", "pairs", Action::Refuse)],
            ..table("id", &["id int", "of int", "name text", "slug text generated"])
        },
    );
    add("pairs", table("id,slug", &["id int", "slug text"]));
    add(
        "twice",
        Relation {
            references: vec![points("a", "bare_ids", Action::Clear), points("b", "bare_ids", Action::Clear)],
            ..table("id", &["id int", "a int", "b int"])
        },
    );
    add("bare_ids", table("id", &["id int"]));
    let b = Reference { target_columns: names("b"), ..points("b", "twice", Action::Cascade) };
    add("behind", Relation { references: vec![b], ..table("id", &["id int", "b int"]) });
    add("same", Relation { kind: Kind::View, query: uses(&["orders"], &[]), ..Relation::default() });
    add("too", Relation { kind: Kind::View, query: uses(&["orders"], &[]), ..Relation::default() });
    add("far", Relation { kind: Kind::Outside, ..table("id", &["id int"]) });
    add("active", Relation { kind: Kind::View, query: uses(&["orders", "customers"], &[]), ..Relation::default() });
    add(
        "notes",
        Relation { beside: uses(&["members"], std::slice::from_ref(&uid)), ..table("id", &["id int", "owner uuid"]) },
    );
    add("few", Relation { beside: uses(&["few"], &[]), ..table("id", &["id int", "owner uuid"]) });
    add("members", table("team,who", &["team int", "who uuid"]));
    add(
        "stamped",
        Relation { on_write: uses(&[], &[Name::new("public", "bump")]), ..table("id", &["id int", "n int"]) },
    );
    shop.relations.insert(Name::new("depot", "inventory"), table("sku", &["sku text", "qty"]));
    for (name, functions) in [
        (
            uid,
            function(Volatility::Stable, Some("select nullif(current_setting('request.jwt.claims', true), '')::uuid")),
        ),
        (Name::new("public", "pure"), function(Volatility::Immutable, None)),
        (Name::new("public", "looks"), function(Volatility::Stable, None)),
        (Name::new("public", "bump"), function(Volatility::Volatile, None)),
        (
            Name::new("public", "lines"),
            function(Volatility::Volatile, Some("select count(*) from order_items where order_id = $1")),
        ),
        (Name::new("public", "around"), function(Volatility::Stable, Some("select around()"))),
    ] {
        shop.functions.insert(name, functions);
    }
    shop.volatile_builtins = BTreeSet::from(["nextval", "random", "currval"].map(str::to_owned));
    for (text, is_row) in [("@@@", false), ("mood", false), ("tokens", true)] {
        shop.mentions.push(Mention { text: text.to_owned(), is_row, calls: Name::new("public", "looks") });
    }
    let mut of_row = function(Volatility::Stable, Some("select 1 from members"));
    of_row[0].of_row = true;
    shop.functions.insert(Name::new("public", "qty"), of_row);
    shop
}

/// SQLite's half of it.
fn local() -> Catalog {
    let mut local = Catalog::new(Dialect::Sqlite);
    let mut add = |name: &str, relation| local.relations.insert(Name::new("main", name), relation);
    add("inventory", table("sku", &["sku text", "qty", "version int"]));
    add("orders", table("id", &["id int", "note text"]));
    let unique = vec![Some(names("email"))];
    let people = table("id", &["id int", "email text", "n int"]);
    add("people", Relation { replaces: true, uniques: unique, ..people });
    add(
        "pets",
        Relation { references: vec![points_in("main", "owner", "people")], ..table("id", &["id int", "owner int"]) },
    );
    add(
        "doubled",
        Relation { uniques: vec![Some(names("w"))], ..table("id", &["id int", "w int generated", "v int"]) },
    );
    let definition = Some("CREATE VIEW open_orders AS SELECT * FROM orders WHERE note = 'open'".to_owned());
    add("open_orders", Relation { kind: Kind::View, definition, ..Relation::default() });
    local
}

fn parsed(catalog: &Catalog, texts: &[&str]) -> Vec<Statement> {
    let parse = |text: &&str| Statement::parse(catalog.dialect, text).expect("a statement");
    texts.iter().map(parse).collect()
}

fn shown(inference: &Inference) -> String {
    let list = |templates: &[fanout_core::effects::Template]| {
        let short = templates.iter().map(|one| one.to_string().trim_start_matches("sql/shop/").to_owned());
        short.collect::<Vec<_>>().join(" ")
    };
    format!("{} | {}", list(&inference.reads), list(&inference.writes)).trim().to_owned()
}

#[track_caller]
fn check_in(catalog: &Catalog, cases: &[(&str, &str)]) {
    for (text, touched) in cases {
        let inference = infer("shop", &parsed(catalog, &[text]), Some(catalog));
        assert_eq!(shown(&inference), *touched, "{text}\n{:#?}", inference.why);
        assert_eq!(inference.is_read, inference.writes.is_empty());
    }
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    check_in(&shop(), cases);
}

#[test]
fn a_parameter_compared_with_the_primary_key_names_the_row() {
    check(&[
        ("select * from inventory where sku = :sku", "inventory/{sku} |"),
        ("select * from Inventory i where :s = i.SKU and qty > 0", "inventory/{s} |"),
        ("select * from inventory where (sku = :sku) and (qty > 0 or qty < 9)", "inventory/{sku} |"),
        ("select * from public.inventory where inventory.sku = :sku::text", "inventory/{sku} |"),
        ("select * from depot.inventory where sku = :sku", "depot.inventory/{sku} |"),
        ("select * from orders where id = cast(:id as bigint)", "orders/{id} |"),
        ("select * from orders where id = 7", "orders/7 |"),
        ("select * from inventory where sku = 'a/b'", "inventory/a%2Fb |"),
        ("select * from orders where id in (:a, :b, 3)", "orders/{a} orders/{b} orders/3 |"),
        ("select * from orders where id = any(:ids)", "orders/{ids} |"),
        ("select * from tokens where id = any(:ids::uuid[])", "tokens/{ids} |"),
        ("select * from order_items where order_id = :o and line = :l", "order_items/{o}/{l} |"),
        ("select * from order_items where (order_id, line) = (:o, :l)", "order_items/{o}/{l} |"),
        ("select * from order_items where line in (1, 2) and order_id = :o", "order_items/{o}/1 order_items/{o}/2 |"),
        ("update inventory set qty = qty - :n where sku = :sku and version = :v returning qty", "| inventory/{sku}"),
        ("delete from order_items where order_id = :o and line = :l", "| order_items/{o}/{l}"),
    ]);
}

#[test]
fn without_it_the_table_is_touched_as_a_whole() {
    check(&[
        ("select * from inventory", "inventory/* |"),
        ("select * from inventory where sku = :a or sku = :b", "inventory/* |"),
        ("select * from inventory where not sku = :a", "inventory/* |"),
        ("select * from inventory where sku <> :a", "inventory/* |"),
        ("select * from inventory where lower(sku) = :a", "inventory/* |"),
        ("select * from inventory where sku = upper(:a)", "inventory/* |"),
        ("select * from inventory where sku = :a::varchar(3)", "inventory/* |"),
        ("select * from orders where id = :a::text::int", "orders/* |"),
        ("select * from orders where id = 007", "orders/* |"),
        ("select * from orders where id not in (:a)", "orders/* |"),
        ("select * from orders where id = any(array[1, 2])", "orders/* |"),
        ("select * from orders where id = all(:ids)", "orders/* |"),
        ("select * from orders where customer_id = :c", "orders/* |"),
        ("select * from order_items where order_id = :o", "order_items/* |"),
        ("select * from orders o(note, id) where id = :id", "orders/* |"),
        ("select * from orders where id = (select :id)", "orders/* |"),
        ("select * from prices where id = :id", "prices/* |"),
        ("select * from bare where id = :id", "bare/* |"),
        ("select * from \"Inventory\" where sku = :a", "| *"),
    ]);
}

#[test]
fn each_level_of_a_query_names_its_own_rows() {
    check(&[
        (
            "select * from orders o join customers c on c.id = o.customer_id where o.id = :id",
            "orders/{id} customers/* |",
        ),
        ("select * from orders o, inventory i where o.id = :id and i.sku = :s", "orders/{id} inventory/{s} |"),
        ("select * from orders o join inventory i on i.sku = :s where o.id = :id", "orders/{id} inventory/{s} |"),
        ("select * from orders o left join inventory i on o.id = :id", "orders/* inventory/* |"),
        ("select * from orders o, order_items where id = :id", "orders/{id} order_items/* |"),
        ("select * from orders o, order_items i where i.id = :id", "orders/* order_items/* |"),
        ("select (select qty from inventory where sku = :s) from orders where id = :id", "orders/{id} inventory/{s} |"),
        ("select * from orders where id = :id and exists (select 1 from tokens)", "orders/{id} tokens/* |"),
        ("select id from orders where id = :id union all select id from customers", "orders/{id} customers/* |"),
        ("with x as (select * from orders where id = :id) select * from x", "orders/{id} |"),
        ("with recursive x as (select 1 union select * from x) select * from x, tokens", "tokens/* |"),
        ("select * from (select * from orders where id = :id) o", "orders/{id} |"),
        ("select * from (orders o join customers c on true) where o.id = :id", "orders/{id} customers/* |"),
        ("select * from generate_series(1, 3) g, orders where orders.id = :id", "orders/{id} |"),
        ("select 1 where :x in (values ('a'), ('b'))", "|"),
        ("select * from orders order by (select max(qty) from inventory)", "orders/* inventory/* |"),
        ("select count(*) filter (where exists (select 1 from tokens)) from orders", "orders/* tokens/* |"),
    ]);
}

#[test]
fn a_write_touches_what_it_writes_and_reads_the_rest() {
    check(&[
        (
            "update inventory set qty = (select max(qty) from order_items) where sku = :s",
            "order_items/* | inventory/{s}",
        ),
        ("update inventory i set qty = 0 from tokens t where i.sku = :s and t.id = :t", "tokens/{t} | inventory/{s}"),
        ("update inventory set qty = 0 from tokens where sku = :s", "tokens/* | inventory/{s}"),
        ("delete from tokens t using members m where t.id = :t", "members/* | tokens/{t}"),
        ("update inventory set qty = 0", "| inventory/*"),
        ("update inventory set sku = :new where sku = :old", "order_items/* | inventory/*"),
        ("update customers set name = :n where id = :id", "| customers/{id}"),
        ("update customers set email = :e where id = :id", "| customers/*"),
        ("update slugs set name = :n where id = :id", "| slugs/*"),
        ("with x as (update inventory set qty = 0 where sku = :s returning *) select * from x", "| inventory/{s}"),
        ("with x as (delete from tokens returning id) insert into bare select 1 from x", "| tokens/* bare/*"),
        ("with x as (select 1) update inventory set qty = 0 where sku = :s", "| inventory/{s}"),
        (
            "merge into inventory i using tokens t on true when matched then delete",
            "order_items/* tokens/* | inventory/*",
        ),
        ("select * from inventory where sku = :s for update", "| inventory/{s}"),
        ("select * from inventory for share", "| inventory/*"),
        ("select * into copy from inventory", "| *"),
    ]);
}

#[test]
fn a_new_row_is_named_where_nothing_else_can_stand_in_its_way() {
    check(&[
        ("insert into inventory (sku, qty) values (:s, 1)", "| inventory/{s}"),
        ("insert into inventory values (:s, 1, 1), ('b', 2, 2)", "| inventory/{s} inventory/b"),
        ("insert into inventory (sku) values (:s) on conflict (sku) do nothing", "| inventory/{s}"),
        ("insert into inventory (sku) values (:s) on conflict (sku) do update set qty = 2", "| inventory/{s}"),
        (
            "insert into inventory (sku) values (:s) on conflict (sku) do update set sku = 'x'",
            "order_items/* | inventory/*",
        ),
        ("insert into inventory (qty) values (:n)", "| inventory/*"),
        ("insert into inventory (sku) values (lower(:s))", "| inventory/*"),
        ("insert into inventory select * from tokens", "tokens/* | inventory/*"),
        ("insert into inventory default values", "| inventory/*"),
        ("insert into customers (id, email) values (:id, :e)", "| customers/*"),
        ("insert into codes (code) values (:c)", "| codes/*"),
        ("insert into folded (code) values (:c)", "| folded/*"),
        ("update folded set note = :n where code = :c", "| folded/*"),
        ("insert into logs (text) values (:t)", "| logs/*"),
        ("insert into logs (id, text) values (:id, :t)", "| logs/{id}"),
        ("insert into counted (id) values (:id)", "| counted/*"),
        ("insert into counted (id, at) values (:id, 1)", "| counted/{id}"),
        ("insert into counted (id, at) values (:id, default)", "| counted/*"),
    ]);
}

#[test]
fn foreign_keys_are_followed_both_ways() {
    check(&[
        ("insert into orders (id, customer_id) values (:id, :c)", "customers/{c} | orders/{id}"),
        ("insert into orders (id) values (:id)", "| orders/{id}"),
        ("insert into orders (id, customer_id) select 1, 2", "customers/* | orders/*"),
        ("update orders set note = :n where id = :id", "| orders/{id}"),
        ("update orders set customer_id = :c where id = :id", "customers/{c} | orders/{id}"),
        ("update orders set customer_id = :c + 1 where id = :id", "customers/* | orders/{id}"),
        (
            "insert into order_items (order_id, line, sku) values (:o, 1, :s)",
            "orders/{o} inventory/{s} | order_items/{o}/1",
        ),
        ("delete from customers where id = :id", "orders/* | customers/{id}"),
        ("delete from orders where id = :id", "| orders/{id} order_items/*"),
        ("update orders set id = :new where id = :id", "| orders/* order_items/*"),
        ("delete from bare_ids where id = :id", "bare_ids/* | bare_ids/{id} twice/* behind/*"),
        ("update slugged set name = :n where id = :id", "pairs/* | slugged/{id}"),
        ("update slugged set \"of\" = :n where id = :id", "pairs/* | slugged/{id}"),
    ]);
}

#[test]
fn what_runs_on_a_write_widens_it_to_the_database() {
    check(&[
        ("update audited set n = 1 where id = :id", "| *"),
        ("delete from audited where id = :id", "| audited/{id}"),
        ("insert into stamped (id) values (:id)", "| *"),
        ("delete from stamped where id = :id", "| stamped/{id}"),
        ("delete from far where id = :id", "| *"),
        ("select * from far", "* |"),
    ]);
}

#[test]
fn a_function_touches_what_it_may() {
    check(&[
        ("select pure(qty), now(), random(), coalesce(:a, 1) from inventory where sku = :s", "inventory/{s} |"),
        ("select auth.uid()", "|"),
        ("select lines(:o)", "order_items/* |"),
        ("select looks()", "* |"),
        ("select around()", "|"),
        ("select * from looks() l", "* |"),
        ("select * from tokens where id @@@ 1", "* |"),
        ("select bump()", "| *"),
        ("select o.bump from orders o", "orders/* |"),
        ("select o.qty from orders o where id = :id", "orders/{id} members/* |"),
        ("select (o).Qty from orders o where id = :id", "orders/{id} members/* |"),
        ("select :m::MOOD", "* |"),
        ("select moods from tokens where id = :m", "tokens/{m} |"),
        ("select (:m::tokens).note", "* |"),
        ("select PUBLIC.Bump()", "| *"),
        ("select other.thing()", "| *"),
        ("select nextval('x')", "| *"),
        ("select currval('x')", "| *"),
        ("select table_to_xml('x', true, true, '')", "* |"),
        ("update inventory set qty = bump() where sku = :s", "| *"),
    ]);
}

#[test]
fn views_partitions_and_policies_lead_to_the_tables_behind_them() {
    check(&[
        ("select * from active where id = :id", "customers/* orders/* |"),
        ("update active set note = :n where id = :id", "| customers/* orders/* order_items/*"),
        ("select * from events_1 where id = :id and day = 3", "events/{id}/3 |"),
        ("update events set n = 1 where id = :id and day = :d", "| events/{id}/{d}"),
        ("update events set day = 2 where id = :id and day = :d", "| *"),
        (
            "with a as (insert into same values (:n)) delete from too where id = :id",
            "customers/* | orders/* order_items/*",
        ),
        ("select * from notes where id = :id", "notes/{id} members/* |"),
        ("update notes set owner = :o where id = :id", "members/* | notes/{id}"),
        ("insert into few (id) values (:id)", "few/* | few/{id}"),
        ("select * from few where id = :id", "few/{id} few/* |"),
    ]);
}

#[test]
fn a_name_that_depends_on_the_role_is_everything() {
    let mut shop = shop();
    shop.schemas_of_roles.push("depot".to_owned());
    shop.relations.insert(Name::new("depot", "crates"), table("id", &["id int"]));
    check_in(
        &shop,
        &[
            ("select * from inventory where sku = :s", "| *"),
            ("update inventory set qty = 1 where sku = :s", "| *"),
            ("select * from public.inventory where sku = :s", "inventory/{s} |"),
            ("with inventory as (select 1) select * from inventory", "| *"),
            ("select * from crates where id = :id", "depot.crates/{id} |"),
            ("select * from orders where id = :id", "orders/{id} |"),
        ],
    );
}

#[test]
fn what_is_not_understood_writes_everything() {
    check(&[
        ("select * from nowhere", "| *"),
        ("update nowhere set a = 1", "| *"),
        ("call thing()", "| *"),
        ("create table x (a int)", "| *"),
        ("truncate orders", "| *"),
        ("do $$ begin end $$", "| *"),
        ("select * frm orders", "| *"),
        ("select * from pg_class", "* |"),
        ("select * from information_schema.tables", "* |"),
    ]);
}

#[test]
fn sqlite_has_its_own_names_and_statements() {
    check_in(
        &local(),
        &[
            ("select * from [INVENTORY] where \"Sku\" = :s", "inventory/{s} |"),
            ("select * from main.inventory where sku = :s", "inventory/{s} |"),
            ("insert or replace into orders (id, note) values (:id, :n)", "| orders/{id}"),
            ("replace into orders values (:id, :n)", "| orders/{id}"),
            ("insert into orders (id) values (:id) on conflict do nothing", "| orders/{id}"),
            ("insert into inventory (sku, rowid) values (:s, 3)", "| inventory/*"),
            ("update inventory set _rowid_ = 3 where sku = :s", "| inventory/*"),
            ("update orders set Oid = :n where id = :id", "| orders/*"),
            ("insert into people (id, n) values (:id, 1)", "| people/* pets/*"),
            ("update people set email = :e where id = :id", "| people/* pets/*"),
            ("update people set n = 1 where id = :id", "| people/{id}"),
            ("update doubled set v = 1 where id = :id", "| doubled/*"),
            ("insert into pets (rowid, \"owner\") values (1, :p)", "people/{p} | pets/*"),
            ("select * from open_orders where id = :id", "orders/* |"),
            ("update open_orders set note = 1", "| *"),
            ("select value from json_each(:ids)", "|"),
            ("select unixepoch(), typeof(note), my_own(note) from orders", "| *"),
            ("select last_insert_rowid()", "| *"),
            ("select * from sqlite_master", "* |"),
            ("update inventory set qty = 1 where sku = cast(:s as text)", "| inventory/{s}"),
        ],
    );
}

#[test]
fn the_statements_of_one_tool_are_one() {
    let shop = shop();
    let both = |texts: &[&str]| infer("shop", &parsed(&shop, texts), Some(&shop));
    let texts = ["select qty from inventory where sku = :s", "update inventory set qty = 0 where sku = :s"];
    assert_eq!(shown(&both(&texts)), "| inventory/{s}");
    assert_eq!(shown(&both(&["insert into logs (text) values (:t)", "select currval('logs_id_seq')"])), "| logs/*");
}

#[test]
fn a_write_is_keyed_if_it_looks_at_no_other_row() {
    let shop = shop();
    for (texts, is_keyed, is_one_row) in [
        (&["update inventory set qty = qty - 1 where sku = :s and version = :v"][..], true, true),
        (&["update inventory set qty = 1 where sku = :a", "update inventory set qty = 2 where sku = :b"], true, false),
        (&["update inventory set qty = 1 where sku = any(:a)"], true, false),
        (&["insert into logs (text) values (:t)"], true, true),
        (&["insert into orders (id, customer_id) values (:id, :c)"], true, true),
        (&["update inventory set qty = 1"], false, false),
        (&["update customers set email = :e where id = :id"], false, false),
        (&["update inventory set qty = (select 1 from tokens) where sku = :s"], false, false),
        (&["select 1 from tokens", "update inventory set qty = 1 where sku = :a"], false, false),
        (&["select qty from inventory where sku = :s for update"], false, false),
        (&["update notes set owner = :o where id = :id"], false, false),
        (&["update audited set n = 1 where id = :id"], false, false),
        (&["select 1 from tokens"], false, false),
    ] {
        let found = infer("shop", &parsed(&shop, texts), Some(&shop));
        assert_eq!((found.is_keyed, found.is_one_row), (is_keyed, is_one_row), "{texts:?}");
    }
}

#[test]
fn without_a_catalog_it_is_the_database() {
    for (dialect, text, touched) in [
        (Dialect::Postgres, "select count(*) from orders where id = :id", "* |"),
        (Dialect::Postgres, "select thing() from orders", "| *"),
        (Dialect::Postgres, "select * from orders for update", "| *"),
        (Dialect::Postgres, "update orders set note = 1 where id = :id", "| *"),
        (Dialect::Sqlite, "select upper(note) from orders", "* |"),
        (Dialect::Sqlite, "delete from orders", "| *"),
    ] {
        let statement = Statement::parse(dialect, text).expect("a statement");
        let found = infer("shop", &[statement], None);
        assert_eq!(shown(&found), touched, "{text}");
    }
}

#[test]
fn the_reasons_are_sentences() {
    let shop = shop();
    for (text, why) in [
        (
            "update inventory set qty = 1 where sku = :sku",
            &["writes `inventory` by its primary key: `sql/shop/inventory/{sku}`"][..],
        ),
        (
            "select * from orders where customer_id = :c",
            &["reads all of `orders`: its primary key (`id`) is not compared with an input"],
        ),
        (
            "update audited set n = 1 where id = :id",
            &[
                "writes the whole database: trigger `audit` on `audited` may write any table",
                "writes `audited` by its primary key: `sql/shop/audited/{id}`",
            ],
        ),
        (
            "select * from prices where id = :id",
            &["reads all of `prices`: two spellings of `id`, its primary key, can be one row"],
        ),
        (
            "update customers set email = :e where id = :id",
            &["writes all of `customers`: `email` has to be unique too"],
        ),
    ] {
        assert_eq!(infer("shop", &parsed(&shop, &[text]), Some(&shop)).why, why, "{text}");
    }
}
