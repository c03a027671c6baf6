//! Tools and results in the protocol's words.
//!
//! From the toolbox, and from outcomes. To the client. Hints are published from effects: a tool that only reads is one whose
//! declaration, or else its source, knows of no write.

use std::sync::Arc;

use fanout_core::effects::{EffectsSpec, Source};
use fanout_core::outcome::{Content, Outcome, Output};
use fanout_core::toolbox::{Registered, Toolbox};
use rmcp::model::{CallToolResult, ContentBlock, JsonObject, Tool, ToolAnnotations};
use serde_json::Value;

/// All tools, in the order of the toolbox.
pub(super) fn tools(toolbox: &Toolbox) -> Vec<Tool> {
    toolbox.iter().map(|one| tool(one, toolbox)).collect()
}

fn tool(tool: &Registered, toolbox: &Toolbox) -> Tool {
    let spec = &tool.spec;
    let schema = Arc::new(schema(&spec.input_schema));
    let hints = if tool.is_plan() { hints_of_plan(toolbox) } else { hints(tool) };
    Tool::new(spec.name.to_string(), spec.description.clone(), schema).with_annotations(hints)
}

/// The schema as it is. The protocol wants an object that says `"type": "object"`; a schema that leaves it out means the
/// same for inputs that are objects, which all are.
fn schema(schema: &Value) -> JsonObject {
    let mut schema = schema.as_object().cloned().unwrap_or_default();
    schema.entry("type").or_insert_with(|| "object".into());
    schema
}

fn hints(tool: &Registered) -> ToolAnnotations {
    let only_reads = !writes(&tool.spec.effects);
    ToolAnnotations::new()
        .read_only(only_reads && tool.repeatable())
        .destructive(!only_reads)
        .idempotent(tool.repeatable())
        .open_world(is_open(&tool.spec.source))
}

/// A plan may do what any of the others may.
fn hints_of_plan(toolbox: &Toolbox) -> ToolAnnotations {
    let others: Vec<ToolAnnotations> = toolbox.iter().filter(|tool| !tool.is_plan()).map(hints).collect();
    let is = |hint: Option<bool>| hint == Some(true);
    ToolAnnotations::new()
        .read_only(others.iter().all(|hints| is(hints.read_only_hint)))
        .destructive(others.iter().any(|hints| is(hints.destructive_hint)))
        .idempotent(others.iter().all(|hints| is(hints.idempotent_hint)))
        .open_world(others.iter().any(|hints| is(hints.open_world_hint)))
}

/// Whether calls write anything, by the word that decides: the declaration's if there is one, else the source's.
fn writes(effects: &EffectsSpec) -> bool {
    if effects.is_declared() {
        effects.writes.as_ref().is_some_and(|writes| !writes.is_empty())
    } else {
        !effects.inferred_writes.is_empty()
    }
}

/// Whether calls reach what others change too, beyond anything that we know of.
fn is_open(source: &Source) -> bool {
    source.as_str().starts_with("http/")
}

/// One outcome as a result: what the model is shown, and the data behind it where nothing of it was cut.
pub(super) fn result(outcome: &Outcome) -> CallToolResult {
    let content: Vec<ContentBlock> = outcome.shown.iter().map(block).collect();
    if outcome.is_error() {
        return CallToolResult::error(content);
    }
    let mut result = CallToolResult::success(content);
    result.structured_content = outcome.result.as_ref().ok().and_then(|output| data(output, &outcome.shown));
    result
}

/// Clients show the data in the place of the text, so data that the text was cut from would undo the cut.
fn data(output: &Output, shown: &[Content]) -> Option<Value> {
    output.structured.as_ref().filter(|data| data.is_object() && *output.content == *shown).cloned()
}

fn block(content: &Content) -> ContentBlock {
    match content {
        Content::Text(text) => ContentBlock::text(&**text),
        Content::Image { media_type, data } => ContentBlock::image(&**data, media_type.as_str()),
    }
}
