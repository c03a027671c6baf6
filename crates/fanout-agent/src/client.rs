//! A client's own tools beside ours: whose call is whose, and what a turn with both leaves behind.
//!
//! From a gateway: the request of a client who runs tools of its own. To [`after`](crate::after): which calls of a response
//! run here. To the gateway again: a [`Handover`], the calls that the client must answer and the results that wait for it.
//!
//! Nothing here runs a call.

use std::collections::HashSet;
use std::sync::Arc;

use fanout_anthropic::{Block, Message, ToolDef, ToolResult, View, WireError, tools_json};
use fanout_core::call::{Call, Input, ToolName};
use fanout_core::effects::{Effects, Paths};
use fanout_core::plan::Plan;
use fanout_core::tool::ToolSpec;
use fanout_core::toolbox::Toolbox;
use serde_json::Value;

/// The definitions of a toolbox, printed once, to stand behind a client's own in its requests.
#[derive(Clone, Debug)]
pub struct Offer {
    tools: Arc<[Printed]>,
}

#[derive(Debug)]
struct Printed {
    name: ToolName,
    plain: String,
    cached: String,
}

/// The tools that run here; all others are the client's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ours(Arc<HashSet<ToolName>>);

impl Offer {
    /// Prints every tool of the toolbox, in its order.
    ///
    /// # Errors
    /// [`WireError`] for a tool that the API would refuse.
    pub fn new(toolbox: &Toolbox) -> Result<Self, WireError> {
        let print = |tool: &ToolDef| {
            let array = tools_json(std::slice::from_ref(tool))?;
            Ok(array[1..array.len() - 1].to_owned())
        };
        let tools = toolbox.iter().map(|tool| {
            let mut def = ToolDef {
                name: tool.spec.name.to_string(),
                description: tool.spec.description.clone(),
                input_schema: tool.spec.input_schema.clone(),
                cache: false,
            };
            let plain = print(&def)?;
            def.cache = true;
            Ok(Printed { name: tool.spec.name.clone(), plain, cached: print(&def)? })
        });
        Ok(Self { tools: tools.collect::<Result<_, WireError>>()? })
    }

    /// The same without the tools that `keep` says no to.
    #[must_use]
    pub fn only(&self, keep: impl Fn(&str) -> bool) -> Self {
        let kept = self.tools.iter().filter(|tool| keep(tool.name.as_str()));
        let copy = |tool: &Printed| Printed {
            name: tool.name.clone(),
            plain: tool.plain.clone(),
            cached: tool.cached.clone(),
        };
        Self { tools: kept.map(copy).collect() }
    }

    /// Whether there is nothing to offer.
    pub fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tools.iter().map(|tool| tool.name.as_str())
    }

    /// The array of the client's tools with ours behind them, the same bytes for the same tools; and which are ours. A name
    /// that the client uses itself stays the client's.
    ///
    /// `cached` puts a `cache_control` on the last one.
    ///
    /// # Errors
    /// When the client's tools are no array of objects.
    pub fn behind(&self, theirs: Option<&str>, cached: bool) -> Result<(Arc<str>, Ours), WireError> {
        let declared = theirs.map_or(Ok(HashSet::new()), names_of)?;
        let ours: Vec<&Printed> = self.tools.iter().filter(|tool| !declared.contains(tool.name.as_str())).collect();
        let theirs = theirs.unwrap_or("[]").trim_ascii();
        let mut array = theirs[..theirs.len() - 1].trim_ascii_end().to_owned();
        for (at, tool) in ours.iter().enumerate() {
            if array.len() > 1 {
                array.push(',');
            }
            let is_last = at + 1 == ours.len();
            array.push_str(if cached && is_last { &tool.cached } else { &tool.plain });
        }
        array.push(']');
        Ok((array.into(), Ours(Arc::new(ours.iter().map(|tool| tool.name.clone()).collect()))))
    }
}

