//! A SQL statement as a tool.
//!
//! From its author: statements with named parameters, and the database that they are for. To a
//! [`Toolbox`](fanout_core::toolbox::Toolbox), as [`SqlTool`].
//! In the order of a call: `statement` is a text whose parameters are known; [`infer`] says what it reads and writes; `tool` is
//! what the toolbox holds; `database` is one of [`postgres`] and [`sqlite`], each with a `pool` of connections; `transaction` is
//! what a call does there, `once` the row that keeps it from being done twice, `unit` the calls that one transaction carries out, and `user` in whose name.
//! What a model says is only ever a value: nothing of it becomes SQL.

mod builder;
mod database;
pub mod infer;
mod once;
mod pool;
pub mod postgres;
pub mod sqlite;
mod statement;
mod tool;
mod transaction;
mod unit;
mod user;

pub use builder::{ROWS_MAX, SqlDraft, SqlToolBuilder, SqlToolError};
pub use database::{Database, DatabaseError, DatabaseOptions};
pub use postgres::AddressError;
pub use sqlite::FileError;
pub use statement::{Dialect, Statement, StatementError};
pub use tool::SqlTool;
