//! What must never be shown, and the name that is shown instead.
//!
//! From whoever knows it: the configuration's `${NAME}`, the end user's token. To `run`, which hides it in everything that
//! a tool gives back before anybody else sees it, and to the tools that cut a text themselves.
//!
//! A value is found as it is and as programs spell it on its way: in JSON, in a URL, in a form, in HTML, and inside base64.
//! Nothing here is ever printed.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use crate::outcome::{Content, Output};

/// A shorter value, in bytes, is not hidden: it stands by chance in too many texts, and hiding it would tell as much.
pub const SECRET_LEAST: usize = 6;

/// A number with fewer digits is a port, a count or an id.
const DIGITS_LEAST: usize = 10;

/// A part of an address's path that is shorter is a name; what webhooks carry as a secret is longer.
const SEGMENT_LEAST: usize = 16;

/// What a cut leaves of a secret is taken away from so many bytes on; less tells nobody anything.
const REST_LEAST: usize = 4;

/// Settings that are no secrets, though variables hold them.
const WORDS: [&str; 12] = [
    "default",
    "development",
    "disabled",
    "enabled",
    "example",
    "localhost",
    "preview",
    "production",
    "sandbox",
    "staging",
    "testing",
    "undefined",
];

/// What RFC 3986 calls unreserved stays plain.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a URL's query must not hold (WHATWG); browsers and many libraries encode no more.
const QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'\'');

/// A set of secrets. Without any, nothing is searched. A clone gets what is added to neither, and what is renewed in both.
#[derive(Clone, Default)]
pub struct Secrets {
    added: Known,
    renewed: Arc<RwLock<Arc<Known>>>,
}

/// Values, and how each may stand in a text.
#[derive(Clone, Default)]
struct Known {
    names: Vec<String>,
    /// How each may stand in a text, with the number of its name.
    spellings: Vec<(String, usize)>,
    finder: OnceLock<Option<Arc<AhoCorasick>>>,
}

impl Secrets {
    /// None at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value, and the name that is shown for it: `[redacted NAME]`. What surrounds it as white space does not count.
    ///
    /// Not taken, since hiding them would spoil ordinary answers: a value of less than [`SECRET_LEAST`] bytes, a number of
    /// less than 10 digits, a word such as `production`, an IP address, and an `http` address without a user, a query or a long part.
    pub fn add(&mut self, name: &str, value: &str) {
        self.added.add(name, value);
    }

    /// Adds a value that is renewed while calls run, such as a token: from now on it is hidden wherever this set is shared.
    /// The value before it is hidden still, since answers may be under way in which it stands; older ones of this name are
    /// forgotten.
    pub fn renew(&self, name: &str, value: &str) {
        let mut renewed = self.renewed.write().unwrap_or_else(PoisonError::into_inner);
        if renewed.holds(value.trim()) {
            return;
        }
        let mut next = Known::clone(&renewed);
        next.keep_last(name);
        next.add(name, value);
        *renewed = Arc::new(next);
    }

    fn renewed(&self) -> Arc<Known> {
        Arc::clone(&self.renewed.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.renewed().is_empty()
    }

    /// The text with a name in the place of each secret.
    pub fn hide<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let renewed = self.renewed();
        match self.added.hide(text) {
            Cow::Borrowed(text) => renewed.hide(text),
            Cow::Owned(text) => Cow::Owned(renewed.hide(&text).into_owned()),
        }
    }

