//! The journal over real stores.

mod records;
mod sqlite;
mod suite;
