//! What a document says of values, as JSON Schema of draft 2020-12.
//!
//! From a Schema Object of version 3.0 or 3.1, with references in it. To a tool's input schema: one value without
//! references, which every validator compiles and a model can read.
//!
//! A schema is what the *request* may hold: what only answers hold is left out. Where one is too large or contains itself,
//! deeper levels are left open with a note; where a part of it is no JSON Schema, that part is left out. So the result
//! takes whatever the document takes, and sometimes more: the far side has the last word.

use std::collections::BTreeMap;

use fanout_core::validate::InputSchema;
use serde_json::{Map, Value, json};

use super::document::{Document, Spot};

/// A schema whose text is longer costs a model more than it helps; deeper levels are then left out.
const TEXT_MAX: usize = 32 * 1024;

/// A schema with more parts is not looked at further at this depth: its text would be too long.
const PARTS_MAX: usize = 3_000;

/// The depths that are tried, until the text is short enough.
const DEPTHS: [usize; 7] = [32, 10, 7, 5, 4, 3, 2];

/// The longest description of a field, in bytes.
const DESCRIPTION_MAX: usize = 300;

/// A list of allowed values whose text is longer is left out.
const ENUM_TEXT_MAX: usize = 4 * 1024;

/// An example whose text is longer is left out.
const EXAMPLE_TEXT_MAX: usize = 200;

/// What stands for a level that is left out.
const CUT: &str = "(deeper levels are not shown)";

/// What stands for a schema within itself.
const CIRCLE: &str = "(not shown: it contains itself)";

const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];

/// Makes JSON Schema of a document's schemas.
#[derive(Debug)]
pub(super) struct Schemas<'d> {
    document: &'d Document,
    /// Whether a pattern is one that validators here can compile.
    patterns: BTreeMap<&'d str, bool>,
    /// The schemas that are being read, the outermost first.
    open: Vec<&'d Value>,
    depth_max: usize,
    parts: usize,
    cuts: usize,
}

impl<'d> Schemas<'d> {
    pub(super) fn new(document: &'d Document) -> Self {
        Self { document, patterns: BTreeMap::new(), open: Vec::new(), depth_max: 0, parts: 0, cuts: 0 }
    }

    /// The JSON Schema of what `spot` describes, as deep as its text stays short enough.
    pub(super) fn read(&mut self, spot: Spot<'d>) -> Value {
        let mut schema = json!({});
        for depth in DEPTHS {
            (self.depth_max, self.parts) = (depth, 0);
            schema = self.convert(spot, 0);
            if self.parts <= PARTS_MAX && schema.to_string().len() <= TEXT_MAX {
                break;
            }
        }
        schema
    }

    fn convert(&mut self, spot: Spot<'d>, depth: usize) -> Value {
        self.parts += 1;
        if let Value::Bool(any) = spot.value {
            return Value::Bool(*any);
        }
        let Some(target) = self.document.resolved(spot) else {
            self.cuts += 1;
            return json!({ "description": "(what the document refers to here is not in it)" });
        };
        let note = if self.open.iter().any(|open| std::ptr::eq(*open, target.value)) {
            Some(CIRCLE)
        } else if depth > self.depth_max || self.parts > PARTS_MAX {
            Some(CUT)
        } else {
            None
        };
        if let Some(note) = note {
            self.cuts += 1;
            return noted(target, note);
        }
        self.open.push(target.value);
        let mut schema = Map::new();
        for (key, value) in target.entries() {
            self.keyword(&mut schema, key, target, value, depth);
        }
        self.open.pop();
        // Beside a reference a description is of this place, not of what is referred to.
        if spot.value.get("$ref").is_some() {
            schema.extend(
                spot.text("description").map(|text| ("description".to_owned(), bounded(text, DESCRIPTION_MAX))),
            );
        }
        if self.document.is_3_0 && target.flag("nullable") {
            return or_null(schema);
        }
        Value::Object(schema)
    }

    fn keyword(&mut self, schema: &mut Map<String, Value>, key: &str, whole: Spot<'d>, spot: Spot<'d>, depth: usize) {
        let value = spot.value;
        let made = match key {
            "type" => types(value),
            "enum" => allowed(value),
            "const" | "default" => Some(value.clone()),
            "title" | "format" => value.is_string().then(|| value.clone()),
            "description" => value.as_str().map(|text| bounded(text, DESCRIPTION_MAX)),
            "deprecated" | "uniqueItems" => value.is_boolean().then(|| value.clone()),
            "pattern" => value.as_str().filter(|text| self.compiles(text)).map(Value::from),
            "minimum" | "maximum" => {
                let exclusive = if key == "minimum" { "exclusiveMinimum" } else { "exclusiveMaximum" };
                match (value.is_number(), whole.flag(exclusive)) {
                    (true, true) => return drop(schema.insert(exclusive.to_owned(), value.clone())),
                    (is_number, _) => is_number.then(|| value.clone()),
                }
            }
            "exclusiveMinimum" | "exclusiveMaximum" => value.is_number().then(|| value.clone()),
            "multipleOf" => value.as_f64().filter(|step| *step > 0.0).map(|_| value.clone()),
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => {
                value.as_u64().map(|_| value.clone())
            }
            "properties" => return self.properties(schema, spot, depth),
            "required" => required(self.document, whole, value),
            "additionalProperties" | "items" | "contains" | "propertyNames"
                if value.is_object() || value.is_boolean() =>
            {
                Some(self.convert(spot, depth + 1))
            }
            "prefixItems" | "allOf" | "anyOf" => self.list(spot, depth),
            // Of a schema that is looser than the document's, two alternatives may fit where one should.
            "oneOf" if whole.get("anyOf").is_none() => {
                return schema.extend(self.list(spot, depth).map(|list| ("anyOf".to_owned(), list)));
            }
            "patternProperties" | "dependentSchemas" => Some(self.named(spot, depth, key == "patternProperties")),
            "not" => self.exact(spot, depth),
            "example" if value.to_string().len() <= EXAMPLE_TEXT_MAX => {
                return drop(schema.insert("examples".to_owned(), json!([value])));
            }
            "examples" if value.is_array() && value.to_string().len() <= EXAMPLE_TEXT_MAX => Some(value.clone()),
            _ => None,
        };
        schema.extend(made.map(|made| (key.to_owned(), made)));
    }

