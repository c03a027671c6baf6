//! What an author says of statements, made into a tool.
//!
//! From its author: the statements, what is expected of them, and what they touch. To `tool`, with everything read and
//! checked, so that a mistake shows before the first call.
//!
//! Nothing is sent here.

use std::fmt;

use fanout_core::call::ToolName;
use fanout_core::effects::EffectsSpec;
use fanout_core::tool::{Policy, ToolSpec};
use serde_json::Value;

use super::database::Database;
use super::infer::{Catalog, Inference, changes_rows, current, infer};
use super::statement::{Dialect, Statement, StatementError};
use super::tool::SqlTool;
use super::transaction::{Step, Transaction};
use crate::declared::{Declared, EffectsError};
use crate::schema::{Fields, UnknownField};

/// So many rows of a statement are handed on unless said.
pub const ROWS_MAX: usize = 1_000;

/// Statements as their author describes them, until [`build`](SqlToolBuilder::build).
#[must_use = "statements become a tool with `build`"]
pub struct SqlToolBuilder {
    name: ToolName,
    database: Database,
    description: String,
    input_schema: Value,
    draft: SqlDraft,
    declared: Declared,
    policy: Policy,
}

/// The part that needs no database: what can be wrong with it can be told where it is written down.
#[derive(Clone, Debug)]
pub struct SqlDraft {
    /// Each one statement, with `:name` where an input goes.
    pub statements: Vec<String>,
    /// How many rows each statement that writes must meet, or each statement if none does.
    pub rows_expected: Option<u64>,
    /// The most rows of each statement that are handed on.
    pub rows_max: usize,
}

impl Default for SqlDraft {
    fn default() -> Self {
        Self { statements: Vec::new(), rows_expected: None, rows_max: ROWS_MAX }
    }
}

/// Why statements cannot be a tool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqlToolError {
    /// There is none.
    #[error("there is no statement")]
    None,
    /// One of them cannot be read.
    #[error("{}{source}", place(*.at, *.of))]
    Statement {
        /// Which, from 0.
        at: usize,
        /// Of how many.
        of: usize,
        /// What is wrong.
        source: StatementError,
    },
    /// A parameter is no input.
    #[error(transparent)]
    Parameter(#[from] UnknownField),
    /// It would show nothing.
    #[error("`max_rows` must be at least 1")]
    NoRows,
    /// A read that is to find more rows than are handed on.
    #[error("`expect_rows` is more than `max_rows`, and no more than those are counted: raise `max_rows`")]
    Uncounted,
    /// It says that it writes nothing, and does.
    #[error("`writes = []` says that nothing is written, and `{0}` writes: say what, or leave `writes` out")]
    Writes(String),
    /// What is declared of it cannot be right.
    #[error(transparent)]
    Effects(#[from] EffectsError),
}

fn place(at: usize, of: usize) -> String {
    if of == 1 { String::new() } else { format!("statement {}: ", at + 1) }
}

impl SqlDraft {
    /// Reads the statements as those of a dialect, and holds them against the input.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn read(&self, dialect: Dialect, input_schema: &Value) -> Result<Vec<Statement>, SqlToolError> {
        let (of, fields) = (self.statements.len(), Fields::of(input_schema));
        if of == 0 {
            return Err(SqlToolError::None);
        }
        if self.rows_max == 0 {
            return Err(SqlToolError::NoRows);
        }
        let mut statements = Vec::with_capacity(of);
        for (at, text) in self.statements.iter().enumerate() {
            let read = Statement::parse(dialect, text);
            let statement = read.map_err(|source| SqlToolError::Statement { at, of, source })?;
            for name in statement.parameters() {
                fields.check(name, || format!("{}`:{name}`", place(at, of)))?;
            }
            statements.push(statement);
        }
        let is_uncounted =
            self.rows_expected.is_some_and(|rows| usize::try_from(rows).is_ok_and(|rows| rows > self.rows_max));
        if is_uncounted && !statements.iter().any(Statement::plainly_writes) {
            return Err(SqlToolError::Uncounted);
        }
        Ok(statements)
    }

    /// The statements, each with what is expected of it.
    fn steps(&self, statements: Vec<Statement>, catalog: Option<&Catalog>) -> Vec<Step> {
        let any_writes = statements.iter().any(changes_rows);
        let counts = |statement: &Statement| changes_rows(statement) || !any_writes;
        let step = |statement: Statement| Step {
            rows_expected: self.rows_expected.filter(|_| counts(&statement)),
            now: catalog.and_then(|catalog| current(&statement, catalog)),
            statement,
        };
        statements.into_iter().map(step).collect()
    }
}

