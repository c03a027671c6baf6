//! What was spent in a day, as it is kept: one amount for each day and scope.
//!
//! From whoever is about to spend, and whoever knows what it came to. Amounts are whole billionths of a dollar; what a day and
//! a scope are is not known here.

use std::sync::Arc;

use fanout_core::tool::BoxFuture;

use crate::store::StoreError;

/// The most that a scope may come to in a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cap {
    /// Whose spending is added up.
    pub scope: Arc<str>,
    /// The most, in billionths of a US dollar.
    pub max_nano_usd: u64,
}

/// A cap that leaves no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// Which of the caps that were given.
    pub cap: usize,
    /// What is left of it, in billionths of a US dollar.
    pub left_nano_usd: u64,
}

/// Where spending is kept. Each method is one step: two at once come one after the other, in whatever process they are.
pub trait SpendingStore: Send + Sync + 'static {
    /// Adds this amount to the scope of each of these caps on that day (counted from 1970-01-01): to all of them, or to none if
    /// one has no room for it.
    fn add(&self, day: u64, caps: Vec<Cap>, nano_usd: u64) -> BoxFuture<'_, Result<Result<(), NoRoom>, StoreError>>;

    /// Takes away what was added and not spent.
    fn give_back(&self, day: u64, scopes: Vec<Arc<str>>, nano_usd: u64) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// The first cap that leaves no room, by what its scope came to so far.
pub(crate) fn full(caps: &[Cap], nano_usd: u64, spent: impl Fn(&str) -> u64) -> Option<NoRoom> {
    caps.iter().enumerate().find_map(|(cap, known)| {
        let left_nano_usd = known.max_nano_usd.saturating_sub(spent(&known.scope));
        (nano_usd > left_nano_usd).then_some(NoRoom { cap, left_nano_usd })
    })
}
