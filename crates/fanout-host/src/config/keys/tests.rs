//! What is described is what is read: every key, by its example and by its default.

use std::path::Path;

use serde_json::Value;

use super::super::schema::{literal, schema};
use super::{Key, Kind, Takes, all};
use crate::config::Config;
use crate::environment::Environment;

const DOCUMENT: &str = r#"
openapi: 3.1.0
servers: [{ url: "https://shop.example" }]
components: { securitySchemes: { key: { type: apiKey, in: header, name: x-key } } }
paths:
  /orders:
    get: { operationId: orders/list }
    post: { operationId: orders/create }
    delete: { operationId: orders/delete }
"#;

/// A folder with the files that examples name.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("shop.yaml", DOCUMENT),
        ("schema.json", r#"{"type":"object","properties":{"user_id":{}}}"#),
        (".mcp.json", r#"{"mcpServers":{}}"#),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// A file in which one line of a table stands, with what that table needs besides.
fn file(kind: Kind, header: &str, key: &str, line: &str) -> String {
    // What stands beside the line, unless the line says the same or rules it out.
    let beside = |lines: &[(&[&str], &str)]| -> String {
        let others = lines.iter().filter(|(unless, _)| !unless.contains(&key));
        others.map(|(_, line)| format!("{line}\n")).collect()
    };
    let input = "input = { user_id = { type = \"string\" } }";
    let tool = format!("[[tool]]\nname = \"get_user\"\n{input}\n");
    match kind {
        Kind::Top => format!("{line}\n"),
        Kind::Limit => format!("[limits.x]\n{line}\n"),
        Kind::Retry => format!("[limits.x.retry]\n{line}\n"),
        Kind::Breaker => format!("[limits.x.breaker]\n{line}\n"),
        Kind::Tool => {
            let http = "http = { method = \"POST\", url = \"https://a.example/{user_id}\" }";
            let inputs: &[&str] = &["input", "input_schema", "input_schema_file"];
            let others =
                beside(&[(&["name"], "name = \"get_user\""), (&["http", "command", "sql"], http), (inputs, input)]);
            format!("[[tool]]\n{line}\n{others}[limits.payments]\n[database.shop]\nurl = \"sqlite://shop.db\"\n")
        }
        Kind::Condition => {
            let tests: &[&str] = &["over", "under", "equals", "absent"];
            let others = beside(&[(&["if"], "if = \"/user_id\""), (tests, "absent = true")]);
            format!("{tool}command = {{ program = \"x\" }}\n[[tool.approval]]\n{line}\n{others}")
        }
        Kind::Http => {
            let others = beside(&[(&["method"], "method = \"POST\""), (&["url"], "url = \"https://a.example\"")]);
            format!("{tool}[tool.http]\n{line}\n{others}")
        }
        Kind::Command => format!("{tool}[tool.command]\n{line}\n{}", beside(&[(&["program"], "program = \"ruff\"")])),
        Kind::Sql => {
            let statement = "statement = \"select 1\"";
            let others = beside(&[(&["database"], "database = \"shop\""), (&["statement", "statements"], statement)]);
            format!("{tool}[tool.sql]\n{line}\n{others}[database.shop]\nurl = \"sqlite://shop.db\"\n")
        }
        Kind::Database => {
            format!("[database.shop]\n{line}\n{}", beside(&[(&["url"], "url = \"postgres://localhost/shop\"")]))
        }
        Kind::Openapi => {
            format!("[openapi.shop]\n{line}\n{}[limits.payments]\n", beside(&[(&["spec"], "spec = \"shop.yaml\"")]))
        }
        Kind::McpServer => {
            let reach = if ["http_headers", "oauth"].contains(&key) {
                "url = \"https://a.example\""
            } else {
                "command = \"x\""
            };
            let others = beside(&[(&["command", "url"], reach)]);
            format!("[mcp_servers.files]\n{line}\n{others}[limits.payments]\n")
        }
        Kind::Oauth => {
            let id = beside(&[(&["client_id"], "client_id = \"a\"")]);
            let secret = beside(&[(&["client_secret"], "client_secret = \"b\"")]);
            format!("[mcp_servers.files]\nurl = \"https://a.example\"\n[mcp_servers.files.oauth]\n{line}\n{id}{secret}")
        }
        Kind::Jwt => {
            let keys = beside(&[(&["jwks_url", "secret"], "secret = \"${JWT_SECRET}\"")]);
            format!("[server.jwt]\n{line}\n{keys}")
        }
        Kind::SourceTool => {
            format!("[mcp_servers.files]\ncommand = \"x\"\n[mcp_servers.files.tools.f]\n{line}\n[limits.payments]\n")
        }
        Kind::Price => {
            let others = ["input", "output", "cache_read", "cache_write"].map(|name| ([name], format!("{name} = 1")));
            let others: Vec<(&[&str], &str)> =
                others.iter().map(|(name, line)| (name.as_slice(), line.as_str())).collect();
            format!("[prices.m]\n{line}\n{}", beside(&others))
        }
        Kind::Project => format!("[project.support]\n{line}\n"),
        Kind::Notify => {
            let others =
                beside(&[(&["url"], "url = \"https://a.example\""), (&["secret"], "secret = \"${HOOK_SECRET}\"")]);
            format!("[[notify]]\n{line}\n{others}")
        }
        Kind::Model | Kind::Run | Kind::Scheduler | Kind::Server | Kind::Store | Kind::Worker | Kind::Names => {
            format!("{header}\n{line}\n")
        }
    }
}

fn keys() -> impl Iterator<Item = (Kind, &'static str, &'static Key)> {
    all().iter().flat_map(|table| table.keys.iter().map(|key| (table.kind, table.header, key)))
}

fn parse(text: &str, folder: &Path, environment: &Environment) -> Config {
    Config::parse("fanout.toml", text, folder, environment).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

/// A key that is described and not read is unknown to the reader; one that is read and not described stops at an assertion
/// of [`Section::get`](crate::config::page::Section::get).
#[test]
fn every_key_that_is_described_is_read_and_its_example_is_right() {
    let (folder, schema) = (folder(), jsonschema::validator_for(&schema()).unwrap());
    for (kind, header, key) in keys() {
        let text = file(kind, header, key.name, &format!("{} = {}", key.name, key.example));
        parse(&text, folder.path(), &Environment::default());
        let value: Value = toml::from_str(&text).unwrap();
        assert!(schema.is_valid(&value), "{text}\n{:?}", schema.iter_errors(&value).next());
    }
}

#[test]
fn every_default_that_is_described_is_what_holds_without_the_key() {
    let folder = folder();
    let shown = |text: &str| {
        let config = parse(text, folder.path(), &Environment::default());
        let config = Config { warnings: Vec::new(), ..config };
        format!("{config:#?}").replace("max_cost_given: true", "max_cost_given: false")
    };
    let mut compared = 0;
    for (kind, header, key) in keys() {
        let Some(default) = key.default else { continue };
        // A default that is a setting says where it stands.
        if matches!(key.takes, Takes::Setting) {
            continue;
        }
        let said = shown(&file(kind, header, key.name, &format!("{} = {default}", key.name)));
        assert_eq!(said, shown(&file(kind, header, key.name, "")), "{header} {}", key.name);
        compared += 1;
    }
    assert!(compared > 30, "{compared}");
}

#[test]
fn every_key_of_an_overridden_section_is_overridden() {
    let folder = folder();
    for table in all().iter().filter(|table| table.overridden) {
        for key in
            table.keys.iter().filter(|key| !matches!(key.takes, Takes::ListLike(..) | Takes::Texts | Takes::Table(_)))
        {
            let value = match literal(key.example).unwrap() {
                Value::String(text) => text,
                other => other.to_string(),
            };
            let section = table.header.trim_matches(['[', ']']).to_uppercase();
            let variable = format!("FANOUT_{section}__{}", key.name.to_uppercase());
            parse("", folder.path(), &[(variable, value)].into_iter().collect());
        }
    }
}

#[test]
fn every_key_is_described_in_words() {
    for (_, header, key) in keys() {
        assert!(!key.about.is_empty() && !key.about.ends_with('.'), "{header} {}", key.name);
        assert!(literal(key.example).is_some(), "{header} {}", key.name);
        assert!(key.default.is_none_or(|default| literal(default).is_some()), "{header} {}", key.name);
        assert!(!key.needed || key.default.is_none(), "{header} {}", key.name);
    }
}
