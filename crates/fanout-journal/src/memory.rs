//! Questions that end with the process.
//!
//! From whoever asks and decides in this process. To nowhere: this is the store where there is no journal.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fanout_core::call::{ApprovalId, CallId, RunId};
use fanout_core::tool::BoxFuture;

use crate::approvals::{Approval, ApprovalStore, Filter, Parting, Ruling};
use crate::store::StoreError;

/// More than this are not kept: those that are over go first, oldest first. A person could not look through so many.
const KEPT_MAX: usize = 10_000;

/// Questions in memory, in the order in which they were asked.
#[derive(Debug, Default)]
pub struct MemoryApprovals {
    kept: Mutex<Vec<Approval>>,
    decisions: AtomicU64,
}

impl MemoryApprovals {
    fn kept(&self) -> MutexGuard<'_, Vec<Approval>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, mut asked: Approval) -> Result<Approval, StoreError> {
        let now = asked.asked_ms;
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
            let at = kept.iter().position(is_over).ok_or(StoreError::Crowded(KEPT_MAX))?;
            kept.remove(at);
        }
        while kept.iter().any(|other| other.id == asked.id) {
            asked.id = asked.next_id();
        }
        kept.push(asked.clone());
        Ok(asked)
    }
}

impl ApprovalStore for MemoryApprovals {
    fn ask(&self, asked: Approval) -> BoxFuture<'_, Result<Approval, StoreError>> {
        let result = self.put(asked);
        Box::pin(async move { result })
    }

    fn decide(&self, id: ApprovalId, ruling: Ruling) -> BoxFuture<'_, Result<Option<Approval>, StoreError>> {
        let mut kept = self.kept();
        let found = kept.iter_mut().find(|approval| approval.id == id).map(|found| {
            if found.state(ruling.at_ms) == "open" {
                found.ruling = Some(ruling);
                self.decisions.fetch_add(1, Ordering::Release);
            }
            found.clone()
        });
        Box::pin(async move { Ok(found) })
    }

    fn part(&self, id: ApprovalId, holder: (RunId, CallId), parting: Parting) -> BoxFuture<'_, Result<(), StoreError>> {
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

    fn get(&self, id: ApprovalId) -> BoxFuture<'_, Result<Option<Approval>, StoreError>> {
        let found = self.kept().iter().find(|approval| approval.id == id).cloned();
        Box::pin(async move { Ok(found) })
    }

    fn list(&self, filter: Filter, after: Option<ApprovalId>) -> BoxFuture<'_, Result<Vec<Approval>, StoreError>> {
        let kept = self.kept();
        let newest = kept.iter().rev();
        let from = after.and_then(|after| newest.clone().position(|approval| approval.id == after));
        let behind = newest.skip(from.map_or(0, |at| at + 1));
        let found = behind.filter(|approval| filter.takes(approval)).take(filter.count_max).cloned().collect();
        Box::pin(async move { Ok(found) })
    }

    fn let_go(&self, run: RunId) -> BoxFuture<'_, Result<(), StoreError>> {
        for found in self.kept().iter_mut().filter(|found| found.ruling.is_none() && !found.is_used) {
            found.holder.take_if(|(holder, _)| *holder == run);
        }
        Box::pin(async { Ok(()) })
    }

    fn decisions(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        let count = self.decisions.load(Ordering::Acquire);
        Box::pin(async move { Ok(count) })
    }
}
