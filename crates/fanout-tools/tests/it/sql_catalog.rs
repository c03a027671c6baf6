//! What a real database says of its tables, and what is inferred of statements with it.
//!
//! The role that asks is nobody in particular: neither superuser nor owner.

use fanout_testing::postgres::{Database, Pgbouncer, Postgres};
use fanout_tools::sql::infer::{Catalog, Inference, infer};
use fanout_tools::sql::{Statement, postgres, sqlite};
use rusqlite::Connection;
use tokio_postgres::{Client, NoTls};

const SHOP: &str = r#"
create schema depot;
create table customers (id int primary key, email text unique, name text);
create table inventory (sku text primary key, qty int not null, check (qty >= 0));
create table depot.inventory (sku text primary key, qty int);
create table orders (id bigint primary key, customer_id int references customers, note text);
create table order_items (
  order_id bigint references orders on delete cascade, line smallint, sku text references inventory, qty int,
  primary key (order_id, line) include (qty)
);
create table tokens (id uuid primary key default gen_random_uuid(), note text);
create type state as enum ('open', 'done');
create table states (state state primary key, n int);
create table prices (id numeric primary key);
create table fixed (id char(3) primary key);
create table short (id varchar(3) primary key);
create collation folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
create table folds (id text collate folded primary key);
create table logs (id serial primary key, text text);
create table numbered (id int generated always as identity primary key, text text);
create sequence tickets;
create table drawn (id int primary key, ticket int default nextval('tickets'));
create table ranges (id int primary key, during int4range, exclude using gist (during with &&));
create table lowered (id int primary key, name text);
create unique index on lowered (lower(name));
create table skus (sku text primary key, n int);
create unique index on skus (sku collate folded);
create table patterns (sku text primary key, n int);
create unique index on patterns (sku text_pattern_ops);
create table again (sku text primary key, n int, unique (sku, n));
create table "Odd Name" ("Id" int primary key, n int);

create table events (id int, day int, n int, primary key (id, day)) partition by range (day);
create table events_1 partition of events for values from (0) to (10);
create table moving (id int, place text, n int) partition by list (lower(place));
create table moving_a partition of moving for values in ('a');
create table slugs (id int primary key, name text, slug text generated always as (lower(name)) stored unique);
create table slugged (id int primary key, n int, "of" int generated always as (n) stored references slugs);
create table animals (id int primary key, name text);
create table dogs (barks bool) inherits (animals);

create function audit() returns trigger language plpgsql as $$ begin return new; end $$;
create table audited (id int primary key, n int);
create trigger audit after update on audited for each row execute function audit();
create trigger gone after delete on moving for each row execute function audit();
create table searched (id int primary key, words text, found tsvector);
create trigger found before insert or update on searched
  for each row execute function tsvector_update_trigger(found, 'pg_catalog.english', words);
create table ruled (id int primary key, n int);
create rule also as on delete to ruled do also notify x;

create function pure(int) returns int language sql immutable as 'select $1';
create function looks() returns int language plpgsql stable as $$ begin return 1; end $$;
create function bump() returns int language plpgsql as $$ begin return 1; end $$;
create function lines(bigint) returns bigint language sql stable as 'select count(*) from order_items where order_id = $1';
create function elsewhere() returns bigint language sql stable set search_path = depot as 'select count(*) from inventory';
create function atomic() returns bigint language sql stable begin atomic select count(*) from inventory; end;
create function lower(customers) returns text language plpgsql as $$ begin return ''; end $$;
create function counts(bigint, text) returns bigint language sql stable as 'select count(*) from inventory';
create aggregate counted(text) (sfunc = counts, stype = bigint);
create function known(text) returns boolean language sql stable as 'select exists (select from inventory where sku = $1)';
create domain known_sku as text check (known(value));
create table kept (id int primary key, sku known_sku);
create type mark as (x text);
create function marked(text) returns mark language sql stable as 'select row(qty)::mark from inventory where sku = $1';
create cast (text as mark) with function marked(text) as assignment;
create table marks (id int primary key, mark mark, text text);
create function total(orders) returns bigint language sql stable as 'select count(*) from order_items where order_id = $1.id';
create table invoices (id int primary key, total bigint);
create function rooted() returns bigint language sql stable security definer as 'select count(*) from inventory';
create table stamped (id int primary key, n int default bump());
create table checked (id int primary key, n int, check (looks() = 1));
create operator @@@ (leftarg = int, function = looks_at);
"#;

