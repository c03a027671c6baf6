//! Calls and their results: one each, in the very next user message, first in its content.
//!
//! From the whole history. To a 400 that names the message. Which of the calls came from this server is of no matter.

use crate::conversation::{Message, Part, Role};
use crate::refusal::{Refusal, Rule};

pub(super) fn whole_history(messages: &[Message]) -> Result<(), Refusal> {
    for (i, message) in messages.iter().enumerate() {
        let before = i.checked_sub(1).map(|i| &messages[i]).filter(|before| before.role == Role::Assistant);
        match message.role {
            Role::Assistant => {
                let answer = messages.get(i + 1).filter(|next| next.role == Role::User);
                every_call_is_answered(i, message, answer)?;
                if message.parts.is_empty() && i + 1 < messages.len() {
                    let text = format!(
                        "messages.{i}: all messages must have non-empty content except for the optional final assistant message"
                    );
                    return Err(Refusal::invalid(Rule::Field, text));
                }
            }
            Role::System => {
                if let Some(id) = ids(message, "tool_result").next() {
                    let text = format!("messages.{i}: system messages hold no `tool_result` blocks: {id}");
                    return Err(Refusal::invalid(Rule::Field, text));
                }
            }
            Role::User => {
                if message.parts.is_empty() {
                    let text = format!("messages.{i}: user messages must have non-empty content");
                    return Err(Refusal::invalid(Rule::Field, text));
                }
                results_belong_to_calls(i, message, before)?;
                results_come_first(i, message)?;
                if let Some(before) = before {
                    only_results_while_a_server_works(i, message, before)?;
                }
            }
        }
    }
    Ok(())
}

fn ids<'a>(message: &'a Message, kind: &'a str) -> impl Iterator<Item = &'a str> {
    message.parts.iter().filter(move |part| part.kind == kind).filter_map(move |part| match kind {
        "tool_result" => part.tool_use_id.as_deref(),
        _ => part.id.as_deref(),
    })
}

fn every_call_is_answered(i: usize, message: &Message, answer: Option<&Message>) -> Result<(), Refusal> {
    let answered: Vec<&str> = answer.map(|answer| ids(answer, "tool_result").collect()).unwrap_or_default();
    let missing: Vec<&str> = ids(message, "tool_use").filter(|id| !answered.contains(id)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid(
        Rule::ResultMissing,
        format!(
            "messages.{}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` \
             block must have a corresponding `tool_result` block in the next message.",
            i + 1,
            missing.join(", ")
        ),
    ))
}

fn results_belong_to_calls(i: usize, message: &Message, before: Option<&Message>) -> Result<(), Refusal> {
    let calls: Vec<&str> = before.map(|before| ids(before, "tool_use").collect()).unwrap_or_default();
    let mut seen: Vec<&str> = Vec::new();
    for (j, part) in message.parts.iter().enumerate().filter(|(_, part)| part.kind == "tool_result") {
        let id = part.tool_use_id.as_deref().unwrap_or_default();
        if id.starts_with("srvtoolu_") {
            return Err(Refusal::invalid(
                Rule::ServerToolAnswered,
                format!(
                    "messages.{i}.content.{j}: `{id}` is a server tool's call; its result never comes from the client"
                ),
            ));
        }
        // A model that gave one id to two calls gets two results under it.
        let uses = calls.iter().filter(|call| **call == id).count();
        if uses == 0 {
            return Err(Refusal::invalid(
                Rule::ResultExtra,
                format!(
                    "messages.{i}.content.{j}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each \
                     `tool_result` block must have a corresponding `tool_use` block in the previous message."
                ),
            ));
        }
        seen.push(id);
        if seen.iter().filter(|known| **known == id).count() > uses {
            return Err(Refusal::invalid(
                Rule::ResultTwice,
                format!(
                    "messages.{i}.content.{j}: each tool_use must have a single result. Found multiple `tool_result` \
                     blocks with id: {id}"
                ),
            ));
        }
    }
    Ok(())
}

fn results_come_first(i: usize, message: &Message) -> Result<(), Refusal> {
    let first_other = message.parts.iter().position(|part| part.kind != "tool_result");
    let late = first_other.filter(|at| message.parts[*at..].iter().any(|part| part.kind == "tool_result"));
    let Some(at) = late else { return Ok(()) };
    Err(Refusal::invalid(
        Rule::ResultsFirst,
        format!(
            "messages.{i}.content.{at}: `tool_result` blocks must come first in the content, before any `{}`",
            message.parts[at].kind
        ),
    ))
}

/// The server tool's calls of an assistant message that lack their result in it.
pub(crate) fn open_server_calls(parts: &[Part]) -> Vec<&str> {
    let calls = parts.iter().filter(|part| part.kind == "server_tool_use" || part.kind == "mcp_tool_use");
    calls
        .filter_map(|part| part.id.as_deref())
        .filter(|id| !parts.iter().any(|part| part.tool_use_id.as_deref() == Some(id)))
        .collect()
}

fn only_results_while_a_server_works(i: usize, message: &Message, before: &Message) -> Result<(), Refusal> {
    let open = open_server_calls(&before.parts);
    let mixed = !open.is_empty() && ids(before, "tool_use").next().is_some();
    let Some(other) = message.parts.iter().find(|part| part.kind != "tool_result").filter(|_| mixed) else {
        return Ok(());
    };
    Err(Refusal::invalid(
        Rule::MixedTurn,
        format!(
            "messages.{i}: only `tool_result` blocks may follow while {} has no result yet; found `{}`",
            open.join(", "),
            other.kind
        ),
    ))
}
