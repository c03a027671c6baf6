//! HTTP in front of the scheduler and the loop: State to Router.
//!
//! From a configuration and its tools: a [`Gateway`]. To HTTP clients: [`Gateway::router`] answers them, [`serve`] opens and
//! closes the door. There is no `main` here; the command line serves it.
//!
//! A `setup` can be replaced while it runs. In the order of a request: [`serve`] takes the connection, `door` looks at where it comes from and who sends it (`keys`,
//! `hop`), `routes` answers (`messages` as the Messages API, `mcp` as an MCP server), `batch` runs calls, `repeats` knows
//! requests that came before, `watch` counts and logs what happened, and `error` is what is said when nothing else can be.

mod error;
mod gateway;
mod serve;
mod setup;

mod door;
mod hop;
mod keys;

mod body;
mod chosen;
mod routes;

mod mcp;
mod messages;

mod batch;
mod repeats;

mod metrics;
mod touched;
mod watch;

pub use gateway::{Gateway, GatewayError, GatewayOptions};
pub use mcp::{McpError, McpOptions, serve_mcp, serve_mcp_stdio};
pub use serve::{open, serve};
pub use setup::{Reload, ReloadError, Setup};
