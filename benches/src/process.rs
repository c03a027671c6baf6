//! Another process that a measurement starts, asks and ends.
//!
//! From its first line: where it is reached. From the kernel: what it has used so far, so that two processes that serve in
//! turns are told apart. Both sides of a comparison are read in the same way.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A process that is ended with this one.
#[derive(Debug)]
pub struct Process {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    id: u32,
    _child: Child,
}

impl Process {
    /// Starts a program. What it says on standard error goes nowhere.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start<A: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<Self> {
        let program = program.as_ref();
        let mut command = Command::new(program);
        // What is set for real work must change neither side.
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_setting(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("`{}` cannot be started", program.display()))?;
        let id = child.id().context("it has ended already")?;
        let input = child.stdin.take().context("no standard input")?;
        let output = child.stdout.take().context("no standard output")?;
        Ok(Self { input, output: BufReader::new(output).lines(), id, _child: child })
    }

    /// Waits for its next line.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn line(&mut self) -> anyhow::Result<String> {
        self.output.next_line().await?.context("a process of the measurement has ended")
    }

    /// Sends it a line, and waits for its next one.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn ask(&mut self, line: &str) -> anyhow::Result<String> {
        self.input.write_all(format!("{line}\n").as_bytes()).await?;
        self.line().await
    }

    /// Processor time of all its threads, user and system. Those that have ended do not count: a server that is warm ends none.
    ///
    /// # Errors
    /// When the process has ended, or the kernel keeps no such count.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let mut nanos = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.id))? {
            // A thread may end between the two reads.
            let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            nanos += text.split_whitespace().next().and_then(|ran| ran.parse::<u64>().ok()).unwrap_or_default();
        }
        ensure!(nanos > 0, "the kernel does not count the processor time of threads");
        Ok(Duration::from_nanos(nanos))
    }

    /// Memory that is resident now, in KiB.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.split_whitespace().next().context("no VmRSS")?.parse()?)
    }
}

fn is_setting(name: &str) -> bool {
    ["ANTHROPIC_", "FANOUT_"].iter().any(|prefix| name.starts_with(prefix)) || ["PORT", "RUST_LOG"].contains(&name)
}

/// A program of the same build as this one.
///
/// # Errors
/// When it was not built.
pub fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name(name).with_extension(std::env::consts::EXE_EXTENSION);
    ensure!(program.is_file(), "no `{name}` beside this program: build it first");
    Ok(program)
}

/// `fanout serve` with this configuration on a free port, and where it is reached.
///
/// # Errors
/// When `fanout` was not built, or does not come up.
pub async fn gateway(config: &std::path::Path) -> anyhow::Result<(Process, String)> {
    let arguments = [OsStr::new("--config"), config.as_os_str(), OsStr::new("serve")];
    let mut gateway = Process::start(beside("fanout")?, arguments)?;
    let listening = gateway.line().await?;
    let (_, url) = listening.split_once("http").context("the gateway did not say where it listens")?;
    Ok((gateway, format!("http{}", url.trim())))
}
