//! Which sessions there are over HTTP, and which of them must go.
//!
//! From the transport: sessions that begin, and every message of theirs. From [`server`](super::server): which of them have
//! running calls. To the transport: the library's own sessions, but for those that were idle for too long or in the way of a
//! new one. One with a running call is never either.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_core::Stream;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::local::{LocalSessionManager, LocalSessionManagerError};
use rmcp::transport::streamable_http_server::session::{ServerSseMessage, SessionId, SessionManager};
use tokio::sync::watch;
use tokio::time::Instant;

/// How many sessions there may be: more clients than one gateway has, and few enough that those which never say that they are
/// gone take tens of megabytes at the most.
pub(super) const SESSIONS_MAX: usize = 1024;

/// How long a session is kept without a message: longer than a person's pause, and not for ever, since a client that is
/// gone seldom says so. One that comes back later begins anew.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(30 * 60);

tokio::task_local! {
    /// Whether this request wanted a session and there was no room: the library has no words for it.
    static NO_ROOM: Cell<bool>;
}

/// Why there is no session, or no stream of one.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionsError {
    /// As many as there may be have running calls.
    #[error("every session has running calls")]
    Full,
    /// The library's reason.
    #[error(transparent)]
    Local(#[from] LocalSessionManagerError),
}

/// How a session is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Usage {
    /// How many of its calls run.
    running: usize,
    /// When its last message came, or its last call ended.
    since: Instant,
}

/// The sessions, and how they are used.
#[derive(Debug)]
pub(super) struct Sessions {
    local: LocalSessionManager,
    uses: Mutex<HashMap<SessionId, watch::Sender<Usage>>>,
    max: usize,
    idle_max: Duration,
}

/// Keeps a session from being idle, for as long as a call runs.
#[derive(Debug)]
pub(super) struct Busy(watch::Sender<Usage>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|usage| *usage = Usage { running: usage.running - 1, since: Instant::now() });
    }
}

impl Sessions {
    pub(super) fn new(max: usize, idle_max: Duration) -> Arc<Self> {
        let mut local = LocalSessionManager::default();
        // The library counts a session with a running call as idle, so it is not asked.
        local.session_config.keep_alive = None;
        Arc::new(Self { local, uses: Mutex::default(), max, idle_max })
    }

    /// Runs a request, and says besides whether it wanted a session for which there was no room.
    pub(super) async fn watch_room<T>(request: impl Future<Output = T>) -> (T, bool) {
        let watched = async {
            let answer = request.await;
            (answer, NO_ROOM.with(Cell::get))
        };
        NO_ROOM.scope(Cell::new(false), watched).await
    }

    /// Says that a call of this session runs, until what is returned is dropped. `None`: there is no such session any more.
    pub(super) fn busy(&self, id: &str) -> Option<Busy> {
        let usage = self.uses().get(id)?.clone();
        usage.send_modify(|usage| usage.running += 1);
        Some(Busy(usage))
    }

    fn uses(&self) -> MutexGuard<'_, HashMap<SessionId, watch::Sender<Usage>>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self, id: &SessionId) {
        if let Some(usage) = self.uses().get(id) {
            usage.send_modify(|usage| usage.since = Instant::now());
        }
    }

    /// Takes a session in, and names the one that must go for it: of those without running calls, the one whose last message
    /// is the oldest.
    fn admit(&self, id: SessionId) -> Result<(watch::Receiver<Usage>, Option<SessionId>), SessionsError> {
        let mut uses = self.uses();
        let mut goes = None;
        if uses.len() >= self.max {
            let idle = uses.iter().filter(|(_, usage)| usage.borrow().running == 0);
            let oldest = idle.min_by_key(|(_, usage)| usage.borrow().since).map(|(id, _)| id.clone());
            let oldest = oldest.ok_or(SessionsError::Full)?;
            uses.remove(&oldest);
            goes = Some(oldest);
        }
        let (sender, usage) = watch::channel(Usage { running: 0, since: Instant::now() });
        uses.insert(id, sender);
        Ok((usage, goes))
    }

    /// Ends a session once it was idle for too long; ends with the session.
    async fn end_when_idle(self: Arc<Self>, id: SessionId, mut usage: watch::Receiver<Usage>) {
        loop {
            let seen = *usage.borrow_and_update();
            let idle = async {
                match seen.running {
                    0 => tokio::time::sleep_until(seen.since + self.idle_max).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = usage.changed() => if changed.is_err() { return },
                () = idle => {
                    // A message may have come since.
                    let mut uses = self.uses();
                    if uses.get(&id).is_none_or(|usage| *usage.borrow() == seen) {
                        uses.remove(&id);
                        break;
                    }
                }
            }
        }
        self.end(&id, "it was idle").await;
    }

    async fn end(&self, id: &SessionId, why: &str) {
        tracing::info!(session = &**id, why, "an MCP session is ended");
        if let Err(error) = self.local.close_session(id).await {
            tracing::debug!(%error, "the session had ended by itself");
        }
    }
}

