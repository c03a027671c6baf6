//! `fanout mcp`: what a client reads from it, and what becomes of it when the client is gone.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::process::{fanout, run};

/// A client's end of a session, begun.
struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    fn begin(folder: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = fanout(folder, variables, &["mcp"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut session = Self { child, input, output };
        let client = json!({"name": "test", "version": "1"});
        let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
        session.send(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}));
        assert_eq!(session.next()["result"]["serverInfo"]["name"], "fanout");
        session.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        session
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.input, "{message}").unwrap();
    }

    fn call(&mut self, id: u32, tool: &str) {
        self.call_with(id, tool, &json!({}));
    }

    fn call_with(&mut self, id: u32, tool: &str, arguments: &Value) {
        let params = json!({"name": tool, "arguments": arguments});
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}));
    }

    /// The next line, which must be a message of the protocol.
    fn next(&mut self) -> Value {
        let mut line = String::new();
        assert!(self.output.read_line(&mut line).unwrap() > 0, "the output ended");
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert_eq!(message["jsonrpc"], "2.0", "{line}");
        message
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // One that has ended is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with a configuration of one tool that asks this address, with a warning to be said.
fn folder(address: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let toml = format!(
        "[limits.nobodys]\nrate = \"5/s\"\n[[tool]]\nname = \"look\"\ndescription = \"looks\"\nreads = [\"thing\"]\n\
         http = {{ method = \"GET\", url = \"http://{address}/\" }}\n"
    );
    std::fs::write(folder.path().join("fanout.toml"), toml).unwrap();
    folder
}

#[test]
fn a_signal_stops_it_in_good_order() {
    let folder = folder("127.0.0.1:9");
    for (signal, code) in [(Signal::TERM, 0), (Signal::INT, 130)] {
        let mut session = Session::begin(folder.path(), &[]);
        kill_process(Pid::from_child(&session.child), signal).unwrap();
        assert_eq!(session.child.wait().unwrap().code(), Some(code));
    }
}

#[test]
fn the_output_is_protocol_alone_however_much_there_is_to_log() {
    let folder = folder("127.0.0.1:9");
    let mut session = Session::begin(folder.path(), &[("RUST_LOG", "trace")]);
    session.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}));
    assert_eq!(session.next()["result"]["tools"][0]["name"], "look");
    session.call(2, "look");
    let answer = session.next();
    assert_eq!((&answer["id"], &answer["result"]["isError"]), (&json!(2), &json!(true)), "nobody listens there");
    session.call(3, "nobody");
    assert_eq!(session.next()["error"]["code"], -32602);
    session.call_with(4, "look", &json!({"unasked": "s3cret"}));
    assert!(session.next()["result"]["content"][0]["text"].as_str().unwrap().contains("invalid_input"));
    // The client goes: so does the process, with nothing more to say on its output.
    let Session { child, input, output } = &mut session;
    let errors = child.stderr.take().unwrap();
    let log = std::thread::spawn(move || std::io::read_to_string(errors).unwrap());
    drop(std::mem::replace(input, null_input()));
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), child.wait().unwrap().code()), ("", Some(0)));
    let log = log.join().unwrap();
    assert!(log.contains("warning:") && log.contains("nobodys") && log.contains("call ended"), "{log}");
    assert!(!log.contains("s3cret"), "{log}");
}

/// The input of a process that has ended.
fn null_input() -> ChildStdin {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_fanout"));
    let mut child = child.arg("--version").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let input = child.stdin.take().unwrap();
    child.wait().unwrap();
    input
}

#[test]
fn a_client_that_is_killed_leaves_no_process_behind() {
    // The tool's server takes the connection and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = folder(&listener.local_addr().unwrap().to_string());
    let mut session = Session::begin(folder.path(), &[]);
    session.call(1, "look");
    let (mut asked, _) = listener.accept().unwrap();
    // What a kill leaves: both ends of the streams closed, in the middle of a call.
    drop(std::mem::replace(&mut session.input, null_input()));
    session.child.stderr.take();
    session.output = BufReader::new(closed_output());
    assert!(session.child.wait().unwrap().code().is_some(), "it ends by itself");
    let mut request = String::new();
    // It ends or is reset: either way nobody holds the connection any more.
    let _ = asked.read_to_string(&mut request);
    assert!(request.starts_with("GET / HTTP/1.1"), "{request}");
}

/// The output of a process that has ended.
fn closed_output() -> ChildStdout {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_fanout"));
    let mut child = child.arg("--version").stdout(Stdio::piped()).spawn().unwrap();
    let output = child.stdout.take().unwrap();
    child.wait().unwrap();
    output
}

#[test]
fn several_at_once_do_not_mind_each_other() {
    let folder = folder("127.0.0.1:9");
    let mut sessions: Vec<Session> = (0..4).map(|_| Session::begin(folder.path(), &[])).collect();
    sessions.iter_mut().for_each(|session| session.call(1, "look"));
    for session in &mut sessions {
        assert_eq!(session.next()["result"]["isError"], true);
    }
}

#[test]
fn the_entry_for_a_client_names_the_command_and_the_file() {
    let folder = folder("127.0.0.1:9");
    let file = folder.path().join("fanout.toml").to_str().unwrap().to_owned();
    let args = json!(["mcp", "--config", file]);
    for client in ["claude-code", "claude-desktop", "cursor"] {
        let printed = run(folder.path(), &[], &["mcp", "--print-config", client]);
        let entry: Value = serde_json::from_slice(&printed.stdout).unwrap();
        let server = &entry["mcpServers"]["fanout"];
        assert_eq!((&server["command"], &server["args"]), (&json!("fanout"), &args), "{client}");
    }
    let printed = run(folder.path(), &[], &["mcp", "--print-config", "codex", "--config", "fanout.toml"]);
    let expected = format!("[mcp_servers.fanout]\ncommand = \"fanout\"\nargs = {args}\n");
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), expected);
    let elsewhere = tempfile::tempdir().unwrap();
    let none = run(elsewhere.path(), &[], &["mcp", "--print-config", "codex"]);
    assert_eq!((none.status.code(), none.stdout.len()), (Some(2), 0));
    assert!(String::from_utf8_lossy(&none.stderr).contains("--config FILE"));
}
