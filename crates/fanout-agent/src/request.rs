//! What is the same in every request of a run, printed once.
//!
//! From the agent's options and its toolbox. To each request: the same bytes, so that caches hold and nobody sees an
//! edited prefix.

use std::sync::Arc;

use fanout_anthropic::{ModelError, Raw, Request, Response, Role, Thread, ToolChoice, ToolDef, WireError, tools_json};
use fanout_core::toolbox::Toolbox;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::agent::AgentOptions;
use crate::client::{Offer, Ours};
use crate::conversation::Conversation;

/// The unchanging part of a run's requests.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    request: Request,
    /// The messages that a server-held thread holds by now; the next request continues it with those after them.
    held: Option<usize>,
    /// Its first request begins a thread.
    creates: bool,
}

/// The API takes at most so many `cache_control` markers in one request.
const MARKERS_MAX: usize = 4;

/// What a run goes on with that continues a thread.
#[derive(Serialize, Deserialize)]
struct ThreadState {
    previous_message_id: String,
    /// So many messages of the conversation the upstream holds.
    held: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    container: Option<Box<RawValue>>,
}

/// The upstream's id of the answer after which a run had this state; `None` if it held no thread.
pub(crate) fn last_id(state: &str) -> Option<String> {
    serde_json::from_str::<ThreadState>(state).ok().map(|thread| thread.previous_message_id)
}

impl Template {
    /// Prints the tools, the last one with a `cache_control`: the API caches tools, system and messages in that order.
    pub(crate) fn new(options: &AgentOptions, toolbox: &Toolbox) -> Result<Self, WireError> {
        let mut request = Request::new(options.model.clone(), options.max_tokens, Vec::new());
        request.stream = options.stream;
        request.system = options.system.as_ref().map(Raw::from_value).transpose()?;
        if !toolbox.is_empty() {
            request.tools = Some(print_tools(toolbox)?);
            request.tool_choice.clone_from(&options.tool_choice);
        }
        request.extra.clone_from(&options.extra);
        Ok(Self { request, held: None, creates: false })
    }

    /// A client's own request with our tools behind its own, and which tools are ours.
    ///
    /// The last tool gets a `cache_control` if the client left room for one; where the server holds the thread none may
    /// stand. A thread that goes on has its tools from before, and must not be told of them again.
    pub(crate) fn of_client(mut request: Request, offer: &Offer) -> Result<(Self, Ours), WireError> {
        let goes_on = matches!(request.thread, Some(Thread::Continue { .. })) && request.tools.is_none();
        let cached = request.thread.is_none() && markers(&request) < MARKERS_MAX;
        request.messages.clear();
        let (tools, ours) = offer.behind(request.tools.as_deref(), cached)?;
        if !goes_on && !ours.is_empty() {
            request.extra.retain(|(key, _)| key != "tools");
            request.tools = Some(tools);
        }
        let creates = matches!(request.thread, Some(Thread::Create));
        Ok((Self { request, held: None, creates }, ours))
    }

    /// The next request; `is_first` until a response has counted.
    pub(crate) fn request(&self, is_first: bool, max_tokens: u32, conversation: &Conversation) -> Request {
        let mut request = self.request.clone();
        request.max_tokens = max_tokens;
        request.messages = conversation.messages().to_vec();
        if !is_first {
            request.tool_choice = request.tool_choice.map(after_first_turn);
        }
        if let Some(held) = self.held {
            // The model's own answer is held too.
            let said = request.messages.get(held).is_some_and(|message| message.role() == Role::Assistant);
            request.messages.drain(..held + usize::from(said));
            (request.system, request.tools) = (None, None);
        }
        request
    }

    /// A response that a server-held thread now ends with; `sent` messages of the conversation came before it.
    pub(crate) fn keep_thread(&mut self, response: &Response, sent: usize) {
        if self.request.thread.is_some() {
            self.request.thread = Some(Thread::Continue { previous_message_id: response.id.clone() });
            self.held = Some(sent);
        }
    }

    /// After an error of a server-held thread: the next request has all of the conversation, in a new thread. Answers whether
    /// that can be: the run must have begun the thread, or it does not know all of it.
    pub(crate) fn begin_anew(&mut self, error: &ModelError) -> bool {
        let ModelError::Status { error_code: Some(code), .. } = error else { return false };
        if !self.creates || self.held.is_none() || !code.starts_with("thread_") {
            return false;
        }
        (self.request.thread, self.held) = (Some(Thread::Create), None);
        true
    }

