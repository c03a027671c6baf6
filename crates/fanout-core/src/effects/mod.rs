//! What a call reads and writes.
//!
//! From a tool's declaration or its source's inference: templates over the input.
//! To [`conflicts`](crate::conflicts), which finds earlier calls that clash.
//!
//! A key is a path of segments; a template makes keys from an input; effects are the keys of one call with the word of
//! who said so. No graph, no waiting and no call stands here.

mod key;
mod row;
mod template;

pub use key::Key;
pub use row::{Canonical, Cell};
pub use template::{KEYS_MAX, Paths, Template, TemplateError};

use std::fmt;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde_json::Value;

/// Where a tool comes from, for comparing effects: `http/api.example.com`, `mcp/files`, `sql/shop`, `command`,
/// `function` or `workspace`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(Arc<str>);

impl Source {
    /// The source of tools that are functions of the program itself.
    pub fn function() -> Self {
        Self("function".into())
    }

    /// The source of tools that are programs on this machine.
    pub fn command() -> Self {
        Self("command".into())
    }

    /// The source of all tools that speak HTTP to one host. The port is part of `host` where it is not the scheme's.
    pub fn http(host: &str) -> Self {
        Self(format!("http/{host}").into())
    }

    /// The source of all tools that use one database, by the name that it has in the configuration.
    pub fn sql(database: &str) -> Self {
        Self(format!("sql/{database}").into())
    }

    /// The source as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of the whole source, which a tool without better knowledge reads or writes.
    pub fn key(&self) -> Key {
        Key::exact(self.0.split('/'))
    }

    /// Whether its inferred keys are exact: they name rows, so they exclude calls of other runs too, and no declaration is
    /// wanting. Only SQL's do.
    pub fn names_rows(&self) -> bool {
        self.0.starts_with("sql/")
    }
}

impl<T: Into<Arc<str>>> From<T> for Source {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Reading or writing. A call that does both to one key writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Shares with other reads.
    Read,
    /// Alone.
    Write,
}

/// Who says that a call touches a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The tool's author, in configuration or code.
    Declared,
    /// The source, from what it knows of the tool: an HTTP method, a SQL statement.
    Inferred,
}

/// One key that a call touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// What is touched.
    pub key: Key,
    /// How.
    pub mode: Mode,
    /// Who says so.
    pub origin: Origin,
}

/// Everything one call reads and writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effects {
    /// Where its tool comes from.
    pub source: Source,
    /// Whether its writes are declared. Two declared calls of one source compare by declared keys alone.
    pub declared: bool,
    /// The keys, each once per origin.
    pub accesses: Vec<Access>,
}

impl Effects {
    /// Effects that clash with nothing.
    pub fn none(source: Source) -> Self {
        Self { source, declared: true, accesses: Vec::new() }
    }

    /// Whether the call writes nothing, by its declaration if it has one, else by inference.
    pub fn only_reads(&self) -> bool {
        let decisive = if self.declared { Origin::Declared } else { Origin::Inferred };
        self.accesses.iter().all(|access| access.mode == Mode::Read || access.origin != decisive)
    }

    /// Whether any key excludes calls of other runs.
    pub fn exclude_between_runs(&self) -> bool {
        self.accesses.iter().any(|access| self.excludes_between_runs(access))
    }

    /// Whether this key of ours excludes calls of other runs: declared ones do, and SQL's inferred ones.
    pub(crate) fn excludes_between_runs(&self, access: &Access) -> bool {
        access.origin == Origin::Declared || self.source.names_rows()
    }

    /// What all of these touch, as one. More than [`KEYS_MAX`] keys are widened, a segment at a time, until there are no more.
    /// `None` for none of them.
    pub(crate) fn union(all: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut all = all.into_iter();
        let mut union = all.next()?;
        for effects in all {
            union.declared &= effects.declared;
            union.accesses.extend(effects.accesses);
        }
        union.dedupe();
        while union.accesses.len() > KEYS_MAX {
            for access in &mut union.accesses {
                access.key = access.key.widened();
            }
            union.dedupe();
        }
        Some(union)
    }

    /// Leaves each key once per origin; one that is written and read is written.
    fn dedupe(&mut self) {
        let mut seen: FxHashMap<(Key, Origin), usize> = FxHashMap::default();
        let mut kept: Vec<Access> = Vec::with_capacity(self.accesses.len());
        for access in self.accesses.drain(..) {
            let at = *seen.entry((access.key.clone(), access.origin)).or_insert(kept.len());
            match kept.get_mut(at) {
                Some(first) if access.mode == Mode::Write => first.mode = Mode::Write,
                Some(_) => {}
                None => kept.push(access),
            }
        }
        self.accesses = kept;
    }

