//! The file of MCP servers that other programs write: `{"mcpServers": {"NAME": {"command": …}}}`.
//!
//! From the file that `mcp_config` names. To `mcp`, server by server with its place.
//!
//! Only what says how a server is reached is read; other programs' further keys are none of ours.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::field::Field;
use super::mcp::McpReachConfig;
use super::page::{Mistake, Place};
use super::setting::Setting;

type Servers = BTreeMap<String, (Place, McpReachConfig)>;

/// The file, while it is read.
struct File<'f, 'a> {
    field: &'f Field<'a>,
    name: &'f str,
    text: &'f str,
    folder: &'f Path,
}

/// Reads the file that a field names, looked for beside the configuration.
pub(super) fn read(field: &Field<'_>) -> Servers {
    let Some(name) = field.string() else { return Servers::new() };
    let path = field.page.folder.join(name);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            field.mistake(format!("{name} cannot be read: {error}"));
            return Servers::new();
        }
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    File { field, name, text: &text, folder }.servers()
}

impl File<'_, '_> {
    fn servers(&self) -> Servers {
        let value: Value = match serde_json::from_str(self.text) {
            Ok(value) => value,
            Err(error) => {
                self.mistake(self.place(error.line(), error.column()), "this is not JSON".to_owned());
                return Servers::new();
            }
        };
        let Some(Value::Object(servers)) = value.get("mcpServers") else {
            let message = "a file of MCP servers is written as {\"mcpServers\": {\"NAME\": {\"command\": …}}}";
            self.mistake(self.place(1, 1), message.to_owned());
            return Servers::new();
        };
        let read = |(name, entry): (&String, &Value)| Some((name.clone(), self.server(name, entry)?));
        servers.iter().filter_map(read).collect()
    }

    fn server(&self, name: &str, entry: &Value) -> Option<(Place, McpReachConfig)> {
        let place = self.place_of(name);
        let wrong = |what: &str| self.mistake(place.clone(), format!("the MCP server `{name}` {what}"));
        let left_out = |why: &str| self.warning(&place, format!("the MCP server `{name}` is left out: {why}"));
        let Value::Object(entry) = entry else {
            wrong("must be an object");
            return None;
        };
        if entry.get("disabled") == Some(&Value::Bool(true)) {
            left_out("it is disabled");
            return None;
        }
        let kind = entry.get("type").and_then(Value::as_str).unwrap_or_default();
        if kind == "sse" {
            left_out(
                "of remote servers only those that speak streamable HTTP can be used (`type` \"http\"), not \"sse\"",
            );
            return None;
        }
        let reach = match (entry.get("command"), entry.get("url")) {
            (Some(Value::String(command)), None) => McpReachConfig::Program {
                command: self.setting(&place, "command", command)?,
                args: self.list(&place, entry)?,
                env: self.pairs(&place, entry, "env")?,
                folder: self.folder.to_owned(),
            },
            (None, Some(Value::String(url))) => {
                let headers = self.pairs(&place, entry, "headers")?;
                McpReachConfig::Http { url: self.setting(&place, "url", url)?, headers, oauth: None }
            }
            _ => {
                wrong("needs a `command` or a `url`, in quotes");
                return None;
            }
        };
        Some((place, reach))
    }

    fn list(&self, place: &Place, entry: &Map<String, Value>) -> Option<Vec<Setting>> {
        let Some(args) = entry.get("args") else { return Some(Vec::new()) };
        let texts = args.as_array().map(|args| args.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        let Some(Some(texts)) = texts else {
            self.mistake(place.clone(), "`args` must be a list of texts".to_owned());
            return None;
        };
        texts.into_iter().map(|text| self.setting(place, "args", text)).collect()
    }

    fn pairs(&self, place: &Place, entry: &Map<String, Value>, key: &str) -> Option<Vec<(String, Setting)>> {
        let Some(given) = entry.get(key) else { return Some(Vec::new()) };
        let texts = given
            .as_object()
            .map(|given| given.iter().map(|(name, value)| Some((name, value.as_str()?))).collect::<Option<Vec<_>>>());
        let Some(Some(texts)) = texts else {
            self.mistake(place.clone(), format!("`{key}` must be an object of texts"));
            return None;
        };
        texts.into_iter().map(|(name, text)| Some((name.clone(), self.setting(place, name, text)?))).collect()
    }

    fn setting(&self, place: &Place, key: &str, text: &str) -> Option<Setting> {
        match Setting::parse(text, place.clone(), key, self.folder) {
            Ok(setting) => Some(setting),
            Err(message) => {
                self.mistake(place.clone(), message);
                None
            }
        }
    }

    fn mistake(&self, place: Place, message: String) {
        self.field.page.mistake_at(Mistake { place, message });
    }

    fn warning(&self, place: &Place, message: String) {
        self.field.page.warning_at(Mistake { place: place.clone(), message });
    }

    /// Where a server stands: the first place behind `mcpServers` where its name is a key.
    fn place_of(&self, name: &str) -> Place {
        let key = Value::from(name).to_string();
        let from = self.text.find("\"mcpServers\"").unwrap_or_default();
        let is_key = |(at, _): &(usize, &str)| self.text[from + at + key.len()..].trim_start().starts_with(':');
        let Some((at, _)) = self.text[from..].match_indices(&key).find(is_key) else { return self.place(1, 1) };
        let before = &self.text[..from + at];
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        self.place(before.matches('\n').count() + 1, column)
    }

    fn place(&self, line: usize, column: usize) -> Place {
        Place::File { file: self.name.to_owned(), line, column }
    }
}
