//! `fanout check`: what the configuration comes to.

mod limits;
mod missing;
mod write;

use std::fmt::Write as _;

use anyhow::ensure;
use fanout_core::approval::Approval;
use fanout_core::effects::{EffectsSpec, Template};
use fanout_core::once::Once;
use fanout_core::tool::ToolSpec;
use fanout_host::advice::line;
use fanout_host::build::Purpose;
use fanout_host::groups::{group_of, groups};
use fanout_host::journal::once;
use serde_json::json;

use crate::args::{self, Common};
use crate::exit::Ended;
use crate::loaded::Loaded;
use crate::show::{ERROR, QUIET, STRONG, give, give_styled, styled, time};
use missing::{serialises, unseen};
use write::File;

/// Lists the tools with their effects and bounds, the limit groups with their budgets, and the lines that are missing.
/// With `--write` the lines are added instead.
pub fn check(common: &Common, args: &args::Check) -> anyhow::Result<Ended> {
    let file = if args.write { Some(File::read(common)?) } else { None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let loaded = runtime.block_on(Loaded::read(common, Purpose::Look))?;
    if let Some(file) = file {
        file.write(common, &loaded)?;
        return ended(&loaded);
    }
    let specs = specs(&loaded);
    // A URL that cannot be had now is a matter of who opens the journal; until then it is no tool's database.
    let kept = once(&loaded.config, &loaded.environment).ok().flatten();
    if common.json {
        for spec in &specs {
            give(&to_json(spec, serialises(spec, &specs), is_once(spec, kept.as_ref())).to_string())?;
        }
        for group in groups(&loaded.config, &loaded.toolbox) {
            give(&limits::to_json(&group).to_string())?;
        }
        give(&plan_json(&loaded).to_string())?;
        for unseen in unseen(&specs) {
            let (tool, message) = (unseen.tool.name.as_str(), unseen.to_string());
            give(&json!({ "type": "warning", "tool": tool, "message": message }).to_string())?;
        }
        for trouble in &loaded.troubles {
            let message = trouble.to_string();
            give(&json!({ "type": "trouble", "source": trouble.source, "message": message }).to_string())?;
        }
        return ended(&loaded);
    }
    let mut text = match &loaded.config.file {
        Some(file) => format!("{}: {} tools\n", file.display(), specs.len()),
        None => "no fanout.toml here or above: the defaults hold, and there are no tools\n".to_owned(),
    };
    for spec in &specs {
        print(&mut text, spec, serialises(spec, &specs), is_once(spec, kept.as_ref()));
    }
    if !specs.is_empty() {
        let _ = writeln!(text, "\n{}", plan(&loaded));
    }
    let groups = groups(&loaded.config, &loaded.toolbox);
    if !groups.is_empty() {
        let _ = writeln!(text, "\nlimit groups: {}", groups.len());
    }
    for group in &groups {
        limits::print(&mut text, group);
    }
    for unseen in unseen(&specs) {
        let _ = writeln!(text, "\n{} {unseen}", styled(ERROR, "warning:"));
    }
    give_styled(&text)?;
    ended(&loaded)
}

/// The tools that the configuration describes, `plan` aside: it touches what they do.
fn specs(loaded: &Loaded) -> Vec<&ToolSpec> {
    loaded.toolbox.iter().filter(|tool| !tool.is_plan()).map(|tool| &tool.spec).collect()
}

/// To whom `plan` is offered.
fn plan(loaded: &Loaded) -> String {
    let said = |section: &str, is_offered: bool| match is_offered {
        true => format!("offered ([{section}] plan = true)"),
        false => format!("not offered ([{section}] plan = false)"),
    };
    let (run, server) = (said("run", loaded.config.run.plan), said("server", loaded.config.server.plan));
    let what = "a whole graph of calls in one turn";
    format!("{} {}: here {run}; by the gateway {server}", styled(STRONG, "plan"), styled(QUIET, format!("({what})")))
}

fn plan_json(loaded: &Loaded) -> serde_json::Value {
    let is_offered = |here: bool| here && !specs(loaded).is_empty();
    let (run, server) = (is_offered(loaded.config.run.plan), is_offered(loaded.config.server.plan));
    json!({ "type": "plan", "run": run, "server": server })
}

/// An error, after everything was listed, where a source cannot be used as it is configured.
fn ended(loaded: &Loaded) -> anyhow::Result<Ended> {
    let count = loaded.troubles.len();
    ensure!(count == 0, "{count} of what the configuration asks of its sources cannot be had; the warnings say what");
    Ok(Ended::Done)
}

/// Whether a tool's calls are carried out exactly once, whatever breaks off; `None` where that is no matter: they do no harm
/// twice, or no database could know.
fn is_once(spec: &ToolSpec, kept: Option<&Once>) -> Option<bool> {
    let database = spec.database.as_deref().filter(|_| !spec.repeatable())?;
    Some(kept.is_some_and(|kept| kept.holds_for(Some(database))))
}

fn print(text: &mut String, spec: &ToolSpec, serialises: bool, is_once: Option<bool>) {
    let repeatable =
        if spec.repeatable() { "repeatable" } else { "not repeatable: tried again only if nothing was carried out" };
    let _ = writeln!(
        text,
        "\n{} {}",
        styled(STRONG, &spec.name),
        styled(QUIET, format!("({}, {repeatable})", spec.source))
    );
    let (reads, writes) = decisive(&spec.effects);
    let who = match spec.catalogue {
        Some(package) => format!("from the catalogue: {package}"),
        None => if spec.effects.is_declared() { "declared" } else { "inferred" }.to_owned(),
    };
    let _ = writeln!(text, "  reads {}; writes {} ({who})", list(reads), list(writes));
    for reason in &spec.reasons {
        let _ = writeln!(text, "  {}", styled(QUIET, reason));
    }
    let policy = &spec.policy;
    let after = policy.after.iter().map(ToString::to_string).collect::<Vec<_>>();
    let after = if after.is_empty() { String::new() } else { format!("; after {}", after.join(", ")) };
    let approval = match &policy.approval {
        Approval::Never => String::new(),
        asks => format!("; a person approves it {asks}"),
    };
    let limit = group_of(spec).map_or_else(|| "; no limit group".to_owned(), |group| format!("; limit {group}"));
    let _ = writeln!(
        text,
        "  timeout {}; deadline {}{limit}{after}{approval}",
        time(policy.timeout),
        time(policy.deadline)
    );
    match is_once {
        Some(true) => {
            let _ = writeln!(text, "  exactly once: what a call comes to is kept in the transaction that does it");
        }
        Some(false) => {
            let name = spec.source.as_str().trim_start_matches("sql/");
            let _ = writeln!(
                text,
                "  not exactly once: a call that a crash cuts off is `outcome_unknown`; to have it carried out once, set `url` \
                 of [store] to that of [database.{name}]"
            );
        }
        None => {}
    }
    if serialises {
        let _ = writeln!(text, "  waits for other calls of {}; to be reviewed and added: {}", spec.source, line(spec));
    }
}

fn to_json(spec: &ToolSpec, serialises: bool, is_once: Option<bool>) -> serde_json::Value {
    let (reads, writes) = decisive(&spec.effects);
    let texts = |templates: &[Template]| templates.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "type": "tool", "tool": spec.name.as_str(), "source": spec.source.as_str(), "repeatable": spec.repeatable(),
        "reads": texts(reads), "writes": texts(writes), "declared": spec.effects.is_declared(),
        "catalogue": spec.catalogue, "reasons": spec.reasons,
        "timeout_ms": spec.policy.timeout.as_millis(), "deadline_ms": spec.policy.deadline.as_millis(),
        "limit": group_of(spec).map(|group| group.to_string()),
        "after": spec.policy.after.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "approval": spec.policy.approval.to_string(), "exactly_once": is_once,
        "serialises": serialises, "proposed": serialises.then(|| line(spec)),
    })
}

/// The templates that decide: the declared ones, or without a declaration the inferred ones.
fn decisive(effects: &EffectsSpec) -> (&[Template], &[Template]) {
    if effects.is_declared() {
        (effects.reads.as_deref().unwrap_or_default(), effects.writes.as_deref().unwrap_or_default())
    } else {
        (&effects.inferred_reads, &effects.inferred_writes)
    }
}

fn list(templates: &[Template]) -> String {
    let texts: Vec<String> = templates.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") }
}
