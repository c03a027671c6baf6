//! `fanout run`: one prompt, asked of the configured model with the configured tools.

use std::sync::Arc;

use anyhow::bail;
use fanout_agent::{Agent, AgentOptions, Cancel, Conversation, Report, RunSettings};
use fanout_anthropic::Model;
use fanout_host::build::{Purpose, build_model};
use fanout_host::lines::{Used, run_ended};

use crate::args::{Common, Run};
use crate::exit::Ended;
use crate::loaded::Loaded;
use crate::show::{ERROR, Watcher, advise, figures, print_line, styled, waterfall};

/// Asks the model, runs its calls, answers, until it is done.
pub fn run(common: &Common, run: &Run) -> anyhow::Result<Ended> {
    let loaded = Loaded::read(common, Purpose::Run)?;
    if run.prompt.trim().is_empty() {
        bail!("the prompt is empty; say what to ask, as in: fanout run \"Which orders are late?\"");
    }
    let model = build_model(&loaded.config.model, &loaded.environment).map_err(|error| {
        anyhow::Error::new(error).context(
            "there is no model to ask: set ANTHROPIC_API_KEY, or `api_key` in [model]; to see fanout without a key: fanout demo",
        )
    })?;
    let mut options = loaded.agent_options();
    options.system.clone_from(&run.system);
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(converse(
        common,
        &loaded,
        Arc::new(model),
        options,
        Conversation::from_prompt(&run.prompt),
    ))
}

/// One run from a conversation to its end, shown as it goes. Ctrl-C stops it in good order; a second one at once.
pub async fn converse(
    common: &Common,
    loaded: &Loaded,
    model: Arc<dyn Model>,
    options: AgentOptions,
    conversation: Conversation,
) -> anyhow::Result<Ended> {
    let agent = Agent::new(model, loaded.scheduler(), Arc::clone(&loaded.toolbox), options)?;
    let watcher = Arc::new(Watcher::new(common.json));
    let cancel = Cancel::default();
    let run = fanout_agent::new_run_id();
    let settings = RunSettings {
        run: Some(run.clone()),
        recorder: Some(Arc::clone(&watcher) as _),
        cancel: cancel.clone(),
        ..RunSettings::default()
    };
    tokio::spawn(interrupted(move || cancel.cancel("interrupted")));
    let report = agent.run(conversation, settings).await;
    if common.json {
        let used = Used { turns: report.turns, calls: report.calls, usage: report.usage, cost_usd: report.cost_usd };
        let timeline = watcher.timeline();
        let status = report.status.as_str();
        print_line(&run_ended(run.as_str(), status, report.reason.as_deref(), timeline.figures(), &used));
    } else {
        close(&report, &watcher, loaded);
    }
    Ok(report.status.into())
}

fn close(report: &Report, watcher: &Watcher, loaded: &Loaded) {
    let timeline = watcher.timeline();
    anstream::eprintln!("\n{}", waterfall(&timeline));
    if !report.answer.is_empty() {
        anstream::println!("{}", report.answer);
    }
    let used = report.usage;
    let cost = report.cost_usd.map(|cost| format!(", ${cost:.4}")).unwrap_or_default();
    anstream::eprintln!("\n{}", figures(&timeline.figures()));
    anstream::eprintln!("{} turns, {} calls, {} tokens{cost}", report.turns, report.calls, used.total());
    if let Some(advice) = advise(&timeline, &loaded.toolbox) {
        anstream::eprintln!("{advice}");
    }
    if report.status != fanout_agent::Status::Done {
        let reason = report.reason.as_deref().unwrap_or("the model refused");
        anstream::eprintln!("{} {reason}", styled(ERROR, format!("{}:", report.status.as_str())));
    }
}

/// Calls `stop` at the first Ctrl-C, and ends the process at the second.
pub async fn interrupted(stop: impl FnOnce()) {
    if tokio::signal::ctrl_c().await.is_err() {
        return;
    }
    stop();
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(130);
    }
}
