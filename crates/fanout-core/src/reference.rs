//! `$ref` in an input: finding and filling, once.
//!
//! From a call whose links name labels, and the outputs of the calls they stand for.
//! To the input that the tool is given.
//!
//! A reference is an object with the one key `$ref` whose text is LABEL`#`JSON-POINTER with a label that the call's links
//! name; anything else is literal. Filled values are never looked into: an output cannot smuggle in a reference.

use serde_json::Value;

use crate::outcome::{CallError, ErrorCode};

/// The one key of a reference.
const REF: &str = "$ref";

/// Fills every reference in one pass. `outputs` knows the whole output behind a label; labels it does not know are
/// literal text.
///
/// # Errors
/// `unresolved_reference`, with the reference and the fields that were there, when a pointer points at nothing.
pub fn fill(input: &Value, outputs: &dyn Fn(&str) -> Option<Value>) -> Result<Value, CallError> {
    if let Some((label, pointer)) = parse(input)
        && let Some(output) = outputs(label)
    {
        return output.pointer(pointer).cloned().ok_or_else(|| unresolved(label, pointer, &output));
    }
    Ok(match input {
        Value::Array(items) => Value::Array(items.iter().map(|item| fill(item, outputs)).collect::<Result<_, _>>()?),
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, value)| Ok((name.clone(), fill(value, outputs)?)))
                .collect::<Result<_, CallError>>()?,
        ),
        other => other.clone(),
    })
}

/// The label and the pointer, if the value has the form of a reference.
fn parse(value: &Value) -> Option<(&str, &str)> {
    let fields = value.as_object()?;
    let text = fields.get(REF)?.as_str()?;
    let (label, pointer) = text.split_once('#')?;
    (fields.len() == 1 && (pointer.is_empty() || pointer.starts_with('/'))).then_some((label, pointer))
}

fn unresolved(label: &str, pointer: &str, output: &Value) -> CallError {
    let there = match output {
        Value::Object(fields) => format!("an object with {}", names(fields.keys().map(String::as_str))),
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::String(_) => "a text".to_owned(),
        other => format!("`{other}`"),
    };
    CallError::new(
        ErrorCode::UnresolvedReference,
        format!("`{label}#{pointer}` points at nothing: the output of `{label}` is {there}"),
    )
}

/// At most so many fields are named: enough to see the mistake.
const NAMES_MAX: usize = 12;

fn names<'a>(fields: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = fields.take(NAMES_MAX).map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "no fields".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(input: Value, filled: Value) {
        let outputs = |label: &str| match label {
            "user" => Some(json!({"id": 7, "names": ["a", "b"], "trick": {"$ref": "user#/id"}})),
            _ => None,
        };
        assert_eq!(fill(&input, &outputs), Ok(filled));
    }

    #[test]
    fn a_reference_becomes_the_value_it_points_at() {
        check(json!({"id": {"$ref": "user#/id"}}), json!({"id": 7}));
        check(json!([{"$ref": "user#/names/1"}]), json!(["b"]));
        check(json!({"$ref": "user#/names"}), json!(["a", "b"]));
    }

    #[test]
    fn anything_else_is_literal() {
        for literal in [json!({"$ref": "other#/id"}), json!({"$ref": "user"}), json!({"$ref": "user#/id", "x": 1})] {
            check(literal.clone(), literal);
        }
    }

    #[test]
    fn filled_values_are_not_scanned() {
        check(json!({"$ref": "user#/trick"}), json!({"$ref": "user#/id"}));
    }

    #[test]
    fn a_pointer_at_nothing_says_what_is_there() {
        let error = fill(&json!({"$ref": "u#/nope"}), &|_| Some(json!({"id": 1}))).unwrap_err();
        assert_eq!(error.code, ErrorCode::UnresolvedReference);
        assert_eq!(error.message, "`u#/nope` points at nothing: the output of `u` is an object with `id`");
    }
}
