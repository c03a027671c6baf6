//! Where a call goes: the template of a URL, and the inputs in it.
//!
//! From the tool's author: `https://api.example.com/users/{user_id}?fields={fields}`.
//! To `request`: an address whose scheme, host and port no input can change, and in whose path each input is one segment
//! or a part of one.
//!
//! Nothing is sent here.

use fanout_core::tool::ToolError;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use url::Url;

use crate::text::{Piece, Text};
use crate::value::{any_text, lookup, scalar_text};

/// All but the unreserved characters of RFC 3986: what is left means nothing to anybody.
pub(super) const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a text is not the template of a URL. None repeats what may be a secret: the query and the user's part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither `http://` nor `https://`.
    #[error("a url must start with `https://` or `http://`")]
    Scheme,
    /// An input would choose where the call goes.
    #[error(
        "the scheme, host and port of a url must be fixed: fields such as `{{id}}` can only stand in its path and query"
    )]
    FieldInHost,
    /// `user:password@host`.
    #[error("a url must not carry a user or a password: put them into the header `authorization`")]
    User,
    /// The host or the port cannot be read.
    #[error("a url needs a host behind `://`, as in `https://api.example.com`, not `{0}`")]
    Host(String),
    /// `#…` is never sent.
    #[error("a url must not carry a fragment (`#…`): it would not be sent")]
    Fragment,
    /// A brace without its partner, or `{}`.
    #[error(
        "a `{{` in a url needs a field name and a `}}`, as in `https://api.example.com/users/{{user_id}}`; a plain brace is \
         written twice"
    )]
    Brace,
    /// `.` or `..` as a segment, a backslash, or a control character.
    #[error(
        "the path of a url must not hold `.` or `..` as a segment, a backslash, white space or a control character"
    )]
    Path,
}

/// A parsed template of a URL.
#[derive(Clone)]
pub(super) struct Address {
    /// Scheme, host and port, such as `https://api.example.com`.
    origin: Url,
    path: Vec<Text>,
    query: Option<Text>,
}

impl Address {
    /// Reads the template of a URL.
    pub(super) fn parse(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::Scheme)?;
        if scheme.contains(['{', '}']) {
            return Err(AddressError::FieldInHost);
        }
        if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
            return Err(AddressError::Scheme);
        }
        let (host, rest) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
        if host.contains(['{', '}']) {
            return Err(AddressError::FieldInHost);
        }
        if host.contains('@') {
            return Err(AddressError::User);
        }
        if rest.contains('#') {
            return Err(AddressError::Fragment);
        }
        let unreadable = |_| AddressError::Host(host.to_owned());
        let origin = Url::parse(&format!("{scheme}://{host}/")).map_err(unreadable)?;
        if origin.host_str().is_none_or(str::is_empty) || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(AddressError::Host(host.to_owned()));
        }
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(Text::parse(query).ok_or(AddressError::Brace)?)),
            None => (rest, None),
        };
        if path.contains(|c: char| c == '\\' || c.is_whitespace() || c.is_control()) {
            return Err(AddressError::Path);
        }
        let segments = path.strip_prefix('/').unwrap_or(path).split('/');
        let path = segments.map(|text| Text::parse(text).ok_or(AddressError::Brace)).collect::<Result<Vec<_>, _>>()?;
        if path.iter().any(|segment| segment.literal().is_some_and(is_dots)) {
            return Err(AddressError::Path);
        }
        Ok(Self { origin, path, query })
    }

    /// The host in lower case, with the port where it is not the scheme's own.
    pub(super) fn host(&self) -> String {
        let host = self.origin.host_str().unwrap_or_default();
        self.origin.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Scheme, host and port.
    pub(super) fn origin(&self) -> &Url {
        &self.origin
    }

    /// Every field that it names, as a path into the input.
    pub(super) fn fields(&self) -> impl Iterator<Item = &[String]> {
        self.path.iter().chain(&self.query).flat_map(Text::fields)
    }

    /// The address of a call with this input, its query only what the template says.
    pub(super) fn fill(&self, input: &Value) -> Result<Url, ToolError> {
        let mut path = String::new();
        for segment in &self.path {
            path.push('/');
            path.push_str(&fill_segment(segment, input)?);
        }
        let mut url = self.origin.clone();
        url.set_path(&path);
        // A second look at what the first should have made sure of: no input may choose where the call goes.
        if url.path().split('/').count() != path.split('/').count() {
            return Err(ToolError::BadInput("the input does not make a path that can be sent as it is".to_owned()));
        }
        if let Some(query) = &self.query {
            url.set_query(Some(&fill_query(query, input)));
        }
        Ok(url)
    }
}

