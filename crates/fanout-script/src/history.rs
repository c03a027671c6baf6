//! What this server has said, so that it can tell whether a history comes back unchanged.
//!
//! From every [`Reply`] together with the request that it answered. To a 400 when an assistant message that it said comes
//! back altered, or when something that stood before it has changed. Messages that it never said are none of its business.

use std::collections::HashMap;
use std::sync::Arc;

use crate::check::Fidelity;
use crate::check::results::open_server_calls;
use crate::conversation::{Conversation, Message, Role, read_message};
use crate::raw;
use crate::refusal::{Refusal, Rule};
use crate::reply::Reply;

/// One message that was said.
#[derive(Debug)]
struct Spoken {
    blocks: Vec<Expected>,
    cut_off: bool,
    thinking: bool,
    /// A server's tool was still at work, or the turn was paused: the tools must stay as they are.
    open: bool,
    before: Before,
}

/// One block of it.
#[derive(Debug)]
struct Expected {
    /// The spelling that must come back; `None` where any block of its kind will do.
    text: Option<String>,
    thinking: bool,
}

/// What stood before a message, as hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Before {
    system: u64,
    tools: u64,
    /// One running hash per message.
    messages: Vec<u64>,
}

/// Everything that was said, found by the calls in it or by the messages before it.
#[derive(Debug, Default)]
pub(crate) struct History {
    by_call: HashMap<String, Vec<Arc<Spoken>>>,
    by_prefix: HashMap<u64, Vec<Arc<Spoken>>>,
}

/// A history with its hashes, made once per request.
pub(crate) struct Hashed {
    system: u64,
    tools: u64,
    messages: Vec<u64>,
}

impl Hashed {
    pub(crate) fn new(conversation: &Conversation, fidelity: Fidelity) -> Self {
        let definition = |text: &Option<String>| raw::hash(text.as_deref().map(|text| spelling(text, fidelity)));
        let mut last = 0;
        let messages = conversation.messages.iter().map(|message| {
            last = raw::hash((last, spelling(&message.raw, fidelity)));
            last
        });
        Self {
            messages: messages.collect(),
            system: definition(&conversation.system),
            tools: definition(&conversation.tools),
        }
    }

    /// One number for all the messages: what tells one attempt at a turn from another turn.
    pub(crate) fn messages(&self) -> u64 {
        self.messages.last().copied().unwrap_or_default()
    }
}

fn spelling(text: &str, fidelity: Fidelity) -> String {
    match fidelity {
        Fidelity::Bytes | Fidelity::Off => raw::without_markers(text).into_owned(),
        Fidelity::Values => raw::value_of(text),
    }
}

impl History {
    /// Remembers what was said in answer to `hashed`.
    pub(crate) fn remember(&mut self, reply: &Reply, hashed: &Hashed, fidelity: Fidelity) {
        let Ok(message) = read_message(0, &reply.assistant_message()) else { return };
        let blocks = reply.blocks.iter().zip(&message.parts).map(|(block, part)| Expected {
            text: (!block.loose).then(|| spelling(&block.whole, fidelity)),
            thinking: is_thinking(&part.kind),
        });
        let spoken = Arc::new(Spoken {
            blocks: blocks.collect(),
            cut_off: reply.cut_off,
            thinking: message.parts.iter().any(|part| is_thinking(&part.kind)),
            open: reply.stop_reason == "pause_turn" || !open_server_calls(&message.parts).is_empty(),
            before: Before { system: hashed.system, tools: hashed.tools, messages: hashed.messages.clone() },
        });
        for id in reply.blocks.iter().filter_map(|block| block.tool_use_id.clone()) {
            self.by_call.entry(id).or_default().push(Arc::clone(&spoken));
        }
        self.by_prefix.entry(hashed.messages()).or_default().push(spoken);
    }

    /// Checks every assistant message that this server said.
    ///
    /// # Errors
    /// A 400 for the first one that came back altered, or whose past has changed.
    pub(crate) fn check(
        &self,
        conversation: &Conversation,
        hashed: &Hashed,
        fidelity: Fidelity,
    ) -> Result<(), Refusal> {
        for (i, message) in conversation.messages.iter().enumerate() {
            if message.role == Role::Assistant {
                self.check_message(i, message, hashed, fidelity)?;
            }
        }
        Ok(())
    }