    /// Takes away what a cut through a secret left of it at the start of a text.
    pub fn trim_start<'t>(&self, text: &'t str) -> &'t str {
        let most = self.added.left_at_start(text).max(self.renewed().left_at_start(text));
        &text[most..]
    }

    /// The same at the end of a text.
    pub fn trim_end<'t>(&self, text: &'t str) -> &'t str {
        let most = self.added.left_at_end(text).max(self.renewed().left_at_end(text));
        &text[..text.len() - most]
    }

    /// The same for data: texts, names of fields, and numbers, which become texts.
    pub fn hide_in(&self, value: &mut Value) {
        if self.is_empty() {
            return;
        }
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => {
                if let Cow::Owned(hidden) = self.hide(&number.to_string()) {
                    *value = Value::String(hidden);
                }
            }
            Value::String(text) => {
                if let Cow::Owned(hidden) = self.hide(text) {
                    *text = hidden;
                }
            }
            Value::Array(elements) => elements.iter_mut().for_each(|element| self.hide_in(element)),
            Value::Object(fields) => {
                if fields.keys().any(|name| matches!(self.hide(name), Cow::Owned(_))) {
                    let taken: Map<String, Value> = std::mem::take(fields);
                    *fields = taken.into_iter().map(|(name, value)| (self.hide(&name).into_owned(), value)).collect();
                }
                fields.values_mut().for_each(|value| self.hide_in(value));
            }
        }
    }

    /// The same for all that a tool gave back. A picture that holds a secret is left out: half of one shows nothing.
    pub fn hide_in_output(&self, output: &mut Output) {
        if self.is_empty() {
            return;
        }
        for content in &mut output.content {
            let text = match content {
                Content::Text(text) => text,
                Content::Image { data, .. } => data,
            };
            let Cow::Owned(hidden) = self.hide(text) else { continue };
            *content = match content {
                Content::Text(_) => Content::Text(hidden.into()),
                Content::Image { .. } => Content::Text("(a picture that holds a secret was left out)".into()),
            };
        }
        if let Some(structured) = &mut output.structured {
            self.hide_in(structured);
        }
    }
}

impl Known {
    fn add(&mut self, name: &str, value: &str) {
        let value = value.trim();
        if is_plain(value) || self.holds(value) {
            return;
        }
        let number = self.names.len();
        self.names.push(shown(name));
        self.spellings.extend(spellings(value).into_iter().map(|spelling| (spelling, number)));
        self.finder = OnceLock::new();
    }

    fn holds(&self, value: &str) -> bool {
        self.spellings.iter().any(|(known, _)| known == value)
    }

    /// Forgets all values of a name but the last.
    fn keep_last(&mut self, name: &str) {
        let name = shown(name);
        let mut numbers = (0..self.names.len()).filter(|at| self.names[*at] == name).collect::<Vec<_>>();
        numbers.pop();
        for gone in numbers.into_iter().rev() {
            self.names.remove(gone);
            self.spellings.retain(|(_, number)| *number != gone);
            self.spellings.iter_mut().filter(|(_, number)| *number > gone).for_each(|(_, number)| *number -= 1);
        }
        self.finder = OnceLock::new();
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn hide<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let Some(finder) = self.finder() else { return Cow::Borrowed(text) };
        let mut hidden = String::new();
        let mut rest = 0;
        for found in finder.find_iter(text) {
            hidden.push_str(&text[rest..found.start()]);
            let number = self.spellings.get(found.pattern().as_usize()).map_or(0, |(_, number)| *number);
            hidden.push_str(self.names.get(number).map_or("[redacted]", String::as_str));
            rest = found.end();
        }
        if rest == 0 {
            return Cow::Borrowed(text);
        }
        hidden.push_str(&text[rest..]);
        Cow::Owned(hidden)
    }

    fn left_at_start(&self, text: &str) -> usize {
        let left = |(spelling, _): &(String, usize)| {
            let starts = spelling.char_indices().map(|(at, _)| at).skip(1);
            let mut ends = starts.map(|at| &spelling[at..]).take_while(|end| end.len() >= REST_LEAST);
            ends.find(|end| text.starts_with(end)).map(str::len)
        };
        self.spellings.iter().filter_map(left).max().unwrap_or_default()
    }

    fn left_at_end(&self, text: &str) -> usize {
        let left = |(spelling, _): &(String, usize)| {
            let ends = spelling.char_indices().map(|(at, _)| at).rev();
            let mut starts = ends.map(|at| &spelling[..at]).take_while(|start| start.len() >= REST_LEAST);
            starts.find(|start| text.ends_with(start)).map(str::len)
        };
        self.spellings.iter().filter_map(left).max().unwrap_or_default()
    }

    fn finder(&self) -> Option<&AhoCorasick> {
        if self.is_empty() {
            return None;
        }
        let made = || {
            let texts = self.spellings.iter().map(|(text, _)| text);
            AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts).ok().map(Arc::new)
        };
        self.finder.get_or_init(made).as_deref()
    }
}

fn shown(name: &str) -> String {
    format!("[redacted {name}]")
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secrets").field(&(self.added.names.len() + self.renewed().names.len())).finish()
    }
}

