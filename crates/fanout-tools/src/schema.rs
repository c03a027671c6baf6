//! Which fields an input can have, as far as its JSON Schema says.
//!
//! From a tool's input schema and the templates of its effects, its URL or its query.
//! To whoever builds a tool: a template that names a field the schema lacks is a mistake that would otherwise only show as
//! a call that waits for too much.
//!
//! Validation of inputs is not here; `fanout-core` does that.

use std::collections::BTreeSet;

use serde_json::Value;

/// The fields that a schema knows at the top of its object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    names: BTreeSet<String>,
    open: bool,
}

/// A place names a field that the input lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{place} names `{field}`, which the input lacks{}",
    .nearest.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
)]
pub struct UnknownField {
    /// Where it is named.
    pub place: String,
    /// The field that it names.
    pub field: String,
    /// The field that was perhaps meant.
    pub nearest: Option<String>,
}

impl Fields {
    /// Reads the fields of a schema: its `properties`, and those of every part that it is put together from.
    ///
    /// A schema that lists properties is taken at its word although JSON Schema lets unlisted ones pass, unless it says
    /// itself that there are others (`additionalProperties`, `patternProperties`, a `$ref` to elsewhere).
    pub fn of(schema: &Value) -> Self {
        let mut fields = Self::default();
        fields.collect(schema, schema, &mut BTreeSet::new());
        if fields.names.is_empty() && schema.get("additionalProperties") != Some(&Value::Bool(false)) {
            fields.open = true;
        }
        fields
    }

    /// Whether an input can have this field.
    pub fn has(&self, field: &str) -> bool {
        self.open || self.names.contains(field)
    }

    /// Whether a field that is named at `place` is one of them.
    ///
    /// # Errors
    /// [`UnknownField`], with the one that was perhaps meant.
    pub fn check(&self, field: &str, place: impl FnOnce() -> String) -> Result<(), UnknownField> {
        if self.has(field) {
            return Ok(());
        }
        let nearest = self.nearest(field).map(str::to_owned);
        Err(UnknownField { place: place(), field: field.to_owned(), nearest })
    }

    /// The names, in alphabetical order; `None` where there can be others.
    pub fn closed(&self) -> Option<impl Iterator<Item = &str>> {
        (!self.open).then(|| self.names.iter().map(String::as_str))
    }

    /// The known field that is spelled most like this one, if any is close.
    pub fn nearest(&self, field: &str) -> Option<&str> {
        nearest(field, self.names.iter().map(String::as_str))
    }

    /// Each reference is followed once, so that a schema that contains itself ends.
    fn collect<'s>(&mut self, root: &'s Value, schema: &'s Value, followed: &mut BTreeSet<&'s str>) {
        let Value::Object(object) = schema else { return };
        if let Some(Value::Object(properties)) = object.get("properties") {
            self.names.extend(properties.keys().cloned());
        }
        let says_others = |key: &str| object.get(key).is_some_and(|value| *value != Value::Bool(false));
        self.open |= says_others("additionalProperties") || object.contains_key("patternProperties");
        for key in ["allOf", "anyOf", "oneOf"] {
            for part in object.get(key).and_then(Value::as_array).into_iter().flatten() {
                self.collect(root, part, followed);
            }
        }
        for key in ["if", "then", "else"] {
            if let Some(part) = object.get(key) {
                self.collect(root, part, followed);
            }
        }
        for part in
            object.get("dependentSchemas").and_then(Value::as_object).into_iter().flat_map(|parts| parts.values())
        {
            self.collect(root, part, followed);
        }
        if let Some(reference) = object.get("$ref").and_then(Value::as_str)
            && followed.insert(reference)
        {
            match reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer)) {
                Some(target) => self.collect(root, target, followed),
                None => self.open = true,
            }
        }
    }
}

/// Less alike than this, a name is not what was meant; found by trying typing mistakes in the names of the configuration.
const LIKENESS_MIN: f64 = 0.75;

/// The candidate that is spelled most like `name`, if any is close.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(schema: &Value, field: &str, has: bool) {
        assert_eq!(Fields::of(schema).has(field), has, "{field} in {schema}");
    }

    #[test]
    fn listed_properties_are_all_there_are() {
        check(&json!({"properties": {"id": {}}}), "id", true);
        check(&json!({"properties": {"id": {}}}), "ids", false);
        check(&json!({"type": "object", "additionalProperties": false}), "id", false);
    }

    #[test]
    fn a_schema_that_lists_nothing_or_says_that_there_is_more_knows_every_field() {
        check(&json!({"type": "object"}), "id", true);
        check(&json!(true), "id", true);
        check(&json!({"properties": {"id": {}}, "additionalProperties": true}), "x", true);
        check(&json!({"properties": {"id": {}}, "additionalProperties": {"type": "string"}}), "x", true);
        check(&json!({"properties": {"id": {}}, "patternProperties": {"^x-": {}}}), "x-a", true);
        check(&json!({"properties": {"id": {}}, "$ref": "https://example.com/schema"}), "x", true);
    }

    #[test]
    fn parts_and_definitions_are_read_too() {
        let schema = json!({
            "$defs": {"Base": {"properties": {"id": {}}}},
            "allOf": [{"$ref": "#/$defs/Base"}],
            "oneOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}],
            "dependentSchemas": {"a": {"properties": {"c": {}}}},
        });
        for field in ["id", "a", "b", "c"] {
            check(&schema, field, true);
        }
        check(&schema, "d", false);
    }

    #[test]
    fn a_schema_that_contains_itself_ends() {
        let schema = json!({"properties": {"id": {}}, "allOf": [{"$ref": "#"}, {"$ref": "#"}]});
        check(&schema, "id", true);
        check(&schema, "ids", false);
    }

    #[test]
    fn the_nearest_name_is_the_one_that_was_meant() {
        assert_eq!(nearest("tiemout", ["timeout", "deadline"]), Some("timeout"));
        assert_eq!(nearest("userid", ["user_id", "verbose"]), Some("user_id"));
        assert_eq!(nearest("zebra", ["timeout", "deadline"]), None);
    }
}
