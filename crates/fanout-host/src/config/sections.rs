//! The sections that concern everything: `[model]`, `[run]`, `[scheduler]`, `[prices]`.
//!
//! From the page. To the options, with the defaults of the contract.
//!
//! What a single tool says is read in `tool`, what an external API bears in `limits`, what the gateway is told in `server`, an MCP server in `mcp`.

use std::collections::BTreeMap;
use std::time::Duration;

use fanout_agent::Price;
use fanout_core::run::SchedulerOptions;
use fanout_tools::naming::tool_name;

use super::Config;
use super::field::Field;
use super::keys::Kind;
use super::page::{Page, Section, Spot};
use super::setting::Setting;
use super::source::Names;
use super::{database, limits, mcp, notify, openapi, project, server, store, tool};

/// `[model]`: whom to ask.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// Where the Messages API is.
    pub base_url: Setting,
    /// Its key; only asked for when a request is to be sent.
    pub api_key: Setting,
    /// The model's name.
    pub name: String,
    /// The most tokens of one response.
    pub max_tokens: u32,
    /// Whether responses stream.
    pub stream: bool,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            base_url: Setting::default_text("model", "base_url", "https://api.anthropic.com"),
            api_key: Setting::default_variable("model", "api_key", "ANTHROPIC_API_KEY"),
            name: "claude-sonnet-5-5".to_owned(),
            max_tokens: 8192,
            stream: true,
        }
    }
}

/// `[run]`: budgets and habits of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunConfig {
    /// The most model responses.
    pub max_turns: u32,
    /// The most calls, those of plans counted.
    pub max_calls: u32,
    /// The most blocks of one response that run; the rest are answered `budget`.
    pub max_batch: u32,
    /// How deep calls may run calls.
    pub max_depth: u32,
    /// The most tokens, both ways.
    pub max_total_tokens: u64,
    /// The most US dollars, by `[prices]`.
    pub max_cost_usd: f64,
    /// Whether somebody wrote `max_cost_usd`: the default is waived for a model without a price, what was written never.
    pub max_cost_given: bool,
    /// The longest that a run may take.
    pub deadline: Duration,
    /// Whether `plan` is among the tools, where this process runs them for itself.
    pub plan: bool,
    /// Whether harmless calls may start while a response still streams.
    pub early_start: bool,
    /// How long a call waits for a person. This version asks nobody yet.
    pub approval_wait: Duration,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            max_turns: 50,
            max_calls: 500,
            max_batch: 256,
            max_depth: 4,
            max_total_tokens: 2_000_000,
            max_cost_usd: 5.0,
            max_cost_given: false,
            deadline: Duration::from_secs(15 * 60),
            plan: true,
            early_start: true,
            approval_wait: Duration::from_secs(30),
        }
    }
}

/// `[scheduler]`: bounds of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// The most attempts that run at once.
    pub max_in_flight: usize,
    /// The longest that work which outlives its call keeps its locks.
    pub stray_hold: Duration,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        let SchedulerOptions { in_flight_max, stray_hold, .. } = SchedulerOptions::default();
        Self { max_in_flight: in_flight_max, stray_hold }
    }
}

/// Sections whose keys a variable may override, as in `FANOUT_RUN__MAX_TURNS`.
const OVERRIDDEN: [&str; 6] = ["MODEL", "RUN", "SCHEDULER", "SERVER", "STORE", "WORKER"];

/// Reads the whole page. What is wrong is noted there.
pub(super) fn read(page: &Page<'_>) -> Config {
    let Some(table) = page.table() else { return Config::default() };
    let top = Section::new(page, "", Kind::Top, table.span(), Some(table.get_ref()));
    let server = server::read(&part(page, &top, "server", "SERVER", Kind::Server));
    page.verifies_tokens.set(server.jwt.is_some());
    let databases = database::read_all(&top);
    let limits = limits::read_all(&top, &databases);
    let mcp_servers = mcp::read_all(page, &top, &limits, &server);
    let documents = openapi::open_all(&top);
    let names = Names {
        known: tool::names(page, &top).into_iter().chain(openapi::names(&documents)).collect(),
        open: mcp_servers.keys().map(|server| tool_name(server, "").to_string()).collect(),
        own: Some(BTreeMap::new()),
    };
    let config = Config {
        file: None,
        model: model(&part(page, &top, "model", "MODEL", Kind::Model)),
        run: run(&part(page, &top, "run", "RUN", Kind::Run)),
        scheduler: scheduler(&part(page, &top, "scheduler", "SCHEDULER", Kind::Scheduler)),
        mcp_servers,
        server,
        tools: tool::read_all(page, &top, &names, &limits, &databases),
        openapi: openapi::read_all(documents, &names, &limits),
        limits,
        databases,
        notify: notify::read_all(&top),
        projects: project::read_all(&top),
        prices: prices(&top),
        store: store::read(page, &part(page, &top, "store", "STORE", Kind::Store)),
        worker: store::read_worker(&part(page, &top, "worker", "WORKER", Kind::Worker)),
        warnings: Vec::new(),
        text: super::Text::default(),
    };
    top.finish();
    check_variables(page);
    config
}

