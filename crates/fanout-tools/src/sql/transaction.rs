//! What a call does in a transaction, and what comes of it.
//!
//! From the tool: statements, each with what is expected of it. To `postgres` and `sqlite`, which carry them out.
//!
//! No database is known here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fanout_core::tool::ToolError;
use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};
use serde_json::Value;

use super::statement::Statement;

/// The statements of a call, one after another.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) steps: Vec<Step>,
    /// The database itself refuses every write.
    pub(super) reads_only: bool,
    /// It is one statement on one row, which by itself reads nothing but what the database locks.
    pub(super) is_one_row: bool,
    /// Each statement finds the rows that it names, or all is undone: what the database locks is all that they read.
    pub(super) finds_each: bool,
    /// Of each statement at most so many rows are handed on.
    pub(super) rows_max: usize,
    /// So long it may take until the transaction has begun: what is given up by then was never sent.
    pub(super) begin_max: Duration,
    /// So long one statement may take.
    pub(super) statement_timeout: Duration,
}

/// One statement.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) statement: Statement,
    /// It must write so many rows, or return so many if it only reads; else somebody else was first.
    pub(super) rows_expected: Option<u64>,
    /// What shows the rows as they are now, where it missed them.
    pub(super) now: Option<Statement>,
}

impl Transaction {
    /// A statement did not meet the rows that it was to meet. What the model needs to try again is said: the rows as they are
    /// `now`, where that could be asked.
    pub(super) fn missed(&self, who: &str, at: usize, expected: u64, met: u64, now: Option<Rows>) -> ToolError {
        let which = if self.steps.len() == 1 { String::new() } else { format!(" in statement {}", at + 1) };
        let rows = if expected == 1 { "row" } else { "rows" };
        let named: Vec<String> = self.steps[at].statement.parameters().iter().map(|name| format!("`{name}`")).collect();
        let by = if named.is_empty() { String::new() } else { format!(" for this {}", named.join(", ")) };
        let next = match now {
            None => "Read it again, and try again with what you then see".to_owned(),
            Some(now) if now.rows.is_empty() => "There is none such now".to_owned(),
            Some(now) => format!("It is now {}: try again with that", now.shown()),
        };
        ToolError::Conflict(format!(
            "{who} was to meet {expected} {rows}{which} and met {met}{by}: somebody else changed it first, or it is not \
             there. Nothing was kept. {next}"
        ))
    }
}

/// What one statement came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rows {
    /// The columns' names, each once.
    pub(super) names: Arc<[String]>,
    /// The values of each row, one per name.
    pub(super) rows: Vec<Vec<Value>>,
    /// How many rows were written or returned; at least so many, where there are more.
    pub(super) count: u64,
    /// There are more rows than are here.
    pub(super) has_more: bool,
}

impl Rows {
    /// The rows alone, as the model reads them; one without a list around it.
    fn shown(&self) -> String {
        let rows: Vec<Row<'_>> = self.rows.iter().map(|values| Row { names: &self.names, values }).collect();
        let text = match rows.as_slice() {
            [one] => serde_json::to_string(one),
            all => serde_json::to_string(all),
        };
        text.unwrap_or_default()
    }
}

impl Serialize for Rows {
    // Columns in their order.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let has_rows = !self.names.is_empty();
        let fields = 1 + usize::from(has_rows) + usize::from(self.has_more);
        let mut answer = serializer.serialize_struct("Rows", fields)?;
        if has_rows {
            let rows: Vec<Row<'_>> = self.rows.iter().map(|values| Row { names: &self.names, values }).collect();
            answer.serialize_field("rows", &rows)?;
        }
        answer.serialize_field("count", &self.count)?;
        if self.has_more {
            let note = format!("only the first {} rows are here; ask for fewer, or for the next ones", self.rows.len());
            answer.serialize_field("note", &note)?;
        }
        answer.end()
    }
}

struct Row<'r> {
    names: &'r [String],
    values: &'r [Value],
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_map(Some(self.names.len()))?;
        for (name, value) in self.names.iter().zip(self.values) {
            row.serialize_entry(name, value)?;
        }
        row.end()
    }
}

/// The names under which columns stand in a row. One that is there twice gets a number: `id`, `id_2`.
pub(super) fn distinct<'n>(columns: impl IntoIterator<Item = &'n str>) -> Arc<[String]> {
    let columns: Vec<&str> = columns.into_iter().collect();
    // A column that its author calls `id_2` keeps that name.
    let given: BTreeSet<&str> = columns.iter().copied().collect();
    let mut names: Vec<String> = Vec::with_capacity(columns.len());
    for column in columns {
        let mut numbered = (2..).map(|number| format!("{column}_{number}"));
        let mut name = column.to_owned();
        while names.contains(&name) {
            name = numbered.find(|name| !given.contains(name.as_str())).unwrap_or_default();
        }
        names.push(name);
    }
    names.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_that_is_there_twice_gets_a_number_that_is_free() {
        for (columns, names) in [
            (vec!["id", "name"], vec!["id", "name"]),
            (vec!["id", "id", "id"], vec!["id", "id_2", "id_3"]),
            (vec!["id", "id", "id_2"], vec!["id", "id_3", "id_2"]),
            (vec!["?column?", "?column?"], vec!["?column?", "?column?_2"]),
        ] {
            assert_eq!(distinct(columns).to_vec(), names);
        }
    }

    #[test]
    fn rows_keep_the_order_of_their_columns() {
        let rows =
            Rows { names: distinct(["z", "a"]), rows: vec![vec![json!(1), json!(null)]], count: 1, has_more: false };
        assert_eq!(serde_json::to_string(&rows).unwrap(), r#"{"rows":[{"z":1,"a":null}],"count":1}"#);
        let none = Rows { names: distinct([]), rows: Vec::new(), count: 3, has_more: false };
        assert_eq!(serde_json::to_string(&none).unwrap(), r#"{"count":3}"#);
        let more = Rows { has_more: true, ..rows };
        assert!(serde_json::to_string(&more).unwrap().contains("only the first 1 rows"), "{more:?}");
    }
}
