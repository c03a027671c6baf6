//! What a call sends: its inputs laid into path, query and body.
//!
//! From `tool`: the endpoint as its author described it, and the input of one call.
//! To `client`, as an address and a body. The same input makes the same bytes, so that a second attempt is a repeat.
//!
//! Headers are not here: no input can reach them.

use fanout_core::tool::ToolError;
use http::Method;
use serde_json::{Map, Value};
use url::Url;

use super::address::{Address, Text, any_text, lookup};

/// How the inputs that are neither in the path nor in the query are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// One JSON object.
    #[default]
    Json,
    /// `application/x-www-form-urlencoded`: arrays repeat the name, objects are JSON text.
    Form,
    /// The one input that is left, as it is.
    Raw,
}

/// Where the inputs go.
#[derive(Clone)]
pub(super) struct Layout {
    pub(super) method: Method,
    pub(super) address: Address,
    pub(super) query: Vec<(String, Text)>,
    /// `None`: what is left goes into the query.
    pub(super) body: Option<Body>,
}

/// What is sent, headers aside.
pub(super) struct Prepared {
    pub(super) url: Url,
    pub(super) body: Option<Payload>,
}

/// A body and what it is.
pub(super) struct Payload {
    pub(super) content_type: &'static str,
    pub(super) bytes: Vec<u8>,
}

impl Layout {
    /// The method's own place for inputs that are not named elsewhere.
    pub(super) fn default_body(method: &Method) -> Option<Body> {
        (!matches!(*method, Method::GET | Method::HEAD | Method::DELETE)).then_some(Body::Json)
    }

    /// Every field that path and query name, as a path into the input.
    pub(super) fn fields(&self) -> impl Iterator<Item = &[String]> {
        self.address.fields().chain(self.query.iter().flat_map(|(_, text)| text.fields()))
    }

    /// Whether path or query take the whole of this field. One that they only look into is still sent.
    pub(super) fn takes(&self, name: &str) -> bool {
        self.fields().any(|field| matches!(field, [only] if only == name))
    }

    /// Lays out one input.
    ///
    /// # Errors
    /// [`ToolError::BadInput`] when the input makes no address, or does not fit a raw body. Nothing was sent.
    pub(super) fn prepare(&self, input: &Value) -> Result<Prepared, ToolError> {
        let mut url = self.address.fill(input)?;
        let mut query = Vec::new();
        for (name, text) in &self.query {
            match text.only_field() {
                Some(field) => spread(&mut query, name, lookup(input, field)),
                None => query.extend(text.fill(input).map(|text| (name.clone(), text))),
            }
        }
        let left = input.as_object().into_iter().flatten().filter(|(name, _)| !self.takes(name));
        let body = match self.body {
            None => {
                left.for_each(|(name, value)| spread(&mut query, name, Some(value)));
                None
            }
            Some(Body::Json) => {
                let object: Map<String, Value> = left.map(|(name, value)| (name.clone(), value.clone())).collect();
                Some(Payload {
                    content_type: "application/json",
                    bytes: Value::Object(object).to_string().into_bytes(),
                })
            }
            Some(Body::Form) => {
                let mut pairs = Vec::new();
                left.for_each(|(name, value)| spread(&mut pairs, name, Some(value)));
                let text = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
                Some(Payload { content_type: "application/x-www-form-urlencoded", bytes: text.into_bytes() })
            }
            Some(Body::Raw) => Some(raw(&left.collect::<Vec<_>>())?),
        };
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(Prepared { url, body })
    }
}

/// A value as pairs of query or form: an array repeats the name, `null` and the absent make none.
fn spread(pairs: &mut Vec<(String, String)>, name: &str, value: Option<&Value>) {
    let values = match value {
        Some(Value::Array(elements)) => elements.as_slice(),
        Some(value) => std::slice::from_ref(value),
        None => &[],
    };
    pairs.extend(values.iter().filter_map(any_text).map(|text| (name.to_owned(), text)));
}

