//! A gateway that is told to stop: what is under way comes to its end, nothing more begins, and the next one goes on.
#![cfg(unix)]

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::any;
use fanout_script::{Server, ServerOptions, Turn};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::process::{Served, run};

/// An API that writes down what it is asked, and answers as often as it is let: for the first thing, and for the second.
#[derive(Clone)]
struct Api {
    seen: Arc<Mutex<Vec<String>>>,
    answers: Arc<[Semaphore; 2]>,
}

async fn answer(State(api): State<Api>, uri: Uri) -> &'static str {
    api.seen.lock().unwrap().push(uri.path().to_owned());
    api.answers[usize::from(uri.path() == "/pay/2")].acquire().await.unwrap().forget();
    "{\"ok\":true}"
}

impl Api {
    async fn seen(&self, count: usize) -> Vec<String> {
        loop {
            let seen = self.seen.lock().unwrap().clone();
            if seen.len() >= count {
                return seen;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_ends_and_nothing_more_begins_until_the_next_process() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let api = Api { seen: Arc::default(), answers: Arc::new([Semaphore::new(0), Semaphore::new(0)]) };
    let app = Router::new().fallback(any(answer)).with_state(api.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let claude = Server::start(ServerOptions::responder(|conversation| match conversation.assistant_turns() {
        0 => Turn::calls([("pay", json!({"id": "1"})), ("pay", json!({"id": "1"})), ("pay", json!({"id": "2"}))]),
        _ => Turn::text("all is done"),
    }))
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[model]\nbase_url = \"{}\"\napi_key = \"scripted\"\n[[tool]]\nname = \"pay\"\ninput = {{ id = {{ type = \"string\" }} }}\n\
         http = {{ method = \"POST\", url = \"http://{address}/pay/{{id}}\" }}\nwrites = [\"pay/{{id}}\"]\n",
        claude.base_url()
    );
    std::fs::write(folder.path().join("fanout.toml"), config).unwrap();
    let serve = || Served::start(folder.path(), &[("FANOUT_SERVER__LISTEN", "127.0.0.1:0")], &[]);
    let first = serve();
    let (status, body) = first.send("POST", "/fanout/v1/runs", &[], &json!({"prompt": "go"}).to_string());
    assert_eq!(status, 202, "{body}");
    let accepted: Value = serde_json::from_str(&body).unwrap();
    let id = accepted["id"].as_str().unwrap().to_owned();
    // Two calls are under way, and the third waits for the first of them.
    api.seen(2).await;
    first.signal(rustix::process::Signal::TERM);
    first.logged("nothing more begins in the background");
    // The first ends while the other goes on, so that the third could begin.
    api.answers[0].add_permits(10);
    while !String::from_utf8(run(folder.path(), &[], &["runs", "show", &id, "--json"]).stdout)
        .unwrap()
        .contains("call_ended")
    {}
    api.answers[1].add_permits(10);
    let stopped = tokio::task::spawn_blocking(move || first.ended()).await.unwrap();
    assert_eq!(stopped, Some(0));
    assert_eq!(api.seen.lock().unwrap().len(), 2, "nothing more began");

    let next = serve();
    let state = loop {
        let (_, body) = next.send("GET", &format!("/fanout/v1/runs/{id}"), &[], "");
        let run: Value = serde_json::from_str(&body).unwrap();
        if run["state"] != "running" {
            break run["state"].clone();
        }
    };
    assert_eq!(state, "done");
    assert_eq!(api.seen.lock().unwrap().len(), 3, "each once");
    let last: Value = serde_json::from_slice(&claude.requests().last().unwrap().body).unwrap();
    let results = last["messages"][2]["content"].as_array().unwrap();
    assert!(results.iter().all(|result| result["is_error"] != true), "{results:?}");
    assert_eq!((results.len(), claude.violations().len()), (3, 0));
}
