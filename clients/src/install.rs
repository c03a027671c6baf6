//! The clients' parts, installed from their lock files.
//!
//! From `clients/*` and `examples/nextjs`: the lock files. To `target/clients`: an environment for each, made once and made
//! anew when its lock file changes. Nothing outside of the target directory is written, but for what the machine lacks
//! (see [`system`](crate::system)).

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA512, digest};
use serde_json::Value;

use crate::system::{NODE, NPM, PYTHON};

/// Installs what a lock file names, and nothing else.
const NPM_CI: [&str; 4] = ["ci", "--no-audit", "--no-fund", "--loglevel=error"];

/// The command that starts the official Python SDK's conversations, in an environment of its own.
///
/// # Errors
/// When `python3` is absent or too old, or the packages can't be had.
pub fn python() -> anyhow::Result<tokio::process::Command> {
    let mut command = tokio::process::Command::new(python_program()?);
    command.arg(root().join("clients/python/conversations.py"));
    Ok(command)
}

/// Python with the official SDK.
///
/// # Errors
/// When `python3` is absent or too old, or the packages can't be had.
pub fn python_program() -> anyhow::Result<PathBuf> {
    Ok(venv("python", &root().join("clients/python/requirements.txt"))?.join("bin/python"))
}

/// The command that starts the official TypeScript SDK's conversations, on Node.
///
/// # Errors
/// When npm is absent, or the packages can't be had.
pub fn typescript() -> anyhow::Result<tokio::process::Command> {
    let place = node_package("typescript", &root().join("clients/typescript"))?;
    let mut command = on_node("node")?;
    command.arg(place.join("conversations.mjs"));
    Ok(command)
}

/// The command that starts the conversations of the MCP SDK's own client, on Node.
///
/// # Errors
/// As [`typescript`].
pub fn mcp() -> anyhow::Result<tokio::process::Command> {
    let place = node_package("mcp", &root().join("clients/mcp"))?;
    let mut command = on_node("node")?;
    command.arg(place.join("conversations.mjs"));
    Ok(command)
}

/// Real MCP servers, installed.
#[derive(Debug)]
pub struct Servers {
    everything: String,
    files: String,
    python: String,
}

impl Servers {
    /// The variables by which `clients/servers/fanout.toml` names them.
    pub fn variables(&self) -> Vec<(&str, &str)> {
        vec![("EVERYTHING", &self.everything), ("FILES", &self.files), ("PYTHON", &self.python)]
    }

    /// The script of the server that has all of the protocol.
    pub fn everything(&self) -> &str {
        &self.everything
    }
}

/// The MCP servers of `clients/servers`.
///
/// # Errors
/// As [`typescript`] and [`python`].
pub fn servers() -> anyhow::Result<Servers> {
    let source = root().join("clients/servers");
    let node = node_package("servers", &source)?.join("node_modules/@modelcontextprotocol");
    let python = venv("servers-python", &source.join("requirements.txt"))?;
    let text = |path: PathBuf| path.to_str().map(str::to_owned).context("a path that is no text");
    Ok(Servers {
        everything: text(node.join("server-everything/dist/index.js"))?,
        files: text(node.join("server-filesystem/dist/index.js"))?,
        python: text(python.join("bin/python"))?,
    })
}

/// The command that starts the official MCP conformance suite, without its arguments.
///
/// # Errors
/// As [`typescript`].
pub fn conformance() -> anyhow::Result<tokio::process::Command> {
    let place = node_package("mcp", &root().join("clients/mcp"))?;
    let mut command = on_node("node")?;
    command.arg(place.join("node_modules/@modelcontextprotocol/conformance/dist/index.js"));
    Ok(command)
}

/// The command that starts a program of Node's, `node` or `npm`, on the Node.js of `clients/node`; where that has none for
/// this kind of machine, on the machine's own.
///
/// # Errors
/// When npm is absent, or no Node.js can be had.
pub fn on_node(program: &str) -> anyhow::Result<tokio::process::Command> {
    NPM.meet()?;
    let source = root().join("clients/node");
    let place = installed("node", &source.join("package-lock.json"), |place| {
        copy(&source, place)?;
        run(Command::new("npm").args(NPM_CI).current_dir(place))
    })?;
    let mut command = tokio::process::Command::new(program);
    let (system, processor) = (std::env::consts::OS, std::env::consts::ARCH);
    let system = if system == "macos" { "darwin" } else { system };
    let processor = match processor {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    let brought = place.join(format!("node_modules/node-{system}-{processor}/bin"));
    if brought.exists() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env("PATH", std::env::join_paths([brought].into_iter().chain(std::env::split_paths(&path)))?);
    } else {
        NODE.meet()?;
    }
    Ok(command)
}

