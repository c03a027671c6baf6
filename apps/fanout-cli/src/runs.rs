//! `fanout runs`: what the journal has, and what is to become of it; `fanout pause` and `unpause`.
//!
//! The journal is opened beside whoever writes it: no gateway is asked, and none has to run.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use fanout_anthropic::{Model, Usage};
use fanout_core::call::RunId;
use fanout_core::event::Event;
use fanout_core::timeline::{Timeline, Turn};
use fanout_host::build::{Purpose, build_model};
use fanout_host::config::read_duration;
use fanout_host::controls::deed;
use fanout_host::environment::Environment;
use fanout_host::journal::Opened;
use fanout_host::lines::{Used, line, row, run_ended, time as moment};
use fanout_host::options::toolboxes;
use fanout_host::runs::{Equipment, Worker, WorkerOptions, stop};
use fanout_host::status::Status;
use fanout_host::trace::trace;
use fanout_journal::deeds::Action;
use fanout_journal::store::{Row, RunState, Wanted};
use fanout_journal::{Journal, Told};
use serde_json::{Value, json};

use crate::args::{Common, Runs, RunsCancel, RunsList, RunsPrune};
use crate::controls::at_the_terminal;
use crate::exit::Ended;
use crate::interrupt::on_interrupt;
use crate::loaded::{Loaded, configuration};
use crate::replay::replay;
use crate::show::{
    QUIET, STRONG, details, figures, give, give_styled, plain, print_line, say, styled, time, waterfall,
};

/// The most runs of one list.
const LIST_MAX: usize = 10_000;

/// Does what is asked with the journal.
pub fn runs(common: &Common, runs: &Runs) -> anyhow::Result<Ended> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match runs {
            Runs::Resume => return resume(common).await,
            Runs::Replay(wanted) => return replay(common, wanted).await,
            _ => {}
        }
        let (opened, retention) = open(common).await?;
        let journal = &opened.journal;
        match runs {
            Runs::List(wanted) => list(common, journal, wanted).await?,
            Runs::Show(wanted) => show(common, journal, &find(journal, &wanted.run).await?).await?,
            Runs::Export(wanted) => export(journal, &find(journal, &wanted.run).await?).await?,
            Runs::Cancel(wanted) => cancel(common, journal, wanted).await?,
            Runs::Prune(wanted) => prune(common, journal, wanted, retention).await?,
            Runs::Resume | Runs::Replay(_) => {}
        }
        opened.close().await?;
        Ok(Ended::Done)
    })
}

/// How things stand.
pub fn status(common: &Common) -> anyhow::Result<Ended> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (opened, _) = open(common).await?;
        let status = Status::read(&opened.journal, &opened.approvals).await?;
        match common.json {
            true => print_line(&status.to_json()),
            false => give(&status.to_string())?,
        }
        opened.close().await?;
        Ok(Ended::Done)
    })
}

/// The journal of the configuration, and for how long it keeps runs.
async fn open(common: &Common) -> anyhow::Result<(Opened, Duration)> {
    let environment = Environment::of_process();
    let config = configuration(common, &environment)?;
    let opened = Opened::open(&config, &environment).await?;
    let opened = opened.context("nothing is kept: `url` of [store] is \"memory:\"")?;
    Ok((opened, config.store.retention))
}

async fn list(common: &Common, journal: &Journal, wanted: &RunsList) -> anyhow::Result<()> {
    let state = match wanted.state.as_deref() {
        None => None,
        Some(word) => Some(RunState::of(word).with_context(|| {
            format!("there is no state `{word}`; there are: {}", RunState::ALL.map(RunState::as_str).join(", "))
        })?),
    };
    let wanted = Wanted { state, max: wanted.limit.min(LIST_MAX), ..Wanted::default() };
    let rows = journal.store().runs(wanted).await?;
    if rows.is_empty() && !common.json {
        say("there are no runs");
    }
    for run in &rows {
        match common.json {
            true => print_line(&row(run)),
            false => give(&listed(run))?,
        }
    }
    Ok(())
}

