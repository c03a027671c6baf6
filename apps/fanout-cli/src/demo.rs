//! `fanout demo`: everything on this machine, nothing to install, no key.
//!
//! A scripted Claude answers on a real loopback socket, and a shop with slow HTTP APIs stands on others. Every figure that is
//! printed comes from the events of this very run, or of these two.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use fanout_agent::Conversation;
use fanout_anthropic::{HttpModel, HttpOptions};
use fanout_host::build::Purpose;
use fanout_host::config::Config;
use fanout_host::environment::Environment;
use fanout_host::options::agent_options;
use fanout_script::shop::{Shop, planned, story, tools_toml};
use fanout_script::{Conversation as Asked, Server, ServerOptions, Turn};

use crate::args::{Common, Demo};
use crate::exit::Ended;
use crate::loaded::Loaded;
use crate::run::{Ran, converse};
use crate::show::{QUIET, STRONG, say, styled, time};

/// A scripted Claude, and what it is asked.
struct Story {
    prompt: &'static str,
    turn: fn(&Asked) -> Turn,
    /// Whether it is offered `plan`.
    has_plan: bool,
}

const ORDER: Story = Story { prompt: story::PROMPT, turn: story::turn, has_plan: false };
const STEPS: Story = Story { prompt: planned::PROMPT, turn: planned::step, has_plan: false };
const PLAN: Story = Story { prompt: planned::PROMPT, turn: planned::plan, has_plan: true };

/// Runs the demo.
pub fn demo(common: &Common, demo: &Demo) -> anyhow::Result<Ended> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        head(common, if demo.plan { &PLAN } else { &ORDER });
        if !demo.plan {
            return Ok(play(common, &ORDER).await?.ended);
        }
        part(common, "turn after turn", "a call can only be asked for once the model has seen what it needs");
        let steps = play(common, &STEPS).await?;
        if steps.ended != Ended::Done {
            return Ok(steps.ended);
        }
        part(common, "\nin one plan", "the same tools, the same order, a shop as it was at the beginning");
        let plan = play(common, &PLAN).await?;
        if plan.ended == Ended::Done && !common.json {
            say(compared(&steps, &plan));
        }
        Ok(plan.ended)
    })
}

/// One story, with a shop of its own.
async fn play(common: &Common, story: &Story) -> anyhow::Result<Ran> {
    let shop = Shop::start().context("the demo shop cannot open a port on 127.0.0.1")?;
    let server = Server::start(ServerOptions::responder(story.turn))
        .context("the scripted Claude cannot open a port on 127.0.0.1")?;
    // The surroundings are left out: a variable that is set for real work must not change the demo.
    let environment = Environment::default();
    let mut config = Config::parse("the demo", &tools_toml(&shop.base_url()), Path::new("."), &environment)?;
    config.run.plan = story.has_plan;
    let loaded = Loaded::build(config, environment, Purpose::Run).await?;
    let model = HttpModel::new(HttpOptions { base_url: server.base_url(), ..HttpOptions::default() })?;
    let options = agent_options(&loaded.config, &loaded.config.model.name);
    converse(common, &loaded, Arc::new(model), options, Conversation::from_prompt(story.prompt), story.prompt).await
}

fn head(common: &Common, story: &Story) {
    if !common.json {
        let place = "(a scripted Claude and a shop with slow APIs, on this machine)";
        say(format!("{} {}\n", styled(STRONG, story.prompt), styled(QUIET, place)));
    }
}

fn part(common: &Common, name: &str, what: &str) {
    if !common.json {
        say(format!("{} {}\n", styled(STRONG, format!("{name}:")), styled(QUIET, what)));
    }
}

/// Both runs side by side, and how much less the second took.
fn compared(steps: &Ran, plan: &Ran) -> String {
    let bytes = |ran: &Ran| -> usize {
        ran.report.conversation.messages().iter().map(|message| message.raw().as_str().len()).sum()
    };
    let row = |what: &str, values: [String; 3]| {
        let [steps, plan, saved] = values;
        format!("{what:<34} {steps:>15} {plan:>15} {saved:>9}")
    };
    let counts = |what: &str, counts: [u64; 2]| {
        row(what, [counts[0].to_string(), counts[1].to_string(), saved(counts.map(u128::from))])
    };
    let count = |what: &str, of: &dyn Fn(&Ran) -> u64| counts(what, [of(steps), of(plan)]);
    let times = |what: &str, of: &dyn Fn(&Ran) -> Duration| {
        let both = [of(steps), of(plan)];
        row(what, [time(both[0]), time(both[1]), saved(both.map(|took| took.as_micros()))])
    };
    let head = row("", ["turn after turn".to_owned(), "in one plan".to_owned(), "saved".to_owned()]);
    let rows = [
        styled(QUIET, head),
        times("time", &|ran| ran.figures.elapsed),
        count("model turns", &|ran| ran.report.turns.into()),
        count("calls", &|ran| ran.report.calls.into()),
        count("tokens, both ways", &|ran| ran.report.usage.total()),
        count("bytes of the conversation at its end", &|ran| u64::try_from(bytes(ran)).unwrap_or(u64::MAX)),
    ];
    format!("\n{}", rows.join("\n"))
}

/// The share of the first that the second spares, in percent; more than the first is a minus.
fn saved([first, second]: [u128; 2]) -> String {
    let percent = |part: u128| part.saturating_mul(100).checked_div(first).unwrap_or(0);
    match first.checked_sub(second) {
        Some(saved) => format!("{} %", percent(saved)),
        None => format!("-{} %", percent(second - first)),
    }
}
