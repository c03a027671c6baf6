//! One transaction, from BEGIN to its end.
//!
//! From the pool: a connection. To the call: rows, or what went wrong. The connection goes back only as it was: one whose
//! transaction did not end as it should is closed.
//!
//! Each word is sent when the one before it has been answered well: nothing can run outside of the transaction, or without
//! the user's role.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use fanout_core::call::ToolName;
use fanout_core::tool::ToolError;
use futures_util::TryStreamExt;
use futures_util::future::join;
use serde_json::Value;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Column, Error, Row, SimpleQueryMessage};

use super::failure::{before_commit, connecting, disproves_commit, innermost};
use super::progress::Progress;
use super::session::Session;
use super::value::{Cell, Text, text};
use super::{Postgres, STOP_MAX};
use crate::sql::pool::Place;
use crate::sql::statement::Statement;
use crate::sql::transaction::{ANSWER_MAX, Rows, Transaction, distinct};
use crate::sql::user::User;

/// A transaction whose COMMIT nobody answered is asked for so often, while it still goes on.
const FATE_ASKED: u32 = 20;

/// And so long it is waited in between.
const FATE_PAUSE: Duration = Duration::from_millis(250);

/// What became of a transaction, and when the server was started: one that was started since, or another, cannot be trusted
/// to mean the same by the number.
const FATE: &str = "select txid_status($1::bigint)::text, pg_postmaster_start_time()::text";

/// What is done in one transaction, and for whom.
pub(super) struct Carrying {
    pub(super) postgres: Arc<Postgres>,
    pub(super) transaction: Arc<Transaction>,
    pub(super) tool: ToolName,
    pub(super) input: Arc<Value>,
    pub(super) user: Option<User>,
    pub(super) progress: Arc<Progress>,
}

/// Which transaction it is, to a server that is asked later.
struct Which {
    number: String,
    server: String,
}

impl Carrying {
    pub(super) async fn run(self, place: Place<Session>) -> Result<Vec<Rows>, ToolError> {
        let begun = timeout(self.transaction.begin_max, self.begun(&place)).await;
        let (session, number) =
            begun.unwrap_or_else(|_| Err(self.transaction.not_begun(self.name(), "no connection to")))?;
        let client = &session.client;
        let ended = match self.work(client).await {
            // It was ended with its last statement.
            Ok(rows) if self.transaction.reads_only => Ok(rows),
            Ok(rows) => {
                let which = number.map(|number| Which { number, server: session.started.clone() });
                self.commit(client, rows, which).await
            }
            Err(error) => {
                self.end(client, "ROLLBACK").await;
                Err(error)
            }
        };
        if !self.progress.is_spoilt() {
            place.keep(session);
        }
        ended
    }

    /// Ends a transaction that has nothing to keep. A connection on which that cannot be done is not used again.
    async fn end(&self, client: &Client, how: &str) {
        if !self.progress.is_spoilt() && client.batch_execute(how).await.is_err() {
            self.progress.spoil();
        }
    }

    /// Keeps what was written, and knows afterwards whether it was kept.
    async fn commit(&self, client: &Client, rows: Vec<Rows>, which: Option<Which>) -> Result<Vec<Rows>, ToolError> {
        self.progress.commits();
        let Err(error) = client.batch_execute("COMMIT").await else { return Ok(rows) };
        self.progress.spoil();
        match which {
            _ if disproves_commit(&error) => Err(self.failed(&error)),
            Some(which) => self.fate(&which, rows, &error).await,
            None => Err(self.unknown(&error)),
        }
    }

    /// What became of a transaction whose COMMIT was not answered, asked on another connection.
    async fn fate(&self, which: &Which, rows: Vec<Rows>, lost: &Error) -> Result<Vec<Rows>, ToolError> {
        for _ in 0..FATE_ASKED {
            if let Ok(session) = Session::open(&self.postgres.address).await {
                let number = Text(Some(which.number.clone()));
                let row = one(&session.client, FATE, vec![(number, Type::TEXT)]).await;
                let Ok(Some(row)) = row else { break };
                let text = |at| row.try_get::<_, Option<String>>(at).ok().flatten().unwrap_or_default();
                if text(1) != which.server {
                    break;
                }
                match text(0).as_str() {
                    "committed" => return Ok(rows),
                    "aborted" => return Err(before_commit(self.name(), lost)),
                    "in progress" => {}
                    _ => break,
                }
            }
            tokio::time::sleep(FATE_PAUSE).await;
        }
        Err(self.unknown(lost))
    }

    fn unknown(&self, lost: &Error) -> ToolError {
        let why = innermost(lost);
        ToolError::Broken(format!("`{}` lost its database while that was keeping what it wrote: {why}", self.name()))
    }

