//! A call whose database is the journal's own is carried out once, however often it is attempted: one effect, one outcome.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fanout_core::call::Call;
use fanout_core::once::{Once, from_text};
use fanout_core::outcome::{ErrorCode, Outcome};
use fanout_core::run::{RunOptions, Scheduler};
use fanout_core::secrets::Secrets;
use fanout_core::tool::{CallerToken, Tool};
use fanout_core::toolbox::Toolbox;
use fanout_testing::postgres::{Database as Place, Postgres};
use fanout_tools::sql::{Database, DatabaseOptions, SqlTool, SqlToolBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::commits::{Cut, through_cut_line};
use super::plans::shop::{WAITING, stranger, until};
use super::{one, postgres, sqlite};

const SHOP: &str = "create table log (n int, at text default current_timestamp);
    create table stock (sku text primary key, qty int not null);
    insert into stock values ('a', 5), ('b', 5);";

/// As the journal makes it.
const POSTGRES_TABLE: &str = "create schema fanout;
    create table fanout.outcome (run text, call text, output text not null, primary key (run, call));";

const SQLITE_TABLE: &str = "create table fanout_outcome (run text not null, call text not null, output text not null,
    primary key (run, call)) without rowid;";

const GRANT: &str = "grant usage on schema fanout to public; grant select, insert, update on fanout.outcome to public;";

/// A shop with the journal's table of outcomes.
struct Shop {
    database: Database,
    once: Arc<Once>,
    _kept: Kept,
}

enum Kept {
    Server(Place),
    File { _folder: TempDir },
}

async fn on_postgres() -> (Shop, Place) {
    let (place, database) = postgres(&format!("{SHOP}{POSTGRES_TABLE}{GRANT}")).await;
    (Shop::new(database, Kept::Server(place.clone())).await, place)
}

async fn on_both() -> [Shop; 2] {
    let (_folder, database) = sqlite(&format!("{SHOP}{SQLITE_TABLE}"));
    [on_postgres().await.0, Shop::new(database, Kept::File { _folder }).await]
}

/// `strict` is for PostgreSQL: no other knows the setting.
fn tools(database: &Database) -> Vec<SqlToolBuilder> {
    let tool = |name: &str, statement: &str| SqlTool::builder(name, database).statement(statement);
    vec![
        tool("add", "insert into log (n) select :n returning n, at"),
        tool("take", "update stock set qty = qty - :n where sku = :sku returning sku, qty").expect_rows(1),
        tool("left", "select qty from stock where sku = :sku"),
        tool("strict", "insert into log (n) values (:n)")
            .statement("insert into log (at) select current_setting('transaction_isolation') returning at"),
    ]
}

/// What one process makes of a call: nothing is known of any other attempt at it.
async fn call(database: &Database, options: RunOptions, tool: &str, input: Value) -> Arc<Outcome> {
    let mut toolbox = Toolbox::new();
    let mut secrets = Secrets::new();
    secrets.add("PIN", "se-cr-et");
    toolbox.hide(secrets);
    for tool in tools(database) {
        toolbox.add(tool.build().unwrap()).unwrap();
    }
    toolbox.add_plan(64 * 1024).unwrap();
    let mut run = Scheduler::default().run(Arc::new(toolbox), options);
    let mut batch = run.batch();
    batch.call(Call::new(0, "toolu_1", tool, input)).unwrap();
    batch.finish().await.remove(0)
}

impl Shop {
    async fn new(database: Database, kept: Kept) -> Self {
        database.learn().await.unwrap();
        let once = Arc::new(database.once());
        Self { database, once, _kept: kept }
    }

    fn options(&self, run: &str) -> RunOptions {
        RunOptions { once: Some(Arc::clone(&self.once)), ..RunOptions::new(run) }
    }

    async fn call(&self, run: &str, tool: &str, input: Value) -> Arc<Outcome> {
        call(&self.database, self.options(run), tool, input).await
    }

