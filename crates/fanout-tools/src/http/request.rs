//! What a call sends: its inputs laid into path, query and body.
//!
//! From `tool`: the endpoint as its author described it, and the input of one call.
//! To `client`, as an address and a body. The same input makes the same bytes, so that a second attempt is a repeat.
//!
//! The author's own headers are filled in `header`: an input is one only where a template or a parameter says so.

use std::borrow::Cow;

use fanout_core::tool::ToolError;
use http::{HeaderMap, HeaderValue, Method, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use url::Url;

use super::address::Address;
use super::header::Header;
use super::parameter::{Parameter, ParameterPlace};
use crate::text::Text;
use crate::value::{any_text, lookup};

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
    /// The one input that is left, as JSON; without it no body.
    Value,
    /// `multipart/form-data`: a part for each input that is left; arrays repeat the name, objects are JSON text.
    Multipart,
    /// None at all.
    Nothing,
}

/// Where the inputs go.
#[derive(Clone)]
pub(super) struct Layout {
    pub(super) method: Method,
    pub(super) address: Address,
    pub(super) query: Vec<(String, Text)>,
    /// Those that a call fills.
    pub(super) headers: Vec<Header>,
    /// `None`: what is left goes into the query.
    pub(super) body: Option<Body>,
    /// Inputs with a place of their own.
    pub(super) parameters: Vec<Parameter>,
    /// Names in the body, where they differ from the field's.
    pub(super) renamed: Vec<(String, String)>,
    /// Without any input for it, no body is sent.
    pub(super) body_optional: bool,
    /// Pairs of the query and cookies that are always sent; secrets.
    pub(super) fixed: Vec<(ParameterPlace, String, SecretString)>,
}

/// What is sent, the author's own headers aside.
pub(super) struct Prepared {
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Payload>,
}

/// A body and what it is.
pub(super) struct Payload {
    pub(super) content_type: HeaderValue,
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

    /// Whether path, query, a header or a parameter take the whole of this field. One that they only look into is still
    /// sent.
    pub(super) fn takes(&self, name: &str) -> bool {
        let of_headers = self.headers.iter().flat_map(Header::fields);
        self.parameters.iter().any(|parameter| parameter.field == name)
            || self.fields().chain(of_headers).any(|field| matches!(field, [only] if only == name))
    }

    /// Lays out one input.
    ///
    /// # Errors
    /// [`ToolError::BadInput`] when the input makes no address or no header, or does not fit a raw body. Nothing was sent.
    pub(super) fn prepare(&self, input: &Value) -> Result<Prepared, ToolError> {
        let mut url = self.address.fill(&self.for_path(input))?;
        let mut query = Vec::new();
        for (name, text) in &self.query {
            match text.only_field() {
                Some(field) => spread(&mut query, name, lookup(input, field)),
                None => query.extend(text.fill(input).map(|text| (name.clone(), text))),
            }
        }
        query.extend(self.given(input, ParameterPlace::Query).flat_map(|(parameter, value)| parameter.pairs(value)));
        query.extend(self.fixed(ParameterPlace::Query).map(|(name, value)| (name.to_owned(), value.to_owned())));
        let left: Vec<(&String, &Value)> =
            input.as_object().into_iter().flatten().filter(|(name, _)| !self.takes(name)).collect();
        let body = match self.body {
            None => {
                left.iter().for_each(|(name, value)| spread(&mut query, name, Some(value)));
                None
            }
            Some(body) => self.body(body, input, &left)?,
        };
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(Prepared { url, headers: self.headers(input)?, body })
    }

