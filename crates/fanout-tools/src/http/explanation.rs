//! What the body of an error says of it.
//!
//! From `answer`: the beginning of a body, as the server wrote it. To the message that the model reads: one short text.
//!
//! APIs disagree on where the message stands; proxies and frameworks answer with pages that are made for eyes.

use fanout_core::secrets::Secrets;
use serde_json::Value;

/// So many characters of an error's body are repeated to the model.
const EXCERPT_MAX: usize = 500;

/// What a body says: its message if it is JSON that has one, the title and the text of a page, else its beginning.
pub(super) fn explanation(body: &str, secrets: &Secrets) -> String {
    let text = match serde_json::from_str::<Value>(body) {
        Ok(value) => message_in(&value).unwrap_or_else(|| value.to_string()),
        Err(_) if is_page(body) => page(body),
        Err(_) => body.trim().to_owned(),
    };
    // Before the cut, which could go through a secret.
    let text = secrets.hide(&text);
    match text.char_indices().nth(EXCERPT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

/// What went wrong, and what is said of it: `title` and `detail` are those of problem details (RFC 9457), `error` and
/// `error_description` of OAuth (RFC 6749, 5.2), `errors` of GraphQL, JSON:API, GitHub and many more.
fn message_in(value: &Value) -> Option<String> {
    let at = |place: &&str| value.pointer(place).and_then(said);
    let what = ["/error/message", "/message", "/title", "/error"].iter().find_map(at);
    let more = ["/error_description", "/detail", "/errors"].iter().filter_map(at);
    let mut said: Vec<String> = what.into_iter().collect();
    for text in more {
        if !said.contains(&text) {
            said.push(text);
        }
    }
    (!said.is_empty()).then(|| said.join(": "))
}

fn said(value: &Value) -> Option<String> {
    let of_one = |value: &Value| {
        let text = ["message", "detail", "title"].iter().find_map(|key| value.get(key)?.as_str());
        text.or(value.as_str()).map(|text| text.trim().to_owned())
    };
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Array(elements) if elements.is_empty() => None,
        Value::Array(elements) => {
            let all: Option<Vec<String>> = elements.iter().map(of_one).collect();
            Some(all.map_or_else(|| value.to_string(), |all| all.join("; ")))
        }
        Value::Object(fields) if fields.is_empty() => None,
        value => Some(value.to_string()),
    }
}

fn is_page(body: &str) -> bool {
    let start: String = body.trim_start().chars().take(15).collect::<String>().to_ascii_lowercase();
    ["<!doctype html", "<html", "<head", "<title", "<body"].iter().any(|tag| start.starts_with(tag))
}

/// The title of a page, and its text.
fn page(html: &str) -> String {
    // The same length: only ASCII letters change.
    let lower = html.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|open| {
        let from = open + lower[open..].find('>')? + 1;
        let to = from + lower[from..].find("</title")?;
        Some(plain(&html[from..to]))
    });
    let text = plain(&without_tags(html, &lower));
    match title.filter(|title| !title.is_empty()) {
        Some(title) if text.is_empty() || text == title => title,
        Some(title) => match text.strip_prefix(&*title) {
            Some(rest) => format!("{title}: {}", rest.trim_start()),
            None => format!("{title}: {text}"),
        },
        None => text,
    }
}

/// What is between the tags, but for what no eye sees.
fn without_tags(html: &str, lower: &str) -> String {
    const HIDDEN: [(&str, &str); 4] =
        [("<!--", "-->"), ("<script", "</script"), ("<style", "</style"), ("<title", "</title")];
    let (mut text, mut at) = (String::new(), 0);
    while let Some(open) = lower[at..].find('<') {
        text.push_str(&html[at..at + open]);
        text.push(' ');
        at += open;
        let hidden = HIDDEN.iter().find(|(begin, _)| lower[at..].starts_with(begin));
        let end = hidden.map_or(Some(0), |(_, end)| lower[at..].find(end));
        // What never ends hides the rest.
        let Some(close) = end.and_then(|end| Some(end + lower[at + end..].find('>')? + 1)) else { return text };
        at += close;
    }
    text.push_str(&html[at..]);
    text
}

/// One line, with the entities that every page uses.
fn plain(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let pairs = [("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    pairs.into_iter().fold(text, |text, (entity, character)| text.replace(entity, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, text: &str) {
        let mut secrets = Secrets::new();
        secrets.add("KEY", "s3cret-token");
        assert_eq!(explanation(body, &secrets), text);
    }

    #[test]
    fn the_message_of_an_error_is_found() {
        check(r#"{"error":{"message":"no such user","code":7}}"#, "no such user");
        check(r#"{"message":"a","detail":"b"}"#, "a: b");
        check(
            r#"{"type":"about:blank","title":"Not Found","status":404,"detail":"no order 7"}"#,
            "Not Found: no order 7",
        );
        check(r#"{"detail":[{"loc":["q"]}],"title":"t"}"#, r#"t: [{"loc":["q"]}]"#);
        check(r#"{"detail":"d"}"#, "d");
        check(r#"{"title":"t","error":"e"}"#, "t");
        check(r#"{"error":"e"}"#, "e");
        check(r#"{"error":"invalid_grant","error_description":"it is over"}"#, "invalid_grant: it is over");
        check(r#"{"error":{"code":7}}"#, r#"{"code":7}"#);
        check(r#"{"message":" ","error":"e"}"#, "e");
        check(r#"{"errors":[{"message":"a"},{"detail":"b"},"c"]}"#, "a; b; c");
        check(r#"{"message":"bad","errors":[{"field":"n"}]}"#, r#"bad: [{"field":"n"}]"#);
        check(r#"{"errors":{"name":["is short"]}}"#, r#"{"name":["is short"]}"#);
        check(r#"{"errors":[],"message":"m"}"#, "m");
        check(r#"{"code":7}"#, r#"{"code":7}"#);
        check("<h1>no</h1>\n", "<h1>no</h1>");
        check("", "");
    }

    #[test]
    fn a_page_is_its_title_and_its_text() {
        for (page, text) in [
            (
                "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n\
                 <hr><center>nginx/1.18</center></body></html>",
                "502 Bad Gateway: nginx/1.18",
            ),
            (
                "<!DOCTYPE HTML><TITLE lang=en>\n Oh &amp; no </TITLE><STYLE>p{}</STYLE><script>if (a < b) {}</script>\
                 <!-- <p>not me</p> --><p>a &lt; b<br>c",
                "Oh & no: a < b c",
            ),
            ("<html><body>only&nbsp;text</body></html>", "only text"),
            ("<html><title>t</title></html>", "t"),
            ("<html><script>never ends", ""),
            ("<html", ""),
        ] {
            check(page, text);
        }
    }

    #[test]
    fn it_is_cut_only_after_secrets_are_hidden() {
        check(&format!("{} s3cret-token", "x".repeat(495)), &format!("{} [red…", "x".repeat(495)));
        check(&"ä".repeat(501), &format!("{}…", "ä".repeat(500)));
        check(&format!("<html><p>{}", "ä".repeat(501)), &format!("{}…", "ä".repeat(500)));
    }
}
