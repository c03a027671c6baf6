//! A request that comes again, and a client that goes away.

use serde_json::Value;

use super::scene::{Got, Scene, request, told, turn, user};

fn body() -> String {
    request(true, &[user("go")]).to_string()
}

async fn once(scene: &Scene, headers: &[(&str, &str)], body: String) -> Got {
    scene.post("/v1/messages", headers, body).await
}

const AGAIN: (&str, &str) = ("x-stainless-retry-count", "1");

#[tokio::test]
async fn a_repeated_request_joins_the_run_that_it_began() {
    for headers in [[AGAIN], [("idempotency-key", "k")]] {
        let scene = Scene::open([turn("look, pay p1"), turn("done")]);
        let first = scene.request("/v1/messages", &headers[..headers.len() - usize::from(headers[0] == AGAIN)], body());
        let first = first.send().await.unwrap();
        scene.log.started("pay p1").await;
        let (second, ()) = tokio::join!(once(&scene, &headers, body()), async { scene.log.open_gate() });
        let first = first.text().await.unwrap();
        assert!(first.contains("done") && second.text.contains("done"), "{first} {}", second.text);
        let third = once(&scene, &headers, body()).await;
        assert_eq!(told(&third.message()["content"]), "look, done");
        assert_eq!(third.text, second.text);
        assert_eq!(scene.log.done(), "pay p1");
        assert_eq!(scene.asked().len(), 2);
    }
}

#[tokio::test]
async fn equal_requests_that_are_no_repetitions_are_two_runs() {
    let scene = Scene::open([turn("write w1"), turn("done")]);
    for _ in 0..2 {
        once(&scene, &[("x-stainless-retry-count", "0")], body()).await.message();
    }
    assert_eq!(scene.log.done(), "write w1, write w1");
}

#[tokio::test]
async fn a_key_with_another_body_is_refused() {
    let scene = Scene::open([turn("done"), turn("done")]);
    once(&scene, &[("idempotency-key", "k")], body()).await.message();
    let got = once(&scene, &[("idempotency-key", "k")], request(true, &[user("other")]).to_string()).await;
    let error: Value = serde_json::from_str(&got.text).unwrap();
    assert_eq!((got.status, error["error"]["details"]["error_code"].as_str()), (409, Some("idempotency_key_reused")));
}

#[tokio::test]
async fn a_failed_request_that_did_nothing_is_begun_anew() {
    let scene = Scene::open([turn("done").fault(fanout_script::Fault::overloaded())]);
    assert_eq!(once(&scene, &[("idempotency-key", "k")], body()).await.status, 529);
    let got = once(&scene, &[("idempotency-key", "k"), AGAIN], body()).await;
    assert_eq!(told(&got.message()["content"]), "done");
}

#[tokio::test]
async fn a_client_that_goes_away_stops_its_reads() {
    let scene = Scene::open([turn("peek p1"), turn("done")]);
    let answer = scene.request("/v1/messages", &[], body()).send().await.unwrap();
    scene.log.started("peek p1").await;
    drop(answer);
    scene.log.nobody_is_alive().await;
    assert_eq!(scene.log.done(), "");
    assert_eq!(scene.asked().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_done_twice_goes_on_and_waits_for_its_client() {
    let scene = Scene::open([turn("look, pay p1"), turn("done")]);
    let answer = scene.request("/v1/messages", &[], body()).send().await.unwrap();
    scene.log.started("pay p1").await;
    drop(answer);
    // Longer than the grace of this gateway: nothing is there to be waited for.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    scene.log.open_gate();
    scene.log.nobody_is_alive().await;
    assert_eq!(scene.log.done(), "pay p1");
    let got = once(&scene, &[AGAIN], body()).await;
    assert_eq!(told(&got.message()["content"]), "look, done");
    assert_eq!(scene.log.done(), "pay p1");
    assert_eq!(scene.asked().len(), 2);
}

#[tokio::test]
async fn a_client_that_comes_back_within_the_grace_finds_its_run() {
    let scene = Scene::open([turn("look, peek p1"), turn("done")]);
    let answer = scene.request("/v1/messages", &[], body()).send().await.unwrap();
    scene.log.started("peek p1").await;
    let (got, ()) = tokio::join!(once(&scene, &[AGAIN], body()), async {
        drop(answer);
        scene.log.open_gate();
    });
    assert_eq!(told(&got.message()["content"]), "look, done");
    assert_eq!(scene.log.done(), "peek p1");
}