/// Whether a value is none that anybody would keep to himself, or one that cannot be told from ordinary text.
fn is_plain(value: &str) -> bool {
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_' | b':'));
    let is_host = value.parse::<SocketAddr>().is_ok() || value.parse::<IpAddr>().is_ok();
    value.len() < SECRET_LEAST
        || (is_number && value.bytes().filter(u8::is_ascii_digit).count() < DIGITS_LEAST)
        || WORDS.iter().any(|word| word.eq_ignore_ascii_case(value))
        || is_host
        || is_address(value)
}

/// Whether a value only says where something is.
fn is_address(value: &str) -> bool {
    let rest = value.strip_prefix("https://").or_else(|| value.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        let path = rest.split_once('/').map_or("", |(_, path)| path);
        !rest.contains(['@', '?', '#']) && path.split('/').all(|part| part.len() < SEGMENT_LEAST)
    })
}

/// How a value may stand in a text, itself first; each once.
fn spellings(value: &str) -> Vec<String> {
    let upper = utf8_percent_encode(value, ENCODED).to_string();
    let lower = utf8_percent_encode(value, ENCODED)
        .map(|part| if part.starts_with('%') { part.to_ascii_lowercase() } else { part.to_owned() });
    let json = Value::from(value).to_string();
    let json = json[1..json.len() - 1].to_owned();
    let mut all = vec![
        value.to_owned(),
        json.replace('/', "\\/"),
        ascii_json(&json),
        json,
        value
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&quot;")
            .replace('\'', "&#39;"),
        upper.replace("%20", "+"),
        upper,
        lower.collect(),
        utf8_percent_encode(value, QUERY).to_string(),
    ];
    for before in 0..3 {
        all.push(within_base64(value, before, &STANDARD_NO_PAD));
        all.push(within_base64(value, before, &URL_SAFE_NO_PAD));
    }
    let mut once = Vec::with_capacity(all.len());
    for spelling in all {
        if !once.contains(&spelling) {
            once.push(spelling);
        }
    }
    once
}

/// JSON as programs write it that keep to ASCII.
fn ascii_json(json: &str) -> String {
    let mut text = String::new();
    let mut units = [0; 2];
    for c in json.chars() {
        if c.is_ascii() {
            text.push(c);
        } else {
            c.encode_utf16(&mut units).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
        }
    }
    text
}

