//! The line that declares what a tool touches, proposed for a person to review.
//!
//! From a tool's name and its schema. To the closing line of a run, to `explain` and to `check`;
//! [`declare`](crate::declare) adds it to a file.
//! A proposal only: what a tool really touches, only its author knows.

use std::fmt;

use fanout_core::tool::ToolSpec;
use fanout_tools::naming::place_of;

/// Words that begin a tool's name and say what is done, not to what.
const VERBS: [&str; 30] = [
    "get", "list", "read", "find", "search", "fetch", "show", "load", "lookup", "query", "create", "add", "update",
    "set", "put", "post", "delete", "remove", "send", "write", "edit", "cancel", "reserve", "charge", "make", "insert",
    "patch", "check", "book", "place",
];

/// What a tool could declare. Displays as it stands in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// What it reads; `None`: nothing need be said.
    pub reads: Option<Vec<String>>,
    /// What it writes; `None`: nothing need be said.
    pub writes: Option<Vec<String>>,
}

impl Declaration {
    /// The keys to write, each with its templates.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        let entries = [("reads", &self.reads), ("writes", &self.writes)];
        entries.into_iter().filter_map(|(key, keys)| Some((key, keys.as_deref()?)))
    }
}

impl fmt::Display for Declaration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, keys)) in self.entries().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{key} = {}", keys.iter().collect::<toml_edit::Array>())?;
        }
        Ok(())
    }
}

/// A declaration for this tool: `writes = ["note/{order_id}"]`, or for one that only reads `reads = ["order/{order_id}"]`,
/// which is enough where nothing is taken to be written.
pub fn declaration(spec: &ToolSpec) -> Declaration {
    let key = Some(vec![key(spec)]);
    if spec.effects.inferred_writes.is_empty() {
        Declaration { reads: key, writes: None }
    } else if spec.safe {
        Declaration { reads: key, writes: Some(Vec::new()) }
    } else {
        Declaration { reads: None, writes: key }
    }
}

/// Where the line goes, and the line.
pub fn advice(spec: &ToolSpec) -> String {
    match &spec.proposal {
        Some(_) => line(spec),
        None => format!("[[tool]] `{}`: {}", spec.name, declaration(spec)),
    }
}

/// The line as it is written where the tool is described: for one of a source's many tools with the place that it goes to,
/// as in ``[openapi.shop] tools."orders/get" = { reads = ["orders/{id}/*"] }``.
pub fn line(spec: &ToolSpec) -> String {
    match &spec.proposal {
        Some(proposal) => {
            let place = place_of(&proposal.section, &proposal.tool);
            format!("{place} = {{ {} }}", declaration(spec))
        }
        None => declaration(spec).to_string(),
    }
}

fn key(spec: &ToolSpec) -> String {
    if let Some(key) = spec.proposal.as_ref().and_then(|proposal| proposal.key.clone()) {
        return key;
    }
    let name = spec.name.as_str();
    let words: Vec<&str> = name.rsplit("__").next().unwrap_or(name).split(['_', '-']).collect();
    let nouns = singular(&match words.split_first() {
        Some((first, rest)) if !rest.is_empty() && VERBS.contains(first) => rest.join("_"),
        _ => words.join("_"),
    });
    match field(spec) {
        Some(field) => format!("{nouns}/{{{field}}}"),
        None => format!("{nouns}/*"),
    }
}

/// The noun for one: `list_orders` and `update_order` must meet at one key, or the declarations would hide a conflict.
fn singular(noun: &str) -> String {
    let kept = ["ss", "us", "is"].iter().any(|end| noun.ends_with(end));
    match noun.strip_suffix("ies").filter(|stem| stem.len() > 1) {
        Some(stem) => format!("{stem}y"),
        None if kept => noun.to_owned(),
        None => noun.strip_suffix('s').filter(|stem| stem.len() > 1).unwrap_or(noun).to_owned(),
    }
}

/// The field that most likely names the resource: a required one that looks like an id, else the first required one.
fn field(spec: &ToolSpec) -> Option<&str> {
    let required: Vec<&str> =
        spec.input_schema.get("required")?.as_array()?.iter().filter_map(|name| name.as_str()).collect();
    let scalar = |name: &&str| {
        let kind = spec.input_schema["properties"][*name]["type"].as_str();
        matches!(kind, Some("string" | "integer"))
    };
    let looks_like_id = |name: &&str| {
        let ends = ["id", "key", "name", "path", "sku", "slug", "uuid", "email", "to"];
        ends.iter().any(|end| *name == *end || name.ends_with(&format!("_{end}")))
    };
    let fields = || required.iter().copied().filter(scalar);
    fields().find(looks_like_id).or_else(|| fields().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanout_core::effects::{EffectsSpec, Source};
    use serde_json::json;

    #[track_caller]
    fn check(name: &str, safe: bool, fields: &[&str], line: &str) {
        let mut spec = ToolSpec::new(name, Source::function());
        spec.safe = safe;
        let source = Source::http("api.example.com");
        spec.effects = if safe { EffectsSpec::reads_all_of(&source) } else { EffectsSpec::writes_all_of(&source) };
        let properties: serde_json::Map<_, _> =
            fields.iter().map(|field| ((*field).to_owned(), json!({"type": "string"}))).collect();
        spec.input_schema = json!({"type": "object", "properties": properties, "required": fields});
        assert_eq!(declaration(&spec).to_string(), line);
    }

    #[test]
    fn a_declaration_names_the_noun_and_the_field_that_looks_like_its_id() {
        check("get_customer", true, &["verbose", "customer_id"], "reads = [\"customer/{customer_id}\"]");
        check("add_note", false, &["order_id", "text"], "writes = [\"note/{order_id}\"]");
        check("sync", false, &[], "writes = [\"sync/*\"]");
        check("list_orders", true, &[], "reads = [\"order/*\"]");
        check("list_categories", true, &[], "reads = [\"category/*\"]");
        check("get_status", true, &[], "reads = [\"status/*\"]");
        check("crm__update-lead", false, &["lead"], "writes = [\"lead/{lead}\"]");
    }
}
