//! One JSON value as the text it came in, and the few things that may be done to such a text.
//!
//! From [`request`](super::request), [`response`](super::response) and [`stream`](crate::stream): JSON text.
//! To [`block`](super::block) and [`message`](super::message): the same text, looked into but never printed anew.
//!
//! A tree of values would lose key order, the spelling of numbers and escapes, and repeated keys; newer models reject a
//! history in which any of these changed. No tree of values is ever printed here.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The exact text of one well-formed JSON value, without white space around it. A clone is a pointer.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Raw(Arc<str>);

impl Raw {
    /// Checks that `text` is one JSON value and keeps it as it is, less the white space around it.
    ///
    /// # Errors
    /// [`WireError::NotJson`] when it is not, or when something follows it.
    pub fn parse(text: impl AsRef<str>) -> Result<Self, WireError> {
        let value: &RawValue = serde_json::from_str(text.as_ref()).map_err(|e| not_json("value", &e))?;
        Ok(Self::from(value))
    }

    /// Prints `value` as compact JSON.
    ///
    /// # Errors
    /// [`WireError::NotJson`] when `value` has no JSON form, such as a map whose keys are not strings.
    pub fn from_value(value: &impl Serialize) -> Result<Self, WireError> {
        serde_json::to_string(value).map(Self::trusted).map_err(|e| not_json("value", &e))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same object with the values of these keys replaced, each by one JSON value, and everything else as it was, white
    /// space included. A key that the object lacks is added at its end.
    ///
    /// # Errors
    /// [`WireError::NotJson`] when this is no object.
    pub fn with(&self, values: &[(&str, Raw)]) -> Result<Self, WireError> {
        let values: Vec<_> = values.iter().map(|(key, value)| (*key, value.as_str().to_owned())).collect();
        replace(self.as_str(), &values).map(Self::trusted).map_err(|e| not_json("object", &e))
    }

    /// Keeps a text that this crate itself put together out of well-formed parts.
    pub(crate) fn trusted(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }
}

impl From<&RawValue> for Raw {
    fn from(value: &RawValue) -> Self {
        Self(value.get().into())
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not what the Messages API says it should be. The same text fails the same way again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The text is no JSON, or a value has no JSON form.
    #[error("malformed JSON in `{what}`: {detail}")]
    NotJson {
        /// What was being read or printed.
        what: &'static str,
        /// What the JSON reader said, with line and column.
        detail: String,
    },
    /// The text is JSON of another shape.
    #[error("`{what}` {detail}")]
    Shape {
        /// The field or object concerned.
        what: &'static str,
        /// What was expected of it.
        detail: String,
    },
    /// A tool's name does not match `^[a-zA-Z0-9_-]{1,128}$`.
    #[error("tool name `{name}` must be 1 to 128 letters, digits, `_` or `-`")]
    ToolName {
        /// The name refused.
        name: String,
    },
}

pub(crate) fn not_json(what: &'static str, error: &serde_json::Error) -> WireError {
    WireError::NotJson { what, detail: error.to_string() }
}

pub(crate) fn shape(what: &'static str, detail: impl Into<String>) -> WireError {
    WireError::Shape { what, detail: detail.into() }
}

/// Calls `seen` with each member of the JSON object `text`, in the order of the text, repeated keys included.
///
/// # Errors
/// When `text` is no JSON object.
pub(crate) fn members<'a>(
    text: &'a str,
    seen: impl FnMut(Cow<'a, str>, &'a RawValue),
) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.deserialize_map(Members(seen))?;
    reader.end()
}

/// The elements of the JSON array `text`.
pub(crate) fn elements(text: &str) -> Result<Vec<&RawValue>, serde_json::Error> {
    serde_json::from_str(text)
}

struct Members<F>(F);

impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue)> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key)? {
            (self.0)(key, map.next_value()?);
        }
        Ok(())
    }
}

/// Reads a key without copying it, where it holds no escape.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

/// The still escaped inside of a JSON string; `None` for any other value.
pub(crate) fn string_body(value: &RawValue) -> Option<&str> {
    value.get().strip_prefix('"')?.strip_suffix('"')
}

/// The text that a JSON string stands for; `None` for any other value.
pub(crate) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    string_body(value).map(unescape)
}

/// Resolves the escapes in the inside of a well-formed JSON string.
///
/// Half of a surrogate pair on its own stands for no character and becomes U+FFFD; models do write them, and a response
/// must not be lost over one. The raw text keeps the half.
pub(crate) fn unescape(body: &str) -> Cow<'_, str> {
    let Some(first) = memchr::memchr(b'\\', body.as_bytes()) else { return Cow::Borrowed(body) };
    let mut out = String::with_capacity(body.len());
    let (plain, mut rest) = body.split_at(first);
    out.push_str(plain);
    while let Some(escaped) = rest.strip_prefix('\\') {
        let (character, length) = escape(escaped);
        out.push(character);
        rest = escaped.get(length..).unwrap_or_default();
        let next = memchr::memchr(b'\\', rest.as_bytes()).unwrap_or(rest.len());
        let (plain, after) = rest.split_at(next);
        out.push_str(plain);
        rest = after;
    }
    Cow::Owned(out)
}

/// What the escape after a backslash stands for, and how many bytes it takes, the backslash not counted.
fn escape(after: &str) -> (char, usize) {
    match after.as_bytes().first() {
        Some(b'n') => ('\n', 1),
        Some(b't') => ('\t', 1),
        Some(b'r') => ('\r', 1),
        Some(b'b') => ('\u{8}', 1),
        Some(b'f') => ('\u{c}', 1),
        Some(b'u') => unicode_escape(after),
        Some(&other) => (char::from(other), 1),
        None => (char::REPLACEMENT_CHARACTER, 0),
    }
}

