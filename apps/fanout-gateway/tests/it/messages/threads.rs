//! Conversations that the upstream holds: the gateway continues them itself.

use fanout_script::Fault;
use serde_json::{Value, json};

use super::scene::{Scene, request, results, told, turn, user, with_mine};

fn create(stream: bool, question: &str) -> Value {
    let mut body = with_mine(request(stream, &[user(question)]));
    body["thread"] = json!({"type": "create"});
    body
}

/// Continues after this message; the definitions are the thread's.
fn go_on(stream: bool, after: &Value, message: Value) -> Value {
    let mut body = request(stream, &[message]);
    body.as_object_mut().unwrap().remove("system");
    body["thread"] = json!({"type": "continue", "previous_message_id": after["id"]});
    body
}

#[tokio::test]
async fn a_thread_goes_on_through_our_turns_and_the_clients() {
    for stream in [false, true] {
        let scene = Scene::open([
            turn("look, read r1"),
            turn("one"),
            turn("read r2, mine m1, write w1"),
            turn("two"),
            turn("write w2"),
            turn("three"),
        ])
        .with_threads();
        let first = scene.ask(&create(stream, "a")).await.message();
        assert_eq!(told(&first["content"]), "look, one");
        let second = scene.ask(&go_on(stream, &first, user("b"))).await.message();
        assert_eq!((told(&second["content"]).as_str(), scene.log.done().as_str()), ("mine m1", "read r1, read r2"));
        let third = scene.ask(&go_on(stream, &second, results(&["m1"]))).await.message();
        assert_eq!(told(&third["content"]), "two");
        assert_eq!(scene.log.done(), "read r1, read r2, write w1");
        let fourth = scene.ask(&go_on(stream, &third, user("c"))).await.message();
        assert_eq!(told(&fourth["content"]), "three");
        for (at, asked) in scene.asked().iter().enumerate() {
            assert_eq!(at == 0, asked.get("tools").is_some(), "{asked}");
            assert_eq!(at == 0, asked["thread"]["type"] == "create", "{asked}");
            assert!(!asked.to_string().contains("cache_control"), "{asked}");
            assert_eq!(asked["messages"].as_array().unwrap().len(), 1, "{asked}");
        }
        assert_eq!(told(&scene.asked()[3]["messages"][0]["content"]), "=r2, =m1, =w1");
    }
}

#[tokio::test]
async fn a_thread_error_passes_and_the_client_can_replay() {
    let mut scene = Scene::open([turn("look, read r1"), turn("one"), turn("two")]).with_threads();
    scene.complaints = 1;
    let first = scene.ask(&create(false, "a")).await.message();
    let unknown = json!({"id": "msg_unknown"});
    let got = scene.ask(&go_on(false, &unknown, user("b"))).await;
    assert_eq!((got.status, got.text.contains("thread_not_found")), (404, true), "{}", got.text);
    let mut body = create(false, "a");
    body["messages"] = json!([user("a"), super::scene::said(&first), user("b")]);
    let got = scene.ask(&body).await.message();
    assert_eq!(told(&got["content"]), "two");
    let asked = scene.asked().pop().unwrap();
    assert_eq!(super::scene::history(&asked), ["a", "look, read r1", "=r1", "one", "b"]);
}

#[tokio::test]
async fn a_thread_that_is_lost_between_our_turns_is_begun_anew_with_all_that_was_said() {
    for (stream, code) in [(false, "thread_not_found"), (true, "thread_already_continued")] {
        let lost = Fault::Thread { error_code: code.to_owned() };
        let turns = [turn("think, look, read r1"), turn("write w1").fault(lost), turn("one"), turn("two")];
        let scene = Scene::open(turns).with_threads();
        let first = scene.ask(&create(stream, "a")).await.message();
        assert_eq!(told(&first["content"]), "think, look, one");
        let asked = scene.asked();
        let threads: Vec<&str> = asked.iter().map(|asked| asked["thread"]["type"].as_str().unwrap()).collect();
        assert_eq!(threads, ["create", "continue", "create", "continue"]);
        assert_eq!(super::scene::history(&asked[2]), ["a", "think, look, read r1", "=r1"]);
        assert_eq!((&asked[2]["tools"], &asked[2]["system"]), (&asked[0]["tools"], &asked[0]["system"]));
        assert_eq!(scene.log.done(), "read r1, write w1", "each once");
        let second = scene.ask(&go_on(stream, &first, user("b"))).await.message();
        assert_eq!(told(&second["content"]), "two");
    }
}
