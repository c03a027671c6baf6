//! One message of the model, made of a turn: ids given, content faults applied, every block in its final spelling.
//!
//! From a [`Turn`] and the faults of this attempt. To [`events`](crate::events), which writes it, and to
//! [`history`](crate::history), which remembers what has to come back. It knows no socket and no clock.

use crate::conversation::Conversation;
use crate::fault::Fault;
use crate::raw::quoted;
use crate::script::{Block, Turn, Usage};

/// One content block, both as it streams and as it stands in a whole message.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    /// The `content_block` of its `content_block_start`.
    pub(crate) start: String,
    /// What follows in deltas.
    pub(crate) deltas: Vec<Delta>,
    /// The block's JSON text in a whole message: what the client must give back.
    pub(crate) whole: String,
    /// The id of a client's call.
    pub(crate) tool_use_id: Option<String>,
    /// The input is no JSON object, so the client can't give it back as it came: any input will do.
    pub(crate) loose: bool,
}

/// What a delta carries. The text is cut into pieces where it is written.
#[derive(Debug, Clone)]
pub(crate) enum Delta {
    Text(String),
    Thinking(String),
    Signature(String),
    Json(String),
}

impl Delta {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Thinking(text) | Self::Signature(text) | Self::Json(text) => text,
        }
    }
}

/// One message.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) blocks: Vec<Said>,
    pub(crate) stop_reason: String,
    pub(crate) usage: Usage,
    /// The last block is cut off: the client may give the message back without it.
    pub(crate) cut_off: bool,
}

impl Reply {
    /// The message that `turn` becomes under these faults. `fresh` yields a number that no other id has.
    pub(crate) fn new(
        turn: &Turn,
        faults: &[Fault],
        conversation: &Conversation,
        mut fresh: impl FnMut() -> u64,
    ) -> Self {
        let mut content = obey_tool_choice(turn.content.clone(), conversation);
        let calls_a_tool = content.iter().any(Block::is_client_call);
        let default_reason = if calls_a_tool { "tool_use" } else { "end_turn" };
        let mut stop_reason = turn.stop_reason.clone().unwrap_or_else(|| default_reason.to_owned());
        let mut cut_off = false;
        for fault in faults {
            match fault {
                Fault::CutOff { stop_reason: reason, keep } => {
                    stop_reason.clone_from(reason);
                    cut_off = content.last_mut().is_some_and(|block| cut(block, *keep));
                }
                Fault::Refusal { after_blocks } => {
                    "refusal".clone_into(&mut stop_reason);
                    content.truncate(*after_blocks);
                }
                _ => {}
            }
        }
        let id = format!("msg_{:024}", fresh());
        let blocks: Vec<Said> = content.iter().map(|block| say(block, &mut fresh)).collect();
        let written: usize =
            blocks.iter().flat_map(|block| &block.deltas).map(|delta| delta.text().chars().count()).sum();
        let usage = turn.usage.unwrap_or_else(|| Usage {
            input_tokens: tokens(conversation.bytes),
            output_tokens: tokens(written),
            ..Usage::default()
        });
        Self { id, model: conversation.model.clone(), blocks, stop_reason, usage, cut_off }
    }

    /// The assistant message as the client must send it back.
    pub(crate) fn assistant_message(&self) -> String {
        let blocks: Vec<&str> = self.blocks.iter().map(|block| block.whole.as_str()).collect();
        format!(r#"{{"role":"assistant","content":[{}]}}"#, blocks.join(","))
    }
}

/// About four characters are a token, and nothing is free.
pub(crate) fn tokens(characters: usize) -> u64 {
    u64::try_from(characters / 4).unwrap_or(u64::MAX).max(1)
}

/// With `disable_parallel_tool_use` the model calls at most one tool.
fn obey_tool_choice(mut content: Vec<Block>, conversation: &Conversation) -> Vec<Block> {
    if conversation.tool_choice["disable_parallel_tool_use"] == true {
        let mut called = false;
        content.retain(|block| !block.is_client_call() || !std::mem::replace(&mut called, true));
    }
    content
}

/// Cuts the block's text or input after `keep` characters; false if it has neither or is not that long.
fn cut(block: &mut Block, keep: usize) -> bool {
    let (Block::Text(text) | Block::Call { input: text, .. }) = block else { return false };
    match text.char_indices().nth(keep) {
        Some((at, _)) => {
            text.truncate(at);
            true
        }
        None => false,
    }
}

fn say(block: &Block, fresh: &mut impl FnMut() -> u64) -> Said {
    let plain =
        |start: &str, deltas, whole| Said { start: start.to_owned(), deltas, whole, tool_use_id: None, loose: false };
    match block {
        Block::Text(text) => plain(
            r#"{"type":"text","text":""}"#,
            vec![Delta::Text(text.clone())],
            format!(r#"{{"type":"text","text":{}}}"#, quoted(text)),
        ),
        Block::Thinking { thinking, signature } => plain(
            r#"{"type":"thinking","thinking":"","signature":""}"#,
            vec![Delta::Thinking(thinking.clone()), Delta::Signature(signature.clone())],
            format!(r#"{{"type":"thinking","thinking":{},"signature":{}}}"#, quoted(thinking), quoted(signature)),
        ),
        Block::Call { kind, id, name, input, extra } => say_call(kind, id.as_deref(), name, input, extra, fresh),
        Block::Raw(text) => plain(text, Vec::new(), text.clone()),
    }
}

fn say_call(
    kind: &str,
    id: Option<&str>,
    name: &str,
    input: &str,
    extra: &[(String, String)],
    fresh: &mut impl FnMut() -> u64,
) -> Said {
    let prefix = if kind == "tool_use" { "toolu" } else { "srvtoolu" };
    let id = id.map_or_else(|| format!("{prefix}_{:024}", fresh()), str::to_owned);
    let extra: String = extra.iter().map(|(key, value)| format!(",{}:{value}", quoted(key))).collect();
    let around = |input: &str| {
        let (kind, id, name) = (quoted(kind), quoted(&id), quoted(name));
        format!(r#"{{"type":{kind},"id":{id},"name":{name},"input":{input}{extra}}}"#)
    };
    // An empty input streams as no text at all, which means `{}`.
    let loose = crate::raw::Object::parse(input).is_none() && !input.is_empty();
    let whole = around(if loose || input.is_empty() { "{}" } else { input });
    let deltas = if input.is_empty() { Vec::new() } else { vec![Delta::Json(input.to_owned())] };
    Said { start: around("{}"), deltas, whole, tool_use_id: (kind == "tool_use").then_some(id), loose }
}
