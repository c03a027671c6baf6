//! How a command ended, as an exit code.

use std::process::ExitCode;

use fanout_agent::Status;

use crate::show::{ERROR, Unwritten, say, styled};

/// The exit code after an interruption: 128 and the number of SIGINT, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Done; for `call`, a reply was written.
    Done,
    /// The run failed or was refused.
    Failed,
    /// A budget or limit was reached.
    Limit,
    /// Somebody interrupted it.
    Interrupted,
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        match status {
            Status::Done => Self::Done,
            Status::Failed | Status::Refused => Self::Failed,
            Status::Budget => Self::Limit,
            Status::Cancelled => Self::Interrupted,
        }
    }
}

/// The exit code. An error is printed here: one of usage or configuration, unless it is that a result found no room.
pub fn code(done: anyhow::Result<Ended>) -> ExitCode {
    match done {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Failed) => ExitCode::from(1),
        Ok(Ended::Limit) => ExitCode::from(3),
        Ok(Ended::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            say(format!("{} {error:#}", styled(ERROR, "error:")));
            ExitCode::from(if error.is::<Unwritten>() { 1 } else { 2 })
        }
    }
}
