//! What the tests need of the machine: PostgreSQL and what stands around it, Python, and npm with some Node.js.
//!
//! From the machine as it is; else from its package manager, where that may be asked without a password; else an error that
//! names the packages. To [`install`](crate::install), which has all else from lock files, and to `cargo xtask test`, which
//! asks for [`SERVERS`] before the workspace's own tests.

use std::process::Command;

use anyhow::{Context, ensure};

/// A program, and the packages of Debian and its like that bring it.
#[derive(Debug)]
pub struct Need {
    program: &'static str,
    /// What it is given to show that it will do.
    shows: &'static [&'static str],
    /// What it is called, to people.
    what: &'static str,
    packages: &'static [&'static str],
    /// What its package starts when it is installed. Whoever wants a program for tests wants no server of the machine's own.
    starts: Option<&'static str>,
}

/// What the tests of SQL tools start for themselves, in temporary folders and on free ports.
pub const SERVERS: [Need; 3] = [
    Need {
        program: "sh",
        // Where `fanout-testing` looks for it.
        shows: &[
            "-c",
            "for folder in $(printf %s \"$PATH\" | tr : ' ') /usr/lib/postgresql/*/bin; do
               [ -x $folder/initdb ] && [ -x $folder/postgres ] && [ -x $folder/psql ] && exit 0
             done; exit 1",
        ],
        what: "PostgreSQL",
        packages: &["postgresql"],
        starts: Some("postgresql"),
    },
    Need {
        program: "sh",
        shows: &["-c", "PATH=$PATH:/usr/sbin pgbouncer --version"],
        what: "pgbouncer",
        packages: &["pgbouncer"],
        starts: Some("pgbouncer"),
    },
    Need {
        program: "openssl",
        shows: &["version"],
        what: "openssl, for the certificates of PostgreSQL in tests",
        packages: &["openssl"],
        starts: None,
    },
];

/// Python, and what makes environments of it.
pub const PYTHON: Need = Need {
    program: "python3",
    shows: &["-c", "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"],
    what: "Python 3.11 or newer, with its `venv` module",
    packages: &["python3", "python3-venv"],
    starts: None,
};

/// What installs from lock files. Any Node.js that it runs on will do: the one that the clients run on is from a lock file.
pub const NPM: Need = Need {
    program: "npm",
    shows: &["--version"],
    what: "npm, which comes with Node.js",
    packages: &["nodejs", "npm"],
    starts: None,
};

/// Node.js itself, where no lock file has one for this kind of machine.
pub const NODE: Need = Need {
    program: "node",
    shows: &["-e", "process.exit(Number(process.versions.node.split('.')[0]) < 22 ? 1 : 0)"],
    what: "Node.js 22 or newer",
    packages: &["nodejs"],
    starts: None,
};

impl Need {
    /// Sees to it that the machine has it: looks, installs if it has not, and looks again.
    ///
    /// # Errors
    /// When it is not there and can't be installed; the error names the packages.
    pub fn meet(&self) -> anyhow::Result<()> {
        if self.is_met() {
            return Ok(());
        }
        let packages = self.packages.join(" ");
        println!("clients: {} is not here; installing {packages} by apt-get", self.what);
        let install = || format!("install {} (packages {packages} on Debian and its like)", self.what);
        self.apt_get().with_context(install)?;
        ensure!(self.is_met(), "what apt-get has installed is not enough: {}", install());
        Ok(())
    }

    fn is_met(&self) -> bool {
        Command::new(self.program).args(self.shows).output().is_ok_and(|output| output.status.success())
    }

    fn apt_get(&self) -> anyhow::Result<()> {
        run(as_root(&["apt-get", "update"])?)?;
        run(as_root(&[&["apt-get", "install", "--yes", "--no-install-recommends"], self.packages].concat())?)?;
        if let Some(service) = self.starts {
            // It was not installed a moment ago, so what runs now is what the package started; it may have started nothing.
            let _ = run(as_root(&["service", service, "stop"])?);
        }
        Ok(())
    }
}

/// A command that asks nobody for a password: nobody may be there.
fn as_root(words: &[&str]) -> anyhow::Result<Command> {
    let id = Command::new("id").arg("-u").output().context("who runs this")?;
    let sudo: &[&str] = if id.stdout.trim_ascii() == b"0" { &[] } else { &["sudo", "--non-interactive"] };
    let words = [sudo, words].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}

fn run(mut command: Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?} cannot be started"))?;
    ensure!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
