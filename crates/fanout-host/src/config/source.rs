//! What the section of a source with many tools says: of all of them, and of single ones in `tools.NAME`.
//!
//! From a section, whatever the source. To `openapi` and `mcp`, and through them to [`build`](crate::build) and
//! [`connect`](crate::connect).

use std::collections::{BTreeMap, BTreeSet};

use fanout_core::call::ToolName;
use fanout_core::tool::Policy;
use fanout_tools::naming::place_of;
use fanout_tools::schema::{Fields, nearest};

use super::field::Field;
use super::keys::Kind;
use super::limits::LimitConfig;
use super::page::{Place, Section};
use super::tool;

/// What is said of one tool of a source.
#[derive(Clone, Debug)]
pub struct SourceToolConfig {
    /// What it is declared to read: templates that can be read.
    pub reads: Option<Vec<String>>,
    /// What it is declared to write; `None`: nothing was said.
    pub writes: Option<Vec<String>>,
    /// How calls of it are treated.
    pub policy: Policy,
    /// Where it stands.
    pub place: Place,
}

/// What is said of all tools of a source.
pub(super) struct Said {
    /// How their calls are treated.
    pub policy: Policy,
    /// Whether calls of tools without a declaration wait for no other call: `undeclared = "parallel"`.
    pub parallel: bool,
}

/// Reads `limit`, `stop_on_failure` and `undeclared`.
pub(super) fn said(section: &Section<'_>, limits: &BTreeMap<String, LimitConfig>) -> Said {
    let limit = section.get("limit").and_then(|field| tool::limit(&field, limits));
    let policy = Policy { limit, stop_on_failure: stops_on_failure(section), ..Policy::default() };
    Said { policy, parallel: undeclared_parallel(section) }
}

/// Reads `stop_on_failure`.
pub(super) fn stops_on_failure(section: &Section<'_>) -> bool {
    section.get("stop_on_failure").and_then(|field| field.boolean()).unwrap_or_default()
}

/// Reads `undeclared`: whether it is `"parallel"`.
pub(super) fn undeclared_parallel(section: &Section<'_>) -> bool {
    section.get("undeclared").is_some_and(|field| is_parallel(&field))
}

fn is_parallel(field: &Field<'_>) -> bool {
    match field.string() {
        Some("parallel") => true,
        Some("serial") | None => false,
        Some(_) => {
            field.expected("\"serial\" or \"parallel\"");
            false
        }
    }
}

/// Reads one entry of `tools`. `fields` are those of its input, where they are known; `default` holds for all of the source.
pub(super) fn tool(
    field: &Field<'_>,
    source: &str,
    fields: Option<&Fields>,
    names: &Names,
    limits: &BTreeMap<String, LimitConfig>,
    default: &Policy,
) -> Option<SourceToolConfig> {
    let section = field.section(place_of(source, &field.key), Kind::SourceTool)?;
    let templates = |key| section.get(key).and_then(|field: Field<'_>| tool::templates(&field, fields));
    let (reads, writes) = (templates("reads"), templates("writes"));
    let own = tool::policy(&section, names, limits);
    let limit = own.limit.clone().or_else(|| default.limit.clone());
    let policy = Policy { limit, stop_on_failure: default.stop_on_failure, ..own };
    section.finish();
    Some(SourceToolConfig { reads, writes, policy, place: section.page.place(&section.spot) })
}

/// The tools that `after` can name.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// By their whole names.
    pub known: BTreeSet<String>,
    /// What the names begin with of tools that only a server knows: whether there is one is seen when it is connected.
    pub open: Vec<String>,
    /// The tools of the source that speaks, by its own names for them; `None`: only the server knows.
    pub own: Option<BTreeMap<String, ToolName>>,
}

impl Names {
    /// The tool that is meant.
    ///
    /// # Errors
    /// The name that was perhaps meant, as the end of a sentence.
    pub(super) fn find(&self, name: &str) -> Result<ToolName, String> {
        let Some(own) = &self.own else { return Ok(name.into()) };
        if let Some(own) = own.get(name) {
            return Ok(own.clone());
        }
        if self.known.contains(name) || self.open.iter().any(|prefix| name.starts_with(prefix)) {
            return Ok(name.into());
        }
        let all = self.known.iter().map(String::as_str).chain(own.keys().map(String::as_str));
        Err(nearest(name, all).map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default())
    }
}
