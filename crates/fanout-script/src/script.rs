//! What the stand-in says: turns of content blocks, with their pace and their faults.
//!
//! From a test, a demo or a JSON file. To [`reply`](crate::reply), which makes one message of a turn.
//! Nothing here is sent: a block keeps the spelling it was written with, and that is what the client must give back.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::value::RawValue;

use crate::conversation::Conversation;
use crate::fault::Fault;
use crate::raw::{Object, quoted};

/// A conversation written in advance, one [`Turn`] per request.
///
/// The turn is chosen by counting the assistant messages in the request, so one script serves any number of
/// conversations at once. Past its end the model says "done".
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// What is said, in order.
    pub turns: Vec<Turn>,
}

/// Why a script could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the script is not valid")]
pub struct ScriptError(#[from] serde_json::Error);

impl Script {
    /// A script of these turns.
    pub fn new(turns: impl IntoIterator<Item = Turn>) -> Self {
        Self { turns: turns.into_iter().collect() }
    }

    /// Reads a script from JSON: `{"turns":[{"content":[…blocks as on the wire…],"stop_reason":…,"pace":…,"faults":[…]}]}`.
    ///
    /// Blocks keep their spelling. A call may leave out its `id`, and give an `input_text` in place of its `input` when
    /// that is to be no JSON.
    ///
    /// # Errors
    /// [`ScriptError`] with the line and column of the first mistake.
    pub fn from_json(text: &str) -> Result<Self, ScriptError> {
        Ok(serde_json::from_str(text)?)
    }

    /// The turn that answers this conversation.
    pub fn turn(&self, conversation: &Conversation) -> Turn {
        self.turns.get(conversation.assistant_turns()).cloned().unwrap_or_else(|| Turn::text("done"))
    }
}

/// One response of the model.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Turn {
    /// The content blocks, in order.
    pub content: Vec<Block>,
    /// The stop reason; left out, it is `tool_use` if a client's tool is called and `end_turn` otherwise.
    pub stop_reason: Option<String>,
    /// What the turn is said to have cost; left out, it is computed from sizes (four characters a token).
    pub usage: Option<Usage>,
    /// How fast it comes.
    pub pace: Pace,
    /// What goes wrong: the first fault on the first attempt at this turn, the second on the second. Attempts are counted
    /// per conversation, by the messages sent; past the end of the list nothing goes wrong.
    pub faults: Vec<Fault>,
    /// What goes wrong on every attempt, before `faults`.
    pub always: Vec<Fault>,
}

impl Turn {
    /// A turn of these blocks.
    pub fn new(content: impl IntoIterator<Item = Block>) -> Self {
        Self { content: content.into_iter().collect(), ..Self::default() }
    }

    /// A turn that says one text and ends.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new([Block::text(text)])
    }

    /// A turn that calls tools: name and input, in order.
    pub fn calls<'a>(calls: impl IntoIterator<Item = (&'a str, serde_json::Value)>) -> Self {
        Self::new(calls.into_iter().map(|(name, input)| Block::tool_use(name, input.to_string())))
    }

    /// Adds a block at the end.
    #[must_use]
    pub fn block(mut self, block: Block) -> Self {
        self.content.push(block);
        self
    }

    /// Sets the stop reason.
    #[must_use]
    pub fn stop(mut self, reason: impl Into<String>) -> Self {
        self.stop_reason = Some(reason.into());
        self
    }

    /// Sets the usage that is reported.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// Sets the pace.
    #[must_use]
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Adds the fault of the next attempt.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Adds a fault of every attempt.
    #[must_use]
    pub fn always(mut self, fault: Fault) -> Self {
        self.always.push(fault);
        self
    }
}

/// How fast a turn comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pace {
    /// Milliseconds before the first byte.
    pub think_ms: u64,
    /// Tokens (of four characters) in a second; 0 is as fast as the socket takes them.
    pub tok_per_s: f64,
    /// Milliseconds before each event of the stream, on top of the above.
    pub event_ms: u64,
}

impl Pace {
    /// A pace of this think time and this many tokens in a second.
    pub fn new(think: Duration, tok_per_s: f64) -> Self {
        Self { think_ms: u64::try_from(think.as_millis()).unwrap_or(u64::MAX), tok_per_s, event_ms: 0 }
    }
}

/// The token counts of one response, as the API reports them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Usage {
    /// Tokens read that no cache knew.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Tokens written to the cache.
    pub cache_creation_input_tokens: u64,
    /// Tokens read from the cache.
    pub cache_read_input_tokens: u64,
}

