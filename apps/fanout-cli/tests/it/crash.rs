//! A process that is killed at every event of its journal, and at any moment: nothing is lost, nothing happens twice.
//!
//! Several runs work at once on the same things of the outside world: an API that writes down what it is asked, and a
//! database. The process that has them is killed (SIGKILL) and started again until all runs are over. Then what the model was
//! told is held against what the world saw.
#![cfg(unix)]

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::routing::any;
use fanout_script::{Server, ServerOptions, Turn};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::fanout;

/// So many runs at once.
const RUNS: usize = 4;

/// More events than a workload has.
const EVENTS: u64 = 400;

/// One request as the world saw it.
#[derive(Clone, Debug)]
struct Seen {
    kind: String,
    /// The idempotency key: which run's which call.
    key: String,
}

/// The outside world, and the model.
struct World {
    folder: TempDir,
    seen: Arc<Mutex<Vec<Seen>>>,
    claude: Server,
}

impl World {
    async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let app = Router::new().fallback(any(answer)).with_state(Arc::clone(&seen));
        tokio::spawn(async move { axum::serve(listener, app).await });
        let claude = Server::start(ServerOptions::responder(|conversation| {
            let run = conversation.first_user_texts().next().unwrap_or_default().to_owned();
            turn(&run, conversation.assistant_turns())
        }))
        .unwrap();
        let folder = TempDir::new().unwrap();
        let shop = rusqlite::Connection::open(folder.path().join("shop.db")).unwrap();
        let schema =
            "create table stock (sku text primary key, n integer not null); insert into stock values ('s', 0);";
        shop.execute_batch(schema).unwrap();
        // A table of ours beside the journal's: what is done to it and what came of it are kept as one.
        std::fs::create_dir(folder.path().join(".fanout")).unwrap();
        let own = rusqlite::Connection::open(folder.path().join(".fanout/fanout.db")).unwrap();
        let schema =
            "create table counted (id integer primary key, total integer not null); insert into counted values (1, 0);";
        own.execute_batch(schema).unwrap();
        let config = format!(
            r#"[model]
base_url = "{claude}"
api_key = "scripted"

[[tool]]
name = "read"
input = {{ k = {{ type = "string" }} }}
http = {{ method = "GET", url = "http://{address}/read/{{k}}" }}
reads = ["item/{{k}}"]
writes = []

[[tool]]
name = "pay"
input = {{ id = {{ type = "string" }} }}
http = {{ method = "POST", url = "http://{address}/pay/{{id}}" }}
writes = ["pay/{{id}}"]
approval = "always"

[[tool]]
name = "set"
input = {{ k = {{ type = "string" }}, v = {{ type = "string" }} }}
http = {{ method = "PUT", url = "http://{address}/set/{{k}}" }}
writes = ["item/{{k}}"]
idempotent = true

[[tool]]
name = "bump"
input = {{ sku = {{ type = "string" }} }}
sql = {{ database = "shop", statement = "update stock set n = n + 1 where sku = :sku returning n", expect_rows = 1 }}

[[tool]]
name = "add"
input = {{ id = {{ type = "integer" }} }}
sql = {{ database = "own", statement = "update counted set total = total + 1 where id = :id returning total", expect_rows = 1 }}

[database.shop]
url = "sqlite://shop.db"

[database.own]
url = "sqlite://.fanout/fanout.db"
"#,
            claude = claude.base_url(),
        );
        std::fs::write(folder.path().join("fanout.toml"), config).unwrap();
        Self { folder, seen, claude }
    }

    /// How often the stock was raised.
    fn stock(&self) -> i64 {
        let shop = rusqlite::Connection::open(self.folder.path().join("shop.db")).unwrap();
        shop.query_row("select n from stock", [], |row| row.get(0)).unwrap()
    }
}

impl World {
    /// How often what stands beside the journal was raised.
    fn counted(&self) -> i64 {
        let own = rusqlite::Connection::open(self.folder.path().join(".fanout/fanout.db")).unwrap();
        own.query_row("select total from counted", [], |row| row.get(0)).unwrap()
    }
}

async fn answer(State(seen): State<Arc<Mutex<Vec<Seen>>>>, uri: Uri, headers: HeaderMap) -> String {
    let kind = uri.path().split('/').nth(1).unwrap_or_default().to_owned();
    let key = headers.get("idempotency-key").map_or("", |key| key.to_str().unwrap()).to_owned();
    seen.lock().unwrap().push(Seen { kind, key });
    tokio::time::sleep(Duration::from_millis(2)).await;
    "{\"ok\":true}".to_owned()
}

/// What the model says: two turns of calls that touch what the other runs touch, then a word.
fn turn(run: &str, turns: usize) -> Turn {
    let call = |name, input| (name, input);
    match turns {
        0 => Turn::calls([
            call("read", json!({"k": "a"})),
            call("pay", json!({"id": format!("{run}-0")})),
            call("set", json!({"k": "a", "v": format!("{run}-0")})),
            call("bump", json!({"sku": "s"})),
            call("add", json!({"id": 1})),
        ]),
        1 => Turn::calls([
            call("add", json!({"id": 1})),
            call("set", json!({"k": "a", "v": format!("{run}-1")})),
            call("read", json!({"k": "a"})),
            call("bump", json!({"sku": "s"})),
            call("pay", json!({"id": format!("{run}-1")})),
        ]),
        _ => Turn::text("all is done"),
    }
}

