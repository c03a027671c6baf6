//! `fanout tools`, `limits`, `breaker`, `pause` and `unpause`: what somebody on call orders; `fanout audit`: who did what.
//!
//! From the terminal. To the journal, beside whoever runs calls: every process that shares it does what is ordered within a
//! second. Or to a gateway, which knows who somebody is by their key.

use anyhow::{Context, bail, ensure};
use fanout_core::call::CallerId;
use fanout_host::config::Config;
use fanout_host::controls::{Asked, Order, Who};
use fanout_host::environment::Environment;
use fanout_host::journal::Opened;
use fanout_host::lines::time;
use fanout_journal::deeds::Deed;
use serde_json::{Map, Value, json};

use crate::args::{Audit, Breaker, Common, Limits, Tools};
use crate::exit::Ended;
use crate::gateway::Gateway;
use crate::loaded::configuration;
use crate::person::at_terminal;
use crate::show::{give, plain, print_line, say};

/// So many deeds are asked for at once.
const LISTED: usize = 1_000;

/// Takes a tool out of use, or puts it back.
pub fn tools(common: &Common, tools: &Tools) -> anyhow::Result<Ended> {
    let (action, on, reason) = match tools {
        Tools::Disable(disable) => ("tools disable", &disable.on, disable.reason.clone()),
        Tools::Enable(on) => ("tools enable", on, None),
    };
    let asked = Asked { action: action.to_owned(), target: on.name.clone(), reason, ..Asked::default() };
    order(common, on.url.as_deref(), &asked)
}

/// Sets the limits of a group, or puts those of the configuration back.
pub fn limits(common: &Common, limits: &Limits) -> anyhow::Result<Ended> {
    let (action, on, reason, set) = match limits {
        Limits::Set(set) => ("limits set", &set.on, set.reason.clone(), read(&set.limits)?),
        Limits::Reset(on) => ("limits reset", on, None, Map::new()),
    };
    let asked = Asked { action: action.to_owned(), target: on.name.clone(), reason, set, ..Asked::default() };
    order(common, on.url.as_deref(), &asked)
}

/// Keeps everything from an API, or lets it through again.
pub fn breaker(common: &Common, breaker: &Breaker) -> anyhow::Result<Ended> {
    let (action, on, reason, lasts) = match breaker {
        Breaker::Open(open) => ("breaker open", &open.on, open.reason.clone(), open.lasts.clone()),
        Breaker::Close(on) => ("breaker close", on, None, None),
    };
    let asked = Asked { action: action.to_owned(), target: on.name.clone(), reason, lasts, ..Asked::default() };
    order(common, on.url.as_deref(), &asked)
}

/// Keeps queued runs waiting, or not any longer.
pub fn pause(common: &Common, url: Option<&str>, is_pause: bool) -> anyhow::Result<Ended> {
    let action = if is_pause { "pause" } else { "unpause" };
    order(common, url, &Asked { action: action.to_owned(), ..Asked::default() })
}

/// Lists who did what, newest first.
pub fn audit(common: &Common, audit: &Audit) -> anyhow::Result<Ended> {
    let environment = Environment::of_process();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut before, mut left) = (None, audit.limit);
        let place = Place::find(common, audit.url.as_deref(), &environment).await?;
        while left > 0 {
            let deeds = place.deeds(before, left.min(LISTED)).await?;
            for deed in &deeds {
                match common.json {
                    true => print_line(deed),
                    false => give(&shown(deed))?,
                }
            }
            if deeds.is_empty() && before.is_none() && !common.json {
                say("nobody has changed anything");
            }
            if deeds.len() < left.min(LISTED) {
                break;
            }
            (before, left) = (deeds.last().and_then(|deed| deed["id"].as_u64()), left - deeds.len());
        }
        place.close().await?;
        Ok(Ended::Done)
    })
}

