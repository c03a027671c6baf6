//! What is said in the Messages API, as types; JSON in and out, no I/O.

pub(crate) mod raw;

pub(crate) mod block;
pub(crate) mod error;
mod message;
mod request;
pub(crate) mod response;
mod tool;
mod usage;

pub use block::{Block, Input, ToolUse, View};
pub use message::{Message, ResultContent, Role, ToolResult};
pub use raw::{Raw, WireError};
pub use request::{Request, Thread};
pub use response::{Response, StopReason};
pub use tool::{NAME_BYTES_MAX, ToolChoice, ToolDef, tools_json};
pub use usage::Usage;
