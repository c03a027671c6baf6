//! Which of the configuration's values nobody may see.
//!
//! From [`Config`] and its surroundings: whatever `${NAME}` and `${file:…}` fill in. To the toolbox, which hides it in what
//! comes back from tools, and to the run, which hides it in what the model's API says.
//!
//! Nothing is missed here for want of a value: what is not set fails where it is needed.

use fanout_core::secrets::Secrets;

use crate::config::{Config, HttpConfig, Implementation, JwtKeys, McpReachConfig, Setting, Variable};
use crate::environment::Environment;

/// The variable of the model's key, which counts without standing in the configuration.
const API_KEY: &str = "ANTHROPIC_API_KEY";

/// Every value that variables and files fill in, by the name of its variable or file. Defaults are not among them, since
/// they stand in the configuration itself, nor is what says where its user lives (`HOME`, `PATH`, …).
pub fn secrets_of(config: &Config, environment: &Environment) -> Secrets {
    let mut secrets = Secrets::new();
    if let Some(key) = environment.get(API_KEY) {
        secrets.add(API_KEY, key);
    }
    for setting in settings(config) {
        setting.tell(environment, &mut secrets);
    }
    secrets
}

fn settings(config: &Config) -> Vec<&Setting> {
    let mut all = vec![&config.model.api_key, &config.model.base_url];
    if let Some(JwtKeys::Secret(secret)) = config.server.jwt.as_ref().map(|jwt| &jwt.keys) {
        all.push(secret);
    }
    all.extend(config.notify.iter().flat_map(|notify| [&notify.url, &notify.secret]));
    for tool in &config.tools {
        match &tool.implementation {
            Implementation::Http(HttpConfig { url, headers, query, .. }) => {
                all.push(url);
                all.extend(headers.iter().chain(query).map(|(_, setting)| setting));
            }
            // Its database is below.
            Implementation::Sql(_) => {}
            Implementation::Command(command) => {
                all.extend(command.args.iter().chain(&command.stdin));
                all.extend(command.env.iter().filter_map(|variable| match variable {
                    Variable::Set(_, setting) => Some(setting),
                    Variable::Inherited(_) => None,
                }));
            }
        }
    }
    all.extend(config.databases.values().map(|database| &database.url));
    for document in &config.openapi {
        all.extend(&document.base_url);
        all.extend(document.auth.iter().map(|(_, setting)| setting));
    }
    for server in config.mcp_servers.values() {
        match &server.reach {
            McpReachConfig::Program { command, args, env, .. } => {
                all.push(command);
                all.extend(args.iter().chain(env.iter().map(|(_, setting)| setting)));
            }
            McpReachConfig::Http { url, headers, oauth } => {
                all.push(url);
                all.extend(oauth.iter().flat_map(|oauth| [&oauth.client_id, &oauth.client_secret]).flatten());
                all.extend(headers.iter().map(|(_, setting)| setting));
            }
        }
    }
    all
}
