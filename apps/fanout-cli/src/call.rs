//! `fanout call`: the calls of one response in, the user message of their results out.

use std::sync::Arc;

use fanout_agent::{Cancel, reply};
use fanout_core::call::Call;
use fanout_core::event::What;
use fanout_core::outcome::{CallError, ErrorCode, Outcome};
use fanout_core::run::RunOptions;
use fanout_host::build::Purpose;
use fanout_host::lines::{Used, run_ended};
use serde_json::json;

use crate::args::Common;
use crate::content::calls_from_stdin;
use crate::exit::Ended;
use crate::loaded::Loaded;
use crate::run::interrupted;
use crate::show::{Watcher, advise, figures, print_line};

/// Runs the calls on standard input.
pub fn call(common: &Common) -> anyhow::Result<Ended> {
    let loaded = Loaded::read(common, Purpose::Run)?;
    let calls = calls_from_stdin()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let watcher = Arc::new(Watcher::new(common.json));
        let cancel = Cancel::default();
        tokio::spawn(interrupted({
            let cancel = cancel.clone();
            move || cancel.cancel("interrupted")
        }));
        let run = fanout_agent::new_run_id();
        let count = u32::try_from(calls.len()).unwrap_or(u32::MAX);
        let outcomes = run_calls(&loaded, calls, run.clone(), &watcher, &cancel).await?;
        let message = reply(&outcomes);
        let ended = if cancel.reason().is_some() { Ended::Interrupted } else { Ended::Done };
        let timeline = watcher.timeline();
        if common.json {
            let message: serde_json::Value = serde_json::from_str(message.raw().as_str())?;
            print_line(&json!({ "type": "reply", "run": run.as_str(), "message": message }));
            let status = if ended == Ended::Done { "done" } else { "cancelled" };
            let used = Used { calls: count, ..Used::default() };
            print_line(&run_ended(run.as_str(), status, cancel.reason().as_deref(), timeline.figures(), &used));
        } else {
            anstream::println!("{}", message.raw().as_str());
            anstream::eprintln!("{}", figures(&timeline.figures()));
            if let Some(advice) = advise(&timeline, &loaded.toolbox) {
                anstream::eprintln!("{advice}");
            }
        }
        Ok(ended)
    })
}

/// One batch, within the configuration's bounds for one response and one run.
async fn run_calls(
    loaded: &Loaded,
    calls: Vec<Call>,
    id: fanout_core::call::RunId,
    watcher: &Arc<Watcher>,
    cancel: &Cancel,
) -> anyhow::Result<Vec<Arc<Outcome>>> {
    let mut options = RunOptions::new(id);
    options.recorder = Some(Arc::clone(watcher) as _);
    let mut run = loaded.scheduler().run(Arc::clone(&loaded.toolbox), options);
    run.record(|| What::RunStarted);
    let max = loaded.config.run.max_batch.min(loaded.config.run.max_calls);
    let mut batch = run.batch();
    for (at, call) in (0..).zip(calls) {
        if at < max {
            batch.call(call)?;
        } else {
            let message = format!("not run: only the first {max} calls of one response run (`max_batch`, `max_calls`)");
            batch.refuse(&call, CallError::new(ErrorCode::Budget, message))?;
        }
    }
    batch.commit();
    let deadline = tokio::time::sleep(loaded.config.run.deadline);
    tokio::pin!(deadline);
    let mut stopped = false;
    while batch.unanswered() > 0 {
        tokio::select! {
            biased;
            () = batch.progress() => {}
            reason = cancel.cancelled(), if !stopped => {
                batch.cancel(&reason);
                stopped = true;
            }
            () = &mut deadline, if !stopped => {
                batch.cancel("the run's deadline passed");
                stopped = true;
            }
        }
    }
    Ok(batch.finish().await)
}
