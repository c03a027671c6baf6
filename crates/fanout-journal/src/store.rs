//! What a journal asks of a database.
//!
//! From `writer`: entries of many runs, in one order. To whoever comes after a restart: the runs, their events, and
//! which of them nobody works on any more.
//!
//! A run belongs to one *owner*, a process for as long as it lives. Who takes over the run of an owner that is gone raises the
//! run's *fence*; entries under an older fence are not taken, so nobody who lost a run can write to it.

use std::time::Duration;

use fanout_core::call::RunId;
use fanout_core::event::RunKind;
use fanout_core::tool::BoxFuture;

use crate::deeds::Deed;
use crate::memo::{Memo, Remembered};
use crate::record::RecordError;

/// A day in milliseconds.
pub(crate) const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A database that keeps runs.
///
/// Every method is one step: all of it has happened, and outlives the machine's power, or nothing.
pub trait Store: Send + Sync + 'static {
    /// Adds entries, in order. Answers the runs of which nothing was taken, because they have another fence by now.
    fn append(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Vec<RunId>, StoreError>>;

    /// The runs that are wanted, newest first.
    fn runs(&self, wanted: Wanted) -> BoxFuture<'_, Result<Vec<Row>, StoreError>>;

    /// How many runs are in each state that is not the end of one; a state without any may be missing.
    fn open_runs(&self) -> BoxFuture<'_, Result<Vec<(RunState, usize)>, StoreError>>;

    /// The events of a run behind this number, in order, at most so many.
    fn events(&self, run: RunId, after: u64, max: usize) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>>;

    /// Takes over the runs that are under way and whose owner is gone, oldest first, at most so many.
    fn adopt(&self, max: usize) -> BoxFuture<'_, Result<Vec<Row>, StoreError>>;

    /// Takes the oldest queued runs, at most so many: they are under way then, and this process's.
    fn take_queued(&self, max: usize) -> BoxFuture<'_, Result<Vec<Row>, StoreError>>;

    /// Moves a run that nobody works on from one state to another. Answers whether it was in the first.
    fn change(
        &self,
        run: RunId,
        from: RunState,
        to: RunState,
        reason: Option<String>,
    ) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Asks for runs that are under way to be stopped; `None`: all. Answers how many.
    fn ask_to_stop(&self, run: Option<RunId>, reason: String) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// Says that this process lives, and answers those of its runs that somebody wants stopped, with the reasons.
    fn beat(&self) -> BoxFuture<'_, Result<Vec<(RunId, String)>, StoreError>>;

    /// Forgets the runs that ended before this time, in milliseconds since 1970. Answers how many.
    fn prune(&self, ended_before_ms: u64) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// Goes on with a run of this caller that has ended: it is under way then, and this process's. `None`: it has not, or there is
    /// none.
    fn reopen(&self, run: RunId, caller: String) -> BoxFuture<'_, Result<Option<Row>, StoreError>>;

    /// For each of these lists what is remembered for this caller under the first of its keys that is known.
    fn recall(
        &self,
        caller: String,
        keys: Vec<Vec<String>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Remembered>>, StoreError>>;

    /// Keeps a deed; its order stands from then on. Answers its number.
    fn keep_deed(&self, deed: Deed) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// The last deed about each subject and target, in the order of their numbers.
    fn standing(&self) -> BoxFuture<'_, Result<Vec<Deed>, StoreError>>;

    /// The deeds before that number, newest first, at most so many.
    fn deeds(&self, before: Option<u64>, max: usize) -> BoxFuture<'_, Result<Vec<Deed>, StoreError>>;
}

/// One thing to add.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A run begins.
    Begin(NewRun),
    /// Something happened in a run.
    Event {
        /// In which.
        run: RunId,
        /// Under which fence it is written.
        fence: u64,
        /// When, since the run began.
        at_us: u64,
        /// The stored form, of the number [`FORM`](crate::record::FORM).
        text: String,
    },
    /// A run is over, and came to this: its last event, and what is listed of it, as one.
    End {
        /// Which.
        run: RunId,
        /// Under which fence it is written.
        fence: u64,
        /// When, since the run began.
        at_us: u64,
        /// The stored form of its last event.
        text: String,
        /// As what.
        state: RunState,
        /// Why, where the state alone does not say.
        reason: Option<String>,
        /// What it used.
        used: Used,
    },
    /// Something to remember, whatever run it comes from.
    Memo(Memo),
}

impl Entry {
    /// The run that it belongs to, if it belongs to one.
    pub fn run(&self) -> Option<&RunId> {
        match self {
            Self::Begin(new) => Some(&new.run),
            Self::Event { run, .. } | Self::End { run, .. } => Some(run),
            Self::Memo(_) => None,
        }
    }

    /// What is to be remembered, if it is that.
    pub(crate) fn memo(&self) -> Option<&Memo> {
        if let Self::Memo(memo) = self { Some(memo) } else { None }
    }

