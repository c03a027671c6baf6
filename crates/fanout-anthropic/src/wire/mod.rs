//! What is said in the Messages API, as types; JSON in and out, no I/O.

pub mod raw;

pub mod block;
pub(crate) mod error;
pub mod message;
pub mod request;
pub mod response;
pub mod tool;
pub mod usage;

pub use block::{Block, Input, ToolUse, View};
pub use message::{Message, ResultContent, Role, ToolResult};
pub use raw::{Raw, WireError};
pub use request::{Request, Thread};
pub use response::{Response, StopReason};
pub use tool::{ToolChoice, ToolDef, tools_json};
pub use usage::Usage;
