//! What a person on call has ordered, and that it happens.
//!
//! From the terminal and from HTTP: an [`Order`]. It is kept as a deed, and what stands is done by every process that shares the
//! journal: tools are taken out of use, breakers are held open, limits are others than the configuration says. It outlives
//! restarts and reloads, until another order takes it back.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fanout_core::call::{GroupName, ToolName};
use fanout_core::effects::Source;
use fanout_core::limits::LimitOptions;
use fanout_core::run::Scheduler;
use fanout_core::toolbox::Toolbox;
use fanout_journal::Journal;
use fanout_journal::approvals::now_ms;
use fanout_journal::deeds::{Action, Deed};
use fanout_journal::store::StoreError;
use fanout_tools::schema::nearest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{Config, read_duration};
use crate::environment::Environment;
use crate::groups::groups;

/// So often a process looks what others have ordered.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// More words than this are not kept.
const REASON_MAX: usize = 1_000;

/// Longer names are none of ours.
const TARGET_MAX: usize = 300;

/// The keys of `[limits.NAME]` that can be ordered.
const LIMIT_KEYS: [&str; 5] = ["rate", "burst", "concurrency", "max_queue", "max_wait"];

/// Who orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The name of their key, or where they are.
    pub name: String,
    /// Their team.
    pub project: Option<String>,
}

/// An order as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// What, in the words of the terminal: `tools disable`, `limits set`, `breaker open`, `pause` and their opposites.
    pub action: String,
    /// Which tool or limit group.
    #[serde(default)]
    pub target: String,
    /// Why: whoever meets it is told.
    pub reason: Option<String>,
    /// The limits, as in `[limits.NAME]`; `none` for no bound.
    #[serde(default)]
    pub set: Map<String, Value>,
    /// How long a breaker is held open; until it is closed, if nobody says.
    #[serde(rename = "for")]
    pub lasts: Option<String>,
}

/// What is ordered: every part of it is right.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    action: Action,
    target: String,
    detail: Value,
}

/// Whether there is, or can be, a tool of that name: of a source whose tools only it knows, any name will do.
///
/// # Errors
/// The nearest name.
fn known_tool(name: &str, config: &Config, toolbox: Option<&Toolbox>) -> Result<(), Option<String>> {
    let openapi = config.openapi.iter().map(|source| source.name.as_str());
    let mut sources = openapi.chain(config.mcp_servers.keys().map(String::as_str));
    let is_of = |source: &str| name.strip_prefix(source).and_then(|rest| rest.strip_prefix("__"));
    let names = || config.tools.iter().map(|tool| tool.name.as_str());
    let is_known = toolbox.is_some_and(|toolbox| toolbox.get(&name.into()).is_some());
    match is_known || sources.any(|source| is_of(source).is_some_and(|rest| !rest.is_empty())) {
        true => Ok(()),
        false if names().any(|known| known == name) => Ok(()),
        false => Err(nearest(name, names()).map(str::to_owned)),
    }
}

/// The same for limit groups. Which hosts are called only the tools tell: without them, any will do.
fn known_group(name: &str, config: &Config, toolbox: Option<&Toolbox>) -> Result<(), Option<String>> {
    let groups = groups(config, toolbox.unwrap_or(&Toolbox::new()));
    let names = || groups.iter().map(|group| group.name.as_str());
    let is_source = match name.split_once('/') {
        Some(("http", host)) => toolbox.is_none() && !host.is_empty(),
        Some(("mcp", server)) => config.mcp_servers.contains_key(server),
        Some(("sql", database)) => config.databases.contains_key(database),
        _ => false,
    };
    match is_source || names().any(|known| known == name) {
        true => Ok(()),
        false => Err(nearest(name, names()).map(str::to_owned)),
    }
}

