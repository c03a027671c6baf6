//! What the configuration describes, made to run.
//!
//! From [`Config`], and from the surroundings for what is needed only now: secrets.
//! To the surfaces: a toolbox, and the model's client. Nothing is connected to yet; each opens its connections when it is
//! first used.

use std::net::IpAddr;

use fanout_anthropic::{HttpModel, HttpOptions, OptionsError};
use fanout_core::tool::Policy;
use fanout_core::toolbox::{Toolbox, ToolboxError};
use fanout_tools::command::{CommandTool, CommandToolError, Programs};
use fanout_tools::http::{Credential, HttpClient, HttpTool, HttpToolBuilder, HttpToolError};
use fanout_tools::openapi::OperationError;
use fanout_tools::sql::{Database, SqlTool, SqlToolError};
use http::Uri;
use secrecy::{ExposeSecret, SecretString};

use crate::config::{
    CommandConfig, Config, HttpConfig, Implementation, ModelConfig, OpenapiConfig, Place, Setting, SettingError,
    SqlConfig, ToolConfig, Variable,
};
use crate::databases::Databases;
use crate::environment::Environment;
use crate::secrets::secrets_of;

/// Why what the configuration describes cannot run.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A secret or another setting is missing.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A tool is not right, now that its settings are known.
    #[error("{place}: [[tool]] `{tool}` cannot be made")]
    Tool {
        /// Where it stands.
        place: Place,
        /// Its name.
        tool: String,
        /// What is wrong.
        #[source]
        source: Box<ToolMistake>,
    },
    /// An operation cannot be a tool, now that its settings are known.
    #[error("{place}: `{operation}` of [openapi.{name}] cannot be a tool")]
    Operation {
        /// Where its section stands.
        place: Place,
        /// The section's name.
        name: String,
        /// What the configuration calls it.
        operation: String,
        /// What is wrong.
        #[source]
        source: Box<OperationError>,
    },
    /// The toolbox does not take a tool.
    #[error(transparent)]
    Toolbox(#[from] ToolboxError),
    /// There can be no client for the model.
    #[error(transparent)]
    Model(#[from] OptionsError),
}

/// What is wrong with a tool.
#[derive(Debug, thiserror::Error)]
pub enum ToolMistake {
    /// With an endpoint.
    #[error(transparent)]
    Http(#[from] HttpToolError),
    /// With a program.
    #[error(transparent)]
    Command(#[from] CommandToolError),
    /// With statements.
    #[error(transparent)]
    Sql(#[from] SqlToolError),
}

/// What a toolbox is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run calls: every secret of every tool must be there.
    Run,
    /// To run the calls of a gateway's clients. The same, but that `[server]` says whether `plan` is among the tools.
    Serve,
    /// To look at: schemas, effects, what would wait for what. Secrets are left out, so that nobody needs them for it; a
    /// call would be sent without them.
    Look,
}

impl Purpose {
    /// Whether calls will run.
    pub fn runs(self) -> bool {
        self != Self::Look
    }

    fn has_plan(self, config: &Config) -> bool {
        match self {
            Self::Run | Self::Look => config.run.plan,
            Self::Serve => config.server.plan,
        }
    }
}

/// Makes every tool of the configuration, in its order: each `[[tool]]`, then the operations of each document. All of them
/// share their connections; what they start stands among `programs`. A tool whose database could not be opened is left out.
///
/// # Errors
/// The first tool that cannot be made, with the place where it stands.
pub fn build_toolbox(
    config: &Config,
    environment: &Environment,
    purpose: Purpose,
    programs: &Programs,
    databases: &Databases,
) -> Result<Toolbox, BuildError> {
    let client = HttpClient::new();
    let surroundings = Surroundings { environment, purpose, client: &client, programs };
    let mut toolbox = Toolbox::new();
    toolbox.hide(secrets_of(config, environment));
    for tool in &config.tools {
        match &tool.implementation {
            Implementation::Http(http) => toolbox.add(surroundings.http_tool(tool, http)?)?,
            Implementation::Command(command) => toolbox.add(surroundings.command_tool(tool, command)?)?,
            Implementation::Sql(sql) => {
                // Where there is none, whoever opened the databases has said why.
                if let Some(database) = databases.get(&sql.database) {
                    toolbox.add(surroundings.sql_tool(tool, sql, database)?)?;
                }
            }
        }
    }
    for document in &config.openapi {
        surroundings.add_operations(&mut toolbox, document)?;
    }
    Ok(toolbox)
}

/// Puts in `plan`, where the configuration offers it and there is a tool to plan with. All others must be there: those of
/// MCP servers too.
///
/// # Errors
/// [`BuildError::Toolbox`] if a tool is called so.
pub fn add_plan(toolbox: &mut Toolbox, config: &Config, purpose: Purpose) -> Result<(), BuildError> {
    if purpose.has_plan(config) && !toolbox.is_empty() {
        toolbox.add_plan(Policy::default().result_max)?;
    }
    Ok(())
}

/// What tools are made from, their own description aside.
struct Surroundings<'a> {
    environment: &'a Environment,
    purpose: Purpose,
    client: &'a HttpClient,
    programs: &'a Programs,
}

impl Surroundings<'_> {
    fn credential(&self, setting: &Setting) -> Result<Credential, SettingError> {
        match self.purpose {
            Purpose::Run | Purpose::Serve => around_token(setting, |setting| setting.fill(self.environment)),
            Purpose::Look => Ok(setting.with("").into()),
        }
    }

    /// A header in which inputs may stand too.
    fn header(&self, setting: &Setting) -> Result<Credential, SettingError> {
        match self.purpose {
            Purpose::Run | Purpose::Serve => around_token(setting, |setting| setting.fill_template(self.environment)),
            Purpose::Look => Ok(setting.with("").into()),
        }
    }

    /// A text in which inputs may stand.
    fn template(&self, setting: &Setting) -> Result<SecretString, SettingError> {
        match self.purpose {
            Purpose::Run | Purpose::Serve => setting.fill_template(self.environment),
            Purpose::Look => Ok(setting.with("").into()),
        }
    }

    /// Adds every operation of a document.
    fn add_operations(&self, toolbox: &mut Toolbox, document: &OpenapiConfig) -> Result<(), BuildError> {
        let base_url = document.base_url.as_ref().map(|url| url.fill(self.environment)).transpose()?;
        let base_url = base_url.as_ref().map(ExposeSecret::expose_secret);
        let one = |(scheme, setting): &(String, Setting)| Ok((scheme.clone(), self.credential(setting)?));
        let auth = document.auth.iter().map(one).collect::<Result<Vec<_>, SettingError>>()?;
        let section = format!("[openapi.{}]", document.name);
        for tool in &document.tools {
            let wrong = |source| BuildError::Operation {
                place: document.place.clone(),
                name: document.name.clone(),
                operation: tool.operation.outline.label(),
                source: Box::new(source),
            };
            let builder = tool.operation.builder(&section, base_url, &auth).map_err(wrong)?;
            let mut builder = declared(builder, tool.reads.as_ref(), tool.writes.as_ref()).policy(tool.policy.clone());
            if document.undeclared_parallel {
                builder = builder.undeclared_parallel();
            }
            toolbox.add(builder.build(self.client).map_err(|error| wrong(error.into()))?)?;
        }
        Ok(())
    }

    fn http_tool(&self, tool: &ToolConfig, http: &HttpConfig) -> Result<HttpTool, BuildError> {
        let url = http.url.fill_template(self.environment)?;
        let mut builder = HttpTool::builder(tool.name.as_str(), http.method.clone(), url.expose_secret())
            .description(&tool.description)
            .input_schema(tool.input_schema.clone())
            .policy(tool.policy.clone());
        for (name, value) in &http.headers {
            builder = builder.header(name, self.header(value)?);
        }
        for (name, template) in &http.query {
            builder = builder.query(name, self.template(template)?.expose_secret());
        }
        if let Some(body) = http.body {
            builder = builder.body(body);
        }
        if tool.undeclared_parallel {
            builder = builder.undeclared_parallel();
        }
        let builder = declared(builder, tool.reads.as_ref(), tool.writes.as_ref());
        builder.build(self.client).map_err(|error| wrong(tool, error.into()))
    }

    fn command_tool(&self, tool: &ToolConfig, command: &CommandConfig) -> Result<CommandTool, BuildError> {
        let mut builder = CommandTool::builder(tool.name.as_str(), command.program.as_str())
            .description(&tool.description)
            .input_schema(tool.input_schema.clone())
            .policy(tool.policy.clone())
            .folder(&command.cwd)
            .output_max(command.max_output);
        let template = |setting: &Setting| match self.purpose {
            Purpose::Run | Purpose::Serve => setting.fill_template(self.environment),
            // What is left out must not have an input begin the argument.
            Purpose::Look => Ok(setting.with("x").into()),
        };
        for setting in &command.args {
            builder = builder.argument(template(setting)?);
        }
        if let Some(setting) = &command.stdin {
            builder = builder.stdin(template(setting)?);
        }
        if self.purpose.runs() {
            for variable in &command.env {
                match variable {
                    Variable::Inherited(name) => {
                        if let Some(value) = self.environment.get(name) {
                            builder = builder.variable(name, value);
                        }
                    }
                    Variable::Set(name, setting) => {
                        builder = builder.variable(name, setting.fill(self.environment)?.expose_secret());
                    }
                }
            }
            builder = builder.variable("FANOUT_DEPTH", self.environment.child_depth().to_string());
        }
        if tool.undeclared_parallel {
            builder = builder.undeclared_parallel();
        }
        if let Some(reads) = &tool.reads {
            builder = builder.reads(reads.iter().map(String::as_str));
        }
        if let Some(writes) = &tool.writes {
            builder = builder.writes(writes.iter().map(String::as_str));
        }
        builder.build(self.programs).map_err(|error| wrong(tool, error.into()))
    }

    fn sql_tool(&self, tool: &ToolConfig, sql: &SqlConfig, database: &Database) -> Result<SqlTool, BuildError> {
        let mut builder = SqlTool::builder(tool.name.as_str(), database)
            .description(&tool.description)
            .input_schema(tool.input_schema.clone())
            .policy(tool.policy.clone())
            .draft(sql.draft.clone());
        if tool.undeclared_parallel {
            builder = builder.undeclared_parallel();
        }
        if let Some(reads) = &tool.reads {
            builder = builder.reads(reads.iter().map(String::as_str));
        }
        if let Some(writes) = &tool.writes {
            builder = builder.writes(writes.iter().map(String::as_str));
        }
        builder.build().map_err(|error| wrong(tool, error.into()))
    }
}

/// A setting, and the end user's token where it stands in it.
fn around_token(
    setting: &Setting,
    fill: impl Fn(&Setting) -> Result<SecretString, SettingError>,
) -> Result<Credential, SettingError> {
    let texts = setting.around_token().map(|setting| fill(&setting)).collect::<Result<Vec<_>, _>>()?;
    Ok(Credential::around_token(texts))
}

fn wrong(tool: &ToolConfig, source: ToolMistake) -> BuildError {
    BuildError::Tool { place: tool.place.clone(), tool: tool.name.clone(), source: Box::new(source) }
}

fn declared(builder: HttpToolBuilder, reads: Option<&Vec<String>>, writes: Option<&Vec<String>>) -> HttpToolBuilder {
    let builder = match reads {
        Some(reads) => builder.reads(reads.iter().map(String::as_str)),
        None => builder,
    };
    match writes {
        Some(writes) => builder.writes(writes.iter().map(String::as_str)),
        None => builder,
    }
}

/// Makes the client of `[model]`.
///
/// `ANTHROPIC_BASE_URL` wins over `base_url`, and with it `ANTHROPIC_API_KEY` over `api_key`, if it is set: a key that was
/// written down for one server is not sent to another while there is one for it. A server on this machine's loopback is
/// asked without a key where none is set: it is a stand-in or a proxy that has its own.
///
/// # Errors
/// [`BuildError::Setting`] when the key or the address needs a variable that is not set, [`BuildError::Model`] when the
/// address is none.
pub fn build_model(config: &ModelConfig, environment: &Environment) -> Result<HttpModel, BuildError> {
    let variable = environment.get("ANTHROPIC_BASE_URL");
    let base_url = match variable {
        Some(url) => url.to_owned(),
        None => config.base_url.fill(environment)?.expose_secret().to_owned(),
    };
    let api_key = match (variable, environment.get("ANTHROPIC_API_KEY")) {
        (Some(_), Some(key)) => Some(key.into()),
        _ => match config.api_key.fill(environment) {
            Err(_) if is_loopback(&base_url) => None,
            key => Some(key?),
        },
    };
    Ok(HttpModel::new(HttpOptions { base_url, api_key, ..HttpOptions::default() })?)
}

/// Where a gateway sends what it passes on.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Where the Messages API is.
    pub base_url: String,
    /// The key of `[model]`, if there is one; a client may bring another.
    pub api_key: Option<SecretString>,
}

/// Finds the upstream of a gateway: `[model]`, with `FANOUT_UPSTREAM_URL` before `base_url`. `ANTHROPIC_BASE_URL` counts
/// for nothing here: on a machine that runs a gateway it points clients at that gateway.
///
/// A key that needs a variable which is not set is no mistake: clients may bring their own.
///
/// # Errors
/// [`BuildError::Setting`] when the address needs a variable that is not set.
pub fn build_upstream(config: &ModelConfig, environment: &Environment) -> Result<Upstream, BuildError> {
    let base_url = match environment.get("FANOUT_UPSTREAM_URL") {
        Some(url) => url.to_owned(),
        None => config.base_url.fill(environment)?.expose_secret().to_owned(),
    };
    Ok(Upstream { base_url, api_key: config.api_key.fill(environment).ok() })
}

/// Whether an address is on this machine alone.
fn is_loopback(base_url: &str) -> bool {
    let uri = base_url.trim().parse::<Uri>();
    let host = uri.as_ref().ok().and_then(Uri::host).unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
