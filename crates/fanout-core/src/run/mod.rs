//! Runs the calls of a batch: the only room that spawns, sleeps or awaits a tool.
//!
//! From the agent loop, or any program with calls: a [`Batch`] that takes calls as they arrive.
//! To it: one [`Outcome`](crate::outcome::Outcome) per call, in program order, whatever happens.
//!
//! It strings the others together and decides nothing: [`schedule`](crate::schedule) says what is next,
//! [`locks`](crate::locks) and [`limits`](crate::limits) answer for all runs of the process.

mod alarm;
mod arrival;
mod asking;
mod attempt;
mod batch;
mod drive;
mod gate;
mod item;
mod past;
mod plan;
mod shared;
mod teller;

pub use batch::{Arrived, AtMost, Batch, BatchError, Bounds};
pub use gate::{Gate, Pass};
pub use past::{Past, Reentered, Underway};
pub use teller::Teller;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use rustc_hash::FxHashMap;

use crate::approval::Approver;
use crate::call::{CallerId, GroupName, RunId, ToolName};
use crate::effects::{Effects, Paths};
use crate::event::{Recorder, What};
use crate::limits::{GroupState, LimitOptions};
use crate::once::Once;
use crate::schedule::Limit;
use crate::secrets::Secrets;
use crate::tool::CallerToken;
use crate::toolbox::{Registered, Toolbox};
use attempt::Stray;
use shared::Shared;

/// What all runs of a process share: locks, and permits. Cloning it copies a pointer.
#[derive(Clone)]
pub struct Scheduler {
    shared: Arc<Shared>,
    gate: Gate,
    once: Option<Arc<Once>>,
}

/// Bounds of a scheduler. The defaults are the configuration's.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerOptions {
    /// The most attempts that run at once in this process.
    pub in_flight_max: usize,
    /// The longest that work which outlives its call keeps its locks.
    pub stray_hold: Duration,
    /// The limit groups, by name. A source whose name none of them has gets one of its own, if it is an external API: see
    /// [`LimitOptions::unasked`]. A group that a tool names and nobody set up is like that of the tool's source.
    pub limits: BTreeMap<GroupName, LimitOptions>,
    /// Where tools of the journal's own database keep what their calls came to; such a call is carried out once.
    pub once: Option<Arc<Once>>,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self { in_flight_max: 1024, stray_hold: Duration::from_secs(5), limits: BTreeMap::new(), once: None }
    }
}

impl Scheduler {
    /// A scheduler without any runs. It starts no task and no runtime.
    pub fn new(options: SchedulerOptions) -> Self {
        let once = options.once.clone();
        Self { shared: Arc::new(Shared::new(options)), gate: Gate::new(), once }
    }

    /// Begins a run. Its clock starts now.
    pub fn run(&self, toolbox: Arc<Toolbox>, mut options: RunOptions) -> Run {
        if options.once.is_none() {
            options.once.clone_from(&self.once);
        }
        let mut secrets = Arc::clone(toolbox.secrets());
        if let Some(token) = &options.caller_token {
            Arc::make_mut(&mut secrets).add("caller.token", token.expose());
        }
        Run {
            teller: Teller::new(&options),
            shared: Arc::clone(&self.shared),
            secrets,
            toolbox,
            options,
            epoch: Instant::now(),
            strays: Vec::new(),
            unlimited: Arc::new(Limit::none()),
            limits: FxHashMap::default(),
        }
    }

    /// Takes a place in the locks for a call that was under way when its process ended, before its run goes on. Who comes
    /// after a restart takes these places in the order in which the attempts had begun, and admits nothing new before.
    /// `None`: a call with these effects needs none.
    pub fn reenter(&self, effects: &Effects) -> Option<Reentered> {
        effects.exclude_between_runs().then(|| Reentered(self.shared.reenter(effects)))
    }

    /// Where calls of the journal's own database keep what they came to.
    pub fn once(&self) -> Option<&Once> {
        self.once.as_deref()
    }

    /// Where requests to models wait for their turn.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Sets the limit groups up otherwise from here on, in one step: those named here as they say, those that were set up
    /// before and are not named any more as if nobody ever had. What is known of the far sides stays (pauses, breakers, what
    /// started lately, what they bear), and so do those who wait; a wait that has begun keeps its `wait_max`.
    pub fn set_limits(&self, limits: BTreeMap<GroupName, LimitOptions>) {
        self.shared.set_limits(limits);
    }

    /// Takes these tools out of use in all runs from here on, each with what calls of it are told, and puts those back that are
    /// not named any more. A call of one is `not_permitted`: at once, or when its next attempt would begin; attempts under way
    /// go on.
    pub fn disable(&self, tools: impl IntoIterator<Item = (ToolName, Arc<str>)>) {
        self.shared.disable(tools.into_iter().collect());
    }

    /// Keeps everything from the API of this group for so long (`Duration::MAX`: until told otherwise): calls that wait for it or
    /// come end as `circuit_open`, attempts under way go on. `None` lets them through again, and its breaker counts from nothing.
    pub fn hold(&self, group: &GroupName, wait: Option<Duration>) {
        self.shared.hold(group, wait);
    }

