//! Which tools draw on which limit group, and what each group may do.
//!
//! From the configuration and the tools made of it. To `check`, to metrics, and to a warning about a section that concerns
//! nobody.
//!
//! How a group stands at this moment only the scheduler knows.

use std::collections::BTreeMap;

use fanout_core::call::{GroupName, ToolName};
use fanout_core::limits::LimitOptions;
use fanout_core::tool::ToolSpec;
use fanout_core::toolbox::Toolbox;
use fanout_tools::schema::nearest;

use crate::config::{Config, Mistake, written};

/// One limit group.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Its name.
    pub name: GroupName,
    /// Its budget.
    pub options: LimitOptions,
    /// Whether it is there though no section sets it up.
    pub unasked: bool,
    /// The tools whose attempts need its permits, in the order of the toolbox.
    pub tools: Vec<ToolName>,
}

/// The group of a tool, as the scheduler finds it: the one that it names, else that of its source; `None` for a tool that
/// runs calls itself, and for one that names none and is no external API.
pub fn group_of(spec: &ToolSpec) -> Option<GroupName> {
    if spec.policy.nested {
        return None;
    }
    spec.policy.limit.clone().or_else(|| LimitOptions::unasked(&spec.source).map(|(name, _)| name))
}

/// Every group that is set up or that a tool has unasked, by name.
pub fn groups(config: &Config, toolbox: &Toolbox) -> Vec<Group> {
    let section = |(name, limit): (&String, &crate::config::LimitConfig)| {
        let name = GroupName::from(name.as_str());
        (name.clone(), Group { name, options: limit.options.clone(), unasked: false, tools: Vec::new() })
    };
    let mut groups: BTreeMap<GroupName, Group> = config.limits.iter().map(section).collect();
    for spec in toolbox.iter().map(|tool| &tool.spec) {
        let Some(name) = group_of(spec) else { continue };
        let group = groups.entry(name.clone()).or_insert_with(|| {
            let options = config.unasked_limit(&spec.source).map(|(_, options)| options);
            Group { name, options: options.unwrap_or_default(), unasked: true, tools: Vec::new() }
        });
        group.tools.push(spec.name.clone());
    }
    groups.into_values().collect()
}

/// A warning for every `[limits.NAME]` that no tool uses, by name.
pub fn unused(config: &Config, toolbox: &Toolbox) -> Vec<Mistake> {
    let groups = groups(config, toolbox);
    let others: Vec<&str> = groups.iter().filter(|group| group.unasked).map(|group| group.name.as_str()).collect();
    let idle = groups.iter().filter(|group| group.tools.is_empty());
    let warning = |group: &Group| {
        let name = group.name.as_str();
        let limit = config.limits.get(name)?;
        let hint = match nearest(name, others.iter().copied()).filter(|_| name.contains('/')) {
            Some(meant) => format!("did you mean {}?", written(meant)),
            None => format!("a tool takes it with `limit = {name:?}`"),
        };
        let message = format!("no tool uses {}; {hint}", written(name));
        Some(Mistake { place: limit.place.clone(), message })
    };
    idle.filter_map(warning).collect()
}