    fn check_message(&self, i: usize, message: &Message, hashed: &Hashed, fidelity: Fidelity) -> Result<(), Refusal> {
        let calls = message.parts.iter().filter(|part| part.kind == "tool_use").filter_map(|part| part.id.as_ref());
        let by_call = calls.filter_map(|id| self.by_call.get(id)).next();
        let prefix = i.checked_sub(1).map_or(0, |i| hashed.messages[i]);
        let by_prefix = self.by_prefix.get(&prefix);
        let mut nearest: Option<Refusal> = None;
        for spoken in by_call.into_iter().chain(by_prefix).flatten() {
            let verdict = match spoken.differs_at(message, fidelity) {
                // A message that only shares its past with what was said may be the client's own, if nothing was
                // promised about bytes.
                Some(_) if by_call.is_none() && fidelity == Fidelity::Values && !spoken.thinking => Ok(()),
                Some(j) => Err(spoken.altered(i, j, message)),
                None => spoken.past_is_unchanged(i, hashed, fidelity),
            };
            match verdict {
                Ok(()) => return Ok(()),
                // A changed past says more than a changed block: there the message itself was found again.
                Err(refusal) if refusal.rule == Rule::AppendOnly || nearest.is_none() => nearest = Some(refusal),
                Err(_) => {}
            }
        }
        nearest.map_or(Ok(()), Err)
    }
}

impl Spoken {
    /// The first block that is not as it was said.
    fn differs_at(&self, message: &Message, fidelity: Fidelity) -> Option<usize> {
        let came: Vec<String> = message.parts.iter().map(|part| spelling(&part.raw, fidelity)).collect();
        let same = |j: usize| match (self.blocks.get(j), came.get(j)) {
            (Some(said), Some(came)) => match &said.text {
                Some(text) => text == came,
                None => message.parts[j].kind == "tool_use",
            },
            (Some(_), None) => self.cut_off && j + 1 == self.blocks.len(),
            (None, _) => false,
        };
        (0..self.blocks.len().max(came.len())).find(|j| !same(*j))
    }

    fn altered(&self, i: usize, j: usize, message: &Message) -> Refusal {
        let came = message.parts.get(j).map(|part| part.kind.as_str());
        let place = format!("messages.{i}.content.{j}");
        if self.blocks.get(j).is_some_and(|said| said.thinking) || came.is_some_and(is_thinking) {
            let text = format!(
                "{place}: `thinking` or `redacted_thinking` blocks in an assistant message cannot be modified. These \
                 blocks must remain as they were in the original response."
            );
            return Refusal::invalid(Rule::Thinking, text);
        }
        let what = came.map_or("a block that is missing".to_owned(), |kind| format!("this `{kind}`"));
        let text = format!("{place}: {what} is not what the assistant said; its content goes back byte for byte");
        Refusal::invalid(Rule::AssistantContent, text)
    }

    fn past_is_unchanged(&self, i: usize, hashed: &Hashed, fidelity: Fidelity) -> Result<(), Refusal> {
        if self.open && self.before.tools != hashed.tools {
            let text = format!("messages.{i}: the turn goes on after this message, so `tools` must stay the same");
            return Err(Refusal::invalid(Rule::MixedTurn, text));
        }
        if fidelity != Fidelity::Bytes && !self.thinking {
            return Ok(());
        }
        let changed = if self.before.system != hashed.system {
            "system".to_owned()
        } else if self.before.tools != hashed.tools {
            "tools".to_owned()
        } else {
            let (was, is) = (&self.before.messages, &hashed.messages[..i]);
            match (0..was.len().max(is.len())).find(|k| was.get(*k) != is.get(*k)) {
                Some(k) => format!("messages.{k}"),
                None => return Ok(()),
            }
        };
        let what = if self.thinking { "a `thinking` block" } else { "an assistant message" };
        Err(Refusal::invalid(
            Rule::AppendOnly,
            format!(
                "{changed}: everything before {what} must stay as it was sent; it is not the same before messages.{i}"
            ),
        ))
    }
}

fn is_thinking(kind: &str) -> bool {
    kind == "thinking" || kind == "redacted_thinking"
}
