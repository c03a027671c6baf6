//! Statements as tools, on a real PostgreSQL and on SQLite.

mod commits;
mod crowd;
mod lines;
mod once;
mod plans;
mod transactions;
mod users;
mod values;

use fanout_core::outcome::Output;
use fanout_core::tool::{Attempt, Tool, ToolError};
use fanout_testing::postgres::{Database as Place, Postgres};
use fanout_tools::sql::{Database, DatabaseOptions, SqlTool, SqlToolBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A database with these tables, on a server of this test's own.
pub(super) async fn postgres(schema: &str) -> (Place, Database) {
    let place = Postgres::shared().unwrap().database().await.unwrap();
    place.sql(schema).await.unwrap();
    let database = Database::new("shop", DatabaseOptions::new(place.user_url())).unwrap();
    (place, database)
}

/// The same in a file.
pub(super) fn sqlite(schema: &str) -> (TempDir, Database) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch(schema).unwrap();
    let database = Database::new("shop", DatabaseOptions::new(format!("sqlite://{}", path.display()))).unwrap();
    (folder, database)
}

pub(super) fn tool(database: &Database, statement: &str) -> SqlToolBuilder {
    SqlTool::builder("t", database).statement(statement)
}

pub(super) async fn call(tool: &SqlTool, input: Value) -> Result<Value, ToolError> {
    tool.call(Attempt::detached("t", input)).await.map(|output| output.value())
}

/// What one statement comes to.
pub(super) async fn run(database: &Database, statement: &str, input: Value) -> Result<Value, ToolError> {
    call(&tool(database, statement).build().unwrap(), input).await
}

/// The first value of the first row that a statement gives.
pub(super) async fn one(database: &Database, statement: &str, input: Value) -> Value {
    let answer = run(database, statement, input).await.unwrap();
    let row = answer["rows"][0].as_object().expect("a row").clone();
    row.into_iter().next().expect("a column").1
}

pub(super) fn nothing() -> Value {
    json!({})
}

/// The text that the model is shown.
pub(super) fn text(output: &Output) -> String {
    match &output.content[..] {
        [fanout_core::outcome::Content::Text(text)] => text.to_string(),
        other => panic!("{other:?}"),
    }
}
