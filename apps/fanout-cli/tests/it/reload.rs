//! A running gateway that reads its configuration again: all of it or nothing.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::process::{Served, read, run};

const ANY_PORT: (&str, &str) = ("FANOUT_SERVER__LISTEN", "127.0.0.1:0");

/// A tool that waits until somebody writes to the pipe `hold`.
const HOLD: &str = "[[tool]]\nname = \"hold\"\ncommand = { program = \"cat\", args = [\"hold\"], env = [\"PATH\"] }\n";

fn echo(name: &str, says: &str) -> String {
    format!("[[tool]]\nname = \"{name}\"\ncommand = {{ program = \"echo\", args = [\"{says}\"] }}\nwrites = []\n")
}

fn write(folder: &Path, text: &str) {
    std::fs::write(folder.join("fanout.toml"), text).unwrap();
}

fn calls(names: &[&str]) -> String {
    let block = |name: &&str| json!({ "type": "tool_use", "id": format!("c_{name}"), "name": name, "input": {} });
    json!({ "content": names.iter().map(block).collect::<Vec<_>>() }).to_string()
}

fn result(body: &str, at: usize) -> String {
    let body: Value = serde_json::from_str(body).unwrap();
    body["content"][at]["content"].as_str().unwrap_or_default().trim().to_owned()
}

fn names(served: &Served) -> Vec<String> {
    let tools: Value = serde_json::from_str(&served.send("GET", "/fanout/v1/tools", &[], "").1).unwrap();
    tools.as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

/// What `fanout reload` prints, and how it ends.
fn reload(folder: &Path, served: &Served, more: &[(&str, &str)], args: &[&str]) -> (Option<i32>, String, String) {
    let at = [("FANOUT_SERVER__LISTEN", served.address())];
    let came = run(folder, &[&at, more].concat(), &[&["reload"], args].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (came.status.code(), text(&came.stdout), text(&came.stderr))
}

#[test]
fn what_changed_is_taken_and_told_and_what_has_begun_ends_as_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let pipe = folder.join("hold");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    write(folder, &format!("[limits.api]\nrate = \"5/s\"\n{HOLD}{}{}", echo("a", "one"), echo("gone", "x")));
    let served = Served::start(folder, &[ANY_PORT, ("RUST_LOG", "fanout_gateway=debug")], &[]);
    let mut running = served.begin("POST", "/fanout/v1/tool_calls", &[], &calls(&["hold"]));
    served.logged("attempt started");
    write(folder, &format!("[limits.api]\nrate = \"9/s\"\n{}{}", echo("a", "two"), echo("b", "new")));
    let (code, out, err) = reload(folder, &served, &[], &[]);
    assert_eq!(code, Some(0), "{err}");
    let expected = "+ tool b\n- tool hold\n- tool gone\n~ [limits.api] rate: \"5/s\", now \"9/s\"\n~ [[tool]] a command args\n\
                    + [[tool]] b\n- [[tool]] gone\n- [[tool]] hold\n";
    assert_eq!(out, expected);
    assert_eq!(names(&served), ["a", "b"]);
    let (_, body) = served.send("POST", "/fanout/v1/tool_calls", &[], &calls(&["a", "b", "hold"]));
    assert_eq!((result(&body, 0), result(&body, 1)), ("two".to_owned(), "new".to_owned()), "{body}");
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["unhandled"], json!(["c_hold"]), "{body}");
    std::fs::write(&pipe, "held").unwrap();
    assert_eq!(result(&read(&mut running).1, 0), "held");
    let (_, out, _) = reload(folder, &served, &[], &["--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), json!({ "tools": [], "settings": [] }));
}

#[test]
fn a_configuration_that_is_not_right_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let good = echo("a", "one");
    write(folder, &good);
    let served = Served::start(folder, &[ANY_PORT], &[]);
    for (text, why) in [
        (
            format!("{}[limits.x]\nrat = 1\n", echo("b", "new")),
            "fanout.toml:6:1: unknown key `rat` in [limits.x]; did you mean `rate`?",
        ),
        (
            format!("{}[scheduler]\nmax_in_flight = 5\n", echo("b", "new")),
            "`max_in_flight` of [scheduler] cannot change while the gateway runs",
        ),
        (
            format!("{}[[notify]]\nurl = \"https://a.example\"\nsecret = \"s\"\n", echo("b", "new")),
            "[[notify]] cannot change while the gateway runs",
        ),
        (
            format!(
                "{}[mcp_servers.s]\ncommand = \"sh\"\nargs = [\"-c\", \"echo no licence >&2\"]\n",
                echo("b", "new")
            ),
            "the MCP server `s` cannot be used, its tools are missing: it ended before it answered; it said last: no licence",
        ),
        (
            echo("b", "new").replace(
                "command = { program = \"echo\"",
                "command = { env = [\"T=${UNSET_HERE}\"], program = \"echo\"",
            ),
            "needs the environment variable `UNSET_HERE`, which is not set",
        ),
    ] {
        write(folder, &text);
        let (code, out, err) = reload(folder, &served, &[], &[]);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        assert!(err.contains(why), "{why}\n{err}");
        assert_eq!(names(&served), ["a"]);
        served.signal(Signal::HUP);
        served.logged("the configuration stays as it was");
    }
    let (_, body) = served.send("POST", "/fanout/v1/tool_calls", &[], &calls(&["a"]));
    assert_eq!(result(&body, 0), "one");
    write(folder, &format!("{good}{}", echo("b", "new")));
    served.signal(Signal::HUP);
    served.logged("the configuration was read again");
    assert_eq!(served.logged("+ "), "+ tool b");
    assert_eq!(names(&served), ["a", "b"]);
    assert_eq!(served.stop(Signal::TERM).0, Some(0));
}

#[test]
fn only_who_may_change_the_gateway_has_it_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, &echo("a", "one"));
    let everywhere = ("FANOUT_SERVER__LISTEN", "0.0.0.0:0");
    let served = Served::start(folder, &[everywhere], &[]);
    let add = |args: &[&str]| {
        let came = run(folder, &[], &[&["keys", "add"], args].concat());
        String::from_utf8(came.stdout).unwrap().trim().to_owned()
    };
    let (plain, admin) = (add(&[]), add(&["--admin"]));
    let (code, _, err) = reload(folder, &served, &[], &[]);
    assert!(code == Some(2) && err.contains("demands a key of its own"), "{err}");
    let (code, _, err) = reload(folder, &served, &[("FANOUT_KEY", &plain)], &[]);
    assert!(code == Some(2) && err.contains("this key may not change the gateway"), "{err}");
    let (code, out, err) = reload(folder, &served, &[("FANOUT_KEY", &admin)], &[]);
    assert_eq!((code, out.as_str()), (Some(0), "nothing changed\n"), "{err}");
    drop(served);
    let (code, _, err) = {
        let came = run(folder, &[("FANOUT_SERVER__LISTEN", "127.0.0.1:9")], &["reload"]);
        (came.status.code(), (), String::from_utf8_lossy(&came.stderr).into_owned())
    };
    assert!(code == Some(2) && err.contains("there is no gateway at http://127.0.0.1:9"), "{err}");
}

