//! The same order processed twice: turn after turn, and in one planning turn.
//!
//! From a [`Conversation`]: what the tools answered. To a [`Turn`]. Both use the same tools, ask for the same calls, and come to
//! the same state of the shop. Turn after turn, a call is asked for as soon as what it needs is there; a plan names what it
//! needs instead.
//!
//! The order's lines, the customer and the carrier are known to neither before the shop has named them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::conversation::Conversation;
use crate::script::{Block, Pace, Turn};

/// What the user asks. Nothing is read from it but the order's number.
pub const PROMPT: &str = "Process order #123, with a free replacement of its first product: reserve everything, ship with the \
    cheapest carrier, charge the customer once all is reserved, and write to them.";

const ORDER: &str = "123";
const SUBJECT: &str = "Your order #123";
const BODY: &str = "It is paid and on its way, with a replacement at no charge.";

/// How long the model thinks before each turn: as in the benches.
const THINK: Duration = Duration::from_millis(500);

/// As in the other story.
const TOKENS_PER_S: f64 = 250.0;

/// Turn after turn: all calls whose inputs are known go in one response.
pub fn step(conversation: &Conversation) -> Turn {
    let seen = Seen::of(conversation);
    let turn = match conversation.assistant_turns() {
        0 => Turn::new([
            Block::text("I'll look up the order and the cheapest carrier."),
            call("get_order", &json!({ "order_id": ORDER })),
            call("cheapest_quote", &json!({ "order_id": ORDER })),
        ]),
        1 => {
            let order = seen.first("get_order");
            let customer = call("get_customer", &json!({ "customer_id": order["customer_id"] }));
            let lines = order["lines"].as_array().into_iter().flatten();
            let reserve = |line: &Value| json!({ "sku": line["sku"], "n": line["quantity"] });
            let replacement = json!({ "sku": order["lines"][0]["sku"], "n": 1 });
            let reserved = lines.map(reserve).chain([replacement]).map(|input| call("reserve_stock", &input));
            let said = Block::text("Now the customer, and the stock.");
            Turn::new([said, customer].into_iter().chain(reserved))
        }
        2 => {
            let shipping = &seen.first("cheapest_quote")["price_cents"];
            let charge = call("charge_order", &json!({ "order_id": ORDER, "shipping_cents": shipping }));
            Turn::new([Block::text("All is reserved, so I'll charge."), charge])
        }
        3 => {
            let to = &seen.first("get_customer")["email"];
            let email = call("send_email", &json!({ "to": to, "subject": SUBJECT, "body": BODY }));
            Turn::new([Block::text("It is paid, so I'll write."), email])
        }
        _ => {
            let (customer, quote) = (seen.first("get_customer"), seen.first("cheapest_quote"));
            let charge = seen.first("charge_order");
            Turn::text(sum_up(&customer["name"], &quote["carrier"], &charge["amount_cents"], seen.last("send_email")))
        }
    };
    turn.pace(Pace::new(THINK, TOKENS_PER_S))
}

/// One turn that plans, one that sums up.
pub fn plan(conversation: &Conversation) -> Turn {
    let turn = match conversation.assistant_turns() {
        0 => Turn::new([Block::text("I'll do it in one plan."), Block::tool_use("plan", PLAN)]),
        _ => {
            let answer = Seen::of(conversation).first("plan");
            let (name, carrier, paid) =
                (&answer["customer#/name"], &answer["quote#/carrier"], &answer["charge#/amount_cents"]);
            Turn::text(sum_up(name, carrier, paid, answer["email"].clone()))
        }
    };
    turn.pace(Pace::new(THINK, TOKENS_PER_S))
}

/// As a model writes it: its fields in the order of the description, and no spaces.
const PLAN: &str = concat!(
    r##"{"calls":[{"label":"order","tool":"get_order","input":{"order_id":"123"}},"##,
    r##"{"label":"quote","tool":"cheapest_quote","input":{"order_id":"123"}},"##,
    r##"{"label":"customer","tool":"get_customer","input":{"customer_id":{"$ref":"order#/customer_id"}}},"##,
    r##"{"label":"reserve","tool":"reserve_stock","for_each":{"$ref":"order#/lines"},"##,
    r##""input":{"sku":{"$ref":"item#/sku"},"n":{"$ref":"item#/quantity"}}},"##,
    r##"{"label":"replace","tool":"reserve_stock","input":{"sku":{"$ref":"order#/lines/0/sku"},"n":1}},"##,
    r##"{"label":"charge","tool":"charge_order","input":{"order_id":"123","shipping_cents":{"$ref":"quote#/price_cents"}},"##,
    r##""needs":["reserve","replace"]},"##,
    r##"{"label":"email","tool":"send_email","input":{"to":{"$ref":"customer#/email"},"subject":"Your order #123","##,
    r##""body":"It is paid and on its way, with a replacement at no charge."},"needs":["charge"]}],"##,
    r##""return":["customer#/name","quote#/carrier","charge#/amount_cents","email"]}"##,
);

fn sum_up(name: &Value, carrier: &Value, paid: &Value, email: Value) -> String {
    let (Some(name), Some(carrier), Some(paid), true) =
        (name.as_str(), carrier.as_str(), paid.as_i64(), email["email"].is_i64())
    else {
        return format!("Order #{ORDER} could not be processed to its end.");
    };
    let paid = format!("{}.{:02}", paid / 100, paid % 100);
    format!("Order #{ORDER} is processed: {name} paid {paid}, {carrier} carries it, and an e-mail says so.")
}

fn call(tool: &str, input: &Value) -> Block {
    Block::tool_use(tool, input.to_string())
}

/// All results so far.
struct Seen(Vec<(String, Value)>);

impl Seen {
    fn of(conversation: &Conversation) -> Self {
        let parts = || conversation.messages().iter().flat_map(|message| &message.parts);
        let tool = |id: &str| parts().find(|part| part.id.as_deref() == Some(id)).and_then(|part| part.name.clone());
        let results = parts().filter(|part| part.kind == "tool_result" && !part.is_error);
        let result = results.filter_map(|part| {
            let value = part.text.find('{').and_then(|from| serde_json::from_str(part.text[from..].trim()).ok());
            Some((tool(part.tool_use_id.as_deref()?)?, value.unwrap_or_default()))
        });
        Self(result.collect())
    }

    fn first(&self, tool: &str) -> Value {
        self.0.iter().find(|(known, _)| known == tool).map(|(_, value)| value.clone()).unwrap_or_default()
    }

    fn last(&self, tool: &str) -> Value {
        self.0.iter().rev().find(|(known, _)| known == tool).map(|(_, value)| value.clone()).unwrap_or_default()
    }
}