impl Order {
    /// Reads what is asked for. The tools, where they are known, tell more than the configuration alone.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn read(asked: &Asked, config: &Config, toolbox: Option<&Toolbox>) -> Result<Self, String> {
        let is_order = |action: &Action| action.subject().is_some();
        let action = Action::of(&asked.action).filter(is_order).ok_or_else(|| {
            let all: Vec<&str> = Action::ALL.into_iter().filter(is_order).map(Action::as_str).collect();
            format!("there is no order `{}`; there are: {}", asked.action, all.join(", "))
        })?;
        let words = action.as_str();
        let missed = |what: &str, nearest: Option<String>| {
            let hint = nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            format!("there is no {what} `{}`{hint}", asked.target)
        };
        match action {
            Action::DisableTool => {
                known_tool(&asked.target, config, toolbox).map_err(|nearest| missed("tool", nearest))?;
            }
            Action::SetLimits | Action::OpenBreaker => {
                known_group(&asked.target, config, toolbox).map_err(|nearest| missed("limit group", nearest))?;
            }
            Action::Pause | Action::Unpause if !asked.target.is_empty() => {
                return Err(format!("`{words}` is about all runs in the background: it takes no `target`"));
            }
            // What is gone from the configuration can still be put back.
            Action::EnableTool | Action::ResetLimits | Action::CloseBreaker if asked.target.is_empty() => {
                return Err(format!("`{words}` needs a `target`"));
            }
            _ => {}
        }
        if asked.target.chars().count() > TARGET_MAX {
            return Err(format!("a `target` has at most {TARGET_MAX} characters"));
        }
        let mut detail = Map::new();
        if let Some(reason) = asked.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty()) {
            if reason.chars().count() > REASON_MAX {
                return Err(format!("a reason has at most {REASON_MAX} characters"));
            }
            detail.insert("reason".to_owned(), reason.into());
        }
        match (action, asked.set.is_empty()) {
            (Action::SetLimits, true) => {
                return Err(format!("`{words}` needs limits, such as `concurrency` or `rate`"));
            }
            (Action::SetLimits, false) => {
                Change::read(&asked.set)?;
                detail.insert("set".to_owned(), asked.set.clone().into());
            }
            (_, true) => {}
            (_, false) => return Err(format!("`{words}` takes no limits")),
        }
        if let Some(lasts) = &asked.lasts {
            if action != Action::OpenBreaker {
                return Err(format!("`{words}` takes no time: it holds until it is taken back"));
            }
            let time = read_duration(lasts).filter(|time| !time.is_zero());
            let time = time.ok_or_else(|| format!("`{lasts}` is no time such as 90s, 10m or 2h"))?;
            let until = now_ms().saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
            detail.insert("until_ms".to_owned(), until.into());
        }
        Ok(Self { action, target: asked.target.clone(), detail: detail.into() })
    }

    /// It as the deed of somebody, now.
    pub fn by(self, who: Who) -> Deed {
        deed(who, self.action, self.target, self.detail)
    }
}

/// A deed of somebody, now.
pub fn deed(who: Who, action: Action, target: impl Into<String>, detail: Value) -> Deed {
    Deed { number: 0, at_ms: now_ms(), who: who.name, project: who.project, action, target: target.into(), detail }
}

/// Limits that are ordered, beside those of the configuration.
struct Change {
    given: Vec<String>,
    options: LimitOptions,
}

impl Change {
    /// Reads them as the configuration would.
    fn read(set: &Map<String, Value>) -> Result<Self, String> {
        let (mut text, mut given) = ("[limits.change]\n".to_owned(), Vec::new());
        for (key, value) in set {
            if !LIMIT_KEYS.contains(&key.as_str()) {
                let hint = nearest(key, LIMIT_KEYS).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
                return Err(format!(
                    "`{key}` is no limit that can be ordered; there are: {}{hint}",
                    LIMIT_KEYS.join(", ")
                ));
            }
            given.push(key.clone());
            let value = match value {
                Value::String(word) if word == "none" && matches!(key.as_str(), "rate" | "concurrency") => continue,
                Value::String(number) if number.parse::<u64>().is_ok() => number.clone(),
                // A text of JSON is one of TOML, too.
                value => value.to_string(),
            };
            text += &format!("{key} = {value}\n");
        }
        let config = Config::parse("limits set", &text, std::path::Path::new("."), &Environment::default());
        let config = config.map_err(|errors| {
            let mistakes = errors.mistakes.into_iter().map(|mistake| mistake.message);
            mistakes.collect::<Vec<_>>().join("; ")
        })?;
        let options = config.limits.get("change").map(|limit| limit.options.clone()).unwrap_or_default();
        Ok(Self { given, options })
    }

    /// These options, but for what was ordered.
    fn apply(self, mut options: LimitOptions) -> LimitOptions {
        for key in &self.given {
            match key.as_str() {
                "rate" => options.rate = self.options.rate,
                "burst" => options.burst = self.options.burst,
                "concurrency" => options.concurrency = self.options.concurrency,
                "max_queue" => options.queue_max = self.options.queue_max,
                "max_wait" => options.wait_max = self.options.wait_max,
                _ => {}
            }
        }
        options
    }
}

/// Who keeps queued runs waiting, if anybody does.
pub fn paused_by(standing: &[Deed]) -> Option<&str> {
    standing.iter().find(|deed| deed.action == Action::Pause).map(|deed| deed.who.as_str())
}

