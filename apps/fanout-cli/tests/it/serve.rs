//! `fanout serve`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::process::{Served, fanout, read, run};

const ANY_PORT: (&str, &str) = ("FANOUT_SERVER__LISTEN", "127.0.0.1:0");

const ORDER: &str = r#"{"content":[{"type":"tool_use","id":"call_1","name":"get_order","input":{"order_id":"123"}}]}"#;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_demo_needs_no_key_and_runs_the_calls_of_any_loop() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), &[ANY_PORT], &["--demo"]);
    let url = format!("http://{}", served.address());
    assert!(served.said.starts_with(&format!("fanout listens on {url}\n")), "{}", served.said);
    assert!(served.said.contains(&format!("ANTHROPIC_BASE_URL={url}\n")), "{}", served.said);
    assert!(served.said.contains(&format!("any MCP client:       {url}/mcp\n")), "{}", served.said);
    assert!(served.said.contains(&format!("POST {url}/fanout/v1/tool_calls\n")), "{}", served.said);
    let (status, body) = served.send("POST", "/fanout/v1/tool_calls", &[], ORDER);
    let result = &json(&body)["content"][0];
    assert_eq!((status, &result["tool_use_id"]), (200, &Value::from("call_1")), "{body}");
    assert!(result["content"].as_str().unwrap().contains("total_cents"), "{body}");
    let (_, tools) = served.send("GET", "/fanout/v1/tools", &[], "");
    assert_eq!(json(&tools).as_array().unwrap().len(), 10);
    assert_eq!(served.send("GET", "/readyz", &[], "").0, 200);
}

#[test]
fn a_signal_stops_it_and_what_runs_is_answered() {
    for (signal, code) in [(Signal::TERM, 0), (Signal::INT, 130)] {
        let folder = tempfile::tempdir().unwrap();
        let log = ("RUST_LOG", "fanout_gateway=debug");
        let served = Served::start(folder.path(), &[ANY_PORT, log], &["--demo"]);
        let mut running = served.begin("POST", "/fanout/v1/tool_calls", &[], ORDER);
        served.logged("attempt started");
        let (ended, _) = served.stop(signal);
        let (status, body) = read(&mut running);
        assert_eq!((status, ended), (200, Some(code)));
        assert!(body.contains("total_cents"), "{body}");
    }
}

#[test]
fn who_reads_nothing_of_what_it_says_does_not_stop_it() {
    let folder = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut served =
        fanout(folder.path(), &[ANY_PORT], &["serve"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    // It warns of this after it has said where it listens.
    let mut log = BufReader::new(served.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(log.any(|line| line.contains("`api_key` of [model] is not set")), "it ended: {:?}", served.wait());
    kill_process(Pid::from_child(&served), Signal::TERM).unwrap();
    assert_eq!(served.wait().unwrap().code(), Some(0));
}

#[test]
#[cfg(target_os = "linux")]
fn where_it_cannot_say_where_it_listens_it_ends_with_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let served = fanout(folder.path(), &[ANY_PORT], &["serve", "--demo"]).stdout(full).output().unwrap();
    let said = String::from_utf8_lossy(&served.stderr);
    assert_eq!(served.status.code(), Some(1), "{said}");
    assert!(said.contains("standard output cannot be written"), "{said}");
}

#[test]
fn a_signal_stops_it_in_good_order_from_the_moment_it_says_where_it_listens() {
    let folder = tempfile::tempdir().unwrap();
    for (signal, code) in [(Signal::TERM, 0), (Signal::INT, 130)].repeat(5) {
        let served = Served::start(folder.path(), &[ANY_PORT], &["--demo"]);
        assert_eq!(served.stop(signal).0, Some(code));
    }
}

#[test]
fn the_log_names_run_call_and_attempt_and_no_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), &[ANY_PORT, ("RUST_LOG", "fanout_gateway=trace")], &["--demo", "--json"]);
    let listening = json(served.said.trim());
    assert_eq!((&listening["type"], &listening["demands_keys"]), (&Value::from("listening"), &Value::from(false)));
    let body = ORDER.replace("123", "s3cret-input");
    let headers = [("x-api-key", "s3cret-key"), ("idempotency-key", "s3cret-idempotency")];
    assert_eq!(served.send("POST", "/fanout/v1/tool_calls?token=s3cret-query", &headers, &body).0, 200);
    let started = json(&served.logged("attempt started"));
    assert!(started["fields"]["run"].as_str().unwrap().starts_with("run_"), "{started}");
    assert_eq!((&started["fields"]["call"], &started["fields"]["attempt"]), (&"call_1".into(), &1.into()));
    let (_, log) = served.stop(Signal::TERM);
    let ended = json(log.lines().find(|line| line.contains("call ended")).unwrap());
    assert_eq!(ended["fields"]["run"], started["fields"]["run"]);
    assert!(!log.contains("s3cret") && !started.to_string().contains("s3cret"), "{log}");
}

