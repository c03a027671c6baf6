//! Texts with inputs in them, such as `{order.id}` and `--max={n}`.
//!
//! From the author of a tool: the text. To URLs, queries, headers and arguments, which fill inputs into it, each in its own
//! spelling.
//!
//! One rule for all of them: `{name}` is an input, `{a.b}` a field of one, `{{` and `}}` are plain braces. What must be
//! encoded where is not known here.

use serde_json::Value;

use crate::value::{any_text, lookup};

/// Text with fields in it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Text(Vec<Piece>);

/// A part of a text; no two literals stand side by side, and none is empty.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// As it is.
    Literal(String),
    /// A path into the input.
    Field(Vec<String>),
}

impl Text {
    /// Reads a text; `None` for a brace without its partner, or one around what cannot be a name, such as `{}`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = rest.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else {
                let (name, after) = rest.strip_prefix('{')?.split_once('}')?;
                let name: Vec<String> = name.split('.').map(str::to_owned).collect();
                if name.iter().any(|part| part.is_empty() || part.contains(['{', '/', '?', ' ', '"'])) {
                    return None;
                }
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::Field(name));
                rest = after;
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Some(Self(pieces))
    }

    /// Its parts, in order.
    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// Every field that it names, as a path into the input.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &[String]> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Field(field) => Some(field.as_slice()),
            Piece::Literal(_) => None,
        })
    }

    /// The field that it is all made of, as in `"{tags}"`.
    pub(crate) fn only_field(&self) -> Option<&[String]> {
        match self.0.as_slice() {
            [Piece::Field(field)] => Some(field),
            _ => None,
        }
    }

    /// The whole text, if it names no field.
    pub(crate) fn literal(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The text with the inputs in it; `None` when one of them is absent.
    pub(crate) fn fill(&self, input: &Value) -> Option<String> {
        let mut filled = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => filled.push_str(text),
                Piece::Field(field) => filled.push_str(&any_text(lookup(input, field)?)?),
            }
        }
        Some(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(text: &str, filled: Option<&str>) {
        let text = Text::parse(text).expect("it can be read");
        assert_eq!(text.fill(&json!({"x": 1, "a": {"b": [2]}})).as_deref(), filled);
    }

    #[test]
    fn fields_are_filled_in_and_doubled_braces_are_plain() {
        for (text, filled) in [
            ("", Some("")),
            ("a", Some("a")),
            ("{x}", Some("1")),
            ("-{x}-{a.b}", Some("-1-[2]")),
            ("{{x}}", Some("{x}")),
            ("{{{x}}}", Some("{1}")),
            ("a}}{{b", Some("a}{b")),
            ("{y}", None),
        ] {
            check(text, filled);
        }
    }

    #[test]
    fn a_brace_without_its_partner_or_a_name_is_none() {
        for text in ["{", "}", "{}", "{x", "x}", "{a/b}", "{a..b}", "{a?}", "{\"x\": 1}", "{{x}"] {
            assert!(Text::parse(text).is_none(), "{text}");
        }
    }
}
