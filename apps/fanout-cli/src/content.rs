//! What stands on standard input: the calls of one response, in any of the shapes that programs have at hand.

use std::io::{IsTerminal, Read};

use anyhow::{Context, bail, ensure};
use fanout_agent::calls_of;
use fanout_anthropic::{Block, Message, Raw};
use fanout_core::call::Call;

/// Input beyond this is refused: the API itself takes no larger request.
const INPUT_MAX: u64 = 32 * 1024 * 1024;

/// Reads an assistant message, a content array or a whole API response, and gives its calls.
pub fn calls_from_stdin() -> anyhow::Result<Vec<Call>> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        anstream::eprintln!("reading an assistant message from standard input; end it with Ctrl-D");
    }
    let mut text = String::new();
    stdin.lock().take(INPUT_MAX + 1).read_to_string(&mut text).context("standard input is not UTF-8 text")?;
    ensure!(text.len() as u64 <= INPUT_MAX, "standard input is more than {INPUT_MAX} bytes");
    calls_from(&text)
}

fn calls_from(text: &str) -> anyhow::Result<Vec<Call>> {
    ensure!(!text.trim().is_empty(), "standard input is empty; it takes an assistant message, such as {EXAMPLE}");
    let raw = Raw::parse(text).with_context(|| format!("standard input is not JSON; it takes {EXAMPLE}"))?;
    let message = match raw.as_str().trim_start().chars().next() {
        Some('[') => format!(r#"{{"role":"assistant","content":{}}}"#, raw.as_str()),
        Some('{') => raw.as_str().to_owned(),
        _ => bail!("standard input is neither a message nor an array of content; it takes {EXAMPLE}"),
    };
    let message = Raw::parse(message).and_then(Message::parse);
    let message = message.with_context(|| format!("standard input is no assistant message; it takes {EXAMPLE}"))?;
    let blocks: Vec<Block> = message.blocks().context("the message's content cannot be read")?;
    let calls = calls_of(&blocks);
    ensure!(!calls.is_empty(), "there is no `tool_use` block on standard input, so there is nothing to run");
    Ok(calls)
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
        let expected = calls_from(content).unwrap();
        assert_eq!(expected.len(), 1);
        assert_eq!(calls_from(&message).unwrap(), expected);
        assert_eq!(calls_from(&response).unwrap(), expected);
    }

    #[test]
    fn what_is_no_response_is_refused_with_an_example() {
        for text in ["", "hello", "3", "{}", "[]", r#"{"role":"assistant","content":[{"type":"text","text":"x"}]}"#] {
            assert!(calls_from(text).is_err(), "{text}");
        }
    }
}
