//! Statements as a tool.
//!
//! From `builder`: the statements as their author described them.
//! To a [`Toolbox`](fanout_core::toolbox::Toolbox), as [`SqlTool`].
//!
//! It carries out one transaction: its own, or that of an atomic plan whose first call is its. Whether one that was rolled back goes again is decided in `fanout-core`.

use std::fmt;
use std::sync::Arc;

use fanout_core::call::ToolName;
use fanout_core::outcome::Output;
use fanout_core::plan::AtomicPart;
use fanout_core::tool::{Attempt, BoxFuture, Tool, ToolError, ToolSpec};

use super::builder::SqlToolBuilder;
use super::database::Database;
use super::transaction::Transaction;
use super::unit::Unit;

/// Statements as a tool: one transaction per call. Cloning it shares everything.
#[derive(Clone)]
pub struct SqlTool {
    spec: ToolSpec,
    part: Arc<Part>,
}

/// What another tool of the same database needs to carry out its call in one transaction with its own.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) database: Database,
    pub(super) transaction: Arc<Transaction>,
}

impl SqlTool {
    pub(super) fn new(spec: ToolSpec, database: Database, transaction: Transaction) -> Self {
        let part = Arc::new(Part { database, transaction: Arc::new(transaction) });
        let atomic = Some(AtomicPart(Arc::clone(&part) as _));
        Self { spec: ToolSpec { atomic, ..spec }, part }
    }

    /// Begins a tool of statements of this database. What its catalog is known to hold by now is what effects are inferred
    /// from: see [`Database::learn`].
    pub fn builder(name: impl Into<ToolName>, database: &Database) -> SqlToolBuilder {
        SqlToolBuilder::new(name.into(), database.clone())
    }
}

impl Tool for SqlTool {
    fn spec(&self) -> ToolSpec {
        self.spec.clone()
    }

    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        let part = Arc::clone(&self.part);
        Box::pin(async move {
            let unit = Arc::new(Unit::of(&part, &attempt)?);
            part.database.run(&unit, &attempt).await
        })
    }
}

impl fmt::Debug for SqlTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlTool")
            .field("name", &self.spec.name)
            .field("database", &self.part.database)
            .finish_non_exhaustive()
    }
}
