//! What a configuration without mistakes comes to.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use fanout_agent::Price;
use fanout_core::limits::{LimitOptions, Rate};
use fanout_core::run::SchedulerOptions;
use fanout_host::config::{
    CommandConfig, Config, ConfigError, Implementation, RunConfig, ServerConfig, ToolConfig, Variable,
    WritesAfterClient,
};
use fanout_host::environment::Environment;
use fanout_tools::http::Body;
use secrecy::ExposeSecret;
use serde_json::json;

pub(crate) fn parse(text: &str, variables: &[(&str, &str)]) -> Config {
    let environment = variables.iter().copied().collect();
    Config::parse("fanout.toml", text, Path::new("."), &environment).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Every key of this version, none of them at its default.
const EVERYTHING: &str = r#"
[model]
base_url = "http://127.0.0.1:${PORT}"
api_key = "${KEY}"
name = "claude-x"
max_tokens = 1
stream = false

[run]
max_turns = 1
max_calls = 2
max_batch = 3
max_depth = 5
max_total_tokens = 6_000
max_cost_usd = 7.5
deadline = "1h"
plan = false
early_start = false
approval_wait = "250ms"

[scheduler]
max_in_flight = 8
stray_hold = "9s"

[[tool]]
name = "get_user"
description = "Look up a customer by id."
input = { user_id = { type = "string" }, tags = { type = "array", items = { type = "string" } }, verbose = { type = "boolean", required = false } }
http = { method = "GET", url = "https://api.example.com/users/{user_id}?v=${V:-1}", headers = { authorization = "Bearer ${KEY}" }, query = { tag = "{tags}", key = "${KEY}" } }
timeout = "1s"
deadline = "2d"
reads = ["user/{user_id}"]
writes = []
idempotent = true
after = ["put_user"]
max_result = "1MiB"
nested = true

[[tool]]
name = "put_user"
input_schema = { type = "object", properties = { user_id = { type = "string" }, user = { type = "object" } } }

[tool.http]
method = "PUT"
url = "https://api.example.com/users/{user_id}"
body = "raw"

[[tool]]
name = "ping"
http = { method = "HEAD", url = "https://api.example.com/" }
max_result = 512

[prices."claude-x"]
input = 3
output = 15.5
cache_read = 0.30
cache_write = 3.75

[store]
url = "memory:"
"#;

#[test]
fn every_key_arrives() {
    let environment = Environment::from_iter([("PORT", "8080"), ("KEY", "s3cret")]);
    let config = parse(EVERYTHING, &[]);
    assert_eq!(config.model.base_url.fill(&environment).unwrap().expose_secret(), "http://127.0.0.1:8080");
    assert_eq!(config.model.api_key.fill(&environment).unwrap().expose_secret(), "s3cret");
    assert_eq!((config.model.name.as_str(), config.model.max_tokens, config.model.stream), ("claude-x", 1, false));
    let run = &config.run;
    assert_eq!((run.max_turns, run.max_calls, run.max_batch, run.max_depth), (1, 2, 3, 5));
    assert_eq!((run.max_total_tokens, run.max_cost_usd), (6_000, 7.5));
    assert_eq!((run.deadline, run.approval_wait), (Duration::from_secs(3_600), Duration::from_millis(250)));
    assert_eq!((run.plan, run.early_start), (false, false));
    assert_eq!((config.scheduler.max_in_flight, config.scheduler.stray_hold), (8, Duration::from_secs(9)));
    let price = Price { input: 3.0, output: 15.5, cache_read: 0.3, cache_write: 3.75 };
    assert_eq!(config.prices, BTreeMap::from([("claude-x".to_owned(), price)]));
    assert_eq!(config.price("claude-x"), Some(&price));
    assert_eq!(config.warnings, []);
}

#[test]
fn every_key_of_a_tool_arrives() {
    let config = parse(EVERYTHING, &[]);
    let [get, put, ping] = config.tools.as_slice() else { panic!("three tools") };
    assert_eq!((get.name.as_str(), get.description.as_str()), ("get_user", "Look up a customer by id."));
    assert_eq!(
        get.input_schema,
        json!({
            "type": "object",
            "properties": {
                "user_id": {"type": "string"},
                "tags": {"type": "array", "items": {"type": "string"}},
                "verbose": {"type": "boolean"},
            },
            "required": ["tags", "user_id"],
            "additionalProperties": false,
        })
    );
    assert_eq!(get.reads, Some(vec!["user/{user_id}".to_owned()]));
    assert_eq!(get.writes, Some(Vec::new()));
    let policy = &get.policy;
    assert_eq!((policy.timeout, policy.deadline), (Duration::from_secs(1), Duration::from_secs(2 * 86_400)));
    assert_eq!((policy.result_max, policy.idempotent, policy.nested), (1 << 20, true, true));
    assert_eq!(policy.after, ["put_user".into()]);
    let endpoint = |tool: &ToolConfig| match &tool.implementation {
        Implementation::Http(http) => http.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(endpoint(get).headers[0].0, "authorization");
    assert_eq!(endpoint(get).query.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["key", "tag"]);
    assert_eq!(get.place.to_string(), "fanout.toml:25:1");

    assert_eq!((endpoint(put).method.as_str(), endpoint(put).body), ("PUT", Some(Body::Raw)));
    assert_eq!((&put.reads, &put.writes), (&None, &None));
    assert_eq!((put.policy.timeout, put.policy.result_max), (Duration::from_secs(30), 64 * 1024));
    assert_eq!(ping.policy.result_max, 512);
    let empty = json!({"type": "object", "properties": {}, "required": [], "additionalProperties": false});
    assert_eq!(ping.input_schema, empty);
}

fn command(line: &str) -> CommandConfig {
    let text = format!("[[tool]]\nname = \"f\"\ninput = {{ x = {{ type = \"string\" }} }}\ncommand = {line}");
    let config = Config::parse("fanout.toml", &text, Path::new("/etc/app"), &Environment::default());
    match &config.unwrap_or_else(|errors| panic!("{errors}")).tools[0].implementation {
        Implementation::Command(command) => command.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_key_of_a_program_arrives() {
    let full = command(
        r#"{ program = "./bin/lint", args = ["--", "{x}", "${A}"], stdin = "{x}", cwd = "src", env = ["PATH", "TOKEN=t${A}=", "EMPTY="], max_output = "2KiB" }"#,
    );
    assert_eq!((full.program.as_str(), full.cwd.as_path()), ("/etc/app/bin/lint", Path::new("/etc/app/src")));
    assert_eq!((full.args.len(), full.stdin.is_some(), full.max_output), (3, true, 2048));
    let environment: Environment = [("A", "1")].into_iter().collect();
    let variable = |variable: &Variable| match variable {
        Variable::Inherited(name) => name.clone(),
        Variable::Set(name, value) => format!("{name}:{}", value.fill(&environment).unwrap().expose_secret()),
    };
    assert_eq!(full.env.iter().map(variable).collect::<Vec<_>>(), ["PATH", "TOKEN:t1=", "EMPTY:"]);
    let least = command(r#"{ program = "ruff" }"#);
    assert_eq!((least.program.as_str(), least.args.len(), least.env.len()), ("ruff", 0, 0));
    assert_eq!((least.max_output, least.cwd.as_path()), (1 << 20, Path::new("/etc/app")));
    assert_eq!(command(r#"{ program = "/bin/x", cwd = "/tmp" }"#).cwd, Path::new("/tmp"));
}

#[test]
fn the_page_about_programs_is_true() {
    let page = include_str!("../../../../docs/commands.md");
    let block = page.split("```toml\n").nth(1).and_then(|rest| rest.split_once("```")).unwrap().0;
    assert_eq!(parse(block, &[]).warnings, []);
    for key in ["program", "args", "stdin", "cwd", "env", "max_output"] {
        assert!(page.contains(&format!("| `{key}` |")), "{key}");
    }
    assert_eq!(fanout_tools::command::OUTPUT_MAX, 1 << 20, "as the page says");
    assert_eq!(fanout_tools::command::GRACE, Duration::from_secs(2), "as the page says");
}

#[test]
fn an_empty_file_is_the_defaults() {
    let config = parse("", &[]);
    assert_eq!(config.run, Config::default().run);
    assert_eq!((config.run.max_turns, config.run.max_calls, config.run.max_batch), (50, 500, 256));
    assert_eq!((config.run.max_total_tokens, config.run.max_cost_usd), (2_000_000, 5.0));
    assert_eq!(config.run.deadline, Duration::from_secs(900));
    assert_eq!(config.scheduler_options(), SchedulerOptions::default());
    assert_eq!((config.model.name.as_str(), config.model.max_tokens), ("claude-sonnet-5-5", 8192));
    assert!(config.model.stream && config.run.early_start && config.tools.is_empty() && config.prices.is_empty());
    let unset = config.model.api_key.fill(&Environment::default()).unwrap_err().to_string();
    assert_eq!(unset, "[model]: `api_key` needs the environment variable `ANTHROPIC_API_KEY`, which is not set");
}

#[test]
fn a_variable_wins_over_the_file() {
    let variables = [
        ("FANOUT_RUN__MAX_TURNS", "3"),
        ("FANOUT_RUN__DEADLINE", "5m"),
        ("FANOUT_RUN__EARLY_START", "false"),
        ("FANOUT_RUN__MAX_COST_USD", "1.5"),
        ("FANOUT_MODEL__NAME", "123"),
        ("FANOUT_STORE__URL", "memory:"),
        ("FANOUT_SCHEDULER__MAX_IN_FLIGHT", ""),
        ("FANOUT_DEPTH", "1"),
        ("OTHER__THING", "x"),
    ];
    for text in ["", "[run]\nmax_turns = 7\n[store]\nurl = \"sqlite://x\""] {
        let config = parse(text, &variables);
        assert_eq!((config.run.max_turns, config.run.deadline), (3, Duration::from_secs(300)));
        assert_eq!((config.run.early_start, config.run.max_cost_usd), (false, 1.5));
        assert_eq!((config.model.name.as_str(), config.scheduler.max_in_flight), ("123", 1024));
    }
}

#[test]
fn what_is_perhaps_not_meant_is_a_warning() {
    let text = "[run]\nplan = true\n[[tool]]\nname = \"f\"\nreads = [\"a\"]\nhttp = { method = \"POST\", url = \"http://a.example\" }";
    let warnings: Vec<String> = parse(text, &[]).warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "fanout.toml:5:1: [[tool]] `f` declares `reads` and not `writes`: POST is taken to write all of its host; add `writes = […]`",
        ]
    );
}

#[test]
fn the_nearest_file_above_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("a/b");
    std::fs::create_dir_all(&inner).unwrap();
    std::fs::write(folder.path().join("fanout.toml"), "[run]\nmax_turns = 1").unwrap();
    let found = Config::find(&inner, &Environment::default()).unwrap();
    assert_eq!((found.run.max_turns, found.file), (1, Some(folder.path().join("fanout.toml"))));
    std::fs::write(inner.join("fanout.toml"), "[run]\nmax_turns = 2").unwrap();
    assert_eq!(Config::find(&inner, &Environment::default()).unwrap().run.max_turns, 2);
}

/// Only a user who may give files away can set this up; for any other the file keeps its owner and is found.
#[cfg(unix)]
#[test]
fn a_file_of_another_user_is_only_taken_when_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fanout.toml");
    std::fs::write(&path, "").unwrap();
    let given_away = std::os::unix::fs::chown(&path, Some(12_345), None).is_ok();
    match Config::find(folder.path(), &Environment::default()) {
        Err(ConfigError::Find(error)) => {
            assert!(given_away);
            let message = format!(
                "{0} belongs to another user (uid 12345, not 0); `--config {0}` takes it all the same",
                path.display()
            );
            assert_eq!(error.to_string(), message);
        }
        other => assert!(!given_away && other.is_ok()),
    }
    assert!(Config::load(&path, &Environment::default()).is_ok());
}

#[test]
fn files_are_looked_for_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "s3cret\n").unwrap();
    std::fs::write(folder.path().join("f.json"), r#"{"type":"object","properties":{"a":{}}}"#).unwrap();
    let path = folder.path().join("any.toml");
    let text = "[model]\napi_key = \"${file:key}\"\n[[tool]]\nname = \"f\"\ninput_schema_file = \"f.json\"\nhttp = { method = \"GET\", url = \"http://a.example/{a}\" }";
    std::fs::write(&path, text).unwrap();
    let config = Config::load(&path, &Environment::default()).unwrap();
    assert_eq!(config.tools[0].input_schema["properties"], json!({"a": {}}));
    let key = config.model.api_key.fill(&Environment::default()).unwrap();
    assert_eq!(key.expose_secret(), "s3cret");
}

#[test]
fn a_file_that_is_not_there_is_said_to_be_so() {
    let error = Config::load(Path::new("/nowhere/fanout.toml"), &Environment::default()).unwrap_err();
    assert_eq!(error.to_string(), "/nowhere/fanout.toml cannot be read");
}

#[test]
fn the_example_file_reads_without_a_warning_and_shows_the_defaults() {
    let text = include_str!("../../../../fanout.example.toml");
    let config = parse(text, &[("SHOP_TOKEN", "secret")]);
    assert_eq!(config.tools.len(), 4);
    assert_eq!(config.warnings.len(), 0, "{:?}", config.warnings);
    let written = RunConfig { max_cost_given: true, ..RunConfig::default() };
    assert_eq!(config.run, written);
    assert_eq!(config.scheduler, Config::default().scheduler);
    let keys_file = config.server.keys_file.clone();
    assert_eq!(config.server, ServerConfig { keys_file, ..ServerConfig::default() });
    assert_eq!(config.model.name, Config::default().model.name);
    assert_eq!(config.model.max_tokens, Config::default().model.max_tokens);
    let payments = config.limits["payments"].options.clone();
    let shown = LimitOptions {
        rate: Some(Rate { calls: NonZeroU32::new(50).unwrap(), per: Duration::from_secs(1) }),
        burst: NonZeroU32::new(10).unwrap(),
        concurrency: NonZeroU32::new(8),
        ..LimitOptions::default()
    };
    assert_eq!(payments, shown, "queue, wait, retry and breaker are shown as they are by default");
    assert_eq!(config.tools[0].policy.limit, Some("payments".into()));
}

#[test]
fn a_gateway_listens_on_loopback_unless_it_is_told_otherwise() {
    let server = |text: &str, variables: &[(&str, &str)]| parse(text, variables).server;
    assert_eq!(server("", &[]), ServerConfig { keys_file: "./keys.toml".into(), ..ServerConfig::default() });
    let told = "[server]\nlisten = \"localhost:1\"\nkeys_file = \"/run/k.toml\"\nhosts = [\"A.example\"]\nwrites_after_client = \"run\"\ndisconnect_grace = \"1m\"";
    let config = server(told, &[("FANOUT_SERVER__DISCONNECT_GRACE", "2s")]);
    assert_eq!(config.listen.to_string(), "127.0.0.1:1");
    assert_eq!(config.keys_file, Path::new("/run/k.toml"));
    assert_eq!(config.hosts, ["a.example"]);
    assert_eq!(config.writes_after_client, WritesAfterClient::Run);
    assert_eq!(config.disconnect_grace, Duration::from_secs(2));
}

#[test]
fn the_variable_port_wins_and_is_only_looked_at_to_listen() {
    let address = |port: &str| {
        let variables = [("PORT", port)];
        let config = parse("[server]\nlisten = \"0.0.0.0:1\"", &variables);
        config.server.address(&variables.into_iter().collect()).map(|address| address.to_string())
    };
    assert_eq!(address("8080"), Ok("0.0.0.0:8080".to_owned()));
    assert_eq!(address(""), Ok("0.0.0.0:1".to_owned()));
    let message = "the environment variable `PORT` must be a port, a number from 0 to 65535, not `tcp://x`";
    assert_eq!(address("tcp://x").unwrap_err().to_string(), message);
}
