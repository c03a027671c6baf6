//! Works on runs for as long as its process serves.
//!
//! From the journal: at the start, and three times in a lease, the runs whose process is gone; queued runs, as long as there is
//! room; and the wish of others that a run be stopped. To the agent.
//!
//! A run is in one pair of hands: the store gives it out once, under a fence, and takes nothing from whoever had it before.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fanout_agent::{Agent, Budget, Cancel, Daily, Ledger, RunSettings, new_run_id};
use fanout_anthropic::Model;
use fanout_core::call::{CallerId, RunId};
use fanout_core::event::{Event, Recorder, RunKind, What};
use fanout_core::run::{Drain, Scheduler};
use fanout_core::toolbox::Toolbox;
use fanout_journal::record::write;
use fanout_journal::store::{Entry, Row, RunState, StoreError, Wanted};
use fanout_journal::{Journal, RunRecorder};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::given::NewAgentRun;
use super::recover::{Broken, Recovery};
use super::watched::Watched;
use crate::approvals::Approvals;
use crate::config::Config;
use crate::controls::paused_by;
use crate::journal::new_run;
use crate::options::{agent_options, daily_caps};

/// How often the journal is asked what others want of our runs, and whether any wait.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// So many runs of processes that are gone are taken over in one step.
const ADOPTED_MAX: usize = 1_000;

/// What a run works with. One that has begun ends with what it began with.
#[derive(Clone)]
pub struct Equipment {
    /// Whom to ask.
    pub model: Arc<dyn Model>,
    /// The tools.
    pub toolbox: Arc<Toolbox>,
    /// Those of the projects that may not use all of them.
    pub projects: Arc<BTreeMap<String, Arc<Toolbox>>>,
    /// Budgets, prices, `[worker]`.
    pub config: Arc<Config>,
}

impl Equipment {
    /// The tools of a run of this project.
    fn toolbox_of(&self, project: Option<&str>) -> &Arc<Toolbox> {
        project.and_then(|project| self.projects.get(project)).unwrap_or(&self.toolbox)
    }
}

/// Makes the recorder of a run, beside the journal's.
pub type RecorderOf = Arc<dyn Fn(&Row) -> Arc<dyn Recorder> + Send + Sync>;

/// What a worker is made of.
#[derive(Clone)]
pub struct WorkerOptions {
    /// Where runs are kept.
    pub journal: Journal,
    /// What all runs of the process share.
    pub scheduler: Scheduler,
    /// What the next run works with.
    pub equipment: Arc<dyn Fn() -> Equipment + Send + Sync>,
    /// Where calls that need a person's approval wait for it.
    pub approvals: Approvals,
    /// What teams and their keys spend in a day.
    pub ledger: Arc<dyn Ledger>,
    /// Who is told what happens in a run, beside the journal.
    pub recorder: RecorderOf,
}

/// Why a run was not queued.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// It is not right.
    #[error("{0}")]
    Invalid(String),
    /// The journal does not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Works on runs. One for each process that serves.
pub struct Worker {
    options: WorkerOptions,
    running: Mutex<HashMap<RunId, Running>>,
    count: watch::Sender<usize>,
    more: Notify,
    /// A run is parked, or left with nothing under way.
    stirred: Arc<Notify>,
    closing: Cancel,
    drain: Drain,
}

struct Running {
    cancel: Cancel,
    watched: Arc<Watched>,
    recorder: Arc<RunRecorder>,
    abort: Option<tokio::task::AbortHandle>,
}

impl Worker {
    /// A worker that does nothing yet.
    pub fn new(options: WorkerOptions) -> Arc<Self> {
        Arc::new(Self {
            options,
            running: Mutex::default(),
            count: watch::Sender::new(0),
            more: Notify::new(),
            stirred: Arc::default(),
            closing: Cancel::default(),
            drain: Drain::default(),
        })
    }

