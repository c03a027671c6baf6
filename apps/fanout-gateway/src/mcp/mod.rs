//! The tools as an MCP server: for any client that speaks the protocol, over standard streams or over HTTP.
//!
//! From a client's session: calls, one by one. To it: each result as it ends. A session is one run with one open batch, so
//! calls that do not clash run together and those that do keep the order of their arrival.
//!
//! In the order of a call: `stdio` and `http` carry messages, `server` answers them, `session` runs the calls, `sessions`
//! says which of them must go, `offered` is what a client may call, and
//! `describe` says what tools and results are in the protocol's words. Nothing here knows a tool or decides what waits for what.

mod describe;
mod http;
mod offered;
mod server;
mod session;
mod sessions;
mod stdio;

pub(crate) use http::routes;
pub(crate) use offered::Offered;
pub use stdio::{McpError, McpOptions, serve_mcp, serve_mcp_stdio};
