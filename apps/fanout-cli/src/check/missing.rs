//! Which declarations are missing: what waits only for want of one, and which conflict nobody would see without.
//!
//! From the tools. To `check`, which shows them and adds them.

use std::collections::BTreeSet;
use std::fmt;

use fanout_core::call::ToolName;
use fanout_core::effects::Template;
use fanout_core::tool::ToolSpec;
use fanout_host::advice::{Declaration, declaration, line};

use super::decisive;

/// The tools to which a declaration is to be added, so that afterwards none is missing: one that is added can show that
/// another is missing.
pub(super) fn missing(specs: &[&ToolSpec]) -> BTreeSet<ToolName> {
    let mut specs: Vec<ToolSpec> = specs.iter().map(|spec| (*spec).clone()).collect();
    let mut missing = BTreeSet::new();
    loop {
        let all: Vec<&ToolSpec> = specs.iter().collect();
        let waits = all.iter().filter(|spec| serialises(spec, &all)).map(|spec| spec.name.clone());
        let hidden = unseen(&all).into_iter().map(|unseen| unseen.tool.name.clone());
        let found: BTreeSet<ToolName> = waits.chain(hidden).collect();
        if found.is_subset(&missing) {
            return missing;
        }
        for spec in specs.iter_mut().filter(|spec| found.contains(&spec.name)) {
            let Declaration { reads, writes } = declaration(spec);
            spec.effects.reads = spec.effects.reads.take().or_else(|| templates(reads));
            spec.effects.writes = spec.effects.writes.take().or_else(|| templates(writes));
        }
        missing.extend(found);
    }
}

fn templates(texts: Option<Vec<String>>) -> Option<Vec<Template>> {
    texts?.iter().map(|text| Template::parse(text).ok()).collect()
}

/// Whether calls of this tool wait for others of their source only because nobody said what they touch.
pub(super) fn serialises(spec: &ToolSpec, all: &[&ToolSpec]) -> bool {
    let writes = |spec: &ToolSpec| !spec.effects.inferred_writes.is_empty();
    // `undeclared = "parallel"`: by choice it touches nothing.
    let touches = |spec: &ToolSpec| !spec.effects.inferred_reads.is_empty() || writes(spec);
    let same_source = |other: &&&ToolSpec| other.source == spec.source;
    !spec.effects.is_declared()
        && !spec.source.names_rows()
        && touches(spec)
        && all.iter().filter(same_source).any(|other| writes(other) || writes(spec))
}

/// A conflict between sources that nobody would see: inferred keys are told apart by their source, so a tool that says nothing
/// meets no other source's tools, though its own source's other tools share a key with them.
pub(super) struct Unseen<'a> {
    pub(super) tool: &'a ToolSpec,
    declared: &'a ToolSpec,
    elsewhere: &'a ToolSpec,
    key: String,
}

impl fmt::Display for Unseen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tool, declared, elsewhere, key } = self;
        write!(
            f,
            "`{}` says nothing of what it touches, while `{}` of the same source and `{}` of {} both use `{key}`: a conflict \
             between `{}` and `{}` would not be seen; to be reviewed and added: {}",
            tool.name,
            declared.name,
            elsewhere.name,
            elsewhere.source,
            tool.name,
            elsewhere.name,
            line(tool)
        )
    }
}

/// At most one for each tool without a declaration.
pub(super) fn unseen<'a>(specs: &[&'a ToolSpec]) -> Vec<Unseen<'a>> {
    let find = |tool: &'a ToolSpec| {
        let others = || specs.iter().copied().filter(|other| other.effects.is_declared());
        for declared in others().filter(|other| other.source == tool.source) {
            for elsewhere in others().filter(|other| other.source != tool.source) {
                if let Some(key) = shared(declared, elsewhere) {
                    return Some(Unseen { tool, declared, elsewhere, key });
                }
            }
        }
        None
    };
    specs.iter().copied().filter(|tool| !tool.effects.is_declared()).filter_map(find).collect()
}

/// A declared key of one tool that can meet one of the other, judged by its first segment.
fn shared(one: &ToolSpec, other: &ToolSpec) -> Option<String> {
    let keys = |spec: &ToolSpec| {
        let (reads, writes) = decisive(&spec.effects);
        reads.iter().chain(writes).map(ToString::to_string).collect::<Vec<_>>()
    };
    let first = |key: &str| key.split('/').next().unwrap_or_default().to_owned();
    let any = |segment: &str| segment.contains(['{', '*']);
    let others: Vec<String> = keys(other).iter().map(|key| first(key)).collect();
    keys(one).into_iter().find(|key| {
        let mine = first(key);
        others.iter().any(|theirs| *theirs == mine || any(theirs) || any(&mine))
    })
}
