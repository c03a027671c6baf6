//! Many runs against external APIs on virtual time: limit groups, retries, breakers and locks, without a runtime.
//!
//! From a test: [`Group`]s with the APIs behind them, and [`Member`]s that call them. To the judges: a [`Log`].
//! Here stand who plays and what is written down of it; how it is played stands in `play`.

mod play;

pub use play::play;

use std::collections::BTreeMap;
use std::time::Duration;

use fanout_core::limits::LimitOptions;

use crate::api::{Api, Reply, Rules};

/// A limit group and the API that it stands for.
#[derive(Clone, Debug)]
pub struct Group {
    /// What is known of the API.
    pub options: LimitOptions,
    /// What it is.
    pub rules: Rules,
}

/// One run: a batch that is open from the start.
#[derive(Clone, Debug)]
pub struct Member {
    /// Who began it.
    pub caller: String,
    /// Its calls in program order, by the time of their arrival.
    pub calls: Vec<Wanted>,
    /// When all that is left of it is cancelled.
    pub cancels: Option<Duration>,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// When it arrives; no earlier than the one before.
    pub arrives: Duration,
    /// Which group it needs permits of; `None` is that of calls without an API, which end well at once.
    pub group: Option<usize>,
    /// The one key that it writes.
    pub writes: Option<String>,
    /// The longest attempt.
    pub timeout: Duration,
    /// The longest time from entering the locks.
    pub deadline: Duration,
    /// Running it again does no harm.
    pub repeatable: bool,
    /// How long an attempt's work goes on after it ended or was stopped.
    pub lingers: Duration,
    /// When it is cancelled by itself.
    pub withdrawn: Option<Duration>,
}

impl Wanted {
    /// A patient call of this group that touches nothing.
    pub fn of(group: usize, arrives: Duration) -> Self {
        Self {
            arrives,
            group: Some(group),
            writes: None,
            timeout: Duration::from_secs(30),
            deadline: Duration::from_secs(120),
            repeatable: false,
            lingers: Duration::ZERO,
            withdrawn: None,
        }
    }
}

/// A call: its run and its place there.
pub type Id = (usize, usize);

/// What happened to one call.
#[derive(Clone, Debug, Default)]
pub struct Played {
    /// When it entered the locks.
    pub entered: Option<Duration>,
    /// When it held them.
    pub held: Option<Duration>,
    /// When it let go of them: answered, with nothing of it left.
    pub left: Option<Duration>,
    /// Its attempts.
    pub tries: Vec<Try>,
    /// When each backoff began, and how long it was to be.
    pub backoffs: Vec<(Duration, Duration)>,
    /// Its outcomes.
    pub answers: Vec<Answer>,
}

/// One attempt.
#[derive(Clone, Debug)]
pub struct Try {
    /// When it started.
    pub started: Duration,
    /// What the API made of it.
    pub reply: Reply,
    /// The caller was told.
    pub heard: bool,
    /// When it answered or was stopped.
    pub ended: Option<Duration>,
    /// When its permit was given back.
    pub released: Option<Duration>,
    /// When nothing was left of it.
    pub gone: Option<Duration>,
}

/// One outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When.
    pub at: Duration,
    /// `ok` or the code.
    pub word: &'static str,
    /// When to come back.
    pub retry_after: Option<Duration>,
}

/// What was seen of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// An attempt started.
    Started(Id, usize),
    /// An attempt answered: did it speak against the API?
    Answered(Id, usize, bool),
    /// An attempt gave back its permit: nothing was left of it, or nobody waited for it any more.
    Released(Id, usize),
    /// Nothing may start until then.
    Paused(Duration),
    /// The breaker opened until then.
    Opened(Duration),
}

/// What happened.
#[derive(Debug, Default)]
pub struct Log {
    /// Every call.
    pub calls: BTreeMap<Id, Played>,
    /// What was seen of every group, in order.
    pub seen: Vec<Vec<(Duration, Seen)>>,
    /// The concurrency that a group had learned, whenever that changed.
    pub learned: Vec<Vec<(Duration, Option<usize>)>>,
    /// The APIs as they were left.
    pub apis: Vec<Api>,
    /// Places, permits and wishes that nobody gave back.
    pub leaked: usize,
    /// When the last thing happened.
    pub ended: Duration,
}