    /// The properties that a request may have.
    fn properties(&mut self, schema: &mut Map<String, Value>, spot: Spot<'d>, depth: usize) {
        let mut properties = Map::new();
        for (name, property) in spot.entries() {
            if !is_read_only(self.document, property) {
                properties.insert(name.clone(), self.convert(property, depth + 1));
            }
        }
        schema.insert("properties".to_owned(), Value::Object(properties));
    }

    fn list(&mut self, spot: Spot<'d>, depth: usize) -> Option<Value> {
        let list: Vec<Value> = spot.elements().map(|element| self.convert(element, depth + 1)).collect();
        (!list.is_empty()).then_some(Value::Array(list))
    }

    fn named(&mut self, spot: Spot<'d>, depth: usize, are_patterns: bool) -> Value {
        let mut named = Map::new();
        for (name, part) in spot.entries() {
            if !are_patterns || self.compiles(name) {
                named.insert(name.clone(), self.convert(part, depth + 1));
            }
        }
        Value::Object(named)
    }

    /// A schema that must not be looser than it says: none, if a part of it was left out.
    fn exact(&mut self, spot: Spot<'d>, depth: usize) -> Option<Value> {
        let cuts = self.cuts;
        let schema = self.convert(spot, depth + 1);
        (self.cuts == cuts).then_some(schema)
    }

    fn compiles(&mut self, pattern: &'d str) -> bool {
        *self.patterns.entry(pattern).or_insert_with(|| InputSchema::new(&json!({ "pattern": pattern })).is_ok())
    }
}

/// A level that is left out: its type, if that is one, and a note.
fn noted(spot: Spot<'_>, note: &str) -> Value {
    let mut schema = Map::new();
    if !spot.flag("nullable") {
        schema.extend(spot.value.get("type").and_then(types).map(|types| ("type".to_owned(), types)));
    }
    let said = spot.text("description").map(|text| bounded(text, DESCRIPTION_MAX));
    let said = said.as_ref().and_then(Value::as_str).map_or_else(|| note.to_owned(), |text| format!("{text} {note}"));
    schema.insert("description".to_owned(), Value::String(said));
    Value::Object(schema)
}

/// Version 3.0's `nullable`, as 2020-12 says it.
fn or_null(mut schema: Map<String, Value>) -> Value {
    if let Some(Value::Array(allowed)) = schema.get_mut("enum")
        && !allowed.contains(&Value::Null)
    {
        allowed.push(Value::Null);
    }
    match schema.get("type").cloned() {
        Some(Value::String(name)) if !["allOf", "anyOf", "not"].iter().any(|key| schema.contains_key(*key)) => {
            schema.insert("type".to_owned(), json!([name, "null"]));
            Value::Object(schema)
        }
        _ => {
            let description = schema.remove("description");
            let mut either = Map::from_iter([("anyOf".to_owned(), json!([schema, { "type": "null" }]))]);
            either.extend(description.map(|text| ("description".to_owned(), text)));
            Value::Object(either)
        }
    }
}

fn types(value: &Value) -> Option<Value> {
    let is_type = |value: &&Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
    match value {
        Value::String(name) if name == "file" => Some(json!("string")),
        Value::Array(list) if !list.is_empty() && list.iter().all(|value| is_type(&value)) => {
            let mut names = list.clone();
            names.sort_by_key(ToString::to_string);
            names.dedup();
            Some(Value::Array(names))
        }
        value => Some(value).filter(is_type).cloned(),
    }
}

fn allowed(value: &Value) -> Option<Value> {
    let list = value.as_array().filter(|list| !list.is_empty())?;
    (value.to_string().len() <= ENUM_TEXT_MAX).then(|| {
        let mut kept: Vec<&Value> = Vec::new();
        list.iter().for_each(|value| {
            if !kept.contains(&value) {
                kept.push(value);
            }
        });
        json!(kept)
    })
}

/// The names that a request must have: those that only answers have are not among them.
fn required(document: &Document, whole: Spot<'_>, value: &Value) -> Option<Value> {
    let mut names: Vec<&str> = value.as_array()?.iter().filter_map(Value::as_str).collect();
    let property = |name: &str| whole.get("properties").and_then(|properties| properties.get(name));
    names.retain(|name| !property(name).is_some_and(|property| is_read_only(document, property)));
    names.sort_unstable();
    names.dedup();
    Some(json!(names))
}

fn is_read_only(document: &Document, property: Spot<'_>) -> bool {
    property.flag("readOnly") || document.resolved(property).is_some_and(|property| property.flag("readOnly"))
}

/// A text of at most so many bytes.
pub(super) fn bounded(text: &str, max: usize) -> Value {
    let text = text.trim();
    if text.len() <= max {
        return Value::from(text);
    }
    Value::String(format!("{}…", text[..text.floor_char_boundary(max - '…'.len_utf8())].trim_end()))
}
