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

use super::waits::Waits;

/// The largest body that is kept, in bytes: as much as a reference may take (16 MiB).
pub const BODY_MAX: usize = 16 * 1024 * 1024;

/// So much of the body of an error is read, in bytes; the message shows far less.
pub(super) const ERROR_BODY_MAX: usize = 64 * 1024;

/// The largest picture that the model can be shown, in bytes: the Messages API takes 5 MB in base64.
pub(crate) const IMAGE_MAX: usize = 3_750_000;

/// So many characters of an error's body are repeated to the model.
const EXCERPT_MAX: usize = 500;

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
        let excerpt = excerpt(&self.body, secrets);
        let colon = if excerpt.is_empty() { "" } else { ": " };
        let message = format!("`{tool}` answered {}{colon}{excerpt}", status_text(status));
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
        let media = self.header(&CONTENT_TYPE).unwrap_or_default().to_owned();
        let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if let Some(coding) = self.header(&CONTENT_ENCODING).filter(|coding| !coding.eq_ignore_ascii_case("identity")) {
            return described(&self.body, &format!("{media}, encoded as {coding}"));
        }
        match kind_of(&media, &self.body) {
            Kind::Json => {
                let structured = serde_json::from_slice(&self.body).ok();
                let output = text_output(self.body);
                Output { structured: structured.or(output.structured), ..output }
            }
            Kind::Text => text_output(self.body),
            Kind::Image(media) if self.body.len() <= IMAGE_MAX => Output {
                content: vec![Content::Image {
                    media_type: media.to_owned(),
                    data: STANDARD.encode(&self.body).into(),
                }],
                ..Output::default()
            },
            Kind::Image(_) | Kind::Binary => described(&self.body, &media),
        }
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

/// What a picture is by its first bytes. The Messages API refuses a whole request for one that is not what it says.
pub(crate) fn picture(body: &[u8]) -> Option<&'static str> {
    match body {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xFF, 0xD8, 0xFF, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

/// Whether nobody could read it as text: many servers call a file `text/plain` that they do not know.
fn is_binary(body: &[u8]) -> bool {
    body.contains(&0) && std::str::from_utf8(body).is_err()
}

fn text_output(body: Vec<u8>) -> Output {
    match String::from_utf8(body) {
        Ok(text) => Output::text(text),
        Err(error) => {
            // The note stands first, where no cut takes it away; a reference takes the text alone.
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let note = "(the body is not UTF-8; what could not be read is shown as \u{FFFD})";
            let content = vec![Content::Text(note.into()), Content::Text(text.as_str().into())];
            Output { content, structured: Some(Value::String(text)), is_error: false }
        }
    }
}

fn described(body: &[u8], media: &str) -> Output {
    let media = if media.is_empty() { "an unnamed type" } else { media };
    Output::text(format!("binary, {} bytes of {media}", thousands(body.len())))
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

/// What the body of an error says: its message if it is JSON that has one, else its beginning.
fn excerpt(body: &[u8], secrets: &Secrets) -> String {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(value) => message_in(&value).unwrap_or_else(|| value.to_string()),
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    // Before the cut, which could go through a secret.
    let text = secrets.hide(&text);
    match text.char_indices().nth(EXCERPT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

fn message_in(value: &Value) -> Option<String> {
    let places = ["/error/message", "/message", "/detail", "/title", "/error", "/errors"];
    let found = places.into_iter().filter_map(|place| value.pointer(place)).find(|found| match found {
        Value::Null => false,
        Value::String(text) => !text.trim().is_empty(),
        _ => true,
    })?;
    Some(found.as_str().map_or_else(|| found.to_string(), |text| text.trim().to_owned()))
}

/// Where a redirect points to, if it is one that a request may follow.
pub(super) fn redirect_target(status: StatusCode, headers: &HeaderMap, from: &Url) -> Option<Result<Url, String>> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    Some(match location.map(|location| from.join(location)) {
        Some(Ok(target)) => Ok(target),
        Some(Err(_)) => Err("an address that cannot be read".to_owned()),
        None => Err("nowhere".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_excerpt(body: &str, text: &str) {
        let mut secrets = Secrets::new();
        secrets.add("KEY", "s3cret-token");
        assert_eq!(excerpt(body.as_bytes(), &secrets), text);
    }

    #[test]
    fn the_message_of_an_error_is_found() {
        check_excerpt(r#"{"error":{"message":"no such user","code":7}}"#, "no such user");
        check_excerpt(r#"{"message":"a","detail":"b"}"#, "a");
        check_excerpt(r#"{"detail":[{"loc":["q"]}],"title":"t"}"#, r#"[{"loc":["q"]}]"#);
        check_excerpt(r#"{"title":"t","error":"e"}"#, "t");
        check_excerpt(r#"{"error":"e"}"#, "e");
        check_excerpt(r#"{"message":" ","error":"e"}"#, "e");
        check_excerpt(r#"{"code":7}"#, r#"{"code":7}"#);
        check_excerpt("<h1>no</h1>\n", "<h1>no</h1>");
        check_excerpt("", "");
        check_excerpt(&format!("{} s3cret-token", "x".repeat(495)), &format!("{} [red…", "x".repeat(495)));
        check_excerpt(&"ä".repeat(501), &format!("{}…", "ä".repeat(500)));
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!(thousands(7), "7");
        assert_eq!(thousands(1_234), "1,234");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }
}
