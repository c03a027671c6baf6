//! What was returned stands for the same after a restart.

use fanout_script::Fault;
use serde_json::json;

use super::scene::{Scene, history, request, results, said, told, turn, user, with_mine};

#[tokio::test]
async fn a_chat_goes_on_after_a_restart_with_all_that_was_hidden() {
    let turns = || [turn("think, look, read r1"), turn("think, one"), turn("two")];
    let mut asked = Vec::new();
    for is_restarted in [false, true] {
        let mut scene = Scene::open(turns()).kept().await;
        let got = scene.ask(&request(false, &[user("a")])).await.message();
        if is_restarted {
            scene.restart().await;
        }
        let messages = [user("a"), said(&got), user("b")];
        scene.ask(&request(false, &messages)).await.message();
        asked.push(scene.server.requests()[2].body.clone());
    }
    assert_eq!(asked[0], asked[1], "byte for byte");
}

#[tokio::test]
async fn what_waits_for_the_client_runs_once_after_restarts() {
    let turns = [turn("look, read y, mine m1, write x"), turn("done")];
    let mut scene = Scene::open(turns).kept().await;
    let mut messages = vec![user("go")];
    let got = scene.ask(&with_mine(request(true, &messages))).await.message();
    assert_eq!((told(&got["content"]).as_str(), scene.log.done().as_str()), ("look, mine m1", "read y"));
    scene.restart().await;
    messages.extend([said(&got), results(&["m1"])]);
    let body = with_mine(request(false, &messages));
    assert_eq!(told(&scene.ask(&body).await.message()["content"]), "done");
    assert_eq!(*scene.log.done.lock().unwrap(), ["read y", "write x"]);
    scene.restart().await;
    // A client that goes back to this point gets what there was, and nothing runs again.
    assert_eq!(told(&scene.ask(&body).await.message()["content"]), "done");
    assert_eq!(*scene.log.done.lock().unwrap(), ["read y", "write x"]);
    let asked = scene.asked();
    assert_eq!(history(&asked[1]), ["go", "look, read y, mine m1, write x", "=y, =m1, =x"]);
    assert_eq!(asked[1]["messages"], asked[2]["messages"]);
}

#[tokio::test]
async fn a_thread_goes_on_after_a_restart() {
    let turns = [turn("read r1, mine m1"), turn("one"), turn("two")];
    let mut scene = Scene::open(turns).with_threads().kept().await;
    let mut body = with_mine(request(false, &[user("a")]));
    body["thread"] = json!({"type": "create"});
    let mut last = scene.ask(&body).await.message();
    for (message, want) in [(results(&["m1"]), "one"), (user("b"), "two")] {
        scene.restart().await;
        let mut body = request(false, &[message]);
        body.as_object_mut().unwrap().remove("system");
        body["thread"] = json!({"type": "continue", "previous_message_id": last["id"]});
        last = scene.ask(&body).await.message();
        assert_eq!(told(&last["content"]), want);
    }
    assert_eq!(told(&scene.asked()[1]["messages"][0]["content"]), "=r1, =m1");
}

#[tokio::test]
async fn what_stands_behind_a_message_is_its_callers_alone_after_a_restart() {
    let mut scene = Scene::open([turn("read r1"), turn("one"), turn("two")]).kept().await;
    let (ann, bob) = (scene.key_of("support"), scene.key_of("support"));
    let (ann, bob) = ([("x-api-key", ann.as_str())], [("x-api-key", bob.as_str())]);
    let first = request(false, &[user("a")]);
    let got = scene.post("/v1/messages", &ann, first.to_string()).await.message();
    scene.restart().await;
    let second = request(false, &[user("a"), said(&got), user("b")]).to_string();
    // What the model said of late was said to Ann: to the upstream Bob's history is another.
    assert_eq!(scene.post("/v1/messages", &bob, second.clone()).await.status, 400);
    scene.complaints = 1;
    scene.post("/v1/messages", &ann, second).await.message();
    assert_eq!(history(&scene.asked()[2]), ["a", "one", "b"]);
    assert_eq!(history(&scene.asked()[3]), ["a", "read r1", "=r1", "one", "b"]);
}

#[tokio::test]
async fn a_run_that_a_stopping_gateway_leaves_goes_on_at_the_next() {
    for stream in [false, true] {
        let mut scene = Scene::open([turn("look, read r1"), turn("pay p1, peek p2"), turn("done")]).kept().await;
        let body = request(stream, &[user("go")]).to_string();
        let first = tokio::spawn(scene.request("/v1/messages", &[], body.clone()).send());
        scene.log.started("pay p1").await;
        scene.log.started("peek p2").await;
        scene.restart().await;
        let first = first.await.unwrap().unwrap();
        if stream {
            assert!(first.text().await.unwrap().contains("\"closing\""), "an event: the stream had begun");
        } else {
            assert_eq!((first.status().as_u16(), &first.headers()["retry-after"]), (503, &"1".parse().unwrap()));
        }
        scene.log.open_gate();
        let got = scene.post("/v1/messages", &[("x-stainless-retry-count", "1")], body).await.message();
        assert_eq!(told(&got["content"]), "look, done");
        // What reads is read again; what pays had begun, and nobody knows.
        let started = scene.log.started.borrow().join(", ");
        assert_eq!((scene.log.done().as_str(), started.matches("pay").count()), ("peek p2, read r1", 1), "{started}");
        let asked = scene.asked();
        assert_eq!((asked.len(), history(&asked[2]).last().unwrap().as_str()), (3, "=p1, =p2"));
        assert!(asked[2].to_string().contains("outcome_unknown"));
    }
}

#[tokio::test]
async fn a_run_whose_upstream_fails_after_something_was_done_goes_on_when_it_is_asked_again() {
    for stream in [false, true] {
        let gone = Fault::status(503);
        // As often as the gateway asks before it gives up.
        let last = turn("done").fault(gone.clone()).fault(gone.clone()).fault(gone.clone()).fault(gone);
        let mut scene = Scene::open([turn("look, write w1"), last]).kept().await;
        let body = request(stream, &[user("go")]).to_string();
        let got = scene.post("/v1/messages", &[], body.clone()).await;
        match stream {
            true => assert!(got.text.contains("event: error"), "{}", got.text),
            false => assert_eq!((got.status, got.headers.get("x-should-retry")), (503, None), "{}", got.text),
        }
        let asked = scene.asked().len();
        let again = [("x-stainless-retry-count", "1")];
        if stream {
            scene.restart().await;
        }
        let got = scene.post("/v1/messages", &again, body.clone()).await;
        assert_eq!(told(&got.message()["content"]), "look, done");
        assert_eq!((scene.log.done().as_str(), scene.asked().len()), ("write w1", asked + 1));
        // The same request upstream as the one that failed.
        assert_eq!(scene.asked()[asked], scene.asked()[asked - 1]);
    }
}
