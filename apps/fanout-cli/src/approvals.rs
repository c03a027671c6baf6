//! `fanout approvals`: what waits for a person, and what they decide.
//!
//! From the terminal. To the running gateway, which holds the questions; nothing is decided here.

use anyhow::{Context, bail};
use fanout_anthropic::HttpOptions;
use fanout_host::environment::Environment;
use serde_json::{Value, json};

use crate::args::{Approvals, ApprovalsCommand, Common, Decide};
use crate::exit::Ended;
use crate::loaded::configuration;
use crate::reload::KEY;
use crate::serve::reached_at;
use crate::show::{QUIET, STRONG, give, give_styled, print_line, say, styled};

/// Where the address of a gateway on another machine stands.
const URL: &str = "FANOUT_URL";

/// So many are asked for at once.
const LISTED: &str = "1000";

/// Lists what waits, or decides one.
pub fn approvals(common: &Common, approvals: &Approvals) -> anyhow::Result<Ended> {
    let environment = Environment::of_process();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let url = match approvals.url.as_deref().or(environment.get(URL)) {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => {
            let config = configuration(common, &environment)?;
            format!("http://{}", reached_at(config.server.address(&environment)?))
        }
    };
    let gateway = Asked { url, key: environment.get(KEY) };
    match &approvals.command {
        ApprovalsCommand::List { all } => list(common, &gateway, *all, &runtime)?,
        ApprovalsCommand::Approve(decide) => decided(common, &gateway, decide, "approve", &runtime)?,
        ApprovalsCommand::Deny(decide) => decided(common, &gateway, decide, "deny", &runtime)?,
    }
    Ok(Ended::Done)
}

/// The gateway that is asked.
struct Asked<'a> {
    url: String,
    key: Option<&'a str>,
}

fn list(common: &Common, gateway: &Asked<'_>, all: bool, runtime: &tokio::runtime::Runtime) -> anyhow::Result<()> {
    let state = if all { "" } else { "&state=open" };
    let mut after = String::new();
    let mut count = 0;
    loop {
        let page = runtime.block_on(gateway.ask(&format!("?limit={LISTED}{state}{after}"), None))?;
        for approval in page["data"].as_array().into_iter().flatten() {
            count += 1;
            match common.json {
                true => print_line(approval),
                false => give_styled(&shown(approval))?,
            }
        }
        match page["last_id"].as_str().filter(|_| page["has_more"] == true) {
            Some(last) => after = format!("&after_id={last}"),
            None => break,
        }
    }
    if count == 0 && !common.json {
        say("nothing waits for a person");
    }
    Ok(())
}

fn decided(
    common: &Common,
    gateway: &Asked<'_>,
    decide: &Decide,
    decision: &str,
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if decide.id.is_empty() || !decide.id.bytes().all(plain) {
        bail!("`{}` is no id of an approval; `fanout approvals list` shows them", decide.id);
    }
    let body = json!({ "decision": decision, "words": decide.words });
    let answer = runtime.block_on(gateway.ask(&format!("/{}", decide.id), Some(body)))?;
    match common.json {
        true => print_line(&answer),
        false => {
            let (tool, state) = (answer["tool"].as_str().unwrap_or_default(), &answer["state"]);
            give(&format!("{} ({tool}) is {}", decide.id, state.as_str().unwrap_or_default()))?;
        }
    }
    Ok(())
}

/// One question, for a person to read.
fn shown(approval: &Value) -> String {
    let text = |key: &str| approval[key].as_str().unwrap_or_default();
    let decided = &approval["decided"];
    let by = decided["by"].as_str().map(|by| format!(" by {by}")).unwrap_or_default();
    let words = decided["words"].as_str().map(|words| format!(": {words}")).unwrap_or_default();
    let who =
        format!("({}{by}{words}; run {}, call {}, of {})", text("state"), text("run"), text("call"), text("caller"));
    format!("{} {} {}\n  {}", styled(STRONG, text("id")), text("tool"), styled(QUIET, who), approval["input"])
}

impl Asked<'_> {
    async fn ask(&self, rest: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let url = &self.url;
        let options = HttpOptions { base_url: url.clone(), ..HttpOptions::default() };
        let (client, _) = options.connections()?;
        let path = format!("{url}/fanout/v1/approvals{rest}");
        let mut request = match &body {
            None => client.get(path),
            Some(body) => client.post(path).header("content-type", "application/json").body(body.to_string()),
        };
        if let Some(key) = self.key {
            request = request.header("x-api-key", key);
        }
        let nobody =
            || format!("there is no gateway at {url}: `fanout serve` starts one; {URL} or `--url` names another");
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
