//! The tools of the configured MCP servers, which only the servers know.
//!
//! From [`Config`] and its surroundings. Into a toolbox, beside the tools that the configuration holds itself.
//!
//! All servers are started at once, and each is only asked for its list: no tool is called. One that cannot be used takes no
//! other down: its tools are missing, and a [`Trouble`] says why.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

use fanout_core::call::ToolName;
use fanout_core::secrets::Secrets;
use fanout_core::tool::Policy;
use fanout_core::toolbox::Toolbox;
use fanout_tools::http::HttpClient;
use fanout_tools::mcp::{McpListed, McpReach, McpServer, McpToolOptions};
use fanout_tools::naming::tool_name;
use fanout_tools::schema::nearest;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::config::{Config, McpReachConfig, McpServerConfig, Place, SettingError};
use crate::environment::{Environment, INHERITED};
use crate::login::{LoginError, access};

/// Something of a source that cannot be used. `check` fails for it; elsewhere it is a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The server, as in `mcp/files`.
    pub source: String,
    /// Where it stands in the configuration.
    pub place: Place,
    /// What is wrong, and what becomes of it.
    pub message: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// The servers that are connected, by name. Cloning it shares them; one that nothing uses any more is closed.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    by_name: BTreeMap<String, (McpReach, McpServer)>,
    changed: Arc<Notify>,
}

impl Servers {
    /// Waits until one of them lists its tools otherwise than before; at once if that happened since this was last asked.
    ///
    /// # Cancellation
    /// Safe: nothing is missed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Connects to every server, at most a minute each and all at once, and adds its tools: servers by name, the tools of each in
/// its own order. Those of `before` that are reached in the same way as then are not started anew.
///
/// # Cancellation
/// Dropping the future ends every server that was started.
pub async fn connect(
    toolbox: &mut Toolbox,
    config: &Config,
    environment: &Environment,
    before: &Servers,
) -> (Servers, Vec<Trouble>) {
    let mut starting = JoinSet::new();
    let client = HttpClient::new();
    let secrets = Arc::clone(toolbox.secrets());
    for (at, (name, server)) in config.mcp_servers.iter().enumerate() {
        let made = reach(name, server, environment, &client, &secrets).map_err(|error| error.to_string());
        let made = made.and_then(|reach| before.server(name, reach));
        starting.spawn(async move { (at, listed(made).await) });
    }
    let mut lists = starting.join_all().await;
    lists.sort_by_key(|(at, _)| *at);
    let (mut servers, mut troubles) = (BTreeMap::new(), Vec::new());
    for ((name, server), (_, list)) in config.mcp_servers.iter().zip(lists) {
        let mut source = Adding { name, server, secrets: &secrets, troubles: &mut troubles };
        match list {
            Ok((connected, tools)) => {
                source.add(toolbox, &connected.1, &tools);
                servers.insert(name.clone(), connected);
            }
            Err(why) => {
                source.trouble(
                    &server.place,
                    format!("the MCP server `{name}` cannot be used, its tools are missing: {why}"),
                );
            }
        }
    }
    (Servers { by_name: servers, changed: Arc::clone(&before.changed) }, troubles)
}

impl Servers {
    /// The server of that name that is reached so: the one that is there, or a new one.
    fn server(&self, name: &str, reach: McpReach) -> Result<(McpReach, McpServer), String> {
        if let Some(known) = self.by_name.get(name).filter(|(known, _)| *known == reach) {
            return Ok(known.clone());
        }
        let server = McpServer::new(name, reach.clone()).map_err(|error| error.to_string())?;
        server.watch_list(&self.changed);
        Ok((reach, server))
    }
}

/// Asks a server for its tools; what is wrong comes in words.
async fn listed(
    made: Result<(McpReach, McpServer), String>,
) -> Result<((McpReach, McpServer), Vec<McpListed>), String> {
    let made = made?;
    let tools = made.1.list().await.map_err(|error| error.to_string())?;
    Ok((made, tools))
}

fn reach(
    name: &str,
    config: &McpServerConfig,
    environment: &Environment,
    client: &HttpClient,
    secrets: &Arc<Secrets>,
) -> Result<McpReach, LoginError> {
    Ok(match &config.reach {
        McpReachConfig::Program { command, args, env, folder } => {
            let inherited =
                INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), environment.get(name)?.into())));
            let mut variables: Vec<(String, SecretString)> = inherited.collect();
            // A `fanout` among its children knows how deep it stands.
            variables.push(("FANOUT_DEPTH".to_owned(), environment.child_depth().to_string().into()));
            for (name, value) in env {
                variables.push((name.clone(), value.fill(environment)?));
            }
            let text = |setting: &crate::config::Setting| -> Result<OsString, SettingError> {
                Ok(setting.fill(environment)?.expose_secret().into())
            };
            let args = args.iter().map(text).collect::<Result<_, _>>()?;
            let folder = (!folder.as_os_str().is_empty()).then(|| folder.clone());
            McpReach::Program { program: text(command)?, args, env: variables, folder, secrets: Arc::clone(secrets) }
        }
        McpReachConfig::Http { url, headers, oauth } => {
            let fill = |(name, value): &(String, crate::config::Setting)| Ok((name.clone(), value.fill(environment)?));
            let headers = headers.iter().map(fill).collect::<Result<_, SettingError>>()?;
            let url = url.fill(environment)?;
            let access = oauth.as_ref().map(|oauth| access(name, &url, oauth, environment, client, secrets));
            McpReach::Http { url, headers, client: client.clone(), access: access.transpose()? }
        }
    })
}