/// One line of the list.
fn listed(row: &Row) -> String {
    let used = &row.used;
    let took = if row.state.is_over() { time(used.elapsed) } else { "-".to_owned() };
    let failed = if used.failed > 0 { format!(", {} failed", used.failed) } else { String::new() };
    format!(
        "{}  {:<9}  {}  {took:>9}  {:>3} calls{failed}  {}",
        row.run,
        row.state.as_str(),
        &moment(row.began_ms)[..19],
        used.calls,
        plain(&row.title),
    )
}

/// The run of this id, or of an id that begins so.
pub async fn find(journal: &Journal, id: &str) -> anyhow::Result<Row> {
    if let Some(row) = journal.run(&id.into()).await? {
        return Ok(row);
    }
    let rows = journal.store().runs(Wanted { max: LIST_MAX, ..Wanted::default() }).await?;
    let mut like = rows.into_iter().filter(|row| row.run.as_str().starts_with(id));
    match (like.next(), like.next()) {
        (Some(row), None) => Ok(row),
        (Some(_), Some(_)) => bail!("more than one run has an id that begins with `{id}`"),
        (None, _) => bail!("there is no run `{id}`; `fanout runs list` names them"),
    }
}

async fn show(common: &Common, journal: &Journal, found: &Row) -> anyhow::Result<()> {
    let mut timeline = Timeline::default();
    for told in journal.events(&found.run).await? {
        let event = Event { run: found.run.clone(), at: told.at, what: told.what };
        timeline.take(&event);
        if common.json
            && let Some(line) = line(&event)
        {
            give(&line.to_string())?;
        }
    }
    let used = &found.used;
    if common.json {
        if found.state.is_over() {
            let counted = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
            let used = Used {
                turns: counted(used.turns),
                calls: counted(used.calls),
                usage: usage(&timeline),
                cost_usd: Some(used.cost_usd),
            };
            let (run, status, reason) = (found.run.as_str(), found.state.as_str(), found.reason.as_deref());
            give(&run_ended(run, status, reason, timeline.figures(), &used).to_string())?;
        }
        return Ok(());
    }
    let mut text = format!("{}  {}\n", styled(STRONG, &found.run), plain(&found.title));
    let reason = found.reason.as_deref().map(|reason| format!(": {}", plain(reason))).unwrap_or_default();
    text += &format!("{}{reason}\n", found.state.as_str());
    let ended = found.ended_ms.map(|at| format!(", ended {}", moment(at))).unwrap_or_default();
    let began = format!("began {}{ended}, by {}", moment(found.began_ms), plain(&found.caller));
    text += &format!("{}\n\n", styled(QUIET, began));
    // Without calls there is nothing to draw and nothing to compare.
    if timeline.turns().iter().any(|turn| !turn.bars.is_empty()) {
        text += &format!("{}\n\n{}\n\n", waterfall(&timeline), figures(&timeline.figures()));
    }
    text += &details(&timeline);
    if found.state.is_over() {
        let (turns, calls, tokens, cost) = (used.turns, used.calls, used.tokens, used.cost_usd);
        text += &format!("{turns} turns, {calls} calls, {tokens} tokens, ${cost:.4}\n");
    }
    give_styled(&text)?;
    Ok(())
}

/// What all turns took.
fn usage(timeline: &Timeline) -> Usage {
    let usage = |turn: &Turn| Usage {
        input_tokens: turn.tokens.input,
        output_tokens: turn.tokens.output,
        cache_read_input_tokens: turn.tokens.cache_read,
        cache_creation_input_tokens: turn.tokens.cache_write,
    };
    timeline.turns().iter().map(usage).fold(Usage::default(), |all, one| all + one)
}

/// Prints a run in the format that trace viewers open.
async fn export(journal: &Journal, found: &Row) -> anyhow::Result<()> {
    let told = journal.events(&found.run).await?;
    let event = |told: Told| Event { run: found.run.clone(), at: told.at, what: told.what };
    give(&trace(told.into_iter().map(event)).to_string())?;
    Ok(())
}

