//! What is not ours: it passes as it is.

use fanout_script::{Script, Server, ServerOptions};
use serde_json::{Value, json};

use super::scene::{Scene, history, request, said, turn, user};

#[tokio::test]
async fn without_tools_a_request_passes_byte_for_byte() {
    let body = r#"{ "messages":[{"content":"go", "role":"user"}], "max_tokens" : 9,"model":"claude-test","x":1.0 }"#;
    let server = || Server::start(ServerOptions::script(Script::new([turn("hello")]))).unwrap();
    let (bare, offered) = (server(), server());
    let (at_bare, at_offered) = (bare.base_url(), offered.base_url());
    for (scene, header) in [
        (Scene::before(bare, &at_bare, false), ("x-app", "1")),
        (Scene::before(offered, &at_offered, true), ("fanout-tools", "none")),
    ] {
        let got = scene.post("/v1/messages", &[header], body).await;
        assert!(got.text.contains("hello"), "{}", got.text);
        assert_eq!(scene.server.requests()[0].body, body.as_bytes());
    }
}

#[tokio::test]
async fn headers_cross_but_for_ours_and_those_of_the_connection() {
    let scene = Scene::open([turn("hello")]);
    let headers = [
        ("x-api-key", "sk-theirs"),
        ("anthropic-beta", "a-1"),
        ("anthropic-beta", "b-2"),
        ("x-unheard-of", "1"),
        ("fanout-max-cost", "1"),
        ("te", "trailers"),
        ("accept-encoding", "gzip"),
    ];
    scene.post("/v1/messages", &headers, request(false, &[user("go")]).to_string()).await.message();
    let asked = &scene.server.requests()[0];
    let beta: Vec<&str> =
        asked.headers.iter().filter(|(name, _)| name == "anthropic-beta").map(|(_, value)| value.as_str()).collect();
    assert_eq!(beta, ["a-1", "b-2"]);
    assert_eq!(asked.header("x-unheard-of"), Some("1"));
    assert_eq!(asked.header("anthropic-version"), Some("2023-06-01"));
    assert!(asked.header("x-api-key").is_some(), "without any other key the client's own goes on");
    assert!(asked.header("fanout-hop").unwrap().starts_with("1, "));
    for gone in ["fanout-max-cost", "te", "accept-encoding"] {
        assert_eq!(asked.header(gone), None, "{gone}");
    }
    let host = asked.header("host").unwrap();
    assert!(scene.server.base_url().ends_with(host), "{host}");
}

#[tokio::test]
async fn the_clients_upstream_key_wins() {
    let scene = Scene::serve(ServerOptions::script(Script::new([turn("hello")])).key("sk-mine"));
    let body = request(false, &[user("go")]).to_string();
    let headers = [("fanout-upstream-key", "sk-mine"), ("authorization", "Bearer sk-other")];
    scene.post("/v1/messages", &headers, body).await.message();
    assert_eq!(scene.server.requests()[0].header("fanout-upstream-key"), None);
}

#[tokio::test]
async fn other_paths_and_methods_pass() {
    let mut scene = Scene::open([turn("hello")]);
    scene.complaints = 3;
    let got = scene.post("/v1/files?x=1", &[("content-type", "text/plain")], "any bytes").await;
    assert_eq!((got.status, got.text.contains("Not found: /v1/files")), (404, true), "{}", got.text);
    for method in [reqwest::Method::GET, reqwest::Method::DELETE] {
        let url = format!("http://{}/v1/models/m", scene.address);
        let answer = scene.client.request(method, url).send().await.unwrap();
        assert_eq!(answer.status(), 404);
    }
    let asked = scene.server.requests();
    assert_eq!((asked[0].body.as_ref(), asked[0].path.as_str()), ("any bytes".as_bytes(), "/v1/files"));
    assert_eq!(asked[1].path, "/v1/models/m");
}

#[tokio::test]
async fn our_tools_are_counted_and_what_stands_behind_a_message_too() {
    let scene = Scene::open([turn("read r1"), turn("done")]);
    let got = scene.ask(&request(false, &[user("a")])).await.message();
    let mut body = request(false, &[user("a"), said(&got), user("b")]);
    body.as_object_mut().unwrap().remove("max_tokens");
    let got = scene.post("/v1/messages/count_tokens", &[], body.to_string()).await;
    assert_eq!(got.status, 200, "{}", got.text);
    let count: Value = serde_json::from_str(&got.text).unwrap();
    let asked = scene.asked().pop().unwrap();
    assert_eq!(history(&asked), ["a", "read r1", "=r1", "done", "b"]);
    assert_eq!(asked["tools"].as_array().unwrap().len(), 4);
    assert_eq!(asked["system"], json!("Be brief."));
    assert!(count["input_tokens"].as_u64().unwrap() > 100);
}
