//! How runs go on whose process is gone.
//!
//! From the journal: their rows, adopted, and their events. To the scheduler's locks first, for what was under way, in the order in
//! which it had begun; then to the agent, or to a batch. A run that nobody waits for any more ends here, its calls answered.

use std::sync::Arc;
use std::time::Duration;

use fanout_agent::{ResumeError, Resumed};
use fanout_core::approval::Approver;
use fanout_core::call::{CallerId, RunId, ToolName};
use fanout_core::effects::Paths;
use fanout_core::event::{Event, Recorder, RunKind, What};
use fanout_core::run::{Drain, Past, Run, RunOptions, Scheduler};
use fanout_core::toolbox::Toolbox;
use fanout_journal::store::{Row, StoreError};
use fanout_journal::{Journal, RunRecorder, Told};
use tokio::time::sleep;

use super::given::calls_given;

/// Why a run ended whose process is gone and that nobody waited for.
const ABANDONED: &str = "the process ended, and nobody waits for it";

/// So often it is looked whether a run of another process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A run that had ended and goes on, because who asked for it is there again.
#[derive(Debug)]
pub struct Reopened {
    /// As the journal lists it, under the fence of this process.
    pub row: Row,
    /// What happened in it.
    pub told: Vec<Told>,
}

impl Reopened {
    /// Goes on with a run of this caller, once nobody else works on it; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    ///
    /// # Cancellation
    /// Dropping the future may leave the run open for this process until it ends.
    pub async fn take(journal: &Journal, run: &RunId, caller: &CallerId) -> Result<Option<Self>, StoreError> {
        loop {
            ended(journal, run).await?;
            if let Some(row) = journal.store().reopen(run.clone(), caller.to_string()).await? {
                let told = without_ends(journal.events(run).await?);
                return Ok(Some(Self { row, told }));
            }
            // Somebody else was first, or it is not this caller's.
            if journal.run(run).await?.is_none_or(|row| row.caller != caller.as_str()) {
                return Ok(None);
            }
        }
    }

    /// The recorder that goes on with it.
    pub fn recorder(&self, journal: &Journal) -> RunRecorder {
        journal.resume(&self.row, &self.told)
    }

    /// Its events, as [`Resumed`] reads them.
    pub fn events(&self) -> impl Iterator<Item = (u64, Duration, &What)> {
        self.told.iter().map(|told| (told.number, told.at, &told.what))
    }
}

/// How long a run had gone on by the last of its events.
pub fn elapsed(told: &[Told]) -> Duration {
    told.iter().map(|told| told.at).max().unwrap_or_default()
}