    /// A first value.
    async fn see(&self, question: &str) -> Value {
        one(&self.database, question, json!({})).await
    }

    /// How many rows of outcomes there are.
    async fn rows(&self) -> Value {
        let table = if matches!(self._kept, Kept::Server(_)) { "fanout.outcome" } else { "fanout_outcome" };
        self.see(&format!("select count(*) from {table}")).await
    }
}

#[track_caller]
fn assert_same(one: &Outcome, other: &Outcome) {
    assert!(one.result.is_ok(), "{one:?}");
    assert_eq!((&one.shown, &one.result), (&other.shown, &other.result));
}

#[tokio::test]
async fn a_call_that_is_attempted_again_answers_what_it_came_to_and_does_nothing() {
    for shop in on_both().await {
        let first = shop.call("r", "take", json!({"sku": "a", "n": 2})).await;
        let again = shop.call("r", "take", json!({"sku": "a", "n": 2})).await;
        assert_same(&first, &again);
        assert_eq!(shop.see("select qty from stock where sku = 'a'").await, json!(3));
        // The same call of another run is another call.
        let other = shop.call("s", "take", json!({"sku": "a", "n": 2})).await;
        assert_eq!(other.result.as_ref().unwrap().value()["rows"], json!([{"sku": "a", "qty": 1}]));
        assert_eq!(shop.rows().await, json!(2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_at_once_have_one_effect_and_one_outcome() {
    for shop in on_both().await {
        let mut all = JoinSet::new();
        for _ in 0..8 {
            // A process of its own.
            let database = Database::new("shop", DatabaseOptions::new(shop.url())).unwrap();
            let options = shop.options("r");
            all.spawn(async move { call(&database, options, "add", json!({"n": 7})).await });
        }
        let all = all.join_all().await;
        all.iter().for_each(|outcome| assert_same(&all[0], outcome));
        assert_eq!((shop.see("select count(*) from log").await, shop.rows().await), (json!(1), json!(1)));
    }
}

impl Shop {
    fn url(&self) -> String {
        match &self._kept {
            Kept::Server(place) => place.user_url(),
            Kept::File { .. } => self.database.place().replacen("sqlite:", "sqlite://", 1),
        }
    }
}

#[tokio::test]
async fn what_failed_has_no_row_and_a_read_needs_none() {
    for shop in on_both().await {
        let missed = shop.call("r", "take", json!({"sku": "z", "n": 1})).await;
        assert_eq!(missed.error_code(), Some(ErrorCode::Conflict), "{missed:?}");
        let read = shop.call("r", "left", json!({"sku": "a"})).await;
        assert_eq!((read.error_code(), shop.rows().await), (None, json!(0)));
        // So that it may be attempted again.
        let done = shop.call("r", "take", json!({"sku": "a", "n": 1})).await;
        assert_eq!((done.error_code(), shop.rows().await), (None, json!(1)));
    }
}

#[tokio::test]
async fn an_atomic_plan_is_carried_out_once_with_all_that_its_calls_came_to() {
    let calls = json!([
        {"label": "one", "tool": "take", "input": {"sku": "a", "n": 1}},
        {"label": "two", "tool": "add", "input": {"n": {"$ref": "one#/rows/0/qty"}}},
        {"label": "left", "tool": "left", "input": {"sku": "a"}},
    ]);
    for shop in on_both().await {
        let plan = json!({"calls": calls, "atomic": true});
        let first = shop.call("r", "plan", plan.clone()).await;
        let again = shop.call("r", "plan", plan).await;
        assert_same(&first, &again);
        assert_eq!(shop.see("select qty from stock where sku = 'a'").await, json!(4));
        assert_eq!((shop.see("select count(*) from log").await, shop.rows().await), (json!(1), json!(1)));
    }
}

#[tokio::test]
async fn only_calls_of_the_journals_own_database_have_rows() {
    for shop in on_both().await {
        let elsewhere = Arc::new(Once { database: "elsewhere".into(), ..(*shop.once).clone() });
        let options = RunOptions { once: Some(elsewhere), ..RunOptions::new("r") };
        for count in 1..=2 {
            let outcome = call(&shop.database, options.clone(), "add", json!({"n": 7})).await;
            assert_eq!(outcome.error_code(), None);
            assert_eq!(shop.see("select count(*) from log").await, json!(count));
        }
        assert_eq!(shop.rows().await, json!(0));
    }
}

#[tokio::test]
async fn a_row_holds_no_secret() {
    let (shop, place) = on_postgres().await;
    place.sql("insert into stock values ('se-cr-et', 5)").await.unwrap();
    let first = shop.call("r", "take", json!({"sku": "se-cr-et", "n": 1})).await;
    let kept = place.sql("select output from fanout.outcome").await.unwrap();
    assert!(!kept.contains("se-cr-et") && kept.contains("[redacted PIN]"), "{kept}");
    assert_eq!(&from_text(kept.trim()).unwrap()[0], first.result.as_deref().unwrap());
    assert_same(&first, &*shop.call("r", "take", json!({"sku": "se-cr-et", "n": 1})).await);
}

#[tokio::test]
async fn a_call_whose_commit_nobody_answered_goes_again_and_answers_what_was_kept() {
    let (shop, place) = on_postgres().await;
    let (url, lines) = through_cut_line(&place.user_url(), Cut::Off).await;
    let lost = Database::new("shop", DatabaseOptions::new(url)).unwrap();
    // The line is another, the database is the same.
    let once = Arc::new(Once { database: lost.place(), ..(*shop.once).clone() });
    let options = RunOptions { once: Some(once), ..shop.options("r") };
    let first = call(&lost, options, "add", json!({"n": 7})).await;
    assert_eq!(first.error_code(), Some(ErrorCode::OutcomeUnknown), "{first:?}");
    assert!(first.attempts > 1 && lines.load(std::sync::atomic::Ordering::SeqCst) > 2, "{first:?}");
    assert_eq!(shop.see("select count(*) from log").await, json!(1));
    let again = shop.call("r", "add", json!({"n": 7})).await;
    assert_eq!(again.result.as_ref().unwrap().value()["rows"][0]["n"], json!(7));
    assert_same(&again, &*shop.call("r", "add", json!({"n": 7})).await);
    assert_eq!((shop.see("select count(*) from log").await, shop.rows().await), (json!(1), json!(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_waits_for_the_one_before_that_is_still_kept_by_the_server() {
    let (shop, place) = on_postgres().await;
    // A process that is gone, whose transaction the server has not ended yet.
    let client = stranger(&place).await;
    client.batch_execute("begin; insert into fanout.outcome values ('r', 'toolu_1', '')").await.unwrap();
    let waiting = {
        let (database, options) = (shop.database.clone(), shop.options("r"));
        tokio::spawn(async move { call(&database, options, "add", json!({"n": 7})).await })
    };
    until(&place, WAITING, "1").await;
    let kept = r#"[{"content":[{"text":"kept"}],"is_error":false}]"#;
    client.execute("update fanout.outcome set output = $1", &[&kept]).await.unwrap();
    client.batch_execute("commit").await.unwrap();
    let outcome = waiting.await.unwrap();
    assert_eq!(outcome.result.as_ref().unwrap().value(), json!("kept"));
    assert_eq!(shop.see("select count(*) from log").await, json!(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_calls_that_have_nothing_to_do_with_each_other_do_not_meet() {
    let (shop, place) = on_postgres().await;
    // All of them are between BEGIN and COMMIT at one time: each statement waits for this lock.
    let client = stranger(&place).await;
    client.batch_execute("begin; lock table log in exclusive mode").await.unwrap();
    let mut all = JoinSet::new();
    for number in 0..8 {
        let (database, options) = (shop.database.clone(), shop.options(&format!("r{number}")));
        all.spawn(async move { call(&database, options, "strict", json!({"n": number})).await });
    }
    until(&place, WAITING, "8").await;
    client.batch_execute("commit").await.unwrap();
    for outcome in all.join_all().await {
        assert_eq!((outcome.error_code(), outcome.attempts), (None, 1), "{outcome:?}");
        let answer = outcome.result.as_ref().unwrap().value();
        assert_eq!(answer["results"][1]["rows"][0]["at"], "serializable");
    }
    assert_eq!(shop.rows().await, json!(8));
}

#[tokio::test]
async fn an_end_user_has_an_outcome_row_without_any_right_to_it() {
    let server = Postgres::shared().unwrap();
    let place = server.database().await.unwrap();
    let url = place.supabase().await.unwrap();
    let schema = "create table log (n int, at text default current_user);
        create table deferred (who text);
        create function note() returns trigger language plpgsql as
            'begin insert into deferred values (current_user); return null; end';
        create constraint trigger late after insert on log deferrable initially deferred
            for each row execute function note();";
    let grant = "grant usage on schema fanout to authenticator;
        grant select, insert, update on fanout.outcome to authenticator;
        grant all on log, deferred to authenticated";
    place.sql(&format!("{schema}{POSTGRES_TABLE}{grant}")).await.unwrap();
    let options = DatabaseOptions { role_from_claims: true, ..DatabaseOptions::new(url) };
    let database = Database::new("shop", options).unwrap();
    let claims = json!({"sub": "alice", "role": "authenticated"}).as_object().unwrap().clone();
    let token = CallerToken::verified("t0ken", claims, SystemTime::now() + Duration::from_secs(3600));
    let once = Some(Arc::new(database.once()));
    let options = RunOptions { once, caller_token: Some(token), ..RunOptions::new("r") };
    let add = async || {
        let tool = SqlTool::builder("add", &database).statement("insert into log (n) select :n returning at");
        let mut toolbox = Toolbox::new();
        toolbox.add(tool.build().unwrap()).unwrap();
        let mut run = Scheduler::default().run(Arc::new(toolbox), options.clone());
        let mut batch = run.batch();
        batch.call(Call::new(0, "toolu_1", "add", json!({"n": 1}))).unwrap();
        batch.finish().await.remove(0)
    };
    let first = add().await;
    assert_eq!(first.result.as_ref().unwrap().value()["rows"], json!([{"at": "authenticated"}]));
    assert_same(&first, &*add().await);
    let counted = "select (select count(*) from log), string_agg(who, ' ') from deferred";
    assert_eq!(place.sql(counted).await.unwrap().trim(), "1|authenticated");
    let right = "select has_schema_privilege('authenticated', 'fanout', 'usage')";
    assert_eq!(place.sql(right).await.unwrap().trim(), "f");
}

#[tokio::test]
async fn a_database_user_without_rights_to_the_row_is_told_which_are_missing() {
    let (place, database) = postgres(&format!("{SHOP}{POSTGRES_TABLE}")).await;
    let shop = Shop::new(database, Kept::Server(place)).await;
    let refused = shop.call("r", "add", json!({"n": 7})).await;
    let Err(error) = &refused.result else { panic!("{refused:?}") };
    assert_eq!(error.code, ErrorCode::NotPermitted);
    assert!(error.message.contains("usage of the schema `fanout`"), "{error}");
    assert_eq!(shop.see("select count(*) from log").await, json!(0));
}

#[tokio::test]
async fn a_tool_names_its_database_so_that_its_calls_can_be_told_apart() {
    for shop in on_both().await {
        let spec = tools(&shop.database).remove(0).build().unwrap().spec();
        assert!(shop.once.holds_for(spec.database.as_deref()), "{spec:?}");
    }
}
