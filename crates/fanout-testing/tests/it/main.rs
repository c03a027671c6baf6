//! The stage's own tests, where it has parts that can fail.

#[cfg(unix)]
mod postgres;
