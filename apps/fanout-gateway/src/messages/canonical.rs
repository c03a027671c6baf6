//! What a message says, whoever spelled it: clients print anew what they were given.
//!
//! From a message that was returned, and from the histories that clients send. To [`standin`](super::standin): a digest that
//! is the same for both.
//!
//! Key order, white space, `null` fields, `1.0` for `1`, `cache_control`, a string for one text block, and two texts that were
//! joined change nothing. Thinking counts for nothing: some clients drop it. Nothing here is ever sent.

use fanout_anthropic::{Block, Input, Message, Role, View};
use ring::digest::{Context, SHA256};
use serde_json::Value;

/// What was said, in 32 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    /// As 64 digits.
    pub(crate) fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Back from its digits.
    pub(crate) fn of_hex(digits: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if digits.len() != 64 || !digits.is_ascii() {
            return None;
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// A digest in the making. Every part is written with its length, so that no two lists of parts read the same.
struct Writer(Context);

impl Writer {
    fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    fn put(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    fn finish(self) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.finish().as_ref());
        Digest(bytes)
    }
}

/// Any bytes, as they are.
pub(crate) fn of_bytes(parts: &[&[u8]]) -> Digest {
    let mut writer = Writer::new();
    parts.iter().for_each(|part| writer.put(part));
    writer.finish()
}

/// The content of one message.
pub(crate) fn of_content(blocks: &[Block]) -> Digest {
    let mut writer = Writer::new();
    let mut text = String::new();
    for block in blocks {
        match block.view() {
            View::Text(more) => {
                text.push_str(more);
                continue;
            }
            View::Thinking => continue,
            _ => {}
        }
        put_text(&mut writer, &mut text);
        match block.view() {
            View::ToolUse(call) => {
                writer.put(b"tool_use");
                writer.put(call.id.as_bytes());
                writer.put(call.name.as_bytes());
                match &call.input {
                    Input::Json(value) => put_value(&mut writer, value),
                    Input::Invalid(text) => writer.put(text.as_bytes()),
                }
            }
            _ => put_value(&mut writer, &serde_json::from_str(block.raw().as_str()).unwrap_or_default()),
        }
    }
    put_text(&mut writer, &mut text);
    writer.finish()
}

/// A history so far, with one more message at its end.
pub(crate) fn then(before: Digest, role: Role, content: Digest) -> Digest {
    let role: &[u8] = if role == Role::Assistant { b"assistant" } else { b"user" };
    of_bytes(&[&before.0, role, &content.0])
}

/// A history so far, with one more message at its end. A message that cannot be read counts as its text.
pub(crate) fn then_message(before: Digest, message: &Message) -> Digest {
    let content = match message.blocks() {
        Ok(blocks) => of_content(&blocks),
        Err(_) => of_bytes(&[message.raw().as_str().as_bytes()]),
    };
    then(before, message.role(), content)
}

/// Whether a content can be told from any other: it holds an id.
pub(crate) fn is_unique(blocks: &[Block]) -> bool {
    blocks.iter().any(|block| matches!(block.view(), View::ToolUse(_) | View::ServerToolUse { .. }))
}

fn put_text(writer: &mut Writer, text: &mut String) {
    if !text.is_empty() {
        writer.put(b"text");
        writer.put(text.as_bytes());
        text.clear();
    }
}

fn put_value(writer: &mut Writer, value: &Value) {
    match value {
        Value::Null => writer.put(b"null"),
        Value::Bool(true) => writer.put(b"true"),
        Value::Bool(false) => writer.put(b"false"),
        Value::String(text) => {
            writer.put(b"\"");
            writer.put(text.as_bytes());
        }
        // Some clients know one kind of number only.
        Value::Number(number) => match number.as_f64() {
            Some(number) => writer.put(&(number + 0.0).to_le_bytes()),
            None => writer.put(number.to_string().as_bytes()),
        },
        Value::Array(values) => {
            writer.put(b"[");
            values.iter().for_each(|value| put_value(writer, value));
            writer.put(b"]");
        }
        Value::Object(fields) => {
            let says = |(key, value): &(&String, &Value)| !value.is_null() && *key != "cache_control";
            let mut fields: Vec<_> = fields.iter().filter(says).collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            writer.put(b"{");
            for (key, value) in fields {
                writer.put(key.as_bytes());
                put_value(writer, value);
            }
            writer.put(b"}");
        }
    }
}

#[cfg(test)]
mod tests {
    use fanout_anthropic::{Message, Raw};

    use super::*;

    fn digest(content: &str) -> Digest {
        let raw = Raw::parse(format!(r#"{{"role":"assistant","content":{content}}}"#)).unwrap();
        of_content(&Message::parse(raw).unwrap().blocks().unwrap())
    }

    #[track_caller]
    fn check(a: &str, b: &str, same: bool) {
        assert_eq!(digest(a) == digest(b), same, "{a} and {b}");
    }

    #[test]
    fn spelling_changes_nothing() {
        let call = r#"[{"type":"tool_use","id":"t","name":"n","input":{"a":1,"b":[2.5,{"c":null}]}}]"#;
        for same in [
            r#"[{"name":"n","id":"t","type":"tool_use","input":{"b":[2.50,{}],"a":1.0}}]"#,
            r#"[{"type":"tool_use","id":"\u0074","name":"n","input":{"a":1,"b":[2.5,{}]},"caller":{"type":"direct"}}]"#,
            r#"[{"type":"tool_use","id":"t","name":"n","input":{"a":1,"b":[2.5,{}]},"cache_control":{"type":"ephemeral"}}]"#,
            r#"[{"type":"thinking","thinking":"x","signature":"y"},{"type":"tool_use","id":"t","name":"n","input":{"a":1,"b":[2.5,{}]}}]"#,
        ] {
            check(call, same, true);
        }
        check(r#""hello""#, r#"[{"type":"text","text":"hel","citations":null},{"type":"text","text":"lo"}]"#, true);
        check(r#"[{"type":"x","n":-0.0}]"#, r#"[{"n":0,"type":"x"}]"#, true);
    }

    #[test]
    fn meaning_changes_everything() {
        check(r#""hello""#, r#""hello ""#, false);
        check(r#"[{"type":"x","a":"1"}]"#, r#"[{"type":"x","a":1}]"#, false);
        check(r#"[{"type":"x","a":["b","c"]}]"#, r#"[{"type":"x","a":["bc"]}]"#, false);
        check(r#"[{"type":"x","a":{"b":"c"}}]"#, r#"[{"type":"x","a":["b","c"]}]"#, false);
        check(
            r#"[{"type":"tool_use","id":"t","name":"n","input":{}}]"#,
            r#"[{"type":"tool_use","id":"u","name":"n","input":{}}]"#,
            false,
        );
    }
}
