//! The built binary, as people run it.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up should fail where it stands")]

mod process;

mod keys;
mod mcp;
mod serve;
