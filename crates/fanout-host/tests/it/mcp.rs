//! MCP servers: what the configuration says of them, and what is made of their lists.

use std::path::Path;

use fanout_core::toolbox::Toolbox;
use fanout_host::config::{Config, McpReachConfig};
use fanout_host::connect::{Servers, connect};
use fanout_host::environment::Environment;

/// The configuration of a folder with an `.mcp.json`, or its mistakes.
fn load(folder: &Path, text: &str, json: &str) -> Result<Config, String> {
    std::fs::write(folder.join("fanout.toml"), text).unwrap();
    std::fs::write(folder.join(".mcp.json"), json).unwrap();
    Config::load(&folder.join("fanout.toml"), &Environment::from_iter([("PORT", "9000")]))
        .map_err(|error| error.to_string())
}

#[track_caller]
fn check_mistakes(text: &str, json: &str, answer: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mistakes = load(folder.path(), text, json).map(|config| config.warnings.len()).unwrap_err();
    assert_eq!(mistakes.replace(&format!("{}/", folder.path().display()), ""), answer, "{text}");
}

#[test]
fn every_mistake_of_a_server_is_named_with_its_place() {
    for (text, answer) in [
        ("[mcp_servers.a]\n", "fanout.toml:1:1: [mcp_servers.a] needs `command = \"…\"` or `url = \"https://…\"`"),
        (
            "[mcp_servers.a]\ncomand = \"x\"\n",
            "fanout.toml:1:1: [mcp_servers.a] needs `command = \"…\"` or `url = \"https://…\"`\n\
             fanout.toml:2:1: unknown key `comand` in [mcp_servers.a]; did you mean `command`?",
        ),
        (
            "[mcp_servers.a]\ncommand = \"x\"\nurl = \"http://b\"\n",
            "fanout.toml:3:7: [mcp_servers.a] has a `command` and a `url`; one of them says how it is reached",
        ),
        (
            "[mcp_servers.a]\nurl = \"http://b\"\nargs = []\n",
            "fanout.toml:3:1: `args` of [mcp_servers.a] does nothing without a `command`",
        ),
        (
            "[mcp_servers.a]\ncommand = \"x\"\nhttp_headers = { a = \"b\" }\n",
            "fanout.toml:3:1: `http_headers` of [mcp_servers.a] does nothing without a `url`",
        ),
        (
            "[mcp_servers.a]\ncommand = \"x\"\nundeclared = \"paralel\"\n",
            "fanout.toml:3:14: `undeclared` must be \"serial\" or \"parallel\", not \"paralel\"",
        ),
        ("[mcp_servers.a]\ncommand = \"x\"\nenv = { A = \"${\" }\n", "fanout.toml:3:13: in `A` a `${` has no `}`"),
        (
            "[mcp_servers.a]\ncommand = \"x\"\nargs = \"--token s3cret\"\n",
            "fanout.toml:3:8: `args` must be a list such as [\"a\", \"b\"], not a text",
        ),
        (
            "[mcp_servers.\"a/b\"]\ncommand = \"x\"\n",
            "fanout.toml:1:14: an MCP server needs a name without `/`, as in [mcp_servers.files]",
        ),
        (
            "[mcp_servers.a]\ncommand = \"x\"\nlimit = \"slow\"\n",
            "fanout.toml:3:9: `limit` names `slow`, which is no limit group of this file; there must be a section [limits.slow]",
        ),
        (
            "[mcp_servers.a]\ncommand = \"x\"\ntools.t = { wries = [] }\n",
            "fanout.toml:3:13: unknown key `wries` in [mcp_servers.a] tools.t; did you mean `writes`?",
        ),
        (
            "[mcp_servers.a]\ncommand = \"x\"\ntools.t = { writes = [\"file/{\"] }\n",
            "fanout.toml:3:23: `file/{`: a `{` needs a field name and a `}`, as in `orders/{id}`",
        ),
        (
            "[mcp_servers.a]\ncommand = \"x\"\ntools.t = { approval = \"sometimes\" }\n",
            "fanout.toml:3:24: `approval` must be \"never\", \"always\" or conditions such as [{ if = \"/amount\", over = 100 }], not \"sometimes\"",
        ),
        (
            "[mcp_servers.a]\ncommand = \"x\"\ntools.t = { rate = \"1/s\" }\n",
            "fanout.toml:3:13: unknown key `rate` in [mcp_servers.a] tools.t; it belongs into [limits.NAME], and the tool says `limit = \"NAME\"`",
        ),
    ] {
        check_mistakes(text, "", answer);
    }
}