    /// How every limit group stands: those of tools, then those of models, each in the order in which they came up.
    pub fn limits(&self) -> Vec<GroupState> {
        let mut states = self.shared.states();
        states.extend(self.gate.states());
        states
    }
}

impl Default for Scheduler {
    fn default() -> Self {
        Self::new(SchedulerOptions::default())
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").field("shared", &self.shared).finish_non_exhaustive()
    }
}

/// Whether runs still begin attempts. Cloning it copies a pointer.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<AtomicBool>);

impl Drain {
    /// From now on no attempt begins in the runs that have it: those under way come to their end, and whatever waits goes on
    /// waiting, with nobody told. For a process that stops, and whose runs another one goes on with.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How one run is treated.
#[derive(Clone)]
pub struct RunOptions {
    /// Its id; idempotency keys are made from it.
    pub run: RunId,
    /// Who began it.
    pub caller: CallerId,
    /// The end user's token, for tools that act in the user's name. It is given to attempts and hidden in what they come to.
    pub caller_token: Option<CallerToken>,
    /// Whether calls that only read and are repeatable may enter while the response still streams.
    pub early_start: bool,
    /// Whether tools that ask for it (`stop_on_failure`) stop at the first failure of their source. Off where calls that
    /// have nothing to do with each other share a batch.
    pub stop_on_failure: bool,
    /// The tools that a plan may call; `None`: all of them. Where a client has tools of its own, one of its names is not ours.
    pub plan_tools: Option<Arc<HashSet<ToolName>>>,
    /// How paths in inputs become keys.
    pub paths: Paths,
    /// Where tools of the journal's own database keep what their calls came to; that of the scheduler if absent.
    pub once: Option<Arc<Once>>,
    /// How long the run went on in processes before this one; its clock goes on from there.
    pub elapsed: Duration,
    /// Who asks people about calls that need their approval; without one such a call is `denied`.
    pub approver: Option<Arc<dyn Approver>>,
    /// Who is told what happens.
    pub recorder: Option<Arc<dyn Recorder>>,
    /// Whether attempts still begin.
    pub drain: Drain,
}

impl RunOptions {
    /// A run of this id: early start on, nobody told, nobody asked.
    pub fn new(run: impl Into<RunId>) -> Self {
        Self {
            run: run.into(),
            caller: "local".into(),
            caller_token: None,
            early_start: true,
            stop_on_failure: true,
            plan_tools: None,
            paths: Paths::default(),
            once: None,
            elapsed: Duration::ZERO,
            approver: None,
            recorder: None,
            drain: Drain::default(),
        }
    }
}

impl fmt::Debug for RunOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOptions").field("run", &self.run).field("caller", &self.caller).finish_non_exhaustive()
    }
}

/// One run: batch after batch, with one clock. Work that outlives its call in one batch holds back those in the next.
#[derive(Debug)]
pub struct Run {
    shared: Arc<Shared>,
    toolbox: Arc<Toolbox>,
    /// Those of the toolbox, and the end user's token.
    secrets: Arc<Secrets>,
    options: RunOptions,
    teller: Teller,
    epoch: Instant,
    strays: Vec<Stray>,
    /// What calls without an external API are limited by.
    unlimited: Arc<Limit>,
    /// The limit groups of the tools that were called so far.
    limits: FxHashMap<ToolName, Arc<Limit>>,
}

impl Run {
    /// Opens the next batch. Calls are given to it as they arrive; [`Batch::finish`] ends it.
    pub fn batch(&mut self) -> Batch<'_> {
        Batch::open(self)
    }

    /// Takes other tools from here on. Calls that have arrived end with the tools that they began with.
    pub fn set_toolbox(&mut self, toolbox: Arc<Toolbox>) {
        self.limits.clear();
        self.toolbox = toolbox;
    }

    fn limit_of(&mut self, tool: &Registered) -> Arc<Limit> {
        let spec = &tool.spec;
        if spec.policy.nested || !tool.is_limited {
            return Arc::clone(&self.unlimited);
        }
        if let Some(limit) = self.limits.get(&spec.name) {
            return Arc::clone(limit);
        }
        let limit = self.shared.limit(spec).map_or_else(|| Arc::clone(&self.unlimited), Arc::new);
        self.limits.insert(spec.name.clone(), Arc::clone(&limit));
        limit
    }

    /// The tools of this run.
    pub fn toolbox(&self) -> &Arc<Toolbox> {
        &self.toolbox
    }

    /// What nobody may see in a text that concerns this run.
    pub fn secrets(&self) -> &Arc<Secrets> {
        &self.secrets
    }

    /// How the run is treated.
    pub fn options(&self) -> &RunOptions {
        &self.options
    }

    /// The time since the run began in this process.
    pub fn elapsed(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Tells the recorder. `what` is only made if somebody listens.
    pub fn record(&self, what: impl FnOnce() -> What) {
        self.teller.tell(what);
    }

    /// What tells the recorder, also while a batch has the run.
    pub fn teller(&self) -> &Teller {
        &self.teller
    }
}