/// One segment of a path: whatever an input holds, it stays one segment, and the same one.
fn fill_segment(template: &Text, input: &Value) -> Result<String, ToolError> {
    let mut segment = String::new();
    for piece in template.pieces() {
        match piece {
            Piece::Literal(text) => segment.push_str(text),
            Piece::Field(field) => {
                let name = field.join(".");
                let text = lookup(input, field)
                    .ok_or_else(|| ToolError::BadInput(format!("`{name}` is needed: it is part of the address")))?;
                let text = scalar_text(text).ok_or_else(|| {
                    ToolError::BadInput(format!("`{name}` must be a text or a number: it is part of the address"))
                })?;
                segment.extend(utf8_percent_encode(&text, ENCODED));
            }
        }
    }
    // An empty segment is another address (`DELETE /users/`), and everyone on the way reads `.` and `..`, encoded or
    // not, as "here" and "one up".
    let named = || template.fields().map(|field| format!("`{}`", field.join("."))).collect::<Vec<_>>().join(" and ");
    if template.literal().is_none() && segment.is_empty() {
        return Err(ToolError::BadInput(format!("{} must not be empty: it is part of the address", named())));
    }
    if template.literal().is_none() && is_dots(&segment) {
        let what = named();
        return Err(ToolError::BadInput(format!(
            "{what} must not make `.` or `..`: as part of the address that would lead to another one"
        )));
    }
    Ok(segment)
}

/// A query as the template wrote it, with the inputs encoded.
fn fill_query(template: &Text, input: &Value) -> String {
    let mut query = String::new();
    for piece in template.pieces() {
        match piece {
            Piece::Literal(text) => query.push_str(text),
            Piece::Field(field) => {
                let text = lookup(input, field).and_then(any_text).unwrap_or_default();
                query.extend(utf8_percent_encode(&text, ENCODED));
            }
        }
    }
    query
}

