//! Questions that end with the process.
//!
//! From [`Approvals`](super::Approvals). To nowhere: this is the store where there is no journal.

use std::sync::{Mutex, MutexGuard, PoisonError};

use fanout_core::call::{ApprovalId, CallId, RunId};
use fanout_core::tool::BoxFuture;
use tokio::sync::watch;

use super::{Approval, ApprovalStore, Filter, Parting, Ruling, StoreError, now_ms};

/// More than this are not kept: those that are over go first, oldest first. A person could not look through so many.
const KEPT_MAX: usize = 10_000;

/// Questions in memory, in the order in which they were asked.
#[derive(Debug, Default)]
pub struct MemoryApprovals {
    kept: Mutex<Vec<Approval>>,
    changes: watch::Sender<u64>,
}

impl MemoryApprovals {
    fn kept(&self) -> MutexGuard<'_, Vec<Approval>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, mut asked: Approval) -> Result<Approval, StoreError> {
        let now = now_ms();
        let mut kept = self.kept();
        let own = kept.iter().position(|other| other.hash == asked.hash && other.holder == asked.holder);
        let free = |other: &Approval| other.hash == asked.hash && other.caller == asked.caller && other.is_free(now);
        if let Some(at) = own.or_else(|| kept.iter().position(free)) {
            let found = &mut kept[at];
            (found.holder, found.is_withdrawn) = (asked.holder, false);
            return Ok(found.clone());
        }
        if kept.len() >= KEPT_MAX {
            let is_over = |other: &Approval| other.state(now) != "open" && !other.is_free(now);
            let at = kept.iter().position(is_over).ok_or(StoreError::Full(KEPT_MAX))?;
            kept.remove(at);
        }
        if kept.iter().any(|other| other.id == asked.id) {
            // The same call asked before and let go of it, and it is no longer to be had.
            asked.id = format!("{}{:x}", asked.id, asked.asked_ms).into();
        }
        kept.push(asked.clone());
        Ok(asked)
    }
}

impl ApprovalStore for MemoryApprovals {
    fn ask(&self, asked: Approval) -> BoxFuture<'static, Result<Approval, StoreError>> {
        let result = self.put(asked);
        Box::pin(async move { result })
    }

    fn decide(&self, id: ApprovalId, ruling: Ruling) -> BoxFuture<'static, Result<Option<Approval>, StoreError>> {
        let mut kept = self.kept();
        let found = kept.iter_mut().find(|approval| approval.id == id).map(|found| {
            if found.state(ruling.at_ms) == "open" {
                found.ruling = Some(ruling);
            }
            found.clone()
        });
        drop(kept);
        self.changes.send_modify(|count| *count += 1);
        Box::pin(async move { Ok(found) })
    }

    fn part(
        &self,
        id: ApprovalId,
        holder: (RunId, CallId),
        parting: Parting,
    ) -> BoxFuture<'static, Result<(), StoreError>> {
        let mut kept = self.kept();
        let held = kept.iter_mut().find(|found| found.id == id && found.holder.as_ref() == Some(&holder));
        if let Some(found) = held {
            match parting {
                Parting::Uses => found.is_used = true,
                Parting::LetsGo => found.holder = None,
                Parting::Withdraws => found.is_withdrawn = true,
            }
        }
        Box::pin(async { Ok(()) })
    }

    fn get(&self, id: ApprovalId) -> BoxFuture<'static, Result<Option<Approval>, StoreError>> {
        let found = self.kept().iter().find(|approval| approval.id == id).cloned();
        Box::pin(async move { Ok(found) })
    }

    fn list(&self, filter: Filter, after: Option<ApprovalId>) -> BoxFuture<'static, Result<Vec<Approval>, StoreError>> {
        let kept = self.kept();
        let newest = kept.iter().rev();
        let from = after.and_then(|after| newest.clone().position(|approval| approval.id == after));
        let behind = newest.skip(from.map_or(0, |at| at + 1));
        let found = behind.filter(|approval| filter.takes(approval)).take(filter.count_max).cloned().collect();
        Box::pin(async move { Ok(found) })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
