//! Tools as a program meets them: functions with types, endpoints of a real server on loopback, and an MCP server that is a
//! script.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod batch;
mod faults;
mod function;
mod http;
mod mcp;
mod mcp_faults;
mod mcp_server;
mod openapi;
mod pressure;
mod server;
mod wire;