    /// Under which fence it is written.
    pub fn fence(&self) -> u64 {
        match self {
            Self::Begin(_) | Self::Memo(_) => 0,
            Self::Event { fence, .. } | Self::End { fence, .. } => *fence,
        }
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Event { text, .. } | Self::End { text, .. } => text.len() + 64,
            Self::Begin(new) => new.title.len() + 128,
            Self::Memo(memo) => memo.bytes() + 256,
        }
    }
}

/// A run that begins.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// Its id.
    pub run: RunId,
    /// What kind of run.
    pub kind: RunKind,
    /// How it begins: under way, or for somebody else to take.
    pub state: RunState,
    /// Who began it.
    pub caller: String,
    /// The team that it counts for.
    pub project: Option<String>,
    /// What people know it by: the beginning of its prompt.
    pub title: String,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunState {
    /// Somebody must say yes before it begins.
    Proposed,
    /// It waits for a worker.
    Queued,
    /// Somebody works on it, or did when the process ended.
    Running,
    /// The model is done.
    Done,
    /// It could not go on.
    Failed,
    /// A budget is used up.
    Budget,
    /// The model refused.
    Refused,
    /// It was stopped.
    Cancelled,
}

impl RunState {
    /// Every state, in the order of a run's life.
    pub const ALL: [Self; 8] = [
        Self::Proposed,
        Self::Queued,
        Self::Running,
        Self::Done,
        Self::Failed,
        Self::Budget,
        Self::Refused,
        Self::Cancelled,
    ];

    /// The word that every surface uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Budget => "budget",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of this name.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether nothing more happens in it.
    pub const fn is_over(self) -> bool {
        !matches!(self, Self::Proposed | Self::Queued | Self::Running)
    }
}

/// What a run used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Used {
    /// Model responses.
    pub turns: u64,
    /// Calls that have an outcome, plans not counted.
    pub calls: u64,
    /// Of these, how many failed.
    pub failed: u64,
    /// Tokens of all kinds.
    pub tokens: u64,
    /// US dollars, where the price is known.
    pub cost_usd: f64,
    /// How long it went on.
    pub elapsed: Duration,
}

/// Which runs are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// This one.
    pub run: Option<RunId>,
    /// Those in this state.
    pub state: Option<RunState>,
    /// Those of this caller.
    pub caller: Option<String>,
    /// Those older than this one.
    pub after: Option<RunId>,
    /// At most so many.
    pub max: usize,
}

/// A run, as it is listed.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its id.
    pub run: RunId,
    /// What kind of run.
    pub kind: RunKind,
    /// How far it is.
    pub state: RunState,
    /// Why, where the state alone does not say.
    pub reason: Option<String>,
    /// Who began it.
    pub caller: String,
    /// The team that it counts for.
    pub project: Option<String>,
    /// What people know it by.
    pub title: String,
    /// When it began, in milliseconds since 1970.
    pub began_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// Under which fence it is written now.
    pub fence: u64,
    /// What it used, once it has ended.
    pub used: Used,
}

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its number among those of all runs: what is kept later has a larger one.
    pub number: u64,
    /// When, since the run began.
    pub at_us: u64,
    /// The form of its text.
    pub form: u32,
    /// Its text.
    pub text: String,
}

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No room is left.
    #[error("the journal at {place} has no room left on its disk: make room; what waits is written then")]
    Full {
        /// Where.
        place: String,
    },
    /// It may not be written.
    #[error(
        "the journal at {place} cannot be written ({detail}): look at the rights of the file and its folder, and whether its disk is mounted read-only"
    )]
    ReadOnly {
        /// Where.
        place: String,
        /// What the system says.
        detail: String,
    },
    /// What is there is not what was written.
    #[error(
        "the journal at {place} is damaged ({detail}): move it away, with the files beside it, and start again; what it held may be saved with `sqlite3 FILE .recover`"
    )]
    Damaged {
        /// Where.
        place: String,
        /// What is wrong.
        detail: String,
    },
    /// A newer version made it.
    #[error(
        "the journal at {place} has the layout {found}, and this version knows layouts up to {known}: use the version that made it"
    )]
    Newer {
        /// Where.
        place: String,
        /// Its layout.
        found: u32,
        /// The last one that we know.
        known: u32,
    },
    /// Something else that time may mend.
    #[error("the journal at {place} cannot be used: {detail}")]
    Unusable {
        /// Where.
        place: String,
        /// What the database says.
        detail: String,
    },
    /// As many questions as there is place for are open.
    #[error("{0} approvals are open already, and no more are kept: decide some, or let them expire")]
    Crowded(usize),
    /// An event in it cannot be read.
    #[error("event {number} of the journal cannot be read: {detail}")]
    Event {
        /// Its number.
        number: u64,
        /// Why.
        detail: String,
    },
}

impl StoreError {
    pub(crate) fn event(number: u64, error: &RecordError) -> Self {
        Self::Event { number, detail: error.to_string() }
    }
}