/// Whether everyone on the way would read the segment as "here" or "one up".
fn is_dots(segment: &str) -> bool {
    let plain = segment.replace("%2e", ".").replace("%2E", ".");
    plain == "." || plain == ".."
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(template: &str, input: &Value, filled: &str) {
        let url = Address::parse(template).unwrap().fill(input);
        assert_eq!(url.map(String::from).unwrap_or_else(|error| error.to_string()), filled);
    }

    #[track_caller]
    fn refused(template: &str, error: &AddressError) {
        assert_eq!(Address::parse(template).err().as_ref(), Some(error), "{template}");
    }

    #[test]
    fn an_input_is_one_segment_whatever_it_holds() {
        let template = "https://a.example/users/{id}/orders";
        for (id, segment) in [
            ("u1", "u1"),
            ("a/b", "a%2Fb"),
            ("../admin", "..%2Fadmin"),
            ("..\\admin", "..%5Cadmin"),
            ("%2e%2e", "%252e%252e"),
            ("?a=b#c", "%3Fa%3Db%23c"),
            ("a\nb\r\t\0", "a%0Ab%0D%09%00"),
            ("@evil.example", "%40evil.example"),
            ("…", "%E2%80%A6"),
            ("...", "..."),
            (" ", "%20"),
        ] {
            check(template, &json!({ "id": id }), &format!("https://a.example/users/{segment}/orders"));
        }
        check(template, &json!({"id": 7}), "https://a.example/users/7/orders");
        check(template, &json!({"id": 7.0}), "https://a.example/users/7/orders");
        check(template, &json!({"id": true}), "https://a.example/users/true/orders");
    }

    #[test]
    fn an_input_that_would_lead_elsewhere_is_refused() {
        let dots = "`id` must not make `.` or `..`: as part of the address that would lead to another one";
        let template = "https://a.example/users/{id}";
        check(template, &json!({"id": "."}), dots);
        check(template, &json!({"id": ".."}), dots);
        check("https://a.example/users/.{id}", &json!({"id": "."}), dots);
        check("https://a.example/users/%2e{id}", &json!({"id": "."}), dots);
        check("https://a.example/users/%2E{id}", &json!({"id": ""}), dots);
        let both = "`a` and `b` must not make `.` or `..`: as part of the address that would lead to another one";
        check("https://a.example/users/{a}{b}", &json!({"a": ".", "b": "."}), both);
        check(template, &json!({"id": ""}), "`id` must not be empty: it is part of the address");
        check(template, &json!({}), "`id` is needed: it is part of the address");
        check(template, &json!({"id": null}), "`id` is needed: it is part of the address");
        check(template, &json!({"id": ["a"]}), "`id` must be a text or a number: it is part of the address");
    }

    #[test]
    fn a_field_may_lie_in_a_field_and_beside_other_text() {
        check("http://a.example/v-{order.id}.json", &json!({"order": {"id": 7}}), "http://a.example/v-7.json");
        check("http://a.example?q={q}&n=1", &json!({"q": "a&b=c d"}), "http://a.example/?q=a%26b%3Dc%20d&n=1");
        check("http://a.example/", &json!({}), "http://a.example/");
        check("http://a.example", &json!({}), "http://a.example/");
        check("http://a.example//b/", &json!({}), "http://a.example//b/");
        check("http://a.example/{{b}}?{{c}}={c}", &json!({"c": 1}), "http://a.example/%7Bb%7D?{c}=1");
    }

    #[test]
    fn the_host_is_lower_case_with_a_port_where_it_is_not_the_schemes_own() {
        for (template, host) in [
            ("https://API.Example.com/x", "api.example.com"),
            ("https://a.example:443/x", "a.example"),
            ("https://a.example:8443/x", "a.example:8443"),
            ("HTTP://a.example:80", "a.example"),
            ("http://[::1]:8080/x", "[::1]:8080"),
        ] {
            assert_eq!(Address::parse(template).unwrap().host(), host);
        }
    }

    #[test]
    fn a_mistake_is_named_without_what_may_be_secret() {
        refused("api.example.com/x", &AddressError::Scheme);
        refused("ftp://a.example/x", &AddressError::Scheme);
        refused("{scheme}://a.example/x", &AddressError::FieldInHost);
        refused("https://{host}/x", &AddressError::FieldInHost);
        refused("https://a.example:{port}/x", &AddressError::FieldInHost);
        refused("https://{user}@a.example/x", &AddressError::FieldInHost);
        refused("https://u:p@a.example/x", &AddressError::User);
        refused("https:///x", &AddressError::Host(String::new()));
        refused("https://a.example:x/x", &AddressError::Host("a.example:x".into()));
        refused("https://a b.example/x", &AddressError::Host("a b.example".into()));
        refused("https://a.example/x#{id}", &AddressError::Fragment);
        refused("https://a.example/{id", &AddressError::Brace);
        refused("https://a.example/{}", &AddressError::Brace);
        refused("https://a.example/id}", &AddressError::Brace);
        refused("https://a.example/{a/b}", &AddressError::Brace);
        refused("https://a.example/x/../y", &AddressError::Path);
        refused("https://a.example/x/%2e%2E/y", &AddressError::Path);
        refused("https://a.example\\x", &AddressError::Path);
        refused("https://a.example/a b", &AddressError::Path);
    }
}