    /// What an error means before anything could be kept.
    fn failed(&self, error: &Error) -> ToolError {
        if error.as_db_error().is_none() || leaves_names(error) {
            self.progress.spoil();
        }
        if error.code().is_some_and(|code| matches!(&code.code()[..2], "22" | "42")) {
            self.postgres.types.forget(&self.transaction);
        }
        before_commit(self.name(), error)
    }

    fn name(&self) -> &str {
        self.tool.as_str()
    }

    /// A connection in a transaction. One that was kept may have been closed meanwhile; then there is another.
    /// The number that the server gave it is known from the start, where it may write.
    async fn begun(&self, place: &Place<Session>) -> Result<(Session, Option<String>), ToolError> {
        let begin = self.begin();
        while let Some(session) = place.kept() {
            if session.client.is_closed() {
                continue;
            }
            self.progress.runs_on(session.canceller(&self.postgres.address));
            match numbered(&session.client, &begin).await {
                Ok(number) => return Ok((session, number)),
                Err(error) if error.as_db_error().is_none() => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        let opened = Session::open(&self.postgres.address).await;
        let session = opened.map_err(|error| connecting(self.name(), &error))?;
        self.progress.runs_on(session.canceller(&self.postgres.address));
        let number = numbered(&session.client, &begin).await.map_err(|error| self.failed(&error))?;
        Ok((session, number))
    }

    /// One message, so that neither of the two is without the other.
    fn begin(&self) -> String {
        let Transaction { reads_only, locks_what_it_reads, statement_timeout, steps, .. } = &*self.transaction;
        let mode = match (reads_only, steps.len()) {
            // One statement sees one moment as it is.
            (true, 1) => "ISOLATION LEVEL READ COMMITTED READ ONLY",
            (true, _) => "ISOLATION LEVEL REPEATABLE READ READ ONLY",
            (false, _) if *locks_what_it_reads => "ISOLATION LEVEL READ COMMITTED READ WRITE",
            (false, _) => "ISOLATION LEVEL SERIALIZABLE READ WRITE",
        };
        let number = if *reads_only { "" } else { "; select txid_current()" };
        format!("BEGIN {mode}; SET LOCAL statement_timeout = {}{number}", statement_timeout.as_millis().max(1))
    }

    /// All that stands between BEGIN and COMMIT.
    async fn work(&self, client: &Client) -> Result<Vec<Rows>, ToolError> {
        if let Some(user) = &self.user {
            self.become_user(client, user).await?;
        }
        let mut answers = Vec::with_capacity(self.transaction.steps.len());
        let mut kept = 0;
        for (at, step) in self.transaction.steps.iter().enumerate() {
            let values = self.inputs(client, &step.statement).await?;
            let rows = if self.transaction.reads_only && at + 1 == self.transaction.steps.len() {
                // Nothing hangs on how a read ends: its end goes out right behind it, without a wait in between.
                join(self.execute(client, &step.statement, values, &mut kept), self.end(client, "COMMIT")).await.0?
            } else {
                self.execute(client, &step.statement, values, &mut kept).await?
            };
            if let Some(expected) = step.rows_expected.filter(|expected| *expected != rows.count) {
                let now = match &step.now {
                    Some(now) => self.now(client, now, &mut kept).await,
                    None => None,
                };
                return Err(self.transaction.missed(self.name(), at, expected, rows.count, now));
            }
            answers.push(rows);
        }
        Ok(answers)
    }

    /// The role and the claims hold until the transaction's end, and for nobody after it.
    async fn become_user(&self, client: &Client, user: &User) -> Result<(), ToolError> {
        let set = "select set_config('role', $1, true), set_config('request.jwt.claims', $2, true)";
        let values = [&*user.role, &*user.claims].map(|value| (Text(Some(value.to_owned())), Type::TEXT));
        let set = async { client.query_typed_raw(set, values).await?.try_collect::<Vec<_>>().await };
        set.await.map(drop).map_err(|error| match error.as_db_error() {
            Some(db) if refuses(db.code()) => ToolError::NotPermitted(format!(
                "`{}` acts in the name of an end user, and the database does not let it be `{}`: {}. Nothing was done",
                self.name(),
                user.role,
                db.message()
            )),
            _ => self.failed(&error),
        })
    }

    /// The rows that a write missed, as they are now. Its own failure would hide what is to be told.
    async fn now(&self, client: &Client, now: &Statement, kept: &mut usize) -> Option<Rows> {
        let values = self.inputs(client, now).await.ok()?;
        self.execute(client, now, values, kept).await.ok()
    }

    /// Runs one statement. `kept` counts the bytes of all answers.
    async fn execute(
        &self,
        client: &Client,
        statement: &Statement,
        values: Vec<(Text, Type)>,
        kept: &mut usize,
    ) -> Result<Rows, ToolError> {
        let Transaction { steps, reads_only, rows_max, .. } = &*self.transaction;
        let stream = client.query_typed_raw(statement.text(), values).await;
        let mut stream = pin!(stream.map_err(|error| self.failed(&error))?);
        let mut answer = Rows { names: distinct([]), rows: Vec::new(), count: 0, has_more: false };
        while let Some(row) = stream.try_next().await.map_err(|error| self.failed(&error))? {
            if answer.rows.is_empty() {
                answer.names = distinct(row.columns().iter().map(Column::name));
            }
            if answer.rows.len() < *rows_max {
                *kept += row.raw_size_bytes();
                if *kept > ANSWER_MAX {
                    return Err(self.transaction.too_large(self.name()));
                }
                answer.rows.push(self.values(&row)?);
                answer.count += 1;
                continue;
            }
            answer.has_more = true;
            // Nobody reads the rest.
            if *reads_only && steps.last().is_some_and(|last| last.statement == *statement) {
                answer.count += 1;
                self.stop().await;
                return Ok(answer);
            }
        }
        answer.count = stream.rows_affected().unwrap_or(answer.count);
        Ok(answer)
    }

    /// Has the server stop what it is sending. What is on its way would be taken for the next answer.
    async fn stop(&self) {
        self.progress.spoil();
        if let Some(canceller) = self.progress.canceller() {
            let _ = timeout(STOP_MAX, canceller.cancel()).await;
        }
    }

    /// The inputs as texts that the server reads as what the statement makes of them.
    async fn inputs(&self, client: &Client, statement: &Statement) -> Result<Vec<(Text, Type)>, ToolError> {
        let types = self.types(client, statement).await.map_err(|error| self.failed(&error))?;
        let named = statement.parameters().iter().zip(&*types);
        named.map(|(name, of)| Ok((text(name, self.input.get(name.as_str()), of)?, of.clone()))).collect()
    }

    /// The types of a statement's parameters, as the server infers them; asked once.
    async fn types(&self, client: &Client, statement: &Statement) -> Result<Arc<[Type]>, Error> {
        if statement.parameters().is_empty() {
            return Ok(Arc::default());
        }
        if let Some(types) = self.postgres.types.get(statement) {
            return Ok(types);
        }
        // Dropped at once, so that it ends within the transaction.
        let types: Arc<[Type]> = client.prepare(statement.text()).await?.params().into();
        self.postgres.types.put(statement, Arc::clone(&types));
        Ok(types)
    }

    fn values(&self, row: &Row) -> Result<Vec<Value>, ToolError> {
        let value = |at: usize| match row.try_get::<_, Cell>(at) {
            Ok(Cell(value)) => Ok(value),
            Err(error) => {
                let column = row.columns()[at].name();
                let (tool, why) = (self.name(), innermost(&error));
                Err(ToolError::Failed(format!(
                    "the column `{column}` of what `{tool}` asked for: {why}. Nothing was kept"
                )))
            }
        };
        (0..row.len()).map(value).collect()
    }
}

/// Runs what begins a transaction, and hands on its number if that was asked for.
async fn numbered(client: &Client, begin: &str) -> Result<Option<String>, Error> {
    let messages = client.simple_query(begin).await?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}

/// The first row that a statement gives.
async fn one(client: &Client, statement: &str, values: Vec<(Text, Type)>) -> Result<Option<Row>, Error> {
    let rows = client.query_typed_raw(statement, values).await?;
    Ok(rows.try_collect::<Vec<_>>().await?.into_iter().next())
}

/// Whether a server that was to take on a role says that there is none such or that it may not: classes 22 and 42, invalid
/// values and access rules. Of others, such as too little memory, the role has no fault.
fn refuses(code: &SqlState) -> bool {
    matches!(&code.code()[..2], "22" | "42")
}

/// Whether a prepared statement of ours is not where we are, or another client's is in its place: behind a pooler, which
/// hands out the connections of the server one transaction at a time.
fn leaves_names(error: &Error) -> bool {
    let of_names = [SqlState::DUPLICATE_PSTATEMENT, SqlState::INVALID_SQL_STATEMENT_NAME];
    error.code().is_some_and(|code| of_names.contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_role_that_is_refused_is_the_end_users_matter() {
        for (code, is_refused) in [
            (SqlState::INSUFFICIENT_PRIVILEGE, true),
            (SqlState::INVALID_PARAMETER_VALUE, true),
            (SqlState::UNDEFINED_OBJECT, true),
            (SqlState::ADMIN_SHUTDOWN, false),
            (SqlState::QUERY_CANCELED, false),
            (SqlState::OUT_OF_MEMORY, false),
            (SqlState::IN_FAILED_SQL_TRANSACTION, false),
        ] {
            assert_eq!(refuses(&code), is_refused, "{code:?}");
        }
    }
}