fn names_of(tools: &str) -> Result<HashSet<String>, WireError> {
    #[derive(serde::Deserialize)]
    struct Named {
        name: Option<String>,
    }
    let tools: Vec<Named> =
        serde_json::from_str(tools).map_err(|error| WireError::NotJson { what: "tools", detail: error.to_string() })?;
    Ok(tools.into_iter().filter_map(|tool| tool.name).collect())
}

impl FromIterator<String> for Ours {
    fn from_iter<T: IntoIterator<Item = String>>(names: T) -> Self {
        Self(Arc::new(names.into_iter().map(ToolName::from).collect()))
    }
}

impl Ours {
    /// The names, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let mut names: Vec<&str> = self.0.iter().map(ToolName::as_str).collect();
        names.sort_unstable();
        names.into_iter()
    }

    /// Whether calls of this name run here.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains(&ToolName::from(name))
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, for a plan: it may call no others.
    pub(crate) fn names(&self) -> Arc<HashSet<ToolName>> {
        Arc::clone(&self.0)
    }
}

/// What happens to our writes that come after a client's call in program order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WritesAfterClient {
    /// They wait until the client has answered its own.
    #[default]
    Wait,
    /// They run at once.
    Run,
}

/// What a turn left that the client must answer: one entry per call, in program order.
#[derive(Clone, Debug, Default)]
pub struct Handover {
    /// The calls.
    pub calls: Vec<Handed>,
}

/// One call of such a turn.
#[derive(Clone, Debug)]
pub enum Handed {
    /// Ours, answered.
    Answered(Block),
    /// Ours, and it may run only once the client has answered the calls before it.
    Waiting(Call),
    /// The client's.
    Theirs(String),
}

impl Handover {
    /// The ids of the client's calls, in order.
    pub fn theirs(&self) -> impl Iterator<Item = &str> {
        self.calls.iter().filter_map(|call| match call {
            Handed::Theirs(id) => Some(id.as_str()),
            Handed::Answered(_) | Handed::Waiting(_) => None,
        })
    }

    /// Whether any call of it is ours.
    pub fn has_ours(&self) -> bool {
        self.calls.iter().any(|call| !matches!(call, Handed::Theirs(_)))
    }

    /// The calls that still have to run, in order.
    pub fn waiting(&self) -> Vec<Call> {
        let waiting = self.calls.iter().filter_map(|call| match call {
            Handed::Waiting(call) => Some(call.clone()),
            Handed::Answered(_) | Handed::Theirs(_) => None,
        });
        waiting.collect()
    }

    /// Puts in the results of those that waited.
    pub(crate) fn answer(&mut self, mut result_of: impl FnMut(&Call) -> Option<Block>) {
        for handed in &mut self.calls {
            if let Handed::Waiting(call) = handed
                && let Some(block) = result_of(call)
            {
                *handed = Handed::Answered(block);
            }
        }
    }

    /// Whether these blocks of the client's answer every call of its own.
    pub fn is_answered_by(&self, blocks: &[Block]) -> bool {
        self.theirs().all(|id| blocks.iter().any(|block| result_id(block) == Some(id)))
    }

    /// The one user message that answers all calls: ours and the client's results in program order, then what else the
    /// client said. Where none of the calls is ours its own message says it all.
    pub fn merge(&self, theirs: &[Block]) -> Option<Message> {
        if !self.has_ours() {
            return None;
        }
        let mut blocks = Vec::with_capacity(self.calls.len() + theirs.len());
        for handed in &self.calls {
            match handed {
                Handed::Answered(block) => blocks.push(block.clone()),
                Handed::Waiting(_) => {}
                Handed::Theirs(id) => {
                    blocks.extend(theirs.iter().find(|block| result_id(block) == Some(id)).cloned());
                }
            }
        }
        let is_placed = |block: &&Block| result_id(block).is_some_and(|id| self.theirs().any(|theirs| theirs == id));
        blocks.extend(theirs.iter().filter(|block| !is_placed(block)).cloned());
        Some(Message::user(&blocks))
    }
}

fn result_id(block: &Block) -> Option<&str> {
    match block.view() {
        View::ToolResult { tool_use_id, .. } => Some(tool_use_id),
        _ => None,
    }
}

