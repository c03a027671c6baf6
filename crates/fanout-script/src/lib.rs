//! The stand-in: a scripted Claude as a real HTTP server on a real loopback socket, and a shop to run tools against.
//!
//! From a [`Script`], a closure, or a scenario in the prompt: what the model says, how fast, and what goes wrong on the way.
//! To any Messages API client: answers, streams and the API's own 400s; to tests: what was received and what was refused.
//!
//! The server is an oracle. It reads requests by itself and shares no code with the client that it judges, so no type of
//! ours can make both sides wrong in the same way. Nothing here knows the scheduler, a tool or a configuration.

pub mod shop;

mod check;
mod conversation;
mod delivery;
mod events;
mod fault;
mod history;
mod ledger;
mod listen;
mod raw;
mod refusal;
mod reply;
mod scenario;
mod script;
mod server;
mod threads;

pub use check::Fidelity;
pub use conversation::{Conversation, Message, Part, Role, ToolResult};
pub use fault::{Fault, LineEnd, RetryAfter};
pub use ledger::{Received, Violation};
pub use refusal::Rule;
pub use script::{Block, Pace, Script, ScriptError, Turn, Usage};
pub use server::{RefusedAddress, Server, ServerOptions};
