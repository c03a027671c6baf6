//! What somebody on call orders holds in every process, at once, and through a kill; and who ordered it is told.

use std::net::TcpStream;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::any;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::process::{Served, read, run};

/// An API that counts, and answers once it may.
#[derive(Clone)]
struct Api {
    asked: watch::Sender<u32>,
    is_held: watch::Sender<bool>,
    is_down: watch::Sender<bool>,
}

async fn answer(State(api): State<Api>) -> Result<&'static str, StatusCode> {
    api.asked.send_modify(|asked| *asked += 1);
    if *api.is_down.borrow() {
        return Err(StatusCode::INTERNAL_SERVER_ERROR);
    }
    api.is_held.subscribe().wait_for(|is_held| !*is_held).await.unwrap();
    Ok("{\"ok\":true}")
}

struct Scene {
    folder: TempDir,
    api: Api,
}

impl Scene {
    async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let api = Api {
            asked: watch::Sender::default(),
            is_held: watch::Sender::default(),
            is_down: watch::Sender::default(),
        };
        let app = Router::new().fallback(any(answer)).with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let folder = TempDir::new().unwrap();
        let tool = |name: &str| {
            format!(
                "[[tool]]\nname = \"{name}\"\ninput = {{ id = {{ type = \"string\" }} }}\nlimit = \"payments\"\nwrites = []\n\
                 http = {{ method = \"POST\", url = \"http://{address}/{name}/{{id}}\" }}\n"
            )
        };
        let config = tool("pay") + &tool("refund") + "[limits.payments]\nconcurrency = 4\n";
        std::fs::write(folder.path().join("fanout.toml"), config).unwrap();
        Self { folder, api }
    }

    fn serve(&self) -> Served {
        Served::start(self.folder.path(), &[("FANOUT_SERVER__LISTEN", "127.0.0.1:0")], &[])
    }

    /// Runs the command; what it prints.
    #[track_caller]
    fn order(&self, args: &[&str]) -> String {
        let came = run(self.folder.path(), &[], args);
        assert_eq!(came.status.code(), Some(0), "{}", String::from_utf8_lossy(&came.stderr));
        String::from_utf8(came.stdout).unwrap()
    }

    #[track_caller]
    fn refused(&self, args: &[&str], why: &str) {
        let came = run(self.folder.path(), &[], args);
        let said = String::from_utf8(came.stderr).unwrap();
        assert!(came.status.code() != Some(0) && said.contains(why), "{said}");
    }
}

/// One call.
fn call(served: &Served, tool: &str) -> String {
    came(begun(served, tool))
}

fn begun(served: &Served, tool: &str) -> TcpStream {
    let content = json!([{"type": "tool_use", "id": "c", "name": tool, "input": {"id": "7"}}]);
    served.begin("POST", "/fanout/v1/tool_calls", &[], &json!({ "content": content }).to_string())
}