fn unicode_escape(after: &str) -> (char, usize) {
    let unit = |from: usize| after.get(from..from + 4).and_then(|hex| u32::from_str_radix(hex, 16).ok());
    let Some(high) = unit(1) else { return (char::REPLACEMENT_CHARACTER, after.len()) };
    if (0xD800..0xDC00).contains(&high)
        && after.get(5..7) == Some("\\u")
        && let Some(low @ 0xDC00..0xE000) = unit(7)
    {
        let code = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 11);
    }
    (char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER), 5)
}

/// How much of `body` can be shown now: all of it, less the first half of a surrogate pair at its end, whose second half
/// may come with the next delta.
pub(crate) fn showable(body: &str) -> usize {
    let bytes = body.as_bytes();
    let half = match bytes.len().checked_sub(6).map(|from| &bytes[from..]) {
        Some([b'\\', b'u', b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B', ..]) => bytes.len() - 6,
        _ => return bytes.len(),
    };
    // `\\ud83d` is an escaped backslash and five plain letters: only an odd run of backslashes begins an escape.
    let backslashes = bytes[..=half].iter().rev().take_while(|&&b| b == b'\\').count();
    if backslashes % 2 == 1 { half } else { bytes.len() }
}

/// Appends `text` as a JSON string, quotes included.
pub(crate) fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let short = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(&text[plain_from..at]);
        if short.is_empty() {
            out.push_str("\\u00");
            out.extend([byte >> 4, byte & 0xf].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])));
        } else {
            out.push_str(short);
        }
        plain_from = at + 1;
    }
    out.push_str(&text[plain_from..]);
    out.push('"');
}

/// Prints the object `text` with the values of some keys replaced and everything else as it was, white space included.
///
/// Of a repeated key the last one counts, as everywhere in JSON. A key that `text` lacks is added at the end.
///
/// # Errors
/// When `text` is no JSON object.
pub(crate) fn replace(text: &str, with: &[(&str, String)]) -> Result<String, serde_json::Error> {
    let mut places: Vec<Option<std::ops::Range<usize>>> = vec![None; with.len()];
    let mut is_empty = true;
    members(text, |key, value| {
        is_empty = false;
        if let Some(at) = with.iter().position(|(name, _)| *name == key) {
            let from = value.get().as_ptr() as usize - text.as_ptr() as usize;
            places[at] = Some(from..from + value.get().len());
        }
    })?;
    let mut order: Vec<usize> = (0..with.len()).collect();
    order.sort_by_key(|&at| places[at].as_ref().map_or(usize::MAX, |place| place.start));
    let mut out = String::with_capacity(text.len() + with.iter().map(|(k, v)| k.len() + v.len() + 4).sum::<usize>());
    let mut done = 0;
    let end = text.rfind('}').unwrap_or(text.len());
    for at in order {
        let (key, value) = &with[at];
        if let Some(place) = places[at].take() {
            out.push_str(&text[done..place.start]);
            done = place.end;
        } else {
            out.push_str(&text[done..end]);
            done = end;
            if !std::mem::take(&mut is_empty) {
                out.push(',');
            }
            push_quoted(&mut out, key);
            out.push(':');
        }
        out.push_str(value);
    }
    out.push_str(&text[done..]);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::{push_quoted, replace, showable, unescape};

    #[track_caller]
    fn check_replaced(text: &str, with: &[(&str, &str)], want: &str) {
        let with: Vec<_> = with.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        assert_eq!(replace(text, &with).unwrap(), want);
    }

    #[test]
    fn replacing_touches_only_the_values_named() {
        check_replaced(r#"{ "a" : 1 , "b":[ 1.0 ] }"#, &[("a", "2")], r#"{ "a" : 2 , "b":[ 1.0 ] }"#);
        check_replaced(r#"{"b":1,"a":2}"#, &[("a", "3"), ("b", "4")], r#"{"b":4,"a":3}"#);
        check_replaced(r#"{"\u0061":1}"#, &[("a", "2")], r#"{"\u0061":2}"#);
    }

    #[test]
    fn of_a_repeated_key_the_last_one_counts() {
        check_replaced(r#"{"a":1,"a":2}"#, &[("a", "3")], r#"{"a":1,"a":3}"#);
    }

    #[test]
    fn a_key_that_was_absent_is_added_at_the_end() {
        check_replaced("{ }", &[("a", "1"), ("b", "2")], r#"{ "a":1,"b":2}"#);
        check_replaced(r#"{"x":"}"}"#, &[("a", "1")], r#"{"x":"}","a":1}"#);
    }

    #[test]
    fn escapes_are_resolved_and_lone_halves_survive() {
        for (body, want) in [
            ("plain", "plain"),
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r"caf\u00e9 \u00E9", "café é"),
            (r"\ud83d\ude00!", "😀!"),
            (r"\ud83d!", "\u{fffd}!"),
            (r"\ud83d\u0041", "\u{fffd}A"),
            (r"\ude00", "\u{fffd}"),
        ] {
            assert_eq!(unescape(body), want, "{body}");
        }
    }

    #[test]
    fn the_first_half_of_a_pair_waits_for_the_second() {
        for (body, want) in [(r"a\ud83d", 1), (r"a\ud83d\ude00", 13), (r"a\\ud83d", 8), (r"\\\uDBFF", 2), ("", 0)] {
            assert_eq!(showable(body), want, "{body}");
        }
    }

    #[test]
    fn a_quoted_text_reads_back() {
        for text in ["", "plain", "\"\\\n\r\t\u{0}\u{1f}\u{7f} é 😀"] {
            let mut out = String::new();
            push_quoted(&mut out, text);
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }
}