/// What stands in a base64 text for this value alone, when so many bytes (modulo 3) stand before it: `user:` of basic
/// authentication, say. A character that tells of a neighbour too is left out.
fn within_base64(value: &str, before: usize, engine: &impl Engine) -> String {
    let bytes = [&[0; 2][..before], value.as_bytes()].concat();
    let text = engine.encode(&bytes);
    let shared_first = [0, 2, 3][before];
    let shared_last = usize::from(bytes.len() % 3 != 0);
    text[shared_first..text.len() - shared_last].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    const TOKEN: &str = "s3cr\"et/ü & more+";

    fn secrets(pairs: &[(&str, &str)]) -> Secrets {
        let mut secrets = Secrets::new();
        pairs.iter().for_each(|(name, value)| secrets.add(name, value));
        secrets
    }

    #[track_caller]
    fn check(pairs: &[(&str, &str)], text: &str, hidden: &str) {
        assert_eq!(secrets(pairs).hide(text), hidden);
    }

    #[test]
    fn a_name_is_shown_for_a_value() {
        check(&[], "abcdef", "abcdef");
        check(&[("A", "abcdef")], "x abcdef abcde abcdefg", "x [redacted A] abcde [redacted A]g");
        check(&[("A", "  abcdef\n")], "abcdef", "[redacted A]");
        check(&[("A", "abcdef"), ("B", "abcdefgh")], "abcdefgh abcdef", "[redacted B] [redacted A]");
        check(&[("A", "abcdef"), ("B", "abcdef")], "abcdef", "[redacted A]");
    }

    #[test]
    fn a_value_is_found_as_programs_spell_it() {
        let secrets = secrets(&[("A", TOKEN)]);
        for text in [
            TOKEN,
            r#"s3cr\"et/ü & more+"#,
            r#"s3cr\"et\/ü & more+"#,
            r#"s3cr\"et/\u00fc & more+"#,
            "s3cr%22et%2F%C3%BC%20%26%20more%2B",
            "s3cr%22et%2f%c3%bc%20%26%20more%2b",
            "s3cr%22et%2F%C3%BC+%26+more%2B",
            "s3cr%22et/%C3%BC%20&%20more+",
            "s3cr&quot;et/ü &amp; more+",
        ] {
            assert_eq!(secrets.hide(&format!("<{text}>")), "<[redacted A]>", "{text}");
        }
    }

    #[test]
    fn a_value_is_found_within_base64_whatever_stands_around_it() {
        let secrets = secrets(&[("A", "hunter2~?>hunter2~?>")]);
        for before in ["", "u", "us", "use:"] {
            for after in ["", "x", "xy", "xyz"] {
                for engine in [&STANDARD as &dyn Fn64, &URL_SAFE_NO_PAD] {
                    let text = engine.text(&format!("{before}hunter2~?>hunter2~?>{after}"));
                    let hidden = secrets.hide(&text).into_owned();
                    assert!(hidden.contains("[redacted A]"), "{text}: {hidden}");
                    assert!(hidden.len() <= "[redacted A]".len() + before.len() * 2 + after.len() * 2 + 6, "{hidden}");
                }
            }
        }
    }

    trait Fn64 {
        fn text(&self, text: &str) -> String;
    }

    impl<E: Engine> Fn64 for E {
        fn text(&self, text: &str) -> String {
            self.encode(text)
        }
    }

    #[test]
    fn what_is_no_secret_is_not_hidden() {
        for plain in [
            "",
            "true",
            "short",
            "8080",
            "127.0.0.1:8080",
            "2026-11-23",
            "Production",
            "https://api.example.com",
            "http://localhost:8080/v1/",
        ] {
            assert!(secrets(&[("A", plain)]).is_empty(), "{plain}");
        }
        for secret in [
            "hunter",
            "0123456789",
            "production1",
            "https://u:p@api.example.com",
            "https://api.example.com/?key=x",
            "https://hooks.example.com/T0/0123456789abcdef",
        ] {
            assert!(!secrets(&[("A", secret)]).is_empty(), "{secret}");
        }
    }

    #[test]
    fn what_a_cut_leaves_is_taken_away() {
        let secrets = secrets(&[("A", "s3cret-token")]);
        for (text, end, start) in [
            ("ab s3cret-", "ab ", "ab s3cret-"),
            ("ab s3c", "ab s3c", "ab s3c"),
            ("-token cd", "-token cd", " cd"),
            ("ab", "ab", "ab"),
        ] {
            assert_eq!((secrets.trim_end(text), secrets.trim_start(text)), (end, start), "{text}");
        }
        assert_eq!(Secrets::new().trim_end("ab"), "ab");
    }

    #[test]
    fn a_value_that_is_renewed_is_hidden_in_every_clone_and_so_is_the_one_before_it() {
        let (mut secrets, mut other) = (secrets(&[("A", "abcdef")]), Secrets::new());
        let shared = secrets.clone();
        secrets.add("B", "bcdefg");
        for value in ["first-token", "second-token", "third-token"] {
            shared.renew("T", value);
            other.renew("U", value);
        }
        shared.renew("T", "third-token");
        let text = "abcdef first-token second-token third-token";
        assert_eq!(secrets.hide(text), "[redacted A] first-token [redacted T] [redacted T]");
        assert_eq!(shared.hide("bcdefg third-token"), "bcdefg [redacted T]", "what is added is not shared");
        assert_eq!((secrets.trim_end("x third-to"), secrets.trim_start("-token y")), ("x ", " y"));
        other.add("V", "abcdef");
        assert!(!other.is_empty() && Secrets::new().is_empty());
        assert_eq!(format!("{shared:?}"), "Secrets(3)");
    }

    #[test]
    fn data_and_pictures_lose_it_too() {
        let secrets = secrets(&[("A", "hunter2"), ("PIN", "1234567890")]);
        let picture =
            |text: &str| Content::Image { media_type: "image/png".into(), data: STANDARD.encode(text).into() };
        let mut output = Output {
            content: vec![picture("\u{89}PNG hunter2"), picture("\u{89}PNG"), Content::Text("hunter2".into())],
            structured: Some(json!({"a": ["hunter2", 1234567890, 7], "xhunter2": null})),
            is_error: false,
        };
        secrets.hide_in_output(&mut output);
        let left_out = Content::Text("(a picture that holds a secret was left out)".into());
        assert_eq!(output.content, [left_out, picture("\u{89}PNG"), Content::Text("[redacted A]".into())]);
        let data = json!({"a": ["[redacted A]", "[redacted PIN]", 7], "x[redacted A]": null});
        assert_eq!(output.structured, Some(data));
        assert_eq!(format!("{secrets:?}"), "Secrets(2)");
    }
}