async fn ended(journal: &Journal, run: &RunId) -> Result<(), StoreError> {
    while journal.run(run).await?.is_some_and(|row| !row.state.is_over()) {
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// What happened in a run that was abandoned, up to where it broke off: its end, and what its calls were answered then, count for
/// nothing if somebody came back for it. `own` is the run of who asks: of any other the end is waited for.
///
/// # Errors
/// [`StoreError`].
pub async fn unfinished(journal: &Journal, run: &RunId, own: &RunId) -> Result<Vec<Told>, StoreError> {
    if run != own {
        ended(journal, run).await?;
    }
    Ok(without_ends(journal.events(run).await?))
}

fn without_ends(told: Vec<Told>) -> Vec<Told> {
    let mut kept: Vec<Told> = Vec::with_capacity(told.len());
    for told in told {
        match &told.what {
            What::RunEnded { reason: Some(reason), .. } if reason == ABANDONED => {
                let resumed = kept.iter().rposition(|told| matches!(told.what, What::RunResumed));
                kept.truncate(resumed.unwrap_or(kept.len()));
            }
            _ => kept.push(told),
        }
    }
    kept
}

/// A run whose process is gone.
#[derive(Debug)]
pub struct Broken {
    /// As the journal lists it, under the fence of this process.
    pub row: Row,
    /// What happened in it.
    pub told: Vec<Told>,
    /// How it goes on.
    pub recovery: Recovery,
}

/// How a run goes on.
#[derive(Debug)]
pub enum Recovery {
    /// The agent asks and answers on.
    Agent(Box<Resumed>),
    /// Its calls are run to their end: some have begun that must not happen twice, and who handed them over may ask.
    Batch(Past),
    /// Nobody waits for it.
    Abandoned(Past),
    /// What is kept of it cannot be gone on with.
    Unreadable(String),
}

impl Broken {
    /// Reads these runs, and gives what was under way in them its places in the locks, in the order in which it had begun:
    /// before anything new is admitted, so it must not be called later than that.
    ///
    /// # Errors
    /// [`StoreError`] when the journal cannot be read at all.
    pub async fn read(
        journal: &Journal,
        rows: Vec<Row>,
        scheduler: &Scheduler,
        toolbox: &Toolbox,
    ) -> Result<Vec<Self>, StoreError> {
        let mut broken = Vec::with_capacity(rows.len());
        for row in rows {
            let (told, recovery) = match journal.events(&row.run).await {
                Ok(told) => {
                    let recovery = recovery(row.kind, &told, toolbox);
                    (told, recovery)
                }
                Err(error @ StoreError::Event { .. }) => (Vec::new(), Recovery::Unreadable(error.to_string())),
                Err(error) => return Err(error),
            };
            broken.push(Self { row, told, recovery });
        }
        reenter(&mut broken, scheduler, toolbox);
        Ok(broken)
    }

    /// The recorder that goes on with it.
    pub fn recorder(&self, journal: &Journal) -> RunRecorder {
        journal.resume(&self.row, &self.told)
    }

    /// Ends a run that cannot go on, or that nobody waits for: each of its calls is answered for the journal.
    pub fn end(self, recorder: &dyn Recorder, toolbox: &Toolbox) {
        let at = elapsed(&self.told);
        let tell = |what| recorder.record(&Event { run: self.row.run.clone(), at, what });
        let (status, reason) = match &self.recovery {
            Recovery::Unreadable(reason) => ("failed", reason.clone()),
            Recovery::Agent(_) | Recovery::Batch(_) | Recovery::Abandoned(_) => ("cancelled", ABANDONED.to_owned()),
        };
        if let Recovery::Abandoned(past) = &self.recovery {
            tell(What::RunResumed);
            for outcome in
                past.abandoned("the process ended before there was an answer", |tool| may_repeat(toolbox, tool))
            {
                tell(What::CallEnded { outcome });
            }
        }
        tell(What::RunEnded { status, reason: Some(reason) });
    }

    /// Runs the calls of a batch to their end.
    pub async fn finish_batch(
        self,
        scheduler: &Scheduler,
        toolbox: Arc<Toolbox>,
        recorder: Arc<dyn Recorder>,
        approver: Arc<dyn Approver>,
        drain: Drain,
    ) {
        let given = self.told.iter().find_map(|told| match &told.what {
            What::RunStarted { given, .. } => calls_given(given),
            _ => None,
        });
        let (Recovery::Batch(past), Some(calls)) = (self.recovery, given) else { return };
        let mut options = RunOptions::new(self.row.run.clone());
        options.caller = self.row.caller.as_str().into();
        options.elapsed = elapsed(&self.told);
        options.recorder = Some(recorder);
        options.approver = Some(approver);
        options.drain = drain;
        let mut run: Run = scheduler.run(toolbox, options);
        run.record(|| What::RunResumed);
        let mut batch = run.batch();
        batch.remember(past);
        for call in calls {
            // Two of one id were refused when they came.
            let _ = batch.call(call);
        }
        batch.finish().await;
        run.record(|| What::RunEnded { status: "done", reason: None });
    }
}

fn may_repeat(toolbox: &Toolbox, tool: &ToolName) -> bool {
    toolbox.get(tool).is_some_and(|tool| tool.repeatable())
}

fn recovery(kind: RunKind, told: &[Told], toolbox: &Toolbox) -> Recovery {
    match kind {
        RunKind::Agent => {
            let events = told.iter().map(|told| (told.number, told.at, &told.what));
            match Resumed::read(events) {
                Ok(resumed) => Recovery::Agent(Box::new(resumed)),
                Err(error @ (ResumeError::NotBegun | ResumeError::Given(_) | ResumeError::Message(_))) => {
                    Recovery::Unreadable(error.to_string())
                }
                Err(error @ ResumeError::Ended(_)) => Recovery::Unreadable(error.to_string()),
            }
        }
        RunKind::Batch | RunKind::Message | RunKind::Session | RunKind::Replay => {
            let mut past = Past::default();
            for told in told {
                past.take(&told.what, told.number);
            }
            let is_touched = past.begun().any(|tool| !may_repeat(toolbox, tool));
            let is_known = told.iter().any(|told| match &told.what {
                What::RunStarted { given, .. } => calls_given(given).is_some(),
                _ => false,
            });
            if kind == RunKind::Batch && is_touched && is_known {
                Recovery::Batch(past)
            } else {
                Recovery::Abandoned(past)
            }
        }
    }
}

/// Enters the locks for what was under way in all of these runs and runs again, in the order in which it had begun.
fn reenter(broken: &mut [Broken], scheduler: &Scheduler, toolbox: &Toolbox) {
    let mut underway = Vec::new();
    for (at, broken) in broken.iter_mut().enumerate() {
        let past = match &mut broken.recovery {
            Recovery::Agent(resumed) => resumed.past(),
            Recovery::Batch(past) => Some(past),
            Recovery::Abandoned(_) | Recovery::Unreadable(_) => None,
        };
        underway.extend(past.into_iter().flat_map(|past| past.underway().collect::<Vec<_>>()).map(|call| (at, call)));
    }
    underway.sort_by_key(|(_, call)| call.started);
    for (at, call) in underway {
        let Some(tool) = toolbox.get(&call.tool).filter(|tool| tool.resumable(scheduler.once())) else { continue };
        let Some(place) = scheduler.reenter(&tool.effects_of(&call.input, &Paths::default())) else { continue };
        match &mut broken[at].recovery {
            Recovery::Agent(resumed) => {
                if let Some(past) = resumed.past() {
                    past.reenter(&call.call, place);
                }
            }
            Recovery::Batch(past) => past.reenter(&call.call, place),
            Recovery::Abandoned(_) | Recovery::Unreadable(_) => {}
        }
    }
}
