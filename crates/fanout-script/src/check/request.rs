//! What one request says of itself: tools, choice, cache markers.
//!
//! From the body's fields. To a 400 that names the field. No message is looked at but for its markers.

use serde_json::Value;

use super::UNFORCED_MODELS;
use crate::conversation::Conversation;
use crate::raw::{self, Object};
use crate::refusal::{Refusal, Rule};

/// At most this many prefixes of one request can be cached.
const MARKERS_MAX: usize = 4;

pub(crate) fn whole_request(body: &Object<'_>, conversation: &Conversation) -> Result<(), Refusal> {
    tools(conversation)?;
    tool_choice(body, conversation)?;
    let markers = markers(body, conversation);
    if markers > MARKERS_MAX {
        return Err(Refusal::invalid(
            Rule::CacheMarkers,
            format!("A maximum of {MARKERS_MAX} blocks with cache_control may be provided. Found {markers}."),
        ));
    }
    Ok(())
}

fn tools(conversation: &Conversation) -> Result<(), Refusal> {
    let Some(text) = &conversation.tools else { return Ok(()) };
    let tools = raw::array(text)
        .ok_or_else(|| Refusal::invalid(Rule::Field, "tools: Input should be a valid list".to_owned()))?;
    let mut names: Vec<String> = Vec::new();
    for (i, tool) in tools.iter().enumerate() {
        let field = |what: &str| Refusal::invalid(Rule::Field, format!("tools.{i}{what}"));
        let tool = Object::parse(tool.get()).ok_or_else(|| field(": Input should be an object"))?;
        // A toolset of the server names no tool of its own.
        let Some(name) = tool.string("name") else {
            if tool.string("type").is_some_and(|kind| kind != "custom") {
                continue;
            }
            return Err(field(".name: Field required"));
        };
        let custom = tool.string("type").is_none_or(|kind| kind == "custom");
        if !name_fits(&name) {
            return Err(Refusal::invalid(
                Rule::ToolName,
                format!("tools.{i}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"),
            ));
        }
        if custom && tool.get("input_schema").and_then(Object::parse).is_none() {
            return Err(field(".custom.input_schema: Field required"));
        }
        if names.contains(&name) {
            return Err(Refusal::invalid(Rule::ToolName, "tools: Tool names must be unique."));
        }
        names.push(name);
    }
    Ok(())
}

fn name_fits(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

fn tool_choice(body: &Object<'_>, conversation: &Conversation) -> Result<(), Refusal> {
    let refuse = |message: String| Err(Refusal::invalid(Rule::ToolChoice, message));
    if body.get("disable_parallel_tool_use").is_some() {
        return refuse("disable_parallel_tool_use: Extra inputs are not permitted".to_owned());
    }
    let choice = &conversation.tool_choice;
    if choice.is_null() {
        return Ok(());
    }
    let kind = choice["type"].as_str().unwrap_or_default();
    if !["auto", "any", "tool", "none"].contains(&kind) {
        return refuse("tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'".to_owned());
    }
    if conversation.tools.is_none() {
        return refuse("tool_choice: may only be specified while providing tools".to_owned());
    }
    let forced = kind == "any" || kind == "tool";
    let model = conversation.model.as_str();
    let unforced = |name: &&str| model.strip_prefix(*name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    if forced && UNFORCED_MODELS.iter().any(unforced) {
        return refuse(format!("tool_choice: `{kind}` is not supported by `{model}`; use `auto` or `none`"));
    }
    let thinking: Option<Value> = body.get("thinking").and_then(|text| serde_json::from_str(text).ok());
    if forced && thinking.is_some_and(|thinking| thinking["type"] == "enabled") {
        return refuse("Thinking may not be enabled when tool_choice forces tool use.".to_owned());
    }
    if kind == "tool" {
        let name = choice["name"].as_str().unwrap_or_default();
        if !conversation.tools().iter().any(|tool| tool["name"] == name) {
            return refuse(format!("tool_choice.name: tool `{name}` is not among the tools provided"));
        }
    }
    Ok(())
}

/// Whether there is a marker anywhere that one can stand.
pub(crate) fn has_marker(body: &Object<'_>, conversation: &Conversation) -> bool {
    markers(body, conversation) > 0
}

fn markers(body: &Object<'_>, conversation: &Conversation) -> usize {
    let top = usize::from(body.has("cache_control"));
    let definitions = [&conversation.system, &conversation.tools].into_iter().flatten().map(|text| in_blocks(text));
    let blocks = conversation.messages.iter().flat_map(|message| &message.parts).map(|part| in_block(&part.raw));
    top + definitions.sum::<usize>() + blocks.sum::<usize>()
}

fn in_blocks(text: &str) -> usize {
    if !text.contains("\"cache_control\"") {
        return 0;
    }
    raw::array(text).unwrap_or_default().iter().map(|block| in_block(block.get())).sum()
}

fn in_block(text: &str) -> usize {
    if !text.contains("\"cache_control\"") {
        return 0;
    }
    let Some(block) = Object::parse(text) else { return 0 };
    let nested = block.get("content").map_or(0, in_blocks);
    usize::from(block.has("cache_control")) + nested
}
