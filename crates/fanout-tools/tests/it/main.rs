//! Tools as a program meets them: functions with types, endpoints of a real server on loopback, an MCP server that is a
//! script, and real programs.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod batch;
#[cfg(unix)]
mod command;
mod faults;
mod function;
mod http;
mod http_inputs;
#[cfg(unix)]
mod injection;
mod mcp;
mod mcp_faults;
mod mcp_http;
mod mcp_server;
mod openapi;
mod pressure;
mod server;
mod sql;
#[cfg(unix)]
mod sql_catalog;
mod sql_order;
mod wire;
