//! The Messages API on the wire: what is said, how it streams, and one client that says it.
//!
//! From a program: a [`Request`], made of [`Message`]s. From a server: bytes.
//! To the program: a [`Response`], made of [`Block`]s that print back exactly as they came.
//!
//! Whatever came in goes back byte for byte: unknown fields and blocks, key order, `1.0`, `\u00e9`, thinking and its
//! signatures. So blocks and messages are kept as their JSON text ([`Raw`]), with a parsed view beside it, and the text is
//! never made anew from the view.
//! This crate knows no scheduler, no tool and no retry: it reports what the server said and never sleeps.

mod wire;

mod sse;
mod stream;

mod model;

#[cfg(feature = "http")]
mod http;

#[cfg(feature = "http")]
pub use http::{HttpModel, HttpOptions, OptionsError, REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};
pub use model::{Again, BoxFuture, Left, Model, ModelError, Part, RateLimits};
pub use sse::Events;
pub use stream::Assembler;
pub use wire::{
    Block, Input, Message, NAME_BYTES_MAX, Raw, Request, Response, ResultContent, Role, StopReason, Thread, ToolChoice,
    ToolDef, ToolResult, ToolUse, Usage, View, WireError, tools_json,
};
