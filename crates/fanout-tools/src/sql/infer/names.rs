//! Names in a statement, as their database reads them.
//!
//! From the parsed statement. To the catalog, whose names are spelled like this.

use sqlparser::ast::{Expr, Ident, ObjectName, ObjectNamePart, TableFactor};

use crate::sql::Dialect;

/// A name without quotes is taken in lower case by PostgreSQL; SQLite looks up any name in any case.
pub(super) fn folded(dialect: Dialect, ident: &Ident) -> String {
    match (dialect, ident.quote_style) {
        (Dialect::Postgres, Some(_)) => ident.value.clone(),
        _ => ident.value.to_ascii_lowercase(),
    }
}

/// The schema, if one is written, and the name. `None` for anything longer or computed.
pub(super) fn split(dialect: Dialect, name: &ObjectName) -> Option<(Option<String>, String)> {
    let parts: Option<Vec<&Ident>> = name.0.iter().map(ObjectNamePart::as_ident).collect();
    match parts?.as_slice() {
        [name] => Some((None, folded(dialect, name))),
        [schema, name] => Some((Some(folded(dialect, schema)), folded(dialect, name))),
        _ => None,
    }
}

/// The last part of a name: the column in `table.column`.
pub(super) fn last(dialect: Dialect, name: &ObjectName) -> Option<String> {
    name.0.last().and_then(ObjectNamePart::as_ident).map(|ident| folded(dialect, ident))
}

/// A table in a `FROM`, and what the rest of its query calls it.
pub(super) struct Named<'a> {
    /// As it is written.
    pub name: &'a ObjectName,
    /// What stands before a column of it: its alias, else its own name.
    pub called: Option<String>,
}

impl<'a> Named<'a> {
    /// The table, if the factor is one.
    pub(super) fn of(dialect: Dialect, factor: &'a TableFactor) -> Option<Self> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return None };
        // Renamed columns no longer say which column of the table they are.
        let renamed = alias.as_ref().is_some_and(|alias| !alias.columns.is_empty());
        let called = match alias {
            _ if renamed => None,
            Some(alias) => Some(folded(dialect, &alias.name)),
            None => last(dialect, name),
        };
        Some(Self { name, called })
    }
}

/// Which column an expression is, if it is one of the table that is called so. A bare name that this table has can be no
/// other table's: both databases refuse it as ambiguous.
pub(super) fn column_of(dialect: Dialect, expr: &Expr, called: &str) -> Option<String> {
    match expr {
        Expr::Nested(inner) => column_of(dialect, inner, called),
        Expr::Identifier(column) => Some(folded(dialect, column)),
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [table, column] if folded(dialect, table) == called => Some(folded(dialect, column)),
            _ => None,
        },
        _ => None,
    }
}
