//! What a returned message stands for, as the journal keeps it, and back.
//!
//! From and to [`standin`](super::standin). Messages and results are kept as their exact text.

use fanout_agent::{Handed, Handover};
use fanout_anthropic::{Block, Message, Raw};
use fanout_core::call::{Call, Input, Position, RunId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::canonical::Digest;
use super::standin::{Pending, Returned, Standin};

#[derive(Serialize, Deserialize)]
struct Form {
    before: String,
    content: String,
    is_unique: bool,
    id: String,
    last_id: String,
    ours: Vec<String>,
    has_hidden: bool,
    messages: Vec<Box<RawValue>>,
    calls: Vec<CallForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settled_by: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CallForm {
    Answered(Box<RawValue>),
    Theirs(String),
    Waiting {
        id: String,
        tool: String,
        input: Value,
    },
    /// Its input is no JSON.
    Unreadable {
        id: String,
        tool: String,
        input: String,
    },
}

/// As one text.
pub(crate) fn write(returned: &Returned, messages: &[Message], pending: &Pending) -> String {
    let form = Form {
        before: returned.before.to_hex(),
        content: returned.content.to_hex(),
        is_unique: returned.is_unique,
        id: returned.id.clone(),
        last_id: returned.last_id.clone(),
        ours: returned.ours.iter().map(str::to_owned).collect(),
        has_hidden: returned.has_hidden,
        messages: messages.iter().filter_map(|message| raw(message.raw())).collect(),
        calls: pending.handover.calls.iter().filter_map(call_form).collect(),
        settled_by: pending.settled_by.as_ref().map(ToString::to_string),
    };
    serde_json::to_string(&form).unwrap_or_default()
}

/// Back from the text; `None` if it is none of ours.
pub(crate) fn read(text: &str) -> Option<Standin> {
    let form: Form = serde_json::from_str(text).ok()?;
    let message = |raw: &RawValue| Message::parse(Raw::parse(raw.get()).ok()?).ok();
    let calls = form.calls.into_iter().zip(0..).map(|(call, index)| handed(call, index));
    let handover = Handover { calls: calls.collect::<Option<_>>()? };
    let returned = Returned {
        before: Digest::of_hex(&form.before)?,
        content: Digest::of_hex(&form.content)?,
        is_unique: form.is_unique,
        id: form.id,
        last_id: form.last_id,
        ours: form.ours.into_iter().collect(),
        has_hidden: form.has_hidden,
    };
    let messages = form.messages.iter().map(|raw| message(raw)).collect::<Option<_>>()?;
    let pending = Pending { handover, settled_by: form.settled_by.map(RunId::from) };
    Some(Standin::new(returned, Some(messages), pending))
}

fn raw(raw: &Raw) -> Option<Box<RawValue>> {
    RawValue::from_string(raw.as_str().to_owned()).ok()
}

fn call_form(call: &Handed) -> Option<CallForm> {
    Some(match call {
        Handed::Answered(block) => CallForm::Answered(raw(block.raw())?),
        Handed::Theirs(id) => CallForm::Theirs(id.clone()),
        Handed::Waiting(call) => {
            let (id, tool) = (call.id.to_string(), call.tool.to_string());
            match &call.input {
                Input::Json(input) => CallForm::Waiting { id, tool, input: input.clone() },
                Input::Invalid(text) => CallForm::Unreadable { id, tool, input: text.clone() },
            }
        }
    })
}

fn handed(form: CallForm, index: u32) -> Option<Handed> {
    let waiting = |id: String, tool: String, input| {
        let (id, tool) = (id.into(), tool.into());
        Handed::Waiting(Call { id, tool, input, position: Position::block(index), links: Vec::new() })
    };
    Some(match form {
        CallForm::Answered(raw) => Handed::Answered(Block::parse(Raw::parse(raw.get()).ok()?).ok()?),
        CallForm::Theirs(id) => Handed::Theirs(id),
        CallForm::Waiting { id, tool, input } => waiting(id, tool, Input::Json(input)),
        CallForm::Unreadable { id, tool, input } => waiting(id, tool, Input::Invalid(input)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_kept_comes_back_byte_for_byte() {
        let said =
            r#"{"role": "assistant","content": [ {"type":"thinking","thinking":"","signature":"x/=" , "n":1.50}]}"#;
        let result = r#"{"type":"tool_result", "tool_use_id":"a","content":"\u00e9"}"#;
        let calls = vec![
            Handed::Answered(Block::parse(Raw::parse(result).unwrap()).unwrap()),
            Handed::Theirs("b".to_owned()),
            Handed::Waiting(Call::new(2, "c", "write", json!({"id": 7}))),
        ];
        let returned = Returned {
            content: super::super::canonical::of_bytes(&[b"x"]),
            id: "msg".to_owned(),
            ours: ["write".to_owned()].into_iter().collect(),
            has_hidden: true,
            ..Returned::default()
        };
        let messages = vec![Message::parse(Raw::parse(said).unwrap()).unwrap()];
        let pending = Pending { handover: Handover { calls }, settled_by: Some("run_1".into()) };
        let text = write(&returned, &messages, &pending);
        let back = read(&text).unwrap();
        assert_eq!(format!("{:?}", back.returned), format!("{returned:?}"));
        assert_eq!(back.messages().unwrap()[0].raw().as_str(), said);
        assert_eq!(format!("{:?}", back.pending.into_inner()), format!("{pending:?}"));
        assert!(read("{}").is_none());
    }
}
