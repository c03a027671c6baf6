//! What a schedule is told of its calls, and what it asks for.
//!
//! From [`run`](crate::run): [`Treatment`]s, and the bounds of a batch. To it: [`Step`]s.

use std::sync::Arc;
use std::time::Duration;

use crate::call::{CallId, GroupName, ToolName};
use crate::graph::{Ix, Part};
use crate::limits::{GroupId, NO_GROUP};
use crate::outcome::{CallError, Output};
use crate::retry::Backoff;

/// What the driver of a batch is to do next.
#[derive(Debug)]
pub enum Step {
    /// Fill the references of this call and find its exact keys; answer with [`Schedule::prepared`](super::Schedule::prepared).
    /// Of a bundle find its parts; answer with [`Schedule::opened`](super::Schedule::opened).
    Prepare(Ix),
    /// All parts of this bundle are answered: put its outcome together; answer with
    /// [`Schedule::gathered`](super::Schedule::gathered).
    Gather(Ix),
    /// The response counts and this call's input is final: ask people whether it may run; answer with
    /// [`Schedule::decided`](super::Schedule::decided). Nothing is held meanwhile.
    Ask(Ix),
    /// Enter the locks for this call; answer with [`Schedule::locked`](super::Schedule::locked) once they are held. They are
    /// kept until the call is answered and no attempt at it is left.
    Lock(Ix),
    /// Ask for one permit of a group; answer with [`Schedule::permitted`](super::Schedule::permitted) once it is there, or with
    /// [`Schedule::refused`](super::Schedule::refused).
    Permit {
        /// Of which group.
        group: GroupId,
        /// For another try at a call.
        again: bool,
    },
    /// Take back one wish for a permit of this group.
    WithdrawPermit(GroupId),
    /// Start an attempt; answer with [`Schedule::ended`](super::Schedule::ended), and with
    /// [`Schedule::gone`](super::Schedule::gone) when nothing of it is left.
    Start {
        /// Which call.
        call: Ix,
        /// Which try; the first is 1.
        number: u32,
    },
    /// The running attempt is at its time-out, or its call at its deadline; answer at once with [`Schedule::timed_out`](super::Schedule::timed_out).
    TimedOut(Ix),
    /// Stop the running attempt. [`Schedule::gone`](super::Schedule::gone) is still awaited.
    Stop(Ix),
    /// Nothing to do: the call goes again after so long.
    Backoff {
        /// Which call.
        call: Ix,
        /// How long it waits before it asks for a permit again.
        wait: Duration,
    },
    /// Work of an ended call went on for longer than `stray_hold`: take its locks away.
    GiveUp(Ix),
    /// This is the call's one outcome. Locks that no attempt needs any more are given up.
    Answer(Ix, Result<Arc<Output>, Box<CallError>>),
}

/// How one call is to be treated.
#[derive(Clone, Debug)]
pub struct Treatment {
    /// The call, for messages.
    pub call: CallId,
    /// What holds for every call of its tool.
    pub terms: Arc<Terms>,
    /// The limit group that its attempts need permits of.
    pub limit: Arc<Limit>,
    /// It may enter before the response has ended. Never where `asks` is set.
    pub early: bool,
    /// It may go again though it may have been carried out: it is repeatable, or it is never carried out twice.
    pub resumable: bool,
    /// An attempt at it may have been carried out, and that would do harm once more: no failure can be told as one.
    pub in_doubt: bool,
    /// People have to agree before it runs. Where its input is not final this is not known yet: see
    /// [`Schedule::needs_approval`](super::Schedule::needs_approval).
    pub asks: bool,
    /// How long it is expected to take, for the order in which permits are used.
    pub expected: Duration,
}

/// A part of a bundle, as it becomes known.
#[derive(Clone, Debug)]
pub struct NewPart {
    /// How it is to be treated.
    pub treatment: Treatment,
    /// What it touches and names.
    pub part: Part,
    /// Why it cannot run, if it cannot.
    pub error: Option<CallError>,
}

/// How the calls of one tool are to be treated.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// The tool, for messages.
    pub tool: ToolName,
    /// The longest that one attempt may take.
    pub timeout: Duration,
    /// The longest that a call may take from entering the locks.
    pub deadline: Duration,
    /// Running a call again does no harm.
    pub repeatable: bool,
    /// It runs calls itself: no locks, no permits.
    pub nested: bool,
}

/// What a schedule has to know of a limit group.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Which.
    pub group: GroupId,
    /// Its name, for messages.
    pub name: GroupName,
    /// The longest that a call waits for a permit.
    pub wait_max: Duration,
    /// How failed attempts go again.
    pub retry: Backoff,
}

impl Limit {
    /// That of calls without an external API: they wait as long as it takes.
    pub fn none() -> Self {
        Self { group: NO_GROUP, name: "".into(), wait_max: Duration::MAX, retry: Backoff::default() }
    }
}

impl Treatment {
    /// That of a call which never runs.
    pub fn inert(call: CallId, tool: ToolName, limit: Arc<Limit>) -> Self {
        let terms = Terms { tool, timeout: Duration::ZERO, deadline: Duration::ZERO, repeatable: false, nested: false };
        Self {
            call,
            terms: Arc::new(terms),
            limit,
            early: false,
            resumable: false,
            in_doubt: false,
            asks: false,
            expected: Duration::ZERO,
        }
    }
}

/// Bounds of one schedule.
#[derive(Clone, Copy, Debug)]
pub struct ScheduleOptions {
    /// The longest that work which outlives its call keeps its locks.
    pub stray_hold: Duration,
    /// What the jitter of its backoffs comes from.
    pub seed: u64,
}
