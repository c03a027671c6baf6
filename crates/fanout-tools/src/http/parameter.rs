//! One input with a place of its own: a parameter as a description of an API spells it.
//!
//! From the author, or from an OpenAPI document: which field goes where, under which name, in which style.
//! To `request`, which asks for its pairs or its text.
//!
//! Nothing is encoded here but what would be read as the style's own marks.

use fanout_core::tool::ToolError;
use http::{HeaderName, HeaderValue};
use percent_encoding::utf8_percent_encode;
use serde_json::Value;

use super::address::ENCODED;
use crate::value::{any_text, scalar_text};

/// A field of the input, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The field of the input; all of it goes where this says.
    pub field: String,
    /// What the far side calls it.
    pub name: String,
    /// Where it goes.
    pub place: ParameterPlace,
    /// How a value that is no scalar is spelled.
    pub style: Style,
}

/// Where a parameter goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterPlace {
    /// Into the path, where the template of the URL names the field.
    Path,
    /// Into the query.
    Query,
    /// A header.
    Header,
    /// A pair of the header `cookie`.
    Cookie,
    /// A pair of a form.
    Form,
}

/// How values are spelled; the words and the rules are those of OpenAPI 3.1 (Parameter Object, `style`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `a=1&a=2`, and an object's fields as pairs of their own.
    Exploded,
    /// `1,2`, and an object as `key,value,key,value`; as pairs `a=1,2`.
    Commas,
    /// `key=value,key=value` for an object, else as [`Style::Commas`]: an exploded `simple`.
    Assignments,
    /// `1 2`.
    Spaces,
    /// `1|2`.
    Pipes,
    /// `a[key]=value`, and so on inside; an array's elements are numbered, as Stripe and PHP read them.
    Deep,
    /// JSON text: a parameter described by its `content`.
    Json,
}

impl Parameter {
    /// The pairs that a value makes in a query or a form; `null` makes none.
    pub(super) fn pairs(&self, value: &Value) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        match (self.style, value) {
            (_, Value::Null) => {}
            (Style::Exploded, Value::Array(elements)) => {
                pairs.extend(elements.iter().filter_map(any_text).map(|text| (self.name.clone(), text)));
            }
            (Style::Exploded, Value::Object(fields)) => {
                pairs.extend(fields.iter().filter_map(|(key, value)| Some((key.clone(), any_text(value)?))));
            }
            (Style::Deep, value) => deep(&mut pairs, &self.name, value),
            (_, value) => pairs.extend(self.text(value).map(|text| (self.name.clone(), text))),
        }
        pairs
    }

    /// A value as one text; `None` for `null`.
    pub(super) fn text(&self, value: &Value) -> Option<String> {
        let between = match self.style {
            Style::Spaces => " ",
            Style::Pipes => "|",
            _ => ",",
        };
        match value {
            Value::Array(elements) if self.style != Style::Json => {
                Some(elements.iter().filter_map(any_text).collect::<Vec<_>>().join(between))
            }
            Value::Object(fields) if self.style != Style::Json => {
                let key_from_value = if self.style == Style::Assignments { "=" } else { between };
                let pair = |(key, value): (&String, &Value)| Some(format!("{key}{key_from_value}{}", any_text(value)?));
                Some(fields.iter().filter_map(pair).collect::<Vec<_>>().join(between))
            }
            value => any_text(value),
        }
    }

    /// The header that a value makes.
    ///
    /// # Errors
    /// [`ToolError::BadInput`] when it holds what a header cannot carry, such as a line break: no input begins a header of
    /// its own.
    pub(super) fn header(&self, value: &Value) -> Result<Option<(HeaderName, HeaderValue)>, ToolError> {
        let Some(text) = self.text(value) else { return Ok(None) };
        let header = HeaderName::try_from(&self.name).ok().zip(HeaderValue::from_str(&text).ok());
        let refused = || {
            let field = &self.field;
            ToolError::BadInput(format!(
                "`{field}` cannot be sent: it is a header, and holds a character that none can"
            ))
        };
        header.map(Some).ok_or_else(refused)
    }

    /// `name=value`, encoded so that no value begins a cookie of its own.
    pub(super) fn cookie(&self, value: &Value) -> Option<String> {
        self.text(value).map(|text| format!("{}={}", self.name, utf8_percent_encode(&text, ENCODED)))
    }
}

fn deep(pairs: &mut Vec<(String, String)>, name: &str, value: &Value) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| deep(pairs, &format!("{name}[{key}]"), value)),
        Value::Array(elements) => {
            elements.iter().enumerate().for_each(|(at, value)| deep(pairs, &format!("{name}[{at}]"), value));
        }
        scalar => pairs.extend(scalar_text(scalar).map(|text| (name.to_owned(), text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(style: Style, value: &Value, pairs: &str, text: &str) {
        let parameter = Parameter { field: "f".into(), name: "a".into(), place: ParameterPlace::Query, style };
        let shown: Vec<String> = parameter.pairs(value).iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!((shown.join("&").as_str(), parameter.text(value).unwrap_or_default().as_str()), (pairs, text));
    }

    #[test]
    fn each_style_spells_lists_and_objects_its_own_way() {
        let (list, object) = (json!([1, "b c"]), json!({"x": 1, "y": "z"}));
        for (style, as_list, list_text, as_object, object_text) in [
            (Style::Exploded, "a=1&a=b c", "1,b c", "x=1&y=z", "x,1,y,z"),
            (Style::Commas, "a=1,b c", "1,b c", "a=x,1,y,z", "x,1,y,z"),
            (Style::Assignments, "a=1,b c", "1,b c", "a=x=1,y=z", "x=1,y=z"),
            (Style::Spaces, "a=1 b c", "1 b c", "a=x 1 y z", "x 1 y z"),
            (Style::Pipes, "a=1|b c", "1|b c", "a=x|1|y|z", "x|1|y|z"),
            (Style::Deep, "a[0]=1&a[1]=b c", "1,b c", "a[x]=1&a[y]=z", "x,1,y,z"),
            (Style::Json, "a=[1,\"b c\"]", "[1,\"b c\"]", "a={\"x\":1,\"y\":\"z\"}", "{\"x\":1,\"y\":\"z\"}"),
        ] {
            check(style, &list, as_list, list_text);
            check(style, &object, as_object, object_text);
            check(style, &json!(7.0), "a=7", "7");
            check(style, &json!(null), "", "");
        }
        check(Style::Deep, &json!({"x": [{"y": true}]}), "a[x][0][y]=true", "x,[{\"y\":true}]");
    }

    #[test]
    fn no_value_begins_a_header_or_a_cookie_of_its_own() {
        let of = |place| Parameter { field: "f".into(), name: "x-a".into(), place, style: Style::Commas };
        let header = of(ParameterPlace::Header);
        assert!(header.header(&json!("a\r\nx-evil: 1")).is_err());
        let (name, value) = header.header(&json!(["a", 1])).unwrap().unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("x-a", "a,1"));
        assert_eq!(of(ParameterPlace::Cookie).cookie(&json!("a; b=c")).unwrap(), "x-a=a%3B%20b%3Dc");
    }
}
