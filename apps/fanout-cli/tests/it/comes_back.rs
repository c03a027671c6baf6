//! A client that sends its request again, as the SDKs do, after the gateway's process was killed and another serves: one run, one
//! effect.
#![cfg(unix)]

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::any;
use fanout_script::{Server, ServerOptions, Turn};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::process::{Served, read};

/// An API that writes down what it is asked, and holds back what it is told to.
#[derive(Clone)]
struct Ledger {
    seen: watch::Sender<Vec<String>>,
    held: Arc<Mutex<Option<&'static str>>>,
    is_let_go: watch::Sender<bool>,
}

async fn answer(State(ledger): State<Ledger>, uri: Uri) -> &'static str {
    let is_held = ledger.held.lock().unwrap().is_some_and(|held| uri.path().starts_with(held));
    ledger.seen.send_modify(|seen| seen.push(uri.path().to_owned()));
    if is_held {
        ledger.is_let_go.subscribe().wait_for(|is_let_go| *is_let_go).await.unwrap();
    }
    "{\"ok\":true}"
}

struct Scene {
    folder: TempDir,
    ledger: Ledger,
    claude: Server,
}

impl Scene {
    /// A gateway before a Claude who pays, looks, and is done. What the path begins with is held back.
    async fn open(held: &'static str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let held = (!held.is_empty()).then_some(held);
        let ledger = Ledger {
            seen: watch::Sender::default(),
            held: Arc::new(Mutex::new(held)),
            is_let_go: watch::Sender::default(),
        };
        let app = Router::new().fallback(any(answer)).with_state(ledger.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let claude = Server::start(ServerOptions::responder(|conversation| match conversation.assistant_turns() {
            0 if conversation.first_user_texts().next() == Some("ask me first") => {
                Turn::calls([("mine", json!({})), ("pay", json!({"id": "1"}))])
            }
            0 => Turn::calls([("pay", json!({"id": "1"}))]),
            1 => Turn::calls([("look", json!({"id": "2"}))]),
            _ => Turn::text("all is done"),
        }))
        .unwrap();
        let folder = TempDir::new().unwrap();
        let tool = |name: &str, method: &str| {
            format!(
                "[[tool]]\nname = \"{name}\"\ninput = {{ id = {{ type = \"string\" }} }}\n\
                 http = {{ method = \"{method}\", url = \"http://{address}/{name}/{{id}}\" }}\n"
            )
        };
        let model = format!("[model]\nbase_url = \"{}\"\napi_key = \"scripted\"\n", claude.base_url());
        let config = model + &tool("pay", "POST") + &tool("look", "GET");
        std::fs::write(folder.path().join("fanout.toml"), config).unwrap();
        Self { folder, ledger, claude }
    }

    fn serve(&self) -> Served {
        Served::start(self.folder.path(), &[("FANOUT_SERVER__LISTEN", "127.0.0.1:0")], &[])
    }

    /// The API answers what it held back.
    fn let_go(&self) {
        self.ledger.is_let_go.send_replace(true);
    }

    /// Waits until the API was asked for this.
    async fn asked(&self, path: &str) {
        let is_there = |seen: &Vec<String>| seen.iter().any(|known| known == path);
        self.ledger.seen.subscribe().wait_for(is_there).await.unwrap();
    }

    /// Waits until the journal has something like this.
    fn kept(&self, table: &str, like: &str) {
        let journal = rusqlite::Connection::open(self.folder.path().join(".fanout/fanout.db")).unwrap();
        let count = format!("select count(*) from {table} where text like ?");
        while journal.query_row(&count, [like], |row| row.get::<_, u32>(0)).unwrap() == 0 {}
    }

    /// What the API was asked for, and how many requests the model was sent.
    fn seen(&self) -> (String, usize) {
        assert_eq!(self.claude.violations().len(), 0, "{:?}", self.claude.violations());
        (self.ledger.seen.borrow().join(" "), self.claude.requests().len())
    }

    /// The result of this call, as the model was told.
    fn told(&self, at: usize) -> String {
        let request: Value = serde_json::from_slice(&self.claude.requests()[at].body).unwrap();
        request["messages"].as_array().unwrap().last().unwrap().to_string()
    }
}

fn body(stream: bool) -> String {
    let messages = json!([{"role": "user", "content": "go"}]);
    json!({"model": "claude-test", "max_tokens": 100, "stream": stream, "messages": messages}).to_string()
}

const AGAIN: (&str, &str) = ("x-stainless-retry-count", "1");
const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");

/// The text of an answer.
#[track_caller]
fn text((status, answer): (u16, String)) -> String {
    assert_eq!(status, 200, "{answer}");
    if answer.trim_start().starts_with('{') {
        let message: Value = serde_json::from_str(&answer).unwrap();
        return message["content"].as_array().unwrap().iter().filter_map(|block| block["text"].as_str()).collect();
    }
    for once in ["message_start", "message_delta", "message_stop"] {
        assert_eq!(answer.matches(&format!("event: {once}\n")).count(), 1, "{once}: {answer}");
    }
    let data = answer.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    data.filter_map(|event| event["delta"]["text"].as_str().map(str::to_owned)).collect()
}

/// Kills the gateway while `held` is held back, and asks again. What the API and the model then saw, and what the model was told
/// of the call.
async fn killed(held: &'static str, at: &str, stream: bool, key: Option<&str>) -> (String, usize, String) {
    let scene = Scene::open(held).await;
    let first = scene.serve();
    let mut headers = vec![VERSION];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    let _answer = first.begin("POST", "/v1/messages", &headers, &body(stream));
    scene.asked(at).await;
    // Reads begin before the message that asks for them is whole: one that is not kept is asked for again, and rightly.
    scene.kept("fanout_event", &format!("%\"appended\"%{}%", at.split('/').nth(1).unwrap()));
    first.stop(Signal::KILL);
    *scene.ledger.held.lock().unwrap() = None;
    let second = scene.serve();
    if key.is_none() {
        headers.push(AGAIN);
    }
    let answer = second.begin("POST", "/v1/messages", &headers, &body(stream));
    let answer = tokio::task::spawn_blocking(move || read(&mut { answer })).await.unwrap();
    assert_eq!(text(answer), "all is done");
    let (seen, asked) = scene.seen();
    (seen, asked, scene.told(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_pays_it_does_not_pay_again() {
    for (stream, key) in [(false, None), (true, None), (false, Some("order-1"))] {
        let (seen, asked, told) = killed("/pay", "/pay/1", stream, key).await;
        assert_eq!((seen.as_str(), asked), ("/pay/1 /look/2", 3), "{stream}");
        assert!(told.contains("outcome_unknown"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_it_paid_it_goes_on_from_there() {
    for stream in [false, true] {
        let (seen, asked, told) = killed("/look", "/look/2", stream, None).await;
        // The model is asked nothing twice: what it said is in the journal.
        assert_eq!((seen.as_str(), asked), ("/pay/1 /look/2 /look/2", 3), "{stream}");
        assert!(told.contains("ok") && !told.contains("is_error"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_it_answered_it_answers_the_same() {
    let scene = Scene::open("").await;
    let first = scene.serve();
    let answered = first.send("POST", "/v1/messages", &[VERSION], &body(false));
    scene.kept("fanout_memo", "%\"answer\":{%");
    first.stop(Signal::KILL);
    let second = scene.serve();
    let again = second.send("POST", "/v1/messages", &[VERSION, AGAIN], &body(false));
    assert_eq!(again, answered);
    assert_eq!(scene.seen(), ("/pay/1 /look/2".to_owned(), 3));
    // Another caller, and another body, are other requests.
    let (status, other) = second.send("POST", "/v1/messages", &[VERSION, AGAIN], &body(true));
    assert_eq!((status, scene.seen().1), (200, 6), "{other}");
}

/// Asks a gateway something that it and the client must do together. Gives the request that answers the client's part.
#[track_caller]
fn handed_over(gateway: &Served) -> String {
    let question = json!({"role": "user", "content": "ask me first"});
    let body = |messages: Value| {
        let tools = json!([{"name": "mine", "input_schema": {"type": "object"}}]);
        json!({"model": "claude-test", "max_tokens": 100, "tools": tools, "messages": messages}).to_string()
    };
    let (status, answer) = gateway.send("POST", "/v1/messages", &[VERSION], &body(json!([question])));
    assert_eq!(status, 200, "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["content"].as_array().unwrap().len(), 1, "{answer}");
    let result = json!({"type": "tool_result", "tool_use_id": answer["content"][0]["id"], "content": "go on"});
    let said = json!({"role": "assistant", "content": answer["content"]});
    body(json!([question, said, {"role": "user", "content": [result]}]))
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_does_what_waited_for_the_client_it_does_not_do_it_again() {
    let scene = Scene::open("/pay").await;
    let first = scene.serve();
    let second = handed_over(&first);
    assert_eq!(scene.seen().0, "", "the payment waits");
    let _answer = first.begin("POST", "/v1/messages", &[VERSION], &second);
    scene.asked("/pay/1").await;
    first.stop(Signal::KILL);
    *scene.ledger.held.lock().unwrap() = None;
    // As a repetition, and as a request that does not say that it is one.
    for headers in [&[VERSION, AGAIN][..], &[VERSION]] {
        let gateway = scene.serve();
        assert_eq!(text(gateway.send("POST", "/v1/messages", headers, &second)), "all is done");
        gateway.stop(Signal::KILL);
    }
    assert_eq!(scene.seen().0.matches("/pay/1").count(), 1);
    let told = scene.told(1);
    assert!(told.contains("outcome_unknown") && told.contains("go on"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_did_for_the_client_another_does_not_do_again() {
    let scene = Scene::open("").await;
    let (one, other) = (scene.serve(), scene.serve());
    let second = handed_over(&one);
    for gateway in [&other, &one, &other] {
        assert_eq!(text(gateway.send("POST", "/v1/messages", &[VERSION], &second)), "all is done");
    }
    assert_eq!(scene.seen().0.matches("/pay/1").count(), 1);
    let told = scene.told(3);
    assert!(told.contains("ok") && !told.contains("is_error"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_can_know_what_was_done_nothing_is_done() {
    let scene = Scene::open("/pay").await;
    let first = scene.serve();
    let second = handed_over(&first);
    let _answer = first.begin("POST", "/v1/messages", &[VERSION], &second);
    scene.asked("/pay/1").await;
    first.stop(Signal::KILL);
    *scene.ledger.held.lock().unwrap() = None;
    let gateway = scene.serve();
    let journal = rusqlite::Connection::open(scene.folder.path().join(".fanout/fanout.db")).unwrap();
    for table in ["fanout_memo_key", "fanout_event"] {
        journal.execute_batch(&format!("alter table {table} rename to away")).unwrap();
        let (status, answer) = gateway.send("POST", "/v1/messages", &[VERSION], &second);
        assert!(status == 503 && answer.contains("\"store\""), "{table}: {status} {answer}");
        journal.execute_batch(&format!("alter table away rename to {table}")).unwrap();
    }
    assert_eq!(text(gateway.send("POST", "/v1/messages", &[VERSION], &second)), "all is done");
    assert_eq!(scene.seen().0.matches("/pay/1").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_handed_over_again_under_their_key_after_a_kill_run_once() {
    let scene = Scene::open("/pay/1").await;
    let first = scene.serve();
    let call = |id: &str| json!({"type": "tool_use", "id": format!("t{id}"), "name": "pay", "input": {"id": id}});
    let look = json!({"type": "tool_use", "id": "t3", "name": "look", "input": {"id": "3"}});
    let body = json!({"content": [call("2"), call("1"), look]}).to_string();
    let headers = [("idempotency-key", "k1")];
    let _answer = first.begin("POST", "/fanout/v1/tool_calls", &headers, &body);
    scene.asked("/pay/1").await;
    first.stop(Signal::KILL);
    *scene.ledger.held.lock().unwrap() = None;
    let mut answers = Vec::new();
    for _ in 0..2 {
        let gateway = scene.serve();
        answers.push(gateway.send("POST", "/fanout/v1/tool_calls", &headers, &body));
        let (status, error) = gateway.send("POST", "/fanout/v1/tool_calls", &headers, &format!("{body} "));
        assert!(status == 409 && error.contains("idempotency_key_reused"), "{error}");
        gateway.stop(Signal::KILL);
    }
    assert_eq!(answers[0], answers[1]);
    let (status, answer) = &answers[0];
    assert_eq!(*status, 200, "{answer}");
    let results: Value = serde_json::from_str(answer).unwrap();
    let is_error: Vec<bool> =
        results["content"].as_array().unwrap().iter().map(|result| result["is_error"] == true).collect();
    assert_eq!(is_error, [false, true, false], "{answer}");
    assert!(answer.contains("outcome_unknown"), "{answer}");
    assert_eq!(scene.seen().0, "/pay/2 /pay/1 /look/3");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_one_process_answers_another_waits_for_its_answer() {
    let scene = Scene::open("/pay").await;
    let (first, second) = (scene.serve(), scene.serve());
    let one = first.begin("POST", "/v1/messages", &[VERSION], &body(false));
    scene.asked("/pay/1").await;
    let other = second.begin("POST", "/v1/messages", &[VERSION, AGAIN], &body(false));
    let (mut one, mut other) = (one, other);
    let other = tokio::task::spawn_blocking(move || read(&mut other));
    // It has looked before, or looks when there is an answer: it is the same.
    scene.let_go();
    let one = tokio::task::spawn_blocking(move || read(&mut one)).await.unwrap();
    assert_eq!(other.await.unwrap(), one);
    assert_eq!((text(one).as_str(), scene.seen()), ("all is done", ("/pay/1 /look/2".to_owned(), 3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_that_are_asked_again_after_a_kill_one_goes_on() {
    let scene = Scene::open("/pay").await;
    let first = scene.serve();
    let _answer = first.begin("POST", "/v1/messages", &[VERSION], &body(false));
    scene.asked("/pay/1").await;
    let others = [scene.serve(), scene.serve()];
    first.stop(Signal::KILL);
    // Who serves already takes over within a lease.
    let next = scene.serve();
    let again = |gateway: &Served| {
        let mut answer = gateway.begin("POST", "/v1/messages", &[VERSION, AGAIN], &body(false));
        tokio::task::spawn_blocking(move || text(read(&mut answer)))
    };
    let answers = [again(&others[0]), again(&others[1]), again(&next)];
    for answer in answers {
        assert_eq!(answer.await.unwrap(), "all is done");
    }
    assert_eq!(scene.seen().0.matches("/pay/1").count(), 1);
}
