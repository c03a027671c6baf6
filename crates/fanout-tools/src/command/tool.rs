//! A program as a tool.
//!
//! From `builder`: the program as its author described it.
//! To a [`Toolbox`](fanout_core::toolbox::Toolbox), as [`CommandTool`].
//!
//! It runs one program to its end. What that means is read in `answer`; whether a failed attempt goes again is decided in
//! `fanout-core`. No thread of the runtime is ever blocked.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use fanout_core::call::ToolName;
use fanout_core::outcome::Output;
use fanout_core::tool::{Attempt, BoxFuture, Tool, ToolError, ToolSpec};
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::time::timeout;

use super::answer::{Answer, Kept};
use super::argument::{Filled, Line};
use super::builder::CommandToolBuilder;
use super::group::Programs;
use super::program::{Program, Start, Started};

/// So long after the end of a program its output is awaited where something that it started still holds it.
const REST_MAX: Duration = Duration::from_millis(500);

/// A program as a tool. Cloning it shares everything.
#[derive(Clone)]
pub struct CommandTool {
    pub(super) spec: ToolSpec,
    pub(super) recipe: Arc<Recipe>,
}

pub(super) struct Recipe {
    pub(super) line: Line,
    pub(super) program: Arc<Program>,
    pub(super) output_max: usize,
    pub(super) programs: Programs,
}

impl CommandTool {
    /// Begins a tool that runs `program`: a path, or a name that is looked up in this process's `PATH`.
    ///
    /// Without a declaration it writes all of the source `command`, and is not repeatable. What the program leaves running
    /// in its process group when it ends is ended too.
    pub fn builder(name: impl Into<ToolName>, program: impl Into<String>) -> CommandToolBuilder {
        CommandToolBuilder::new(name.into(), program.into())
    }
}

impl Tool for CommandTool {
    fn spec(&self) -> ToolSpec {
        self.spec.clone()
    }

    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        let recipe = Arc::clone(&self.recipe);
        Box::pin(async move { recipe.call(&attempt).await })
    }
}

impl fmt::Debug for CommandTool {
    // Neither arguments nor variables: they may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandTool")
            .field("name", &self.spec.name)
            .field("program", &self.recipe.program.name)
            .finish_non_exhaustive()
    }
}

impl Recipe {
    async fn call(&self, attempt: &Attempt) -> Result<Output, ToolError> {
        let Filled { arguments, stdin } = self.line.fill(&attempt.input)?;
        let Started { mut group, stdin: pipe, stdout, stderr } =
            self.start(arguments, stdin.is_some(), attempt).await?;
        let max = self.output_max;
        let (mut out, mut err) = (Kept::beginning(max), Kept::end(max));
        let ended = {
            let mut fed = pin!(feed(pipe, stdin));
            let mut read = pin!(async { tokio::join!(out.read(stdout), err.read(stderr)) });
            let (mut feeding, mut reading) = (true, true);
            let mut ended = pin!(group.ended());
            let ended = loop {
                tokio::select! {
                    ended = &mut ended => break ended,
                    () = &mut fed, if feeding => feeding = false,
                    _ = &mut read, if reading => reading = false,
                }
            };
            if reading {
                // What came by then is the output.
                let _ = timeout(REST_MAX, read).await;
            }
            ended
        };
        group.finish().await;
        let tool = &attempt.tool;
        let status = ended.map_err(|error| ToolError::Broken(format!("nobody knows how `{tool}` ended: {error}")))?;
        Answer { status, stdout: out, stderr: err }.into_output(tool, &attempt.secrets)
    }

    /// Starts the program on a thread that may block.
    ///
    /// # Cancellation
    /// Dropping the future has it not started, or ended at once.
    async fn start(&self, arguments: Vec<String>, has_stdin: bool, attempt: &Attempt) -> Result<Started, ToolError> {
        let turn = Arc::clone(&self.programs.starting).acquire_owned().await;
        let program = Arc::clone(&self.program);
        let start = Start {
            arguments,
            idempotency_key: Arc::clone(&attempt.idempotency_key),
            has_stdin,
            hold: attempt.hold(),
            place: self.programs.place(),
        };
        let wanted = Arc::new(());
        let still = Arc::downgrade(&wanted);
        let started = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            match still.upgrade() {
                Some(_) => program.start(start),
                None => Err(ToolError::Stopped),
            }
        });
        let started = started.await;
        drop(wanted);
        match started {
            Ok(started) => started,
            Err(error) if error.is_panic() => Err(ToolError::Panicked(error.to_string())),
            Err(_) => Err(ToolError::Stopped),
        }
    }
}

/// Writes standard input and closes it. A program need not read it, or all of it.
async fn feed(pipe: Option<ChildStdin>, text: Option<String>) {
    if let (Some(mut pipe), Some(text)) = (pipe, text) {
        let _ = pipe.write_all(text.as_bytes()).await;
    }
}