    /// Takes over the runs whose processes are gone, and goes on with them. Before anything new is admitted by this process,
    /// what was under way has its places in the locks: so it is awaited before the process serves. Answers which.
    ///
    /// # Errors
    /// [`StoreError`] when the journal cannot be read.
    pub async fn recover(self: &Arc<Self>) -> Result<Vec<RunId>, StoreError> {
        let journal = &self.options.journal;
        let mut rows = Vec::new();
        loop {
            let adopted = journal.store().adopt(ADOPTED_MAX).await?;
            let is_last = adopted.len() < ADOPTED_MAX;
            rows.extend(adopted);
            if is_last {
                break;
            }
        }
        let runs = rows.iter().map(|row| row.run.clone()).collect();
        let equipment = (self.options.equipment)();
        let broken = Broken::read(journal, rows, &self.options.scheduler, &equipment.toolbox).await?;
        for broken in broken {
            self.go_on(broken, equipment.clone());
        }
        Ok(runs)
    }

    /// Waits until no run goes on here.
    pub async fn idle(&self) {
        let mut count = self.count.subscribe();
        // The sender lives as long as this.
        let _ = count.wait_for(|count| *count == 0).await;
    }

    /// Queues a run, or proposes it. It is kept when this answers.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn submit(
        &self,
        new: NewAgentRun,
        caller: &CallerId,
        project: Option<&str>,
    ) -> Result<(RunId, RunState), SubmitError> {
        let config = (self.options.equipment)().config;
        let state = if new.propose { RunState::Proposed } else { RunState::Queued };
        let (given, title) = new.given(&config.model.name, config.model.max_tokens).map_err(SubmitError::Invalid)?;
        let run = new_run_id();
        let given = serde_json::to_string(&given).map_err(|error| SubmitError::Invalid(error.to_string()))?;
        let started = What::RunStarted { kind: RunKind::Agent, given: given.into() };
        let text = write(&started).unwrap_or_default();
        let entries = vec![
            Entry::Begin(new_run(&run, RunKind::Agent, state, caller, project, &title)),
            Entry::Event { run: run.clone(), fence: 0, at_us: 0, text },
        ];
        self.options.journal.store().append(entries).await?;
        self.more.notify_one();
        Ok((run, state))
    }

    /// Stops a run, or all of them: those that wait end at once, those that are under way are told by their process. Answers
    /// how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn stop(&self, run: Option<RunId>, reason: &str) -> Result<usize, StoreError> {
        let stopped = stop(&self.options.journal, run, reason).await?;
        self.more.notify_one();
        Ok(stopped)
    }

    /// How many runs are under way here, and how many of them wait for people only.
    pub fn here(&self) -> (usize, usize) {
        let running = self.running();
        (running.len(), running.values().filter(|running| running.watched.is_parked()).count())
    }

    /// Looks for queued runs at once.
    pub fn look(&self) {
        self.more.notify_one();
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.options.journal
    }

    /// Works until it is closed.
    pub async fn work(self: Arc<Self>) {
        let lease = (self.options.equipment)().config.worker.lease;
        let mut adopted_at = Instant::now();
        loop {
            tokio::select! {
                _ = self.closing.cancelled() => return,
                () = self.more.notified() => {}
                () = self.stirred.notified() => {}
                () = sleep(LOOK_EVERY) => {}
            }
            if let Err(error) = self.look_once(&mut adopted_at, lease).await {
                tracing::warn!(%error, "the journal cannot be read");
            }
        }
    }

    async fn look_once(self: &Arc<Self>, adopted_at: &mut Instant, lease: Duration) -> Result<(), StoreError> {
        let store = self.options.journal.store();
        for (run, reason) in store.beat().await? {
            if let Some(running) = self.running().get(&run) {
                running.cancel.cancel(&reason);
            }
        }
        if adopted_at.elapsed() >= lease / 3 {
            *adopted_at = Instant::now();
            self.recover().await?;
        }
        let equipment = (self.options.equipment)();
        // Who only waits for people holds no place; when they have decided it goes on at once.
        let busy = self.running().values().filter(|running| !running.watched.is_parked()).count();
        let room = equipment.config.worker.concurrency.saturating_sub(busy);
        if room == 0 || paused_by(&store.standing().await?).is_some() {
            return Ok(());
        }
        let rows = store.take_queued(room).await?;
        let journal = &self.options.journal;
        for broken in Broken::read(journal, rows, &self.options.scheduler, &equipment.toolbox).await? {
            self.go_on(broken, equipment.clone());
        }
        Ok(())
    }

    /// From now on no run, no call and no request to the model begins here.
    pub fn drain(&self) {
        self.closing.cancel("the process is stopping");
        self.options.approvals.park();
        self.drain.begin();
    }

    /// Drains, and gives what is under way so long at most. Each run breaks off once nothing of it is, and whoever comes next goes
    /// on with it.
    pub async fn close(&self, grace: Duration) {
        self.drain();
        let draining = async {
            loop {
                // Listened before it is looked: what happens in between is seen.
                let stirred = self.stirred.notified();
                self.break_off(Watched::is_idle);
                if self.running().is_empty() {
                    return;
                }
                stirred.await;
            }
        };
        let _ = tokio::time::timeout(grace, draining).await;
        self.break_off(|_| true);
    }

    /// Leaves those runs where they are.
    fn break_off(&self, which: impl Fn(&Watched) -> bool) {
        for (_, running) in self.running().extract_if(|_, running| which(&running.watched)) {
            running.recorder.break_off();
            if let Some(abort) = running.abort {
                abort.abort();
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<RunId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with a run in a task of its own.
    fn go_on(self: &Arc<Self>, broken: Broken, equipment: Equipment) {
        let recorder = Arc::new(broken.recorder(&self.options.journal));
        let (run, cancel) = (broken.row.run.clone(), Cancel::default());
        let watched = Arc::new(Watched::new(Arc::clone(&self.stirred)));
        let running = Running {
            cancel: cancel.clone(),
            watched: Arc::clone(&watched),
            recorder: Arc::clone(&recorder),
            abort: None,
        };
        self.running().insert(run.clone(), running);
        self.count.send_modify(|count| *count += 1);
        let over = Over { worker: Arc::clone(self), run: run.clone() };
        let worker = Arc::clone(self);
        let task = tokio::spawn(async move {
            let _over = over;
            worker.run(broken, equipment, recorder, cancel, watched).await;
        });
        if let Some(running) = self.running().get_mut(&run) {
            running.abort = Some(task.abort_handle());
        }
    }

    async fn run(
        &self,
        broken: Broken,
        equipment: Equipment,
        kept: Arc<RunRecorder>,
        cancel: Cancel,
        watched: Arc<Watched>,
    ) {
        let listener = (self.options.recorder)(&broken.row);
        let recorder: Arc<dyn Recorder> = Arc::new((Arc::clone(&kept), (listener, Arc::clone(&watched))));
        let longest = equipment.config.worker.watchdog;
        let work = async {
            match &broken.recovery {
                Recovery::Agent(_) => self.run_agent(broken, &equipment, recorder, cancel.clone()).await,
                Recovery::Batch(_) => {
                    let toolbox = Arc::clone(equipment.toolbox_of(broken.row.project.as_deref()));
                    let approver = self.options.approvals.approver(broken.row.project.clone(), None);
                    let drain = self.drain.clone();
                    broken.finish_batch(&self.options.scheduler, toolbox, recorder, approver, drain).await;
                }
                Recovery::Abandoned(_) | Recovery::Unreadable(_) => {
                    if let Err(error) = self.options.approvals.let_go(&broken.row.run).await {
                        tracing::warn!(run = broken.row.run.as_str(), %error, "its approvals are still its own");
                    }
                    broken.end(&*recorder, &equipment.toolbox);
                }
            }
        };
        tokio::pin!(work);
        loop {
            let quiet_at = if watched.is_parked() { Instant::now() + longest } else { watched.at() + longest };
            tokio::select! {
                () = &mut work => break,
                () = sleep_until(quiet_at), if cancel.reason().is_none() => {
                    if watched.at().elapsed() >= longest && !watched.is_parked() {
                        cancel.cancel(&format!("nothing happened in it for {longest:?} (`watchdog` of [worker])"));
                    }
                }
            }
        }
        if let Some(kept) = kept.kept() {
            // What is wrong with the journal is said where it is written.
            let _ = kept.await;
        }
    }

    /// The caps of a day that a run is under.
    fn daily(&self, row: &Row, equipment: &Equipment) -> Option<Daily> {
        let caps = daily_caps(&equipment.config, row.project.as_deref()?, &row.caller);
        let ledger = Arc::clone(&self.options.ledger);
        (!caps.is_empty()).then(|| Daily { ledger, caps: caps.into() })
    }

    async fn run_agent(&self, broken: Broken, equipment: &Equipment, recorder: Arc<dyn Recorder>, cancel: Cancel) {
        let Broken { row, recovery: Recovery::Agent(resumed), .. } = broken else { return };
        let mut options = agent_options(&equipment.config, &resumed.given.model);
        options.max_tokens = resumed.given.max_tokens;
        options.system.clone_from(&resumed.given.system);
        let limits = &options.limits;
        let budget = Budget::new(limits.tokens_max, limits.cost_max_usd);
        let budget = budget.with_spent(resumed.usage.total(), resumed.cost_usd);
        let settings = RunSettings {
            run: Some(row.run.clone()),
            caller: Some(row.caller.as_str().into()),
            recorder: Some(Arc::clone(&recorder)),
            cancel,
            budget: Some(budget),
            daily: self.daily(&row, equipment),
            approver: Some(self.options.approvals.approver(row.project.clone(), None)),
            parks: true,
            drain: self.drain.clone(),
            ..RunSettings::default()
        };
        let (model, scheduler) = (Arc::clone(&equipment.model), self.options.scheduler.clone());
        let toolbox = Arc::clone(equipment.toolbox_of(row.project.as_deref()));
        match Agent::new(model, scheduler, toolbox, options) {
            Ok(agent) => {
                agent.resume(*resumed, settings).await;
            }
            Err(error) => {
                let what = What::RunEnded { status: "failed", reason: Some(error.to_string()) };
                recorder.record(&Event { run: row.run, at: resumed.elapsed, what });
            }
        }
    }
}

/// Stops a run, or all of them, whichever process has them. Answers how many.
///
/// # Errors
/// [`StoreError`].
pub async fn stop(journal: &Journal, run: Option<RunId>, reason: &str) -> Result<usize, StoreError> {
    let store = journal.store();
    let mut stopped = 0;
    for state in [RunState::Proposed, RunState::Queued] {
        let waiting = match &run {
            Some(run) => vec![run.clone()],
            None => {
                let wanted = Wanted { state: Some(state), max: ADOPTED_MAX, ..Wanted::default() };
                store.runs(wanted).await?.into_iter().map(|row| row.run).collect()
            }
        };
        for run in waiting {
            let reason = Some(reason.to_owned());
            stopped += usize::from(store.change(run, state, RunState::Cancelled, reason).await?);
        }
    }
    Ok(stopped + store.ask_to_stop(run, reason.to_owned()).await?)
}

/// Stops the one run of a process when somebody else wants it stopped. Never ends by itself.
pub async fn stopped_by_others(journal: Journal, cancel: Cancel) {
    loop {
        sleep(LOOK_EVERY).await;
        // A journal that cannot be read is said by who writes it.
        for (_, reason) in journal.store().beat().await.unwrap_or_default() {
            cancel.cancel(&reason);
        }
    }
}

/// A run of this worker is over, however it ended.
struct Over {
    worker: Arc<Worker>,
    run: RunId,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.worker.running().remove(&self.run);
        self.worker.count.send_modify(|count| *count -= 1);
        self.worker.more.notify_one();
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}
