//! Where the programs are, and as whom they run.
//!
//! From PATH and the folders of packages. To [`server`](super::server) and [`pooler`](super::pooler): commands that know
//! nothing of the environment of whoever runs the tests.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::PostgresError;

/// The programs of PostgreSQL that are used; they stand in one folder.
const SERVER: [&str; 3] = ["initdb", "postgres", "psql"];

/// How often it is looked whether a server is ready.
const LOOK: Duration = Duration::from_millis(10);
/// A minute in all: the machine may have much else to do.
const LOOKS_MAX: u32 = 6_000;

/// A folder of its own, and the user that may use it: whoever runs the tests or, where that is root, which PostgreSQL and
/// pgbouncer refuse to serve as, the user `postgres` of their packages. Whoever holds it has it removed.
#[derive(Clone, Debug)]
pub(super) struct Home {
    /// Where all files of one server are.
    pub(super) folder: PathBuf,
    /// User and group, where they are not those of this process.
    other: Option<(u32, u32)>,
}

impl Home {
    /// Makes it, readable to its user alone.
    ///
    /// # Errors
    /// When the folder cannot be made, or there is no user `postgres` and this is root.
    pub(super) fn make() -> Result<Self, PostgresError> {
        let path = std::env::temp_dir();
        let folder = tempfile::Builder::new().prefix("fanout-postgres-").tempdir();
        let folder = folder.map_err(|source| PostgresError::Folder { path, source })?.keep();
        let in_folder = |source| PostgresError::Folder { path: folder.clone(), source };
        let is_root = fs::metadata(&folder).map_err(in_folder)?.uid() == 0;
        let other = if is_root { Some((id("-u")?, id("-g")?)) } else { None };
        if let Some((user, group)) = other {
            chown(&folder, Some(user), Some(group)).map_err(in_folder)?;
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).map_err(in_folder)?;
        Ok(Self { folder, other })
    }

    /// A command in this folder, as its user, with PATH and nothing else of the environment; what it prints is lost.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // A signal to the process group of the tests, Ctrl-C too, is none to the servers: their keeper ends them.
        command.current_dir(&self.folder).env_clear().process_group(0);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", &self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some((user, group)) = self.other {
            command.uid(user).gid(group);
        }
        command
    }

    /// Writes a file that its user alone can read.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), PostgresError> {
        let path = self.folder.join(name);
        let (user, group) = self.other.unzip();
        let written = fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
            .and_then(|()| chown(&path, user, group));
        written.map_err(|source| PostgresError::Folder { path, source })
    }

    /// The end of a log, for people; empty where there is none.
    pub(super) fn log(&self, name: &str) -> String {
        let text = fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// With what it printed as an error, when it ended as one.
pub(super) fn run(mut command: Command) -> Result<String, PostgresError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    let output = output.map_err(|source| PostgresError::NotStarted { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(PostgresError::Failed { program, said: String::from_utf8_lossy(&output.stderr).into_owned() })
}

/// Waits for a server to be ready; `false` if it has ended, or is not ready after a minute.
#[expect(
    clippy::disallowed_methods,
    reason = "nobody tells when a server is ready, and who starts one waits for it anyway"
)]
pub(super) fn until_ready(process: &mut Child, is_ready: impl Fn() -> bool) -> bool {
    for _ in 0..LOOKS_MAX {
        if is_ready() {
            return true;
        }
        if !matches!(process.try_wait(), Ok(None)) {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    false
}

/// The folder of PostgreSQL's programs: the first on PATH that has all of them, else that of the newest package.
pub(super) fn server() -> Result<PathBuf, PostgresError> {
    let has_all = |folder: &PathBuf| SERVER.iter().all(|name| folder.join(name).is_file());
    let mut of_packages: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    of_packages.sort();
    let mut folders = on_path().into_iter().chain(of_packages.into_iter().rev().map(|(_, folder)| folder));
    folders.find(has_all).ok_or_else(|| PostgresError::Missing {
        what: format!("PostgreSQL ({})", SERVER.join(", ")),
        package: "postgresql",
    })
}

/// A program on PATH or in `/usr/sbin`, where Debian has its daemons.
pub(super) fn one(name: &str, package: &'static str) -> Result<PathBuf, PostgresError> {
    let mut places = on_path().into_iter().chain([PathBuf::from("/usr/sbin")]).map(|folder| folder.join(name));
    places.find(|path| path.is_file()).ok_or_else(|| PostgresError::Missing { what: format!("`{name}`"), package })
}

fn on_path() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

fn id(which: &str) -> Result<u32, PostgresError> {
    let mut command = Command::new("id");
    command.args([which, "postgres"]);
    let missing = || PostgresError::Missing { what: "the user `postgres`".to_owned(), package: "postgresql" };
    run(command).ok().and_then(|id| id.trim().parse().ok()).ok_or_else(missing)
}
