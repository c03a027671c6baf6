//! `[project.NAME]`: what a team may use, and what it may spend in a day.
//!
//! From the page. To [`options`](crate::options), which makes caps of it. Which project a key belongs to stands in the keys file.

use std::collections::BTreeMap;

use fanout_tools::openapi::matches_pattern;

use super::field::Field;
use super::keys::Kind;
use super::page::{Section, Spot};

/// One team.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProjectConfig {
    /// The tools that its keys may use, by names in which `*` stands for any characters; `None`: all.
    pub tools: Option<Vec<String>>,
    /// The most US dollars in a day of UTC, for all its keys together.
    pub max_cost_usd_per_day: Option<f64>,
    /// The most for each of its keys.
    pub max_cost_usd_per_key_per_day: Option<f64>,
}

impl ProjectConfig {
    /// Whether its keys may use this tool.
    pub fn may_use(&self, tool: &str) -> bool {
        self.tools.as_ref().is_none_or(|tools| tools.iter().any(|pattern| matches_pattern(pattern, tool)))
    }
}

/// Reads every `[project.NAME]`; those with mistakes that leave nothing to go on with are left out.
pub(super) fn read_all(top: &Section<'_>) -> BTreeMap<String, ProjectConfig> {
    let Some(section) = top.get("project").and_then(|field| field.section("[project]", Kind::Names)) else {
        return BTreeMap::new();
    };
    section.all().filter_map(|(spot, field)| Some((field.key.clone(), read(&spot, &field)?))).collect()
}

/// How a section is written: `[project.support]`.
pub(crate) fn written(name: &str) -> String {
    let is_bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_bare { format!("[project.{name}]") } else { format!("[project.{name:?}]") }
}

fn read(spot: &Spot, field: &Field<'_>) -> Option<ProjectConfig> {
    let name = field.key.as_str();
    if name.trim().is_empty() {
        field.page.mistake(spot, "a project needs a name, as in [project.support]");
    }
    let section = field.section(written(name), Kind::Project)?;
    let amount = |key| section.get(key).and_then(|field| field.amount());
    let tools = section.get("tools").and_then(|field| field.strings());
    let config = ProjectConfig {
        tools: tools.map(|texts| texts.into_iter().map(|(text, _)| text.to_owned()).collect()),
        max_cost_usd_per_day: amount("max_cost_usd_per_day"),
        max_cost_usd_per_key_per_day: amount("max_cost_usd_per_key_per_day"),
    };
    section.finish();
    Some(config)
}
