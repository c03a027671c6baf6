//! `fanout approvals`: what waits for a person, and what they decide.
//!
//! From the terminal. To the journal, beside whoever runs the calls; or to a gateway, which knows who somebody is by their key.
//! Nothing is decided here.

use anyhow::bail;
use fanout_core::call::ApprovalId;
use fanout_host::environment::Environment;
use fanout_journal::approvals::{Approval, Filter, now_ms};
use serde_json::{Value, json};

use crate::args::{Approvals, ApprovalsCommand, Common, Decide};
use crate::exit::Ended;
use crate::gateway::Place;
use crate::person::at_terminal;
use crate::show::{QUIET, STRONG, give, give_styled, print_line, say, styled};

/// So many are asked for at once.
const LISTED: usize = 1000;

/// Lists what waits, or decides one.
pub fn approvals(common: &Common, approvals: &Approvals) -> anyhow::Result<Ended> {
    let environment = Environment::of_process();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let desk = Place::find(common, approvals.url.as_deref(), &environment).await?;
        match &approvals.command {
            ApprovalsCommand::List { all } => list(common, &desk, *all).await?,
            ApprovalsCommand::Approve(decide) => decided(common, &desk, decide, true).await?,
            ApprovalsCommand::Deny(decide) => decided(common, &desk, decide, false).await?,
        }
        desk.close().await?;
        Ok(Ended::Done)
    })
}

/// A page of questions, newest first, and behind which the next begins.
async fn page(desk: &Place<'_>, all: bool, after: Option<&str>) -> anyhow::Result<(Vec<Value>, Option<String>)> {
    let gateway = match desk {
        Place::Journal(kept) => {
            let filter = Filter { viewer: at_terminal(), is_open: !all, count_max: LISTED, now_ms: now_ms() };
            let found = kept.0.approvals.list(filter, after.map(ApprovalId::from)).await?;
            let last = found.last().filter(|_| found.len() == LISTED).map(|last| last.id.to_string());
            return Ok((found.iter().map(Approval::to_json).collect(), last));
        }
        Place::Gateway(gateway) => gateway,
    };
    let state = if all { "" } else { "&state=open" };
    let after = after.map(|last| format!("&after_id={last}")).unwrap_or_default();
    let mut page = gateway.ask(&format!("/approvals?limit={LISTED}{state}{after}"), None).await?;
    let last = page["last_id"].as_str().filter(|_| page["has_more"] == true).map(str::to_owned);
    let Value::Array(found) = page["data"].take() else {
        bail!("what listens at {} is no gateway of ours", gateway.url())
    };
    Ok((found, last))
}

/// Decides a question. Answers how it stands.
async fn decide(desk: &Place<'_>, decide: &Decide, is_approved: bool) -> anyhow::Result<Value> {
    match desk {
        Place::Journal(kept) => {
            let id = ApprovalId::from(decide.id.as_str());
            let decided = kept.0.approvals.decide(&id, &at_terminal(), is_approved, decide.words.clone()).await?;
            Ok(decided.to_json())
        }
        Place::Gateway(gateway) => {
            let decision = if is_approved { "approve" } else { "deny" };
            let body = json!({ "decision": decision, "words": decide.words });
            gateway.ask(&format!("/approvals/{}", decide.id), Some(body)).await
        }
    }
}

async fn list(common: &Common, desk: &Place<'_>, all: bool) -> anyhow::Result<()> {
    let (mut after, mut count) = (None, 0);
    loop {
        let (found, last) = page(desk, all, after.as_deref()).await?;
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

async fn decided(common: &Common, desk: &Place<'_>, decide: &Decide, is_approved: bool) -> anyhow::Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if decide.id.is_empty() || !decide.id.bytes().all(plain) {
        bail!("`{}` is no id of an approval; `fanout approvals list` shows them", decide.id);
    }
    let answer = self::decide(desk, decide, is_approved).await?;
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
