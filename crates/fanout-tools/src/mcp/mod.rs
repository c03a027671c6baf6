//! The tools of an MCP server.
//!
//! From whoever knows how to reach a server, through [`McpServer`]; to a [`Toolbox`](fanout_core::toolbox::Toolbox), as
//! [`McpTool`]s.
//! In the order of a call: `tool` is what the toolbox holds; `server` finds the connection, and starts the server again if
//! it is gone; `process` is a server that we start ourselves, `session` one over HTTP, `connection` the talk with either;
//! `oauth` has the tokens that remote servers demand; `answer` reads what came back, `failure` what did not.
//! What is known of common servers stands in `catalogue`.
//! Nothing here calls a tool twice: that is decided in `fanout-core`, from what an attempt came to. Only a call that a server
//! refused for its session, unread, is sent once more, in another one.

mod answer;
mod catalogue;
mod connection;
mod failure;
mod oauth;
mod process;
mod server;
mod session;
mod tool;

pub use catalogue::Catalogued;
pub use failure::McpError;
pub use oauth::{McpAccess, McpAccessError, McpGrant, McpLogin, McpLoginError, McpOauth};
pub use server::{McpListed, McpReach, McpServer};
pub use tool::{McpTool, McpToolOptions};
