//! What there is, as an OpenAPI document.
//!
//! Written by hand: it is read by people as much as by programs. A test holds it against the routes.

use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;

const DOCUMENT: &str = include_str!("openapi.json");

/// The document.
pub(crate) async fn document() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::DOCUMENT;
    use crate::routes::routes;

    /// What belongs to the Messages API and is routed beside ours.
    const MESSAGES: [&str; 3] = ["post /v1/messages", "post /v1/messages/count_tokens", "any /v1/{path}"];

    /// MCP's one path; `mcp` routes it, for any method.
    const MCP: [&str; 3] = ["delete /mcp", "get /mcp", "post /mcp"];

    #[test]
    fn every_route_stands_in_the_document_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(DOCUMENT).unwrap();
        let mut written = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            let operations = methods.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters");
            for (method, operation) in operations {
                assert!(operation["summary"].is_string(), "{method} {path} says what it does");
                assert!(operation["responses"].is_object(), "{method} {path} says what it answers");
                let any = path == "/v1/{path}";
                written.insert(format!("{} {path}", if any { "any" } else { method.as_str() }));
            }
        }
        let ours =
            routes().names.into_iter().map(|(method, path)| format!("{} {path}", method.as_str().to_lowercase()));
        let routed: BTreeSet<String> =
            ours.chain([&MESSAGES[..], &MCP].concat().into_iter().map(str::to_owned)).collect();
        assert_eq!(written, routed);
    }

    #[test]
    fn every_reference_in_the_document_points_at_something() {
        let document: serde_json::Value = serde_json::from_str(DOCUMENT).unwrap();
        let mut references =
            DOCUMENT.split("\"$ref\": \"#").skip(1).filter_map(|rest| rest.split('"').next()).peekable();
        assert!(references.peek().is_some());
        for pointer in references {
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