    /// The first key on which two calls clash, if any: they overlap and at least one writes.
    ///
    /// This is the definition; [`Conflicts`](crate::conflicts::Conflicts) finds the same pairs without comparing all.
    pub fn clash<'a>(&'a self, other: &'a Self) -> Option<&'a Key> {
        let same_source = self.source == other.source;
        let both_declared = self.declared && other.declared;
        self.accesses.iter().find_map(|mine| {
            let clashes = other.accesses.iter().any(|theirs| {
                compares(same_source, both_declared, mine.origin, theirs.origin)
                    && (mine.mode == Mode::Write || theirs.mode == Mode::Write)
                    && mine.key.overlaps(&theirs.key)
            });
            clashes.then_some(&mine.key)
        })
    }
}

/// Whether two keys may be held against each other at all, by who said them.
///
/// Calls of one source compare by declared keys if both are declared, else by inferred ones, so that declaring one tool
/// cannot lose a conflict with an undeclared one. Calls of different sources compare by every key they have.
pub(crate) fn compares(same_source: bool, both_declared: bool, mine: Origin, theirs: Origin) -> bool {
    if !same_source {
        return true;
    }
    let decisive = if both_declared { Origin::Declared } else { Origin::Inferred };
    mine == decisive && theirs == decisive
}

/// The templates of one tool: what makes [`Effects`] from an input.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EffectsSpec {
    /// What the author said it reads; `None`: nothing was said.
    pub reads: Option<Vec<Template>>,
    /// What the author said it writes; `None`: nothing was said, and inference decides.
    pub writes: Option<Vec<Template>>,
    /// What its source infers that it reads.
    pub inferred_reads: Vec<Template>,
    /// What its source infers that it writes.
    pub inferred_writes: Vec<Template>,
}

impl EffectsSpec {
    /// Nothing declared; inferred to write all of its source.
    pub fn writes_all_of(source: &Source) -> Self {
        Self { inferred_writes: vec![Template::of_key(&source.key())], ..Self::default() }
    }

    /// Nothing declared; inferred to read its source.
    pub fn reads_all_of(source: &Source) -> Self {
        Self { inferred_reads: vec![Template::of_key(&source.key())], ..Self::default() }
    }

    /// Whether the author's word decides what it writes: `writes` is declared, or inference knows of no write and
    /// `reads` is declared.
    pub fn is_declared(&self) -> bool {
        self.writes.is_some() || (self.reads.is_some() && self.inferred_writes.is_empty())
    }

    /// Whether the tool is declared to write nothing, which makes it repeatable.
    pub fn declares_no_writes(&self) -> bool {
        self.writes.as_ref().is_some_and(Vec::is_empty)
    }

    /// The effects of a call with this input.
    ///
    /// A value that is absent or an object (a reference not yet filled is one) cuts its key there. More than [`KEYS_MAX`]
    /// keys in all are cut at their arrays. Filling a reference and resolving again only ever shrinks the result.
    pub fn resolve(&self, source: &Source, input: &Value, paths: &Paths) -> Effects {
        let mut accesses = self.render(input, paths, template::Arrays::Each);
        if accesses.len() > KEYS_MAX {
            accesses = self.render(input, paths, template::Arrays::Cut);
        }
        Effects { source: source.clone(), declared: self.is_declared(), accesses }
    }

    fn render(&self, input: &Value, paths: &Paths, arrays: template::Arrays) -> Vec<Access> {
        let declared_reads = self.reads.as_deref().unwrap_or_default();
        let declared_writes = self.writes.as_deref().unwrap_or_default();
        let mut accesses = Vec::with_capacity(
            declared_reads.len() + declared_writes.len() + self.inferred_reads.len() + self.inferred_writes.len(),
        );
        let groups = [
            (declared_writes, Mode::Write, Origin::Declared),
            (declared_reads, Mode::Read, Origin::Declared),
            (&self.inferred_writes, Mode::Write, Origin::Inferred),
            (&self.inferred_reads, Mode::Read, Origin::Inferred),
        ];
        for (templates, mode, origin) in groups {
            for template in templates {
                template.render(input, paths, arrays, &mut |key| {
                    // Writes come first, so a key that is read too stays written.
                    let seen = |access: &Access| access.origin == origin && access.key == key;
                    if accesses.len() > KEYS_MAX || accesses.iter().any(seen) && accesses.len() < DEDUPE_MAX {
                        return accesses.len() <= KEYS_MAX;
                    }
                    accesses.push(Access { key, mode, origin });
                    true
                });
            }
        }
        accesses
    }
}

/// Up to so many keys, a repeated one is dropped; beyond, the comparison would cost more than the repeat.
const DEDUPE_MAX: usize = 32;
