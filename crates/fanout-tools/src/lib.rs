//! The hands: where tools come from.
//!
//! In reading order: [`schema`] compares templates with the schema of an input, [`function`] makes a tool of a function of
//! the program itself, `http` (feature `http`) makes one of an endpoint, and `mcp` (feature `mcp`) makes them of what an MCP
//! server lists; [`name`] is what tools of such a source are called.
//! Each of them ends in something that implements [`Tool`](fanout_core::tool::Tool); when it runs, and beside what, is
//! decided in `fanout-core` alone.

pub mod function;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "mcp")]
pub mod mcp;
pub mod name;
pub mod schema;
