//! An MCP server that is a shell script, and the tools that are made of it.

use std::path::Path;
use std::sync::Arc;

use fanout_core::call::Call;
use fanout_core::outcome::{Content, Outcome, Output};
use fanout_core::run::{RunOptions, Scheduler, SchedulerOptions};
use fanout_core::secrets::Secrets;
use fanout_core::tool::{Attempt, Policy, Tool, ToolError};
use fanout_core::toolbox::Toolbox;
use fanout_tools::mcp::{McpListed, McpReach, McpServer, McpTool, McpToolOptions};
use serde_json::json;
use tempfile::TempDir;

/// The server and what it listed.
pub(crate) struct Script {
    pub(crate) server: McpServer,
    pub(crate) listed: Vec<McpListed>,
    folder: TempDir,
}

impl Script {
    /// Starts it.
    pub(crate) async fn start(mode: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = server(folder.path(), mode);
        let listed = server.list().await.unwrap();
        Self { server, listed, folder }
    }

    /// One of its tools.
    pub(crate) fn tool(&self, name: &str, options: McpToolOptions) -> McpTool {
        let listed = self.listed.iter().find(|tool| tool.name == name).unwrap();
        self.server.tool(listed, options).unwrap()
    }

    /// One attempt at one of its tools.
    pub(crate) async fn attempt(&self, name: &str) -> Result<Output, ToolError> {
        let tool = self.tool(name, McpToolOptions::default());
        tool.call(Attempt::detached(tool.spec().name, json!({"path": "a"}))).await
    }

    /// What one of its tools says.
    pub(crate) async fn says(&self, name: &str) -> String {
        text(&self.attempt(name).await.unwrap())
    }

    /// A batch of these tools through the scheduler, one call each; those of `reads` are declared to write nothing.
    pub(crate) async fn batch(&self, tools: &[&str], reads: &[&str]) -> Vec<Arc<Outcome>> {
        let mut toolbox = Toolbox::new();
        for tool in &self.listed {
            let writes = reads.contains(&tool.name.as_str()).then(Vec::new);
            let options =
                McpToolOptions { writes, parallel: true, policy: Policy::default(), ..McpToolOptions::default() };
            toolbox.add(self.server.tool(tool, options).unwrap()).unwrap();
        }
        let scheduler = Scheduler::new(SchedulerOptions::default());
        let mut run = scheduler.run(Arc::new(toolbox), RunOptions::new("r"));
        let mut batch = run.batch();
        for (at, tool) in (0..).zip(tools) {
            batch.call(Call::new(at, at.to_string(), format!("s__{tool}"), json!({}))).unwrap();
        }
        batch.finish().await
    }

    /// How often it was started.
    pub(crate) fn starts(&self) -> usize {
        std::fs::read_to_string(self.folder.path().join("starts")).unwrap().lines().count()
    }
}

/// The server, not yet started.
pub(crate) fn server(folder: &Path, mode: &str) -> McpServer {
    let variable = |name: &str, value: &str| (name.to_owned(), value.into());
    let path = std::env::var("PATH").unwrap();
    let mut secrets = Secrets::new();
    secrets.add("SECRET", "s3cret");
    let reach = McpReach::Program {
        program: "sh".into(),
        args: ["-c", include_str!("mcp_server.sh")].map(Into::into).to_vec(),
        env: vec![
            variable("PATH", &path),
            variable("DIR", folder.to_str().unwrap()),
            variable("MODE", mode),
            variable("SECRET", "s3cret"),
        ],
        folder: Some(folder.to_owned()),
        secrets: Arc::new(secrets),
    };
    McpServer::new("s", reach).unwrap()
}

/// The texts of an output.
pub(crate) fn text(output: &Output) -> String {
    let text = |content: &Content| match content {
        Content::Text(text) => text.to_string(),
        Content::Image { media_type, .. } => media_type.clone(),
    };
    output.content.iter().map(text).collect::<Vec<_>>().join("\n")
}
