//! `fanout run`: one prompt, asked of the configured model with the configured tools.

use std::sync::Arc;

use anyhow::{Error, bail};
use fanout_agent::{Agent, AgentError, AgentOptions, Cancel, Conversation, Report, RunSettings, Status};
use fanout_anthropic::Model;
use fanout_core::call::RunId;
use fanout_core::event::{Recorder, RunKind};
use fanout_core::timeline::Figures;
use fanout_host::build::{BuildError, Purpose, build_model};
use fanout_host::lines::{Used, run_ended};
use fanout_host::options::agent_options;
use fanout_host::runs::stopped_by_others;
use serde_json::json;

use crate::args::{Common, Run};
use crate::exit::Ended;
use crate::interrupt::on_interrupt;
use crate::loaded::{Loaded, NOTICES_MAX};
use crate::person::{approver, sits};
use crate::show::{
    ERROR, Unwritten, Watcher, advise, figures, give, give_answer, plain, print_line, say, styled, waterfall,
};

/// Asks the model, runs its calls, answers, until it is done.
pub fn run(common: &Common, run: &Run) -> anyhow::Result<Ended> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut loaded = runtime.block_on(Loaded::read(common, Purpose::Run))?;
    if run.prompt.trim().is_empty() {
        bail!("the prompt is empty; say what to ask, as in: fanout run \"Which orders are late?\"");
    }
    let model = build_model(&loaded.config.model, &loaded.environment).map_err(|error| match error {
        BuildError::Setting(_) => Error::new(error).context(
            "there is no model to ask: set ANTHROPIC_API_KEY, or `api_key` in [model]; to see fanout without a key: fanout demo",
        ),
        other => Error::new(other).context("there is no model to ask; see ANTHROPIC_BASE_URL, or `base_url` in [model]"),
    })?;
    let mut options = agent_options(&loaded.config, &loaded.config.model.name);
    if options.limits.cost_max_usd.is_none() {
        let (model, max) = (&options.model, loaded.config.run.max_cost_usd);
        say(format!(
            "warning: no price for `{model}`, so the default budget of ${max} is not kept; add [prices.\"{model}\"]"
        ));
    }
    options.system.clone_from(&run.system);
    let model: Arc<dyn Model> = Arc::new(model);
    let conversation = Conversation::from_prompt(&run.prompt);
    runtime.block_on(async {
        loaded.open_journal().await?;
        let ran = converse(common, &loaded, model, options, conversation, &run.prompt).await;
        loaded.close_journal().await;
        Ok(ran?.ended)
    })
}

/// What a run came to.
pub struct Ran {
    pub report: Report,
    pub figures: Figures,
    pub ended: Ended,
}

/// One run from a conversation to its end, shown as it goes. Ctrl-C stops it in good order; a second one at once.
pub async fn converse(
    common: &Common,
    loaded: &Loaded,
    model: Arc<dyn Model>,
    options: AgentOptions,
    conversation: Conversation,
    title: &str,
) -> anyhow::Result<Ran> {
    let (watcher, notices) = (Arc::new(Watcher::new(common.json)), loaded.notices()?);
    let asking = Asking {
        model,
        options,
        kind: RunKind::Agent,
        title,
        told: Arc::new((Arc::clone(&watcher), notices.clone())),
        cancel: Cancel::default(),
    };
    let (run, report) = ask(loaded, asking, conversation).await?;
    if common.json {
        let used = Used { turns: report.turns, calls: report.calls, usage: report.usage, cost_usd: report.cost_usd };
        if let Some(answer) = answer(&report) {
            print_line(&json!({ "type": "answer", "run": run.as_str(), "text": answer }));
        }
        let figures = watcher.timeline().figures();
        give(&run_ended(run.as_str(), report.status.as_str(), report.reason.as_deref(), figures, &used).to_string())?;
    } else {
        close(&report, &watcher, loaded)?;
    }
    tokio::join!(loaded.gone(), notices.close(NOTICES_MAX));
    // What the API's limits leave no room for is a limit too.
    let ended = if report.retry_after.is_some() { Ended::Limit } else { report.status.into() };
    let figures = watcher.timeline().figures();
    Ok(Ran { report, figures, ended })
}

/// How a run is asked for.
pub struct Asking<'a> {
    pub model: Arc<dyn Model>,
    pub options: AgentOptions,
    pub kind: RunKind,
    pub title: &'a str,
    /// Who is told what happens, beside the journal.
    pub told: Arc<dyn Recorder>,
    pub cancel: Cancel,
}

/// One run from a conversation to its end, in the journal. Ctrl-C stops it in good order; a second one at once. So do others
/// who cancel it.
pub async fn ask(loaded: &Loaded, asking: Asking<'_>, conversation: Conversation) -> anyhow::Result<(RunId, Report)> {
    let Asking { model, options, kind, title, told, cancel } = asking;
    let agent = Agent::new(model, loaded.obeying_scheduler().await?, Arc::clone(&loaded.toolbox), options)
        .map_err(explained)?;
    let run = fanout_agent::new_run_id();
    let settings = RunSettings {
        run: Some(run.clone()),
        recorder: Some(loaded.recorder(&run, kind, title, told)),
        approver: Some(approver(loaded)),
        parks: sits(),
        cancel: cancel.clone(),
        ..RunSettings::default()
    };
    let stopping = loaded.journal().map(|journal| tokio::spawn(stopped_by_others(journal.clone(), cancel.clone())));
    on_interrupt(&loaded.programs, move || cancel.cancel("interrupted"))?;
    let report = agent.run(conversation, settings).await;
    if let Some(stopping) = stopping {
        stopping.abort();
    }
    Ok((run, report))
}

/// A missing price, with the lines to add: here a run always has a budget in dollars.
fn explained(error: AgentError) -> Error {
    match error {
        AgentError::NoPrice { model, max } => anyhow::anyhow!(
            "there is a budget of ${max} a run (`max_cost_usd` in [run]) and no price for `{model}`; add \
             [prices.\"{model}\"] with input, output, cache_read and cache_write, in US dollars for a million tokens"
        ),
        other => other.into(),
    }
}

/// What the model said last. What a refusal broke off is not an answer.
fn answer(report: &Report) -> Option<&str> {
    Some(report.answer.as_str()).filter(|answer| !answer.is_empty() && report.status != Status::Refused)
}

fn close(report: &Report, watcher: &Watcher, loaded: &Loaded) -> Result<(), Unwritten> {
    let timeline = watcher.timeline();
    // Without an answer from the model there is nothing to draw and nothing to compare.
    if report.turns > 0 {
        say(format!("\n{}\n", waterfall(&timeline)));
    }
    if let Some(answer) = answer(report) {
        give_answer(answer)?;
    }
    if report.turns > 0 {
        let (turns, calls, tokens) = (report.turns, report.calls, report.usage.total());
        let cost = report.cost_usd.map(|cost| format!(", ${cost:.4}")).unwrap_or_default();
        say(format!("\n{}", figures(&timeline.figures())));
        say(format!("{turns} turns, {calls} calls, {tokens} tokens{cost}"));
    }
    if let Some(advice) = advise(&timeline, &loaded.toolbox) {
        say(advice);
    }
    if report.status != Status::Done {
        let reason = plain(report.reason.as_deref().unwrap_or("the model refused"));
        say(format!("{} {reason}", styled(ERROR, format!("{}:", report.status.as_str()))));
    }
    Ok(())
}