fn order(common: &Common, url: Option<&str>, asked: &Asked) -> anyhow::Result<Ended> {
    let environment = Environment::of_process();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let place = Place::find(common, url, &environment).await?;
        let done = place.order(asked).await?;
        place.close().await?;
        match common.json {
            true => print_line(&done),
            false => say(told(asked)),
        }
        Ok(Ended::Done)
    })
}

/// What an order means from now on.
fn told(asked: &Asked) -> String {
    let name = &asked.target;
    match asked.action.as_str() {
        "pause" => "no run in the background begins until `fanout unpause`".to_owned(),
        "unpause" => "runs in the background begin again".to_owned(),
        "tools disable" => format!("calls of `{name}` are `not_permitted` until `fanout tools enable {name}`"),
        "tools enable" => format!("`{name}` is in use again"),
        "limits set" => format!("the limits of `{name}` hold until `fanout limits reset {name}`"),
        "limits reset" => format!("the limits of `{name}` are those of the configuration again"),
        "breaker open" => {
            let lasts = asked.lasts.as_ref().map(|lasts| format!("for {lasts}, or ")).unwrap_or_default();
            format!("nothing is sent to `{name}` {lasts}until `fanout breaker close {name}`")
        }
        _ => format!("`{name}` is called again"),
    }
}

/// Where orders are given.
enum Place<'a> {
    /// The journal of the configuration.
    Journal(Box<(Opened, Config)>),
    Gateway(Gateway<'a>),
}

impl<'a> Place<'a> {
    async fn find(common: &Common, url: Option<&str>, environment: &'a Environment) -> anyhow::Result<Self> {
        if let Some(gateway) = Gateway::named(url, environment) {
            return Ok(Self::Gateway(gateway));
        }
        let config = configuration(common, environment)?;
        if let Some(gateway) = Gateway::instead(&config, environment)? {
            return Ok(Self::Gateway(gateway));
        }
        let opened = Opened::open(&config, environment).await?;
        let opened = opened.context("nothing is kept: `url` of [store] is \"memory:\"")?;
        Ok(Self::Journal(Box::new((opened, config))))
    }

    async fn order(&self, asked: &Asked) -> anyhow::Result<Value> {
        match self {
            Self::Journal(kept) => {
                let (opened, config) = &**kept;
                let order = Order::read(asked, config).map_err(anyhow::Error::msg)?;
                let mut deed = order.by(at_the_terminal());
                deed.number = opened.journal.store().keep_deed(deed.clone()).await?;
                Ok(deed.to_json())
            }
            Self::Gateway(gateway) => {
                let mut body = json!({ "action": asked.action, "target": asked.target, "set": asked.set });
                for (key, value) in [("reason", &asked.reason), ("for", &asked.lasts)] {
                    if let Some(value) = value {
                        body[key] = value.as_str().into();
                    }
                }
                gateway.ask("/controls", Some(body)).await
            }
        }
    }

    async fn deeds(&self, before: Option<u64>, max: usize) -> anyhow::Result<Vec<Value>> {
        match self {
            Self::Journal(kept) => {
                let deeds = kept.0.journal.store().deeds(before, max).await?;
                Ok(deeds.iter().map(Deed::to_json).collect())
            }
            Self::Gateway(gateway) => {
                let after = before.map(|id| format!("&after_id={id}")).unwrap_or_default();
                let mut page = gateway.ask(&format!("/audit?limit={max}{after}"), None).await?;
                match page["data"].take() {
                    Value::Array(deeds) => Ok(deeds),
                    _ => bail!("what listens at {} is no gateway of ours", gateway.url()),
                }
            }
        }
    }

    async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Journal(kept) => Ok(kept.0.close().await?),
            Self::Gateway(_) => Ok(()),
        }
    }
}

/// Whoever may use the machine's own files.
pub fn at_the_terminal() -> Who {
    let caller: CallerId = at_terminal().caller;
    Who { name: caller.to_string(), project: None }
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
