//! Chats: what a returned message stands for comes back with every later request.

use serde_json::{Value, json};

use super::scene::{Scene, history, request, said, told, turn, user};

#[tokio::test]
async fn a_chat_of_three_messages_with_thinking_and_tools_keeps_its_thinking() {
    for stream in [false, true] {
        let scene = Scene::open([
            turn("think, look, read r1, read r2"),
            turn("think, one"),
            turn("think, write w1"),
            turn("think, read r3"),
            turn("two"),
            turn("think, three"),
        ]);
        let mut messages = Vec::new();
        for (question, shown) in [("a", "think, look, think, one"), ("b", "think, think, two"), ("c", "think, three")] {
            messages.push(user(question));
            let mut body = request(stream, &messages);
            body["thinking"] = json!({"type": "enabled", "budget_tokens": 500});
            let got = scene.ask(&body).await.message();
            assert_eq!(told(&got["content"]), shown, "{stream}");
            messages.push(said(&got));
        }
        assert_eq!(scene.asked().len(), 6);
    }
}

/// The history of the second question, when a client does this to the first answer's content.
async fn check(change: impl Fn(&Value) -> Value, second: &[&str]) {
    let scene = Scene::open([turn("think, look, read r1"), turn("one"), turn("two")]);
    let got = scene.ask(&request(false, &[user("a")])).await.message();
    let content = change(&got["content"]);
    let messages = [user("a"), json!({"role": "assistant", "content": content}), user("b")];
    let got = scene.ask(&request(false, &messages)).await;
    assert_eq!(got.status, 200, "{}", got.text);
    assert_eq!(history(&scene.asked()[2]), second);
}

#[tokio::test]
async fn a_message_is_known_however_its_client_spells_it() {
    let whole = ["a", "think, look, read r1", "=r1", "one", "b"];
    check(Value::clone, &whole).await;
    let marked = |content: &Value| {
        let mut content = content.clone();
        content[2]["cache_control"] = json!({"type": "ephemeral"});
        content[1]["citations"] = Value::Null;
        content
    };
    check(marked, &whole).await;
    let without_thinking = |content: &Value| json!([content[1], content[2]]);
    check(without_thinking, &whole).await;
    check(|_| json!("lookone"), &whole).await;
}

#[tokio::test]
async fn equal_words_of_another_conversation_stand_for_nothing() {
    let scene = Scene::open([turn("read r1"), turn("done"), turn("bye")]);
    let got = scene.ask(&request(false, &[user("a")])).await.message();
    let other = scene.ask(&request(false, &[user("z"), said(&got), user("b")])).await;
    assert_eq!(other.status, 200, "{}", other.text);
    assert_eq!(history(&scene.asked()[2]), ["z", "done", "b"]);
}

#[tokio::test]
async fn what_a_run_cost_is_counted_for_models_with_a_price_alone() {
    let scene = Scene::open([turn("one")]);
    let cost = "fanout_cost_usd_total{project=\"\",model=\"";
    assert_eq!(scene.ask(&request(false, &[user("a")])).await.status, 200);
    let metrics = scene.metrics().await;
    assert!(metrics.contains(&format!("{cost}claude-test\"}} 0.")), "{metrics}");
    let mut body = request(false, &[user("b")]);
    body["model"] = json!("a-model-of-tomorrow");
    let got = scene.ask(&body).await;
    assert_eq!(got.status, 200, "{}", got.text);
    assert_eq!(scene.metrics().await.matches(cost).count(), 1);
}

#[tokio::test]
async fn system_messages_in_the_middle_stay_where_the_client_put_them() {
    // As Claude Code sends them: after the user's message, with a beta header of their own.
    let beta = [("anthropic-beta", "mid-conversation-system-2026-04-07")];
    for stream in [false, true] {
        let scene = Scene::open([turn("read r1"), turn("one"), turn("two")]);
        let system = |text: &str| json!({"role": "system", "content": text});
        let first = [user("a"), system("be brief")];
        let got = scene.post("/v1/messages", &beta, request(stream, &first).to_string()).await.message();
        let messages = [&first[..], &[said(&got), user("b"), system("be kind")]].concat();
        let got = scene.post("/v1/messages", &beta, request(stream, &messages).to_string()).await;
        assert_eq!(got.status, 200, "{}", got.text);
        assert_eq!(history(&scene.asked()[2]), ["a", "be brief", "read r1", "=r1", "one", "b", "be kind"], "{stream}");
    }
}
