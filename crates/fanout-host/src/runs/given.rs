//! What runs are given, as the journal keeps it, and back.

use std::sync::Arc;

use fanout_agent::{Given, calls_of};
use fanout_anthropic::{Message, Raw};
use fanout_core::call::{Call, Input};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// An agent's run that somebody asks for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAgentRun {
    /// A person's words; either these or `messages`.
    #[serde(default)]
    pub prompt: Option<String>,
    /// The conversation so far.
    #[serde(default)]
    pub messages: Option<Vec<Box<RawValue>>>,
    /// What the model is told before anything else.
    #[serde(default)]
    pub system: Option<String>,
    /// The model's name; that of `[model]` if absent.
    #[serde(default)]
    pub model: Option<String>,
    /// The most tokens of one answer; those of `[model]` if absent.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// Somebody must say yes before it begins.
    #[serde(default)]
    pub propose: bool,
}

impl NewAgentRun {
    /// What the run is given, and what people know it by.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn given(self, model: &str, max_tokens: u32) -> Result<(Given, String), String> {
        let messages = match (self.prompt, self.messages) {
            (Some(prompt), None) if !prompt.trim().is_empty() => {
                let message = json!({ "role": "user", "content": prompt }).to_string();
                vec![RawValue::from_string(message).map_err(|error| error.to_string())?]
            }
            (None, Some(messages)) if !messages.is_empty() => messages,
            (Some(_), Some(_)) => return Err("give either `prompt` or `messages`, not both".to_owned()),
            _ => return Err("there is nothing to ask: give `prompt`, or `messages`".to_owned()),
        };
        for (at, raw) in messages.iter().enumerate() {
            let message = Raw::parse(raw.get()).and_then(Message::parse);
            message.map_err(|error| format!("`messages[{at}]` is no message: {error}"))?;
        }
        let title = title_of(messages.last().map_or("", |message| message.get()));
        let given = Given {
            model: self.model.unwrap_or_else(|| model.to_owned()),
            max_tokens: self.max_tokens.unwrap_or(max_tokens),
            system: self.system,
            messages,
        };
        Ok((given, title))
    }
}

/// The first text of a message.
fn title_of(message: &str) -> String {
    let message: Value = serde_json::from_str(message).unwrap_or_default();
    let content = &message["content"];
    let block = || content.as_array()?.iter().find_map(|block| block["text"].as_str());
    content.as_str().or_else(block).unwrap_or_default().to_owned()
}

/// What a batch is given.
pub fn batch_given(calls: &[Call]) -> Arc<str> {
    let block = |call: &Call| {
        let input = match &call.input {
            Input::Json(input) => input.clone(),
            Input::Invalid(raw) => json!({ "INVALID_JSON": raw }),
        };
        json!({ "type": "tool_use", "id": call.id.as_str(), "name": call.tool.as_str(), "input": input })
    };
    json!({ "content": calls.iter().map(block).collect::<Vec<_>>() }).to_string().into()
}

/// The calls that a batch was given; `None`: nobody wrote down which.
pub fn calls_given(given: &str) -> Option<Vec<Call>> {
    let given: Value = serde_json::from_str(given).ok()?;
    let message = json!({ "role": "assistant", "content": given.get("content")? }).to_string();
    let message = Raw::parse(message).and_then(Message::parse).ok()?;
    Some(calls_of(&message.blocks().ok()?))
}
