//! The names of tools that a source brings: `source__tool`.
//!
//! From the source's name and what the source calls the tool. To a [`Toolbox`](fanout_core::toolbox::Toolbox), and to
//! clients: a name depends on nothing but these two, so that it stays the same while others come and go.

use fanout_core::call::ToolName;
use ring::digest::{SHA256, digest};

/// Many clients take no longer names, though the Messages API takes 128 characters.
const NAME_MAX: usize = 64;

/// So much of a longer name is kept before its hash.
const KEPT: usize = 55;

/// The name of a source's tool: characters outside `[A-Za-z0-9_-]` become `_`; a name longer than 64 is cut to 55, with `_`
/// and 8 hex digits of the SHA-256 of the whole name, as it was before its characters were replaced.
pub fn tool_name(source: &str, tool: &str) -> ToolName {
    let full = format!("{source}__{tool}");
    let name = valid(&full);
    if name.len() <= NAME_MAX {
        return name.into();
    }
    with_hash(&name, &full).into()
}

/// The same where two tools of a source would get one name: `what` tells them apart and is hashed into it.
pub fn distinct_tool_name(source: &str, tool: &str, what: &str) -> ToolName {
    hashed_name(&format!("{source}__{tool}"), what).into()
}

/// A name of the same characters, with `what` hashed into it: `_` and 8 hex digits.
pub fn hashed_name(name: &str, what: &str) -> String {
    with_hash(&valid(name), what)
}

/// Where the configuration describes one tool of a source: ``[openapi.shop] tools."orders/get"``, `[mcp_servers.files] tools.read`.
pub fn place_of(section: &str, tool: &str) -> String {
    let bare = !tool.is_empty() && valid(tool) == tool;
    if bare { format!("{section} tools.{tool}") } else { format!("{section} tools.{tool:?}") }
}

fn with_hash(name: &str, hashed: &str) -> String {
    let hash = digest(&SHA256, hashed.as_bytes());
    let hex: String = hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    // Only single bytes are left in it by now.
    let kept = &name[..name.len().min(KEPT)];
    format!("{kept}_{hex}")
}

/// A name with `_` for every character that the API does not take.
fn valid(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    name.chars().map(|c| if fits(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_the_api_takes_and_no_longer_than_64() {
        let long = "x".repeat(55 - "github__".len());
        for (tool, name) in [
            ("issues/list", "github__issues_list".to_owned()),
            ("größe.é", "github__gr__e__".to_owned()),
            (&"y".repeat(56), format!("github__{}", "y".repeat(56))),
            (&format!("{long}0123456789"), format!("github__{long}_130da9b4")),
            (&format!("{long}0123456780"), format!("github__{long}_c3ef3ee4")),
        ] {
            assert_eq!(tool_name("github", tool).as_str(), name);
        }
        assert_eq!(place_of("[a.b]", "c-d"), "[a.b] tools.c-d");
        assert_eq!(place_of("[a.b]", "c/d"), "[a.b] tools.\"c/d\"");
        let one = distinct_tool_name("a", "b", "GET /b");
        assert!(one.as_str().starts_with("a__b_") && one != distinct_tool_name("a", "b", "GET /c"), "{one}");
    }
}
