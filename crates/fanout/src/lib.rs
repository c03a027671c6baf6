//! Runs the tool calls of a Claude agent in parallel, as fast as their true dependencies allow, and gives the same answer
//! as running them one by one.
//!
//! This crate is the name: it re-exports what a program embeds, and defines nothing.
//!
//! A batch of calls without any model, in ten lines:
//!
//! ```
//! use std::sync::Arc;
//! use fanout::{Attempt, Call, Function, RunOptions, Scheduler, SchedulerOptions, Toolbox};
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! struct GetUser { id: String }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let get_user = Function::new("get_user", "Look up a user by id.", |input: GetUser, _: Attempt| async move {
//!     Ok::<_, std::convert::Infallible>(format!("{} is Ada", input.id))
//! });
//! let mut toolbox = Toolbox::new();
//! toolbox.add(get_user.reads(["user/{id}"]).writes([]).build()?)?;
//!
//! let mut run = Scheduler::new(SchedulerOptions::default()).run(Arc::new(toolbox), RunOptions::new("run-1"));
//! let mut batch = run.batch();
//! batch.call(Call::new(0, "toolu_1", "get_user", serde_json::json!({ "id": "u1" })))?;
//! batch.call(Call::new(1, "toolu_2", "get_user", serde_json::json!({ "id": "u2" })))?;
//! let outcomes = batch.finish().await;
//! assert_eq!(outcomes.len(), 2);
//! assert!(outcomes.iter().all(|outcome| !outcome.is_error()));
//! # Ok(())
//! # }
//! ```
//!
//! With a model, hand the toolbox to an [`Agent`]. What the scheduler promises stands in `docs/rules.md`.

pub use fanout_agent::{
    Agent, AgentError, AgentOptions, Budget, BudgetError, Cancel, Conversation, Limits, Price, Report, RunSettings,
    Status,
};
pub use fanout_anthropic::{HttpModel, HttpOptions, Message, Model, ModelError, Request, Response, ToolChoice, Usage};
pub use fanout_core::call::{Call, CallId, CallerId, GroupName, Input, Link, Need, Position, RunId, ToolName};
pub use fanout_core::effects::{Effects, EffectsSpec, Key, Paths, Source, Template};
pub use fanout_core::event::{Event, Recorder, Wait, What, Why};
pub use fanout_core::limits::{BreakerOptions, BreakerState, GroupState, LimitOptions, Rate};
pub use fanout_core::outcome::{CallError, Content, ErrorCode, Outcome, Output};
pub use fanout_core::retry::Backoff;
pub use fanout_core::run::{Batch, BatchError, Run, RunOptions, Scheduler, SchedulerOptions};
pub use fanout_core::timeline::{Figures, Timeline};
pub use fanout_core::tool::{Attempt, BoxFuture, Hold, Policy, Tool, ToolError, ToolSpec};
pub use fanout_core::toolbox::{Toolbox, ToolboxError};
pub use fanout_tools::function::{Function, FunctionError};
pub use fanout_tools::http::{HttpClient, HttpTool, HttpToolError};
pub use fanout_tools::{command, http, mcp, openapi, sql};

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