const MORE: &str = r#"
create view active as select o.* from orders o join customers c on c.id = o.customer_id;
create view busy as select * from active where lines(id) > 3;
create view asking as select bump() as n;
create view own_tokens as select * from tokens;
create materialized view sums as select sum(qty) from inventory;

create table members (team int, who uuid, primary key (team, who));
create table notes (id int primary key, owner uuid, team int, text text);
alter table notes enable row level security;
create policy own on notes using (owner = auth.uid() or team in (select team from members where who = auth.uid()));
create table mine (id int primary key, owner uuid);
alter table mine enable row level security;
create policy own on mine using (owner = (select auth.uid()));
create table few (id int primary key, owner text);
alter table few enable row level security;
create policy seen on few for select using (true);
create policy made on few for insert with check ((select count(*) from few f where f.owner = few.owner) < 2);
"#;

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn shop() -> Database {
    let database = Postgres::shared().unwrap().database().await.unwrap();
    let looks_at = "create function looks_at(int) returns int language plpgsql stable as $$ begin return 1; end $$;";
    let schema = SHOP.replace("create operator @@@ (leftarg", &format!("{looks_at}\ncreate operator @@@ (rightarg"));
    database.sql(&schema).await.unwrap();
    database.supabase().await.unwrap();
    database.sql(MORE).await.unwrap();
    database
}

fn shown(inference: &Inference) -> String {
    let list = |templates: &[fanout_core::effects::Template]| {
        let short = templates.iter().map(|one| one.to_string().trim_start_matches("sql/shop/").to_owned());
        short.collect::<Vec<_>>().join(" ")
    };
    format!("{} | {}", list(&inference.reads), list(&inference.writes)).trim().to_owned()
}

