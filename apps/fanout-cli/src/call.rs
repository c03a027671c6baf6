//! `fanout call`: the calls of one response in, the user message of their results out.

use std::sync::Arc;

use fanout_agent::{Cancel, reply};
use fanout_anthropic::Message;
use fanout_core::call::RunId;
use fanout_core::event::{Recorder, RunKind, What};
use fanout_core::outcome::{CallError, ErrorCode, Outcome};
use fanout_core::run::RunOptions;
use fanout_host::build::Purpose;
use fanout_host::lines::{Used, run_ended};
use fanout_host::options::limits;
use fanout_host::runs::batch_given;
use serde_json::json;

use crate::args::Common;
use crate::content::{Asked, from_stdin};
use crate::exit::Ended;
use crate::interrupt::on_interrupt;
use crate::loaded::Loaded;
use crate::person::waiting;
use crate::show::{Watcher, advise, figures, give, print_line, say};

/// Why a batch was stopped before its calls had ended.
pub struct Stopped {
    pub status: &'static str,
    pub reason: String,
}

/// Runs the calls on standard input.
pub fn call(common: &Common) -> anyhow::Result<Ended> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut loaded = Loaded::read(common, Purpose::Run).await?;
        loaded.open_journal().await?;
        let asked = from_stdin()?;
        let watcher = Arc::new(Watcher::new(common.json));
        let cancel = Cancel::default();
        on_interrupt(&loaded.programs, {
            let cancel = cancel.clone();
            move || cancel.cancel("interrupted")
        })?;
        let run = fanout_agent::new_run_id();
        let told = Arc::clone(&watcher) as Arc<dyn Recorder>;
        let ran = run_calls(&loaded, asked, (run.clone(), RunKind::Batch), told, &cancel).await;
        // The reply is given once what it says is kept.
        loaded.close_journal().await;
        let (outcomes, calls, stopped) = ran?;
        let used = Used { calls: u32::try_from(calls).unwrap_or(u32::MAX), ..Used::default() };
        tell(common, &loaded, run.as_str(), &reply(&outcomes), stopped.as_ref(), &watcher, &used)?;
        loaded.gone().await;
        Ok(if cancel.reason().is_some() { Ended::Interrupted } else { Ended::Done })
    })
}

/// Writes the reply, and what the batch took.
fn tell(
    common: &Common,
    loaded: &Loaded,
    run: &str,
    message: &Message,
    stopped: Option<&Stopped>,
    watcher: &Watcher,
    used: &Used,
) -> anyhow::Result<()> {
    let timeline = watcher.timeline();
    if common.json {
        let message: serde_json::Value = serde_json::from_str(message.raw().as_str())?;
        print_line(&json!({ "type": "reply", "run": run, "message": message }));
        let (status, reason) =
            stopped.map_or(("done", None), |stopped| (stopped.status, Some(stopped.reason.as_str())));
        give(&run_ended(run, status, reason, timeline.figures(), used).to_string())?;
    } else {
        give(message.raw().as_str())?;
        say(figures(&timeline.figures()));
        if let Some(advice) = advise(&timeline, &loaded.toolbox) {
            say(advice);
        }
    }
    Ok(())
}

/// One batch, kept as a run of this id and kind, within the configuration's bounds for one response and one run. Answers the outcomes, and how many calls were
/// asked for, those of plans included.
pub async fn run_calls(
    loaded: &Loaded,
    asked: Asked,
    (id, kind): (RunId, RunKind),
    told: Arc<dyn Recorder>,
    cancel: &Cancel,
) -> anyhow::Result<(Vec<Arc<Outcome>>, usize, Option<Stopped>)> {
    let mut options = RunOptions::new(id);
    let title = asked.calls.first().map_or("", |call| call.tool.as_str());
    options.recorder = Some(loaded.recorder(&options.run, kind, title, told));
    options.approver = Some(waiting(loaded));
    let given = batch_given(&asked.calls);
    let mut run = loaded.obeying_scheduler().await?.run(Arc::clone(&loaded.toolbox), options);
    run.record(|| What::RunStarted { kind: RunKind::Batch, given });
    let mut batch = run.batch();
    batch.set_bounds(limits(&loaded.config.run).bounds(0, 0));
    for call in asked.calls {
        match &asked.cut_off {
            None => batch.call(call)?,
            Some(reason) => {
                let message =
                    format!("not run: {reason}. If it is still needed, call it again, with less in one response");
                batch.refuse(&call, CallError::new(ErrorCode::Cancelled, message))?;
            }
        }
    }
    batch.commit();
    let deadline = tokio::time::sleep(loaded.config.run.deadline);
    tokio::pin!(deadline);
    let mut stopped = None;
    while batch.unanswered() > 0 {
        tokio::select! {
            biased;
            () = batch.progress() => {}
            reason = cancel.cancelled(), if stopped.is_none() => {
                batch.cancel(&reason);
                stopped = Some(Stopped { status: "cancelled", reason });
            }
            () = &mut deadline, if stopped.is_none() => {
                let reason = format!("the run has used its {:?} (`deadline`)", loaded.config.run.deadline);
                batch.cancel(&reason);
                stopped = Some(Stopped { status: "budget", reason });
            }
        }
    }
    let calls = batch.asked();
    let outcomes = batch.finish().await;
    let (status, reason) =
        stopped.as_ref().map_or(("done", None), |stopped| (stopped.status, Some(stopped.reason.clone())));
    run.record(|| What::RunEnded { status, reason });
    Ok((outcomes, calls, stopped))
}
