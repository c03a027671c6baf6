//! A shop whose tools a plan can call, on PostgreSQL and on SQLite.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fanout_core::call::Call;
use fanout_core::outcome::{Content, Outcome};
use fanout_core::run::{RunOptions, Scheduler};
use fanout_core::toolbox::Toolbox;
use fanout_testing::postgres::Database as Place;
use fanout_tools::sql::{Database, SqlTool, SqlToolBuilder};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::sql::{nothing, postgres, run, sqlite};

pub const SCHEMA: &str = "create table stock (sku text primary key, qty int not null check (qty >= 0));
    create table orders (id int primary key, sku text not null references stock deferrable initially deferred,
                         n int not null);
    insert into stock values ('a', 5), ('b', 5), ('c', 5), ('d', 5);
    insert into orders values (1, 'a', 1);";

/// Whatever keeps a database there.
pub enum Kept {
    Server(Place),
    File(TempDir),
    Others(Arc<Kept>),
}

impl Kept {
    /// What this shop keeps.
    pub fn of(shop: &Shop) -> Self {
        Self::Others(Arc::clone(&shop.kept))
    }

    fn url(&self) -> String {
        match self {
            Self::Server(place) => place.user_url(),
            Self::File(folder) => format!("sqlite://{}", folder.path().join("shop.db").display()),
            Self::Others(kept) => kept.url(),
        }
    }
}

/// A database and its tools, for many runs.
#[derive(Clone)]
pub struct Shop {
    pub database: Database,
    pub scheduler: Scheduler,
    pub toolbox: Arc<Toolbox>,
    kept: Arc<Kept>,
}

/// The tools that every shop has.
pub fn tools(database: &Database) -> Vec<SqlToolBuilder> {
    let tool = |name: &str, statement: &str| SqlTool::builder(name, database).statement(statement);
    let sku = json!({"type": "object", "properties": {"sku": {"type": "string"}, "n": {"type": "integer"}}});
    vec![
        tool("take", "update stock set qty = qty - :n where sku = :sku returning qty").expect_rows(1).input_schema(sku),
        tool("give", "update stock set qty = qty + :n where sku = :sku returning sku, qty"),
        tool("order", "insert into orders (id, sku, n) values (:id, :sku, :n) returning id, n"),
        tool("left", "select sku, qty from stock where sku = :sku"),
        tool("all", "select sku, qty from stock order by sku").max_rows(2),
        tool("both", "update stock set qty = qty - 1 where sku = :from")
            .statement("update stock set qty = qty + 1 where sku = :to returning qty"),
    ]
}

impl Shop {
    pub fn new(database: Database, kept: Kept, tools: impl IntoIterator<Item = SqlToolBuilder>) -> Self {
        let mut toolbox = Toolbox::new();
        for tool in tools {
            toolbox.add(tool.build().unwrap()).unwrap();
        }
        toolbox.add_plan(64 * 1024).unwrap();
        Self { database, scheduler: Scheduler::default(), toolbox: Arc::new(toolbox), kept: Arc::new(kept) }
    }

    /// With the tools of every shop, and these.
    pub async fn postgres(more: impl FnOnce(&Database) -> Vec<SqlToolBuilder>) -> (Self, Place) {
        let (place, database) = postgres(SCHEMA).await;
        database.learn().await.unwrap();
        let all = tools(&database).into_iter().chain(more(&database)).collect::<Vec<_>>();
        (Self::new(database, Kept::Server(place.clone()), all), place)
    }

    pub async fn sqlite(more: impl FnOnce(&Database) -> Vec<SqlToolBuilder>) -> Self {
        let (folder, database) = sqlite(SCHEMA);
        database.learn().await.unwrap();
        let all = tools(&database).into_iter().chain(more(&database)).collect::<Vec<_>>();
        Self::new(database, Kept::File(folder), all)
    }

    /// One of each, alike.
    pub async fn both() -> [Self; 2] {
        [Self::postgres(|_| Vec::new()).await.0, Self::sqlite(|_| Vec::new()).await]
    }

    /// What a call in a run of its own comes to.
    pub async fn call(&self, tool: &str, input: Value) -> Arc<Outcome> {
        self.call_as(RunOptions::new("r"), tool, input).await
    }

    pub async fn call_as(&self, options: RunOptions, tool: &str, input: Value) -> Arc<Outcome> {
        let mut run = self.scheduler.run(Arc::clone(&self.toolbox), options);
        let mut batch = run.batch();
        batch.call(Call::new(0, "p", tool, input)).unwrap();
        batch.finish().await.remove(0)
    }

    /// The same for a plan, which goes on by itself.
    pub fn begin(&self, plan: Value) -> tokio::task::JoinHandle<Arc<Outcome>> {
        let shop = self.clone();
        tokio::spawn(async move { shop.call("plan", plan).await })
    }

    /// Where its database is.
    pub fn url(&self) -> String {
        self.kept.url()
    }

    /// The file that is its database.
    pub fn path(&self) -> String {
        self.url().trim_start_matches("sqlite://").to_owned()
    }

    /// Every row there is.
    pub async fn rows(&self) -> Value {
        let stock = run(&self.database, "select sku, qty from stock order by sku", nothing()).await.unwrap();
        let orders = run(&self.database, "select id, sku, n from orders order by id", nothing()).await.unwrap();
        json!([stock["rows"], orders["rows"]])
    }

    /// How much there is of each.
    pub async fn stock(&self) -> Vec<i64> {
        let stock = run(&self.database, "select qty from stock order by sku", nothing()).await.unwrap();
        stock["rows"].as_array().unwrap().iter().map(|row| row["qty"].as_i64().unwrap()).collect()
    }
}

/// An atomic plan of these calls: label, tool, input.
pub fn plan(calls: &[(&str, &str, Value)]) -> Value {
    let calls = calls.iter().map(|(label, tool, input)| json!({"label": label, "tool": tool, "input": input}));
    json!({"calls": calls.collect::<Vec<_>>(), "atomic": true})
}

pub fn take(sku: &str) -> Value {
    json!({"sku": sku, "n": 1})
}

/// What the model is shown of a plan.
pub fn answer(outcome: &Outcome) -> Value {
    let [Content::Text(text)] = &*outcome.shown else { panic!("{outcome:?}") };
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The code of each call, in the order of the answer.
pub fn codes(outcome: &Outcome) -> Vec<String> {
    let [Content::Text(text)] = &*outcome.shown else { panic!("{outcome:?}") };
    let answer: InOrder = serde_json::from_str(text).unwrap();
    let code = |value: &Value| value["error"]["code"].as_str().unwrap_or("ok").to_owned();
    answer.0.iter().map(|(_, value)| code(value)).collect()
}

/// An object whose fields keep their order.
struct InOrder(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for InOrder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = InOrder;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InOrder, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(InOrder(fields))
    }
}

/// Waits until a question of the superuser's has this answer.
pub async fn until(place: &Place, question: &str, answer: &str) {
    tokio::time::timeout(Duration::from_secs(60), async {
        while place.sql(question).await.unwrap().trim() != answer {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{question} is never {answer}"));
}

/// How many wait for somebody else's row.
pub const WAITING: &str = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' \
                           and datname = current_database() and pid <> pg_backend_pid()";

/// How many are in a transaction.
pub const BUSY: &str = "select count(*) from pg_stat_activity where state <> 'idle' and datname = current_database() \
                        and backend_type = 'client backend' and pid <> pg_backend_pid()";

/// A client that knows nothing of us, as the superuser.
pub async fn stranger(place: &Place) -> tokio_postgres::Client {
    let url = format!("{}?sslmode=disable", place.superuser_url());
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