#[test]
fn the_variable_port_wins_and_a_port_that_is_taken_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), &[ANY_PORT], &["--demo"]);
    let port = served.address().rsplit(':').next().unwrap();
    let taken = run(folder.path(), &[ANY_PORT, ("PORT", port)], &["serve", "--demo"]);
    let said = String::from_utf8_lossy(&taken.stderr);
    assert_eq!(taken.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("cannot listen on 127.0.0.1:{port}")) && said.contains("PORT"), "{said}");
    let wrong = run(folder.path(), &[("PORT", "http")], &["serve", "--demo"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn the_configuration_says_which_tools_there_are_and_where_to_listen() {
    let folder = tempfile::tempdir().unwrap();
    let toml = "[server]\nlisten = \"127.0.0.1:0\"\n[[tool]]\nname = \"t\"\nhttp = { method = \"GET\", url = \"http://127.0.0.1:9\" }\n";
    std::fs::write(folder.path().join("fanout.toml"), toml).unwrap();
    let served = Served::start(folder.path(), &[], &[]);
    assert!(served.logged("warning:").contains("`api_key` of [model] is not set"));
    assert_eq!(json(&served.send("GET", "/fanout/v1/tools", &[], "").1)[0]["name"], "t");
    let content = ORDER.replace("get_order", "t");
    let (_, body) = served.send("POST", "/fanout/v1/tool_calls", &[], &content);
    assert_eq!(json(&body)["content"][0]["is_error"], true, "nobody listens there: {body}");
    let jwt = toml.replace("[[tool]]", "jwt = { secret = \"x\" }\n[[tool]]");
    std::fs::write(folder.path().join("fanout.toml"), jwt).unwrap();
    let refused = run(folder.path(), &[], &["serve"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("`secret` of `jwt` must have at least 32 bytes"));
}

#[test]
fn any_address_but_loopback_demands_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let everywhere = ("FANOUT_SERVER__LISTEN", "0.0.0.0:0");
    let served = Served::start(folder.path(), &[everywhere], &["--demo"]);
    assert!(served.logged("warning:").contains("there are no keys"));
    let post = |key: &str| served.send("POST", "/fanout/v1/tool_calls", &[("x-api-key", key)], ORDER).0;
    assert_eq!((post("none"), served.send("GET", "/livez", &[], "").0), (401, 200));
    let added = run(folder.path(), &[], &["keys", "add"]);
    let key = String::from_utf8(added.stdout).unwrap();
    assert_eq!(post(key.trim()), 200);
    let listed = run(folder.path(), &[], &["keys", "list"]);
    let id = String::from_utf8(listed.stdout).unwrap().split(' ').next().unwrap().to_owned();
    assert!(run(folder.path(), &[], &["keys", "revoke", &id]).status.success());
    assert_eq!(post(key.trim()), 401);
}
