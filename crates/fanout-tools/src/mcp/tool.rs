//! One tool of a server, as a toolbox holds it.
//!
//! From [`McpServer`] and what its author declares of it. To the scheduler, which calls it.
//!
//! The server's hint says what is inferred (`readOnlyHint`: it reads the server, else it writes it) and nothing riskier: only a
//! declaration makes a tool repeatable.

use std::sync::Arc;
use std::time::Duration;

use fanout_core::effects::{EffectsSpec, Source, Template, TemplateError};
use fanout_core::outcome::Output;
use fanout_core::tool::{Attempt, BoxFuture, Policy, Proposal, Tool, ToolError, ToolSpec};

use super::answer::output;
use super::connection::Connection;
use super::failure::{McpError, is_of_session, of_call};
use super::server::{McpListed, McpServer, Shared};
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

/// Why what is declared of a tool cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum McpToolError {
    /// A template cannot be read.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A template names a field that the input lacks.
    #[error(
        "`{template}` names `{field}`, which the input lacks{}",
        .nearest.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
    )]
    UnknownField {
        /// The template.
        template: String,
        /// The field that it names.
        field: String,
        /// The field that was perhaps meant.
        nearest: Option<String>,
    },
}

impl McpServer {
    /// Makes a tool of what the server lists. Its name is [`tool_name`]'s.
    ///
    /// # Errors
    /// [`McpToolError`] for a template that cannot be read or names a field that the input lacks.
    pub fn tool(&self, listed: &McpListed, options: McpToolOptions) -> Result<McpTool, McpToolError> {
        let source = Source::from(format!("mcp/{}", self.name()));
        let fields = Fields::of(&listed.input_schema);
        let templates = |texts: &Option<Vec<String>>| {
            texts.as_ref().map(|texts| texts.iter().map(|text| template(text, &fields)).collect()).transpose()
        };
        let said = options.reads.is_some() || options.writes.is_some();
        // Who declares anything, or wants no order by choice, has said all that is to be said.
        let catalogued = listed.catalogued.filter(|_| !said && !options.parallel);
        let owned = |keys: &[&str]| Some(keys.iter().map(|key| (*key).to_owned()).collect());
        let (reads, writes) = match &catalogued {
            Some(known) => (templates(&owned(known.reads))?, templates(&owned(known.writes))?),
            None => (templates(&options.reads)?, templates(&options.writes)?),
        };
        let inferred = match listed.read_only {
            _ if options.parallel && !said => EffectsSpec::default(),
            true => EffectsSpec::reads_all_of(&source),
            false => EffectsSpec::writes_all_of(&source),
        };
        let spec = ToolSpec {
            description: listed.description.clone(),
            input_schema: listed.input_schema.clone(),
            effects: EffectsSpec { reads, writes, ..inferred },
            policy: options.policy,
            catalogue: catalogued.map(|known| known.package),
            proposal: Some(Proposal {
                section: format!("[mcp_servers.{}]", self.name()),
                tool: listed.name.clone(),
                key: None,
            }),
            ..ToolSpec::new(tool_name(self.name(), &listed.name), source)
        };
        let by_hint = listed.read_only && spec.effects.writes.is_none() && !options.parallel;
        Ok(McpTool { spec, tool: listed.name.as_str().into(), by_hint, shared: Arc::clone(&self.shared) })
    }
}

fn template(text: &str, fields: &Fields) -> Result<Template, McpToolError> {
    let template = Template::parse(text)?;
    let lacking = template.fields().find(|field| !fields.has(field)).map(str::to_owned);
    match lacking {
        None => Ok(template),
        Some(field) => {
            let nearest = fields.nearest(&field).map(str::to_owned);
            Err(McpToolError::UnknownField { template: text.to_owned(), field, nearest })
        }
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
