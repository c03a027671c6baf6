//! JSON with its exact text: objects as key and raw value, in the order in which they were written.
//!
//! From any JSON text. To the checks, which compare what came back with what was sent, byte for byte.
//! `serde_json::Value` sorts keys and re-spells numbers, so nothing that is compared or sent passes through it here.

use std::borrow::Cow;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// An object as it stands in the text: every key with its raw value, in order, duplicates included.
pub(crate) struct Object<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// The object in `text`, or `None` if the text is anything else.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The raw text of the first field named `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.get())
    }

    /// The field named `key` as a string, if it is one.
    pub(crate) fn string(&self, key: &str) -> Option<String> {
        self.get(key).and_then(|text| serde_json::from_str(text).ok())
    }

    /// Whether the field named `key` stands there and is not `null`.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some_and(|text| text != "null")
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    fields.push((key.0, map.next_value()?));
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// The elements of the array in `text`, or `None` if it is no array.
pub(crate) fn array(text: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(text).ok()
}

/// `text` as a JSON string, quotes and escapes included.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The text without `cache_control` where the API allows one: on a block, a tool, and blocks inside a result's content.
///
/// A marker says where a cached prefix ends and is no part of the prefix, so a client may move it from turn to turn.
/// Text without a marker comes back as it is.
pub(crate) fn without_markers(text: &str) -> Cow<'_, str> {
    if !text.contains("\"cache_control\"") {
        return Cow::Borrowed(text);
    }
    if let Some(object) = Object::parse(text) {
        let fields: Vec<String> = object
            .0
            .iter()
            .filter(|(key, _)| key != "cache_control")
            .map(|(key, value)| {
                let value = if key == "content" { without_markers(value.get()) } else { Cow::Borrowed(value.get()) };
                format!("{}:{value}", quoted(key))
            })
            .collect();
        return Cow::Owned(format!("{{{}}}", fields.join(",")));
    }
    match array(text) {
        Some(elements) => {
            let elements: Vec<_> = elements.iter().map(|element| without_markers(element.get())).collect();
            Cow::Owned(format!("[{}]", elements.join(",")))
        }
        None => Cow::Borrowed(text),
    }
}

/// The value of `text` in one fixed spelling: keys sorted, `1.0` as `1`, nulls and markers left out, a content string as
/// its block.
pub(crate) fn value_of(text: &str) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(&without_markers(text)) else { return text.to_owned() };
    if let Some(content) = value.get_mut("content")
        && let Value::String(plain) = content
    {
        *content = serde_json::json!([{"type": "text", "text": plain}]);
    }
    let mut spelled = String::new();
    spell(&value, &mut spelled);
    spelled
}

/// Sorts by itself: whether a `Value` keeps its keys sorted is a switch of the whole build.
fn spell(value: &Value, into: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().filter(|(_, field)| !field.is_null()).collect();
            fields.sort_by_key(|(key, _)| *key);
            into.push('{');
            for (key, field) in fields {
                into.push_str(&quoted(key));
                into.push(':');
                spell(field, into);
                into.push(',');
            }
            into.push('}');
        }
        Value::Array(elements) => {
            into.push('[');
            for element in elements {
                spell(element, into);
                into.push(',');
            }
            into.push(']');
        }
        Value::Number(number) => match number.as_f64().filter(|_| !number.is_i64() && !number.is_u64()) {
            // Rust prints a whole float without a fraction.
            Some(float) => into.push_str(&format!("{float}")),
            None => into.push_str(&number.to_string()),
        },
        other => into.push_str(&other.to_string()),
    }
}

/// A hash of what is given, stable within one process.
pub(crate) fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_one_spelling() {
        let spelled = value_of(r#"{"b":1.0,"a":[null,"\u00e9"],"c":null,"content":"x"}"#);
        assert_eq!(spelled, value_of(r#"{"content":[{"text":"x","type":"text"}], "a":[null,"é"],"b":1}"#));
        assert_ne!(spelled, value_of(r#"{"content":"x","a":[null,"é"],"b":1.5}"#));
        assert_ne!(value_of("[1,23]"), value_of("[12,3]"));
    }

    #[test]
    fn a_marker_is_left_out_and_everything_else_keeps_its_spelling() {
        let text =
            r#"[{"type":"text","text":"\u00e9","cache_control":{"type":"ephemeral"}},{"input":{"cache_control":1.0}}]"#;
        assert_eq!(without_markers(text), r#"[{"type":"text","text":"\u00e9"},{"input":{"cache_control":1.0}}]"#);
    }
}
