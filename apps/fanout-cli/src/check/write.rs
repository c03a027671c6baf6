//! `fanout check --write`: the proposed declarations, added to the configuration.
//!
//! From the tools, and from the file as it was before anything was asked of anybody. To the file, in one step: either all of
//! it is written or it stays as it was. What is written was read again before.

use std::env::current_dir;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use fanout_core::tool::ToolSpec;
use fanout_host::advice::line;
use fanout_host::config::Config;
use fanout_host::declare::{Addition, addition, declare};
use serde_json::json;

use super::missing::missing;
use super::specs;
use crate::args::Common;
use crate::loaded::Loaded;
use crate::show::{ERROR, FINE, give, give_styled, say, styled};

/// The configuration as it stood when the command began.
pub(super) struct File {
    /// As it was named.
    named: PathBuf,
    text: String,
}

impl File {
    pub(super) fn read(common: &Common) -> anyhow::Result<Self> {
        let found = match &common.config {
            Some(path) => Some(path.clone()),
            None => Config::locate(&current_dir().context("the current folder cannot be read")?)?,
        };
        let Some(named) = found else {
            bail!("there is no fanout.toml here or above that anything could be added to; `fanout init` makes one");
        };
        let text = Config::text(&named)?;
        Ok(Self { named, text })
    }

    /// Adds what is missing, and shows it. Where nothing is, the file is not touched.
    pub(super) fn write(&self, common: &Common, loaded: &Loaded) -> anyhow::Result<()> {
        let specs = specs(loaded);
        let missing = missing(&specs);
        let mut additions: Vec<(&ToolSpec, Addition)> = Vec::new();
        for spec in specs.iter().filter(|spec| missing.contains(&spec.name)) {
            match addition(&loaded.config, spec) {
                Some(addition) => additions.push((spec, addition)),
                None => {
                    say(format!("warning: no part of the file describes `{}`; add by hand: {}", spec.name, line(spec)));
                }
            }
        }
        let plain: Vec<Addition> = additions.iter().map(|(_, addition)| addition.clone()).collect();
        let nothing_written = || format!("nothing was written to {}", self.named.display());
        let new = declare(&self.text, &plain).with_context(nothing_written)?;
        if new != self.text {
            self.check(&new, loaded).with_context(nothing_written)?;
            self.replace(&new).with_context(nothing_written)?;
        }
        self.tell(common, &additions, &new)
    }

    /// Refuses a text that would not be a configuration any more.
    fn check(&self, new: &str, loaded: &Loaded) -> anyhow::Result<()> {
        let folder = self.named.parent().unwrap_or(Path::new(""));
        let read = Config::parse(&self.named.display().to_string(), new, folder, &loaded.environment);
        read.map(drop).context("with the proposed lines the file would not be right; add them by hand")
    }

    /// Puts the new text in the place of the old one: beside it first, then in one step. A link stays a link.
    fn replace(&self, new: &str) -> anyhow::Result<()> {
        let target = self.named.canonicalize()?;
        let metadata = fs::metadata(&target)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let beside = target.with_file_name(format!(".{name}.{}.new", std::process::id()));
        let written = (|| {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&beside)?;
            file.set_permissions(metadata.permissions())?;
            keep_owner(&beside, &metadata)?;
            file.write_all(new.as_bytes())?;
            file.sync_all()?;
            ensure!(fs::read_to_string(&target)? == self.text, "the file was changed meanwhile; run it again");
            fs::rename(&beside, &target)?;
            Ok(())
        })();
        if written.is_err() {
            // It may never have been made.
            let _ = fs::remove_file(&beside);
        }
        written
    }

    fn tell(&self, common: &Common, additions: &[(&ToolSpec, Addition)], new: &str) -> anyhow::Result<()> {
        let (file, count) = (self.named.display(), additions.len());
        if common.json {
            for (spec, _) in additions {
                give(&json!({ "type": "declared", "tool": spec.name.as_str(), "line": line(spec) }).to_string())?;
            }
            give(&json!({ "type": "written", "file": file.to_string(), "added": count }).to_string())?;
            return Ok(());
        }
        if additions.is_empty() {
            return Ok(give(&format!("{file}: nothing to add"))?);
        }
        let what = if count == 1 { "declaration" } else { "declarations" };
        let mut text = format!("{file}: {count} {what} added; review them\n");
        for (sign, style, line, number) in difference(&self.text, new) {
            let _ = writeln!(text, "{}", styled(style, format!("{number:>5} {sign} {line}")));
        }
        Ok(give_styled(&text)?)
    }
}

/// The lines that went (`-`, with their old numbers) and that came (`+`, with their new ones).
fn difference<'t>(old: &'t str, new: &'t str) -> Vec<(char, anstyle::Style, &'t str, usize)> {
    let new: Vec<&str> = new.lines().collect();
    let (mut lines, mut at) = (Vec::new(), 0);
    let came = |lines: &mut Vec<_>, range: std::ops::Range<usize>| {
        lines.extend(range.map(|at| ('+', FINE, new[at], at + 1)));
    };
    for (number, line) in old.lines().enumerate() {
        // Lines are only added or changed in their place, so the next one that is the same is the same one.
        match new[at..].iter().position(|candidate| *candidate == line) {
            Some(ahead) => {
                came(&mut lines, at..at + ahead);
                at += ahead + 1;
            }
            None => lines.push(('-', ERROR, line, number + 1)),
        }
    }
    came(&mut lines, at..new.len());
    lines
}

/// A file of another user stays theirs.
#[cfg(unix)]
fn keep_owner(path: &Path, old: &fs::Metadata) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, chown};

    let new = fs::metadata(path)?;
    let uid = (new.uid() != old.uid()).then(|| old.uid());
    let gid = (new.gid() != old.gid()).then(|| old.gid());
    if uid.is_some() || gid.is_some() { chown(path, uid, gid) } else { Ok(()) }
}

#[cfg(not(unix))]
fn keep_owner(_: &Path, _: &fs::Metadata) -> std::io::Result<()> {
    Ok(())
}