/// The library's view of the sessions: the same for every clone of the pointer.
#[derive(Clone, Debug)]
pub(super) struct Manager(pub(super) Arc<Sessions>);

impl SessionManager for Manager {
    type Error = SessionsError;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Self::Error> {
        let (id, transport) = self.0.local.create_session().await?;
        let (usage, goes) = match self.0.admit(id.clone()) {
            Ok(admitted) => admitted,
            Err(full) => {
                // Outside of a request there is nobody to be told.
                let _ = NO_ROOM.try_with(|no_room| no_room.set(true));
                self.0.end(&id, "there is no room for it").await;
                return Err(full);
            }
        };
        tokio::spawn(Arc::clone(&self.0).end_when_idle(id.clone(), usage));
        if let Some(goes) = goes {
            self.0.end(&goes, "it made room for another").await;
        }
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        Ok(self.0.local.initialize_session(id, message).await?)
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Self::Error> {
        self.0.touch(id);
        Ok(self.0.uses().contains_key(id))
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), Self::Error> {
        self.0.uses().remove(id);
        Ok(self.0.local.close_session(id).await?)
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        Ok(self.0.local.create_stream(id, message).await?)
    }

    async fn accept_message(&self, id: &SessionId, message: ClientJsonRpcMessage) -> Result<(), Self::Error> {
        Ok(self.0.local.accept_message(id, message).await?)
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        Ok(self.0.local.create_standalone_stream(id).await?)
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        Ok(self.0.local.resume(id, last_event_id).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two at most, each idle for at most a minute; the clock is virtual. The transports are kept, as the library does.
    async fn opened(manager: &Manager) -> (SessionId, impl Sized) {
        manager.create_session().await.unwrap()
    }

    fn manager() -> Manager {
        Manager(Sessions::new(2, Duration::from_secs(60)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_idle_for_too_long_ends_and_one_with_messages_does_not() {
        let manager = manager();
        let ((idle, _a), (used, _b)) = (opened(&manager).await, opened(&manager).await);
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert!(manager.has_session(&used).await.unwrap());
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert!(!manager.0.uses().contains_key(&idle) && manager.0.uses().contains_key(&used));
        assert!(!manager.0.local.has_session(&idle).await.unwrap(), "the library has let it go too");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_does_not_end_for_idleness_while_a_call_runs() {
        let manager = manager();
        let (id, _transport) = opened(&manager).await;
        let busy = [manager.0.busy(&id).unwrap(), manager.0.busy(&id).unwrap()];
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert!(manager.0.uses().contains_key(&id));
        drop(busy);
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert!(manager.0.uses().contains_key(&id), "its time begins when its last call has ended");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!manager.0.uses().contains_key(&id));
        assert!(manager.0.busy(&id).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_recently_used_idle_one_makes_room_and_a_busy_one_never() {
        let manager = manager();
        let (first, _a) = opened(&manager).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (second, _b) = opened(&manager).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        manager.has_session(&first).await.unwrap();
        let (third, _c) = opened(&manager).await;
        let there = |id: &SessionId| manager.0.uses().contains_key(id);
        assert!(there(&first) && !there(&second) && there(&third), "the second was used least recently");
        let _busy = manager.0.busy(&first).unwrap();
        let (fourth, _d) = opened(&manager).await;
        assert!(there(&first) && !there(&third) && there(&fourth), "the first is older, and busy");
        let _too = manager.0.busy(&fourth).unwrap();
        let (refused, no_room) = Sessions::watch_room(manager.create_session()).await;
        assert!(matches!(refused, Err(SessionsError::Full)) && no_room);
        assert_eq!(manager.0.local.sessions.read().await.len(), 2, "nothing is left of the one that was refused");
    }
}
