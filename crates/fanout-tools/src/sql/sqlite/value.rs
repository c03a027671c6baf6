//! JSON to SQLite's values and back.

use std::fmt::Write as _;

use rusqlite::types::{Value as Cell, ValueRef};
use serde_json::{Number, Value};

/// An input as a value. A list and an object are JSON's text, which `json_each` and its kin read.
pub(super) fn value(input: Option<&Value>) -> Cell {
    match input {
        None | Some(Value::Null) => Cell::Null,
        Some(Value::Bool(flag)) => Cell::Integer((*flag).into()),
        Some(Value::Number(number)) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Cell::Integer(integer),
            // Beyond what SQLite counts with, a number is its digits.
            (None, Some(_)) => Cell::Text(number.to_string()),
            (None, None) => number.as_f64().map_or(Cell::Null, Cell::Real),
        },
        Some(Value::String(text)) => Cell::Text(text.clone()),
        Some(other) => Cell::Text(other.to_string()),
    }
}

/// A value of a row. Bytes are `\x` and hexadecimal digits, as PostgreSQL shows them.
pub(super) fn json(cell: ValueRef<'_>) -> Value {
    match cell {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(integer) => integer.into(),
        ValueRef::Real(real) => Number::from_f64(real)
            .map_or_else(|| Value::String(if real > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()), Value::Number),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
        ValueRef::Blob(bytes) => {
            let mut text = String::with_capacity(2 + bytes.len() * 2);
            text.push_str("\\x");
            for byte in bytes {
                let _ = write!(text, "{byte:02x}");
            }
            text.into()
        }
    }
}

/// How many bytes a value takes, about.
pub(super) fn size(cell: ValueRef<'_>) -> usize {
    match cell {
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_come_back_as_they_went() {
        for input in [json!(null), json!(7), json!(-1.5), json!("a'b"), json!(i64::MIN), json!("")] {
            let cell = value(Some(&input));
            assert_eq!(json(ValueRef::from(&cell)), input);
        }
        assert_eq!(value(Some(&json!(true))), Cell::Integer(1));
        assert_eq!(value(Some(&json!(u64::MAX))), Cell::Text(u64::MAX.to_string()));
        assert_eq!(value(Some(&json!([1, "a"]))), Cell::Text(r#"[1,"a"]"#.to_owned()));
        assert_eq!(json(ValueRef::Blob(&[0, 255])), json!("\\x00ff"));
    }
}
