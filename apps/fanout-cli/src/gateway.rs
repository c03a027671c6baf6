//! A gateway that is asked over HTTP.
//!
//! From commands that somebody on call gives: to the gateway that `--url` or FANOUT_URL names, else to the one that the
//! configuration says where it listens. What it answers, and why it does not.

use anyhow::{Context, bail};
use fanout_anthropic::HttpOptions;
use fanout_host::config::{Config, StorePlace};
use fanout_host::environment::Environment;
use serde_json::Value;

use crate::serve::reached_at;

/// Where the key for a gateway that demands one stands.
const KEY: &str = "FANOUT_KEY";

/// Where the address of a gateway on another machine stands.
const URL: &str = "FANOUT_URL";

/// The gateway that is asked.
pub struct Gateway<'a> {
    url: String,
    key: Option<&'a str>,
}

impl<'a> Gateway<'a> {
    /// The gateway that somebody names; `None` if nobody does.
    pub fn named(url: Option<&str>, environment: &'a Environment) -> Option<Self> {
        let url = url.or(environment.get(URL))?;
        Some(Self { url: url.trim_end_matches('/').to_owned(), key: environment.get(KEY) })
    }

    /// The gateway of this configuration.
    pub fn of(config: &Config, environment: &'a Environment) -> anyhow::Result<Self> {
        let url = format!("http://{}", reached_at(config.server.address(environment)?));
        Ok(Self { url, key: environment.get(KEY) })
    }

    /// The gateway of this configuration, where its journal is not to be used directly: who asks has a key, or nothing is kept.
    pub fn instead(config: &Config, environment: &'a Environment) -> anyhow::Result<Option<Self>> {
        let is_gateways = environment.get(KEY).is_some() || matches!(config.store.place, StorePlace::Memory);
        is_gateways.then(|| Self::of(config, environment)).transpose()
    }

    /// How it is called in messages.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks for a path below `/fanout/v1`; with a body, it is posted.
    ///
    /// # Errors
    /// There is no gateway, or it does not do it, with its reason.
    pub async fn ask(&self, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let url = &self.url;
        let options = HttpOptions { base_url: url.clone(), ..HttpOptions::default() };
        let (client, _) = options.connections()?;
        let path = format!("{url}/fanout/v1{path}");
        let mut request = match &body {
            None => client.get(path),
            Some(body) => client.post(path).header("content-type", "application/json").body(body.to_string()),
        };
        if let Some(key) = self.key {
            request = request.header("x-api-key", key);
        }
        let nobody = || {
            format!(
                "there is no gateway at {url}: `fanout serve` starts one where `listen` in [server] says; {URL} names another"
            )
        };
        let answer = request.send().await.with_context(nobody)?;
        let is_done = answer.status().is_success();
        let text = answer.text().await.with_context(|| format!("the answer of {url} broke off"))?;
        let answer: Value =
            serde_json::from_str(&text).with_context(|| format!("what listens at {url} is no gateway of ours"))?;
        if !is_done {
            bail!("{}", answer["error"]["message"].as_str().unwrap_or("the gateway gave no reason"));
        }
        Ok(answer)
    }
}
