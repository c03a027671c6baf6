//! A response to calls, and outcomes to the one reply: both ways in one file.

use std::sync::Arc;

use fanout_anthropic::{Block, Input, Message, ResultContent, ToolResult, View};
use fanout_core::call::{self, Call, Position};
use fanout_core::outcome::{Content, Outcome};

/// How ids of calls begin that the server runs itself and answers itself, whatever the kind of their block.
const SERVER_ID: &str = "srvtoolu_";

/// The calls that a response asks us to run, in program order. Calls that the server runs itself are not among them.
pub fn calls_of(blocks: &[Block]) -> Vec<Call> {
    let mut calls = Vec::new();
    for block in blocks {
        let index = u32::try_from(calls.len()).unwrap_or(u32::MAX);
        calls.extend(call_of(index, block));
    }
    calls
}

/// The call in this block, if it is one: the `index`-th of its response.
pub(crate) fn call_of(index: u32, block: &Block) -> Option<Call> {
    let View::ToolUse(asked) = block.view() else { return None };
    if asked.id.starts_with(SERVER_ID) {
        return None;
    }
    Some(Call {
        id: asked.id.as_str().into(),
        tool: asked.name.as_str().into(),
        input: match &asked.input {
            Input::Json(value) => call::Input::Json(value.clone()),
            Input::Invalid(raw) => call::Input::Invalid(raw.clone()),
        },
        position: Position::block(index),
        links: Vec::new(),
    })
}

/// The one user message that answers the calls of a response: their results, in the order of the outcomes, and nothing
/// else. A batch gives one outcome per call in program order, so every id is answered once.
pub fn reply(outcomes: &[Arc<Outcome>]) -> Message {
    Message::tool_results(outcomes.iter().map(|outcome| result_of(outcome)).collect::<Vec<_>>())
}

pub(crate) fn result_of(outcome: &Outcome) -> ToolResult {
    let content = |content: &Content| match content {
        Content::Text(text) => ResultContent::Text(text.to_string()),
        Content::Image { media_type, data } => {
            ResultContent::Image { media_type: media_type.clone(), data_base64: data.to_string() }
        }
    };
    ToolResult {
        tool_use_id: outcome.call.to_string(),
        content: outcome.shown.iter().map(content).collect(),
        is_error: outcome.is_error(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanout_anthropic::Raw;

    #[test]
    fn what_the_server_runs_is_no_call_of_ours_whatever_its_block_says() {
        let block = |id: &str| {
            let raw = format!(r#"{{"type":"tool_use","id":"{id}","name":"t","input":{{}}}}"#);
            Block::parse(Raw::parse(raw).unwrap()).unwrap()
        };
        let calls = calls_of(&[block("srvtoolu_1"), block("toolu_2")]);
        assert_eq!(calls.len(), 1);
        assert_eq!((calls[0].id.as_str(), &calls[0].position), ("toolu_2", &Position::block(0)));
    }
}