/// One result as the block that it is in the reply.
pub(crate) fn result_block(result: ToolResult) -> Option<Block> {
    Message::tool_results([result]).blocks().ok()?.pop()
}

/// Whose a call is, and whether it may run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Run,
    Wait,
    Theirs,
}

/// Sorts the calls of one response, in program order.
#[derive(Debug)]
pub(crate) struct Sorter<'a> {
    /// `None`: all calls are ours.
    client: Option<&'a Client>,
    toolbox: Arc<Toolbox>,
    paths: Paths,
    seen_theirs: bool,
    waiting: Vec<Effects>,
}

/// The client whose request is answered.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) ours: Ours,
    pub(crate) writes: WritesAfterClient,
}

impl<'a> Sorter<'a> {
    pub(crate) fn new(client: Option<&'a Client>, toolbox: &Arc<Toolbox>, paths: &Paths) -> Self {
        let (toolbox, paths) = (Arc::clone(toolbox), paths.clone());
        Self { client, toolbox, paths, seen_theirs: false, waiting: Vec::new() }
    }

    /// The place of the next call.
    ///
    /// After a client's call our reads go on and our writes wait. A read that would have to see one of those writes waits
    /// with it. A plan goes on if all of its calls may.
    pub(crate) fn place(&mut self, call: &Call) -> Place {
        let Some(client) = self.client else { return Place::Run };
        if !client.ours.contains(call.tool.as_str()) {
            self.seen_theirs = true;
            return Place::Theirs;
        }
        if !self.seen_theirs || client.writes == WritesAfterClient::Run {
            return Place::Run;
        }
        let (Some(tool), Input::Json(input)) = (self.toolbox.get(&call.tool), &call.input) else { return Place::Run };
        // What a tool that runs calls itself does counts as well: it cannot be held back call by call.
        let resolve = |tool: &ToolSpec, input: &Value| tool.effects.resolve(&tool.source, input, &self.paths);
        let effects: Vec<Effects> = match tool.is_plan() {
            false => vec![resolve(&tool.spec, input)],
            true => match Plan::parse(input, &self.toolbox, &|name| client.ours.contains(name.as_str())) {
                Ok(plan) => plan.members.iter().map(|member| resolve(&member.tool.spec, &member.input)).collect(),
                // It runs nothing, and the model is told at once what is wrong.
                Err(_) => return Place::Run,
            },
        };
        let may_go_on = |effects: &Effects| {
            effects.only_reads() && self.waiting.iter().all(|waiting| effects.clash(waiting).is_none())
        };
        if effects.iter().all(may_go_on) {
            return Place::Run;
        }
        self.waiting.extend(effects);
        Place::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(name: &str) -> Printed {
        Printed {
            name: name.into(),
            plain: format!(r#"{{"name":"{name}"}}"#),
            cached: format!(r#"{{"name":"{name}","c":1}}"#),
        }
    }

    #[track_caller]
    fn check(theirs: Option<&str>, cached: bool, array: &str, ours: &str) {
        let offer = Offer { tools: [printed("a"), printed("b")].into() };
        let (got, names) = offer.behind(theirs, cached).unwrap();
        assert_eq!(&*got, array);
        let mut names: Vec<_> = names.0.iter().map(ToolName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names.join(" "), ours);
    }

    #[test]
    fn ours_stand_behind_the_clients_whose_bytes_stay() {
        check(None, false, r#"[{"name":"a"},{"name":"b"}]"#, "a b");
        check(Some("[ ]"), true, r#"[{"name":"a"},{"name":"b","c":1}]"#, "a b");
        check(Some(r#"[ {"name" : "x"} ]"#), false, r#"[ {"name" : "x"},{"name":"a"},{"name":"b"}]"#, "a b");
    }

    #[test]
    fn a_name_that_the_client_uses_is_the_clients() {
        check(Some(r#"[{"name":"b","x":1.0}]"#), true, r#"[{"name":"b","x":1.0},{"name":"a","c":1}]"#, "a");
    }
}