impl SqlToolBuilder {
    pub(super) fn new(name: ToolName, database: Database) -> Self {
        Self {
            name,
            database,
            description: String::new(),
            input_schema: serde_json::json!({ "type": "object" }),
            draft: SqlDraft::default(),
            declared: Declared::default(),
            policy: Policy::default(),
        }
    }

    /// What the model reads of it.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// The JSON Schema of its input; any object unless said.
    pub fn input_schema(mut self, schema: Value) -> Self {
        self.input_schema = schema;
        self
    }

    /// Adds a statement; several run in their order, in one transaction. An input goes where `:name` stands; an input that
    /// is absent is NULL. Lists go to PostgreSQL as arrays, or as JSON where the statement wants that; to SQLite as JSON.
    pub fn statement(mut self, text: impl Into<String>) -> Self {
        self.draft.statements.push(text.into());
        self
    }

    /// Each statement that writes must write so many rows (each statement must return so many, if none writes); else
    /// nothing is kept, and the call is a `conflict`.
    pub fn expect_rows(mut self, rows: u64) -> Self {
        self.draft.rows_expected = Some(rows);
        self
    }

    /// The most rows of each statement that are handed on; 1,000 unless said.
    pub fn max_rows(mut self, rows: usize) -> Self {
        self.draft.rows_max = rows;
        self
    }

    /// All of that at once, as it was written down.
    pub fn draft(mut self, draft: SqlDraft) -> Self {
        self.draft = draft;
        self
    }

    /// Takes it to touch nothing as long as nothing is declared: calls of it wait for no other tool of this database, by its
    /// author's choice.
    pub fn undeclared_parallel(mut self) -> Self {
        self.declared.parallel = true;
        self
    }

    /// Declares what it reads; see [`FunctionBuilder::reads`](crate::function::FunctionBuilder::reads).
    pub fn reads<'a>(mut self, templates: impl IntoIterator<Item = &'a str>) -> Self {
        self.declared.reads(templates);
        self
    }

    /// Declares what it writes. None at all: it writes nothing, and the database itself sees to that. Any: it writes, though
    /// its statements may look as if they only read, as a call of a function does.
    pub fn writes<'a>(mut self, templates: impl IntoIterator<Item = &'a str>) -> Self {
        self.declared.writes(templates);
        self
    }

    /// How calls of it are treated.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Makes the tool.
    ///
    /// # Errors
    /// [`SqlToolError`] when something that the author wrote cannot be right. Nothing is sent.
    pub fn build(self) -> Result<SqlTool, SqlToolError> {
        let statements = self.draft.read(self.database.dialect(), &self.input_schema)?;
        let catalog = self.database.catalog();
        let Inference { reads, writes, is_read, is_keyed, is_one_row, why } =
            infer(self.database.name(), &statements, catalog.as_deref());
        let reads_only = match self.declared.writes.as_deref() {
            None => is_read,
            Some([]) => match statements.iter().find(|statement| statement.plainly_writes()) {
                Some(statement) => return Err(SqlToolError::Writes(statement.first_word().to_owned())),
                None => true,
            },
            Some(_) => false,
        };
        let inferred = EffectsSpec { inferred_reads: reads, inferred_writes: writes, ..EffectsSpec::default() };
        let effects = self.declared.effects(inferred, &Fields::of(&self.input_schema))?;
        // So that it is the database that gives up first, and says what became of the statement.
        let policy_timeout = self.policy.timeout;
        let statement_timeout = self.database.options().statement_timeout.min(policy_timeout.mul_f64(0.9));
        let spec = ToolSpec {
            description: self.description,
            input_schema: self.input_schema,
            effects,
            safe: reads_only,
            policy: self.policy,
            reasons: why,
            database: Some(self.database.place()),
            ..ToolSpec::new(self.name, self.database.source())
        };
        let (steps, rows_max) = (self.draft.steps(statements, catalog.as_deref()), self.draft.rows_max);
        let finds_each = is_keyed && steps.iter().all(|step| step.rows_expected.is_some_and(|rows| rows > 0));
        let begin_max = policy_timeout / 2;
        let transaction =
            Transaction { steps, reads_only, is_one_row, finds_each, rows_max, begin_max, statement_timeout };
        Ok(SqlTool::new(spec, self.database, transaction))
    }
}

impl fmt::Debug for SqlToolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlToolBuilder").field("name", &self.name).field("draft", &self.draft).finish_non_exhaustive()
    }
}
