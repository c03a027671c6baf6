//! What teams and their keys spend in a day, kept in the journal's database.
//!
//! From runs, before each request to the model and after it. To a [`SpendingStore`], which all processes on one database share: so
//! they cannot overshoot together, and a restart forgets nothing.

use std::fmt;
use std::sync::Arc;

use fanout_agent::{DailyCap, Day, Ledger, LedgerError};
use fanout_core::tool::BoxFuture;
use fanout_journal::spending::{Cap, SpendingStore};
use tokio::sync::watch;

/// A ledger that is kept.
pub struct StoreLedger {
    store: Arc<dyn SpendingStore>,
    /// How many amounts are on their way back.
    settling: watch::Sender<usize>,
}

impl StoreLedger {
    /// A ledger in this store.
    pub fn new(store: Arc<dyn SpendingStore>) -> Self {
        Self { store, settling: watch::Sender::new(0) }
    }

    /// Waits until all that was settled by now is written, or could not be.
    pub async fn settled(&self) {
        // The sender lives as long as this.
        let _ = self.settling.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Ledger for StoreLedger {
    fn reserve<'a>(&'a self, day: Day, caps: &'a [DailyCap], nano_usd: u64) -> BoxFuture<'a, Result<(), LedgerError>> {
        let cap = |cap: &DailyCap| Cap { scope: Arc::clone(&cap.scope), max_nano_usd: cap.max_nano_usd };
        let added = self.store.add(day.0, caps.iter().map(cap).collect(), nano_usd);
        Box::pin(async move {
            let added = added.await.map_err(|error| LedgerError::Unavailable(error.to_string()))?;
            added.map_err(|room| LedgerError::Full { cap: room.cap, left_nano_usd: room.left_nano_usd })
        })
    }

    fn settle(&self, day: Day, caps: &[DailyCap], reserved_nano_usd: u64, spent_nano_usd: u64) {
        let scopes = || -> Vec<Arc<str>> { caps.iter().map(|cap| Arc::clone(&cap.scope)).collect() };
        let (store, settling) = (Arc::clone(&self.store), self.settling.clone());
        // What cannot be given back stays spent, which is on the safe side. Outside of a runtime the process is on its way out.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (less, more) =
            (reserved_nano_usd.checked_sub(spent_nano_usd), spent_nano_usd.checked_sub(reserved_nano_usd));
        let write: BoxFuture<'static, _> = match (less, more) {
            (Some(0), _) => return,
            (Some(less), _) => {
                let scopes = scopes();
                Box::pin(async move { store.give_back(day.0, scopes, less).await })
            }
            // More than was set aside: it was spent all the same, so no cap holds it up.
            (None, more) => {
                let unbounded = |scope| Cap { scope, max_nano_usd: u64::MAX };
                let caps = scopes().into_iter().map(unbounded).collect();
                Box::pin(async move { store.add(day.0, caps, more.unwrap_or_default()).await.map(drop) })
            }
        };
        settling.send_modify(|count| *count += 1);
        runtime.spawn(async move {
            if let Err(error) = write.await {
                tracing::warn!(%error, "what a request really cost is not written: more of the day counts as spent");
            }
            settling.send_modify(|count| *count -= 1);
        });
    }
}

impl fmt::Debug for StoreLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreLedger").finish_non_exhaustive()
    }
}
