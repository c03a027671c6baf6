//! A plan among the calls of `/fanout/v1/tool_calls`: one block in, one result out, and its calls count.

use serde_json::{Value, json};

use crate::stage::{Stage, TOOL_CALLS};

const PLAN: &str = "[server]\nplan = true\n";

/// A content with one plan `p`, and the calls `a=tool` behind it.
fn body(plan: Value, behind: &[(&str, &str)]) -> String {
    let mut content = vec![json!({"type": "tool_use", "id": "p", "name": "plan", "input": plan})];
    let call = |(id, tool): &(&str, &str)| json!({"type": "tool_use", "id": id, "name": tool, "input": {"id": id}});
    content.extend(behind.iter().map(call));
    json!({ "content": content }).to_string()
}

fn answer(result: &Value) -> Value {
    let text = result["content"].as_str().or(result["content"][0]["text"].as_str()).unwrap();
    serde_json::from_str(text).unwrap()
}

fn chain() -> Value {
    json!({"calls": [
        {"label": "first", "tool": "echo", "input": {"id": "x"}},
        {"label": "each", "tool": "echo", "for_each": ["u", "v"], "input": {"id": {"$ref": "item#"}}},
        {"label": "next", "tool": "pay", "input": {"id": {"$ref": "first#/id"}}, "needs": ["each"]},
        {"label": "many", "tool": "hold", "for_each": {"$ref": "next#/ids"}, "input": {"id": {"$ref": "item#"}}},
        {"label": "last", "tool": "pay", "input": {"id": {"$ref": "many#/0/id"}}},
    ]})
}

#[tokio::test]
async fn a_plan_is_answered_by_one_result() {
    let stage = Stage::with(PLAN);
    stage.release(9);
    let plan = json!({"calls": [
        {"label": "first", "tool": "echo", "input": {"id": "x"}},
        {"label": "next", "tool": "pay", "input": {"id": {"$ref": "first#/id"}}},
    ], "return": ["next#/id"]});
    let json = stage.post(TOOL_CALLS, &[], &body(plan, &[("a", "echo")])).await.json();
    let ids: Vec<&str> =
        json["content"].as_array().unwrap().iter().map(|block| block["tool_use_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["p", "a"]);
    assert_eq!(answer(&json["content"][0]), json!({"next#/id": "x", "$left_out_bytes": {"first": 10}}));
}

#[tokio::test]
async fn as_a_stream_a_plan_is_one_event() {
    let stage = Stage::with(PLAN);
    let headers = [("accept", "text/event-stream")];
    let plan = json!({"calls": [
        {"label": "a", "tool": "echo", "input": {"id": "says"}}, {"label": "b", "tool": "echo", "input": {"id": "y"}},
    ]});
    let answer = stage.post(TOOL_CALLS, &headers, &body(plan, &[])).await;
    let names: Vec<String> = answer.events().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["tool_result", "message"], "how far its calls are is nobody's matter");
    assert_eq!(answer.events()[0].1["tool_use_id"], "p");
}

#[tokio::test]
async fn the_calls_of_a_plan_count_and_of_its_response_it_is_one() {
    let echo = |label: &str| json!({"label": label, "tool": "echo", "input": {"id": label}});
    let two = json!({ "calls": [echo("a"), echo("b")] });
    for (bound, expected) in [("max_batch = 2", [false, false, true]), ("max_calls = 3", [false, false, true])] {
        let stage = Stage::with(&format!("{PLAN}[run]\n{bound}"));
        let json = stage.post(TOOL_CALLS, &[], &body(two.clone(), &[("c", "echo"), ("d", "echo")])).await.json();
        let failed: Vec<bool> =
            json["content"].as_array().unwrap().iter().map(|block| block["is_error"] == true).collect();
        assert_eq!(failed, expected, "{bound}: {json}");
    }
    let stage = Stage::with(&format!("{PLAN}[run]\nmax_calls = 3"));
    let each = json!({"calls": [
        {"label": "e", "tool": "echo", "for_each": ["1", "2", "3", "4"], "input": {"id": {"$ref": "item#"}}},
    ]});
    let json = stage.post(TOOL_CALLS, &[], &body(each, &[])).await.json();
    let answer = answer(&json["content"][0]);
    let codes: Vec<&str> =
        answer["e"].as_array().unwrap().iter().map(|one| one["error"]["code"].as_str().unwrap_or("ok")).collect();
    assert_eq!(codes, ["ok", "ok", "ok", "budget"], "{answer}");
}

#[tokio::test]
async fn an_id_that_could_be_that_of_a_plans_call_is_refused_before_anything_runs() {
    let stage = Stage::with(PLAN);
    let plan = json!({"calls": [{"label": "a", "tool": "echo", "input": {"id": "x"}}]});
    let answer = stage.post(TOOL_CALLS, &[], &body(plan, &[("p/a", "echo")])).await;
    assert_eq!(answer.status, 400);
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("the id `p/a`"), "{}", answer.json());
}

