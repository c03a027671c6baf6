//! What one configuration changes of the one before, for people and programs to see.
//!
//! From two configurations and the tools made of them. To whoever reads a configuration again while it is in use.
//!
//! Texts of the file are compared, not what `${…}` in them stands for; a value in whose place a secret may stand is never
//! shown. What a document or a server says, and the file does not, shows in the tools.

use std::collections::BTreeSet;
use std::fmt;

use fanout_core::call::ToolName;
use fanout_core::tool::ToolSpec;
use fanout_core::toolbox::Toolbox;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::Config;

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// The tools that differ, in the order of the new ones; then those that are gone.
    pub tools: Vec<ToolChange>,
    /// The settings that differ, by section and key.
    pub settings: Vec<SettingChange>,
}

/// What became of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolChange {
    /// Which.
    pub tool: String,
    /// What.
    pub change: Change,
    /// In which respects it is another: `description`, `input`, `effects`, `policy`, `source`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub what: Vec<String>,
}

/// What became of a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChange {
    /// Where it stands, as in `[limits.payments] rate`.
    pub key: String,
    /// What.
    pub change: Change,
    /// What it was; `None` if it was not there, or may be a secret.
    pub from: Option<String>,
    /// What it is.
    pub to: Option<String>,
}

/// What became of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
    /// It is another.
    Changed,
}

/// Keys and sections whose values are no secrets. A text anywhere else may be one that slipped.
const SHOWN: [&str; 20] = [
    "limits",
    "run",
    "scheduler",
    "server",
    "prices",
    "reads",
    "writes",
    "after",
    "timeout",
    "deadline",
    "limit",
    "idempotent",
    "max_result",
    "nested",
    "undeclared",
    "stop_on_failure",
    "include",
    "exclude",
    "enabled_tools",
    "disabled_tools",
];

impl Changes {
    /// What the second changes of the first.
    pub fn between(before: (&Config, &Toolbox), after: (&Config, &Toolbox)) -> Self {
        let (old, new) = (parsed(&before.0.text.0), parsed(&after.0.text.0));
        let mut settings = Vec::new();
        tables(&[], &old, &new, &mut settings);
        Self { tools: tools(before.1, after.1), settings }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.tools.is_empty() && self.settings.is_empty()
    }
}

impl Change {
    fn sign(self) -> char {
        match self {
            Self::Added => '+',
            Self::Removed => '-',
            Self::Changed => '~',
        }
    }
}

/// A line for each change; `nothing changed` without any.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        for ToolChange { tool, change, what } in &self.tools {
            let what = if what.is_empty() { String::new() } else { format!(": {}", what.join(", ")) };
            lines.push(format!("{} tool {tool}{what}", change.sign()));
        }
        for SettingChange { key, change, from, to } in &self.settings {
            let sign = change.sign();
            lines.push(match (from, to) {
                (Some(from), Some(to)) => format!("{sign} {key}: {from}, now {to}"),
                (Some(value), None) | (None, Some(value)) => format!("{sign} {key}: {value}"),
                (None, None) => format!("{sign} {key}"),
            });
        }
        if lines.is_empty() {
            return f.write_str("nothing changed");
        }
        f.write_str(&lines.join("\n"))
    }
}

/// What differs between these two and can't while a process runs: it is done once, at its start.
pub fn fixed(before: &Config, after: &Config) -> Vec<String> {
    let (old, new) = (&before.server, &after.server);
    let told = (&before.notify, &after.notify);
    let differs = [
        ("`listen` of [server]", old.listen != new.listen),
        ("`hosts` of [server]", old.hosts != new.hosts),
        ("`keys_file` of [server]", old.keys_file != new.keys_file),
        ("`max_in_flight` of [scheduler]", before.scheduler.max_in_flight != after.scheduler.max_in_flight),
        ("`stray_hold` of [scheduler]", before.scheduler.stray_hold != after.scheduler.stray_hold),
        ("[[notify]]", told.0.len() != told.1.len() || told.0.iter().zip(told.1).any(|(old, new)| !old.is_like(new))),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what.to_owned()).collect()
}

fn tools(before: &Toolbox, after: &Toolbox) -> Vec<ToolChange> {
    let change = |name: &ToolName, change, what| ToolChange { tool: name.to_string(), change, what };
    let mut changes = Vec::new();
    for tool in after.iter() {
        let spec = &tool.spec;
        match before.get(&spec.name).map(|known| respects(&known.spec, spec)) {
            // What it says of itself is made of the others.
            Some(_) if tool.is_plan() => {}
            None => changes.push(change(&spec.name, Change::Added, Vec::new())),
            Some(what) if what.is_empty() => {}
            Some(what) => changes.push(change(&spec.name, Change::Changed, what)),
        }
    }
    let gone = before.iter().map(|tool| &tool.spec.name).filter(|name| after.get(name).is_none());
    changes.extend(gone.map(|name| change(name, Change::Removed, Vec::new())));
    changes
}

fn respects(old: &ToolSpec, new: &ToolSpec) -> Vec<String> {
    let differs = [
        ("description", old.description != new.description),
        ("input", old.input_schema != new.input_schema),
        ("effects", old.effects != new.effects),
        ("policy", old.policy != new.policy),
        ("source", old.source != new.source),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what.to_owned()).collect()
}

