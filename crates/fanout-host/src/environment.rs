//! What the surroundings say: environment variables, read once.
//!
//! From the process, or from a test's own pairs.
//! To [`config`](crate::config) for overrides and `${NAME}`, and to [`build`](crate::build) for what is needed late.
//!
//! Nothing here is ever printed: the values may be secrets.

use std::collections::BTreeMap;
use std::fmt;

/// What an MCP server inherits of our environment; everything else only by `env`. Enough to find programs and to speak the
/// user's language, and no secret.
pub(crate) const INHERITED: [&str; 11] =
    ["HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"];

/// Environment variables as they were when they were read.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// The variables of this process; those that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { variables: std::env::vars_os().filter_map(text).collect() }
    }

    /// The value of a variable. An empty one counts as not set: that is how a missing secret arrives.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// How deep a `fanout` stands that a tool of ours starts (its `FANOUT_DEPTH`): one deeper than this process.
    pub fn child_depth(&self) -> u32 {
        let own = self.get("FANOUT_DEPTH").and_then(|depth| depth.trim().parse::<u32>().ok());
        own.unwrap_or_default().saturating_add(1)
    }

    /// The variables whose names start so, in alphabetical order: the rest of the name, and the value.
    pub fn starting_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let all = self.variables.iter();
        all.filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(pairs: T) -> Self {
        Self { variables: pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}