    /// What the next request carries beside the conversation because of what was answered: a container, or what it continues
    /// a thread from. For a journal.
    pub(crate) fn state(&self) -> Option<Arc<str>> {
        let container = self.request.extra.iter().find(|(key, _)| key == "container").map(|(_, raw)| raw.as_str());
        let (Some(Thread::Continue { previous_message_id }), Some(held)) = (&self.request.thread, self.held) else {
            return container.map(Into::into);
        };
        let thread = ThreadState {
            previous_message_id: previous_message_id.clone(),
            held,
            container: container.and_then(|raw| RawValue::from_string(raw.to_owned()).ok()),
        };
        Some(serde_json::to_string(&thread).ok()?.into())
    }

    /// Goes on with what [`Template::state`] gave.
    pub(crate) fn restore(&mut self, state: &str) {
        let container = match serde_json::from_str::<ThreadState>(state) {
            Ok(ThreadState { previous_message_id, held, container }) => {
                (self.request.thread, self.held) = (Some(Thread::Continue { previous_message_id }), Some(held));
                container.and_then(|raw| Raw::parse(raw.get()).ok())
            }
            Err(_) => Raw::parse(state).ok(),
        };
        if let Some(container) = container {
            self.request.extra.retain(|(key, _)| key != "container");
            self.request.extra.push(("container".to_owned(), container));
        }
    }

    /// How many bytes it takes beside the messages.
    pub(crate) fn bytes(&self) -> usize {
        let tools = self.request.tools.as_ref().map_or(0, |tools| tools.len());
        tools + self.request.system.as_ref().map_or(0, |system| system.as_str().len())
    }

    /// A response that names a container is continued in it: code that the model runs there calls our tools. What the
    /// request says of its container beside the id, such as skills, stays.
    pub(crate) fn keep_container(&mut self, response: &Response) {
        let Some(id) = field(&response.extra, "container").and_then(|container| container.get("id").cloned()) else {
            return;
        };
        let container = match field(&self.request.extra, "container") {
            Some(Value::Object(mut fields)) => {
                fields.insert("id".to_owned(), id);
                Value::Object(fields)
            }
            _ => id,
        };
        let Ok(container) = Raw::from_value(&container) else { return };
        self.request.extra.retain(|(key, _)| key != "container");
        self.request.extra.push(("container".to_owned(), container));
    }
}

fn field(fields: &[(String, Raw)], name: &str) -> Option<Value> {
    let (_, value) = fields.iter().find(|(key, _)| key == name)?;
    serde_json::from_str(value.as_str()).ok()
}

/// How many `cache_control` markers a client's request has. A text that only looks like one counts too: better none of ours
/// than one too many.
fn markers(request: &Request) -> usize {
    let count = |text: &str| text.matches("\"cache_control\"").count();
    let fields = request.extra.iter().map(|(key, value)| usize::from(key == "cache_control") + count(value.as_str()));
    let system = request.system.as_ref().map_or(0, |system| count(system.as_str()));
    let tools = request.tools.as_deref().map_or(0, count);
    let messages = request.messages.iter().map(|message| count(message.raw().as_str()));
    fields.sum::<usize>() + system + tools + messages.sum::<usize>()
}

/// A demand for a tool holds for the first turn; kept up, the model could never answer.
fn after_first_turn(choice: ToolChoice) -> ToolChoice {
    match choice {
        ToolChoice::Any { disable_parallel_tool_use } | ToolChoice::Tool { disable_parallel_tool_use, .. } => {
            ToolChoice::Auto { disable_parallel_tool_use }
        }
        other => other,
    }
}

fn print_tools(toolbox: &Toolbox) -> Result<Arc<str>, WireError> {
    let last = toolbox.len().saturating_sub(1);
    let defs: Vec<ToolDef> = toolbox
        .iter()
        .enumerate()
        .map(|(at, tool)| ToolDef {
            name: tool.spec.name.to_string(),
            description: tool.spec.description.clone(),
            input_schema: tool.spec.input_schema.clone(),
            cache: at == last,
        })
        .collect();
    tools_json(&defs)
}
