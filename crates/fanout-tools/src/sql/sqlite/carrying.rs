//! One transaction, from BEGIN to its end. Everything here blocks.
//!
//! From the pool: a connection. To the call: rows, or what went wrong. What is not committed is rolled back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fanout_core::outcome::Output;
use fanout_core::tool::ToolError;
use rusqlite::{Connection, Error, ErrorCode, OptionalExtension};
use serde_json::Value;

use super::Sqlite;
use super::value::{json, size, value};
use crate::sql::once::{Claimed, OutcomeRow};
use crate::sql::pool::Place;
use crate::sql::statement::Statement;
use crate::sql::transaction::{Rows, Transaction, distinct};
use crate::sql::unit::{Kept, Member, Unit};

/// After so many steps of SQLite's machine it is looked at whether a statement is still wanted: some microseconds.
const STEPS: i32 = 1_000;

/// What is done in one transaction.
pub(super) struct Carrying {
    pub(super) sqlite: Arc<Sqlite>,
    pub(super) unit: Arc<Unit>,
    /// Nobody waits for the answer any more.
    pub(super) unwanted: Arc<AtomicBool>,
}

impl Carrying {
    pub(super) fn run(&self, place: &Place<Connection>) -> Result<Vec<Output>, ToolError> {
        let connection = match place.kept() {
            Some(connection) => connection,
            None => self.sqlite.open().map_err(|error| {
                ToolError::NotSent(format!("{} cannot open its database: {}", self.unit.who, told(&error)))
            })?,
        };
        let ended = self.transact(&connection);
        let is_clean = connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok();
        if is_clean && connection.progress_handler(0, None::<fn() -> bool>).is_ok() {
            place.keep(connection);
        }
        ended
    }

    fn transact(&self, connection: &Connection) -> Result<Vec<Output>, ToolError> {
        if self.unwanted.load(Ordering::Relaxed) {
            return Err(ToolError::Stopped);
        }
        let reads_only = self.unit.reads_only();
        // The file itself refuses what is not meant to write. Whoever writes says so at once: then it never meets a writer
        // half way.
        let begin = if reads_only { "BEGIN" } else { "BEGIN IMMEDIATE" };
        let failed = |error| failed(&self.unit.who, None, &error);
        connection.pragma_update(None, "query_only", reads_only).map_err(failed)?;
        connection.execute_batch(begin).map_err(failed)?;
        let claimed = self.unit.row.as_ref().map(|row| Ok((row, self.claim(connection, row)?))).transpose()?;
        if let Some((row, Claimed::Before(text))) = &claimed {
            return self.unit.before(row, text);
        }
        let (mut kept, mut is_held) = (Kept::default(), reads_only);
        let mut outputs = Vec::with_capacity(self.unit.members.len());
        for (at, member) in self.unit.members.iter().enumerate() {
            if self.unwanted.load(Ordering::Relaxed) {
                return Err(ToolError::Stopped);
            }
            let input = self.unit.input(at)?;
            // One that only reads is held to that also where others write.
            if member.transaction.reads_only != is_held {
                is_held = member.transaction.reads_only;
                connection.pragma_update(None, "query_only", is_held).map_err(failed)?;
            }
            kept.next();
            let rows = Statements { carrying: self, connection, member, input: &input }.run(&mut kept)?;
            outputs.push(self.unit.answered(&rows)?);
        }
        if let Some((row, Claimed::At(place))) = claimed {
            connection.progress_handler(0, None::<fn() -> bool>).map_err(failed)?;
            connection.pragma_update(None, "query_only", false).map_err(failed)?;
            let text = row.text(&mut outputs);
            connection
                .prepare_cached(row.once.keep)
                .and_then(|mut keep| keep.execute([place, text]))
                .map_err(failed)?;
        }
        connection.execute_batch("COMMIT").map_err(failed)?;
        Ok(outputs)
    }

    /// Looks whether the call was carried out before, and sees to it that nobody else does now.
    fn claim(&self, connection: &Connection, row: &OutcomeRow) -> Result<Claimed, ToolError> {
        let who = &self.unit.who;
        let one = |statement: &str| {
            connection.prepare_cached(statement)?.query_row(row.key.each_ref(), |row| row.get(0)).optional()
        };
        let failed = |error| failed(who, None, &error);
        match one(row.once.claim).map_err(failed)? {
            Some(place) => Ok(Claimed::At(place)),
            None => one(row.once.find).map_err(failed)?.map(Claimed::Before).ok_or_else(|| OutcomeRow::vanished(who)),
        }
    }
}

