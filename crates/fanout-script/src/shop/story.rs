//! "Process order #123": a conversation in three turns, written from the results as they come.
//!
//! From a [`Conversation`]: what the tools answered. To a [`Turn`]: first what can be looked up at once, then what has to
//! be written, then what came of it. Nothing that it says about the shop is known beforehand but what stands in the prompt.

use std::time::Duration;

use serde_json::{Value, json};

use crate::conversation::{Conversation, ToolResult};
use crate::script::{Block, Pace, Turn};

/// What the user asks. The story reads nothing from it; it names what the first turn looks up.
pub const PROMPT: &str = "Process order #123 of customer c7: two desk-lamp, and a third one as a free replacement. \
    Ship it with the cheapest carrier.";

/// The order that the story is about.
const ORDER: &str = "123";
const CUSTOMER: &str = "c7";
const SKU: &str = "desk-lamp";

/// How long the model thinks before each turn.
const THINK: Duration = Duration::from_millis(150);

/// How fast it writes: slow enough that a call can be seen to start while the next one is still being written.
const TOKENS_PER_S: f64 = 250.0;

/// The turn that comes next.
pub fn turn(conversation: &Conversation) -> Turn {
    let results = conversation.tool_results();
    let turn = match conversation.assistant_turns() {
        0 => look_up(),
        1 => write_down(&results),
        _ => Turn::text(sum_up(&results)),
    };
    turn.pace(Pace::new(THINK, TOKENS_PER_S))
}

/// Five reads that have nothing to do with each other.
fn look_up() -> Turn {
    let quote = |carrier: &str| call("shipping_quote", &json!({"order_id": ORDER, "carrier": carrier}));
    Turn::new([
        Block::text("I'll look up the order, the customer, the stock and two carriers."),
        quote("courier"),
        quote("rail"),
        call("get_order", &json!({"order_id": ORDER})),
        call("get_customer", &json!({"customer_id": CUSTOMER})),
        call("get_stock", &json!({"sku": SKU})),
    ])
}

/// Two writes to one shelf, which must keep their order, a payment, a quote that fails, and a note.
fn write_down(results: &[ToolResult]) -> Turn {
    let Some(order) = answers(results, "get_order").next() else {
        return Turn::text(format!("I could not look up order #{ORDER}, so I changed nothing. {}", failures(results)));
    };
    let lamps = order["lines"][0]["quantity"].as_i64().unwrap_or(1);
    let cheapest = answers(results, "shipping_quote").min_by_key(|quote| quote["price_cents"].as_i64());
    let shipping = cheapest.as_ref().and_then(|quote| quote["price_cents"].as_i64()).unwrap_or(0);
    let total = order["total_cents"].as_i64().unwrap_or(0) + shipping;
    let carrier = cheapest.as_ref().and_then(|quote| quote["carrier"].as_str()).unwrap_or("no carrier");
    let name = answers(results, "get_customer").next().unwrap_or_default();
    let name = name["name"].as_str().unwrap_or("the customer");
    Turn::new([
        Block::text(format!("{name} gets {lamps} and a replacement. I'll reserve, charge, and try one more carrier.")),
        call("reserve_stock", &json!({"sku": SKU, "n": lamps})),
        call("reserve_stock", &json!({"sku": SKU, "n": 1})),
        call("charge_payment", &json!({"order_id": ORDER, "amount_cents": total})),
        call("shipping_quote", &json!({"order_id": ORDER, "carrier": "pigeon"})),
        call("add_note", &json!({"order_id": ORDER, "text": format!("ships by {carrier}, one unit is a replacement")})),
    ])
}

fn sum_up(results: &[ToolResult]) -> String {
    let mut said = Vec::new();
    let remaining: Vec<String> =
        answers(results, "reserve_stock").map(|reply| format!("{} left", reply["remaining"])).collect();
    if !remaining.is_empty() {
        said.push(format!("The {SKU} units are reserved ({}).", remaining.join(", then ")));
    }
    if let Some(payment) = answers(results, "charge_payment").next() {
        said.push(format!("Payment {} of {} went through.", payment["payment"], money(&payment["amount_cents"])));
    }
    if answers(results, "add_note").next().is_some() {
        said.push("A note is on the order.".to_owned());
    }
    let opening = if said.is_empty() {
        format!("Order #{ORDER} is not processed.")
    } else {
        format!("Order #{ORDER} is processed.")
    };
    format!("{opening} {} {}", said.join(" "), failures(results)).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn call(tool: &str, input: &Value) -> Block {
    Block::tool_use(tool, input.to_string())
}

/// What a tool answered, of those results that are no errors, as JSON.
fn answers<'a>(results: &'a [ToolResult], tool: &'a str) -> impl Iterator<Item = Value> + 'a {
    let fine = results.iter().filter(move |result| result.tool == tool && !result.is_error);
    fine.filter_map(|result| json_in(&result.text))
}

/// The JSON object in a result's text, which may stand among other words.
fn json_in(text: &str) -> Option<Value> {
    let from = text.find('{')?;
    serde_json::Deserializer::from_str(&text[from..]).into_iter().next()?.ok()
}

fn failures(results: &[ToolResult]) -> String {
    let failed = results.iter().filter(|result| result.is_error);
    failed.map(|result| format!("{} failed: {}.", result.tool, reason(&result.text))).collect::<Vec<_>>().join(" ")
}

/// The innermost message of an error, or its text.
fn reason(text: &str) -> String {
    let message = json_in(text).and_then(|error| error["error"]["message"].as_str().map(str::to_owned));
    match message {
        Some(message) if json_in(&message).is_some() => reason(&message),
        Some(message) => message,
        None => text.trim().to_owned(),
    }
}

fn money(cents: &Value) -> String {
    let cents = cents.as_i64().unwrap_or(0);
    format!("{}.{:02}", cents / 100, cents % 100)
}
