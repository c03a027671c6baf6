//! What servers and programs say of the configuration's secrets is shown by its name.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use fanout_core::call::Call;
use fanout_core::outcome::{ErrorCode, Outcome};
use fanout_core::run::{RunOptions, Scheduler, SchedulerOptions};
use fanout_host::build::{Purpose, build_toolbox};
use fanout_host::config::Config;
use fanout_host::connect::{Servers, connect};
use fanout_host::databases::Databases;
use fanout_host::environment::Environment;
use fanout_host::secrets::secrets_of;
use fanout_tools::command::Programs;
use serde_json::{Value, json};

const VARIABLES: [(&str, &str); 6] = [
    ("ANTHROPIC_API_KEY", "sk-model-0123"),
    ("TOKEN", "t0ken/+0123"),
    ("PASSWORD", "hunter2+"),
    ("MODE", "true"),
    ("HOME", "/var/lib/shop"),
    ("EMPTY", ""),
];

/// A server that answers each request with its own head, and 400 below `/bad`.
fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let (mut head, mut bytes) = (Vec::new(), [0; 4096]);
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut bytes) {
                    Ok(read @ 1..) => head.extend_from_slice(&bytes[..read]),
                    _ => break,
                }
            }
            let status = if head.windows(5).any(|part| part == b" /bad") { "400 Bad" } else { "200 OK" };
            let length = head.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            let _ = stream.write_all(&[answer.as_bytes(), &head].concat());
        }
    });
    base
}

fn config(text: &str, folder: &Path) -> (Config, Environment) {
    let environment: Environment = VARIABLES.into_iter().collect();
    let config = Config::parse("fanout.toml", text, folder, &environment).unwrap();
    (config, environment)
}

/// What a call of tool `t` comes to.
async fn call(text: &str, input: Value) -> Arc<Outcome> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret.txt"), "from-a-file-0123\n").unwrap();
    let document = json!({
        "openapi": "3.0.3",
        "security": [{"b": []}],
        "components": {"securitySchemes": {"b": {"type": "http", "scheme": "basic"}}},
        "paths": {"/t": {"get": {"operationId": "t"}}},
    })
    .to_string();
    std::fs::write(folder.path().join("api.yaml"), document).unwrap();
    let (config, environment) = config(text, folder.path());
    let toolbox = build_toolbox(&config, &environment, Purpose::Run, &Programs::new(), &Databases::default()).unwrap();
    let name = toolbox.iter().next().unwrap().spec.name.clone();
    let mut run = Scheduler::new(SchedulerOptions::default()).run(Arc::new(toolbox), RunOptions::new("r"));
    let mut batch = run.batch();
    batch.call(Call::new(0, "c", name, input)).unwrap();
    batch.finish().await.remove(0)
}

#[track_caller]
fn check(outcome: &Outcome, shown: &[&str]) {
    let all = format!("{outcome:?}");
    for part in shown {
        assert!(all.contains(part), "{part} is not in {all}");
    }
    for (name, value) in VARIABLES.iter().filter(|(_, value)| value.len() > 5 && !value.starts_with('/')) {
        assert!(!all.contains(value), "{name} is in {all}");
    }
}

#[tokio::test]
async fn what_an_endpoint_repeats_is_shown_by_name() {
    let base = echo();
    let tool = |url: &str, more: &str| {
        format!(
            "[[tool]]\nname = \"t\"\ninput = {{ leaked = {{ type = \"string\", required = false }} }}\nhttp = {{ method = \"GET\", url = \"{base}{url}\", {more} }}\n"
        )
    };
    let headers =
        "headers = { authorization = \"Bearer ${TOKEN}\", x-file = \"${file:secret.txt}\", x-mode = \"${MODE}\" }";
    for path in ["/", "/bad"] {
        let outcome = call(&tool(path, headers), json!({})).await;
        check(&outcome, &["Bearer [redacted TOKEN]", "x-file: [redacted file:secret.txt]", "x-mode: true"]);
    }
    let outcome = call(&tool("/", "query = { key = \"${TOKEN}\" }"), json!({})).await;
    check(&outcome, &["/?key=[redacted TOKEN]"]);
    let outcome =
        call(&tool("/", "headers = { x = \"${TOKEN:-d}-${PASSWORD}\", y = \"${EMPTY:-default text}\" }"), json!({}))
            .await;
    check(&outcome, &["x: [redacted TOKEN]-[redacted PASSWORD]", "y: default text"]);
    // Nobody has given the model's key to a tool, and who finds it elsewhere shows it no more.
    let outcome = call(&tool("/", "headers = { x = \"a\" }"), json!({ "leaked": "sk-model-0123" })).await;
    check(&outcome, &["/?leaked=[redacted ANTHROPIC_API_KEY]"]);
}

