//! Turns in which the client's own tools are called, alone or among ours.

use serde_json::{Value, json};

use super::scene::{Scene, history, request, results, said, told, turn, user, with_mine, writes_x_once_m1_is_answered};

#[tokio::test]
async fn calls_of_the_clients_tools_go_back_to_the_client() {
    for stream in [false, true] {
        let scene = Scene::open([turn("look, mine m1, mine m2"), turn("done")]);
        let mut messages = vec![user("go")];
        let first = scene.ask(&with_mine(request(stream, &messages))).await.message();
        assert_eq!(told(&first["content"]), "look, mine m1, mine m2");
        assert_eq!(first["stop_reason"], "tool_use");
        messages.extend([said(&first), results(&["m1", "m2"])]);
        let second = scene.ask(&with_mine(request(stream, &messages))).await.message();
        assert_eq!(told(&second["content"]), "done");
        assert_eq!(scene.log.done(), "");
    }
}

/// A mixed turn, the client's answer, and one more question. `done` is what was done before the client answered.
async fn check(first: &str, shown: &str, done: &str, answer: &[&str], merged: &str, all_done: &str) {
    for stream in [false, true] {
        let scene = Scene::open([turn(first), turn("done"), turn("bye")]);
        let mut messages = vec![user("go")];
        let got = scene.ask(&with_mine(request(stream, &messages))).await.message();
        assert_eq!((told(&got["content"]).as_str(), &got["stop_reason"]), (shown, &json!("tool_use")));
        assert_eq!(scene.log.done(), done, "{first}");
        messages.extend([said(&got), results(answer)]);
        let got = scene.ask(&with_mine(request(stream, &messages))).await.message();
        assert_eq!(told(&got["content"]), "done");
        assert_eq!(scene.log.done(), all_done, "{first}");
        assert_eq!(history(&scene.asked()[1]), ["go", first, merged]);
        messages.extend([said(&got), user("and?")]);
        let got = scene.ask(&with_mine(request(stream, &messages))).await.message();
        assert_eq!(told(&got["content"]), "bye");
        assert_eq!(history(&scene.asked()[2]), ["go", first, merged, "done", "and?"]);
        assert_eq!(scene.log.done(), all_done, "nothing is done twice");
    }
}

#[tokio::test]
async fn in_a_mixed_turn_ours_run_and_all_results_are_one_message() {
    check("read r1, mine m1", "mine m1", "read r1", &["m1"], "=r1, =m1", "read r1").await;
    check(
        "mine m1, text, read r1, mine m2",
        "mine m1, text, mine m2",
        "read r1",
        &["m2", "m1"],
        "=m1, =r1, =m2",
        "read r1",
    )
    .await;
}

#[tokio::test]
async fn our_writes_after_a_clients_call_wait_for_its_answer() {
    check(
        "write w1, mine m1, read r1, write w2",
        "mine m1",
        "read r1, write w1",
        &["m1"],
        "=w1, =m1, =r1, =w2",
        "read r1, write w1, write w2",
    )
    .await;
}

#[tokio::test]
async fn a_read_that_must_see_a_waiting_write_waits_with_it() {
    // Two calls of one key, whose ids differ by name only.
    let scene = Scene::open([
        fanout_script::Turn::new([
            fanout_script::Block::tool_use("mine", "{}").with_id("m1"),
            fanout_script::Block::tool_use("write", r#"{"id":"x"}"#).with_id("w1"),
            fanout_script::Block::tool_use("read", r#"{"id":"x"}"#).with_id("r1"),
            fanout_script::Block::tool_use("read", r#"{"id":"y"}"#).with_id("r2"),
        ]),
        turn("done"),
    ]);
    writes_x_once_m1_is_answered(&scene).await;
}

#[tokio::test]
async fn what_waits_runs_once_however_often_the_client_answers() {
    let scene = Scene::open([turn("mine m1, write w1"), turn("done")]);
    let mut messages = vec![user("go")];
    let got = scene.ask(&with_mine(request(false, &messages))).await.message();
    messages.extend([said(&got), results(&["m1"])]);
    let body = with_mine(request(false, &messages));
    let (one, two) = tokio::join!(scene.ask(&body), scene.ask(&body));
    assert_eq!(
        (told(&one.message()["content"]), told(&two.message()["content"])),
        ("done".to_owned(), "done".to_owned())
    );
    assert_eq!(scene.log.done(), "write w1");
}

#[tokio::test]
async fn an_answer_that_lacks_a_result_runs_nothing_and_gets_the_apis_own_error() {
    let mut scene = Scene::open([turn("mine m1, write w1"), turn("done")]);
    scene.complaints = 1;
    let got = scene.ask(&with_mine(request(false, &[user("go")]))).await.message();
    let got = scene.ask(&with_mine(request(false, &[user("go"), said(&got), user("never mind")]))).await;
    assert_eq!(got.status, 400, "{}", got.text);
    assert!(got.text.contains("m1"), "{}", got.text);
    assert_eq!(scene.log.done(), "");
}

#[tokio::test]
async fn a_tool_that_the_client_calls_like_ours_is_the_clients() {
    let scene = Scene::open([turn("read r1"), turn("done")]);
    let mut body = request(false, &[user("go")]);
    body["tools"] = json!([{"name": "read", "input_schema": {"type": "object"}}]);
    let got = scene.ask(&body).await.message();
    assert_eq!(told(&got["content"]), "read r1");
    assert_eq!(scene.log.done(), "");
    let names: Vec<Value> =
        scene.asked()[0]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].clone()).collect();
    assert_eq!(names, ["read", "write", "peek", "pay"]);
}

#[tokio::test]
async fn a_client_is_kept_waiting_alive_while_what_waited_for_it_runs() {
    let scene = Scene::open([turn("mine m1, pay p1"), turn("done")]);
    let mut messages = vec![user("go")];
    let got = scene.ask(&with_mine(request(true, &messages))).await.message();
    messages.extend([said(&got), results(&["m1"])]);
    let body = with_mine(request(true, &messages)).to_string();
    let (answer, ()) = tokio::join!(scene.request("/v1/messages", &[], body).send(), async {
        scene.log.started("pay p1").await;
        // The clock jumps to the next thing that is waited for: a sign of life, before the model was asked.
        tokio::time::pause();
    });
    let mut answer = answer.unwrap();
    let first = answer.chunk().await.unwrap().unwrap();
    tokio::time::resume();
    assert!(first.starts_with(b": "), "{first:?}");
    assert_eq!(scene.asked().len(), 1);
    scene.log.open_gate();
    let rest = answer.text().await.unwrap();
    assert!(rest.contains("message_start") && rest.contains("done"), "{rest}");
}
