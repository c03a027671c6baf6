//! A whole scenario inside the first user text: `{"turns":[[{"name":…,"input":…}]],"think_ms":…,"tok_per_s":…}`.
//!
//! From the prompt. To a [`Turn`]: the calls of that turn, or the text "done" after the last.
//! With it one server serves any benchmark or walk-through without being told beforehand.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::conversation::Conversation;
use crate::script::{Block, Pace, Turn};

#[derive(Deserialize)]
struct Scenario {
    turns: Vec<Vec<Call>>,
    #[serde(default)]
    think_ms: u64,
    #[serde(default)]
    tok_per_s: f64,
}

#[derive(Deserialize)]
struct Call {
    name: String,
    input: Option<Box<RawValue>>,
}

/// What is said to a prompt that holds no scenario.
const NO_SCENARIO: &str = "This is the scripted model. Put a scenario into the prompt, such as \
    {\"turns\":[[{\"name\":\"get_order\",\"input\":{\"id\":\"123\"}}]]}, or start the server with a script.";

/// The turn that a scenario in the first user text asks for.
pub(crate) fn turn(conversation: &Conversation) -> Turn {
    let Some(scenario) = conversation.first_user_texts().find_map(find) else {
        return Turn::text(NO_SCENARIO);
    };
    let turn = match scenario.turns.get(conversation.assistant_turns()) {
        Some(calls) => Turn::new(
            calls
                .iter()
                .map(|call| Block::tool_use(call.name.clone(), call.input.as_ref().map_or("{}", |input| input.get()))),
        ),
        None => Turn::text("done"),
    };
    turn.pace(Pace { think_ms: scenario.think_ms, tok_per_s: scenario.tok_per_s, event_ms: 0 })
}

/// The first JSON object in `text`, if it is a scenario; text around it is of no matter.
fn find(text: &str) -> Option<Scenario> {
    let from = text.find('{')?;
    serde_json::Deserializer::from_str(&text[from..]).into_iter().next()?.ok()
}