#[tokio::test]
async fn the_graph_of_a_plan_has_its_calls_and_a_for_each_once() {
    let stage = Stage::with(PLAN);
    let graph = stage.post("/fanout/v1/tool_calls/explain", &[], &body(chain(), &[("z", "pay")])).await.json();
    let reference = |on: &str| json!({"on": on, "why": "reference"});
    let shown: Vec<(&str, &Value, &Value, u64)> = graph["calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| (call["id"].as_str().unwrap(), &call["waits"], &call["elements"], call["wave"].as_u64().unwrap()))
        .collect();
    let conflict = |on: &str, key: &str| json!({"on": on, "why": "conflict", "key": key});
    let last = conflict("p/next", "account/*");
    let expected = [
        ("p/first", json!([]), Value::Null, 1),
        ("p/each", json!([]), json!(2), 1),
        ("p/next", json!([reference("p/first"), {"on": "p/each", "why": "order"}]), Value::Null, 2),
        ("p/many", json!([reference("p/next")]), Value::Null, 3),
        ("p/last", json!([reference("p/many"), last]), Value::Null, 4),
        ("z", json!([conflict("p/next", "account/z"), conflict("p/last", "account/z")]), Value::Null, 5),
    ];
    for ((id, waits, elements, wave), (want_id, want_waits, want_elements, want_wave)) in shown.iter().zip(&expected) {
        assert_eq!((id, *waits, *elements, wave), (want_id, want_waits, want_elements, want_wave), "{graph:#}");
    }
    assert_eq!(shown.len(), expected.len(), "neither the plan nor an element stands there");
    let is_each: Vec<bool> = graph["calls"].as_array().unwrap().iter().map(|call| call["for_each"] == true).collect();
    assert_eq!(is_each, [false, true, false, true, false, false]);
    assert_eq!(graph["calls"][1]["reads"], json!(["thing/u", "thing/v"]));
    assert_eq!(graph["critical_path"], json!(["p/first", "p/next", "p/many", "p/last", "z"]));
    assert!(stage.seen.started.borrow().is_empty());
}

#[tokio::test]
async fn a_reload_offers_a_plan_or_takes_it_away() {
    let stage = Stage::new();
    let names = async || -> Vec<String> {
        let tools = stage.get("/fanout/v1/tools").await.json();
        tools.as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names().await, ["echo", "hold", "pay", "fail"]);
    stage.reload_with(PLAN).await;
    assert_eq!(names().await, ["echo", "plan"]);
    let changes = stage.gateway.reload().await.unwrap();
    assert!(changes.is_empty(), "{changes}");
    stage.reload_with("").await;
    assert_eq!(names().await, ["echo"]);
    stage.reload(&[]).await;
    stage.reload_with(PLAN).await;
    assert_eq!(names().await, ["echo", "plan"]);
}
