//! The hands: where tools come from.
//!
//! In reading order: [`schema`] compares templates with the schema of an input, [`function`] makes a tool of a function of
//! the program itself, `http` (feature `http`) makes one of an endpoint, and `command` (feature `command`) one of a program.
//! Each of them ends in something that implements [`Tool`](fanout_core::tool::Tool); when it runs, and beside what, is
//! decided in `fanout-core` alone.

#[cfg(feature = "command")]
pub mod command;
pub mod function;
#[cfg(feature = "http")]
pub mod http;
pub mod schema;
#[cfg(any(feature = "command", feature = "http"))]
mod value;
