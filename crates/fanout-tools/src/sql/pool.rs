//! Connections that are kept for the next call.
//!
//! From whoever opens them. To calls: one each, for as long as a transaction lasts. That calls wait for one another's locks
//! first is the scheduler's doing; where its permits are as many as the connections, nobody waits here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A connection that nobody used for so long is closed instead of used: a firewall or a pooler in between may have
/// forgotten it.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// At most so many connections at once, open or about to be.
#[derive(Debug)]
pub(super) struct Pool<C> {
    idle: Mutex<Vec<(C, Instant)>>,
    places: Arc<Semaphore>,
    connections: usize,
}

/// The right to one connection. Dropped, it is the next one's.
#[derive(Debug)]
pub(super) struct Place<C> {
    pool: Arc<Pool<C>>,
    _permit: OwnedSemaphorePermit,
}

impl<C> Pool<C> {
    pub(super) fn new(connections: u32) -> Arc<Self> {
        let places = usize::try_from(connections).unwrap_or(Semaphore::MAX_PERMITS).clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self { idle: Mutex::default(), places: Arc::new(Semaphore::new(places)), connections: places })
    }

    /// Waits until a connection may be used; first come, first served.
    ///
    /// # Cancellation
    /// Safe: who stops waiting has nothing.
    pub(super) async fn place(self: &Arc<Self>) -> Place<C> {
        let places = Arc::clone(&self.places);
        match places.acquire_owned().await {
            Ok(permit) => Place { pool: Arc::clone(self), _permit: permit },
            // Nobody closes it.
            Err(_) => std::future::pending().await,
        }
    }
}

impl<C> Pool<C> {
    /// Waits until no connection is used.
    pub(super) async fn unused(&self) {
        let all = u32::try_from(self.connections).unwrap_or(u32::MAX);
        // Nobody closes it.
        let _ = self.places.acquire_many(all).await;
    }
}

impl<C> Place<C> {
    /// The connection that was used last, if one is kept; those that were idle for too long are closed.
    pub(super) fn kept(&self) -> Option<C> {
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = idle.partition_point(|(_, since)| since.elapsed() > IDLE_MAX);
        let closed: Vec<_> = idle.drain(..stale).collect();
        let kept = idle.pop().map(|(connection, _)| connection);
        drop(idle);
        drop(closed);
        kept
    }

    /// Keeps a connection for the next call: it must be as it was when it was opened.
    pub(super) fn keep(&self, connection: C) {
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((connection, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn there_are_never_more_places_than_connections_and_the_last_one_kept_is_used_first() {
        let pool: Arc<Pool<u32>> = Pool::new(2);
        let (first, second) = (pool.place().await, pool.place().await);
        let third = tokio::time::timeout(Duration::from_millis(20), pool.place()).await;
        assert!(third.is_err(), "both are taken");
        assert_eq!(first.kept(), None);
        first.keep(1);
        second.keep(2);
        drop(first);
        let third = pool.place().await;
        assert_eq!((third.kept(), third.kept(), third.kept()), (Some(2), Some(1), None));
    }
}
