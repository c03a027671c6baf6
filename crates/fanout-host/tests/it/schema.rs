//! The schema and the reference page against the reader, the example file and the documents.

use std::path::{Path, PathBuf};

use fanout_host::config::{Config, reference, schema};
use fanout_host::environment::Environment;
use jsonschema::Validator;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn validator() -> Validator {
    let schema = schema();
    assert!(jsonschema::meta::is_valid(&schema));
    jsonschema::validator_for(&schema).unwrap()
}

#[track_caller]
fn accepts(schema: &Validator, text: &str, name: &str) {
    let value: Value = toml::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let wrong: Vec<String> =
        schema.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "{name}:\n{text}\n{}", wrong.join("\n"));
}

/// Files that examples name.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let document = r#"
openapi: 3.1.0
servers: [{ url: "https://shop.example" }]
components: { securitySchemes: { bearer: { type: http, scheme: bearer } } }
paths:
  /issues: { get: { operationId: issues/list }, post: { operationId: issues/create } }
  /repos/{owner}/{repo}/pulls:
    parameters: [{ name: owner, in: path, required: true, schema: {} }, { name: repo, in: path, required: true, schema: {} }]
    get: { operationId: pulls/list }
  /repos/{owner}/{repo}/issues:
    parameters: [{ name: owner, in: path, required: true, schema: {} }, { name: repo, in: path, required: true, schema: {} }]
    post: { operationId: issues/open }
"#;
    std::fs::write(folder.path().join("github.yaml"), document.replace("/issues: {", "/repos/{owner}/{repo}/all: { parameters: [{ name: owner, in: path, required: true, schema: {} }, { name: repo, in: path, required: true, schema: {} }],")).unwrap();
    std::fs::write(folder.path().join(".mcp.json"), r#"{"mcpServers":{}}"#).unwrap();
    folder
}

/// Every example of the documents, with the name of its page.
fn examples() -> Vec<(String, String)> {
    let pages = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let blocks = |path: PathBuf| {
        let page = std::fs::read_to_string(&path).unwrap();
        let blocks = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
        blocks.map(|block| (path.display().to_string(), block)).collect::<Vec<_>>()
    };
    pages.chain([root().join("README.md")]).flat_map(blocks).collect()
}

#[test]
fn the_example_file_and_every_example_of_the_documents_is_right() {
    let (schema, folder) = (validator(), folder());
    let example = std::fs::read_to_string(root().join("fanout.example.toml")).unwrap();
    let all = examples();
    assert!(all.len() >= 6, "{}", all.len());
    for (name, text) in all.into_iter().chain([("fanout.example.toml".to_owned(), example)]) {
        accepts(&schema, &text, &name);
        // A page that shows one section may name a limit group or a tool that it does not show.
        let beside = [("limit = \"github\"", "[limits.github]"), ("limit  = \"payments\"", "[limits.payments]")];
        let beside = beside.iter().filter(|(says, header)| text.contains(says) && !text.contains(header));
        let whole = beside.fold(text.clone(), |text, (_, header)| format!("{text}\n{header}\n"));
        let read = Config::parse("fanout.toml", &whole, folder.path(), &Environment::default());
        read.unwrap_or_else(|errors| panic!("{name}:\n{text}\n{errors}"));
    }
}

