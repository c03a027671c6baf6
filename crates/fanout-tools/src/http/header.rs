//! A header that is not the same in every request: an input stands in it, or the end user's token.
//!
//! From `builder`: a name that is fixed, and a text. To `tool`, which fills it for each attempt.
//!
//! No input makes a header of its own or ends one early. Never printed: the text may hold secrets.

use std::borrow::Cow;

use fanout_core::tool::ToolError;
use http::header::{ACCEPT, COOKIE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::utf8_percent_encode;
use serde_json::Value;

use super::address::ENCODED;
use super::builder::HttpToolError;
use super::credential::Credential;
use super::tool::IDEMPOTENCY_KEY;
use crate::text::{Piece, Text};
use crate::value::{any_text, lookup};

/// Headers that belong to the connection and not to the author.
const RESERVED: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A header as its author wrote it.
pub(super) struct Written {
    pub(super) name: String,
    pub(super) value: Credential,
    /// Braces in it are braces.
    pub(super) plain: bool,
}

/// The headers of a tool: those that are always the same, and those that a call fills.
pub(super) struct Headers {
    pub(super) fixed: HeaderMap,
    pub(super) filled: Vec<Header>,
}

/// A header that a call fills.
#[derive(Clone)]
pub(super) struct Header {
    name: HeaderName,
    /// The texts before, between and after the end user's tokens.
    texts: Vec<Text>,
}

impl Headers {
    /// Reads the headers of a tool.
    pub(super) fn read(written: &[Written]) -> Result<Self, HttpToolError> {
        let (mut fixed, mut filled) = (HeaderMap::new(), Vec::new());
        fixed.insert(ACCEPT, HeaderValue::from_static("application/json, text/*;q=0.9, */*;q=0.8"));
        fixed.insert(USER_AGENT, HeaderValue::from_static(concat!("fanout/", env!("CARGO_PKG_VERSION"))));
        for written in written {
            let header = Header::read(written)?;
            match header.fixed() {
                Some(value) => drop(fixed.insert(header.name, value)),
                None => filled.push(header),
            }
        }
        Ok(Self { fixed, filled })
    }
}

impl Header {
    fn read(Written { name, value, plain }: &Written) -> Result<Self, HttpToolError> {
        let unsendable = || HttpToolError::Header { name: name.clone() };
        let header = HeaderName::try_from(name).map_err(|_| unsendable())?;
        if RESERVED.contains(&header.as_str()) {
            return Err(HttpToolError::ReservedHeader { name: name.clone() });
        }
        let read = |text: &str| {
            let doubled = plain.then(|| text.replace('{', "{{").replace('}', "}}"));
            let text = Text::parse(doubled.as_deref().unwrap_or(text));
            text.ok_or_else(|| HttpToolError::HeaderTemplate { name: name.clone() })
        };
        let texts = value.texts().map(read).collect::<Result<Vec<_>, _>>()?;
        let header = Self { name: header, texts };
        if header.name == IDEMPOTENCY_KEY && header.fields().next().is_some() {
            return Err(HttpToolError::IdempotencyKey);
        }
        let literals = header.texts.iter().flat_map(Text::pieces).filter_map(|piece| match piece {
            Piece::Literal(text) => Some(text),
            Piece::Field(_) => None,
        });
        if literals.into_iter().any(|text| HeaderValue::from_str(text).is_err()) {
            return Err(unsendable());
        }
        Ok(header)
    }

    pub(super) fn name(&self) -> &HeaderName {
        &self.name
    }

    /// Every input that it names, as a path into the input.
    pub(super) fn fields(&self) -> impl Iterator<Item = &[String]> {
        self.texts.iter().flat_map(Text::fields)
    }

    /// Whether it holds the token of an end user.
    pub(super) fn needs_token(&self) -> bool {
        self.texts.len() > 1
    }

    /// Its value, if that is always the same.
    fn fixed(&self) -> Option<HeaderValue> {
        match self.texts.as_slice() {
            [] => Some(HeaderValue::from_static("")),
            [text] => sensitive(text.literal()?),
            _ => None,
        }
    }

    /// Its value for an input and an end user; `None` when one of its inputs is absent. An array that is all of it is a list
    /// with commas.
    ///
    /// # Errors
    /// [`ToolError::BadInput`] when an input holds what no header can carry, such as a line break;
    /// [`ToolError::NotPermitted`] when the token does. Nothing was sent.
    pub(super) fn fill(&self, input: &Value, token: &str) -> Result<Option<HeaderValue>, ToolError> {
        let mut filled = String::new();
        for (at, text) in self.texts.iter().enumerate() {
            if at > 0 {
                filled.push_str(token);
            }
            for piece in text.pieces() {
                match piece {
                    Piece::Literal(text) => filled.push_str(text),
                    Piece::Field(field) => match self.spelled(input, field)? {
                        Some(text) => filled.push_str(&text),
                        None => return Ok(None),
                    },
                }
            }
        }
        // Blanks at its ends belong to no value (RFC 9110, 5.5), and HTTP/2 refuses them.
        let unsendable = || {
            ToolError::NotPermitted(format!(
                "the end user's token cannot be sent in the header `{}`: have the user sign in again",
                self.name
            ))
        };
        sensitive(filled.trim_matches([' ', '\t'])).map(Some).ok_or_else(unsendable)
    }

    fn spelled(&self, input: &Value, field: &[String]) -> Result<Option<String>, ToolError> {
        let Some(value) = lookup(input, field) else { return Ok(None) };
        let is_all = self.texts.len() == 1 && self.texts.iter().all(|text| text.only_field().is_some());
        let text = match value {
            Value::Array(elements) if elements.is_empty() => None,
            Value::Array(elements) if is_all => {
                Some(elements.iter().filter_map(any_text).collect::<Vec<_>>().join(", "))
            }
            value => any_text(value),
        };
        let Some(text) = text else { return Ok(None) };
        let text = match self.name {
            // A `;` would begin another cookie.
            COOKIE => Cow::from(utf8_percent_encode(&text, ENCODED)).into_owned(),
            _ => text,
        };
        if HeaderValue::from_str(&text).is_err() {
            return Err(ToolError::BadInput(format!(
                "`{}` cannot be sent in the header `{}`: it holds a line break, a NUL or another control character, and no \
                 header can",
                field.join("."),
                self.name
            )));
        }
        Ok(Some(text))
    }
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(name: &str, value: impl Into<Credential>) -> Result<Headers, HttpToolError> {
        Headers::read(&[Written { name: name.to_owned(), value: value.into(), plain: false }])
    }

    #[track_caller]
    fn check(name: &str, template: &str, input: &Value, value: &str) {
        let headers = read(name, template).unwrap();
        let came = match headers.filled.first().map(|header| header.fill(input, "")) {
            None => headers.fixed[name].to_str().unwrap().to_owned(),
            Some(Ok(value)) => {
                value.map_or("absent".to_owned(), |value| String::from_utf8_lossy(value.as_bytes()).into())
            }
            Some(Err(error)) => error.to_string(),
        };
        assert_eq!(came, value, "{template}");
    }

    #[test]
    fn an_input_is_a_header_or_a_part_of_one() {
        let input = json!({"t": "acme", "n": 7.0, "o": {"x": "é"}, "l": ["a", 1, null], "e": [], "none": null});
        for (template, value) in [
            ("{t}", "acme"),
            ("a-{t}-{n}", "a-acme-7"),
            ("{o.x}", "é"),
            ("{o}", "{\"x\":\"é\"}"),
            ("{l}", "a, 1"),
            ("l={l}", "l=[\"a\",1,null]"),
            ("{e}", "absent"),
            ("{none}", "absent"),
            ("a{gone}", "absent"),
            ("{{t}}", "{t}"),
            ("{{\"t\": \"{t}\"}}", "{\"t\": \"acme\"}"),
        ] {
            check("x-a", template, &input, value);
        }
        check("x-a", "{t}", &json!({"t": " b\t"}), "b");
        check("cookie", "session={t}", &json!({"t": "a; admin=1"}), "session=a%3B%20admin%3D1");
    }

    #[test]
    fn what_no_header_can_carry_is_named() {
        let why = "it holds a line break, a NUL or another control character, and no header can";
        for nasty in ["a\r\nx-evil: 1", "\n", "a\0", "\x7f", "\x1b[0m"] {
            check("x-a", "b {t}", &json!({ "t": nasty }), &format!("`t` cannot be sent in the header `x-a`: {why}"));
        }
        check("x-a", "{o.t}", &json!({"o": {"t": "\r"}}), &format!("`o.t` cannot be sent in the header `x-a`: {why}"));
    }

    #[test]
    fn inputs_and_the_end_users_token_stand_in_one_header() {
        let value = Credential::around_token(["{t}:".into(), "".into()]);
        let headers = read("x-a", value).unwrap();
        let header = &headers.filled[0];
        assert!(header.needs_token());
        assert_eq!(header.fill(&json!({"t": "acme"}), "t0ken").unwrap().unwrap(), "acme:t0ken");
        assert!(matches!(header.fill(&json!({"t": "acme"}), "a\nb"), Err(ToolError::NotPermitted(_))));
        assert!(matches!(header.fill(&json!({"t": "a\nb"}), "t0ken"), Err(ToolError::BadInput(_))));
    }
}
