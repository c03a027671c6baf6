//! How things stand, for the person on call: what runs, what waits, and for whom.
//!
//! From the journal, which all processes share. To `fanout status` and `GET /fanout/v1/status`.

use std::fmt;

use fanout_journal::Journal;
use fanout_journal::approvals::{Filter, Viewer, now_ms};
use fanout_journal::deeds::{Action, Deed};
use fanout_journal::store::{RunState, StoreError};
use serde_json::{Value, json};

use crate::approvals::Approvals;
use crate::controls::{in_effect, paused_by};
use crate::lines::time;

/// More questions than this are not counted: so many are no longer looked through.
const QUESTIONS_MAX: usize = 1_000;

/// How things stand in a journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Runs that somebody must say yes to.
    pub proposed: usize,
    /// Runs that wait for a worker.
    pub queued: usize,
    /// Runs under way, in whatever process, and those whose process is gone.
    pub running: usize,
    /// What people on call have ordered.
    pub orders: Vec<Deed>,
    /// Questions that wait for people; a thousand stands for any more, too.
    pub approvals: usize,
}

impl Status {
    /// Reads it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read(journal: &Journal, approvals: &Approvals) -> Result<Self, StoreError> {
        let open = journal.store().open_runs().await?;
        let count = |state| open.iter().find(|(known, _)| *known == state).map_or(0, |(_, count)| *count);
        let viewer = Viewer { caller: "status".into(), project: None, is_admin: true, may_approve: false };
        let filter = Filter { viewer, is_open: true, count_max: QUESTIONS_MAX, now_ms: now_ms() };
        Ok(Self {
            proposed: count(RunState::Proposed),
            queued: count(RunState::Queued),
            running: count(RunState::Running),
            orders: in_effect(journal.store().standing().await?),
            approvals: approvals.list(filter, None).await?.len(),
        })
    }

    /// It as JSON, as every surface shows it.
    pub fn to_json(&self) -> Value {
        json!({
            "type": "status", "runs": { "proposed": self.proposed, "queued": self.queued, "running": self.running },
            "paused_by": paused_by(&self.orders), "approvals_open": self.approvals,
            "orders": self.orders.iter().map(Deed::to_json).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "runs: {} running, {} queued, {} proposed", self.running, self.queued, self.proposed)?;
        if let Some(by) = paused_by(&self.orders) {
            write!(f, "\npaused by {by}: no queued run begins until `fanout unpause`")?;
        }
        for deed in self.orders.iter().filter(|deed| deed.action != Action::Pause) {
            write!(f, "\n{} {}, by {}", deed.action.as_str(), deed.target, deed.who)?;
            for (key, value) in deed.detail.as_object().into_iter().flatten() {
                match (key.as_str(), value.as_u64()) {
                    ("until_ms", Some(until)) => write!(f, ", until {}", time(until))?,
                    _ => write!(f, ", {key}: {value}")?,
                }
            }
        }
        match self.approvals {
            0 => Ok(()),
            1 => f.write_str("\n1 call waits for a person: `fanout approvals list`"),
            count if count < QUESTIONS_MAX => write!(f, "\n{count} calls wait for people: `fanout approvals list`"),
            _ => write!(f, "\n{QUESTIONS_MAX} calls or more wait for people: `fanout approvals list`"),
        }
    }
}