/// `fanout serve`, which may die at any time.
struct Process {
    child: Child,
    address: Option<String>,
}

impl Process {
    fn start(folder: &Path, kill_after: Option<u64>) -> Self {
        let kill_after = kill_after.map(|count| count.to_string());
        let mut variables = vec![("FANOUT_SERVER__LISTEN", "127.0.0.1:0"), ("FANOUT_WORKER__CONCURRENCY", "8")];
        variables.extend(kill_after.as_deref().map(|count| ("FANOUT_TEST_KILL_AFTER", count)));
        let mut child = fanout(folder, &variables, &["serve"])
            .stdout(Stdio::piped())
            .stderr(Stdio::from(std::fs::File::create(folder.join("log")).unwrap()))
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let address = line.trim().rsplit_once("http://").map(|(_, address)| address.to_owned());
        std::thread::spawn(move || out.read_to_string(&mut String::new()));
        Self { child, address }
    }

    /// Answers nothing where the process died first.
    fn ask(&self, method: &str, path: &str, body: &str) -> Option<Value> {
        use std::io::Write;
        let address = self.address.as_ref()?;
        let mut stream = std::net::TcpStream::connect(address).ok()?;
        let length = body.len();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    }

    fn is_dead(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    fn runs(&self) -> Option<Vec<Value>> {
        Some(self.ask("GET", "/fanout/v1/runs?limit=100", "")?["data"].as_array()?.clone())
    }

    /// A person agrees to all that waits for one.
    fn agree(&self) -> Option<()> {
        let open = self.ask("GET", "/fanout/v1/approvals?state=open&limit=100", "")?;
        for approval in open["data"].as_array()? {
            let path = format!("/fanout/v1/approvals/{}", approval["id"].as_str()?);
            self.ask("POST", &path, &json!({"decision": "approve", "words": "go on"}).to_string());
        }
        Some(())
    }

    /// Waits until every run is over, or the process dead; people agree meanwhile. Answers whether they are.
    fn until_over(&mut self) -> bool {
        loop {
            let open = |run: &Value| ["queued", "running"].contains(&run["state"].as_str().unwrap());
            match self.runs() {
                Some(runs) if !runs.iter().any(open) => return true,
                _ if self.is_dead() => return false,
                _ => {
                    self.agree();
                    pause(Duration::from_millis(5));
                }
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own waits for another process")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// When a process is killed.
#[derive(Clone, Copy, Debug)]
enum Kill {
    /// Once so many events are kept.
    Event(u64),
    /// So long after its work began.
    After(Duration),
}

/// One workload whose first processes are killed; the last may end it. Answers how often one died at an event.
async fn check(kills: Vec<Kill>) -> usize {
    let world = World::open().await;
    let (folder, label) = (world.folder.path().to_owned(), format!("{kills:?}"));
    let told = label.clone();
    let (runs, died) = tokio::task::spawn_blocking(move || play(&folder, &kills, &told)).await.unwrap();
    assert!(world.claude.violations().is_empty(), "{label}: {:?}", world.claude.violations());
    judge(&world, &runs, &label);
    died
}

/// Answers all runs by their id, with their prompts. One whose acceptance nobody heard of may be among them.
/// Second, how often a process died at an event.
fn play(folder: &Path, kills: &[Kill], label: &str) -> (BTreeMap<String, String>, usize) {
    let event = |kill: &Kill| if let Kill::Event(count) = kill { Some(*count) } else { None };
    let (mut accepted, mut all, mut died) = (Vec::new(), BTreeMap::new(), 0);
    let mut is_submitted = false;
    for kill in kills.iter().map(Some).chain([None]) {
        let mut process = Process::start(folder, kill.and_then(event));
        if !is_submitted {
            is_submitted = true;
            for run in 0..RUNS {
                let prompt = format!("run-{run}");
                let body = json!({"prompt": prompt}).to_string();
                if let Some(answer) = process.ask("POST", "/fanout/v1/runs", &body) {
                    accepted.push(answer["id"].as_str().unwrap().to_owned());
                }
            }
        }
        match kill {
            Some(Kill::After(wait)) => pause(*wait),
            Some(Kill::Event(_)) => {
                died += usize::from(!process.until_over());
            }
            None => {
                assert!(process.until_over(), "{label}: it ended by itself");
                let runs = process.runs().unwrap();
                for known in &runs {
                    let log = || std::fs::read_to_string(folder.join("log")).unwrap();
                    assert_eq!(known["state"], "done", "{label}: {known}\n{}", log());
                    let text = |name: &str| known[name].as_str().unwrap().to_owned();
                    all.insert(text("id"), text("title"));
                }
                assert!(accepted.iter().all(|run| all.contains_key(run)), "{label}: of {accepted:?} there are {all:?}");
            }
        }
    }
    (all, died)
}

/// What the model was told of one call.
struct Result {
    tool: String,
    is_error: bool,
    text: String,
}

/// Holds what the model was told against what the world saw.
fn judge(world: &World, runs: &BTreeMap<String, String>, label: &str) {
    let seen = world.seen.lock().unwrap().clone();
    let (mut bumped, mut added) = ((0, 0), 0);
    for (run, prompt) in runs {
        let results = results_of(world, prompt);
        assert_eq!(results.len(), 10, "{label}: {run}");
        for (call, result) in &results {
            let key = format!("{run}/{call}");
            let times = seen.iter().filter(|seen| seen.key == key).count();
            let is_unknown = result.is_error && result.text.contains("outcome_unknown");
            assert!(!result.is_error || is_unknown, "{label}: {call}: {}", result.text);
            match result.tool.as_str() {
                "pay" if is_unknown => assert!(times <= 1, "{label}: {key} was sent {times} times"),
                "pay" => {
                    assert_eq!(times, 1, "{label}: {key}");
                    assert!(result.text.contains("the reviewer says: go on"), "{label}: {key}: {}", result.text);
                }
                "set" => assert!(times >= 1 && !is_unknown, "{label}: {key}"),
                "bump" if is_unknown => bumped.1 += 1,
                "bump" => bumped.0 += 1,
                "add" => {
                    assert!(!is_unknown, "{label}: {key} is unknown, and its row would say");
                    added += 1;
                }
                _ => assert!(!is_unknown, "{label}: a read is unknown"),
            }
        }
        // What was set later was set after all that was set before, however often.
        let place = |call: &str, last: bool| {
            let mut places = seen.iter().enumerate().filter(|(_, seen)| seen.key == format!("{run}/{call}"));
            if last { places.next_back() } else { places.next() }.map(|(at, _)| at)
        };
        let sets: Vec<&String> =
            results.iter().filter(|(_, result)| result.tool == "set").map(|(call, _)| call).collect();
        assert!(place(sets[0], true) < place(sets[1], false), "{label}: {run}: order");
    }
    let stock = world.stock();
    assert!((bumped.0..=bumped.0 + bumped.1).contains(&stock), "{label}: {stock} of {bumped:?}");
    assert_eq!(world.counted(), added, "{label}: exactly once");
    // Nothing happened that nobody was told of.
    let strangers = seen.iter().filter(|seen| seen.kind == "pay" && !runs.keys().any(|run| seen.key.starts_with(run)));
    assert_eq!(strangers.count(), 0, "{label}");
}

/// The results in the last request of a run, in order, by the ids of their calls.
fn results_of(world: &World, prompt: &str) -> Vec<(String, Result)> {
    let bodies = world
        .claude
        .requests()
        .into_iter()
        .rev()
        .map(|request| serde_json::from_slice::<Value>(&request.body).unwrap());
    let is_last = |body: &Value| {
        body["messages"].as_array().unwrap().len() == 5 && body["messages"][0].to_string().contains(prompt)
    };
    let body = bodies.into_iter().find(is_last).unwrap_or_else(|| panic!("{prompt} never came to its end"));
    let mut tools: HashMap<String, String> = HashMap::new();
    let mut results = Vec::new();
    for block in
        body["messages"].as_array().unwrap().iter().filter_map(|message| message["content"].as_array()).flatten()
    {
        let text = |name: &str| block[name].as_str().unwrap_or_default().to_owned();
        match block["type"].as_str().unwrap() {
            "tool_use" => {
                tools.insert(text("id"), text("name"));
            }
            "tool_result" => {
                let id = text("tool_use_id");
                let is_error = block["is_error"].as_bool().unwrap_or_default();
                results.push((
                    id.clone(),
                    Result { tool: tools[&id].clone(), is_error, text: block["content"].to_string() },
                ));
            }
            _ => {}
        }
    }
    results
}

/// Every fourth event from this one on, so that four tests have them all.
async fn at_every_fourth_event(first: u64) {
    let mut died = 0;
    for at in (first..EVENTS).step_by(4) {
        // Now and then the next process is killed too, while it recovers or soon after.
        let again = (at % 3 == 0).then_some(Kill::Event(1 + at % 37));
        died += check([Kill::Event(at)].into_iter().chain(again).collect()).await;
    }
    assert!(died >= 75, "only {died} processes died: the workload has fewer events than it should");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_at_an_event_loses_nothing_and_repeats_nothing_1() {
    at_every_fourth_event(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_at_an_event_loses_nothing_and_repeats_nothing_2() {
    at_every_fourth_event(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_at_an_event_loses_nothing_and_repeats_nothing_3() {
    at_every_fourth_event(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_at_an_event_loses_nothing_and_repeats_nothing_4() {
    at_every_fourth_event(4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_at_any_moment_loses_nothing_and_repeats_nothing() {
    let rounds = std::env::var("FANOUT_KILLS").map_or(25, |count| count.parse().unwrap());
    for round in 0..rounds {
        // Spread over the whole of a workload, and over each of its moments.
        let wait = |factor: u64| Kill::After(Duration::from_micros(round * factor % 90_000));
        check(vec![wait(3_617), wait(7_919)]).await;
    }
}
