//! A plan in a client's conversation: ours, hidden, and of our tools alone.

use fanout_script::{Block, Turn};
use serde_json::{Value, json};

use super::scene::{Scene, history, request, results, said, told, turn, user, with_mine, writes_x_once_m1_is_answered};

/// A turn with the client's call, if there is one, and then a plan `p1` of these calls: `a read x, b write a`. What a call
/// is given is a text, or what another one said where it names that.
fn planned(before: &str, calls: &str) -> Turn {
    let labels: Vec<&str> = calls.split(", ").filter_map(|call| call.split(' ').next()).collect();
    let call = |call: &str| {
        let [label, tool, id] = call.split(' ').collect::<Vec<_>>()[..] else { panic!("{call}") };
        let id = if labels.contains(&id) { json!({"$ref": format!("{id}#")}) } else { json!(id) };
        json!({"label": label, "tool": tool, "input": {"id": id}})
    };
    let calls: Vec<Value> = calls.split(", ").map(call).collect();
    let theirs = before.split_once(' ').map(|(tool, id)| Block::tool_use(tool, "{}").with_id(id));
    let plan = Block::tool_use("plan", json!({ "calls": calls }).to_string()).with_id("p1");
    Turn::new(theirs.into_iter().chain([plan]))
}

/// The result of the plan, as the model got it with this request.
fn answer(asked: &Value) -> Value {
    let blocks = asked["messages"].as_array().unwrap().last().unwrap()["content"].as_array().unwrap().iter();
    let result = blocks.into_iter().find(|block| block["tool_use_id"] == "p1").unwrap();
    let text = result["content"].as_str().or(result["content"][0]["text"].as_str()).unwrap();
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn a_plan_runs_unseen_and_one_message_comes_back() {
    for stream in [false, true] {
        let scene = Scene::planning([planned("", "a read x, b write a, c read y"), turn("done")]);
        let got = scene.ask(&request(stream, &[user("go")])).await.message();
        assert_eq!(told(&got["content"]), "done");
        assert_eq!(scene.log.done(), "read x, read y, write read x: fine");
        let asked = scene.asked();
        assert_eq!(history(&asked[1]), ["go", "plan p1", "=p1"]);
        let fine = json!({"a": "read x: fine", "b": "write read x: fine: fine", "c": "read y: fine"});
        assert_eq!(answer(&asked[1]), fine);
        let offered: Vec<&str> =
            asked[0]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
        assert_eq!(offered, ["read", "write", "peek", "pay", "plan"]);
    }
}

#[tokio::test]
async fn a_plan_with_a_clients_tool_runs_nothing_and_lists_what_it_may_call() {
    // A tool of ours by name, which the client has declared itself, is the client's too.
    for theirs in ["mine", "write"] {
        let scene = Scene::planning([planned("", &format!("a read x, b {theirs} y")), turn("done")]);
        let mut body = with_mine(request(false, &[user("go")]));
        body["tools"][0]["name"] = json!(theirs);
        let got = scene.ask(&body).await.message();
        assert_eq!(told(&got["content"]), "done");
        assert_eq!(scene.log.done(), "");
        let error = answer(&scene.asked()[1])["error"].clone();
        let message = error["message"].as_str().unwrap();
        assert_eq!(error["code"], "invalid_input");
        let ours = if theirs == "write" { "`read`, `peek`, `pay`" } else { "`read`, `write`, `peek`, `pay`" };
        let told = format!("`calls[1]` (`b`): there is no tool `{theirs}` that a plan can call; there are: {ours}");
        assert!(message.contains(&told), "{message}");
    }
}

/// A turn with a client's call and a plan behind it. `done` is what was done before the client answered.
async fn check(calls: &str, done: &str, all_done: &str) {
    for stream in [false, true] {
        let scene = Scene::planning([planned("mine m1", calls), turn("done")]);
        let mut messages = vec![user("go")];
        let got = scene.ask(&with_mine(request(stream, &messages))).await.message();
        assert_eq!((told(&got["content"]).as_str(), &got["stop_reason"]), ("mine m1", &json!("tool_use")));
        assert_eq!(scene.log.done(), done, "{calls}");
        messages.extend([said(&got), results(&["m1"])]);
        let got = scene.ask(&with_mine(request(stream, &messages))).await.message();
        assert_eq!(told(&got["content"]), "done");
        assert_eq!(scene.log.done(), all_done, "{calls}");
        assert_eq!(history(&scene.asked()[1]), ["go", "mine m1, plan p1", "=m1, =p1"]);
    }
}

#[tokio::test]
async fn behind_a_clients_call_a_plan_goes_on_only_if_all_of_it_reads() {
    check("a read x, b read a", "read read x: fine, read x", "read read x: fine, read x").await;
    check("a read x, b write y", "", "read x, write y").await;
    check("a read x, b read nothing, c pays y", "", "").await;
}

#[tokio::test]
async fn a_read_behind_a_plan_that_waits_waits_for_what_the_plan_writes() {
    let waits = |id: &str| Block::tool_use("read", json!({ "id": id }).to_string()).with_id(format!("r-{id}"));
    let plan = json!({"calls": [{"label": "a", "tool": "write", "input": {"id": "x"}}]});
    let first = Turn::new([
        Block::tool_use("mine", "{}").with_id("m1"),
        Block::tool_use("plan", plan.to_string()).with_id("p1"),
        waits("x"),
        waits("y"),
    ]);
    let scene = Scene::planning([first, turn("done")]);
    writes_x_once_m1_is_answered(&scene).await;
    assert_eq!(history(&scene.asked()[1])[2], "=m1, =p1, =r-x, =r-y");
}

#[tokio::test]
async fn a_request_may_ask_for_plan_or_do_without() {
    let body = || request(false, &[user("go")]).to_string();
    let offered = |asked: &Value| {
        let tools = asked["tools"].as_array().unwrap().iter();
        tools.map(|tool| tool["name"].as_str().unwrap().to_owned()).filter(|name| name == "plan").count()
    };
    let without = Scene::open([planned("", "a read x"), turn("done")]);
    let got = without.post("/v1/messages", &[("fanout-plan", "on")], body()).await;
    assert_eq!((told(&got.message()["content"]).as_str(), without.log.done().as_str()), ("done", "read x"));
    assert_eq!(offered(&without.asked()[0]), 1);
    let with = Scene::planning([turn("done")]);
    with.post("/v1/messages", &[("fanout-plan", "off")], body()).await.message();
    assert_eq!(offered(&with.asked()[0]), 0);
    for (value, wrong) in [("maybe", "`on` or `off`"), ("", "`on` or `off`")] {
        let got = with.post("/v1/messages", &[("fanout-plan", value)], body()).await;
        assert!(got.status == 400 && got.text.contains(wrong), "{}", got.text);
    }
}