/// The statements of one member of a unit.
struct Statements<'a> {
    carrying: &'a Carrying,
    connection: &'a Connection,
    member: &'a Member,
    input: &'a Value,
}

impl Statements<'_> {
    fn run(&self, kept: &mut Kept) -> Result<Vec<Rows>, ToolError> {
        let Member { who, transaction } = self.member;
        let mut answers = Vec::with_capacity(transaction.steps.len());
        for (at, step) in transaction.steps.iter().enumerate() {
            let rows = self.execute(&step.statement, kept)?;
            if let Some(expected) = step.rows_expected.filter(|expected| *expected != rows.count) {
                // Its own failure would hide what is to be told.
                let now = step.now.as_ref().and_then(|now| self.execute(now, kept).ok());
                return Err(transaction.missed(who, at, expected, rows.count, now));
            }
            answers.push(rows);
        }
        Ok(answers)
    }

    fn execute(&self, statement: &Statement, kept: &mut Kept) -> Result<Rows, ToolError> {
        let Member { who, transaction } = self.member;
        let until = Instant::now() + transaction.statement_timeout;
        let unwanted = Arc::clone(&self.carrying.unwanted);
        let is_over = move || unwanted.load(Ordering::Relaxed) || Instant::now() > until;
        let failed = |error| self.failed(&error);
        self.connection.progress_handler(STEPS, Some(is_over)).map_err(failed)?;
        let mut prepared = self.connection.prepare_cached(statement.text()).map_err(failed)?;
        for (at, name) in statement.parameters().iter().enumerate() {
            let value = value(self.input.get(name.as_str()));
            prepared.raw_bind_parameter(at + 1, value).map_err(failed)?;
        }
        let names = distinct(prepared.column_names());
        let (columns, only_reads) = (names.len(), prepared.readonly());
        let mut answer = Rows { names, rows: Vec::new(), count: 0, has_more: false };
        let mut rows = prepared.raw_query();
        while let Some(row) = rows.next().map_err(failed)? {
            if answer.rows.len() == transaction.rows_max {
                answer.has_more = true;
                if only_reads {
                    answer.count += 1;
                    break;
                }
                continue;
            }
            let mut values = Vec::with_capacity(columns);
            for at in 0..columns {
                let cell = row.get_ref(at).map_err(failed)?;
                kept.add(who, size(cell))?;
                values.push(json(cell));
            }
            answer.rows.push(values);
            answer.count += 1;
        }
        drop(rows);
        if !only_reads {
            answer.count = self.connection.changes();
        }
        Ok(answer)
    }

    fn failed(&self, error: &Error) -> ToolError {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) if self.carrying.unwanted.load(Ordering::Relaxed) => {
                ToolError::Stopped
            }
            _ => failed(&self.member.who, Some(&self.member.transaction), error),
        }
    }
}

/// What an error means; nothing was committed. `transaction` is that of the statement that failed.
fn failed(who: &str, transaction: Option<&Transaction>, error: &Error) -> ToolError {
    let told = told(error);
    match (error.sqlite_error_code(), transaction) {
        (Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked), _) => {
            ToolError::RolledBack(format!("{who} met another writer of its database: {told}"))
        }
        (Some(ErrorCode::OperationInterrupted), Some(transaction)) => ToolError::Failed(format!(
            "{who} took longer than its `statement_timeout` of {:?}, and nothing was kept. Ask for less, or have it \
             raised",
            transaction.statement_timeout
        )),
        (Some(ErrorCode::ReadOnly), Some(transaction)) if transaction.reads_only => ToolError::Failed(format!(
            "{who} is taken to read only, and the database stopped it when it wrote: {told}. Its configuration must \
             declare what it `writes`"
        )),
        (Some(ErrorCode::TypeMismatch | ErrorCode::TooBig), _) => {
            ToolError::BadInput(format!("the database does not take this input of {who}: {told}"))
        }
        _ => ToolError::Failed(format!("the database refused {who}, and nothing was kept: {told}")),
    }
}

/// What SQLite said, in one line.
pub(super) fn told(error: &Error) -> String {
    match error {
        Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    }
}