fn raw(left: &[(&String, &Value)]) -> Result<Payload, ToolError> {
    match left {
        [(_, Value::String(text))] => {
            Ok(Payload { content_type: "text/plain; charset=utf-8", bytes: text.clone().into_bytes() })
        }
        [(_, value)] => Ok(Payload { content_type: "application/json", bytes: value.to_string().into_bytes() }),
        _ => Err(ToolError::BadInput(format!(
            "the body of this tool is one input as it is, but the input holds {} fields for it",
            left.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(method: Method, url: &str, query: &[(&str, &str)], body: Option<Body>, input: &Value, sent: &str) {
        let layout = Layout {
            body: body.or(Layout::default_body(&method)),
            method,
            address: Address::parse(url).unwrap(),
            query: query.iter().map(|(name, text)| ((*name).to_owned(), Text::parse(text).unwrap())).collect(),
        };
        let text = match layout.prepare(input) {
            Ok(prepared) => {
                let body = prepared
                    .body
                    .map(|body| format!(" {}: {}", body.content_type, String::from_utf8(body.bytes).unwrap()));
                format!("{}{}", &prepared.url[url::Position::BeforePath..], body.unwrap_or_default())
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(text, sent);
    }

    #[test]
    fn what_is_not_in_the_path_goes_into_the_query_of_a_get() {
        let input = json!({"id": 7, "verbose": true, "tags": ["a", "b c"], "where": {"x": 1}, "none": null});
        let sent = "/u/7?tags=a&tags=b+c&verbose=true&where=%7B%22x%22%3A1%7D";
        for method in [Method::GET, Method::HEAD, Method::DELETE] {
            check(method, "https://a.example/u/{id}", &[], None, &input, sent);
        }
    }

    #[test]
    fn what_is_not_in_the_path_is_the_json_body_of_a_post() {
        let input = json!({"id": 7, "n": 2, "note": null});
        let sent = r#"/u/7 application/json: {"n":2,"note":null}"#;
        check(Method::POST, "https://a.example/u/{id}", &[], None, &input, sent);
        check(Method::PATCH, "https://a.example/u/{id}", &[], None, &json!({"id": 7}), "/u/7 application/json: {}");
        check(Method::DELETE, "https://a.example/u/{id}", &[], Some(Body::Json), &input, sent);
    }

    #[test]
    fn a_query_that_is_written_out_takes_its_inputs_out_of_the_body() {
        let query = [("q", "{text}"), ("tag", "{tags}"), ("fixed", "1"), ("mixed", "a-{text}-{n}"), ("gone", "{x}")];
        let input = json!({"text": "a&b", "tags": ["x", "y"], "n": 2, "rest": 1});
        let sent = r#"/?q=a%26b&tag=x&tag=y&fixed=1&mixed=a-a%26b-2 application/json: {"rest":1}"#;
        check(Method::POST, "https://a.example/", &query, None, &input, sent);
    }

    #[test]
    fn a_query_of_the_url_stays_and_grows() {
        let url = "https://a.example/?v=2&q={q}";
        check(Method::GET, url, &[], None, &json!({"q": "x y", "n": 1}), "/?v=2&q=x%20y&n=1");
    }

    #[test]
    fn a_field_that_is_only_looked_into_is_still_sent() {
        let sent = r#"/7 application/json: {"order":{"id":7}}"#;
        check(Method::PUT, "https://a.example/{order.id}", &[], None, &json!({"order": {"id": 7}}), sent);
    }

    #[test]
    fn a_form_is_spelled_like_a_query() {
        let sent = "/ application/x-www-form-urlencoded: a=1&b=x&b=y";
        check(Method::POST, "https://a.example/", &[], Some(Body::Form), &json!({"a": 1, "b": ["x", "y"]}), sent);
    }

    #[test]
    fn a_raw_body_is_the_one_input_that_is_left() {
        let url = "https://a.example/{id}";
        let raw = Some(Body::Raw);
        check(Method::PUT, url, &[], raw, &json!({"id": 1, "t": "a\nb"}), "/1 text/plain; charset=utf-8: a\nb");
        check(Method::PUT, url, &[], raw, &json!({"id": 1, "t": [1]}), "/1 application/json: [1]");
        let two = "the body of this tool is one input as it is, but the input holds 2 fields for it";
        check(Method::PUT, url, &[], raw, &json!({"id": 1, "t": 1, "u": 2}), two);
    }
}
