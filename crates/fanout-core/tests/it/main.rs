//! The core from outside: batches of fake tools on a paused clock.

mod batch;
