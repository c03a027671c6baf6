//! What the clients need of the machine: Python, and npm with some Node.js.
//!
//! From the machine as it is; else from its package manager, where that may be asked without a password; else an error that
//! names the packages. To [`install`](crate::install), which has all else from lock files.

use std::process::Command;

use anyhow::{Context, bail, ensure};

/// A program, and the packages of Debian and its like that bring it.
#[derive(Debug)]
pub struct Need {
    program: &'static str,
    /// What it is given to show that it will do.
    shows: &'static [&'static str],
    /// What it is called, to people.
    what: &'static str,
    packages: &'static [&'static str],
}

/// Python, and what makes environments of it.
pub const PYTHON: Need = Need {
    program: "python3",
    shows: &["-c", "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"],
    what: "Python 3.11 or newer, with its `venv` module",
    packages: &["python3", "python3-venv"],
};

/// What installs from lock files. Any Node.js that it runs on will do: the one that the clients run on is from a lock file.
pub const NPM: Need =
    Need { program: "npm", shows: &["--version"], what: "npm, which comes with Node.js", packages: &["nodejs", "npm"] };

/// Node.js itself, where no lock file has one for this kind of machine.
pub const NODE: Need = Need {
    program: "node",
    shows: &["-e", "process.exit(Number(process.versions.node.split('.')[0]) < 22 ? 1 : 0)"],
    what: "Node.js 22 or newer",
    packages: &["nodejs"],
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
        let id = Command::new("id").arg("-u").output().context("who runs this")?;
        let is_root = id.stdout.trim_ascii() == b"0";
        for args in [&["update"][..], &[&["install", "--yes", "--no-install-recommends"], self.packages].concat()] {
            let mut command = if is_root {
                Command::new("apt-get")
            } else {
                let mut sudo = Command::new("sudo");
                // It asks nobody for a password: nobody may be there.
                sudo.args(["--non-interactive", "apt-get"]);
                sudo
            };
            command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
            let output = command.output().with_context(|| format!("{command:?} cannot be started"))?;
            if !output.status.success() {
                bail!("{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
            }
        }
        Ok(())
    }
}
