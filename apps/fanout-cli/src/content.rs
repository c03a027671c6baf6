//! What stands on standard input: the calls of one response, in any of the shapes that programs have at hand.

use std::collections::HashSet;
use std::io::{IsTerminal, Read};

use anyhow::{Context, bail, ensure};
use fanout_agent::calls_of;
use fanout_anthropic::{Block, Message, Raw, Role, StopReason};
use fanout_core::call::Call;

use crate::show::say;

/// Input beyond this is refused: the API itself takes no larger request.
const INPUT_MAX: u64 = 32 * 1024 * 1024;

/// The calls of one response.
#[derive(Debug, PartialEq)]
pub struct Asked {
    /// In program order; at least one, and no two of one id.
    pub calls: Vec<Call>,
    /// Why none of them may run, where the response says that it is not whole.
    pub cut_off: Option<String>,
}

/// Reads an assistant message, a content array or a whole API response, and gives its calls.
pub fn from_stdin() -> anyhow::Result<Asked> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        say("reading an assistant message from standard input; end it with Ctrl-D");
    }
    let mut text = String::new();
    stdin.lock().take(INPUT_MAX + 1).read_to_string(&mut text).context("standard input is not UTF-8 text")?;
    ensure!(text.len() as u64 <= INPUT_MAX, "standard input is more than {INPUT_MAX} bytes");
    asked(&text)
}

fn asked(text: &str) -> anyhow::Result<Asked> {
    // Some programs begin a file so.
    let text = text.trim_start_matches('\u{feff}').trim();
    ensure!(!text.is_empty(), "standard input is empty; it takes an assistant message, such as {EXAMPLE}");
    let raw = Raw::parse(text).with_context(|| format!("standard input is not JSON; it takes {EXAMPLE}"))?;
    let cut_off = match text.chars().next() {
        Some('{') => cut_off(text)?,
        Some('[') => None,
        _ => bail!("standard input is neither a message nor an array of content; it takes {EXAMPLE}"),
    };
    let message = match text.starts_with('[') {
        true => Raw::parse(format!(r#"{{"role":"assistant","content":{text}}}"#)),
        false => Ok(raw),
    };
    let message = message.and_then(Message::parse);
    let message = message.with_context(|| format!("standard input is no assistant message; it takes {EXAMPLE}"))?;
    ensure!(
        message.role() == Role::Assistant,
        "the message on standard input is not the model's (its `role` is not `assistant`); it takes {EXAMPLE}"
    );
    let blocks: Vec<Block> = message.blocks().context("the message's content cannot be read")?;
    let calls = calls_of(&blocks);
    ensure!(!calls.is_empty(), "there is no `tool_use` block on standard input, so there is nothing to run");
    let mut ids = HashSet::new();
    if let Some(call) = calls.iter().find(|call| !ids.insert(&call.id)) {
        bail!("two `tool_use` blocks have the id `{}`: each result is matched to its call by id", call.id);
    }
    Ok(Asked { calls, cut_off })
}

/// Why no call of a response may run, if it says so: only one that stopped for its tools is whole.
fn cut_off(response: &str) -> anyhow::Result<Option<String>> {
    let response: serde_json::Value = serde_json::from_str(response)?;
    let Some(reason) = response["stop_reason"].as_str() else { return Ok(None) };
    match StopReason::from_name(reason) {
        StopReason::ToolUse => Ok(None),
        StopReason::Refusal => {
            bail!("the response on standard input is a refusal: none of its calls may run, and none needs an answer")
        }
        _ => Ok(Some(format!("the response stopped as `{reason}`, so it may not be whole"))),
    }
}

const EXAMPLE: &str = r#"{"role":"assistant","content":[{"type":"tool_use","id":"toolu_1","name":"get_order","input":{"order_id":"7"}}]}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_its_content_and_a_whole_response_are_the_same() {
        let content = r#"[{"type":"text","text":"hm"},{"type":"tool_use","id":"a","name":"t","input":{"x":1.0}}]"#;
        let message = format!(r#"{{"role":"assistant","content":{content}}}"#);
        let response = format!(
            r#"{{"id":"msg_1","type":"message","role":"assistant","model":"m","content":{content},"stop_reason":"tool_use","usage":{{}}}}"#
        );
        let expected = asked(content).unwrap();
        assert_eq!((expected.calls.len(), expected.cut_off.is_none()), (1, true));
        assert_eq!(asked(&message).unwrap(), expected);
        assert_eq!(asked(&response).unwrap(), expected);
        assert_eq!(asked(&format!("\u{feff}\n {content}\n")).unwrap(), expected);
        let cut = asked(&response.replace("\"tool_use\",\"usage", "\"max_tokens\",\"usage")).unwrap();
        assert_eq!(cut.cut_off.unwrap(), "the response stopped as `max_tokens`, so it may not be whole");
    }

    #[test]
    fn what_is_no_response_is_refused_with_an_example() {
        let twins = r#"[{"type":"tool_use","id":"a","name":"t","input":{}},{"type":"tool_use","id":"a","name":"t","input":{}}]"#;
        let user = r#"{"role":"user","content":[{"type":"tool_use","id":"a","name":"t","input":{}}]}"#;
        let refused = r#"{"role":"assistant","stop_reason":"refusal","content":[{"type":"tool_use","id":"a","name":"t","input":{}}]}"#;
        for text in [
            twins,
            user,
            refused,
            "",
            "hello",
            "3",
            "{}",
            "[]",
            r#"{"role":"assistant","content":[{"type":"text","text":"x"}]}"#,
        ] {
            assert!(asked(text).is_err(), "{text}");
        }
    }
}
