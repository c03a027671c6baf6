//! A client: a program that holds conversations, one after another.
//!
//! From [`install`](crate::install): the command that starts it. To [`conversation`](crate::conversation): what each came to.
//! To the program a line of JSON each, and back from it. It stays, because an SDK takes longer to load than to talk.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::install::alone;

/// Longer than this no conversation takes, on however busy a machine: then somebody waits for what never comes.
const HANGS_AFTER: Duration = Duration::from_secs(120);

/// A running client. Dropping it kills it.
#[derive(Debug)]
pub struct Client {
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    process: Child,
}

impl Client {
    /// Starts it.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(mut command: Command) -> anyhow::Result<Self> {
        alone(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let stdin = process.stdin.take().context("its standard input")?;
        let stdout = process.stdout.take().context("its standard output")?;
        Ok(Self { stdin, stdout: BufReader::new(stdout).lines(), process })
    }

    /// Holds this conversation with the Messages API at `base_url`, and returns its answers. With `shop`, the shop's tools
    /// are the client's own and ask it there.
    ///
    /// # Errors
    /// What the client threw, or that it is gone or hangs.
    pub async fn hold(&mut self, conversation: &str, base_url: &str, shop: Option<&str>) -> anyhow::Result<Value> {
        self.ask(&json!({ "conversation": conversation, "base_url": base_url, "shop": shop })).await
    }

    /// Holds the conversation that `wanted` describes, and returns its answers.
    ///
    /// # Errors
    /// As [`hold`](Self::hold).
    pub async fn ask(&mut self, wanted: &Value) -> anyhow::Result<Value> {
        self.stdin.write_all(format!("{wanted}\n").as_bytes()).await.context("the client does not listen")?;
        let Ok(line) = tokio::time::timeout(HANGS_AFTER, self.stdout.next_line()).await else {
            // Its answer, should it come yet, must not be taken for that of the next conversation.
            self.process.start_kill()?;
            bail!("the client had no answer after {HANGS_AFTER:?}, and was ended");
        };
        let line = line?.context("the client ended without an answer")?;
        let mut answer: Value = serde_json::from_str(&line).with_context(|| format!("the client said: {line}"))?;
        if let Some(failed) = answer["failed"].as_str() {
            bail!("the client failed:\n{failed}");
        }
        match answer["answers"].take() {
            Value::Array(answers) if !answers.is_empty() => Ok(Value::Array(answers)),
            _ => bail!("the client answered nothing: {line}"),
        }
    }
}
