//! Whatever an input holds, a request goes where its author said: over real requests to a server that writes down what arrives.

use axum::http::Method;
use fanout_core::tool::{Attempt, Tool};
use fanout_tools::http::{HttpClient, HttpTool};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use url::Url;

use crate::server::Server;

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
