//! The Messages API from the outside: bytes in, the same bytes out.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up should fail where it stands")]

mod http;
mod properties;
mod server;
mod stream;
mod wire;