/// The error that it came to, in words, or `ok`.
fn came(mut stream: TcpStream) -> String {
    let (status, answer) = read(&mut stream);
    assert_eq!(status, 200, "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let text = &answer["content"][0]["content"];
    let text = text.as_str().or(text[0]["text"].as_str()).unwrap_or_default();
    let error: Value = serde_json::from_str(text).unwrap_or_default();
    match error["error"]["code"].as_str() {
        Some(code) => format!("{code}: {}", error["error"]["message"].as_str().unwrap()),
        None => "ok".to_owned(),
    }
}

/// Calls until it comes to something that begins so: what is ordered at the journal is done within a second.
fn comes_to(served: &Served, tool: &str, begin: &str) -> String {
    loop {
        let came = call(served, tool);
        if came.starts_with(begin) {
            return came;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_out_of_use_stays_so_through_a_kill() {
    let scene = Scene::open().await;
    let first = scene.serve();
    assert_eq!(call(&first, "pay"), "ok");
    scene.order(&["tools", "disable", "pay", "--reason", "it pays twice"]);
    let told =
        "not_permitted: `pay` was taken out of use by terminal (it pays twice), so it was not run: go on without it";
    assert_eq!(comes_to(&first, "pay", "not_permitted"), told);
    assert_eq!(call(&first, "refund"), "ok", "no other");
    first.signal(Signal::KILL);
    drop(first);
    let asked = *scene.api.asked.borrow();
    let next = scene.serve();
    assert_eq!(call(&next, "pay"), told, "from its first call on");
    assert_eq!(*scene.api.asked.borrow(), asked, "nothing was sent");
    let offered = next.send("GET", "/fanout/v1/tools", &[], "").1;
    assert!(offered.contains("\"pay\""), "what models are offered is the same: {offered}");
    let status = scene.order(&["status"]);
    assert!(status.contains("\ntools disable pay, by terminal, reason: \"it pays twice\""), "{status}");
    scene.order(&["tools", "enable", "pay", "--url", &format!("http://{}", next.address())]);
    assert_eq!(call(&next, "pay"), "ok", "where it was ordered it holds at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_is_held_and_limits_are_others_through_a_kill() {
    let scene = Scene::open().await;
    let first = scene.serve();
    let url = format!("http://{}", first.address());
    scene.order(&["breaker", "open", "payments", "--for", "1h", "--url", &url]);
    assert!(call(&first, "pay").starts_with("circuit_open: `payments` was taken out of use by a person"));
    scene.order(&["limits", "set", "payments", "concurrency=1", "max_queue=0", "--url", &url]);
    first.signal(Signal::KILL);
    drop(first);
    let next = scene.serve();
    assert!(call(&next, "pay").starts_with("circuit_open"));
    assert_eq!(*scene.api.asked.borrow(), 0);
    scene.order(&["breaker", "close", "payments"]);
    comes_to(&next, "pay", "ok");

    scene.api.is_held.send_replace(true);
    let before = *scene.api.asked.borrow();
    let held = begun(&next, "pay");
    while *scene.api.asked.borrow() == before {}
    assert!(call(&next, "refund").starts_with("rate_limited"), "one at once, and nobody waits");
    scene.api.is_held.send_replace(false);
    assert_eq!(came(held), "ok");

    scene.api.is_held.send_replace(true);
    scene.order(&["limits", "reset", "payments", "--url", &format!("http://{}", next.address())]);
    let before = *scene.api.asked.borrow();
    let held = [begun(&next, "pay"), begun(&next, "refund")];
    while *scene.api.asked.borrow() < before + 2 {}
    scene.api.is_held.send_replace(false);
    assert_eq!(held.map(came), ["ok", "ok"], "more than one at once again");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_what_is_told_and_mistakes_are_said() {
    let scene = Scene::open().await;
    scene.refused(&["tools", "disable", "refnd"], "there is no tool `refnd`; did you mean `refund`?");
    scene.refused(&["breaker", "open", "paymnets"], "there is no limit group `paymnets`; did you mean `payments`?");
    scene.refused(&["breaker", "open", "payments", "--for", "soon"], "`soon` is no time such as 90s, 10m or 2h");
    scene.refused(&["limits", "set", "payments", "concurency=1"], "did you mean `concurrency`?");
    scene.refused(&["limits", "set", "payments", "rate=fast"], "`rate`");
    scene.refused(&["limits", "set", "payments", "rate"], "`rate` is not like `concurrency=4`");
    assert_eq!(scene.order(&["audit"]), "", "nothing was done");

    scene.order(&["pause"]);
    let key = scene.order(&["keys", "add", "--project", "support"]);
    let admin = scene.order(&["keys", "add", "--admin"]);
    let file = scene.folder.path().join("fanout.toml");
    let config = std::fs::read_to_string(&file).unwrap() + "[server]\nhosts = [\"fanout.test\"]\n";
    std::fs::write(file, config).unwrap();
    let served = scene.serve();
    let ask = |key: &str| {
        let disable = json!({"action": "tools disable", "target": "pay", "reason": "x"}).to_string();
        served.send("POST", "/fanout/v1/controls", &[("x-api-key", key.trim())], &disable)
    };
    let (status, answer) = ask(&key);
    assert!(status == 403 && answer.contains("fanout keys add --admin"), "{answer}");
    assert_eq!(ask(&admin).0, 200);
    let trail = served.send("GET", "/fanout/v1/audit?limit=3", &[("x-api-key", admin.trim())], "");
    let trail: Value = serde_json::from_str(&trail.1).unwrap();
    let actions: Vec<&str> =
        trail["data"].as_array().unwrap().iter().map(|deed| deed["action"].as_str().unwrap()).collect();
    assert_eq!((actions, &trail["has_more"]), (vec!["tools disable", "keys add", "keys add"], &json!(true)));
    assert_eq!(served.send("GET", "/fanout/v1/audit", &[("x-api-key", key.trim())], "").0, 403);
    assert_ne!(trail["data"][0]["who"], "terminal", "{trail}");
    let printed = scene.order(&["audit"]);
    let lines: Vec<&str> = printed.lines().map(|line| &line[21..]).collect();
    assert!(lines[0].starts_with("tools disable pay  by key_") && lines[3] == "pause  by terminal", "{printed}");
    assert!(!printed.contains(key.trim()) && !printed.contains(admin.trim()), "no key is in it");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_kept_orders_hold_for_as_long_as_the_process() {
    let scene = Scene::open().await;
    let variables = [("FANOUT_SERVER__LISTEN", "127.0.0.1:0"), ("FANOUT_STORE__URL", "memory:")];
    let served = Served::start(scene.folder.path(), &variables, &[]);
    let url = format!("http://{}", served.address());
    scene.order(&["tools", "disable", "pay", "--url", &url]);
    scene.order(&["breaker", "open", "payments", "--url", &url]);
    assert!(call(&served, "pay").starts_with("not_permitted") && call(&served, "refund").starts_with("circuit_open"));
    let standing = served.send("GET", "/fanout/v1/controls", &[], "").1;
    assert!(standing.contains("breaker open") && standing.contains("tools disable"), "{standing}");
    scene.order(&["breaker", "close", "payments", "--url", &url]);
    scene.order(&["tools", "enable", "pay", "--url", &url]);
    assert_eq!((call(&served, "pay"), call(&served, "refund")), ("ok".to_owned(), "ok".to_owned()));
    scene.refused(&["audit", "--url", &url], "nothing is kept here");
}

/// What stands in a fence of the page about being on call.
fn lines_of(fence: &str) -> Vec<&'static str> {
    let page = include_str!("../../../../docs/on-call.md");
    let blocks = page.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix(fence));
    blocks.flat_map(str::lines).filter(|line| !line.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_about_being_on_call_is_true() {
    let scene = Scene::open().await;
    let served = scene.serve();
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_fanout")).parent().unwrap().display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let mut ran = 0;
    for line in lines_of("text\n") {
        if line.starts_with("fanout runs cancel") {
            continue; // There is no run.
        }
        let mut command = std::process::Command::new("sh");
        command.args(["-c", line]).env("PATH", &path).current_dir(scene.folder.path());
        let came = command.output().unwrap();
        assert!(came.status.success(), "{line}: {}", String::from_utf8_lossy(&came.stderr));
        ran += 1;
    }
    assert!(ran >= 9, "{ran}");
    let mut asked = 0;
    for line in lines_of("sh\n") {
        let line = line.strip_prefix("curl -s http://127.0.0.1:8787").unwrap();
        let (path, rest) = line.split_once(' ').unwrap();
        let came = match rest.strip_prefix("--json '") {
            Some(body) => served.send("POST", path, &[], body.trim_end_matches('\'')),
            None => served.send("GET", path, &[], ""),
        };
        assert_eq!(came.0, 200, "{line}: {}", came.1);
        asked += 1;
    }
    assert!(asked >= 5, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_order_of_all_may_close_a_breaker_that_opened_by_itself() {
    let scene = Scene::open().await;
    let served = scene.serve();
    scene.api.is_down.send_replace(true);
    comes_to(&served, "pay", "circuit_open");
    scene.api.is_down.send_replace(false);
    assert!(call(&served, "pay").starts_with("circuit_open"), "it cools down");
    scene.order(&["breaker", "close", "payments", "--url", &format!("http://{}", served.address())]);
    assert_eq!(call(&served, "pay"), "ok");
    let url = format!("http://{}", served.address());
    scene.refused(
        &["breaker", "open", "http/api.exmaple.com", "--url", &url],
        "there is no limit group `http/api.exmaple.com`",
    );
}
