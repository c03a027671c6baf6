//! The tools offered to the model, and how it may choose among them.
//!
//! From whoever holds the registry: names, descriptions, schemas. To [`request`](super::request): the bytes of `tools`.
//!
//! Caches begin with the tools, so their bytes are made once and repeated: never sorted, never printed anew.

use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use super::message::join;
use super::raw::{Raw, WireError, members, push_quoted, string};

/// Longest tool name, in bytes: the API's own limit.
pub const NAME_BYTES_MAX: usize = 128;

/// One tool as the model sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolDef {
    /// Must match `^[a-zA-Z0-9_-]{1,128}$`.
    pub name: String,
    /// What it does and when to use it.
    pub description: String,
    /// A JSON Schema of type `object`.
    pub input_schema: Value,
    /// Whether the cached prefix ends here. Set it on the last tool, and never with a server-held thread.
    pub cache: bool,
}

/// Prints the array of `tools`, in the order given. The same definitions give the same bytes.
///
/// # Errors
/// [`WireError::ToolName`] for the first name that the API would refuse.
pub fn tools_json(tools: &[ToolDef]) -> Result<Arc<str>, WireError> {
    if let Some(bad) = tools.iter().find(|tool| !is_name(&tool.name)) {
        return Err(WireError::ToolName { name: bad.name.clone() });
    }
    let mut out = String::from("[");
    join(&mut out, tools, |out, tool| {
        out.push_str(r#"{"name":"#);
        push_quoted(out, &tool.name);
        out.push_str(r#","description":"#);
        push_quoted(out, &tool.description);
        out.push_str(r#","input_schema":"#);
        out.push_str(&tool.input_schema.to_string());
        if tool.cache {
            out.push_str(r#","cache_control":{"type":"ephemeral"}"#);
        }
        out.push('}');
    });
    out.push(']');
    Ok(out.into())
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// How the model may choose. A change invalidates the cached messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// Calls or none, as it sees fit; with `disable_parallel_tool_use` at most one.
    Auto {
        /// At most one call a turn.
        disable_parallel_tool_use: bool,
    },
    /// At least one call, of any tool. Refused by newer models and with manual thinking.
    Any {
        /// Exactly one call.
        disable_parallel_tool_use: bool,
    },
    /// A call of this tool. Refused by newer models and with manual thinking.
    Tool {
        /// The tool.
        name: String,
        /// Exactly one call.
        disable_parallel_tool_use: bool,
    },
    /// No calls.
    None,
}

impl ToolChoice {
    /// Reads a choice; `None` where it holds anything that this type cannot, and so would lose.
    pub(crate) fn parse(raw: &RawValue) -> Option<Self> {
        let (mut kind, mut name, mut alone, mut is_known) = (None, None, false, true);
        members(raw.get(), |key, value| match (key.as_ref(), value.get()) {
            ("type", _) => kind = string(value),
            ("name", _) => name = string(value),
            ("disable_parallel_tool_use", "true") => alone = true,
            ("disable_parallel_tool_use", "false") => alone = false,
            _ => is_known = false,
        })
        .ok()?;
        match (kind?.as_ref(), name) {
            _ if !is_known => None,
            ("auto", None) => Some(Self::Auto { disable_parallel_tool_use: alone }),
            ("any", None) => Some(Self::Any { disable_parallel_tool_use: alone }),
            ("tool", Some(name)) => Some(Self::Tool { name: name.into_owned(), disable_parallel_tool_use: alone }),
            ("none", None) if !alone => Some(Self::None),
            _ => None,
        }
    }

    /// The choice as the API reads it.
    #[must_use]
    pub fn to_raw(&self) -> Raw {
        let mut out = String::from(r#"{"type":"#);
        let (kind, name, alone) = match self {
            Self::Auto { disable_parallel_tool_use } => ("auto", None, *disable_parallel_tool_use),
            Self::Any { disable_parallel_tool_use } => ("any", None, *disable_parallel_tool_use),
            Self::Tool { name, disable_parallel_tool_use } => ("tool", Some(name), *disable_parallel_tool_use),
            Self::None => ("none", None, false),
        };
        push_quoted(&mut out, kind);
        if let Some(name) = name {
            out.push_str(r#","name":"#);
            push_quoted(&mut out, name);
        }
        if alone {
            out.push_str(r#","disable_parallel_tool_use":true"#);
        }
        out.push('}');
        Raw::trusted(out)
    }
}
