//! What an error of PostgreSQL means for a call.
//!
//! From a transaction: the error, and how far it had come. To the scheduler: whether anything may have been written.
//!
//! Source of the codes: PostgreSQL's appendix "Error Codes". What is not committed is rolled back, also when the connection
//! is lost: only an answer to COMMIT that never comes leaves a doubt.

use std::error::Error as _;

use fanout_core::tool::ToolError;
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

/// What a failed statement means; nothing was committed.
pub(super) fn before_commit(who: &str, error: &Error) -> ToolError {
    let Some(db) = error.as_db_error() else {
        let why = innermost(error);
        let is_io = error.source().is_some_and(<dyn std::error::Error>::is::<std::io::Error>);
        return match error.is_closed() || is_io {
            true => {
                ToolError::NotSent(format!("{who} lost the connection to its database before anything was kept: {why}"))
            }
            false => ToolError::Failed(format!("{who} got an answer that cannot be used, and nothing was kept: {why}")),
        };
    };
    let told = said(db);
    let code = db.code();
    match *code {
        SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED | SqlState::LOCK_NOT_AVAILABLE => {
            ToolError::RolledBack(format!("{who} met others at the same rows: {told}"))
        }
        // A name of ours that another client left behind a pooler; the next one is another.
        SqlState::DUPLICATE_PSTATEMENT | SqlState::INVALID_SQL_STATEMENT_NAME => {
            ToolError::RolledBack(format!("{who} met another client's statement on its connection: {told}"))
        }
        SqlState::QUERY_CANCELED => ToolError::Failed(format!(
            "{who} was stopped by its database, and nothing was kept: {told}. Ask for less, or have its \
             `statement_timeout` raised"
        )),
        SqlState::INSUFFICIENT_PRIVILEGE => {
            ToolError::NotPermitted(format!("the database does not permit this to {who}, and nothing was kept: {told}"))
        }
        SqlState::READ_ONLY_SQL_TRANSACTION => ToolError::Failed(format!(
            "{who} is taken to read only, and the database stopped it when it wrote: {told}. Its configuration must \
             declare what it `writes`"
        )),
        _ => match &code.code()[..2] {
            // Data exceptions: what was handed over does not fit.
            "22" => ToolError::BadInput(format!("the database does not take this input of {who}: {told}")),
            // The server is going, coming, or full.
            "08" | "53" | "57" => ToolError::NotSent(format!("the database of {who} cannot take it now: {told}")),
            "58" | "XX" => {
                ToolError::NotSent(format!("the database of {who} is in trouble, and nothing was kept: {told}"))
            }
            _ => ToolError::Failed(format!("the database refused {who}, and nothing was kept: {told}")),
        },
    }
}

/// Whether an error in the place of COMMIT's answer proves that nothing was committed: the server says what was wrong with
/// the transaction, a constraint say. One that goes down may have committed before it says so.
pub(super) fn disproves_commit(error: &Error) -> bool {
    error.as_db_error().is_some_and(|db| !matches!(&db.code().code()[..2], "08" | "57" | "58" | "XX"))
}

/// Whether an error only says that this role may not, or that another client's statement was in the way.
pub(super) fn is_not_for_us(error: &Error) -> bool {
    let of_others = [SqlState::INSUFFICIENT_PRIVILEGE, SqlState::DUPLICATE_PSTATEMENT];
    error.code().is_some_and(|code| of_others.contains(code))
}

/// What a server that let nobody in means.
pub(super) fn connecting(who: &str, error: &Error) -> ToolError {
    let message = format!("{who} found no connection to its database: {}", told(error));
    match error.code().map(|code| &code.code()[..2]) {
        // The password, the name of the database, the right to connect: the next attempt meets the same.
        Some("28" | "3D" | "42") => ToolError::Failed(format!("{message}. Nothing was sent")),
        _ => ToolError::NotSent(message),
    }
}

/// An error in one line.
pub(super) fn told(error: &Error) -> String {
    error.as_db_error().map_or_else(|| innermost(error), said)
}

/// What the server said, in one line, with what explains it.
fn said(db: &DbError) -> String {
    let mut text = db.message().to_owned();
    for more in [db.detail(), db.hint()].into_iter().flatten() {
        text.push_str("; ");
        text.push_str(more.trim_end_matches('.'));
    }
    format!("{text} ({})", db.code().code())
}

/// The innermost cause; the outer ones only say that something failed.
pub(super) fn innermost(error: &Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
