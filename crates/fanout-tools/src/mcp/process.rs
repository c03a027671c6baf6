//! A server that is a child process of ours.
//!
//! From `connection`, which speaks over its standard streams. To the log: what it says on standard error, line by line; the
//! last of it also goes into errors.
//!
//! It leads a process group of its own, which ends with it: a launcher such as `npx` has children that are the real server.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fanout_core::secrets::Secrets;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// So many of the last lines on standard error are kept for errors.
const LINES_KEPT: usize = 8;

/// A longer line is shown in pieces of so many bytes: a server that never ends its line fills no memory.
const LINE_MAX: usize = 1024;

/// So long a server that was asked to end has to do it, before its whole group is killed.
const GRACE: Duration = Duration::from_millis(500);

/// How often is looked whether it has ended. Nothing tells a thread that must not wait for a task.
const LOOK: Duration = Duration::from_millis(5);

/// How to start it.
pub(super) struct Launch {
    pub(super) program: OsString,
    pub(super) args: Vec<OsString>,
    /// All of its environment: nothing else is inherited.
    pub(super) env: Vec<(String, OsString)>,
    pub(super) folder: Option<PathBuf>,
    /// What it was given and nobody else may see.
    pub(super) secrets: Arc<Secrets>,
}

/// A running server. Dropping it ends its process group, and takes at most half a second.
pub(super) struct Process {
    child: Child,
    #[cfg(unix)]
    group: Option<rustix::process::Pid>,
    said: Arc<Said>,
}

/// The last lines of standard error.
#[derive(Default)]
struct Said {
    /// What stands in none of them.
    secrets: Arc<Secrets>,
    lines: Mutex<VecDeque<String>>,
    /// Nothing more comes.
    ended: AtomicBool,
}

impl Process {
    /// Starts it. The two streams are where the protocol is spoken.
    pub(super) fn start(server: &str, launch: &Launch) -> io::Result<(Self, ChildStdout, ChildStdin)> {
        let mut command = Command::new(&launch.program);
        command.args(&launch.args).env_clear().envs(launch.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        if let Some(folder) = &launch.folder {
            command.current_dir(folder);
        }
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn()?;
        let streams = child.stdout.take().zip(child.stdin.take()).zip(child.stderr.take());
        let ((out, input), errors) = streams.ok_or_else(|| io::Error::other("it has no standard streams"))?;
        let said = Arc::new(Said { secrets: Arc::clone(&launch.secrets), ..Said::default() });
        tokio::spawn(listen(server.to_owned(), errors, Arc::clone(&said)));
        #[cfg(unix)]
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        let process = Self {
            child,
            #[cfg(unix)]
            group,
            said,
        };
        Ok((process, out, input))
    }

    /// How it ended and what it said last, in words; waits a moment for both, because its streams close first.
    pub(super) async fn last_words(&self) -> String {
        let mut looks = GRACE.as_millis() / LOOK.as_millis();
        while looks > 0 && !(self.has_ended() && self.said.ended.load(Ordering::Acquire)) {
            tokio::time::sleep(LOOK).await;
            looks -= 1;
        }
        let lines = self.said.lines.lock().unwrap_or_else(PoisonError::into_inner);
        match lines.is_empty() {
            true => "it said nothing on standard error".to_owned(),
            false => format!("it said last: {}", lines.iter().map(String::as_str).collect::<Vec<_>>().join(" | ")),
        }
    }

    /// Whether its first process is gone, without taking note of it: until then its id is not given to another.
    #[cfg(unix)]
    fn has_ended(&self) -> bool {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let Some(id) = self.group else { return true };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error means that there is no such child any more.
        !matches!(waitid(WaitId::Pid(id), options), Ok(None))
    }

    #[cfg(not(unix))]
    fn has_ended(&self) -> bool {
        self.child.id().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(group) = self.group {
            use rustix::process::{Signal, kill_process_group};
            if !self.has_ended() {
                let _ = kill_process_group(group, Signal::TERM);
                let asked = std::time::Instant::now();
                while !self.has_ended() && asked.elapsed() < GRACE {
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "a drop cannot await, and the process may end with us"
                    )]
                    std::thread::sleep(LOOK);
                }
            }
            // Its children too, whatever became of itself. It is not yet reaped, so the id is still its own.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.start_kill();
        let _ = self.child.try_wait();
    }
}

impl fmt::Debug for Process {
    // Neither arguments nor environment: they may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("id", &self.child.id()).finish_non_exhaustive()
    }
}

async fn listen(server: String, mut errors: impl AsyncRead + Unpin, said: Arc<Said>) {
    let (mut bytes, mut line) = ([0; LINE_MAX], Vec::new());
    while let Ok(read @ 1..) = errors.read(&mut bytes).await {
        for byte in &bytes[..read] {
            if *byte != b'\n' {
                line.push(*byte);
            }
            if *byte == b'\n' || line.len() == LINE_MAX {
                said.take(&server, &line);
                line.clear();
            }
        }
    }
    said.take(&server, &line);
    said.ended.store(true, Ordering::Release);
}

impl Said {
    fn take(&self, server: &str, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = self.secrets.hide(text.trim());
        // A line that is too long comes in pieces.
        let text = self.secrets.trim_end(self.secrets.trim_start(&text));
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if line.is_empty() {
            return;
        }
        tracing::info!(target: "fanout::mcp", server, "{line}");
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}
