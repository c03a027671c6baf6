//! How far a transaction has come, for whoever may want to stop it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::session::Canceller;

/// Each of these only ever becomes true.
#[derive(Default)]
pub(super) struct Progress {
    is_committing: AtomicBool,
    is_spoilt: AtomicBool,
    canceller: Mutex<Option<Canceller>>,
}

impl Progress {
    /// From here on the transaction may be committed.
    pub(super) fn commits(&self) {
        self.is_committing.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_committing(&self) -> bool {
        self.is_committing.load(Ordering::SeqCst)
    }

    /// The connection is not to be used again: something may still be on its way to it or from it.
    pub(super) fn spoil(&self) {
        self.is_spoilt.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_spoilt(&self) -> bool {
        self.is_spoilt.load(Ordering::SeqCst)
    }

    pub(super) fn runs_on(&self, canceller: Canceller) {
        *self.canceller.lock().unwrap_or_else(PoisonError::into_inner) = Some(canceller);
    }

    pub(super) fn canceller(&self) -> Option<Canceller> {
        self.canceller.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
