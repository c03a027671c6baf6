//! Configurations as people write them, and what is made of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod approvals;
mod build;
mod claims;
mod config;
mod declare;
mod issuer;
mod keys;
mod limits;
mod lines;
mod mcp;
mod mistakes;
mod notify;
mod openapi;
mod schema;
mod secrets;
mod snapshots;
mod sql;
mod trace;
