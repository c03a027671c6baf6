//! Runs in the background, and those that broke off.
//!
//! From the journal: runs that wait, and runs whose process is gone. To the agent: each of them, from where it stands. The
//! [`Worker`] of a process does both for as long as the process serves; `recover` says how a run goes on. A
//! [`Recording`] runs one once more with what was recorded of it, and [`differences`] says what came out otherwise.

mod difference;
mod given;
mod recover;
mod replay;
mod watched;
mod worker;

pub use difference::{Difference, Story, differences};
pub use given::{NewAgentRun, batch_given, calls_given};
pub use recover::{Broken, Recovery, Reopened, elapsed, unfinished};
pub use replay::{Answers, Recording, ReplayError, Replayed};
pub use worker::{Equipment, SubmitError, Worker, WorkerOptions, stop, stopped_by_others};