#[test]
fn every_section_of_the_example_file_that_is_commented_out_is_right_too() {
    let example = std::fs::read_to_string(root().join("fanout.example.toml")).unwrap();
    let section = example.lines().skip_while(|line| !line.starts_with("# [openapi.github]"));
    let section: Vec<&str> = section.take_while(|line| line.starts_with("# ")).map(|line| &line[2..]).collect();
    assert!(section.len() > 5, "{section:?}");
    accepts(&validator(), &section.join("\n"), "[openapi.github]");
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    let schema = validator();
    let tool = |line: &str| {
        format!("[[tool]]\nname = \"f\"\nhttp = {{ method = \"GET\", url = \"http://a.example\" }}\n{line}")
    };
    let http = |line: &str| format!("[[tool]]\nname = \"f\"\nhttp = {{ {line} }}");
    let section = |name: &str, line: &str| format!("[{name}]\n{line}");
    let wrong = [
        section("run", "max_turn = 1"),
        section("run", "max_turns = 0"),
        section("run", "max_turns = 1.5"),
        section("run", "deadline = \"soon\""),
        section("run", "deadline = \"0s\""),
        section("run", "deadline = 30"),
        section("run", "max_cost_usd = -1"),
        section("modle", ""),
        section("server", "jwt = { audience = \"a\" }"),
        section("server", "jwt = { jwks_url = \"https://a.example\", secret = \"s\" }"),
        section("model", "api_key = \"${1A}\""),
        section("model", "api_key = \"${A\""),
        section("model", "name = \" \""),
        section("model", "stream = \"yes\""),
        section("limits.x", "rate = \"50\""),
        section("limits.x", "rate = \"0/s\""),
        section("limits.x", "retry = { attempts = 0 }"),
        section("limits.x", "retry = { attemps = 1 }"),
        section("limits.x", "breaker = { failure_ratio = 1.5 }"),
        section("limits.\"\"", ""),
        section("server", "listen = \"8787\""),
        section("server", "hosts = [\"a:80\"]"),
        section("server", "writes_after_client = \"maybe\""),
        section("store", "url = 3"),
        section("prices.m", "input = 1"),
        section("openapi.x", "limit = 3"),
        section("mcp_servers.x", "command = \"a\"\nurl = \"https://a.example\""),
        section("mcp_servers.x", "command = \"a\"\nundeclared = \"both\""),
        section("mcp_servers.x", "command = \"a\"\ntools.f = { read = [] }"),
        "[[tool]]\nname = \"f\"".to_owned(),
        "[tool]\nname = \"f\"".to_owned(),
        tool("tiemout = \"1s\""),
        tool("max_result = \"64K\""),
        tool("reads = \"a\""),
        tool("input = { a = \"string\" }"),
        tool("input = {}\ninput_schema = { type = \"object\" }"),
        tool("input_schema = { type = \"array\" }"),
        tool("command = { program = \"x\" }"),
        tool("approval = \"sometimes\""),
        tool("approval = [{ if = \"amount\", over = 1 }]"),
        tool("approval = [{ if = \"/amount\" }]"),
        tool("approval = [{ if = \"/amount\", over = 1, under = 0 }]"),
        http("url = \"http://a.example\""),
        http("method = \"get\", url = \"http://a.example\""),
        http("method = \"GET\", url = \"http://a.example/${caller.token}\""),
        "[[tool]]\nname = \"plan\"\ncommand = { program = \"x\" }".to_owned(),
        "[[tool]]\nname = \"a b\"\ncommand = { program = \"x\" }".to_owned(),
        "[[tool]]\nname = \"f\"\ncommand = { program = \"x\", env = [\"A B\"] }".to_owned(),
        "[[tool]]\nname = \"f\"\ncommand = { args = [] }".to_owned(),
    ];
    for text in wrong {
        let value: Value = toml::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(!schema.is_valid(&value), "the schema takes it:\n{text}");
        let read = Config::parse("fanout.toml", &text, Path::new("/nowhere"), &Environment::default());
        assert!(read.is_err(), "the reader takes it:\n{text}");
    }
}

/// With `FANOUT_RENEW` set, the page is written instead.
#[test]
fn the_reference_page_is_made_of_the_descriptions() {
    let path = root().join("docs/configuration.md");
    if std::env::var_os("FANOUT_RENEW").is_some() {
        std::fs::write(&path, reference()).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == reference(),
        "docs/configuration.md is not what the keys say; `FANOUT_RENEW=1 cargo test -p fanout-host reference_page` renews it"
    );
}
