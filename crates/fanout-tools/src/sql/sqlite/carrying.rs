//! One transaction, from BEGIN to its end. Everything here blocks.
//!
//! From the pool: a connection. To the call: rows, or what went wrong. What is not committed is rolled back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fanout_core::call::ToolName;
use fanout_core::tool::ToolError;
use rusqlite::{Connection, Error, ErrorCode};
use serde_json::Value;

use super::Sqlite;
use super::value::{json, size, value};
use crate::sql::pool::Place;
use crate::sql::statement::Statement;
use crate::sql::transaction::{ANSWER_MAX, Rows, Transaction, distinct};

/// After so many steps of SQLite's machine it is looked at whether a statement is still wanted: some microseconds.
const STEPS: i32 = 1_000;

/// What is done in one transaction.
pub(super) struct Carrying {
    pub(super) sqlite: Arc<Sqlite>,
    pub(super) transaction: Arc<Transaction>,
    pub(super) tool: ToolName,
    pub(super) input: Arc<Value>,
    /// Nobody waits for the answer any more.
    pub(super) unwanted: Arc<AtomicBool>,
}

impl Carrying {
    pub(super) fn run(&self, place: &Place<Connection>) -> Result<Vec<Rows>, ToolError> {
        let connection = match place.kept() {
            Some(connection) => connection,
            None => self.sqlite.open().map_err(|error| {
                ToolError::NotSent(format!("`{}` cannot open its database: {}", self.tool, told(&error)))
            })?,
        };
        let ended = self.transact(&connection);
        let is_clean = connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok();
        if is_clean && connection.progress_handler(0, None::<fn() -> bool>).is_ok() {
            place.keep(connection);
        }
        ended
    }

    fn transact(&self, connection: &Connection) -> Result<Vec<Rows>, ToolError> {
        if self.unwanted.load(Ordering::Relaxed) {
            return Err(ToolError::Stopped);
        }
        let reads_only = self.transaction.reads_only;
        // The file itself refuses what is not meant to write. Whoever writes says so at once: then it never meets a writer
        // half way.
        let begin = if reads_only { "BEGIN" } else { "BEGIN IMMEDIATE" };
        let begun = connection.pragma_update(None, "query_only", reads_only);
        begun.and_then(|()| connection.execute_batch(begin)).map_err(|error| self.failed(&error))?;
        let mut answers = Vec::with_capacity(self.transaction.steps.len());
        let mut kept = 0;
        for (at, step) in self.transaction.steps.iter().enumerate() {
            let rows = self.execute(connection, &step.statement, &mut kept)?;
            if let Some(expected) = step.rows_expected.filter(|expected| *expected != rows.count) {
                // Its own failure would hide what is to be told.
                let now = step.now.as_ref().and_then(|now| self.execute(connection, now, &mut kept).ok());
                return Err(self.transaction.missed(self.tool.as_str(), at, expected, rows.count, now));
            }
            answers.push(rows);
        }
        connection.execute_batch("COMMIT").map_err(|error| self.failed(&error))?;
        Ok(answers)
    }

    fn execute(&self, connection: &Connection, statement: &Statement, kept: &mut usize) -> Result<Rows, ToolError> {
        let (until, unwanted) = (Instant::now() + self.transaction.statement_timeout, Arc::clone(&self.unwanted));
        let is_over = move || unwanted.load(Ordering::Relaxed) || Instant::now() > until;
        let watched = connection.progress_handler(STEPS, Some(is_over));
        watched.map_err(|error| self.failed(&error))?;
        let mut prepared = connection.prepare_cached(statement.text()).map_err(|error| self.failed(&error))?;
        for (at, name) in statement.parameters().iter().enumerate() {
            let value = value(self.input.get(name.as_str()));
            prepared.raw_bind_parameter(at + 1, value).map_err(|error| self.failed(&error))?;
        }
        let names = distinct(prepared.column_names());
        let (columns, only_reads) = (names.len(), prepared.readonly());
        let mut answer = Rows { names, rows: Vec::new(), count: 0, has_more: false };
        let mut rows = prepared.raw_query();
        while let Some(row) = rows.next().map_err(|error| self.failed(&error))? {
            if answer.rows.len() == self.transaction.rows_max {
                answer.has_more = true;
                if only_reads {
                    answer.count += 1;
                    break;
                }
                continue;
            }
            let mut values = Vec::with_capacity(columns);
            for at in 0..columns {
                let cell = row.get_ref(at).map_err(|error| self.failed(&error))?;
                *kept += size(cell);
                values.push(json(cell));
            }
            if *kept > ANSWER_MAX {
                return Err(self.transaction.too_large(self.tool.as_str()));
            }
            answer.rows.push(values);
            answer.count += 1;
        }
        drop(rows);
        if !only_reads {
            answer.count = connection.changes();
        }
        Ok(answer)
    }

    /// What an error means; nothing was committed.
    fn failed(&self, error: &Error) -> ToolError {
        let (tool, told) = (&self.tool, told(error));
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                ToolError::RolledBack(format!("`{tool}` met another writer of its database: {told}"))
            }
            Some(ErrorCode::OperationInterrupted) if self.unwanted.load(Ordering::Relaxed) => ToolError::Stopped,
            Some(ErrorCode::OperationInterrupted) => ToolError::Failed(format!(
                "`{tool}` took longer than its `statement_timeout` of {:?}, and nothing was kept. Ask for less, or have it \
                 raised",
                self.transaction.statement_timeout
            )),
            Some(ErrorCode::ReadOnly) if self.transaction.reads_only => ToolError::Failed(format!(
                "`{tool}` is taken to read only, and the database stopped it when it wrote: {told}. Its configuration must \
                 declare what it `writes`"
            )),
            Some(ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
                ToolError::BadInput(format!("the database does not take this input of `{tool}`: {told}"))
            }
            _ => ToolError::Failed(format!("the database refused `{tool}`, and nothing was kept: {told}")),
        }
    }
}

/// What SQLite said, in one line.
pub(super) fn told(error: &Error) -> String {
    match error {
        Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    }
}