#[test]
fn a_server_that_changes_its_tools_changes_those_of_the_gateway_and_is_not_started_anew() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("server.sh"), include_str!("../../../../crates/fanout-tools/tests/it/mcp_server.sh"))
        .unwrap();
    let server = "[mcp_servers.s]\ncommand = \"sh\"\nargs = [\"server.sh\"]\nenv = { DIR = \".\" }\n";
    write(folder, server);
    let served = Served::start(folder, &[ANY_PORT], &[]);
    let has = |name: &str| names(&served).iter().any(|known| known == name);
    assert!(has("s__old"));
    let drop = r#"{"content":[{"type":"tool_use","id":"d","name":"s__drop","input":{}}]}"#;
    assert_eq!(result(&served.send("POST", "/fanout/v1/tool_calls", &[], drop).1, 0), "dropped");
    served.logged("an MCP server has other tools");
    assert_eq!([served.logged(" tool "), served.logged(" tool ")], ["~ tool s__look: effects", "- tool s__old"]);
    assert!(!has("s__old"));
    write(folder, &format!("{server}{}", echo("b", "new")));
    let (code, out, err) = reload(folder, &served, &[], &[]);
    assert_eq!((code, out.as_str()), (Some(0), "+ tool b\n+ [[tool]] b\n"), "{err}");
    assert_eq!(std::fs::read_to_string(folder.join("starts")).unwrap(), "start\n", "it was started once");
    // Reached otherwise, it is another.
    write(folder, &server.replace("DIR = \".\"", "DIR = \".\", MORE = \"1\""));
    assert_eq!(reload(folder, &served, &[], &[]).0, Some(0));
    assert_eq!(std::fs::read_to_string(folder.join("starts")).unwrap(), "start\nstart\n");
    assert!(has("s__old"));
}
