//! The JSON Schema of the configuration, for editors.
//!
//! From [`keys`](super::keys). To `fanout schema`.
//!
//! It knows what a file may look like, not what it refers to: a `limit` that names no section, or a template that names no
//! input, is found by the reader alone.

use serde_json::{Map, Value, json};
use toml::de::DeTable;

use super::field::to_json;
use super::keys::{self, CREDENTIAL, DURATION, Key, Kind, RATE, Rule, SETTING, SIZE, Table, Takes};

/// The schema of `fanout.toml`, JSON Schema 2020-12: every key with its description, default and an example; nothing else
/// may be said.
pub fn schema() -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fanout.toml",
    });
    let mut parts = Map::new();
    for table in keys::all() {
        match table.kind {
            Kind::Top => merge(&mut schema, of_table(table)),
            kind => {
                parts.insert(name(kind), of_table(table));
            }
        }
    }
    schema["$defs"] = parts.into();
    schema
}

/// What a value written as TOML is in JSON; `None` where it is none.
pub(super) fn literal(text: &str) -> Option<Value> {
    let line = format!("x = {text}");
    let table = DeTable::parse(&line).ok()?;
    to_json(table.get_ref().get("x")?.get_ref())
}

/// What the definition of a table is called.
fn name(kind: Kind) -> String {
    format!("{kind:?}")
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

fn of_table(table: &Table) -> Value {
    let properties: Map<String, Value> = table.keys.iter().map(|key| (key.name.to_owned(), of_key(key))).collect();
    let needed: Vec<&str> = table.keys.iter().filter(|key| key.needed).map(|key| key.name).collect();
    let mut schema = json!({
        "description": table.about, "type": "object", "properties": properties, "additionalProperties": false,
    });
    if !needed.is_empty() {
        schema["required"] = json!(needed);
    }
    let rules: Vec<Value> = table.rules.iter().map(of_rule).collect();
    if !rules.is_empty() {
        schema["allOf"] = rules.into();
    }
    schema
}

fn of_rule(rule: &Rule) -> Value {
    let present = |key: &&str| json!({ "required": [key] });
    match rule {
        Rule::ExactlyOneOf(keys) => json!({ "oneOf": keys.iter().map(present).collect::<Vec<_>>() }),
        Rule::AtMostOneOf(keys) => {
            let pairs = keys.iter().enumerate().flat_map(|(at, one)| keys[..at].iter().map(move |other| (one, other)));
            let both = pairs.map(|(one, other)| json!({ "required": [one, other] }));
            json!({ "not": { "anyOf": both.collect::<Vec<_>>() } })
        }
    }
}

fn of_key(key: &Key) -> Value {
    let mut schema = of_value(key.takes);
    schema["description"] = key.about.into();
    if let Some(default) = key.default.and_then(literal) {
        schema["default"] = default;
    }
    if let Some(example) = literal(key.example) {
        schema["examples"] = json!([example]);
    }
    schema
}

/// The schema of what a key takes.
fn of_value(takes: Takes) -> Value {
    let text = |pattern: &str| json!({ "type": "string", "pattern": pattern });
    let list = |items: Value| json!({ "type": "array", "items": items });
    let by_name = |value: Value| json!({ "type": "object", "additionalProperties": value });
    let part = |kind: Kind| json!({ "$ref": format!("#/$defs/{}", name(kind)) });
    match takes {
        Takes::Text => json!({ "type": "string" }),
        Takes::Setting => text(SETTING),
        Takes::Like(pattern, _) => text(pattern),
        Takes::OneOf(values) => json!({ "enum": values }),
        Takes::Flag => json!({ "type": "boolean" }),
        Takes::Whole(least, u64::MAX) => json!({ "type": "integer", "minimum": least }),
        Takes::Whole(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Takes::Amount => json!({ "type": "number", "minimum": 0 }),
        Takes::Number => json!({ "type": "number" }),
        Takes::Anything => json!({}),
        Takes::Share => json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1 }),
        Takes::Duration => text(DURATION),
        Takes::Rate => text(RATE),
        Takes::Size => json!({ "anyOf": [text(SIZE), { "type": "integer", "minimum": 1 }] }),
        Takes::Texts => list(json!({ "type": "string" })),
        Takes::Settings => list(text(SETTING)),
        Takes::ListLike(pattern, _) => list(text(pattern)),
        Takes::SettingsByName => by_name(text(SETTING)),
        Takes::CredentialsByName => by_name(text(CREDENTIAL)),
        Takes::Inputs => by_name(json!({ "type": "object" })),
        Takes::Schema => {
            json!({ "type": "object", "properties": { "type": { "const": "object" } }, "required": ["type"] })
        }
        Takes::Table(kind) => part(kind),
        Takes::FlagOr(kind) => json!({ "anyOf": [{ "type": "boolean" }, part(kind)] }),
        Takes::Tables(kind) => list(part(kind)),
        Takes::OneOfOr(values, kind) => json!({ "anyOf": [{ "enum": values }, list(part(kind))] }),
        Takes::TablesByName(kind) => {
            let mut tables = by_name(part(kind));
            tables["propertyNames"] = json!({ "pattern": "\\S" });
            tables
        }
    }
}
