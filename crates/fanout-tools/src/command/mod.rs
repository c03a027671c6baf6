//! A program as a tool.
//!
//! From its author, through `builder`; to a [`Toolbox`](fanout_core::toolbox::Toolbox), as [`CommandTool`].
//! In the order of a call: `tool` is what the toolbox holds; `argument` fills inputs into arguments and standard input;
//! `program` finds and starts the file; `group` (with `living`) keeps the processes until the last of them is gone; `answer` reads what they
//! printed and how they ended.
//! There is no shell anywhere: what an input holds is one argument, never more, and never an option.

mod answer;
mod argument;
mod builder;
mod group;
mod living;
mod program;
mod tool;

pub use answer::OUTPUT_MAX;
pub use builder::{CommandToolBuilder, CommandToolError};
pub use group::{GRACE, Programs};
pub use tool::CommandTool;