    /// The parameters of one place that the input has.
    fn given<'a>(
        &'a self,
        input: &'a Value,
        place: ParameterPlace,
    ) -> impl Iterator<Item = (&'a Parameter, &'a Value)> {
        let of_place = self.parameters.iter().filter(move |parameter| parameter.place == place);
        of_place.filter_map(|parameter| Some((parameter, input.get(&parameter.field)?)))
    }

    fn fixed(&self, place: ParameterPlace) -> impl Iterator<Item = (&str, &str)> {
        let of_place = self.fixed.iter().filter(move |(of, ..)| *of == place);
        of_place.map(|(_, name, value)| (name.as_str(), value.expose_secret()))
    }

    /// The input as the path takes it: lists and objects spelled as one text. It stays one segment, whatever it holds.
    fn for_path<'a>(&self, input: &'a Value) -> Cow<'a, Value> {
        let mut spelled = Cow::Borrowed(input);
        for (parameter, value) in self.given(input, ParameterPlace::Path) {
            if let (true, Some(text)) = (value.is_array() || value.is_object(), parameter.text(value))
                && let Value::Object(fields) = spelled.to_mut()
            {
                fields.insert(parameter.field.clone(), Value::String(text));
            }
        }
        spelled
    }

    fn headers(&self, input: &Value) -> Result<HeaderMap, ToolError> {
        let mut headers = HeaderMap::new();
        for (parameter, value) in self.given(input, ParameterPlace::Header) {
            headers.extend(parameter.header(value)?);
        }
        let fixed = self.fixed(ParameterPlace::Cookie).map(|(name, value)| format!("{name}={value}"));
        let given = self.given(input, ParameterPlace::Cookie).filter_map(|(parameter, value)| parameter.cookie(value));
        let cookies: Vec<String> = fixed.chain(given).collect();
        if !cookies.is_empty() {
            let unsendable = |_| ToolError::BadInput("the cookies of this call cannot be sent".to_owned());
            let mut value = HeaderValue::from_str(&cookies.join("; ")).map_err(unsendable)?;
            value.set_sensitive(true);
            headers.insert(header::COOKIE, value);
        }
        Ok(headers)
    }

    fn body(&self, body: Body, input: &Value, left: &[(&String, &Value)]) -> Result<Option<Payload>, ToolError> {
        let mut pairs = Vec::new();
        if matches!(body, Body::Form | Body::Multipart) {
            let parameters = self.given(input, ParameterPlace::Form);
            pairs.extend(parameters.flat_map(|(parameter, value)| parameter.pairs(value)));
            left.iter().for_each(|(name, value)| spread(&mut pairs, self.wire_name(name), Some(value)));
        }
        if self.body_optional && left.is_empty() && pairs.is_empty() {
            return Ok(None);
        }
        Ok(match body {
            Body::Json => {
                let pair = |(name, value): &(&String, &Value)| (self.wire_name(name).to_owned(), (*value).clone());
                let object: Map<String, Value> = left.iter().map(pair).collect();
                Some(Payload::new("application/json", Value::Object(object).to_string()))
            }
            Body::Form => {
                let text = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
                Some(Payload::new("application/x-www-form-urlencoded", text))
            }
            Body::Raw => Some(raw(left)?),
            Body::Value => left.first().map(|(_, value)| Payload::new("application/json", value.to_string())),
            Body::Multipart => Some(multipart(&pairs)?),
            Body::Nothing => None,
        })
    }

    fn wire_name<'a>(&'a self, field: &'a str) -> &'a str {
        let renamed = self.renamed.iter().find(|(from, _)| from == field);
        renamed.map_or(field, |(_, name)| name.as_str())
    }
}

impl Payload {
    fn new(content_type: &'static str, text: String) -> Self {
        Self { content_type: HeaderValue::from_static(content_type), bytes: text.into_bytes() }
    }
}

/// The pairs as parts. The boundary is found from the pairs alone, so that a second attempt is a repeat.
fn multipart(pairs: &[(String, String)]) -> Result<Payload, ToolError> {
    let mut boundary = "fanout-boundary".to_owned();
    while pairs.iter().any(|(name, value)| name.contains(&boundary) || value.contains(&boundary)) {
        boundary.push('-');
    }
    let mut text = String::new();
    for (name, value) in pairs {
        // As browsers spell them (HTML, "multipart/form-data"): a name cannot end its own header.
        let name = name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A");
        text.push_str(&format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"));
    }
    text.push_str(&format!("--{boundary}--\r\n"));
    let content_type = HeaderValue::from_str(&format!("multipart/form-data; boundary={boundary}"))
        .map_err(|_| ToolError::BadInput("the parts of the body cannot be told apart".to_owned()))?;
    Ok(Payload { content_type, bytes: text.into_bytes() })
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
        [(_, Value::String(text))] => Ok(Payload::new("text/plain; charset=utf-8", text.clone())),
        [(_, value)] => Ok(Payload::new("application/json", value.to_string())),
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
            headers: Vec::new(),
            parameters: Vec::new(),
            renamed: Vec::new(),
            body_optional: false,
            fixed: Vec::new(),
        };
        let text = match layout.prepare(input) {
            Ok(prepared) => {
                let body = prepared.body.map(|body| {
                    format!(" {}: {}", body.content_type.to_str().unwrap(), String::from_utf8(body.bytes).unwrap())
                });
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
