//! What operations a document has, and what they are called.
//!
//! From `document`. To whoever chooses among them, by id, by method and path, or by pattern.
//!
//! What an operation takes is not read here: a document may have thousands of which three are used.

use std::collections::BTreeMap;

use fanout_core::call::ToolName;
use http::Method;

use super::document::{Document, Spot};
use crate::naming::{distinct_tool_name, tool_name};

/// The methods of a Path Item Object.
const METHODS: [Method; 8] = [
    Method::GET,
    Method::PUT,
    Method::POST,
    Method::DELETE,
    Method::OPTIONS,
    Method::HEAD,
    Method::PATCH,
    Method::TRACE,
];

/// One operation, by its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Its operation id, if it has one.
    pub id: Option<String>,
    /// The method.
    pub method: Method,
    /// The path, as the document spells it.
    pub path: String,
    /// The name of its tool; no other operation of the document has it, and none has an influence on it but those that
    /// would be called the same.
    pub tool: ToolName,
}

impl Outline {
    /// Its id, or method and path: what the configuration calls it.
    pub fn label(&self) -> String {
        self.id.clone().unwrap_or_else(|| self.place())
    }

    /// Method and path: `GET /orders/{id}`.
    pub fn place(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Whether a pattern means it: its id, or method and path, with `*` for any characters.
    pub fn is_meant_by(&self, pattern: &str) -> bool {
        self.id.as_deref().is_some_and(|id| matches_pattern(pattern, id)) || matches_pattern(pattern, &self.place())
    }
}

impl Document {
    /// Every operation, path by path, with the names of the tools of a source that is called `source`.
    pub fn operations(&self, source: &str) -> Vec<Outline> {
        let mut found = Vec::new();
        let paths = self.root().get("paths").into_iter().flat_map(Spot::entries);
        for (path, item) in paths.filter(|(path, _)| path.starts_with('/')) {
            let Some(item) = self.resolved(item) else { continue };
            for method in METHODS {
                let Some(operation) = item.get(&method.as_str().to_ascii_lowercase()) else { continue };
                let id = operation.text("operationId").map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned);
                let tool = tool_name(source, id.as_deref().unwrap_or(&made_id(&method, path)));
                found.push(Outline { id, method, path: path.clone(), tool });
            }
        }
        // All of those that would be called the same get a hash, so that no name depends on which comes first.
        let mut count: BTreeMap<ToolName, usize> = BTreeMap::new();
        for outline in &found {
            *count.entry(outline.tool.clone()).or_default() += 1;
        }
        for outline in &mut found {
            if count.get(&outline.tool).is_some_and(|count| *count > 1) {
                let id = outline.id.clone().unwrap_or_else(|| made_id(&outline.method, &outline.path));
                outline.tool = distinct_tool_name(source, &id, &format!("{id} {}", outline.place()));
            }
        }
        found
    }
}

/// `get_orders_id` for `GET /orders/{id}`.
fn made_id(method: &Method, path: &str) -> String {
    let words =
        path.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').filter(|word| !word.is_empty());
    let method = method.as_str().to_ascii_lowercase();
    std::iter::once(method.as_str()).chain(words).collect::<Vec<_>>().join("_")
}

/// Whether a text is what a pattern says, in which `*` stands for any characters.
pub fn matches_pattern(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, is) in [
            ("issues/list", "issues/list", true),
            ("issues/list", "issues/lists", false),
            ("issues/*", "issues/list", true),
            ("*/list", "issues/list", true),
            ("GET /repos/*/issues", "GET /repos/{owner}/{repo}/issues", true),
            ("GET /repos/*/issues", "GET /repos/{owner}/issues/{n}", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("a*b*c", "axbxbxc", true),
            ("a*b*c", "axc", false),
        ] {
            assert_eq!(matches_pattern(pattern, text), is, "{pattern} {text}");
        }
    }

    #[test]
    fn an_operation_without_an_id_is_named_by_method_and_path() {
        assert_eq!(made_id(&Method::GET, "/orders/{order-id}/items.json"), "get_orders_order-id_items_json");
        assert_eq!(made_id(&Method::POST, "/"), "post");
    }
}
