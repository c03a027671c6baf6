//! The statements of one call, in a transaction.
//!
//! From `carrying`: a connection on which the transaction has begun, and the input. Back to it: the rows of each statement, or
//! what went wrong; then all of the transaction is undone.

use std::pin::pin;
use std::sync::Arc;

use fanout_core::tool::ToolError;
use futures_util::TryStreamExt;
use futures_util::future::join;
use serde_json::Value;
use tokio::time::timeout;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Column, Error, Row};

use super::STOP_MAX;
use super::carrying::Carrying;
use super::failure::innermost;
use super::value::{Cell, Text, text};
use crate::sql::statement::Statement;
use crate::sql::transaction::{Rows, Step, distinct};
use crate::sql::unit::{Kept, Member};

/// The statements of one member of a unit.
pub(super) struct Statements<'a> {
    pub(super) carrying: &'a Carrying,
    pub(super) client: &'a Client,
    pub(super) member: &'a Member,
    pub(super) input: &'a Value,
    /// Nothing comes after them in the transaction, and nothing of it is to be kept: it ends with the last of them.
    pub(super) ends: bool,
}

/// What becomes of rows that are not handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// They are counted.
    Counted,
    /// Only that there are some is told.
    Told,
    /// And the server may stop sending them.
    Stopped,
}

impl Statements<'_> {
    pub(super) async fn run(&self, kept: &mut Kept) -> Result<Vec<Rows>, ToolError> {
        let steps = &self.member.transaction.steps;
        let mut answers = Vec::with_capacity(steps.len());
        for (at, step) in steps.iter().enumerate() {
            let rows = self.step(step, at + 1 == steps.len(), kept).await?;
            if let Some(expected) = step.rows_expected.filter(|expected| *expected != rows.count) {
                let now = match &step.now {
                    Some(now) => self.now(now, kept).await,
                    None => None,
                };
                return Err(self.member.transaction.missed(self.who(), at, expected, rows.count, now));
            }
            answers.push(rows);
        }
        Ok(answers)
    }

    async fn step(&self, step: &Step, is_last: bool, kept: &mut Kept) -> Result<Rows, ToolError> {
        let values = self.inputs(&step.statement).await?;
        let rest = match is_last && self.member.transaction.reads_only {
            false => Rest::Counted,
            true if self.ends => Rest::Stopped,
            true => Rest::Told,
        };
        let executed = self.execute(&step.statement, values, rest, kept);
        if rest != Rest::Stopped {
            return executed.await;
        }
        // Nothing hangs on how a read ends: its end goes out right behind it, without a wait in between.
        join(executed, self.carrying.end(self.client, "COMMIT")).await.0
    }

    fn who(&self) -> &str {
        &self.member.who
    }

    fn failed(&self, error: &Error) -> ToolError {
        self.carrying.failed(self.who(), error)
    }

    /// The rows that a write missed, as they are now. Its own failure would hide what is to be told.
    async fn now(&self, now: &Statement, kept: &mut Kept) -> Option<Rows> {
        let values = self.inputs(now).await.ok()?;
        self.execute(now, values, Rest::Counted, kept).await.ok()
    }

    /// Runs one statement.
    async fn execute(
        &self,
        statement: &Statement,
        values: Vec<(Text, Type)>,
        rest: Rest,
        kept: &mut Kept,
    ) -> Result<Rows, ToolError> {
        let rows_max = self.member.transaction.rows_max;
        let stream = self.client.query_typed_raw(statement.text(), values).await;
        let mut stream = pin!(stream.map_err(|error| self.failed(&error))?);
        let mut answer = Rows { names: distinct([]), rows: Vec::new(), count: 0, has_more: false };
        while let Some(row) = stream.try_next().await.map_err(|error| self.failed(&error))? {
            if answer.rows.is_empty() {
                answer.names = distinct(row.columns().iter().map(Column::name));
            }
            if answer.rows.len() < rows_max {
                kept.add(self.who(), row.raw_size_bytes())?;
                answer.rows.push(self.values(&row)?);
                answer.count += 1;
                continue;
            }
            answer.has_more = true;
            if rest == Rest::Stopped {
                answer.count += 1;
                self.stop().await;
                return Ok(answer);
            }
        }
        answer.count = match rest {
            // As much as is known where they are stopped: a call answers the same, whatever stands beside it.
            Rest::Told if answer.has_more => answer.count + 1,
            _ => stream.rows_affected().unwrap_or(answer.count),
        };
        Ok(answer)
    }

    /// Has the server stop what it is sending. What is on its way would be taken for the next answer.
    async fn stop(&self) {
        self.carrying.progress.spoil();
        if let Some(canceller) = self.carrying.progress.canceller() {
            let _ = timeout(STOP_MAX, canceller.cancel()).await;
        }
    }

    /// The inputs as texts that the server reads as what the statement makes of them.
    async fn inputs(&self, statement: &Statement) -> Result<Vec<(Text, Type)>, ToolError> {
        let types = self.types(statement).await.map_err(|error| self.failed(&error))?;
        let named = statement.parameters().iter().zip(&*types);
        named.map(|(name, of)| Ok((text(name, self.input.get(name.as_str()), of)?, of.clone()))).collect()
    }

    /// The types of a statement's parameters, as the server infers them; asked once.
    async fn types(&self, statement: &Statement) -> Result<Arc<[Type]>, Error> {
        if statement.parameters().is_empty() {
            return Ok(Arc::default());
        }
        if let Some(types) = self.carrying.postgres.types.get(statement) {
            return Ok(types);
        }
        // Dropped at once, so that it ends within the transaction.
        let types: Arc<[Type]> = self.client.prepare(statement.text()).await?.params().into();
        self.carrying.postgres.types.put(statement, Arc::clone(&types));
        Ok(types)
    }

    fn values(&self, row: &Row) -> Result<Vec<Value>, ToolError> {
        let value = |at: usize| match row.try_get::<_, Cell>(at) {
            Ok(Cell(value)) => Ok(value),
            Err(error) => {
                let column = row.columns()[at].name();
                let (who, why) = (self.who(), innermost(&error));
                Err(ToolError::Failed(format!(
                    "the column `{column}` of what {who} asked for: {why}. Nothing was kept"
                )))
            }
        };
        (0..row.len()).map(value).collect()
    }
}
