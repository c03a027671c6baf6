//! Access to the MCP servers that demand OAuth.
//!
//! From [`Config`] and its surroundings. To [`connect`](crate::connect), whose servers send tokens, and to `fanout login`,
//! which gets the first one.
//!
//! Nothing is asked here, and no token is read.

use std::sync::Arc;

use fanout_core::secrets::Secrets;
use fanout_tools::http::HttpClient;
use fanout_tools::mcp::{McpAccess, McpAccessError, McpGrant, McpOauth};
use fanout_tools::schema::nearest;
use secrecy::SecretString;

use crate::config::{Config, McpReachConfig, OauthConfig, Setting, SettingError};
use crate::environment::Environment;
use crate::secrets::secrets_of;

/// Why there is no access to a server.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The configuration has no server of this name.
    #[error("there is no [mcp_servers.{name}]{hint}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What was probably meant, or what there is.
        hint: String,
    },
    /// It is not said that the server demands any.
    #[error("[mcp_servers.{0}] does not say `oauth = true`, so nobody logs in there")]
    NoOauth(String),
    /// A setting is missing.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// What is said of it cannot be used.
    #[error(transparent)]
    Access(#[from] McpAccessError),
}

/// Access to the server of this name, and the port that its authorization server has a browser come back to, if one is said.
///
/// # Errors
/// [`LoginError`] for a server that there is not, or that nobody logs in to.
pub fn access_to(
    config: &Config,
    environment: &Environment,
    name: &str,
) -> Result<(McpAccess, Option<u16>), LoginError> {
    let Some(server) = config.mcp_servers.get(name) else {
        let near = nearest(name, config.mcp_servers.keys().map(String::as_str));
        let hint = near.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        return Err(LoginError::Unknown { name: name.to_owned(), hint });
    };
    let McpReachConfig::Http { url, oauth: Some(oauth), .. } = &server.reach else {
        return Err(LoginError::NoOauth(name.to_owned()));
    };
    let secrets = Arc::new(secrets_of(config, environment));
    let made = access(name, &url.fill(environment)?, oauth, environment, &HttpClient::new(), &secrets)?;
    Ok((made, oauth.redirect_port))
}

pub(crate) fn access(
    name: &str,
    url: &SecretString,
    oauth: &OauthConfig,
    environment: &Environment,
    client: &HttpClient,
    secrets: &Arc<Secrets>,
) -> Result<McpAccess, LoginError> {
    let fill = |setting: &Option<Setting>| setting.as_ref().map(|setting| setting.fill(environment)).transpose();
    let options = McpOauth {
        client_id: fill(&oauth.client_id)?,
        client_secret: fill(&oauth.client_secret)?,
        scopes: oauth.scopes.clone(),
        grant: match oauth.client_credentials {
            true => McpGrant::ClientCredentials,
            false => McpGrant::Login(oauth.tokens.clone()),
        },
        secrets: Arc::clone(secrets),
    };
    Ok(McpAccess::new(name, url, client.clone(), options)?)
}
