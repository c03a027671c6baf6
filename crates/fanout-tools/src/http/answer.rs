//! What came back: a response as an output, or as what is known of the failure.
//!
//! From `tool`: status, headers and the body as far as it came.
//! To the scheduler, which acts on the variant, and to the model, which reads the message.
//!
//! Queries and headers of the request never stand in a message: they may hold secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fanout_core::call::ToolName;
use fanout_core::outcome::{Content, Output};
use fanout_core::secrets::Secrets;
use fanout_core::tool::ToolError;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED, LOCATION};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use serde_json::Value;
use url::Url;

use super::explanation::explanation;
use super::picture::{can_be_shown, picture};
use super::waits::Waits;

/// The largest body that is kept, in bytes: as much as a reference may take (16 MiB).
pub const BODY_MAX: usize = 16 * 1024 * 1024;

/// So much of the body of an error is read, in bytes; the message shows far less.
pub(super) const ERROR_BODY_MAX: usize = 64 * 1024;

/// A response: everything but the connection.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// What the response means to a call of `tool`.
    ///
    /// # Errors
    /// 429, and a 403 that names a wait or a used-up budget: [`ToolError::Busy`], nothing was done. 503:
    /// [`ToolError::Overloaded`]; 408 and all other 5xx: [`ToolError::Broken`]; both may have done the work. All else but
    /// 2xx: [`ToolError::Failed`].
    pub(super) fn into_output(
        self,
        tool: &ToolName,
        method: &Method,
        waits: &Waits,
        secrets: &Secrets,
    ) -> Result<Output, ToolError> {
        let status = self.status;
        if status.is_success() {
            return Ok(if *method == Method::HEAD { self.headers_output() } else { self.body_output() });
        }
        let (answered, explanation) = (status_text(status), self.explanation(secrets));
        // The page of a proxy begins with the status that was just said.
        let more =
            explanation.strip_prefix(&answered).map_or(&*explanation, |rest| rest.trim_start_matches([':', ' ']));
        let colon = if more.is_empty() { "" } else { ": " };
        let message = format!("`{tool}` answered {answered}{colon}{more}");
        Err(match status {
            status if waits.refuse(status) => ToolError::Busy { message, retry_after: waits.named() },
            StatusCode::SERVICE_UNAVAILABLE => ToolError::Overloaded { message, retry_after: waits.retry_after() },
            StatusCode::REQUEST_TIMEOUT => ToolError::Broken(message),
            status if status.is_server_error() => ToolError::Broken(message),
            _ => ToolError::Failed(message),
        })
    }

    fn headers_output(&self) -> Output {
        let lines = [CONTENT_TYPE, CONTENT_LENGTH, ETAG, LAST_MODIFIED].into_iter().filter_map(|name| {
            let value = self.header(&name)?;
            Some(format!("\n{name}: {value}"))
        });
        Output::text(format!("HTTP {}, no content", self.status.as_u16()) + &lines.collect::<String>())
    }

    fn body_output(self) -> Output {
        if self.body.is_empty() {
            return Output::text(format!("HTTP {}, no content", self.status.as_u16()));
        }
        let media = self.media();
        if let Some(unread) = self.unread(&media) {
            return Output::text(unread);
        }
        match kind_of(&media, &self.body) {
            Kind::Json => {
                let structured = serde_json::from_slice(without_mark(&self.body)).ok();
                let output = self.text_output();
                Output { structured: structured.or(output.structured), ..output }
            }
            Kind::Text => self.text_output(),
            Kind::Image(media) if can_be_shown(&self.body) => Output {
                content: vec![Content::Image {
                    media_type: media.to_owned(),
                    data: STANDARD.encode(&self.body).into(),
                }],
                ..Output::default()
            },
            Kind::Image(_) | Kind::Binary => Output::text(described(&self.body, &media)),
        }
    }

    fn text_output(&self) -> Output {
        match std::str::from_utf8(without_mark(&self.body)) {
            Ok(text) => Output::text(text),
            Err(_) => {
                // The note stands first, where no cut takes it away; a reference takes the text alone.
                let text = String::from_utf8_lossy(&self.body).into_owned();
                let named = self.charset().filter(|charset| !charset.eq_ignore_ascii_case("utf-8"));
                let named =
                    named.map(|charset| format!("is in {charset}, not in UTF-8")).unwrap_or("is not UTF-8".to_owned());
                let note = format!("(the body {named}; what could not be read is shown as \u{FFFD})");
                let content = vec![Content::Text(note.into()), Content::Text(text.as_str().into())];
                Output { content, structured: Some(Value::String(text)), is_error: false }
            }
        }
    }

    /// What the body of an error says, in short.
    fn explanation(&self, secrets: &Secrets) -> String {
        let media = self.media();
        match self.unread(&media) {
            Some(_) if self.body.is_empty() => String::new(),
            Some(unread) => unread,
            None if is_binary(&self.body) => described(&self.body, &media),
            None => explanation(&String::from_utf8_lossy(without_mark(&self.body)), secrets),
        }
    }

    /// A description instead of a body that comes in a spelling that is not read here: compressed, although no request asks
    /// for that, or in units of two or four bytes.
    fn unread(&self, media: &str) -> Option<String> {
        if let Some(coding) = self.header(&CONTENT_ENCODING).filter(|coding| !coding.eq_ignore_ascii_case("identity")) {
            return Some(format!("{}, encoded as {coding}", described(&self.body, media)));
        }
        let wide = |charset: &&str| {
            let charset = charset.to_ascii_lowercase();
            ["utf-16", "utf16", "utf-32", "utf32", "ucs-2", "ucs-4"].iter().any(|wide| charset.starts_with(wide))
        };
        let marked = self.body.starts_with(b"\xFE\xFF") || self.body.starts_with(b"\xFF\xFE");
        let marked = Some("UTF-16, by its first bytes").filter(|_| marked && media.starts_with("text/"));
        let charset = self.charset().filter(wide).or(marked)?;
        Some(format!("{} in {charset}", described(&self.body, media)))
    }

    /// The media type in lower case, without its parameters; empty where none is named.
    fn media(&self) -> String {
        let media = self.header(&CONTENT_TYPE).unwrap_or_default();
        media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// The charset as the server spells it.
    fn charset(&self) -> Option<&str> {
        let parameters = self.header(&CONTENT_TYPE)?.split(';').skip(1).filter_map(|pair| pair.split_once('='));
        let mut charsets = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
        charsets.next().map(|(_, charset)| charset.trim().trim_matches('"'))
    }

    fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

enum Kind {
    Json,
    Text,
    /// Of this type, whatever the server calls it.
    Image(&'static str),
    Binary,
}

fn kind_of(media: &str, body: &[u8]) -> Kind {
    let (family, name) = media.split_once('/').unwrap_or((media, ""));
    let suffix = name.rsplit_once('+').map_or("", |(_, suffix)| suffix);
    match (family, name) {
        ("application", "json") => Kind::Json,
        _ if suffix == "json" => Kind::Json,
        ("image", "png" | "jpeg" | "jpg" | "gif" | "webp") => picture(body).map_or(Kind::Binary, Kind::Image),
        ("text", _) if is_binary(body) => Kind::Binary,
        ("text", _) => Kind::Text,
        (
            "application",
            "xml"
            | "yaml"
            | "x-yaml"
            | "toml"
            | "javascript"
            | "x-javascript"
            | "ecmascript"
            | "ndjson"
            | "x-ndjson"
            | "jsonl"
            | "graphql"
            | "sql"
            | "x-www-form-urlencoded",
        ) => Kind::Text,
        _ if matches!(suffix, "xml" | "yaml") => Kind::Text,
        // Without a word from the server, what reads as text is text.
        ("", _) if !body.contains(&0) && std::str::from_utf8(body).is_ok() => Kind::Text,
        _ => Kind::Binary,
    }
}

/// Whether nobody could read it as text: many servers call a file `text/plain` that they do not know.
fn is_binary(body: &[u8]) -> bool {
    body.contains(&0) && std::str::from_utf8(body).is_err()
}

/// A body without the mark that some begin UTF-8 with; no JSON may have one (RFC 8259, 8.1).
fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)
}

fn described(body: &[u8], media: &str) -> String {
    let media = if media.is_empty() { "an unnamed type" } else { media };
    format!("binary, {} bytes of {media}", thousands(body.len()))
}

/// `1,234,567`.
pub(crate) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `404 Not Found`.
pub(super) fn status_text(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// Where a redirect points to, if it is one that a request may follow.
pub(super) fn redirect_target(
    status: StatusCode,
    headers: &HeaderMap,
    from: &Url,
) -> Option<Result<Url, &'static str>> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    Some(match location.map(|location| from.join(location)) {
        Some(Ok(target)) => Ok(target),
        Some(Err(_)) => Err("its address cannot be read"),
        None => Err("it names no address"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!(thousands(7), "7");
        assert_eq!(thousands(1_234), "1,234");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }
}
