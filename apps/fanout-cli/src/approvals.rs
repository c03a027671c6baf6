//! `fanout approvals`: what waits for a person, and what they decide.
//!
//! From the terminal. To the journal, beside whoever runs the calls; or to a gateway, which knows who somebody is by their key.
//! Nothing is decided here.

use anyhow::{Context, bail};
use fanout_anthropic::HttpOptions;
use fanout_core::call::ApprovalId;
use fanout_host::config::StorePlace;
use fanout_host::environment::Environment;
use fanout_host::journal::Opened;
use fanout_journal::approvals::{Approval, Filter, now_ms};
use serde_json::{Value, json};

use crate::args::{Approvals, ApprovalsCommand, Common, Decide};
use crate::exit::Ended;
use crate::loaded::configuration;
use crate::person::at_terminal;
use crate::reload::KEY;
use crate::serve::reached_at;
use crate::show::{QUIET, STRONG, give, give_styled, print_line, say, styled};

/// Where the address of a gateway on another machine stands.
const URL: &str = "FANOUT_URL";

/// So many are asked for at once.
const LISTED: usize = 1000;

/// Lists what waits, or decides one.
pub fn approvals(common: &Common, approvals: &Approvals) -> anyhow::Result<Ended> {
    let environment = Environment::of_process();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let desk = Desk::find(common, approvals, &environment).await?;
        match &approvals.command {
            ApprovalsCommand::List { all } => list(common, &desk, *all).await?,
            ApprovalsCommand::Approve(decide) => decided(common, &desk, decide, true).await?,
            ApprovalsCommand::Deny(decide) => decided(common, &desk, decide, false).await?,
        }
        desk.close().await?;
        Ok(Ended::Done)
    })
}

/// Where the questions are.
enum Desk<'a> {
    /// In a journal that this machine's files or the database's URL lead to.
    Journal(Box<Opened>),
    /// At a gateway.
    Gateway(Asked<'a>),
}

/// The gateway that is asked.
struct Asked<'a> {
    url: String,
    key: Option<&'a str>,
}

impl<'a> Desk<'a> {
    async fn find(common: &Common, approvals: &Approvals, environment: &'a Environment) -> anyhow::Result<Self> {
        let key = environment.get(KEY);
        if let Some(url) = approvals.url.as_deref().or(environment.get(URL)) {
            return Ok(Self::Gateway(Asked { url: url.trim_end_matches('/').to_owned(), key }));
        }
        let config = configuration(common, environment)?;
        let is_gateways = key.is_some() || matches!(config.store.place, StorePlace::Memory);
        if !is_gateways && let Some(opened) = Opened::open(&config, environment).await? {
            return Ok(Self::Journal(Box::new(opened)));
        }
        Ok(Self::Gateway(Asked { url: format!("http://{}", reached_at(config.server.address(environment)?)), key }))
    }

    /// A page of questions, newest first, and behind which the next begins.
    async fn page(&self, all: bool, after: Option<&str>) -> anyhow::Result<(Vec<Value>, Option<String>)> {
        let gateway = match self {
            Self::Journal(opened) => {
                let filter = Filter { viewer: at_terminal(), is_open: !all, count_max: LISTED, now_ms: now_ms() };
                let found = opened.approvals.list(filter, after.map(ApprovalId::from)).await?;
                let last = found.last().filter(|_| found.len() == LISTED).map(|last| last.id.to_string());
                return Ok((found.iter().map(Approval::to_json).collect(), last));
            }
            Self::Gateway(gateway) => gateway,
        };
        let state = if all { "" } else { "&state=open" };
        let after = after.map(|last| format!("&after_id={last}")).unwrap_or_default();
        let mut page = gateway.ask(&format!("?limit={LISTED}{state}{after}"), None).await?;
        let last = page["last_id"].as_str().filter(|_| page["has_more"] == true).map(str::to_owned);
        let Value::Array(found) = page["data"].take() else {
            bail!("what listens at {} is no gateway of ours", gateway.url)
        };
        Ok((found, last))
    }

    /// Decides a question. Answers how it stands.
    async fn decide(&self, decide: &Decide, is_approved: bool) -> anyhow::Result<Value> {
        match self {
            Self::Journal(opened) => {
                let id = ApprovalId::from(decide.id.as_str());
                let decided = opened.approvals.decide(&id, &at_terminal(), is_approved, decide.words.clone()).await?;
                Ok(decided.to_json())
            }
            Self::Gateway(gateway) => {
                let decision = if is_approved { "approve" } else { "deny" };
                let body = json!({ "decision": decision, "words": decide.words });
                gateway.ask(&format!("/{}", decide.id), Some(body)).await
            }
        }
    }

    async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Journal(opened) => Ok(opened.close().await?),
            Self::Gateway(_) => Ok(()),
        }
    }
}

async fn list(common: &Common, desk: &Desk<'_>, all: bool) -> anyhow::Result<()> {
    let (mut after, mut count) = (None, 0);
    loop {
        let (found, last) = desk.page(all, after.as_deref()).await?;
        for approval in &found {
            count += 1;
            match common.json {
                true => print_line(approval),
                false => give_styled(&shown(approval))?,
            }
        }
        match last {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    if count == 0 && !common.json {
        say("nothing waits for a person");
    }
    Ok(())
}

async fn decided(common: &Common, desk: &Desk<'_>, decide: &Decide, is_approved: bool) -> anyhow::Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if decide.id.is_empty() || !decide.id.bytes().all(plain) {
        bail!("`{}` is no id of an approval; `fanout approvals list` shows them", decide.id);
    }
    let answer = desk.decide(decide, is_approved).await?;
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
