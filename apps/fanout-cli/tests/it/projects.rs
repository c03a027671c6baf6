//! What a team may use: the other tools are not there for its keys, at any door.

use fanout_script::{Server, ServerOptions, Turn};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Served, run};

const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");

struct Scene {
    folder: TempDir,
    claude: Server,
    support: String,
    other: String,
}

impl Scene {
    fn open() -> Self {
        let claude = Server::start(ServerOptions::responder(|conversation| match conversation.assistant_turns() {
            0 => Turn::calls([("get_order", json!({"id": "1"}))]),
            _ => Turn::text("done"),
        }));
        let claude = claude.unwrap();
        let folder = TempDir::new().unwrap();
        let tool = |name: &str| {
            format!(
                "[[tool]]\nname = \"{name}\"\ninput = {{ id = {{ type = \"string\" }} }}\nwrites = []\n\
                 command = {{ program = \"echo\", args = [\"ran {name}\"], env = [\"PATH\"] }}\n"
            )
        };
        let head = format!("[model]\nbase_url = \"{}\"\napi_key = \"scripted\"\n", claude.base_url());
        let tail = "[project.support]\ntools = [\"get_*\"]\n[server]\nplan = true\nhosts = [\"fanout.test\"]\n";
        let config = head + &tool("get_order") + &tool("refund") + tail;
        std::fs::write(folder.path().join("fanout.toml"), config).unwrap();
        let key = |project: &str| {
            let made = run(folder.path(), &[], &["keys", "add", "--project", project]);
            String::from_utf8(made.stdout).unwrap().trim().to_owned()
        };
        let (support, other) = (key("support"), key("sales"));
        Self { folder, claude, support, other }
    }

    fn serve(&self) -> Served {
        Served::start(self.folder.path(), &[("FANOUT_SERVER__LISTEN", "127.0.0.1:0")], &[])
    }

    /// The names of the tools that the upstream was offered, at each request since.
    fn offered(&self, since: usize) -> Vec<String> {
        assert_eq!(self.claude.violations().len(), 0, "{:?}", self.claude.violations());
        let of = |body: &[u8]| {
            let request: Value = serde_json::from_slice(body).unwrap();
            let tools = request["tools"].as_array().unwrap();
            tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        self.claude.requests()[since..].iter().map(|request| of(&request.body)).collect()
    }
}

fn names(answer: &str) -> String {
    let tools: Value = serde_json::from_str(answer).unwrap();
    tools.as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_uses_its_tools_and_knows_of_no_others() {
    let scene = Scene::open();
    let served = scene.serve();
    let key = ("x-api-key", scene.support.as_str());
    let listed = |key: &str| names(&served.send("GET", "/fanout/v1/tools", &[("x-api-key", key)], "").1);
    assert_eq!(
        (listed(&scene.support).as_str(), listed(&scene.other).as_str()),
        ("get_order plan", "get_order refund plan")
    );
    let plan = served.send("GET", "/fanout/v1/tools", &[key], "").1;
    assert!(!plan.contains("refund"), "not in what `plan` says, either: {plan}");

    let calls = |unknown: &str| {
        let call = |id: &str, tool: &str| json!({"type": "tool_use", "id": id, "name": tool, "input": {"id": "1"}});
        let planned = json!({"calls": [{"label": "a", "tool": "refund", "input": {"id": "1"}}]});
        let plan = json!({"type": "tool_use", "id": "p", "name": "plan", "input": planned});
        let content = [call("a", "get_order"), call("b", "refund"), plan];
        json!({"content": content, "unknown": unknown}).to_string()
    };
    let (status, answer) = served.send("POST", "/fanout/v1/tool_calls", &[key], &calls("unhandled"));
    assert_eq!(status, 200, "{answer}");
    let told: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(told["unhandled"], json!(["b"]));
    assert!(answer.contains("ran get_order") && !answer.contains("ran refund"), "{answer}");
    let answer = served.send("POST", "/fanout/v1/tool_calls", &[key], &calls("error")).1;
    assert!(answer.contains("unknown_tool") && !answer.contains("ran refund"), "{answer}");
    let chosen = served.send("GET", "/fanout/v1/tools", &[key, ("fanout-tools", "refund")], "");
    assert!(chosen.0 == 400 && chosen.1.contains("which is no tool here"), "{chosen:?}");

    let body = json!({"model": "claude-test", "max_tokens": 100, "messages": [{"role": "user", "content": "go"}]});
    let (status, answer) = served.send("POST", "/v1/messages", &[key, VERSION], &body.to_string());
    assert!(status == 200 && answer.contains("done"), "{answer}");
    assert_eq!(scene.offered(0), ["get_order plan", "get_order plan"]);
    let since = scene.offered(0).len();
    served.send("POST", "/v1/messages", &[("x-api-key", &scene.other), VERSION], &body.to_string());
    assert_eq!(scene.offered(since), ["get_order refund plan", "get_order refund plan"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn so_does_what_it_runs_in_the_background_and_by_mcp() {
    let scene = Scene::open();
    let served = scene.serve();
    let key = ("x-api-key", scene.support.as_str());
    let (status, answer) = served.send("POST", "/fanout/v1/runs", &[key], "{\"prompt\":\"go\"}");
    assert_eq!(status, 202, "{answer}");
    let run: Value = serde_json::from_str(&answer).unwrap();
    let path = format!("/fanout/v1/runs/{}/events", run["id"].as_str().unwrap());
    // It ends with the run.
    let told = served.send("GET", &path, &[key], "").1;
    assert!(told.contains("end_turn"), "{told}");
    assert_eq!(scene.offered(0), ["get_order plan", "get_order plan"]);

    let accepts = ("accept", "application/json, text/event-stream");
    let ask = |method: &str, params: Value| {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let begun = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
        let session = session_of(&served, &[key, accepts], &begun.to_string());
        let headers = [key, accepts, ("mcp-session-id", session.as_str())];
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
        served.send("POST", "/mcp", &headers, &ready);
        let mut stream = served.begin("POST", "/mcp", &headers, &body.to_string());
        crate::process::read(&mut stream).1
    };
    let listed = ask("tools/list", json!({}));
    assert!(listed.contains("get_order") && !listed.contains("refund"), "{listed}");
    let called = ask("tools/call", json!({"name": "refund", "arguments": {"id": "1"}}));
    assert!(called.contains("Unknown tool: refund"), "{called}");
}

/// The session that an answer names.
fn session_of(served: &Served, headers: &[(&str, &str)], body: &str) -> String {
    use std::io::Read;
    let mut answer = String::new();
    served.begin("POST", "/mcp", headers, body).read_to_string(&mut answer).unwrap();
    let head = answer.to_ascii_lowercase();
    let at = head.find("mcp-session-id: ").unwrap_or_else(|| panic!("{answer}")) + "mcp-session-id: ".len();
    answer[at..].split("\r\n").next().unwrap().to_owned()
}
