//! The binary under test: how it is started, and what came of it.
//!
//! Every child stands in a folder of its own with an emptied environment, so that nothing of the machine decides a test.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A folder to start the binary in.
pub struct Desk {
    folder: TempDir,
    variables: Vec<(String, String)>,
}

/// What a child came to.
#[derive(Debug)]
pub struct Came {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Desk {
    /// An empty folder.
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let variables = vec![("PATH".to_owned(), std::env::var("PATH").unwrap_or_default())];
        Self { folder, variables }
    }

    /// A folder with this configuration.
    pub fn with(config: &str) -> Self {
        let desk = Self::new();
        desk.write("fanout.toml", config);
        desk
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Sets an environment variable of the children.
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder()).env_clear().envs(self.variables.iter().cloned());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts the binary and feeds it; its standard input is closed then.
    pub fn start(&self, arguments: &[&str], input: &str) -> Child {
        feed(self.command(env!("CARGO_BIN_EXE_fanout")).args(arguments).spawn().unwrap(), input)
    }

    /// Runs the binary to its end.
    pub async fn run(&self, arguments: &[&str], input: &str) -> Came {
        ended(self.start(arguments, input)).await
    }
}

/// Feeds a child from a thread of its own: it need not read all of it, or any.
pub fn feed(mut child: Child, input: &str) -> Child {
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
    std::thread::spawn(move || {
        let _ = stdin.write_all(input.as_bytes());
    });
    child
}

/// Waits for a child while the servers around it go on.
pub async fn ended(child: Child) -> Came {
    tokio::task::spawn_blocking(move || Came::from(child.wait_with_output().unwrap())).await.unwrap()
}

impl From<Output> for Came {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Came {
    /// The same, if it ended with this code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }

    /// Standard output as JSON lines.
    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }

    /// The results in the user message on standard output: id, whether it is an error, and text.
    #[track_caller]
    pub fn results(&self) -> Vec<(String, bool, String)> {
        results(&self.json())
    }

    /// The last line that begins so on standard error.
    #[track_caller]
    pub fn said(&self, start: &str) -> &str {
        let line = self.err.lines().rfind(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no line begins with `{start}`:\n{}", self.err))
    }
}

/// The results of a user message, which must be nothing but results.
#[track_caller]
pub fn results(message: &Value) -> Vec<(String, bool, String)> {
    assert_eq!(message["role"], "user");
    let blocks = message["content"].as_array().unwrap();
    assert!(blocks.iter().all(|block| block["type"] == "tool_result"));
    let text = |block: &Value| block["content"].as_str().unwrap_or_default().to_owned();
    let error = |block: &Value| block["is_error"].as_bool().unwrap_or_default();
    blocks.iter().map(|block| (block["tool_use_id"].as_str().unwrap().to_owned(), error(block), text(block))).collect()
}

/// The error code in a result's text.
#[track_caller]
pub fn code_of(text: &str) -> String {
    let error: Value = serde_json::from_str(text).unwrap();
    error["error"]["code"].as_str().unwrap().to_owned()
}

/// A content array of these calls: id, tool, input.
pub fn content(calls: &[(&str, &str, &str)]) -> String {
    let block = |(id, name, input): &(&str, &str, &str)| {
        format!(r#"{{"type":"tool_use","id":"{id}","name":"{name}","input":{input}}}"#)
    };
    format!("[{}]", calls.iter().map(block).collect::<Vec<_>>().join(","))
}
