//! What is made of a configuration.

use std::error::Error;
use std::sync::Arc;

use fanout_agent::Price;
use fanout_anthropic::Usage;
use fanout_core::call::Call;
use fanout_core::outcome::Output;
use fanout_core::run::{RunOptions, Scheduler};
use fanout_host::build::{Purpose, build_model, build_toolbox, build_upstream};
use fanout_host::config::Config;
use fanout_host::databases::Databases;
use fanout_host::environment::Environment;
use fanout_tools::command::Programs;
use secrecy::ExposeSecret;
use serde_json::json;

use crate::config::parse;

const TOOLS: &str = r#"
[[tool]]
name = "get_user"
input = { user_id = { type = "string" } }
http = { method = "GET", url = "${BASE:-https://api.example.com}/users/{user_id}", headers = { authorization = "Bearer ${TOKEN}" } }
reads = ["user/{user_id}"]

[[tool]]
name = "put_user"
input = { user_id = { type = "string" } }
http = { method = "PUT", url = "https://api.example.com/users/{user_id}" }
after = ["get_user"]
"#;

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().copied().collect()
}

#[test]
fn the_toolbox_holds_the_tools_in_their_order() {
    let config = parse(TOOLS, &[]);
    let toolbox = build_toolbox(
        &config,
        &environment(&[("TOKEN", "s3cret")]),
        Purpose::Run,
        &Programs::new(),
        &Databases::default(),
    )
    .unwrap();
    let specs: Vec<_> = toolbox.iter().map(|tool| &tool.spec).collect();
    assert_eq!(specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>(), ["get_user", "put_user"]);
    assert_eq!(specs[0].source.as_str(), "http/api.example.com");
    assert_eq!(specs[0].effects.reads.as_ref().unwrap()[0].to_string(), "user/{user_id}");
    assert!(specs[0].repeatable() && !specs[1].repeatable());
    assert_eq!(specs[1].policy.after, ["get_user".into()]);
}

