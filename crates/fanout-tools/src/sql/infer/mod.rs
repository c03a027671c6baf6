//! What SQL statements read and write.
//!
//! From the [`Statement`]s of a tool and the [`Catalog`] of their database. To the tool's effects, which keep calls on the same
//! rows apart, and to `fanout check`, which says them with their reasons.
//! In reading order: [`catalog`] is what the database knows, `names` how a statement names it, `keys` which rows a statement
//! picks, `functions` what everybody's functions do; `touched` gathers what was found, `tables` follows a read or a write to
//! all that comes with it, `walk` goes through a statement, `write` through the writing ones. `current` asks for
//! the rows that a write missed.
//!
//! Whatever is not understood is taken to write the whole database: calls then wait for each other, and none goes wrong.
//! Nothing here asks a database.

pub mod catalog;
mod current;
mod functions;
mod keys;
mod names;
mod tables;
mod touched;
mod walk;
mod write;

pub use catalog::Catalog;
pub(super) use current::current;
pub(super) use walk::changes_rows;

use fanout_core::effects::Template;

use super::Statement;
use touched::Touched;

/// What the statements of one tool touch.
#[derive(Clone, Debug, Default)]
pub struct Inference {
    /// What is read and not written.
    pub reads: Vec<Template>,
    /// What is written.
    pub writes: Vec<Template>,
    /// Whether nothing is written and nothing locked, so that a `READ ONLY` transaction can carry it.
    pub is_read: bool,
    /// Whether every statement is a write that finds its rows by their whole primary key, or adds rows, and reads no others but
    /// those that the database itself looks up for a foreign key.
    ///
    /// PostgreSQL looks at such a row again once it has locked it. So at `READ COMMITTED` one statement on one row is safe by
    /// itself ([`Inference::is_one_row`]), and several are if each finds its row, or all is rolled back: then every row that
    /// was looked at stays locked to the end.
    pub is_keyed: bool,
    /// Whether that is one statement on one row.
    pub is_one_row: bool,
    /// What was found and why, a sentence each, for people.
    pub why: Vec<String>,
}

/// Finds what the statements of one tool read and write in the database of this name.
///
/// The statements run in their order in one transaction. Without a catalog it is the whole database, and whether that is read
/// or written is what the text alone shows.
pub fn infer(database: &str, statements: &[Statement], catalog: Option<&Catalog>) -> Inference {
    let mut touched = Touched::new(database);
    for statement in statements {
        walk::statement(statement, catalog, &mut touched);
    }
    touched.into_inference(statements.len())
}

#[cfg(test)]
mod tests;
