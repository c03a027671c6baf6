//! What ends a server when the process that started it has ended, in whatever way.
//!
//! From a pipe that only that process holds: when it is gone, killed by SIGKILL or not, the pipe is closed. To the server, a
//! signal; and its folder is removed.

use std::process::{Child, ChildStdin, Stdio};

use super::PostgresError;
use super::programs::Home;

/// Reads until the pipe is closed, then ends the process that the file names and removes the folder. A server that is
/// ending may still add a file to it, so it is removed until it is gone.
const SCRIPT: &str = r#"
cat >/dev/null
pid=$(head -n 1 "$2" 2>/dev/null) && [ -n "$pid" ] && kill -s "$3" "$pid"
cd / && for again in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$1" && exit; sleep 0.1; done
"#;

/// A shell that waits for the end of this process. Dropping it ends the server at once, and returns when the folder is gone.
#[derive(Debug)]
pub(super) struct Keeper {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Keeper {
    /// Begins before the server does: `pid_file`, in the folder, need not be there yet. `signal` is what the server takes
    /// for the order to end at once.
    pub(super) fn start(home: &Home, pid_file: &str, signal: &str) -> Result<Self, PostgresError> {
        let mut command = home.command("sh".as_ref());
        command.args(["-c", SCRIPT, "sh"]).arg(&home.folder).arg(home.folder.join(pid_file)).arg(signal);
        let shell = command.stdin(Stdio::piped()).spawn();
        let mut shell = shell.map_err(|source| PostgresError::NotStarted { program: "sh".to_owned(), source })?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // It cannot be told more, and nothing here depends on how it ended.
        let _ = self.shell.wait();
    }
}
