//! One tool of a server, as a toolbox holds it.
//!
//! From [`McpServer`] and what its author declares of it. To the scheduler, which calls it.
//!
//! The server's hint says what is inferred (`readOnlyHint`: it reads the server, else it writes it) and nothing riskier: only a
//! declaration makes a tool repeatable.

use std::sync::Arc;
use std::time::Duration;

use fanout_core::effects::{EffectsSpec, Source};
use fanout_core::outcome::Output;
use fanout_core::tool::{Attempt, BoxFuture, Policy, Proposal, Tool, ToolError, ToolSpec};

use super::answer::output;
use super::connection::Connection;
use super::failure::{McpError, is_of_session, of_call};
use super::server::{McpListed, McpServer, Shared};
use crate::declared::{Declared, EffectsError};
use crate::naming::tool_name;
use crate::schema::Fields;

/// A server that is not there by then is not awaited longer, nor for more than half of a tool's time-out: then it is known
/// that nothing was sent.
const AWAITED: Duration = Duration::from_secs(15);

/// What is declared of a tool, beyond what its server lists.
#[derive(Clone, Debug, Default)]
pub struct McpToolOptions {
    /// What it reads; `None`: nothing was said. If nothing was said of its writes either, the catalogue holds, if it knows the
    /// tool.
    pub reads: Option<Vec<String>>,
    /// What it writes; `None`: nothing was said, and the hint decides.
    pub writes: Option<Vec<String>>,
    /// How calls of it are treated.
    pub policy: Policy,
    /// Undeclared, it keeps no order: `Promise.all` by choice.
    pub parallel: bool,
}

/// A tool of an MCP server.
#[derive(Clone, Debug)]
pub struct McpTool {
    spec: ToolSpec,
    tool: Arc<str>,
    /// It is taken to change nothing because the server said so when the toolbox was made.
    by_hint: bool,
    shared: Arc<Shared>,
}

impl McpServer {
    /// Makes a tool of what the server lists. Its name is [`tool_name`]'s.
    ///
    /// # Errors
    /// [`EffectsError`] for a template that cannot be read or names a field that the input lacks.
    pub fn tool(&self, listed: &McpListed, options: McpToolOptions) -> Result<McpTool, EffectsError> {
        let source = Source::from(format!("mcp/{}", self.name()));
        let fields = Fields::of(&listed.input_schema);
        let said = Declared { reads: options.reads, writes: options.writes, parallel: options.parallel };
        // Who declares anything, or wants no order by choice, has said all that is to be said.
        let catalogued = listed.catalogued.filter(|_| !said.is_said() && !said.parallel);
        let owned = |keys: &[&str]| Some(keys.iter().map(|key| (*key).to_owned()).collect());
        let declared = match &catalogued {
            Some(known) => Declared { reads: owned(known.reads), writes: owned(known.writes), parallel: false },
            None => said,
        };
        let all_of = if listed.read_only { EffectsSpec::reads_all_of } else { EffectsSpec::writes_all_of };
        let spec = ToolSpec {
            description: listed.description.clone(),
            input_schema: listed.input_schema.clone(),
            effects: declared.effects(all_of(&source), &fields)?,
            policy: options.policy,
            catalogue: catalogued.map(|known| known.package),
            proposal: Some(Proposal {
                section: format!("[mcp_servers.{}]", self.name()),
                tool: listed.name.clone(),
                key: None,
            }),
            ..ToolSpec::new(tool_name(self.name(), &listed.name), source)
        };
        let by_hint = listed.read_only && spec.effects.writes.is_none() && !declared.parallel;
        Ok(McpTool { spec, tool: listed.name.as_str().into(), by_hint, shared: Arc::clone(&self.shared) })
    }
}

impl Tool for McpTool {
    fn spec(&self) -> ToolSpec {
        self.spec.clone()
    }

    /// # Cancellation
    /// The server is told, and may go on all the same: nothing in the protocol says when it has stopped.
    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        let this = self.clone();
        Box::pin(async move { this.attempt(&attempt).await })
    }
}

impl McpTool {
    async fn attempt(&self, attempt: &Attempt) -> Result<Output, ToolError> {
        let (server, name) = (self.shared.name(), &attempt.tool);
        let mut connection = self.connection(attempt).await?;
        let mut answer = connection.call(self.tool.to_string(), attempt).await;
        if answer.as_ref().is_err_and(is_of_session) {
            connection = self.connection(attempt).await?;
            answer = connection.call(self.tool.to_string(), attempt).await;
        }
        match answer {
            Ok(result) => Ok(output(result)),
            Err(error) => Err(of_call(name, server, error, connection.last_words().await)),
        }
    }

    /// The connection, to a server that still has this tool.
    async fn connection(&self, attempt: &Attempt) -> Result<Arc<Connection>, ToolError> {
        let (server, name) = (self.shared.name(), &attempt.tool);
        let not_sent =
            |why: String| ToolError::NotSent(format!("the MCP server `{server}` of `{name}` is not there: {why}"));
        let awaited = AWAITED.min(self.spec.policy.timeout / 2);
        let connection = match tokio::time::timeout(awaited, Shared::connection(&self.shared)).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error @ McpError::Reach(_))) => return Err(ToolError::Failed(format!("`{name}`: {error}"))),
            Ok(Err(error)) => return Err(not_sent(error.to_string())),
            Err(_) => return Err(not_sent("it is still starting".to_owned())),
        };
        self.check_listed(attempt)?;
        Ok(connection)
    }

    /// Refuses a call that no longer makes sense: the server's list is not what the toolbox was made of.
    fn check_listed(&self, attempt: &Attempt) -> Result<(), ToolError> {
        let (server, name) = (self.shared.name(), &attempt.tool);
        let message = match self.shared.listed(&self.tool) {
            None => format!(
                "nothing was sent: the MCP server `{server}` no longer has the tool `{}`; do without `{name}`, which goes when \
                 fanout is started again",
                self.tool
            ),
            Some(false) if self.by_hint => format!(
                "nothing was sent: the MCP server `{server}` no longer says that `{name}` changes nothing, so it cannot run beside \
                 other calls as before; that is put right when fanout is started again"
            ),
            Some(_) => return Ok(()),
        };
        Err(ToolError::Failed(message))
    }
}
