//! `fanout tools`, `limits`, `breaker`, `pause` and `unpause`: what somebody on call orders; `fanout audit`: who did what.
//!
//! From the terminal. To the journal, beside whoever runs calls: every process that shares it does what is ordered within a
//! second. Or to a gateway, which knows who somebody is by their key.

use anyhow::{Context, bail, ensure};
use fanout_host::controls::{Asked, Order, Who};
use fanout_host::environment::Environment;
use fanout_host::lines::time;
use fanout_journal::deeds::{Action, Deed};
use serde_json::{Map, Value};

use crate::args::{Audit, Breaker, Common, Limits, On, Tools};
use crate::exit::Ended;
use crate::gateway::Place;
use crate::person::at_terminal;
use crate::show::{give, plain, print_line, say};

/// So many deeds are asked for at once.
const LISTED: usize = 1_000;

/// Takes a tool out of use, or puts it back.
pub fn tools(common: &Common, tools: &Tools) -> anyhow::Result<Ended> {
    match tools {
        Tools::Disable(disable) => {
            let asked = Asked { reason: disable.reason.clone(), ..on(&disable.on) };
            order(common, disable.on.url.as_deref(), Action::DisableTool, asked)
        }
        Tools::Enable(enable) => order(common, enable.url.as_deref(), Action::EnableTool, on(enable)),
    }
}

/// Sets the limits of a group, or puts those of the configuration back.
pub fn limits(common: &Common, limits: &Limits) -> anyhow::Result<Ended> {
    match limits {
        Limits::Set(set) => {
            let asked = Asked { reason: set.reason.clone(), set: read(&set.limits)?, ..on(&set.on) };
            order(common, set.on.url.as_deref(), Action::SetLimits, asked)
        }
        Limits::Reset(reset) => order(common, reset.url.as_deref(), Action::ResetLimits, on(reset)),
    }
}

/// Keeps everything from an API, or lets it through again.
pub fn breaker(common: &Common, breaker: &Breaker) -> anyhow::Result<Ended> {
    match breaker {
        Breaker::Open(open) => {
            let asked = Asked { reason: open.reason.clone(), lasts: open.lasts.clone(), ..on(&open.on) };
            order(common, open.on.url.as_deref(), Action::OpenBreaker, asked)
        }
        Breaker::Close(close) => order(common, close.url.as_deref(), Action::CloseBreaker, on(close)),
    }
}

/// Keeps queued runs waiting, or not any longer.
pub fn pause(common: &Common, url: Option<&str>, is_pause: bool) -> anyhow::Result<Ended> {
    let action = if is_pause { Action::Pause } else { Action::Unpause };
    order(common, url, action, Asked::default())
}

fn on(on: &On) -> Asked {
    Asked { target: on.name.clone(), ..Asked::default() }
}

/// Lists who did what, newest first.
pub fn audit(common: &Common, audit: &Audit) -> anyhow::Result<Ended> {
    let environment = Environment::of_process();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut before, mut left) = (None, audit.limit);
        let place = Place::find(common, audit.url.as_deref(), &environment).await?;
        while left > 0 {
            let page = deeds(&place, before, left.min(LISTED)).await?;
            for deed in &page {
                match common.json {
                    true => print_line(deed),
                    false => give(&shown(deed))?,
                }
            }
            if page.is_empty() && before.is_none() && !common.json {
                say("nobody has changed anything");
            }
            if page.len() < left.min(LISTED) {
                break;
            }
            (before, left) = (page.last().and_then(|deed| deed["id"].as_u64()), left - page.len());
        }
        place.close().await?;
        Ok(Ended::Done)
    })
}

fn order(common: &Common, url: Option<&str>, action: Action, asked: Asked) -> anyhow::Result<Ended> {
    let asked = Asked { action: action.as_str().to_owned(), ..asked };
    let environment = Environment::of_process();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let place = Place::find(common, url, &environment).await?;
        let done = put(&place, &asked).await?;
        place.close().await?;
        match common.json {
            true => print_line(&done),
            false => say(told(action, &asked)),
        }
        Ok(Ended::Done)
    })
}

/// What an order means from now on.
fn told(action: Action, asked: &Asked) -> String {
    let name = &asked.target;
    match action {
        Action::Pause => "no run in the background begins until `fanout unpause`".to_owned(),
        Action::Unpause => "runs in the background begin again".to_owned(),
        Action::DisableTool => format!("calls of `{name}` are `not_permitted` until `fanout tools enable {name}`"),
        Action::EnableTool => format!("`{name}` is in use again"),
        Action::SetLimits => format!("the limits of `{name}` hold until `fanout limits reset {name}`"),
        Action::ResetLimits => format!("the limits of `{name}` are those of the configuration again"),
        Action::OpenBreaker => {
            let lasts = asked.lasts.as_ref().map(|lasts| format!("for {lasts}, or ")).unwrap_or_default();
            format!("nothing is sent to `{name}` {lasts}until `fanout breaker close {name}`")
        }
        _ => format!("`{name}` is called again"),
    }
}

async fn put(place: &Place<'_>, asked: &Asked) -> anyhow::Result<Value> {
    match place {
        Place::Journal(kept) => {
            let (opened, config) = &**kept;
            let mut deed = Order::read(asked, config, None).map_err(anyhow::Error::msg)?.by(at_the_terminal());
            deed.number = opened.journal.store().keep_deed(deed.clone()).await?;
            Ok(deed.to_json())
        }
        Place::Gateway(gateway) => gateway.ask("/controls", Some(serde_json::to_value(asked)?)).await,
    }
}

async fn deeds(place: &Place<'_>, before: Option<u64>, max: usize) -> anyhow::Result<Vec<Value>> {
    match place {
        Place::Journal(kept) => {
            let deeds = kept.0.journal.store().deeds(before, max).await?;
            Ok(deeds.iter().map(Deed::to_json).collect())
        }
        Place::Gateway(gateway) => {
            let after = before.map(|id| format!("&after_id={id}")).unwrap_or_default();
            let mut page = gateway.ask(&format!("/audit?limit={max}{after}"), None).await?;
            match page["data"].take() {
                Value::Array(deeds) => Ok(deeds),
                _ => bail!("what listens at {} is no gateway of ours", gateway.url()),
            }
        }
    }
}

/// Whoever may use the machine's own files.
pub fn at_the_terminal() -> Who {
    Who { name: at_terminal().caller.to_string(), project: None }
}

/// `KEY=VALUE` each.
fn read(limits: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut set = Map::new();
    for text in limits {
        let (key, value) = text.split_once('=').with_context(|| format!("`{text}` is not like `concurrency=4`"))?;
        let before = set.insert(key.trim().to_owned(), value.trim().into());
        ensure!(before.is_none(), "`{key}` is set twice");
    }
    Ok(set)
}

/// One deed, for a person to read.
fn shown(deed: &Value) -> String {
    let text = |key: &str| plain(deed[key].as_str().unwrap_or_default());
    let at = time(deed["at_ms"].as_u64().unwrap_or_default());
    let detail = match &deed["detail"] {
        Value::Object(detail) if detail.is_empty() => String::new(),
        Value::Null => String::new(),
        detail => format!("  {detail}"),
    };
    let project = deed["project"].as_str().map(|project| format!(" of {}", plain(project))).unwrap_or_default();
    let target = text("target");
    let target = if target.is_empty() { String::new() } else { format!(" {target}") };
    format!("{}  {}{target}  by {}{project}{detail}", &at[..19], text("action"), text("who"))
}
