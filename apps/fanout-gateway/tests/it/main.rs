//! The gateway over real loopback sockets: what is asked, what is answered, and what happens behind it.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up should fail where it stands")]

mod client;
mod stage;

mod closing;
mod door;
mod health;
mod mcp;
mod mcp_sessions;
mod messages;
mod plans;
mod repeats;
mod stream;
mod tool_calls;
mod user_token;
mod verified_token;
