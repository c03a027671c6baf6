//! Requests whose calls are all ours: one message comes back.

use fanout_script::{Fault, Usage};
use serde_json::{Value, json};

use super::scene::{Scene, history, request, told, turn, user};

/// One question to a model that says these turns: what the client sees, and what was done.
#[track_caller]
fn check(turns: &'static [&'static str], shown: &'static str, done: &'static str) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        for stream in [false, true] {
            let scene = Scene::open(turns.iter().map(|blocks| turn(blocks)));
            let got = scene.ask(&request(stream, &[user("go")])).await;
            let message = got.message();
            assert_eq!(told(&message["content"]), shown, "{place} {stream}: {}", got.text);
            assert_eq!(message["stop_reason"], "end_turn", "{place}");
            assert_eq!(scene.log.done(), done, "{place}");
            assert_eq!(scene.asked().len(), turns.len(), "{place}");
            assert!(got.headers["fanout-run-id"].to_str().unwrap().starts_with("run_"));
        }
    }
}

#[tokio::test]
async fn our_calls_are_run_and_hidden() {
    check(&["hello"], "hello", "").await;
    check(&["read r1, read r2", "done"], "done", "read r1, read r2").await;
    check(&["read r1", "write w1", "done"], "done", "read r1, write w1").await;
}

#[tokio::test]
async fn text_of_hidden_turns_is_shown() {
    check(&["look, read r1", "done"], "look, done", "read r1").await;
    check(&["look, read r1, there", "more, write w1", "done"], "look, there, more, done", "read r1, write w1").await;
    check(&["think, look, read r1", "think, done"], "think, look, think, done", "read r1").await;
}

#[tokio::test]
async fn the_tokens_of_all_turns_are_told() {
    let taken = |input, output| Usage { input_tokens: input, output_tokens: output, ..Usage::default() };
    for stream in [false, true] {
        let turns = [turn("read r1").usage(taken(100, 10)), turn("done").usage(taken(130, 7))];
        let scene = Scene::open(turns);
        let message = scene.ask(&request(stream, &[user("go")])).await.message();
        assert_eq!(message["usage"]["input_tokens"], 230, "{stream}: {message}");
        assert_eq!(message["usage"]["output_tokens"], 17, "{stream}: {message}");
    }
}

#[tokio::test]
async fn every_field_of_a_request_goes_on_and_our_tools_stand_last() {
    let scene = Scene::open([turn("read r1"), turn("done")]);
    let mut body = request(false, &[user("go")]);
    body["metadata"] = json!({"user_id": "u"});
    body["temperature"] = json!(1.0);
    body["unheard_of"] = json!([1, null]);
    body["tools"] = json!([{"name": "mine", "input_schema": {"type": "object"}}]);
    scene.ask(&body).await.message();
    for asked in scene.asked() {
        for field in ["model", "max_tokens", "system", "metadata", "temperature", "unheard_of"] {
            assert_eq!(asked[field], body[field], "{field}");
        }
        let names: Vec<&Value> = asked["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
        assert_eq!(names, ["mine", "read", "write", "peek", "pay"]);
        assert_eq!(asked["tools"][4]["cache_control"]["type"], "ephemeral");
    }
}

#[tokio::test]
async fn a_client_that_uses_all_its_cache_markers_keeps_them() {
    let scene = Scene::open([turn("read r1"), turn("done")]);
    let marked = json!({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}});
    let mut body = request(false, &[json!({"role": "user", "content": [marked, marked, marked]})]);
    body["system"] = json!([marked]);
    scene.ask(&body).await.message();
    assert!(scene.asked()[0]["tools"][3].get("cache_control").is_none());
}

#[tokio::test]
async fn a_demand_for_a_tool_holds_for_the_first_turn() {
    let scene = Scene::open([turn("read r1"), turn("done")]);
    let mut body = request(false, &[user("go")]);
    body["tool_choice"] = json!({"type": "any"});
    scene.ask(&body).await.message();
    let choices: Vec<Value> = scene.asked().iter().map(|asked| asked["tool_choice"]["type"].clone()).collect();
    assert_eq!(choices, ["any", "auto"]);
}

#[tokio::test]
async fn an_answer_that_ran_out_of_tokens_is_the_clients_to_see() {
    for stream in [false, true] {
        let scene = Scene::open([turn("read r1"), turn("stories").always(Fault::cut_off(5))]);
        let message = scene.ask(&request(stream, &[user("go")])).await.message();
        assert_eq!((told(&message["content"]).as_str(), &message["stop_reason"]), ("stori", &json!("max_tokens")));
        assert_eq!(scene.asked().len(), 2, "nobody asks for more tokens than the client named");
    }
}

#[tokio::test]
async fn a_refusal_is_the_clients_to_see() {
    for stream in [false, true] {
        let scene = Scene::open([turn("read r1"), turn("no, never").always(Fault::Refusal { after_blocks: 1 })]);
        let message = scene.ask(&request(stream, &[user("go")])).await.message();
        assert_eq!(message["stop_reason"], "refusal");
    }
}

#[tokio::test]
async fn pings_come_while_tools_run() {
    let scene = Scene::open([turn("look, pay p1"), turn("done")]);
    let mut answer = scene.request("/v1/messages", &[], request(true, &[user("go")]).to_string()).send().await.unwrap();
    scene.log.started("pay p1").await;
    // The clock jumps to the next thing that is waited for.
    tokio::time::pause();
    let mut text = String::new();
    while !text.contains("event: ping") {
        text += std::str::from_utf8(&answer.chunk().await.unwrap().unwrap()).unwrap();
    }
    tokio::time::resume();
    scene.log.open_gate();
    while let Some(piece) = answer.chunk().await.unwrap() {
        text += std::str::from_utf8(&piece).unwrap();
    }
    assert!(text.contains("done") && text.contains("message_stop"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_runs_at_once() {
    let scene = Scene::open([turn("look, read r1, write w1"), turn("done")]);
    let bodies: Vec<String> =
        (0..500).map(|at| request(at % 2 == 0, &[user(&format!("go {at}"))]).to_string()).collect();
    let asked = bodies.into_iter().map(|body| async { scene.post("/v1/messages", &[], body).await.message() });
    for message in futures_util::future::join_all(asked).await {
        assert_eq!(told(&message["content"]), "look, done");
    }
    let asked = scene.asked();
    assert_eq!(asked.len(), 1000);
    let second = asked.iter().filter(|body| history(body).len() == 3).count();
    assert_eq!(second, 500);
}
