//! SQLite: what only it has.
//!
//! `catalog` asks a database for its tables.

pub mod catalog;
