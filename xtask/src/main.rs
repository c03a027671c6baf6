//! `cargo xtask test|clients|long|bench`: what README, CI and people run, in the same words.
//!
//! Each is a list of commands, run one after another; the first that fails ends it, and is named. Where
//! `cargo-nextest` is absent, `cargo test` runs the same tests. The tests need PostgreSQL and pgbouncer besides Rust, the
//! clients Python and npm: where those are absent they are installed, or the command ends saying which packages to install.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, bail};

const USAGE: &str = "\
usage: cargo xtask test     format, lints, every test, documentation, the real clients
       cargo xtask clients  the real clients alone; takes names of clients and conversations
       cargo xtask long     the property tests in their long form (about an hour)
       cargo xtask bench    the benches, release builds; writes benches/results";

/// Schedules of a property test in its long form; a recorded call graph is played with 1,000 of them.
const LONG_SCHEDULES: &str = "50000";
/// The long form of the wire's property tests tries so many cases each.
const LONG_CASES: &str = "20000";
/// So often the long form kills a process at any moment, twice each; the events of a journal come on top.
const LONG_KILLS: &str = "5000";

fn main() -> ExitCode {
    let done = match env::args().nth(1).as_deref() {
        Some("test") => test(),
        Some("clients") => clients(env::args().skip(2)),
        Some("long") => long(),
        Some("bench") => bench(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn test() -> anyhow::Result<()> {
    step("format", cargo(["fmt", "--all", "--check"]))?;
    step("lints", cargo(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    step("core without the driver", cargo(["check", "-p", "fanout-core", "--no-default-features", "--locked"]))?;
    servers()?;
    step("tests", tests(&[]))?;
    step("examples in the documentation", cargo(["test", "--workspace", "--doc", "--locked", "--quiet"]))?;
    step("documentation", cargo(["doc", "--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    clients(std::iter::empty())?;
    if env::var_os("FANOUT_WORKLOADS").is_none() {
        eprintln!(
            "\n!!! FANOUT_WORKLOADS is not set: the recorded call graphs were NOT replayed, only the project's own."
        );
    }
    Ok(())
}

/// The official SDKs, two Next.js apps, the MCP conformance suite and large OpenAPI documents against the built binary. What they need is installed from
/// their lock files.
fn clients(names: impl Iterator<Item = String>) -> anyhow::Result<()> {
    build()?;
    let mut clients = Command::new(built("fanout-clients")?);
    step("clients", clients.arg(built("fanout")?).args(names))
}

/// What the tests start for themselves: PostgreSQL, pgbouncer, openssl.
fn servers() -> anyhow::Result<()> {
    build()?;
    step("what the tests start", Command::new(built("fanout-clients")?).arg("system"))
}

/// Both binaries stand beside this one: `cargo xtask` builds them into the same directory.
fn build() -> anyhow::Result<()> {
    step("build", cargo(["build", "--locked", "-p", "fanout-cli", "-p", "fanout-clients"]))
}

fn built(name: &str) -> anyhow::Result<PathBuf> {
    let program = env::current_exe().context("where this program is")?;
    Ok(program.with_file_name(name).with_extension(env::consts::EXE_EXTENSION))
}

fn long() -> anyhow::Result<()> {
    servers()?;
    let mut long = tests(&["--release"]);
    long.env("FANOUT_SCHEDULES", LONG_SCHEDULES).env("PROPTEST_CASES", LONG_CASES).env("FANOUT_KILLS", LONG_KILLS);
    step("tests, long form", &mut long)
}

fn bench() -> anyhow::Result<()> {
    step("build", cargo(["build", "--release", "--locked", "-p", "fanout-cli", "-p", "fanout-benches"]))?;
    for name in ["schedule", "runs500", "call3", "proxy", "gateway500", "sql"] {
        step(name, cargo(["run", "--release", "--locked", "--quiet", "-p", "fanout-benches", "--bin", name]))?;
    }
    Ok(())
}

/// Every test of the workspace, by `cargo-nextest` if it is there: it runs test binaries side by side.
fn tests(flags: &[&str]) -> Command {
    let has_nextest =
        Command::new("cargo").args(["nextest", "--version"]).output().is_ok_and(|out| out.status.success());
    let mut command = if has_nextest {
        cargo(["nextest", "run", "--workspace", "--locked", "--no-fail-fast"])
    } else {
        cargo(["test", "--workspace", "--locked", "--lib", "--bins", "--tests", "--no-fail-fast"])
    };
    command.args(flags);
    command
}

fn cargo<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    // The cargo that runs this, so that a toolchain chosen on the command line holds for all steps.
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}

fn step(name: &str, mut command: impl std::borrow::BorrowMut<Command>) -> anyhow::Result<()> {
    let command = command.borrow_mut();
    eprintln!("\n── {name}: {command:?}");
    let started = Instant::now();
    let status = command.status().with_context(|| format!("{name}: {command:?} could not be started"))?;
    if !status.success() {
        bail!("{name} failed: {command:?}");
    }
    eprintln!("── {name}: {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}