/// Those orders that change something at this time.
pub fn in_effect(standing: Vec<Deed>) -> Vec<Deed> {
    let now = now_ms();
    let changes = |deed: &Deed| match deed.action {
        Action::Pause | Action::DisableTool | Action::SetLimits => true,
        Action::OpenBreaker => until(deed).is_none_or(|until| until > now),
        _ => false,
    };
    standing.into_iter().filter(changes).collect()
}

/// Sees to it that this process does what is ordered.
pub struct Controls {
    /// Where orders are kept; `None`: here, for as long as the process.
    journal: Option<Journal>,
    scheduler: Scheduler,
    /// One look at a time.
    looking: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

struct State {
    config: Arc<Config>,
    /// What stands, as far as this process has done it.
    done: Vec<Deed>,
}

impl State {
    /// Does what is new of what stands.
    fn obey(&mut self, standing: Vec<Deed>, scheduler: &Scheduler) {
        // By each number: of two that were ordered at once, the later may have been kept first.
        let is_new = |deed: &&Deed| self.done.iter().all(|done| done.number != deed.number);
        let new: Vec<Deed> = standing.iter().filter(is_new).cloned().collect();
        if new.is_empty() {
            return;
        }
        let disabled = standing.iter().filter(|deed| deed.action == Action::DisableTool);
        scheduler.disable(disabled.map(|deed| (ToolName::from(deed.target.as_str()), told(deed))));
        for deed in &new {
            let group = GroupName::from(deed.target.as_str());
            match deed.action {
                Action::OpenBreaker => {
                    let left = until(deed).map(|until| Duration::from_millis(until.saturating_sub(now_ms())));
                    scheduler.hold(&group, Some(left.unwrap_or(Duration::MAX)));
                }
                Action::CloseBreaker => scheduler.hold(&group, None),
                _ => {}
            }
            tracing::info!(
                who = deed.who.as_str(),
                action = deed.action.as_str(),
                about = deed.target.as_str(),
                "ordered"
            );
        }
        if new.iter().any(|deed| deed.action.subject() == Action::SetLimits.subject()) {
            scheduler.set_limits(limits(&self.config, &standing));
        }
        self.done = standing;
    }
}

impl Controls {
    /// Nothing is ordered yet, until [`Controls::look`].
    pub fn new(journal: Option<Journal>, scheduler: Scheduler, config: Arc<Config>) -> Self {
        let state = Mutex::new(State { config, done: Vec::new() });
        Self { journal, scheduler, looking: tokio::sync::Mutex::default(), state }
    }

    /// Orders this: it is kept when this answers, and done in this process; others do it within a second.
    ///
    /// # Errors
    /// [`StoreError`]: it is not kept, and not done.
    pub async fn order(&self, mut deed: Deed) -> Result<Deed, StoreError> {
        match &self.journal {
            Some(journal) => {
                deed.number = journal.store().keep_deed(deed.clone()).await?;
                self.look().await?;
            }
            None => {
                let mut state = self.state();
                let mut standing = state.done.clone();
                deed.number = standing.iter().map(|done| done.number).max().unwrap_or_default() + 1;
                standing.retain(|done| (done.action.subject(), &done.target) != (deed.action.subject(), &deed.target));
                standing.push(deed.clone());
                state.obey(standing, &self.scheduler);
            }
        }
        Ok(deed)
    }

    /// Keeps what somebody did that is no order, where anything is kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn note(&self, deed: Deed) -> Result<(), StoreError> {
        match &self.journal {
            Some(journal) => journal.store().keep_deed(deed).await.map(drop),
            None => Ok(()),
        }
    }

    /// Does what is ordered by now.
    ///
    /// # Errors
    /// [`StoreError`]: what stood still stands.
    pub async fn look(&self) -> Result<(), StoreError> {
        if let Some(journal) = &self.journal {
            // What was read before another look must not be done after it.
            let _one = self.looking.lock().await;
            let standing = journal.store().standing().await?;
            self.state().obey(standing, &self.scheduler);
        }
        Ok(())
    }

    /// Looks again and again; never ends by itself.
    pub async fn keep_looking(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // A journal that cannot be read is said by who writes it; what stood still stands.
            let _ = self.look().await;
        }
    }

    /// The orders that change something now.
    pub fn standing(&self) -> Vec<Deed> {
        in_effect(self.state().done.clone())
    }

    /// From here on the limits of this configuration hold, but for those that are ordered.
    pub fn configured(&self, config: Arc<Config>) {
        let mut state = self.state();
        state.config = config;
        self.scheduler.set_limits(limits(&state.config, &state.done));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Controls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controls").field("done", &self.state().done).finish_non_exhaustive()
    }
}

/// Until when it holds; `None`: until it is taken back.
fn until(deed: &Deed) -> Option<u64> {
    deed.detail["until_ms"].as_u64()
}

