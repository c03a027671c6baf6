//! Where somebody on call is heard: at the journal, or at a gateway over HTTP.
//!
//! From commands: `--url` or FANOUT_URL, else what the configuration says. To them: the journal, or what a gateway answers, and why it
//! does not.

use anyhow::{Context, bail};
use fanout_anthropic::HttpOptions;
use fanout_host::config::Config;
use fanout_host::environment::Environment;
use fanout_host::journal::Opened;
use serde_json::Value;

use crate::args::Common;
use crate::loaded::configuration;
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

/// Where somebody on call is heard.
pub enum Place<'a> {
    /// The journal of the configuration, which this machine's files or the database's URL lead to.
    Journal(Box<(Opened, Config)>),
    /// A gateway, which knows who somebody is by their key.
    Gateway(Gateway<'a>),
}

impl<'a> Place<'a> {
    /// The gateway that somebody names; else the journal, but for somebody with a key, or where nothing is kept: then the gateway of
    /// the configuration.
    pub async fn find(common: &Common, url: Option<&str>, environment: &'a Environment) -> anyhow::Result<Self> {
        let key = environment.get(KEY);
        if let Some(url) = url.or(environment.get(URL)) {
            return Ok(Self::Gateway(Gateway { url: url.trim_end_matches('/').to_owned(), key }));
        }
        let config = configuration(common, environment)?;
        if key.is_none()
            && let Some(opened) = Opened::open(&config, environment).await?
        {
            return Ok(Self::Journal(Box::new((opened, config))));
        }
        Ok(Self::Gateway(Gateway::of(&config, environment)?))
    }

    /// Writes what was done.
    pub async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Journal(kept) => Ok(kept.0.close().await?),
            Self::Gateway(_) => Ok(()),
        }
    }
}

impl<'a> Gateway<'a> {
    /// The gateway of this configuration.
    pub fn of(config: &Config, environment: &'a Environment) -> anyhow::Result<Self> {
        let url = format!("http://{}", reached_at(config.server.address(environment)?));
        Ok(Self { url, key: environment.get(KEY) })
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