#[test]
fn every_mistake_of_another_programs_file_is_named_with_its_place() {
    for (json, answer) in [
        ("{\n", ".mcp.json:2:0: this is not JSON"),
        ("{}", ".mcp.json:1:1: a file of MCP servers is written as {\"mcpServers\": {\"NAME\": {\"command\": …}}}"),
        (
            "{\"mcpServers\": {\n \"a\": {}}}",
            ".mcp.json:2:2: the MCP server `a` needs a `command` or a `url`, in quotes",
        ),
        ("{\"mcpServers\": {\"a\": 1}}", ".mcp.json:1:17: the MCP server `a` must be an object"),
        (
            "{\"mcpServers\": {\"a\": {\"command\": \"x\", \"args\": [1]}}}",
            ".mcp.json:1:17: `args` must be a list of texts",
        ),
        (
            "{\"mcpServers\": {\"a\": {\"command\": \"x\", \"env\": []}}}",
            ".mcp.json:1:17: `env` must be an object of texts",
        ),
        ("{\"mcpServers\": {\"a\": {\"command\": \"${\"}}}", ".mcp.json:1:17: in `command` a `${` has no `}`"),
    ] {
        check_mistakes("mcp_config = \".mcp.json\"", json, answer);
    }
    let lacking = mistakes_without_the_file();
    assert!(lacking.starts_with("fanout.toml:1:14: .mcp.json cannot be read: "), "{lacking}");
}

fn mistakes_without_the_file() -> String {
    let text = "mcp_config = \".mcp.json\"";
    Config::parse("fanout.toml", text, Path::new("/nowhere"), &Environment::default()).unwrap_err().to_string()
}

#[test]
fn servers_of_another_programs_file_are_taken_and_declared_here() {
    let folder = tempfile::tempdir().unwrap();
    let json = r#"{"mcpServers": {
        "files": {"command": "npx", "args": ["-y", "server", "."], "env": {"LOG": "warn"}},
        "web": {"type": "http", "url": "https://example.com/mcp", "headers": {"authorization": "Bearer ${TOKEN}"}},
        "old": {"type": "sse", "url": "https://example.com/sse"},
        "off": {"command": "x", "disabled": true},
        "me": {"command": "/usr/bin/fanout", "args": ["mcp"]},
        "me_too": {"url": "http://localhost:9000/mcp"}
    }}"#;
    let text = "mcp_config = \".mcp.json\"\n[mcp_servers.files]\ntools.read = { writes = [] }\n\
        [mcp_servers.other]\ncommand = \"fanout\"\nargs = [\"mcp\", \"--config\", \"other.toml\"]\n\
        [mcp_servers.self]\ncommand = \"fanout\"\nargs = [\"mcp\", \"--config=fanout.toml\"]\n";
    let config = load(folder.path(), text, json).unwrap();
    assert_eq!(config.mcp_servers.keys().collect::<Vec<_>>(), ["files", "other", "web"]);
    let files = &config.mcp_servers["files"];
    assert!(matches!(&files.reach, McpReachConfig::Program { args, .. } if args.len() == 3));
    assert_eq!(files.tools["read"].writes, Some(vec![]));
    assert!(matches!(&config.mcp_servers["web"].reach, McpReachConfig::Http { headers, .. } if headers.len() == 1));
    let warnings: Vec<String> = config.warnings.iter().map(|warning| warning.message.clone()).collect();
    let this =
        |name: &str| format!("the MCP server `{name}` is left out: it would be this very gateway, calling itself");
    let sse = "the MCP server `old` is left out: of remote servers only those that speak streamable HTTP can be used (`type` \"http\"), not \"sse\"";
    let off = "the MCP server `off` is left out: it is disabled".to_owned();
    for expected in [this("me"), this("me_too"), this("self"), sse.to_owned(), off] {
        assert!(warnings.contains(&expected), "{expected}: {warnings:?}");
    }
    assert_eq!(warnings.len(), 5);
}