#[tokio::test]
async fn what_an_operation_repeats_is_shown_by_name() {
    let text = |base: &str| {
        format!("[openapi.a]\nspec = \"api.yaml\"\nbase_url = \"{base}\"\nauth = {{ b = \"user:${{PASSWORD}}\" }}\n")
    };
    let outcome = call(&text(&echo()), json!({})).await;
    check(&outcome, &["authorization: Basic ", "[redacted PASSWORD]"]);
    assert!(!format!("{outcome:?}").contains("aHVudGVyM") && !format!("{outcome:?}").contains("h1bnRlcj"));
}

#[tokio::test]
async fn what_a_program_prints_is_shown_by_name() {
    let script = r#"echo "$T $1 $HOME"; echo "$T" >&2; exit $2"#;
    for status in [0, 1] {
        let text = format!(
            "[[tool]]\nname = \"t\"\ncommand = {{ program = \"sh\", args = [\"-c\", {script:?}, \"sh\", \"${{PASSWORD}}\", \"{status}\"], env = [\"PATH\", \"HOME\", \"T=${{TOKEN}}\"] }}\n"
        );
        let outcome = call(&text, json!({})).await;
        check(&outcome, &["[redacted TOKEN] [redacted PASSWORD] /var/lib/shop"]);
    }
}

#[tokio::test]
async fn what_a_server_says_before_it_ends_is_shown_by_name() {
    let text = "[mcp_servers.a]\ncommand = \"sh\"\nargs = [\"-c\", \"echo no licence for $T >&2; exit 3\"]\nenv = { T = \"${TOKEN}\" }\n";
    let (config, environment) = config(text, Path::new(""));
    let mut toolbox =
        build_toolbox(&config, &environment, Purpose::Look, &Programs::new(), &Databases::default()).unwrap();
    let (_, troubles) = connect(&mut toolbox, &config, &environment, &Servers::default()).await;
    assert!(troubles[0].message.ends_with("it said last: no licence for [redacted TOKEN]"), "{troubles:?}");
}

#[test]
fn without_secrets_nothing_is_searched() {
    let environment = Environment::from_iter([("HOME", "/var/lib/shop")]);
    let config = Config::parse("fanout.toml", "", Path::new(""), &environment).unwrap();
    assert!(secrets_of(&config, &environment).is_empty());
}

#[tokio::test]
async fn a_tool_in_an_end_users_name_needs_the_users_token() {
    let text = format!(
        "[[tool]]\nname = \"t\"\nhttp = {{ method = \"POST\", url = \"{}\", headers = {{ authorization = \"Bearer ${{caller.token}}\" }} }}\n",
        echo()
    );
    let warning = "`${caller.token}` in `authorization` is sent as it came, and the API must verify it; with `jwt` in [server] the gateway does";
    let warnings = |text: &str| config(text, Path::new("")).0.warnings;
    assert!(warnings(&text)[0].to_string().ends_with(warning), "{:?}", warnings(&text));
    assert_eq!(warnings(&format!("{text}[server]\njwt = {{ secret = \"${{TOKEN}}\" }}\n")), []);
    let outcome = call(&text, json!({})).await;
    assert_eq!(outcome.error_code(), Some(ErrorCode::NotPermitted));
    check(&outcome, &["and this run has no end user's token"]);
}

#[test]
fn the_page_about_endpoints_is_true() {
    let page = include_str!("../../../../docs/http.md");
    let block = page.split("```toml\n").nth(1).and_then(|rest| rest.split_once("```")).unwrap().0;
    let environment = Environment::from_iter([("SHOP_TOKEN", "s3cret")]);
    let config = Config::parse("http.md", block, Path::new(""), &environment).unwrap();
    assert_eq!((config.tools.len(), config.warnings.len()), (5, 1));
    let toolbox = build_toolbox(&config, &environment, Purpose::Run, &Programs::new(), &Databases::default()).unwrap();
    assert_eq!(toolbox.len(), 5);
}
