//! How a command ended, as an exit code.

use std::process::ExitCode;

use fanout_agent::Status;

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

/// The exit code; an error is one of usage or configuration, and is printed here.
pub fn code(done: anyhow::Result<Ended>) -> ExitCode {
    match done {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Failed) => ExitCode::from(1),
        Ok(Ended::Limit) => ExitCode::from(3),
        Ok(Ended::Interrupted) => ExitCode::from(130),
        Err(error) => {
            anstream::eprintln!("{}error:{} {error:#}", super::show::ERROR.render(), super::show::ERROR.render_reset());
            ExitCode::from(2)
        }
    }
}
