//! `fanout reload`: the running gateway reads its configuration again.

use anyhow::{Context, bail};
use fanout_anthropic::HttpOptions;
use fanout_host::changes::Changes;
use fanout_host::environment::Environment;
use serde_json::Value;

use crate::args::Common;
use crate::exit::Ended;
use crate::loaded::fetched;
use crate::serve::reached_at;
use crate::show::{give, print_line};

/// Where the key for a gateway that demands one stands.
pub const KEY: &str = "FANOUT_KEY";

/// Asks the gateway, and prints what changed.
pub fn reload(common: &Common) -> anyhow::Result<Ended> {
    let environment = Environment::of_process();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // The gateway reads it anew; it is read here to say what is wrong before anyone is asked, and for the address.
    let config = runtime.block_on(fetched(common, &environment))?;
    let url = format!("http://{}", reached_at(config.server.address(&environment)?));
    let (is_done, answer) = runtime.block_on(ask(&url, environment.get(KEY)))?;
    if !is_done {
        let message = answer["error"]["message"].as_str().unwrap_or("it gave no reason");
        bail!("the gateway at {url} did not take the configuration: {message}");
    }
    match common.json {
        true => print_line(&answer),
        false => give(&serde_json::from_value::<Changes>(answer)?.to_string())?,
    }
    Ok(Ended::Done)
}

async fn ask(url: &str, key: Option<&str>) -> anyhow::Result<(bool, Value)> {
    let options = HttpOptions { base_url: url.to_owned(), ..HttpOptions::default() };
    let (client, _) = options.connections()?;
    let mut request = client.post(format!("{url}/fanout/v1/reload")).header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("x-api-key", key);
    }
    let nobody = || format!("there is no gateway at {url}: `fanout serve` starts one where `listen` in [server] says");
    let answer = request.body("{}").send().await.with_context(nobody)?;
    let is_done = answer.status().is_success();
    let text = answer.text().await.with_context(|| format!("the answer of {url} broke off"))?;
    let answer = serde_json::from_str(&text).with_context(|| format!("what listens at {url} is no gateway of ours"))?;
    Ok((is_done, answer))
}
