//! A SQL statement as a tool.
//!
//! From its author: statements with named parameters. To a [`Toolbox`](fanout_core::toolbox::Toolbox).
//! In the order of a call: `statement` is a text whose parameters are known; [`infer`] finds what it reads and writes.
//! What a model says is only ever a value: nothing of it becomes SQL.

pub mod infer;
pub mod postgres;
pub mod sqlite;
mod statement;

pub use statement::{Dialect, Statement, StatementError};
