//! A thousand agents at the same rows: no update is lost, with Fanout's locks and without them. Without any protection some
//! are, so that the crowd is seen to be one.

use std::collections::BTreeMap;
use std::sync::Arc;

use fanout_core::call::Call;
use fanout_core::outcome::{ErrorCode, Outcome};
use fanout_core::run::{RunOptions, Scheduler};
use fanout_core::toolbox::Toolbox;
use fanout_tools::sql::{Database, DatabaseOptions, SqlTool};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{nothing, one, postgres, sqlite};

/// So many agents. Those that read first are fewer at a time: of a thousand that all hold the same version one wins, and the
/// others read again.
const AGENTS: usize = 1_000;
const READERS_AT_ONCE: usize = 8;

const SCHEMA: &str = "create table stock (sku text primary key, qty int not null, version int not null default 0);
    create table accounts (id int primary key, balance int not null check (balance >= 0));";

/// Who keeps agents apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Locks {
    Fanouts,
    /// The database alone.
    None,
}

/// A scheduler and the tools of one database.
#[derive(Clone)]
struct Crowd {
    scheduler: Scheduler,
    toolbox: Arc<Toolbox>,
}

impl Crowd {
    fn new(database: &Database, locks: Locks) -> Self {
        let builder = |name: &str, statements: &[&str]| {
            let builder = SqlTool::builder(name, database);
            let builder = statements.iter().fold(builder, |builder, statement| builder.statement(*statement));
            if locks == Locks::None { builder.undeclared_parallel() } else { builder }
        };
        let mut toolbox = Toolbox::new();
        let mut add = |tool: SqlTool| toolbox.add(tool).unwrap();
        let take = "update stock set qty = qty - 1 where sku = :sku and qty >= 1";
        add(builder("take", &[take]).expect_rows(1).build().unwrap());
        add(builder("read", &["select qty, version from stock where sku = :sku"]).build().unwrap());
        let take = "update stock set qty = :qty, version = version + 1 where sku = :sku and version = :version";
        add(builder("take_version", &[take]).expect_rows(1).build().unwrap());
        let overwrite = "update stock set qty = :qty where sku = :sku";
        add(builder("overwrite", &[overwrite]).build().unwrap());
        let debit = "update accounts set balance = balance - :n where id = :from and balance >= :n";
        let credit = "update accounts set balance = balance + :n where id = :to";
        add(builder("transfer", &[debit, credit]).expect_rows(1).build().unwrap());
        Self { scheduler: Scheduler::default(), toolbox: Arc::new(toolbox) }
    }

    /// One call of a run of its own.
    async fn call(&self, agent: usize, tool: &str, input: Value) -> Arc<Outcome> {
        let options = RunOptions::new(format!("agent{agent}").as_str());
        let mut run = self.scheduler.run(Arc::clone(&self.toolbox), options);
        let mut batch = run.batch();
        batch.call(Call::new(0, "c", tool, input)).unwrap();
        batch.commit();
        let outcome = batch.finish().await.remove(0);
        if let Err(error) = &outcome.result {
            // A deadlock or a serialization failure is our matter, not the model's.
            assert!(error.message.contains("was to meet"), "{}", error.message);
        }
        outcome
    }

    /// Every agent at once; how many ended in which way.
    async fn all<F>(&self, agent: impl Fn(Self, usize) -> F) -> BTreeMap<String, usize>
    where
        F: Future<Output = Option<ErrorCode>> + Send + 'static,
    {
        let mut agents = JoinSet::new();
        for number in 0..AGENTS {
            agents.spawn(agent(self.clone(), number));
        }
        let mut ended: BTreeMap<String, usize> = BTreeMap::new();
        for code in agents.join_all().await {
            *ended.entry(code.map_or("ok".to_owned(), |code| code.to_string())).or_default() += 1;
        }
        ended
    }
}

fn counts(of: &[(&str, usize)]) -> BTreeMap<String, usize> {
    of.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect()
}

async fn reset(database: &Database, qty: usize) {
    for statement in ["delete from stock", "delete from accounts"] {
        super::run(database, statement, nothing()).await.unwrap();
    }
    super::run(database, "insert into stock values ('a', :qty, 0)", json!({"qty": qty})).await.unwrap();
    let accounts = "insert into accounts with recursive s(n) as (select 0 union all select n + 1 from s where n < 99)
        select n, 100 from s";
    super::run(database, accounts, nothing()).await.unwrap();
}

/// Plain updates with a condition: 700 pieces for a thousand agents.
async fn plain_updates(crowd: &Crowd, database: &Database) {
    reset(database, 700).await;
    let ended = crowd
        .all(|crowd, agent| async move { crowd.call(agent, "take", json!({"sku": "a"})).await.error_code() })
        .await;
    assert_eq!(ended, counts(&[("conflict", 300), ("ok", 700)]));
    assert_eq!(one(database, "select qty from stock", nothing()).await, json!(0));
}