/// Takes from a command what the surroundings say of models and gateways: they would talk to somebody else.
pub fn alone(command: &mut tokio::process::Command) {
    let ours = |name: &OsStr| {
        let name = name.to_string_lossy();
        name.starts_with("ANTHROPIC_") || name.starts_with("FANOUT_") || name == "PORT"
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
    command.env("NO_PROXY", "127.0.0.1,localhost").env("no_proxy", "127.0.0.1,localhost");
}

/// A copy of the Node package at `source` with its packages installed; returns where.
///
/// # Errors
/// When npm is absent, or the packages can't be had.
pub fn node_package(name: &str, source: &Path) -> anyhow::Result<PathBuf> {
    let place = installed(name, &source.join("package-lock.json"), |place| {
        copy(source, place)?;
        run(on_node("npm")?.as_std_mut().args(NPM_CI).current_dir(place))
    })?;
    // The sources may be newer than the packages.
    copy(source, &place)?;
    Ok(place)
}

/// A package of a lock file, and the files of it that are wanted: it may be some hundred megabytes unpacked.
#[derive(Debug)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// Its files, relative to it.
    pub files: &'static [&'static str],
}

/// Where the named files of the packages of `clients/NAME` are, each package in a folder of its name. Nothing else of them is
/// unpacked, and nothing of them is run.
///
/// # Errors
/// When npm or tar is absent, or a package can't be had or is not the one that the lock file names.
pub fn files_of(name: &str, packages: &[Package]) -> anyhow::Result<PathBuf> {
    NPM.meet()?;
    let lock = root().join("clients").join(name).join("package-lock.json");
    installed(name, &lock, |place| {
        let locked: Value = serde_json::from_slice(&fs::read(&lock)?)?;
        packages.iter().try_for_each(|package| unpack(package, &locked, place))
    })
}

fn unpack(package: &Package, locked: &Value, place: &Path) -> anyhow::Result<()> {
    let of_lock = &locked["packages"][format!("node_modules/{}", package.name)];
    let text =
        |key: &str| of_lock[key].as_str().with_context(|| format!("the lock file has no {key} of {}", package.name));
    let (version, integrity) = (text("version")?, text("integrity")?);
    let packed = place.join("packed");
    fs::create_dir_all(&packed)?;
    let wanted = format!("{}@{version}", package.name);
    run(Command::new("npm").args(["pack", "--silent", &wanted]).current_dir(&packed))?;
    let archive = fs::read_dir(&packed)?.next().context("npm packed nothing")??.path();
    let hash = digest(&SHA512, &fs::read(&archive)?);
    let found = format!("sha512-{}", STANDARD.encode(hash));
    ensure!(found == integrity, "{wanted} is {found}, and the lock file names {integrity}");
    let folder = place.join(package.name);
    fs::create_dir_all(&folder)?;
    let files = package.files.iter().map(|file| format!("package/{file}"));
    run(Command::new("tar").arg("-xzf").arg(&archive).args(["--strip-components=1", "-C"]).arg(&folder).args(files))?;
    fs::remove_dir_all(&packed)?;
    Ok(())
}

/// A Python environment of its own with what a lock file names.
fn venv(name: &str, lock: &Path) -> anyhow::Result<PathBuf> {
    PYTHON.meet()?;
    installed(name, lock, |place| {
        run(Command::new("python3").args(["-m", "venv"]).arg(place))?;
        let pip = place.join("bin/pip");
        run(Command::new(pip).args(["install", "--quiet", "--no-deps", "--require-hashes", "-r"]).arg(lock))
    })
}

/// The root of the project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where everything is written: `clients` in cargo's target directory, which is two above this very program.
fn target() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("where this program is")?;
    let target = program.ancestors().nth(2).context("this program is not in a target directory")?;
    Ok(target.join("clients"))
}

/// The environment `name`, made by `make` unless one made from this very lock file is there.
fn installed(name: &str, lock: &Path, make: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<PathBuf> {
    let place = target()?.join(name);
    let wanted = fs::read(lock).with_context(|| format!("reading `{}`", lock.display()))?;
    let mark = place.join(".installed");
    if fs::read(&mark).is_ok_and(|made| made == wanted) {
        return Ok(place);
    }
    println!("clients: installing {name} into `{}`", place.display());
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("removing `{}`", place.display()))?;
    }
    fs::create_dir_all(&place).with_context(|| format!("making `{}`", place.display()))?;
    make(&place).with_context(|| format!("installing what `{}` names", lock.display()))?;
    fs::write(&mark, wanted).with_context(|| format!("writing `{}`", mark.display()))?;
    Ok(place)
}

/// Copies a folder's files over those in `to`, without what was installed or built in it.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("reading `{}`", from.display()))? {
        let entry = entry?;
        let (name, target) = (entry.file_name(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            if name != "node_modules" && name != ".next" {
                copy(&entry.path(), &target)?;
            }
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("copying `{}`", entry.path().display()))?;
        }
    }
    Ok(())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed:\n{said}");
    }
    Ok(())
}
