//! What the contract of names holds and this version does not do.
//!
//! A key that is ignored could be dangerous: a `workspace` that confines nobody, a check that checks nothing. So each is
//! refused with a sentence. A version that learns one of them takes its line out of the table.

use super::keys::Kind;

/// Where, which key, and what would be lost if it were ignored.
const LATER: [(Kind, &str, &str); 3] = [
    (Kind::Top, "workspace", "there are no file tools yet"),
    (Kind::Project, "limits", "they would not be kept"),
    (Kind::Project, "credentials", "the tools would use those of everybody"),
];

/// Why a key is refused, if it belongs to a later version.
pub(super) fn sentence(kind: Kind, key: &str) -> Option<String> {
    let (_, _, lost) = LATER.iter().find(|(where_, name, _)| *where_ == kind && *name == key)?;
    Some(format!("`{key}` is not in this version of fanout: {lost}"))
}

/// Whether a key that stands on a tool is one of its limit group: a budget is an API's, not a tool's.
pub(super) fn is_of_limits(kind: Kind, key: &str) -> bool {
    let keys = ["rate", "burst", "concurrency", "max_queue", "max_wait", "retry", "breaker"];
    matches!(kind, Kind::Tool | Kind::Openapi | Kind::McpServer | Kind::SourceTool) && keys.contains(&key)
}

/// The keys of later versions, for guessing what was meant.
pub(super) fn keys(kind: Kind) -> impl Iterator<Item = &'static str> {
    LATER.iter().filter(move |(where_, ..)| *where_ == kind).map(|(_, key, _)| *key)
}
