//! The shop as the outside world sees it, and the story told from its answers.

use fanout_script::shop::{self, Latencies, Shop, ShopOptions, story};
use fanout_script::{Conversation, Server, ServerOptions};
use serde_json::{Value, json};

use crate::wire::{Answer, Desk, content_of, send};

fn quick() -> Shop {
    Shop::start_with(ShopOptions { latencies: Latencies::none() }).expect("the shop opens")
}

async fn get(shop: &Shop, path: &str) -> Answer {
    send(&shop.base_url(), "GET", path, &[], b"").await.expect("an answer")
}

async fn post(shop: &Shop, path: &str, key: Option<&str>, body: &Value) -> Answer {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    send(&shop.base_url(), "POST", path, &headers, body.to_string().as_bytes()).await.expect("an answer")
}

#[tokio::test]
async fn every_api_answers_from_the_books() {
    let shop = quick();
    assert_eq!(get(&shop, "/orders/123").await.json()["lines"], json!([{"sku": "desk-lamp", "quantity": 2}]));
    assert_eq!(get(&shop, "/customers/c7").await.json()["name"], "Ada Brook");
    assert_eq!(get(&shop, "/inventory/desk-lamp").await.json()["stock"], 12);
    let quote = get(&shop, "/shipping/quote?order_id=123&carrier=rail").await.json();
    assert_eq!(quote["price_cents"], 828);
    let reply = post(&shop, "/inventory/desk-lamp/reserve", None, &json!({"n": 2})).await;
    assert_eq!(reply.json(), json!({"sku": "desk-lamp", "reserved": 2, "remaining": 10}));
    let reply = post(&shop, "/payments", None, &json!({"order_id": "123", "amount_cents": 5})).await;
    assert_eq!((reply.status, reply.json()["payment"].as_i64()), (201, Some(1)));
    assert_eq!(post(&shop, "/orders/123/notes", None, &json!({"text": "hi"})).await.status, 201);
    let mail = json!({"to": "a@example.com", "subject": "s", "body": "b"});
    assert_eq!(post(&shop, "/emails", None, &mail).await.status, 201);
    let state = shop.state().unwrap().tables;
    assert_eq!(state["inventory"][1], ["desk-lamp", "Desk lamp", "10"]);
    assert_eq!(state["orders"][0][2], "paid");
    assert_eq!((state["notes"].len(), state["emails"].len()), (1, 1));
}

#[tokio::test]
async fn a_failure_says_what_to_do() {
    let shop = quick();
    for (path, status, words) in [
        ("/shipping/quote?order_id=123&carrier=pigeon", 422, "ask courier or rail"),
        ("/shipping/quote?order_id=123", 400, "carrier"),
        ("/orders/9", 404, "there is no order `9`"),
    ] {
        let answer = get(&shop, path).await;
        assert_eq!(answer.status, status);
        assert!(answer.message().contains(words), "{}", answer.text());
    }
    let answer = post(&shop, "/inventory/shade/reserve", None, &json!({"n": 4})).await;
    assert_eq!((answer.status, answer.message().as_str()), (409, "only 3 of shade left, 4 asked for"));
    assert_eq!(post(&shop, "/payments", None, &json!({"amount": 5})).await.status, 400);
    assert_eq!(shop.state().unwrap(), quick().state().unwrap(), "nothing was written");
}

#[tokio::test]
async fn a_key_is_carried_out_once() {
    let shop = quick();
    let pay = json!({"order_id": "123", "amount_cents": 5});
    let first = post(&shop, "/payments", Some("k"), &pay).await;
    let second = post(&shop, "/payments", Some("k"), &pay).await;
    assert_eq!((first.status, &first.body), (second.status, &second.body));
    assert_eq!((first.header("idempotent-replay"), second.header("idempotent-replay")), (None, Some("true")));
    assert_eq!(shop.state().unwrap().tables["payments"].len(), 1);
    let other = post(&shop, "/payments", Some("k"), &json!({"order_id": "124", "amount_cents": 5})).await;
    assert_eq!((other.status, other.json()["error"]["code"].as_str()), (422, Some("idempotency_key_reused")));
    post(&shop, "/payments", Some("l"), &pay).await;
    assert_eq!(shop.state().unwrap().tables["payments"].len(), 2);
}

