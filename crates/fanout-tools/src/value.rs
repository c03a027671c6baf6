//! The values of an input as texts.
//!
//! From an input that fits its schema. To whatever fills inputs into addresses, queries and arguments: all of them spell a
//! number alike.
//!
//! What a text is filled into, and how it must be encoded there, is not known here.

use serde_json::Value;

/// The value of a field, if the input has it and it is not `null`.
pub(crate) fn lookup<'a>(input: &'a Value, field: &[String]) -> Option<&'a Value> {
    field.iter().try_fold(input, |value, name| value.get(name.as_str())).filter(|value| !value.is_null())
}

/// A text, number or truth value as text. `7.0` is `7`, as in the keys of effects: JSON Schema calls both an integer.
pub(crate) fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < EXACT_FLOAT_MAX => {
                format!("{float:.0}")
            }
            _ => number.to_string(),
        }),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A value as text: scalars as they read, all else as JSON. `null` is no value.
pub(crate) fn any_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Array(_) | Value::Object(_) => Some(value.to_string()),
        scalar => scalar_text(scalar),
    }
}

/// Below this a float holds every integer exactly (2^53).
const EXACT_FLOAT_MAX: f64 = 9_007_199_254_740_992.0;
