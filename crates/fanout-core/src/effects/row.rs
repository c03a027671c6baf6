//! A row of a table as a segment of a key.
//!
//! From a source that knows its tables: which field holds which column of a primary key, and of what kind that is.
//! To [`Template::row`](super::Template::row).
//!
//! Two calls that touch one row must come to one key. So a value counts only if nothing else that the database would take
//! for the same row is spelled differently: `007`, `{A0EE…}` and `1e3` name rows too, and are not told apart by their text.
//! No SQL stands here.

use std::borrow::Cow;

use serde_json::Value;

use super::template::scalar_text;

/// A kind of column whose values each have one spelling that is told from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Canonical {
    /// A whole number that fits 64 bits, as a number or a string of digits without a leading zero or plus sign.
    Integer,
    /// A UUID in lower case with its four hyphens.
    Uuid,
    /// Any string, compared byte by byte. A number is none: its spelling as text is the database's.
    Text,
}

/// One column of a row's primary key, and where its value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// Always this text.
    Value(&'a str),
    /// The value of a field of the input.
    One {
        /// The field.
        field: &'a str,
        /// What its value must look like.
        form: Canonical,
    },
    /// Each element of an array in the input: one key per element.
    Each {
        /// The field.
        field: &'a str,
        /// What each element must look like.
        form: Canonical,
    },
}

impl Canonical {
    /// The value as the one text of its row; `None` where another text could name the same row.
    pub fn text_of(self, value: &Value) -> Option<Cow<'_, str>> {
        let text = match (self, value) {
            (Self::Text | Self::Uuid, Value::String(_)) | (Self::Integer, Value::String(_) | Value::Number(_)) => {
                scalar_text(value)?
            }
            _ => return None,
        };
        self.accepts(&text).then_some(text)
    }

    /// Whether this text is the one spelling of its value.
    pub fn accepts(self, text: &str) -> bool {
        match self {
            Self::Text => true,
            // The number printed again is the same text only if that is its shortest spelling, which leaves out `-0`.
            Self::Integer => text.parse::<i64>().is_ok_and(|number| number.to_string() == text),
            Self::Uuid => {
                let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                let fits = |(at, byte): (usize, u8)| match at {
                    8 | 13 | 18 | 23 => byte == b'-',
                    _ => is_hex(byte),
                };
                text.len() == UUID_BYTES && text.bytes().enumerate().all(fits)
            }
        }
    }
}

/// 32 hexadecimal digits and four hyphens (RFC 9562).
const UUID_BYTES: usize = 36;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(form: Canonical, value: Value, text: Option<&str>) {
        assert_eq!(form.text_of(&value).as_deref(), text, "{form:?} {value}");
    }

    #[test]
    fn a_number_has_one_spelling() {
        for (value, text) in [
            (json!(7), Some("7")),
            (json!("7"), Some("7")),
            (json!(7.0), Some("7")),
            (json!(-7), Some("-7")),
            (json!("0"), Some("0")),
            (json!(i64::MAX), Some("9223372036854775807")),
        ] {
            check(Canonical::Integer, value, text);
        }
        for value in [
            json!("07"),
            json!("+7"),
            json!(" 7"),
            json!("7.0"),
            json!("-0"),
            json!(-0.0),
            json!(7.5),
            json!(1e20),
            json!("9223372036854775808"),
            json!(u64::MAX),
            json!("0x7"),
            json!(""),
            json!(true),
            json!(null),
            json!([7]),
        ] {
            check(Canonical::Integer, value, None);
        }
    }

    #[test]
    fn a_uuid_is_in_lower_case_with_hyphens() {
        let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        check(Canonical::Uuid, json!(uuid), Some(uuid));
        for value in [
            json!(uuid.to_uppercase()),
            json!(format!("{{{uuid}}}")),
            json!(uuid.replace('-', "")),
            json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1é"),
            json!(7),
        ] {
            check(Canonical::Uuid, value, None);
        }
    }

    #[test]
    fn a_text_is_a_string_and_nothing_else() {
        check(Canonical::Text, json!("a/b "), Some("a/b "));
        check(Canonical::Text, json!(""), Some(""));
        check(Canonical::Text, json!(7), None);
        check(Canonical::Text, json!(false), None);
    }
}