/// What an agent read, if it could.
async fn read(crowd: &Crowd, agent: usize) -> (i64, i64) {
    let outcome = crowd.call(agent, "read", json!({"sku": "a"})).await;
    let row = outcome.result.as_ref().unwrap().value()["rows"][0].clone();
    (row["qty"].as_i64().unwrap(), row["version"].as_i64().unwrap())
}

/// Read, then write what was computed of it, in two calls; the version says whether somebody was in between.
async fn read_then_write(crowd: &Crowd, database: &Database) {
    reset(database, 700).await;
    let turns = Arc::new(Semaphore::new(READERS_AT_ONCE));
    let ended = crowd
        .all(|crowd, agent| {
            let turns = Arc::clone(&turns);
            async move {
                let _turn = turns.acquire_owned().await.unwrap();
                loop {
                    let (qty, version) = read(&crowd, agent).await;
                    if qty == 0 {
                        return Some(ErrorCode::Skipped);
                    }
                    let input = json!({"sku": "a", "qty": qty - 1, "version": version});
                    match crowd.call(agent, "take_version", input).await.error_code() {
                        Some(ErrorCode::Conflict) => {}
                        other => return other,
                    }
                }
            }
        })
        .await;
    assert_eq!(ended, counts(&[("ok", 700), ("skipped", 300)]));
    let left = super::run(database, "select qty, version from stock", nothing()).await.unwrap();
    assert_eq!(left["rows"], json!([{"qty": 0, "version": 700}]));
}

/// A hundred accounts among themselves.
async fn transfers(crowd: &Crowd, database: &Database) {
    reset(database, 0).await;
    let ended = crowd
        .all(|crowd, agent| async move {
            // Each pair in both directions, so that two meet head on.
            let (one, other) = (agent * 7 % 100, (agent * 13 + 1) % 100);
            let (from, to) = if agent % 2 == 0 { (one, other) } else { (other, one) };
            let to = if from == to { (to + 1) % 100 } else { to };
            crowd.call(agent, "transfer", json!({"from": from, "to": to, "n": 10 + agent % 60})).await.error_code()
        })
        .await;
    let refused = ended.get("conflict").copied().unwrap_or_default();
    assert_eq!(ended.get("ok").copied().unwrap_or_default() + refused, AGENTS, "{ended:?}");
    let left = super::run(database, "select sum(balance) as sum, min(balance) as least from accounts", nothing()).await;
    let left = left.unwrap()["rows"][0].clone();
    assert_eq!(left["sum"], json!(10_000), "{left}");
    assert!(left["least"].as_i64().is_some_and(|least| least >= 0), "{left}");
}

/// The same two calls with nothing that minds a change in between: updates are lost.
async fn unprotected(crowd: &Crowd, database: &Database) {
    reset(database, AGENTS).await;
    crowd
        .all(|crowd, agent| async move {
            let (qty, _) = read(&crowd, agent).await;
            crowd.call(agent, "overwrite", json!({"sku": "a", "qty": qty - 1})).await.error_code()
        })
        .await;
    let left = one(database, "select qty from stock", nothing()).await;
    assert!(left.as_i64().is_some_and(|left| left > 0), "a thousand took one each, and {left} are left");
}

/// Locks come before connections: who waits for a row holds none that the one before needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_of_one_connection_serves_everybody() {
    let (place, database) = postgres(SCHEMA).await;
    reset(&database, 700).await;
    let options = DatabaseOptions { pool: 1, ..DatabaseOptions::new(place.user_url()) };
    let narrow = Database::new("shop", options).unwrap();
    narrow.learn().await.unwrap();
    for locks in [Locks::Fanouts, Locks::None] {
        let crowd = Crowd::new(&narrow, locks);
        transfers(&crowd, &database).await;
    }
}

/// With both kinds of protection, with the database's alone, and with none.
async fn a_thousand_agents(database: &Database) {
    database.learn().await.unwrap();
    for locks in [Locks::Fanouts, Locks::None] {
        let crowd = Crowd::new(database, locks);
        plain_updates(&crowd, database).await;
        read_then_write(&crowd, database).await;
        transfers(&crowd, database).await;
    }
    unprotected(&Crowd::new(database, Locks::None), database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_agents_lose_no_update_on_postgresql() {
    let (_place, database) = postgres(SCHEMA).await;
    a_thousand_agents(&database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_agents_lose_no_update_on_sqlite() {
    let (_folder, database) = sqlite(SCHEMA);
    a_thousand_agents(&database).await;
}
