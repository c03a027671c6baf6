//! The journal over real stores.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up should fail where it stands")]

mod asked;
mod flaky;
mod postgres;
mod records;
mod remembered;
mod spent;
mod sqlite;
mod suite;