#[tokio::test]
async fn the_ledger_holds_every_request_with_its_times() {
    let shop = quick();
    get(&shop, "/inventory/bulb").await;
    post(&shop, "/orders/123/notes", Some("k"), &json!({"text": "hi"})).await;
    get(&shop, "/orders/9").await;
    let ledger = shop.ledger().unwrap();
    let seen: Vec<_> = ledger
        .iter()
        .map(|entry| (entry.method.as_str(), entry.path.as_str(), entry.idempotency_key.as_deref(), entry.status))
        .collect();
    assert_eq!(
        seen,
        [
            ("GET", "/inventory/bulb", None, Some(200)),
            ("POST", "/orders/123/notes", Some("k"), Some(201)),
            ("GET", "/orders/9", None, Some(404)),
        ]
    );
    assert!(ledger.iter().all(|entry| entry.ended.is_some_and(|ended| ended >= entry.started)));
    assert!(ledger.windows(2).all(|pair| pair[0].ended <= Some(pair[1].started)), "asked one after another");
}

#[test]
fn the_tools_declare_their_effects_but_one() {
    let text = shop::tools_toml("http://shop");
    assert!(!text.contains("${"));
    let table: toml::Table = text.parse().expect("valid TOML");
    let tools = table["tool"].as_array().unwrap();
    let undeclared: Vec<_> =
        tools.iter().filter(|tool| tool.get("writes").is_none()).map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!((tools.len(), undeclared), (10, vec!["add_note"]));
    assert!(tools.iter().all(|tool| tool["http"]["url"].as_str().unwrap().starts_with("http://shop/")));
}

/// Carries out one call of the story as a client with the shop's tools would.
async fn carry_out(shop: &Shop, call: &Value) -> Value {
    let input = &call["input"];
    let text = |name: &str| input[name].as_str().unwrap_or_default().to_owned();
    let answer = match call["name"].as_str().expect("a name") {
        "get_order" => get(shop, &format!("/orders/{}", text("order_id"))).await,
        "get_customer" => get(shop, &format!("/customers/{}", text("customer_id"))).await,
        "get_stock" => get(shop, &format!("/inventory/{}", text("sku"))).await,
        "shipping_quote" => {
            get(shop, &format!("/shipping/quote?order_id={}&carrier={}", text("order_id"), text("carrier"))).await
        }
        "reserve_stock" => post(shop, &format!("/inventory/{}/reserve", text("sku")), None, input).await,
        "charge_payment" => post(shop, "/payments", None, input).await,
        "add_note" => post(shop, &format!("/orders/{}/notes", text("order_id")), None, input).await,
        other => panic!("the story calls `{other}`"),
    };
    let is_error = answer.status >= 400;
    json!({"type": "tool_result", "tool_use_id": call["id"], "content": answer.text(), "is_error": is_error})
}

#[tokio::test]
async fn order_123_is_processed_in_three_turns_from_what_the_shop_answers() {
    let shop = quick();
    let desk = Desk::open(ServerOptions::responder(|conversation: &Conversation| {
        let mut turn = story::turn(conversation);
        assert!(turn.pace.think_ms > 0 && turn.pace.tok_per_s > 0.0);
        turn.pace = fanout_script::Pace::default();
        turn
    }));
    let mut history = json!({"role": "user", "content": story::PROMPT}).to_string();
    let mut calls = Vec::new();
    let text = loop {
        let answer = desk.ask(&format!("[{history}]"), false).await;
        let message = answer.json();
        let blocks = message["content"].as_array().unwrap();
        let batch: Vec<&Value> = blocks.iter().filter(|block| block["type"] == "tool_use").collect();
        if message["stop_reason"] == "end_turn" {
            break blocks[0]["text"].as_str().unwrap().to_owned();
        }
        calls.push(batch.len());
        let mut results = Vec::new();
        for call in batch {
            results.push(carry_out(&shop, call).await);
        }
        let said = content_of(&answer.text());
        let reply = json!({"role": "user", "content": results});
        history = format!(r#"{history},{{"role":"assistant","content":{said}}},{reply}"#);
    };
    assert_eq!(calls, [5, 5]);
    assert_eq!(
        text,
        "Order #123 is processed. The desk-lamp units are reserved (10 left, then 9 left). Payment 1 of 98.08 went through. \
         A note is on the order. shipping_quote failed: pigeon carries at most 50 g and order 123 weighs 4200 g; ask courier \
         or rail."
    );
    assert_eq!(shop.state().unwrap().tables["payments"], [["123", "1", "9808"]]);
    assert_eq!(desk.server.violations(), []);
}

#[test]
fn without_a_runtime_nothing_starts_and_nothing_panics() {
    assert!(Server::start(ServerOptions::default()).is_err());
    assert!(Shop::start().is_err());
}
