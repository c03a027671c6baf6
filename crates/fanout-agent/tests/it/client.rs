//! Requests of clients who run tools of their own: whose call is whose, and what a turn leaves to them.

use std::sync::Arc;

use fanout_agent::{Agent, Conversation, Handed, Handover, Offer, Report, WritesAfterClient};
use fanout_anthropic::{HttpModel, HttpOptions, Message, Raw, Request};
use fanout_script::Turn;

use crate::stage::{Stage, call, calls, end_of};

/// A run of a client's request to a model that says these turns, and the agent of it.
async fn run(stage: &Stage, writes: WritesAfterClient) -> (Agent, Report) {
    let http = HttpOptions { base_url: stage.server.base_url(), ..HttpOptions::default() };
    let mut request = Request::new("claude-test", 100, Vec::new());
    request.stream = true;
    request.tools = Some(r#"[{"name":"mine","input_schema":{"type":"object"}}]"#.into());
    request.extra.push(("metadata".to_owned(), Raw::parse(r#"{ "user_id" : "u" }"#).unwrap()));
    let offer = Offer::new(&stage.toolbox).unwrap();
    let agent = Agent::for_client(
        Arc::new(HttpModel::new(http).unwrap()),
        stage.scheduler.clone(),
        Arc::clone(&stage.toolbox),
        stage.options.clone(),
        request,
        &offer,
        writes,
    );
    let agent = agent.unwrap();
    let report = agent.run(Conversation::from_prompt("go"), stage.settings()).await;
    assert_eq!(end_of(&report), "done");
    (agent, report)
}

/// A handover in one line: `=r1, mine m1, ?w1`.
fn told(handover: &Handover) -> String {
    let calls = handover.calls.iter().map(|call| match call {
        Handed::Answered(block) => {
            let block: serde_json::Value = serde_json::from_str(block.raw().as_str()).unwrap();
            format!("={}", block["tool_use_id"].as_str().unwrap())
        }
        Handed::Waiting(call) => format!("?{}", call.id),
        Handed::Theirs(id) => format!("mine {id}"),
    });
    calls.collect::<Vec<_>>().join(", ")
}

async fn check(turn: &str, writes: WritesAfterClient, handed_over: &str, work: &[&str]) {
    let stage = Stage::open([calls(turn)]);
    let (agent, report) = run(&stage, writes).await;
    let mut handover = report.handover.unwrap();
    assert_eq!(told(&handover), handed_over, "{turn}");
    assert_eq!(stage.log.all_work(), work, "{turn}");
    // Once the client has answered nothing is left to wait for.
    agent.settle(&mut handover, &stage.settings(), fanout_core::run::Past::default()).await;
    assert_eq!(handover.waiting().len(), 0);
    assert_eq!(stage.log.work().len(), turn.matches("read").count() + turn.matches("write").count());
    let ids = handover.theirs().map(|id| format!(r#"{{"type":"tool_result","tool_use_id":"{id}"}}"#));
    let content = ids.collect::<Vec<_>>().join(",");
    let raw = Raw::parse(format!(r#"{{"role":"user","content":[{content}]}}"#)).unwrap();
    let theirs = Message::parse(raw).unwrap();
    let blocks = theirs.blocks().unwrap();
    assert!(handover.is_answered_by(&blocks) && !handover.is_answered_by(&[]));
    let reply = handover.merge(&blocks).unwrap_or(theirs);
    let mut messages = report.conversation.messages().to_vec();
    messages.push(reply);
    // The scripted server takes it: each id is answered once.
    let report = agent.run(Conversation::new(messages), stage.settings()).await;
    assert_eq!(report.answer, "done");
}

#[tokio::test]
async fn a_turn_with_a_clients_call_is_handed_over() {
    let wait = WritesAfterClient::Wait;
    check("mine m1, mine m2", wait, "mine m1, mine m2", &[]).await;
    check("read r1, mine m1", wait, "=r1, mine m1", &["read r1"]).await;
    check("write w1, mine m1, read r1, write w2", wait, "=w1, mine m1, =r1, ?w2", &["read r1", "write w1"]).await;
    check("mine m1, write w1", WritesAfterClient::Run, "mine m1, =w1", &["write w1"]).await;
}

#[tokio::test]
async fn a_response_that_stopped_otherwise_hands_over_errors_for_ours() {
    let turn = Turn::new([call("write", "w1"), call("mine", "m1")]).stop("end_turn");
    let stage = Stage::open([turn]);
    let (_, report) = run(&stage, WritesAfterClient::Wait).await;
    assert_eq!(told(&report.handover.unwrap()), "=w1, mine m1");
    assert_eq!(stage.log.all_work(), [""; 0]);
}

#[tokio::test]
async fn a_clients_request_keeps_its_fields_and_its_tools_come_first() {
    let stage = Stage::open([calls("read r1")]);
    run(&stage, WritesAfterClient::Wait).await;
    for asked in stage.asked() {
        assert_eq!(asked["metadata"]["user_id"], "u");
        assert_eq!(asked["max_tokens"], 100);
        assert_eq!((&asked["tools"][0]["name"], &asked["tools"][1]["name"]), (&"mine".into(), &"read".into()));
    }
}
