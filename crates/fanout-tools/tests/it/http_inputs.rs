//! Whatever an input holds, a request goes where its author said: over real requests to a server that writes down what arrives.

use axum::http::Method;
use fanout_core::tool::{Attempt, Tool, ToolError};
use fanout_tools::http::{Body, HttpClient, HttpTool};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::json;
use url::Url;

use crate::server::{Seen, Server};

/// Texts made of what has a meaning somewhere on the way.
fn nasty() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(".."),
        Just("."),
        Just("/"),
        Just("//"),
        Just("\\"),
        Just("%2e"),
        Just("%2F"),
        Just("%00"),
        Just("?"),
        Just("#"),
        Just("&a=b"),
        Just("="),
        Just("+"),
        Just(" "),
        Just(";"),
        Just("@evil.example"),
        Just(":80"),
        Just("http://evil.example"),
        Just("\r\nx-evil: 1"),
        Just("\0"),
        Just("\r\n\r\nGET /evil HTTP/1.1\r\n"),
        Just("0\r\n\r\n"),
        Just("--fanout-boundary--\r\n"),
        Just("\"; filename=\"x"),
        Just("\",\"evil\":\""),
        Just("{x}"),
        Just("ä"),
        Just("\u{202e}"),
        Just("a"),
    ];
    prop_oneof![proptest::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat()), any::<String>()]
}

#[test]
fn no_input_changes_where_a_request_goes() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start());
    let host = server.base.trim_start_matches("http://").to_owned();
    let tool = HttpTool::builder("t", Method::GET, format!("{}/users/{{id}}/orders?v=2", server.base))
        .query("q", "{q}")
        .build(&HttpClient::direct())
        .unwrap();
    let check = |(id, q): (String, String)| {
        let before = server.seen().len();
        let sent = runtime.block_on(tool.call(Attempt::detached("t", json!({ "id": id, "q": q }))));
        let seen = server.seen().split_off(before);
        if matches!(id.as_str(), "" | "." | "..") {
            prop_assert!(sent.is_err() && seen.is_empty());
            return Ok(());
        }
        prop_assert_eq!(seen.len(), 1, "{:?}", sent);
        prop_assert_eq!(seen[0].headers["host"].to_str().unwrap(), &host);
        prop_assert!(!seen[0].headers.contains_key("x-evil"));
        let url = Url::parse(&format!("{}{}", server.base, seen[0].target)).unwrap();
        let segments: Vec<&str> = seen[0].target.split('?').next().unwrap().split('/').collect();
        prop_assert_eq!((segments.len(), segments[1], segments[3]), (4, "users", "orders"));
        let read = percent_encoding::percent_decode_str(segments[2]).decode_utf8().unwrap();
        prop_assert_eq!(read.as_ref(), &id);
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        prop_assert_eq!(pairs, [("v".to_owned(), "2".to_owned()), ("q".to_owned(), q)]);
        Ok(())
    };
    TestRunner::new(Config { cases: 256, failure_persistence: None, ..Config::default() })
        .run(&(nasty(), nasty()), check)
        .unwrap();
}

/// What every request with a body carries, and nothing else.
const HEADERS: [&str; 8] =
    ["accept", "content-length", "content-type", "host", "idempotency-key", "user-agent", "x-kind", "x-tenant"];

/// The pairs of a body.
fn pairs(body: Body, seen: &Seen) -> Vec<(String, String)> {
    match body {
        Body::Form => url::form_urlencoded::parse(seen.body.as_bytes()).into_owned().collect(),
        Body::Multipart => {
            let media = seen.headers["content-type"].to_str().unwrap();
            let boundary = format!("--{}", media.strip_prefix("multipart/form-data; boundary=").unwrap());
            let parts = seen.body.split(&boundary).skip(1).map(|part| {
                let (head, content) = part.split_once("\r\n\r\n")?;
                let name = head.strip_prefix("\r\ncontent-disposition: form-data; name=\"")?.strip_suffix('"')?;
                let name = name.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n");
                Some((name, content.strip_suffix("\r\n")?.to_owned()))
            });
            let parts: Vec<_> = parts.collect();
            assert!(matches!(parts.last(), Some(None)) && seen.body.ends_with(&format!("{boundary}--\r\n")));
            parts.into_iter().flatten().collect()
        }
        body => panic!("{body:?} has no pairs"),
    }
}

/// What arrived is the two values, whole, in the body and the header that their author named.
fn arrived(body: Body, seen: &Seen, name: &str, values: [&str; 2], tenant: &str) -> Result<(), TestCaseError> {
    prop_assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/notes/7?v=2"));
    let mut names: Vec<&str> = seen.headers.keys().map(axum::http::HeaderName::as_str).collect();
    names.sort_unstable();
    prop_assert_eq!(names, HEADERS);
    prop_assert_eq!(seen.headers.len(), HEADERS.len());
    let header = |name: &str| String::from_utf8(seen.headers[name].as_bytes().to_vec()).unwrap();
    let tenant = format!("t-{tenant}");
    prop_assert_eq!(header("x-tenant"), tenant.trim_matches([' ', '\t']));
    prop_assert_eq!(header("x-kind"), "fixed");
    match body {
        Body::Raw => prop_assert_eq!(&seen.body, values[0]),
        Body::Json => {
            let sent: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
            prop_assert_eq!(sent, json!({ "a": values[0], name: values[1] }));
        }
        body => {
            // The browsers' spelling of a name does not tell `%22` from `"`.
            let spelled = |text: &str| match body {
                Body::Multipart => text.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n"),
                _ => text.to_owned(),
            };
            let sent = [("a".to_owned(), values[0].to_owned()), (spelled(name), values[1].to_owned())];
            prop_assert_eq!(pairs(body, seen), sent);
        }
    }
    Ok(())
}

#[test]
fn no_input_adds_a_header_or_a_field_or_ends_a_body() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start());
    let host = server.base.trim_start_matches("http://").to_owned();
    for body in [Body::Json, Body::Form, Body::Raw, Body::Multipart] {
        let tool = HttpTool::builder("t", Method::POST, format!("{}/notes/{{id}}?v=2", server.base))
            .header("x-tenant", "t-{tenant}")
            .header("x-kind", "fixed")
            .body(body)
            .build(&HttpClient::direct())
            .unwrap();
        let check = |(tenant, name, a, b): (String, String, String, String)| {
            let name = format!("f{name}");
            let mut input = json!({ "id": 7, "tenant": tenant, "a": a });
            if body != Body::Raw {
                input[&name] = json!(b);
            }
            let before = server.seen().len();
            let sent = runtime.block_on(tool.call(Attempt::detached("t", input)));
            let seen = server.seen().split_off(before);
            if tenant.chars().any(|c| c.is_ascii_control() && c != '\t') {
                prop_assert!(matches!(sent, Err(ToolError::BadInput(_))) && seen.is_empty(), "{sent:?}");
                return Ok(());
            }
            prop_assert_eq!(seen.len(), 1, "{:?}", sent);
            prop_assert_eq!(seen[0].headers["host"].to_str().unwrap(), &host);
            arrived(body, &seen[0], &name, [&a, &b], &tenant)
        };
        TestRunner::new(Config { cases: 128, failure_persistence: None, ..Config::default() })
            .run(&(nasty(), nasty(), nasty(), nasty()), check)
            .unwrap();
    }
}
