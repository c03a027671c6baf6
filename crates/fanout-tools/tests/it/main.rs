//! Tools as a program meets them: functions with types, and endpoints of a real server on loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod batch;
mod faults;
mod function;
mod http;
mod openapi;
mod pressure;
mod server;
mod wire;
