//! `sql` of a `[[tool]]`: statements, as their author describes them.
//!
//! From the page. To [`build`](crate::build), which makes a tool of them; what can be wrong with them shows here, with its
//! place.
//!
//! No database is asked.

use std::collections::BTreeMap;

use fanout_tools::schema::nearest;
use fanout_tools::sql::{Dialect, ROWS_MAX, SqlDraft};
use serde_json::Value;

use super::database::DatabaseConfig;
use super::field::Field;
use super::keys::Kind;
use super::page::{Section, Spot};
use super::sections::count;

/// The statements of a tool.
#[derive(Clone, Debug)]
pub struct SqlConfig {
    /// The name of their database.
    pub database: String,
    /// The statements, and what is expected of them.
    pub draft: SqlDraft,
}

/// Reads the table of one tool.
pub(super) fn read(
    field: &Field<'_>,
    tool: &Section<'_>,
    schema: Option<&Value>,
    databases: &BTreeMap<String, DatabaseConfig>,
) -> Option<SqlConfig> {
    let section = field.section(format!("`sql` of {}", tool.name), Kind::Sql)?;
    let database = database(&section, databases);
    let statements = statements(&section);
    let rows = |field: Field<'_>| field.integer(0..=u64::from(u32::MAX));
    let rows_expected = section.get("expect_rows").and_then(rows);
    let rows_max = section.get("max_rows").and_then(|field| count(&field)).and_then(|rows| usize::try_from(rows).ok());
    section.finish();
    let (database, statements) = (database?, statements?);
    let dialect = databases.get(&database).and_then(|database| database.dialect);
    let mut texts = Vec::with_capacity(statements.len());
    for (text, spot) in statements {
        check(&section, schema?, dialect, &text, &spot);
        texts.push(text);
    }
    let draft = SqlDraft { statements: texts, rows_expected, rows_max: rows_max.unwrap_or(ROWS_MAX) };
    Some(SqlConfig { database, draft })
}

fn database(section: &Section<'_>, databases: &BTreeMap<String, DatabaseConfig>) -> Option<String> {
    let Some(field) = section.get("database") else {
        section
            .page
            .mistake(&section.spot, format!("{} needs `database`, the name of a [database.NAME]", section.name));
        return None;
    };
    let name = field.string()?;
    if !databases.contains_key(name) {
        let hint = match nearest(name, databases.keys().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("there must be a section [database.{name}] with its `url`"),
        };
        field.mistake(format!("`database` names `{name}`, which is no database of this file; {hint}"));
        return None;
    }
    Some(name.to_owned())
}

/// From whichever of its keys is given.
fn statements(section: &Section<'_>) -> Option<Vec<(String, Spot)>> {
    match (section.get("statement"), section.get("statements")) {
        (Some(one), None) => Some(vec![(one.string()?.to_owned(), one.spot)]),
        (None, Some(several)) => {
            let texts = several.strings()?;
            if texts.is_empty() {
                several.expected("at least one statement");
                return None;
            }
            Some(texts.into_iter().map(|(text, spot)| (text.to_owned(), spot)).collect())
        }
        (Some(_), Some(second)) => {
            second.mistake("`statement` and `statements` say the same thing; one of them is enough");
            None
        }
        (None, None) => {
            let message = format!("{} needs `statement = \"…\"`, or `statements = [\"…\", \"…\"]`", section.name);
            section.page.mistake(&section.spot, message);
            None
        }
    }
}

/// Notes what is wrong with one statement: each is tried by itself, so that one mistake does not hide the next. Where it is not
/// known whose SQL it is, only what is wrong in any.
fn check(section: &Section<'_>, schema: &Value, dialect: Option<Dialect>, text: &str, spot: &Spot) {
    let draft = SqlDraft { statements: vec![text.to_owned()], ..SqlDraft::default() };
    let wrong = |dialect| draft.read(dialect, schema).err();
    let error = match dialect {
        Some(dialect) => wrong(dialect),
        None => wrong(Dialect::Sqlite).and_then(|_| wrong(Dialect::Postgres)),
    };
    if let Some(error) = error {
        section.page.mistake(spot, error.to_string());
    }
}