/// One content block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// Text, streamed in `text_delta`s.
    Text(String),
    /// Thinking with its signature, streamed in `thinking_delta`s and one `signature_delta`.
    Thinking {
        /// What was thought; may be empty.
        thinking: String,
        /// What proves it.
        signature: String,
    },
    /// A call, streamed in `input_json_delta`s: of a client's tool (`tool_use`) or of a server's (`server_tool_use`,
    /// `mcp_tool_use`).
    Call {
        /// `tool_use`, `server_tool_use` or `mcp_tool_use`.
        kind: String,
        /// The id; left out, the server makes a fresh one.
        id: Option<String>,
        /// The tool's name.
        name: String,
        /// The input, in exactly this spelling. It need not be JSON: with eager input streaming nobody checked it.
        input: String,
        /// Further fields (`caller`, `server_name`, unknown ones): name and JSON text, in order, after `input`.
        extra: Vec<(String, String)>,
    },
    /// Any other block, as exactly this JSON text: it comes whole in its `content_block_start`.
    Raw(String),
}

impl Block {
    /// A text block.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A thinking block.
    pub fn thinking(thinking: impl Into<String>, signature: impl Into<String>) -> Self {
        Self::Thinking { thinking: thinking.into(), signature: signature.into() }
    }

    /// A redacted thinking block with this data.
    pub fn redacted_thinking(data: &str) -> Self {
        Self::Raw(format!(r#"{{"type":"redacted_thinking","data":{}}}"#, quoted(data)))
    }

    /// A call of a client's tool; `input` is sent in exactly this spelling.
    pub fn tool_use(name: impl Into<String>, input: impl Into<String>) -> Self {
        Self::Call { kind: "tool_use".to_owned(), id: None, name: name.into(), input: input.into(), extra: Vec::new() }
    }

    /// A call of a server's tool (`server_tool_use`) with this id, `srvtoolu_…`.
    pub fn server_tool_use(id: impl Into<String>, name: impl Into<String>, input: impl Into<String>) -> Self {
        Self::Call {
            kind: "server_tool_use".to_owned(),
            id: Some(id.into()),
            name: name.into(),
            input: input.into(),
            extra: Vec::new(),
        }
    }

    /// The result of a server's tool: `kind` is e.g. `web_search_tool_result`, `content` is JSON text. In a mixed turn it
    /// is the first block of the next one.
    pub fn server_result(kind: &str, tool_use_id: &str, content: &str) -> Self {
        let (kind, id) = (quoted(kind), quoted(tool_use_id));
        Self::Raw(format!(r#"{{"type":{kind},"tool_use_id":{id},"content":{content}}}"#))
    }

    /// A block of exactly this JSON text.
    pub fn raw(text: impl Into<String>) -> Self {
        Self::Raw(text.into())
    }

    /// The same call with this id; other blocks stay as they are.
    #[must_use]
    pub fn with_id(mut self, wanted: impl Into<String>) -> Self {
        if let Self::Call { id, .. } = &mut self {
            *id = Some(wanted.into());
        }
        self
    }

    /// The same call with one more field (`value` is JSON text); other blocks stay as they are.
    #[must_use]
    pub fn with_field(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let Self::Call { extra, .. } = &mut self {
            extra.push((name.into(), value.into()));
        }
        self
    }

    /// Whether this is a call of a client's tool.
    pub(crate) fn is_client_call(&self) -> bool {
        matches!(self, Self::Call { kind, .. } if kind == "tool_use")
    }

    /// A block written as on the wire. Kinds that stream in pieces are taken apart, all else keeps its text.
    fn from_wire(text: &str) -> Result<Self, String> {
        let object = Object::parse(text).ok_or("a content block must be an object")?;
        let kind = object.string("type").ok_or("a content block needs a string `type`")?;
        let only = |known: &[&str]| object.0.iter().all(|(key, _)| known.contains(&&**key));
        match kind.as_str() {
            "text" if only(&["type", "text"]) => {
                Ok(Self::Text(object.string("text").ok_or("a text block needs a string `text`")?))
            }
            "thinking" if only(&["type", "thinking", "signature"]) => Ok(Self::Thinking {
                thinking: object.string("thinking").unwrap_or_default(),
                signature: object.string("signature").unwrap_or_default(),
            }),
            "tool_use" | "server_tool_use" | "mcp_tool_use" => Ok(Self::Call {
                id: object.string("id"),
                name: object.string("name").ok_or("a call needs a string `name`")?,
                // An input that is no JSON can only be written down as a string.
                input: object.string("input_text").unwrap_or_else(|| object.get("input").unwrap_or("{}").to_owned()),
                extra: object
                    .0
                    .iter()
                    .filter(|(key, _)| !["type", "id", "name", "input", "input_text"].contains(&&**key))
                    .map(|(key, value)| (key.to_string(), value.get().to_owned()))
                    .collect(),
                kind,
            }),
            _ => Ok(Self::Raw(text.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for Block {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        Self::from_wire(text.get()).map_err(D::Error::custom)
    }
}
