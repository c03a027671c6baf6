//! What the tools of some common servers read and write, as somebody found by reading their source.
//!
//! From `server`: who a server says it is, and what it lists. To `tool`, which takes an entry where nothing else is declared.
//!
//! An entry holds for one version and no other. Many servers name the same version for years, so it also holds only for the
//! tools and inputs that were there when it was written ([`shape`]): anything else gets nothing from here. Keys are as coarse
//! as is true for every spelling of a path, through links and for whole folders.

use ring::digest::{SHA256, digest};
use rmcp::model::{Implementation, Tool};
use serde_json::{Value, json};

/// What a tool reads and writes, by the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Catalogued {
    /// The package that was read, with its version.
    pub package: &'static str,
    /// What it reads.
    pub reads: &'static [&'static str],
    /// What it writes.
    pub writes: &'static [&'static str],
}

struct Entry {
    package: &'static str,
    /// What the server calls itself, and its version.
    name: &'static str,
    version: &'static str,
    /// The [`shape`] of its tools.
    shape: &'static str,
    tools: &'static [(&'static str, &'static [&'static str], &'static [&'static str])],
}

const NONE: &[&str] = &[];
const FILES: &[&str] = &["file/*"];
const GIT: &[&str] = &["git/*"];
const BOTH: &[&str] = &["git/*", "file/*"];

/// Files are `file/…` for every server, so that what one writes and another reads keep their order.
const ENTRIES: [Entry; 3] = [
    Entry {
        package: "@modelcontextprotocol/server-filesystem 2026.8.31",
        name: "secure-filesystem-server",
        version: "0.2.0",
        shape: "793b056d061f1abf",
        tools: &[
            ("read_file", FILES, NONE),
            ("read_text_file", FILES, NONE),
            ("read_media_file", FILES, NONE),
            ("read_multiple_files", FILES, NONE),
            ("write_file", NONE, FILES),
            ("edit_file", NONE, FILES),
            ("create_directory", NONE, FILES),
            ("list_directory", FILES, NONE),
            ("list_directory_with_sizes", FILES, NONE),
            ("directory_tree", FILES, NONE),
            ("move_file", NONE, FILES),
            ("search_files", FILES, NONE),
            ("get_file_info", FILES, NONE),
            ("list_allowed_directories", NONE, NONE),
        ],
    },
    Entry {
        package: "mcp-server-git 2026.10.19",
        name: "mcp-git",
        version: "2026.10.19",
        shape: "59adeeb71ba0029b",
        tools: &[
            ("git_status", BOTH, NONE),
            ("git_diff_unstaged", BOTH, NONE),
            ("git_diff_staged", GIT, NONE),
            ("git_diff", BOTH, NONE),
            // Hooks of the repository may change its files.
            ("git_commit", NONE, BOTH),
            ("git_add", FILES, GIT),
            ("git_reset", NONE, GIT),
            ("git_log", GIT, NONE),
            ("git_create_branch", NONE, GIT),
            ("git_checkout", NONE, BOTH),
            ("git_show", GIT, NONE),
            ("git_branch", GIT, NONE),
        ],
    },
    Entry {
        package: "mcp-server-time 2026.10.19",
        name: "mcp-time",
        version: "2026.10.19",
        shape: "ac4846c7a051bd07",
        tools: &[("get_current_time", NONE, NONE), ("convert_time", NONE, NONE)],
    },
];

/// What is known of the tools of a server; nothing, unless it is in every point the one that was read.
pub(super) fn known(server: Option<&Implementation>, tools: &[Tool]) -> impl Fn(&str) -> Option<Catalogued> + use<> {
    let entry = ENTRIES.iter().find(|entry| entry.is_of(server, tools));
    move |tool| entry?.tool(tool)
}

impl Entry {
    fn is_of(&self, server: Option<&Implementation>, tools: &[Tool]) -> bool {
        server.is_some_and(|it| it.name == self.name && it.version == self.version) && shape(tools) == self.shape
    }

    fn tool(&self, tool: &str) -> Option<Catalogued> {
        let (_, reads, writes) = self.tools.iter().find(|(name, ..)| *name == tool)?;
        Some(Catalogued { package: self.package, reads, writes })
    }
}

/// A hash of the tools' names and of their inputs without the descriptions, which may name the machine; 16 hex digits.
fn shape(tools: &[Tool]) -> String {
    let mut shapes: Vec<String> = tools
        .iter()
        .map(|tool| json!([&*tool.name, bare(&Value::Object((*tool.input_schema).clone()))]).to_string())
        .collect();
    shapes.sort_unstable();
    let hash = digest(&SHA256, shapes.join("\n").as_bytes());
    hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Objects as sorted pairs, whatever order the server prints them in, and without what is only for readers.
fn bare(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let told = |key: &str| matches!(key, "description" | "title" | "$schema");
            let mut pairs: Vec<_> = fields.iter().filter(|(key, value)| !(told(key) && value.is_string())).collect();
            pairs.sort_unstable_by_key(|(key, _)| *key);
            pairs.into_iter().map(|(key, value)| json!([key, bare(value)])).collect()
        }
        Value::Array(values) => values.iter().map(bare).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Entry = Entry {
        package: "clock 1.2.3",
        name: "clock",
        version: "1.2.3",
        shape: "f3ed75924598fe7d",
        tools: &[("look", FILES, NONE)],
    };

    fn tools(text: &str) -> Vec<Tool> {
        serde_json::from_str(text).unwrap()
    }

    const LISTED: &str = r#"[{"name":"look","inputSchema":{"type":"object","properties":{"at":{"type":"string"}}}},
        {"name":"set","inputSchema":{"type":"object"}}]"#;

    #[track_caller]
    fn check(name: &str, version: &str, listed: &str, is_known: bool) {
        let server = Implementation::new(name, version);
        assert_eq!(ENTRY.is_of(Some(&server), &tools(listed)), is_known);
    }

    #[test]
    fn an_entry_is_of_one_version_with_the_same_tools_and_inputs() {
        check("clock", "1.2.3", LISTED, true);
        let turned = r#"[{"name":"set","inputSchema":{"type":"object"},"description":"sets"},
            {"name":"look","inputSchema":{"properties":{"at":{"description":"as on p1.example.com","type":"string"}},"type":"object"}}]"#;
        check("clock", "1.2.3", turned, true);
        check("clock", "1.2.4", LISTED, false);
        check("clocks", "1.2.3", LISTED, false);
        check("clock", "1.2.3", &LISTED.replace("\"at\"", "\"to\""), false);
        check("clock", "1.2.3", &LISTED.replace("\"set\"", "\"put\""), false);
        assert!(!ENTRY.is_of(None, &tools(LISTED)));
    }

    #[test]
    fn every_key_of_the_catalogue_is_one_that_a_user_could_declare() {
        for (_, reads, writes) in ENTRIES.iter().flat_map(|entry| entry.tools) {
            for key in reads.iter().chain(*writes) {
                fanout_core::effects::Template::parse(key).unwrap();
            }
        }
        assert_eq!(ENTRY.tool("look").map(|known| known.reads), Some(FILES));
        assert_eq!(ENTRY.tool("set"), None);
    }
}
