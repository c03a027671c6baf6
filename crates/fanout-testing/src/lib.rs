//! The stage: what tests of the scheduler play on, and what they are judged by.
//!
//! From a seed: batches with random effects, latencies and mishaps. To a log of what the scheduler did with them, and to
//! the oracle that says what it should have done. And real servers, for what no fake can show. A dev-dependency everywhere, and a
//! dependency of nothing but other tests.
//!
//! An oracle never asks the code it judges: overlap, order, stores and critical paths are written here a second time, in
//! the plainest way, whatever it costs.

pub mod seed;

pub mod touches;

pub mod script;

pub mod stage;

pub mod api;

pub mod crowd;

pub mod foretell;

pub mod store;

pub mod recorded;

pub mod written;

pub mod hostile;

#[cfg(unix)]
pub mod postgres;
