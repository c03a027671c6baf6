//! A connection that is there when it is needed, and the layout of what it leads to.
//!
//! From whoever knows how to connect. To the store: a client, opened anew where the one before is lost. Nothing is left on it
//! from one transaction to the next, so that a pooler may stand in between.

use std::sync::Arc;

use fanout_core::tool::BoxFuture;
use tokio::sync::Mutex;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};

use crate::store::StoreError;

/// What makes each layout of the one before, from the empty schema on. None is ever changed.
const LAYOUTS: [&str; 5] = [
    include_str!("../../migrations/postgres/1.sql"),
    include_str!("../../migrations/postgres/2.sql"),
    include_str!("../../migrations/postgres/3.sql"),
    include_str!("../../migrations/postgres/4.sql"),
    include_str!("../../migrations/postgres/5.sql"),
];

/// Who changes the layout holds this lock of the server until it is done: `fanout` in ASCII.
const LAYOUT_LOCK: i64 = 0x6661_6e6f_7574;

/// Opens a connection; the task that carries it ends with the client.
pub type Connect = Arc<dyn Fn() -> BoxFuture<'static, Result<Client, Error>> + Send + Sync>;

/// A value of a statement, and its type.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// One connection, for one thing after another.
pub(super) struct Link {
    connect: Connect,
    place: Arc<str>,
    kept: Mutex<Option<Client>>,
}

impl Link {
    pub(super) fn new(connect: Connect, place: Arc<str>) -> Self {
        Self { connect, place, kept: Mutex::new(None) }
    }

    /// Runs one statement that may run again: whose connection was lost gets another.
    pub(super) async fn query(&self, statement: &str, values: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        let mut kept = self.kept.lock().await;
        if let Some(client) = kept.take().filter(|client| !client.is_closed()) {
            match client.query_typed(statement, values).await {
                Ok(rows) => {
                    *kept = Some(client);
                    return Ok(rows);
                }
                Err(error) if error.as_db_error().is_some() && !is_going(&error) => return Err(self.error(&error)),
                Err(_) => {}
            }
        }
        let client = self.open().await?;
        let rows = client.query_typed(statement, values).await.map_err(|error| self.error(&error))?;
        *kept = Some(client);
        Ok(rows)
    }

    /// Runs several statements in one transaction. A connection on which that did not end well, or whose answer nobody waited for,
    /// is not used again.
    pub(super) async fn transact<T>(
        &self,
        work: impl AsyncFnOnce(&Client) -> Result<T, Error>,
    ) -> Result<T, StoreError> {
        let mut kept = self.kept.lock().await;
        let client = match kept.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.open().await?,
        };
        let done = async {
            client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
            let done = work(&client).await?;
            client.batch_execute("COMMIT").await.map(|()| done)
        };
        let done = done.await.map_err(|error| self.error(&error))?;
        *kept = Some(client);
        Ok(done)
    }

    async fn open(&self) -> Result<Client, StoreError> {
        (self.connect)().await.map_err(|error| self.error(&error))
    }

    /// Brings the schema to the newest layout; a newer one is refused.
    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        let known = u32::try_from(LAYOUTS.len()).unwrap_or(u32::MAX);
        let found = self.layout().await?;
        if found < known {
            self.transact(async |client| {
                client.query_typed("select pg_advisory_xact_lock($1)", &[(&LAYOUT_LOCK, Type::INT8)]).await?;
                client
                    .batch_execute(
                        "create schema if not exists fanout; create table if not exists fanout.layout (n int)",
                    )
                    .await?;
                // Another process may have been first.
                let rows = client.query_typed("select coalesce(max(n), 0) from fanout.layout", &[]).await?;
                let found = rows.first().map_or(Ok(0), |row| row.try_get::<_, i32>(0))?;
                for (at, migration) in LAYOUTS.iter().enumerate().skip(usize::try_from(found).unwrap_or_default()) {
                    client.batch_execute(migration).await?;
                    client.batch_execute(&format!("insert into fanout.layout values ({})", at + 1)).await?;
                }
                Ok(())
            })
            .await?;
        }
        match self.layout().await? {
            found if found > known => Err(StoreError::Newer { place: self.place.to_string(), found, known }),
            _ => Ok(()),
        }
    }

    async fn layout(&self) -> Result<u32, StoreError> {
        let is_there = self.query("select to_regclass('fanout.layout') is not null", &[]).await?;
        if !is_there.first().is_some_and(|row| row.try_get(0).unwrap_or(false)) {
            return Ok(0);
        }
        let rows = self.query("select coalesce(max(n), 0) from fanout.layout", &[]).await?;
        let found: i32 = rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(|error| self.error(&error))?;
        Ok(u32::try_from(found).unwrap_or_default())
    }

    pub(super) fn error(&self, error: &Error) -> StoreError {
        let place = self.place.to_string();
        if error.code() == Some(&SqlState::DISK_FULL) {
            return StoreError::Full { place };
        }
        StoreError::Unusable { place, detail: told(error) }
    }

    pub(super) fn unusable(&self, detail: String) -> StoreError {
        StoreError::Unusable { place: self.place.to_string(), detail }
    }
}

/// Whether the server ends the connection by what it says: class 57P, it shuts down or an administrator wants it so.
fn is_going(error: &Error) -> bool {
    error.code().is_some_and(|code| code.code().starts_with("57P"))
}

/// What the server said, or the innermost cause: the outer ones only say that something failed.
fn told(error: &Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} ({})", db.message(), db.code().code());
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