/// A section that may be absent; its variables count all the same.
fn part<'a>(
    page: &'a Page<'a>,
    top: &Section<'a>,
    key: &'static str,
    variable: &'static str,
    kind: Kind,
) -> Section<'a> {
    let name = format!("[{key}]");
    let given = top.get(key).and_then(|field| field.section(name.clone(), kind));
    given.unwrap_or_else(|| Section::new(page, name, kind, 0..0, None)).overridden_by(variable)
}

fn check_variables(page: &Page<'_>) {
    for (rest, _) in page.environment.starting_with("FANOUT_") {
        let Some((section, _)) = rest.split_once("__") else { continue };
        if !OVERRIDDEN.contains(&section) {
            let spot = Spot::Variable(format!("FANOUT_{rest}"));
            let known = "a variable can override keys of [model], [run], [scheduler], [server], [store] and [worker]";
            page.mistake(&spot, format!("there is no section `{section}` to override; {known}"));
        }
    }
}

/// The value of a key, or its default where it is absent or wrong.
pub(super) fn or<'a, T>(
    section: &Section<'a>,
    key: &'static str,
    default: T,
    read: impl FnOnce(&Field<'a>) -> Option<T>,
) -> T {
    section.get(key).and_then(|field| read(&field)).unwrap_or(default)
}

/// A whole number of at least 1.
pub(super) fn count(field: &Field<'_>) -> Option<u32> {
    field.integer(1..=u64::from(u32::MAX)).and_then(|number| u32::try_from(number).ok())
}

fn model(section: &Section<'_>) -> ModelConfig {
    let default = ModelConfig::default();
    let config = ModelConfig {
        base_url: or(section, "base_url", default.base_url, Field::setting),
        api_key: or(section, "api_key", default.api_key, Field::setting),
        name: or(section, "name", default.name, |field| {
            let name = field.string()?;
            if name.trim().is_empty() {
                field.expected("the name of a model");
            }
            Some(name.to_owned())
        }),
        max_tokens: or(section, "max_tokens", default.max_tokens, count),
        stream: or(section, "stream", default.stream, Field::boolean),
    };
    section.finish();
    config
}

fn run(section: &Section<'_>) -> RunConfig {
    let default = RunConfig::default();
    let at_least_one = |field: &Field<'_>| field.integer(1..=u64::MAX);
    let config = RunConfig {
        max_turns: or(section, "max_turns", default.max_turns, count),
        max_calls: or(section, "max_calls", default.max_calls, count),
        max_batch: or(section, "max_batch", default.max_batch, count),
        max_depth: or(section, "max_depth", default.max_depth, count),
        max_total_tokens: or(section, "max_total_tokens", default.max_total_tokens, at_least_one),
        max_cost_usd: or(section, "max_cost_usd", default.max_cost_usd, Field::amount),
        max_cost_given: section.get("max_cost_usd").is_some(),
        deadline: or(section, "deadline", default.deadline, Field::duration),
        plan: or(section, "plan", default.plan, Field::boolean),
        early_start: or(section, "early_start", default.early_start, Field::boolean),
        approval_wait: or(section, "approval_wait", default.approval_wait, Field::duration),
    };
    section.finish();
    config
}

fn scheduler(section: &Section<'_>) -> SchedulerConfig {
    let default = SchedulerConfig::default();
    let config = SchedulerConfig {
        max_in_flight: or(section, "max_in_flight", default.max_in_flight, |field| {
            count(field).and_then(|number| usize::try_from(number).ok())
        }),
        stray_hold: or(section, "stray_hold", default.stray_hold, Field::duration),
    };
    section.finish();
    config
}

fn prices(top: &Section<'_>) -> BTreeMap<String, Price> {
    let Some(section) = top.get("prices").and_then(|field| field.section("[prices]", Kind::Names)) else {
        return BTreeMap::new();
    };
    let price = |(_, field): (Spot, Field<'_>)| {
        let model = field.key.clone();
        let name = format!("[prices.\"{model}\"]");
        let section = field.section(name.clone(), Kind::Price)?;
        if let Some((spot, inner)) = section.all().find(|(_, inner)| inner.is_table()) {
            let whole = format!("{model}.{}", inner.key);
            section.page.mistake(&spot, format!("a name with a dot in it stands in quotes: [prices.\"{whole}\"]"));
            return None;
        }
        let amount = |key| match section.get(key) {
            Some(field) => field.amount(),
            None => {
                section
                    .page
                    .mistake(&section.spot, format!("{name} needs `{key}`, in US dollars for a million tokens"));
                None
            }
        };
        let amounts = [amount("input"), amount("output"), amount("cache_read"), amount("cache_write")];
        section.finish();
        let [input, output, cache_read, cache_write] = amounts;
        let price = Price { input: input?, output: output?, cache_read: cache_read?, cache_write: cache_write? };
        Some((model, price))
    };
    section.all().filter_map(price).collect()
}
