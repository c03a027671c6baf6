//! The core from outside: batches of fake tools on a paused clock, and properties over seeded schedules.
//!
//! `FANOUT_SCHEDULES` says how many schedules a property plays; a failure prints its seed for `FANOUT_SEED`.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up should fail where it stands")]

mod alarm;
mod approvals;
mod atomic;
mod batch;
mod conflicts;
mod driver;
mod effects;
mod limits;
mod locks;
mod once;
mod orders;
mod past;
mod plans;
mod plans_hostile;
mod plans_random;
mod plans_recorded;
mod progress;
mod retries;
mod rules;
mod runs;
mod secrets;
mod workloads;
