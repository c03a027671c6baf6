//! The hands: where tools come from.
//!
//! In reading order: [`schema`] knows the fields of an input, [`declared`] holds what is declared of a tool against them, [`function`] makes a tool of a function of
//! the program itself; with the feature `http`, `http` makes one of an endpoint, and `openapi` one of each operation of a
//! document; with `mcp`, `mcp` makes them of what an MCP server lists; with `command`, `command` makes one of a program; with `sql`, `sql` makes one of SQL statements.
//! `naming` is what the tools of sources with many are called; `text` reads the texts that inputs stand in,
//! and [`kept`] writes what outlives a process.
//! Each of them ends in something that implements [`Tool`](fanout_core::tool::Tool); when it runs, and beside what, is
//! decided in `fanout-core` alone.

#[cfg(feature = "command")]
pub mod command;
pub mod declared;
pub mod function;
#[cfg(feature = "http")]
pub mod http;
pub mod kept;
#[cfg(feature = "mcp")]
pub mod mcp;
#[cfg(feature = "http")]
pub mod naming;
#[cfg(feature = "http")]
pub mod openapi;
pub mod schema;
#[cfg(feature = "sql")]
pub mod sql;
#[cfg(any(feature = "command", feature = "http"))]
mod text;
#[cfg(any(feature = "command", feature = "http", feature = "sql"))]
mod value;
