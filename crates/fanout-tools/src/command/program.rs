//! Which file a program is, and starting it.
//!
//! From `builder`: the program as its author wrote it. To `tool`: a running group, or why there is none.
//!
//! Everything here blocks, and runs on a thread that may.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use fanout_core::call::ToolName;
use fanout_core::tool::{Hold, ToolError};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};

use super::group::{Group, Place};

/// What is started, arguments aside.
#[derive(Clone)]
pub(super) struct Program {
    pub(super) tool: ToolName,
    /// As its author wrote it: a path, or a name that is looked up.
    pub(super) name: String,
    pub(super) folder: Option<PathBuf>,
    /// All variables that it sees.
    pub(super) variables: Vec<(OsString, OsString)>,
}

/// What is given to one start of it.
pub(super) struct Start {
    pub(super) arguments: Vec<String>,
    pub(super) idempotency_key: std::sync::Arc<str>,
    pub(super) has_stdin: bool,
    pub(super) hold: Hold,
    pub(super) place: Place,
}

/// A started program with its pipes.
pub(super) struct Started {
    pub(super) group: Group,
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
}

impl Program {
    /// Starts it in a process group of its own. Needs the context of a runtime.
    ///
    /// # Errors
    /// [`ToolError::NotSent`] when it cannot be started, [`ToolError::BadInput`] when the arguments are too long for the
    /// system. No arguments and no variables stand in a message: they may hold secrets.
    pub(super) fn start(&self, start: Start) -> Result<Started, ToolError> {
        let not_sent = |why: String| ToolError::NotSent(format!("`{}` was not started: {why}", self.tool));
        if let Some(folder) = self.folder.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(not_sent(format!("its working directory {} is not there", folder.display())));
        }
        let mut command = Command::new(self.file().map_err(not_sent)?);
        command.args(start.arguments).env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        if !start.idempotency_key.contains('\0') {
            command.env("FANOUT_IDEMPOTENCY_KEY", &*start.idempotency_key);
        }
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command.stdin(if start.has_stdin { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::ArgumentListTooLong => ToolError::BadInput(format!(
                "`{}` was not started: the input is too long for the arguments of a program; give less at once",
                self.tool
            )),
            io::ErrorKind::PermissionDenied => not_sent(format!("`{}` must not be executed: {error}", self.name)),
            _ => not_sent(format!("`{}`: {error}", self.name)),
        })?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Ok(Started { group: Group::new(child, start.hold, start.place), stdin, stdout, stderr })
    }

    /// The file: a path as it is, a name as it is found in `PATH`, whatever the program itself sees of that.
    fn file(&self) -> Result<PathBuf, String> {
        let name = Path::new(&self.name);
        if name.components().count() > 1 || name.is_absolute() {
            return if !name.exists() {
                Err(format!("there is no program {}", self.name))
            } else if is_executable(name) {
                Ok(name.to_owned())
            } else {
                Err(format!("{} is not an executable file", self.name))
            };
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        // An entry that is not absolute would mean whatever folder this process stands in.
        let folders = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
        let mut found = folders.map(|folder| folder.join(name)).filter(|file| file.is_file()).peekable();
        if found.peek().is_none() {
            return Err(format!("there is no program `{}` in PATH", self.name));
        }
        found.find(|file| is_executable(file)).ok_or_else(|| format!("`{}` in PATH is not executable", self.name))
    }
}

#[cfg(unix)]
fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(file: &Path) -> bool {
    file.is_file()
}