/// One server whose tools go into the toolbox.
struct Adding<'a> {
    name: &'a str,
    server: &'a McpServerConfig,
    secrets: &'a Secrets,
    troubles: &'a mut Vec<Trouble>,
}

impl Adding<'_> {
    fn add(&mut self, toolbox: &mut Toolbox, connected: &McpServer, tools: &[McpListed]) {
        self.check_names(tools);
        let config = self.server;
        let is_taken = |tool: &&McpListed| {
            config.enabled.as_ref().is_none_or(|enabled| enabled.contains(&tool.name))
                && !config.disabled.contains(&tool.name)
        };
        for tool in tools.iter().filter(is_taken) {
            let said = config.tools.get(&tool.name);
            let place = said.map_or(&config.place, |said| &said.place);
            let policy = said.map_or(&config.policy, |said| &said.policy);
            let options = McpToolOptions {
                reads: said.and_then(|said| said.reads.clone()),
                writes: said.and_then(|said| said.writes.clone()),
                policy: Policy { after: self.after(policy, tools, place), ..policy.clone() },
                parallel: config.parallel,
            };
            let added = connected.tool(tool, options).map_err(|error| error.to_string());
            if let Err(why) = added.and_then(|made| toolbox.add(made).map_err(|error| error.to_string())) {
                self.trouble(
                    place,
                    format!("the tool `{}` of the MCP server `{}` is left out: {why}", tool.name, self.name),
                );
            }
        }
    }

    /// The tools that this one follows: those of the same server by its names for them, others by their whole names.
    fn after(&mut self, policy: &Policy, tools: &[McpListed], place: &Place) -> Vec<ToolName> {
        let whole = |name: &ToolName| match tools.iter().any(|tool| tool.name == name.as_str()) {
            true => tool_name(self.name, name.as_str()),
            false => name.clone(),
        };
        let after: Vec<ToolName> = policy.after.iter().map(whole).collect();
        let prefix = tool_name(self.name, "").to_string();
        let unknown = policy.after.iter().zip(&after).filter(|(written, whole)| {
            written == whole
                && (!whole.as_str().contains("__") || whole.as_str().starts_with(&prefix))
                && !tools.iter().any(|tool| tool_name(self.name, &tool.name) == **whole)
        });
        let unknown: Vec<String> = unknown.map(|(written, _)| written.to_string()).collect();
        for name in unknown {
            self.unknown("`after`", &name, tools, place);
        }
        after
    }

    fn check_names(&mut self, tools: &[McpListed]) {
        let config = self.server;
        let enabled = config.enabled.iter().flatten().map(|name| ("`enabled_tools`".to_owned(), name, &config.place));
        let disabled = config.disabled.iter().map(|name| ("`disabled_tools`".to_owned(), name, &config.place));
        let said = config.tools.iter().map(|(name, said)| (format!("`tools.{name}`"), name, &said.place));
        for (key, name, place) in enabled.chain(disabled).chain(said) {
            if !tools.iter().any(|tool| tool.name == *name) {
                self.unknown(&key, name, tools, place);
            }
        }
    }

    fn unknown(&mut self, key: &str, name: &str, tools: &[McpListed], place: &Place) {
        let hint = nearest(name, tools.iter().map(|tool| tool.name.as_str()));
        let hint = hint.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        self.trouble(place, format!("{key} names `{name}`, which the MCP server `{}` does not have{hint}", self.name));
    }

    fn trouble(&mut self, place: &Place, message: String) {
        let message = self.secrets.hide(&message).into_owned();
        self.troubles.push(Trouble { source: format!("mcp/{}", self.name), place: place.clone(), message });
    }
}
