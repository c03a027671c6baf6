//! Many conversations at once.

use std::sync::Arc;

use fanout_script::ServerOptions;

use crate::wire::{Desk, content_of, results, user};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_conversations_with_one_prompt_do_not_mix() {
    let desk = Arc::new(Desk::open(ServerOptions::default()));
    let prompt = user(r#"{"turns":[[{"name":"look"},{"name":"look"}],[{"name":"look"}]]}"#);
    let mut talks = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let (desk, mut history) = (Arc::clone(&desk), prompt.clone());
        talks.spawn(async move {
            for turn in 0..3 {
                let answer = desk.ask(&format!("[{history}]"), false).await;
                assert_eq!(answer.status, 200, "turn {turn}: {}", answer.text());
                let message = answer.json();
                let blocks = message["content"].as_array().unwrap().iter();
                let ids: Vec<&str> = blocks.filter_map(|block| block["id"].as_str()).collect();
                assert_eq!(ids.len(), 2 - turn);
                let said = content_of(&answer.text());
                history = format!(r#"{history},{{"role":"assistant","content":{said}}},{}"#, results(&ids));
            }
        });
    }
    while let Some(talk) = talks.join_next().await {
        talk.unwrap();
    }
    assert_eq!(desk.server.violations(), []);
    assert_eq!(desk.server.requests().len(), 1500);
}

#[tokio::test]
async fn a_stopped_server_closes_its_port() {
    let Desk { server, .. } = Desk::open(ServerOptions::default());
    let address = server.address();
    server.stop().await;
    let error = tokio::net::TcpStream::connect(address).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}