/// The tools of a configuration with the scripted server, and what is wrong with its sources.
async fn connected(more: &str) -> (Toolbox, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("server.sh"), include_str!("../../../fanout-tools/tests/it/mcp_server.sh"))
        .unwrap();
    let text = format!(
        "[mcp_servers.s]\ncommand = \"sh\"\nargs = [\"server.sh\"]\nenv = {{ DIR = \".\", MODE = \"${{MODE:-}}\", SECRET = \"${{SECRET}}\" }}\n{more}"
    );
    let variables = [("PATH", std::env::var("PATH").unwrap()), ("SECRET", "s3cret".to_owned())];
    let environment = Environment::from_iter(variables.clone());
    let config =
        Config::parse("fanout.toml", &text, folder.path(), &environment).unwrap_or_else(|errors| panic!("{errors}"));
    let mut toolbox = Toolbox::new();
    let (_, troubles) = connect(&mut toolbox, &config, &environment, &Servers::default()).await;
    (toolbox, troubles.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn the_tools_of_a_server_are_named_after_it_and_treated_as_declared() {
    let more = "disabled_tools = [\"die\"]\nlimit = \"slow\"\n\
        tools.old = { writes = [\"file/{path...}\"], after = [\"look\"], timeout = \"5s\", idempotent = true }\n[limits.slow]\n";
    let (toolbox, troubles) = connected(more).await;
    assert_eq!(troubles, Vec::<String>::new());
    assert!(toolbox.get(&"s__die".into()).is_none());
    let old = &toolbox.get(&"s__old".into()).unwrap().spec;
    assert_eq!(old.policy.after, ["s__look".into()]);
    assert_eq!(old.policy.timeout.as_secs(), 5);
    assert_eq!(old.policy.limit, Some("slow".into()));
    assert!(old.repeatable());
    let look = &toolbox.get(&"s__look".into()).unwrap().spec;
    assert!(!look.repeatable() && look.effects.inferred_writes.is_empty());
    let (toolbox, _) = connected("enabled_tools = [\"look\"]\nundeclared = \"parallel\"\n").await;
    assert_eq!(toolbox.len(), 1);
    assert!(toolbox.iter().all(|tool| tool.spec.effects.inferred_reads.is_empty()));
}

#[tokio::test]
async fn what_a_server_does_not_have_is_named_with_the_nearest() {
    let more = "enabled_tools = [\"look\", \"olt\"]\ntools.loock = { writes = [] }\ntools.look = { writes = [\"f/{pat}\"], after = [\"olt\"] }\n";
    let (toolbox, troubles) = connected(more).await;
    assert!(toolbox.is_empty());
    let expected = [
        "fanout.toml:1:14: `enabled_tools` names `olt`, which the MCP server `s` does not have; did you mean `old`?",
        "fanout.toml:6:15: `tools.loock` names `loock`, which the MCP server `s` does not have; did you mean `look`?",
        "fanout.toml:7:14: `after` names `olt`, which the MCP server `s` does not have; did you mean `old`?",
        "fanout.toml:7:14: the tool `look` of the MCP server `s` is left out: `f/{pat}` names `pat`, which the input lacks; did you mean `path`?",
    ];
    assert_eq!(troubles, expected);
}

#[tokio::test]
async fn a_server_that_cannot_be_used_takes_no_other_down() {
    let more = "[mcp_servers.broken]\ncommand = \"sh\"\nargs = [\"-c\", \"echo no licence >&2; exit 3\"]\n\
        [mcp_servers.poor]\nurl = \"https://example.com/mcp\"\nhttp_headers = { authorization = \"Bearer ${TOKEN}\" }\n";
    let (toolbox, troubles) = connected(more).await;
    assert!(toolbox.get(&"s__where".into()).is_some());
    let expected = [
        "fanout.toml:5:14: the MCP server `broken` cannot be used, its tools are missing: it ended before it answered; it said last: no licence",
        "fanout.toml:8:14: the MCP server `poor` cannot be used, its tools are missing: fanout.toml:10:34: `authorization` needs the environment variable `TOKEN`, which is not set",
    ];
    assert_eq!(troubles, expected);
}

#[test]
fn the_page_about_servers_is_true() {
    let page = include_str!("../../../../docs/mcp.md");
    let block = page.split("```toml\n").nth(1).and_then(|rest| rest.split_once("```")).unwrap().0;
    let folder = tempfile::tempdir().unwrap();
    let config =
        load(folder.path(), block, "{\"mcpServers\": {\"web\": {\"url\": \"https://example.com/mcp\"}}}").unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(config.mcp_servers.keys().collect::<Vec<_>>(), ["files", "web"]);
    assert_eq!(config.mcp_servers["files"].tools.len(), 2);
}