async fn cancel(common: &Common, journal: &Journal, wanted: &RunsCancel) -> anyhow::Result<()> {
    let run = match &wanted.run {
        Some(id) => Some(find(journal, id).await?),
        None => None,
    };
    if let Some(row) = run.as_ref().filter(|row| row.state.is_over()) {
        say(format!("the run `{}` has ended already, as `{}`", row.run, row.state.as_str()));
    }
    let id = run.map(|row| row.run);
    let stopped = stop(journal, id.clone(), "cancelled at the terminal").await?;
    let target = id.as_ref().map_or("", RunId::as_str);
    note(journal, Action::CancelRun, target, json!({ "runs": stopped })).await?;
    match common.json {
        true => print_line(&json!({ "type": "cancelled", "runs": stopped })),
        false => say(format!("{stopped} runs are stopped")),
    }
    Ok(())
}

async fn prune(common: &Common, journal: &Journal, wanted: &RunsPrune, retention: Duration) -> anyhow::Result<()> {
    let age = match &wanted.older_than {
        None => retention,
        Some(text) => read_duration(text).with_context(|| format!("`{text}` is no time such as 7d, 12h or 30m"))?,
    };
    let before = SystemTime::now().duration_since(UNIX_EPOCH)?.saturating_sub(age);
    let gone = journal.store().prune(u64::try_from(before.as_millis())?).await?;
    note(journal, Action::PruneRuns, "", json!({ "runs": gone })).await?;
    match common.json {
        true => print_line(&json!({ "type": "pruned", "runs": gone })),
        false => say(format!("{gone} runs are forgotten")),
    }
    Ok(())
}

/// Puts what was done into the audit trail.
async fn note(journal: &Journal, action: Action, target: &str, detail: Value) -> anyhow::Result<()> {
    journal.store().keep_deed(deed(at_the_terminal(), action, target, detail)).await?;
    Ok(())
}

/// Goes on with the runs whose process is gone, and waits for them.
async fn resume(common: &Common) -> anyhow::Result<Ended> {
    let mut loaded = Loaded::read(common, Purpose::Run).await?;
    loaded.open_journal().await?;
    let journal = loaded.journal().cloned().context("nothing is kept: `url` of [store] is \"memory:\"")?;
    let model: Arc<dyn Model> = Arc::new(build_model(&loaded.config.model, &loaded.environment)?);
    let (toolbox, config) = (Arc::clone(&loaded.toolbox), Arc::new(loaded.config.clone()));
    let projects = Arc::new(toolboxes(&config, &toolbox)?);
    let equipment = move || Equipment {
        model: Arc::clone(&model),
        toolbox: Arc::clone(&toolbox),
        projects: Arc::clone(&projects),
        config: Arc::clone(&config),
    };
    let worker = Worker::new(WorkerOptions {
        journal: journal.clone(),
        scheduler: loaded.obeying_scheduler().await?,
        equipment: Arc::new(equipment),
        approvals: loaded.approvals(),
        ledger: loaded.ledger(),
        recorder: Arc::new(|_| Arc::new(())),
    });
    let stopping = Arc::clone(&worker);
    let runtime = tokio::runtime::Handle::current();
    on_interrupt(&loaded.programs, move || {
        let worker = Arc::clone(&stopping);
        // They stay as they are, and can be gone on with again.
        runtime.spawn(async move { worker.close(Duration::ZERO).await });
    })?;
    let resumed = worker.recover().await?;
    worker.idle().await;
    let mut ended = Ended::Done;
    for run in &resumed {
        let Some(row) = journal.run(run).await? else { continue };
        if !matches!(row.state, RunState::Done | RunState::Cancelled) {
            ended = Ended::Failed;
        }
        tell(common, &row)?;
    }
    if resumed.is_empty() && !common.json {
        say("no run has to be gone on with");
    }
    ensure!(journal.failing().is_none(), "the journal cannot be written");
    loaded.gone().await;
    loaded.close_journal().await;
    Ok(ended)
}

fn tell(common: &Common, found: &Row) -> anyhow::Result<()> {
    match common.json {
        true => print_line(&row(found)),
        false => give(&listed(found))?,
    }
    Ok(())
}