/// What a call is told whose tool is out of use.
fn told(deed: &Deed) -> Arc<str> {
    let reason = deed.detail["reason"].as_str().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let (tool, who) = (&deed.target, &deed.who);
    format!("`{tool}` was taken out of use by {who}{reason}, so it was not run: go on without it").into()
}

/// The limits that hold: the configuration's, and what is ordered beside them.
fn limits(config: &Config, standing: &[Deed]) -> BTreeMap<GroupName, LimitOptions> {
    let mut limits = config.scheduler_options().limits;
    for deed in standing.iter().filter(|deed| deed.action == Action::SetLimits) {
        let set = deed.detail["set"].as_object();
        // One that an older version ordered and this one cannot read is left out, and said.
        let Some(change) = set.and_then(|set| Change::read(set).ok()) else {
            tracing::error!(
                group = deed.target.as_str(),
                deed = deed.number,
                "limits that were ordered cannot be read"
            );
            continue;
        };
        let unasked = || config.unasked_limit(&Source::from(deed.target.as_str())).map(|(_, options)| options);
        let name = GroupName::from(deed.target.as_str());
        let known = limits.remove(&name).or_else(unasked).unwrap_or_default();
        limits.insert(name, change.apply(known));
    }
    limits
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use serde_json::json;

    use super::*;

    const CONFIG: &str = "[limits.pay]\nrate = \"5/s\"\nconcurrency = 4\n[[tool]]\nname = \"pay\"\n\
                          command = { program = \"true\" }\n[mcp_servers.files]\ncommand = \"x\"\n";

    fn config() -> Config {
        Config::parse("t", CONFIG, std::path::Path::new("."), &Environment::default()).unwrap()
    }

    fn check(asked: Value, wanted: &str) {
        let asked: Asked = serde_json::from_value(asked).unwrap();
        let came = Order::read(&asked, &config(), None).map_or_else(|error| error, |order| order.detail.to_string());
        assert!(came.contains(wanted), "{came}");
    }

    #[test]
    fn what_is_not_right_is_said_and_nothing_is_ordered() {
        check(json!({"action": "reload"}), "there is no order `reload`; there are: pause, unpause, tools disable");
        check(json!({"action": "tools disable", "target": "files__"}), "there is no tool `files__`");
        check(json!({"action": "tools disable", "target": "files__any"}), "{}");
        check(json!({"action": "breaker open", "target": "mcp/other"}), "there is no limit group `mcp/other`");
        check(json!({"action": "breaker close"}), "`breaker close` needs a `target`");
        check(json!({"action": "pause", "target": "pay"}), "takes no `target`");
        check(json!({"action": "tools enable", "target": "x".repeat(301)}), "at most 300 characters");
        check(json!({"action": "pause", "reason": "x".repeat(1_001)}), "at most 1000 characters");
        check(json!({"action": "limits set", "target": "pay"}), "needs limits");
        check(
            json!({"action": "limits set", "target": "pay", "set": {"retry": {}}}),
            "`retry` is no limit that can be",
        );
        check(json!({"action": "limits set", "target": "pay", "set": {"burst": 0}}), "`burst`");
        check(json!({"action": "limits set", "target": "pay", "set": {"rate": "1/s\nburst = 3"}}), "`rate`");
        check(json!({"action": "pause", "set": {"burst": 1}}), "takes no limits");
        check(json!({"action": "tools disable", "target": "pay", "for": "1h"}), "takes no time");
        check(json!({"action": "breaker open", "target": "pay", "for": "0s"}), "`0s` is no time");
        check(json!({"action": "breaker open", "target": "pay", "for": "1h"}), "until_ms");
    }

    #[test]
    fn limits_that_are_ordered_lie_over_those_of_the_configuration() {
        let order = |target: &str, set: Value| {
            let asked = Asked { action: "limits set".to_owned(), target: target.to_owned(), ..Asked::default() };
            let asked = Asked { set: set.as_object().unwrap().clone(), ..asked };
            Order::read(&asked, &config(), None).unwrap().by(Who { name: "ann".to_owned(), project: None })
        };
        let standing = [
            order("pay", json!({"rate": "none", "max_queue": "7"})),
            order("http/api.example.com", json!({"concurrency": 2})),
        ];
        let limits = limits(&config(), &standing);
        let (pay, host) = (&limits[&"pay".into()], &limits[&"http/api.example.com".into()]);
        assert_eq!((pay.rate, pay.concurrency.map(NonZeroU32::get), pay.queue_max), (None, Some(4), 7));
        assert_eq!((host.concurrency.map(NonZeroU32::get), host.queue_max), (Some(2), 1000));
    }
}
