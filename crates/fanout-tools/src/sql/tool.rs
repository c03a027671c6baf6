//! Statements as a tool.
//!
//! From `builder`: the statements as their author described them.
//! To a [`Toolbox`](fanout_core::toolbox::Toolbox), as [`SqlTool`].
//!
//! It carries out one transaction. Whether one that was rolled back goes again is decided in `fanout-core`.

use std::fmt;
use std::sync::Arc;

use fanout_core::call::ToolName;
use fanout_core::outcome::{Content, Output};
use fanout_core::tool::{Attempt, BoxFuture, Tool, ToolError, ToolSpec};
use serde::Serialize;

use super::builder::SqlToolBuilder;
use super::database::Database;
use super::transaction::{Rows, Transaction};

/// Statements as a tool: one transaction per call. Cloning it shares everything.
#[derive(Clone)]
pub struct SqlTool {
    pub(super) spec: ToolSpec,
    pub(super) database: Database,
    pub(super) transaction: Arc<Transaction>,
}

impl SqlTool {
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
        let (database, transaction) = (self.database.clone(), Arc::clone(&self.transaction));
        Box::pin(async move { output(&database.run(&transaction, &attempt).await?) })
    }
}

/// One statement's answer stands by itself; those of several in a list, in their order.
fn output(answers: &[Rows]) -> Result<Output, ToolError> {
    match answers {
        [one] => shown(one),
        all => shown(&Results { results: all }),
    }
}

/// As text, whose columns keep their order, and as data.
fn shown(answer: &impl Serialize) -> Result<Output, ToolError> {
    let both = serde_json::to_string(answer).and_then(|text| Ok((text, serde_json::to_value(answer)?)));
    // It cannot fail: every value is JSON already.
    let (text, structured) = both.map_err(|error| ToolError::Panicked(error.to_string()))?;
    Ok(Output { content: vec![Content::Text(text.into())], structured: Some(structured), is_error: false })
}

#[derive(Serialize)]
struct Results<'a> {
    results: &'a [Rows],
}

impl fmt::Debug for SqlTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlTool")
            .field("name", &self.spec.name)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}