#[track_caller]
fn check(catalog: &Catalog, cases: &[(&str, &str)]) {
    let dialect = catalog.dialect;
    let mut wrong = Vec::new();
    for (text, touched) in cases {
        let statement = Statement::parse(dialect, text).unwrap();
        let inference = infer("shop", &[statement], Some(catalog));
        if shown(&inference) != *touched {
            wrong.push(format!("{text}\n  {}\n  not {touched}\n  {:?}", shown(&inference), inference.why));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn keys_of_postgres_are_those_whose_values_have_one_spelling() {
    let database = shop().await;
    let catalog = postgres::catalog::load(&connect(&database.user_url()).await).await.unwrap();
    check(
        &catalog,
        &[
            ("select * from inventory where sku = :s", "inventory/{s} |"),
            ("select * from depot.inventory where sku = :s", "depot.inventory/{s} |"),
            ("select * from ORDERS where ID = :id", "orders/{id} |"),
            ("select * from \"Odd Name\" where \"Id\" = :id", "Odd Name/{id} |"),
            ("select * from \"Odd Name\" where id = :id", "Odd Name/* |"),
            ("select * from order_items where order_id = :o and line = :l", "order_items/{o}/{l} |"),
            ("select * from tokens where id = :id", "tokens/{id} |"),
            ("select * from states where state = :s", "states/{s} |"),
            ("select * from prices where id = :id", "prices/* |"),
            ("select * from fixed where id = :id", "fixed/* |"),
            ("select * from folds where id = :id", "folds/* |"),
            ("select * from short where id = :id", "short/{id} |"),
            ("insert into short values (:id)", "| short/*"),
            ("insert into tokens (id) values (:id)", "| tokens/{id}"),
            ("insert into logs (text) values (:t)", "| logs/*"),
            ("insert into numbered (text) values (:t)", "| numbered/*"),
            ("insert into drawn (id) values (:id)", "| *"),
            ("insert into ranges (id) values (:id)", "| ranges/*"),
            ("insert into lowered (id) values (:id)", "| lowered/*"),
            ("insert into customers (id) values (:id)", "| customers/*"),
            ("insert into skus values (:s, 1)", "| skus/*"),
            ("insert into patterns values (:s, 1)", "| patterns/*"),
            ("insert into again values (:s, 1)", "| again/{s}"),
            ("insert into order_items (order_id, line) values (:o, :l)", "orders/{o} | order_items/{o}/{l}"),
            ("update inventory set qty = qty - 1 where sku = :s", "| inventory/{s}"),
        ],
    );
}

#[tokio::test]
async fn what_comes_with_a_table_of_postgres_is_followed() {
    let database = shop().await;
    let catalog = postgres::catalog::load(&connect(&database.user_url()).await).await.unwrap();
    check(
        &catalog,
        &[
            ("delete from customers where id = :id", "orders/* | customers/{id}"),
            ("delete from orders where id = :id", "| orders/{id} order_items/*"),
            ("update orders set customer_id = :c where id = :id", "customers/{c} | orders/{id}"),
            ("update audited set n = 1 where id = :id", "| *"),
            ("delete from audited where id = :id", "| audited/{id}"),
            ("update searched set words = :w where id = :id", "| searched/{id}"),
            ("delete from ruled where id = :id", "| *"),
            ("update ruled set n = 1 where id = :id", "| ruled/{id}"),
            ("update moving set place = 'b' where id = :id", "| *"),
            ("update slugs set name = :n where id = :id", "| slugs/*"),
            ("update slugged set n = :n where id = :id", "slugs/* | slugged/{id}"),
            ("insert into slugged values (:id, 1)", "slugs/* | slugged/{id}"),
            ("update events_1 set n = 1 where id = :id and day = :d", "| events/{id}/{d}"),
            ("select * from dogs where id = :id", "animals/{id} |"),
            ("select pure(1)", "|"),
            ("select looks()", "* |"),
            ("select bump()", "| *"),
            ("select lines(:o)", "order_items/* |"),
            ("select elsewhere()", "* |"),
            ("select atomic()", "* |"),
            ("select lower(name) from customers", "| *"),
            ("select upper(name) from customers", "customers/* |"),
            ("select @@@ id from orders", "* |"),
            ("insert into stamped (id) values (:id)", "| *"),
            ("select counted(text) from logs", "* |"),
            ("insert into kept values (:id, :s)", "inventory/* | kept/{id}"),
            ("select * from kept where id = :id", "kept/{id} |"),
            ("select :s::known_sku", "inventory/* |"),
            ("insert into marks values (:id, :m)", "inventory/* | marks/{id}"),
            ("select o.total from orders o where o.id = :id", "orders/{id} order_items/* |"),
            ("select (o).total from orders o where o.id = :id", "orders/{id} order_items/* |"),
            ("select rooted()", "* |"),
            ("update checked set n = 1 where id = :id", "* | checked/{id}"),
            ("select * from active where id = :id", "customers/* orders/* |"),
            ("select * from busy", "customers/* orders/* order_items/* |"),
            ("select * from asking", "| *"),
            ("update own_tokens set note = :n where id = :id", "| tokens/*"),
            ("select * from sums", "sums/* |"),
            ("select auth.uid(), auth.role(), auth.jwt()", "|"),
            ("select * from notes where id = :id", "notes/{id} members/* |"),
            ("update mine set owner = auth.uid() where id = :id", "| mine/{id}"),
            ("insert into few values (:id, 'a')", "few/* | few/{id}"),
            ("select nextval('tickets')", "| *"),
            ("select pg_advisory_xact_lock(1)", "| *"),
            ("select gen_random_uuid(), now(), random()", "|"),
            ("select * from pg_stat_activity", "* |"),
        ],
    );
}

#[tokio::test]
async fn the_search_path_is_that_of_the_role() {
    let database = shop().await;
    let user = database.user();
    let path = format!("grant usage on schema depot to {user}; alter role {user} set search_path = depot, public");
    database.sql(&path).await.unwrap();
    let catalog = postgres::catalog::load(&connect(&database.user_url()).await).await.unwrap();
    check(
        &catalog,
        &[
            ("select * from inventory where sku = :s", "depot.inventory/{s} |"),
            ("select * from public.inventory where sku = :s", "inventory/{s} |"),
        ],
    );
}

#[tokio::test]
async fn a_name_that_another_role_finds_elsewhere_is_everything() {
    let database = shop().await;
    let path = "grant usage on schema depot to authenticated; do $$ begin execute format(
        'alter role authenticator in database %I set search_path = Depot, public', current_database()); end $$";
    database.sql(path).await.unwrap();
    let url = database.supabase().await.unwrap();
    let catalog = postgres::catalog::load(&connect(&url).await).await.unwrap();
    check(
        &catalog,
        &[
            ("select * from inventory where sku = :s", "| *"),
            ("select * from public.inventory where sku = :s", "inventory/{s} |"),
            ("select * from orders where id = :id", "orders/{id} |"),
        ],
    );
}

#[tokio::test]
async fn a_pooler_in_between_changes_nothing_and_the_connection_is_left_as_it_was() {
    let database = shop().await;
    let pooler = Pgbouncer::start(&Postgres::shared().unwrap()).unwrap();
    let client = connect(&pooler.url(&database.user_url())).await;
    for _ in 0..3 {
        let catalog = postgres::catalog::load(&client).await.unwrap();
        check(&catalog, &[("select * from inventory where sku = :s", "inventory/{s} |")]);
    }
    client.simple_query("create temp table writable (n int)").await.unwrap();
}

#[test]
fn sqlite_says_the_same_of_its_own() {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch(
            "create table Inventory (Sku text primary key, qty int, version int);
             create table orders (id integer primary key, note text, code text unique);
             create table items (order_id int, line int, sku text references inventory on delete cascade,
                                 primary key (line, order_id), foreign key (order_id) references orders) without rowid;
             create table folded (code text primary key collate nocase, n);
             create table loose (id primary key, n);
             create table real (id real primary key);
             create table partly (id integer primary key, n int);
             create unique index part on partly (n) where n > 3;
             create table skus (sku text primary key, n int);
             create unique index one_case on skus (sku collate nocase);
             create table again (sku text primary key, n int, unique (sku, n));
             create table audited (id integer primary key, n int);
             create trigger audit after update of n on audited begin delete from orders; end;
             create table people (id integer primary key, email text unique on
                                  conflict replace, n int);
             create table pets (id integer primary key, owner int references people on delete cascade);
             create table doubled (id integer primary key, w int generated always as (v * 2) unique, v int);
             create table half (id integer primary key, w int as (v / 2) stored references people, v int);
             create view open as select * from orders where note = 'open';
             create view shut as select 1;
             create trigger shut_it instead of insert on shut begin select 1; end;
             create virtual table words using fts5 (text);",
        )
        .unwrap();
    let catalog = sqlite::catalog::load(&connection).unwrap();
    check(
        &catalog,
        &[
            ("select * from inventory where SKU = :s", "inventory/{s} |"),
            ("update inventory set qty = qty - 1 where sku = :s and version = :v returning *", "| inventory/{s}"),
            ("insert into inventory values (:s, 1, 1)", "| inventory/{s}"),
            ("insert or replace into inventory values (:s, 1, 1)", "| inventory/{s} items/*"),
            ("insert into orders (note) values (:n)", "| orders/*"),
            ("update orders set note = :n where id = :id", "| orders/{id}"),
            ("update orders set code = :n where id = :id", "| orders/*"),
            ("select * from items where order_id = :o and line = :l", "items/{l}/{o} |"),
            ("insert into items values (:o, :l, :s)", "orders/{o} inventory/{s} | items/{l}/{o}"),
            ("delete from orders where id = :id", "items/* | orders/{id}"),
            ("delete from inventory where sku = :s", "| inventory/{s} items/*"),
            ("select * from folded where code = :c", "folded/* |"),
            ("select * from loose where id = :c", "loose/* |"),
            ("select * from real where id = :c", "real/* |"),
            ("insert into partly values (:id, 1)", "| partly/*"),
            ("insert into skus values (:s, 1)", "| skus/*"),
            ("insert into again values (:s, 1)", "| again/{s}"),
            ("update audited set n = 1 where id = :id", "| *"),
            ("delete from audited where id = :id", "| audited/{id}"),
            ("insert into people (id) values (:id)", "half/* | people/* pets/*"),
            ("update people set email = :e where id = :id", "half/* | people/* pets/*"),
            ("update people set n = 1 where id = :id", "| people/{id}"),
            ("update pets set rowid = 3 where id = :id", "| pets/*"),
            ("update doubled set v = 1 where id = :id", "| doubled/*"),
            ("insert into half values (:id, :v)", "people/* | half/{id}"),
            ("update half set v = 1 where id = :id", "people/* | half/{id}"),
            ("select * from open", "orders/* |"),
            ("insert into shut values (1)", "| *"),
            ("select * from words", "* |"),
        ],
    );
}