/// A text that was read before, so there is nothing wrong with it.
fn parsed(text: &str) -> DeTable<'_> {
    DeTable::parse_recoverable(text).0.into_inner()
}

/// Notes what differs between two tables, key by key.
fn tables(path: &[&str], old: &DeTable<'_>, new: &DeTable<'_>, changes: &mut Vec<SettingChange>) {
    let keys: BTreeSet<&str> = old.keys().chain(new.keys()).map(|key| &**key.get_ref()).collect();
    for key in keys {
        let path = [path, &[key]].concat();
        match (value_of(old, key), value_of(new, key)) {
            (Some(old), Some(new)) if text_of(old) == text_of(new) => {}
            (Some(DeValue::Table(old)), Some(DeValue::Table(new))) => tables(&path, old, new, changes),
            (old, new) if path == [TOOL] => tables(&path, &by_name(old), &by_name(new), changes),
            (old, new) => changes.push(changed(&path, old, new)),
        }
    }
}

fn value_of<'t, 'a>(table: &'t DeTable<'a>, key: &str) -> Option<&'t DeValue<'a>> {
    table.iter().find(|(known, _)| known.get_ref() == key).map(|(_, value)| value.get_ref())
}

/// The list of tables that are told apart by their names.
const TOOL: &str = "tool";

fn by_name<'a>(tools: Option<&DeValue<'a>>) -> DeTable<'a> {
    let mut named = DeTable::new();
    for tool in tools.and_then(DeValue::as_array).into_iter().flatten() {
        if let DeValue::Table(table) = tool.get_ref()
            && let Some(DeValue::String(name)) = value_of(table, "name")
        {
            named.insert(Spanned::new(0..0, name.clone()), tool.clone());
        }
    }
    named
}

fn changed(path: &[&str], old: Option<&DeValue<'_>>, new: Option<&DeValue<'_>>) -> SettingChange {
    let is_shown = path.iter().any(|part| SHOWN.contains(part));
    let shown = |value: Option<&DeValue<'_>>| value.filter(|_| is_shown).map(text_of);
    let change = match (old, new) {
        (None, _) => Change::Added,
        (_, None) => Change::Removed,
        _ => Change::Changed,
    };
    let is_table = matches!(new.or(old), Some(DeValue::Table(_)));
    SettingChange { key: written(path, is_table), change, from: shown(old), to: shown(new) }
}

/// As it is written: `[limits.payments] rate`, `[[tool]] get_user timeout`, `mcp_config`.
fn written(path: &[&str], is_table: bool) -> String {
    match path {
        [TOOL, rest @ ..] => format!("[[tool]] {}", rest.join(" ")).trim_end().to_owned(),
        path if is_table => format!("[{}]", path.join(".")),
        [section @ .., key] if !section.is_empty() => format!("[{}] {key}", section.join(".")),
        path => path.join("."),
    }
}

/// A value in one spelling, however it was written.
fn text_of(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Array(values) => {
            let texts: Vec<String> = values.iter().map(|value| text_of(value.get_ref())).collect();
            format!("[{}]", texts.join(", "))
        }
        DeValue::Table(table) => {
            let mut texts: Vec<String> =
                table.iter().map(|(key, value)| format!("{} = {}", key.get_ref(), text_of(value.get_ref()))).collect();
            texts.sort();
            format!("{{ {} }}", texts.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the second text changes of the first.
    #[track_caller]
    fn check(old: &str, new: &str, expected: &str) {
        let mut settings = Vec::new();
        tables(&[], &parsed(old), &parsed(new), &mut settings);
        assert_eq!(Changes { tools: Vec::new(), settings }.to_string(), expected);
    }

    #[test]
    fn what_differs_is_named_as_it_is_written() {
        check("[run]\nmax_turns = 5\n# words", "run = { max_turns = 5 }", "nothing changed");
        check("[limits.a]\nrate = \"5/s\"", "[limits.a]\nrate = \"9/s\"", "~ [limits.a] rate: \"5/s\", now \"9/s\"");
        check("", "[limits.a]\nburst = 2", "+ [limits]: { a = { burst = 2 } }");
        check("[limits.b]", "[limits.b]\n[limits.a]\nburst = 2", "+ [limits.a]: { burst = 2 }");
        check("mcp_config = \"a\"", "", "- mcp_config");
        let tool = |rest: &str| format!("[[tool]]\nname = \"x\"\n[[tool]]\nname = \"get\"\n{rest}");
        check(&tool("timeout = \"1s\""), &tool("timeout = \"2s\""), "~ [[tool]] get timeout: \"1s\", now \"2s\"");
        check(&tool(""), "[[tool]]\nname = \"get\"", "- [[tool]] x");
    }

    #[test]
    fn a_value_that_may_be_a_secret_is_not_shown() {
        let file = |key: &str, token: &str| {
            format!(
                "[model]\napi_key = \"{key}\"\n[[tool]]\nname = \"a\"\nhttp = {{ headers = {{ authorization = \"{token}\" }} }}"
            )
        };
        check(&file("sk-1", "t-1"), &file("sk-2", "t-2"), "~ [model] api_key\n~ [[tool]] a http headers authorization");
    }
}