#[test]
fn a_secret_is_needed_to_run_and_not_to_look() {
    let config = parse(TOOLS, &[]);
    let error =
        build_toolbox(&config, &environment(&[]), Purpose::Run, &Programs::new(), &Databases::default()).unwrap_err();
    let message = "fanout.toml:5:112: `authorization` needs the environment variable `TOKEN`, which is not set";
    assert_eq!(error.to_string(), message);
    assert_eq!(
        build_toolbox(&config, &environment(&[]), Purpose::Look, &Programs::new(), &Databases::default())
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn a_tool_that_its_settings_break_is_named() {
    let config = parse(TOOLS, &[]);
    let broken = environment(&[("TOKEN", "a\nb")]);
    let error = build_toolbox(&config, &broken, Purpose::Run, &Programs::new(), &Databases::default()).unwrap_err();
    assert_eq!(error.to_string(), "fanout.toml:2:1: [[tool]] `get_user` cannot be made");
    let cause = error.source().unwrap().to_string();
    assert!(cause.starts_with("the header `authorization` cannot be sent"), "{cause}");
    let elsewhere = environment(&[("TOKEN", "t"), ("BASE", "http://{user_id}")]);
    let error = build_toolbox(&config, &elsewhere, Purpose::Run, &Programs::new(), &Databases::default()).unwrap_err();
    assert!(error.source().unwrap().to_string().contains("must be fixed"));
}

const COMMAND: &str = r#"
[[tool]]
name = "lint"
input = { path = { type = "string" } }
command = { program = "sh", args = ["-c", "echo \"$1 $2 $TOKEN $FANOUT_DEPTH $A\"", "sh", "${PREFIX:-}{path}", "${SECRET}"], env = ["PATH", "A", "TOKEN=${TOKEN}"] }
"#;

/// What a call of the one tool of a configuration answers.
async fn answer(text: &str, path: &str, variables: &[(&str, &str)]) -> Result<String, String> {
    let config = parse(text, &[]);
    let toolbox =
        build_toolbox(&config, &environment(variables), Purpose::Run, &Programs::new(), &Databases::default()).unwrap();
    let mut run = Scheduler::new(config.scheduler_options()).run(Arc::new(toolbox), RunOptions::new("r"));
    let mut batch = run.batch();
    batch.call(Call::new(0, "c", "lint", json!({ "path": path }))).unwrap();
    batch.commit();
    let outcome = batch.finish().await.remove(0);
    let text = |output: &Arc<Output>| output.value().as_str().unwrap().to_owned();
    outcome.result.as_ref().map(text).map_err(|error| error.message.clone())
}

#[tokio::test]
async fn a_program_is_given_its_secrets_as_text_and_the_model_sees_their_names() {
    let variables = [("TOKEN", "t0ken-1"), ("SECRET", "{path}"), ("A", "1"), ("B", "2"), ("FANOUT_DEPTH", "2")];
    let came = answer(COMMAND, "a b", &variables).await.unwrap();
    assert_eq!(came, "a b [redacted SECRET] [redacted TOKEN] 3 1\n");
    let variables = [("TOKEN", "t0ken-1"), ("SECRET", "x")];
    assert_eq!(answer(COMMAND, "a", &variables).await.unwrap(), "a x [redacted TOKEN] 1 \n");
    let error = answer(COMMAND, "-rf", &variables).await.unwrap_err();
    assert!(error.starts_with("`path` must not begin with `-`"), "{error}");
}

#[test]
fn a_programs_secrets_are_needed_to_run_and_not_to_look() {
    let config = parse(COMMAND, &[]);
    let error =
        build_toolbox(&config, &environment(&[]), Purpose::Run, &Programs::new(), &Databases::default()).unwrap_err();
    assert!(error.to_string().ends_with("`args` needs the environment variable `SECRET`, which is not set"), "{error}");
    let toolbox =
        build_toolbox(&config, &environment(&[]), Purpose::Look, &Programs::new(), &Databases::default()).unwrap();
    let spec = &toolbox.iter().next().unwrap().spec;
    assert_eq!(spec.source.as_str(), "command");
    assert!(!spec.repeatable() && !spec.effects.is_declared());
    let broken = environment(&[("SECRET", "a\0b"), ("TOKEN", "t")]);
    let error = build_toolbox(&config, &broken, Purpose::Run, &Programs::new(), &Databases::default()).unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "argument 5 holds a NUL character, which cannot be handed over");
}

#[test]
fn a_model_needs_a_key_and_an_address() {
    let model = |text: &str, variables: &[(&str, &str)]| {
        build_model(&parse(text, &[]).model, &environment(variables)).map_err(|error| error.to_string())
    };
    let unset = "[model]: `api_key` needs the environment variable `ANTHROPIC_API_KEY`, which is not set";
    assert_eq!(model("", &[]).unwrap_err(), unset);
    assert!(model("", &[("ANTHROPIC_API_KEY", "k")]).is_ok());
    let keyless = |url| model("", &[("ANTHROPIC_BASE_URL", url)]);
    for local in ["http://127.0.0.1:1", "http://localhost:8080/proxy", "http://[::1]:1"] {
        assert!(keyless(local).is_ok(), "{local} is on this machine and needs no key");
    }
    for far in ["https://api.example.com", "http://127.0.0.1.example.com", "http://10.0.0.1"] {
        assert_eq!(keyless(far).unwrap_err(), unset, "{far}");
    }
    let mine = "[model]\napi_key = \"k\"\nbase_url = \"nonsense\"";
    assert!(model(mine, &[]).unwrap_err().contains("`nonsense`"));
    assert!(model(mine, &[("ANTHROPIC_BASE_URL", "http://127.0.0.1:1")]).is_ok());
}

#[test]
fn a_gateways_upstream_is_never_what_clients_are_pointed_at() {
    let upstream = |text: &str, variables: &[(&str, &str)]| {
        let upstream = build_upstream(&parse(text, &[]).model, &environment(variables)).unwrap();
        (upstream.base_url, upstream.api_key.map(|key| key.expose_secret().to_owned()))
    };
    let far = "https://api.anthropic.com".to_owned();
    assert_eq!(upstream("", &[("ANTHROPIC_BASE_URL", "http://127.0.0.1:8787")]), (far.clone(), None));
    assert_eq!(upstream("", &[("ANTHROPIC_API_KEY", "k")]), (far, Some("k".to_owned())));
    let mine = "[model]\nbase_url = \"http://a.example\"\napi_key = \"k\"";
    assert_eq!(upstream(mine, &[]), ("http://a.example".to_owned(), Some("k".to_owned())));
    let told = [("FANOUT_UPSTREAM_URL", "http://b.example")];
    assert_eq!(upstream(mine, &told), ("http://b.example".to_owned(), Some("k".to_owned())));
}

#[test]
fn tokens_cost_what_the_prices_say() {
    let price = Price { input: 3.0, output: 15.0, cache_read: 0.3, cache_write: 3.75 };
    let usage = Usage {
        input_tokens: 1_000_000,
        output_tokens: 100_000,
        cache_read_input_tokens: 2_000_000,
        cache_creation_input_tokens: 400_000,
    };
    assert!((price.cost(&usage) - (3.0 + 1.5 + 0.6 + 1.5)).abs() < 1e-9);
    assert_eq!(Config::default().price("claude-sonnet-5-5"), None);
}

#[test]
fn a_tool_can_choose_to_wait_for_nothing_and_to_stop_at_a_failure() {
    let lines = "undeclared = \"parallel\"\nstop_on_failure = true\n";
    let tool = |name: &str, does: &str| format!("[[tool]]\nname = \"{name}\"\n{does}\n{lines}");
    let text = tool("put", "http = { method = \"PUT\", url = \"https://a.example\" }")
        + &tool("run", "command = { program = \"true\" }")
        + &tool("said", "command = { program = \"true\" }\nreads = [\"a\"]");
    let toolbox =
        build_toolbox(&parse(&text, &[]), &environment(&[]), Purpose::Look, &Programs::new(), &Databases::default())
            .unwrap();
    let inferred: Vec<usize> = toolbox.iter().map(|tool| tool.spec.effects.inferred_writes.len()).collect();
    assert_eq!(inferred, [0, 0, 1], "one that says what it reads, and not what it writes, writes all of its source");
    assert!(toolbox.iter().all(|tool| tool.spec.policy.stop_on_failure && !tool.spec.repeatable()));
}
