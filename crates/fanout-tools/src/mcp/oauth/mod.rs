//! Tokens for MCP servers that demand OAuth 2.1 (authorization of the protocol, 2025-11-25).
//!
//! From whoever builds the servers: [`McpOauth`]. To `session`, which sends a token with every request, and to the command
//! by which a person logs in.
//! In the order of a token's life: `login` gets the first one by way of a browser, `access` hands it out and renews it,
//! `tokens` keeps it in a file, `requests` sends what is asked of authorization servers. What is asked, and what may be
//! believed of the answers, is the protocol library's: metadata, PKCE, the resource indicator, the issuer.
//! No token is in any message, log or `Debug` text.

mod access;
mod login;
mod requests;
mod tokens;

pub use access::{McpAccess, McpAccessError, McpGrant, McpOauth};
pub use login::{McpLogin, McpLoginError};
