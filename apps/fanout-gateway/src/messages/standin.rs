//! What a returned message stands for: the messages behind it that its client never saw.
//!
//! From a run that ended: hidden turns, results that wait for the client. To the next request whose history holds the
//! returned message: the same bytes again, so that caches hold and thinking stays valid.
//!
//! Found by what the message says, or by its id, and only by the caller that it was returned to. A message that holds no id
//! of any call can be said in many conversations: it is known only after the same history. All of it is in memory, bounded
//! and expiring; of an expired one stays that it was there.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fanout_agent::{Handed, Handover, Ours};
use fanout_anthropic::Message;
use fanout_core::call::CallerId;
use tokio::time::Instant;

use super::canonical::Digest;

/// So many bytes of messages are kept, in all. The oldest go first.
const BYTES_MAX: usize = 256 * 1024 * 1024;

/// So many messages are remembered, in all, expired ones included.
const REMEMBERED_MAX: usize = 100_000;

/// What stands behind one returned message.
#[derive(Debug)]
pub(crate) struct Standin {
    /// The history that it was said in, itself included.
    pub(crate) after: Digest,
    /// The history before it.
    before: Digest,
    content: Digest,
    is_unique: bool,
    /// The id that the client knows it by.
    id: String,
    /// The upstream's id of the last message behind it, which a thread is continued from.
    pub(crate) last_id: String,
    pub(crate) ours: Ours,
    /// Whether there is more behind it than the client saw.
    pub(crate) has_hidden: bool,
    /// How many bytes it holds.
    bytes: usize,
    /// The messages; `None` once they have expired.
    messages: Mutex<Option<Arc<[Message]>>>,
    /// What the client must answer, and our results that wait for that. Held while those that waited run, so that they run
    /// once.
    pub(crate) handover: tokio::sync::Mutex<Handover>,
}

/// What a run gives to be kept.
pub(crate) struct Kept {
    pub(crate) before: Digest,
    pub(crate) after: Digest,
    pub(crate) content: Digest,
    pub(crate) is_unique: bool,
    pub(crate) id: String,
    pub(crate) last_id: String,
    pub(crate) ours: Ours,
    pub(crate) has_hidden: bool,
    pub(crate) messages: Vec<Message>,
    pub(crate) handover: Handover,
}

impl Standin {
    /// The messages behind it, if they have not expired.
    pub(crate) fn messages(&self) -> Option<Arc<[Message]>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn expire(&self) {
        *self.messages.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // Whoever holds it now is putting it into a request, and needs it no longer after that.
        if let Ok(mut handover) = self.handover.try_lock() {
            *handover = Handover::default();
        }
    }
}

fn bytes_of(kept: &Kept) -> usize {
    let messages: usize = kept.messages.iter().map(|message| message.raw().as_str().len()).sum();
    let results = kept.handover.calls.iter().map(|call| match call {
        Handed::Answered(block) => block.raw().as_str().len(),
        Handed::Waiting(_) | Handed::Theirs(_) => 0,
    });
    messages + results.sum::<usize>()
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Standins {
    state: Mutex<State>,
    keep: Duration,
}

#[derive(Debug, Default)]
struct State {
    by_content: HashMap<(CallerId, Digest), Vec<Arc<Standin>>>,
    by_id: HashMap<(CallerId, String), Arc<Standin>>,
    /// Those that have their messages, the oldest first.
    fresh: VecDeque<(Instant, Arc<Standin>)>,
    all: VecDeque<(CallerId, Arc<Standin>)>,
    bytes: usize,
}

impl Standins {
    /// Messages are kept for so long.
    pub(crate) fn new(keep: Duration) -> Self {
        Self { state: Mutex::default(), keep }
    }

    /// Keeps what stands behind a message that is about to be returned to this caller.
    pub(crate) fn keep(&self, caller: &CallerId, kept: Kept) {
        let bytes = bytes_of(&kept);
        let standin = Arc::new(Standin {
            after: kept.after,
            before: kept.before,
            content: kept.content,
            is_unique: kept.is_unique,
            id: kept.id,
            last_id: kept.last_id,
            ours: kept.ours,
            has_hidden: kept.has_hidden,
            bytes,
            messages: Mutex::new(Some(kept.messages.into())),
            handover: tokio::sync::Mutex::new(kept.handover),
        });
        let mut state = self.state();
        state.bytes += standin.bytes;
        state.by_content.entry((caller.clone(), standin.content)).or_default().push(Arc::clone(&standin));
        state.by_id.insert((caller.clone(), standin.id.clone()), Arc::clone(&standin));
        state.fresh.push_back((Instant::now(), Arc::clone(&standin)));
        state.all.push_back((caller.clone(), standin));
        state.forget_old(self.keep);
    }

    /// What stands behind a message of this content that came after this history.
    pub(crate) fn by_content(&self, caller: &CallerId, content: Digest, before: Digest) -> Option<Arc<Standin>> {
        let mut state = self.state();
        state.forget_old(self.keep);
        let known = state.by_content.get(&(caller.clone(), content))?;
        let exact = known.iter().rev().find(|known| known.before == before);
        exact.or_else(|| known.iter().rev().find(|known| known.is_unique)).cloned()
    }

    /// What stands behind the message that the client knows by this id.
    pub(crate) fn by_id(&self, caller: &CallerId, id: &str) -> Option<Arc<Standin>> {
        let mut state = self.state();
        state.forget_old(self.keep);
        state.by_id.get(&(caller.clone(), id.to_owned())).cloned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget_old(&mut self, keep: Duration) {
        while let Some((at, _)) = self.fresh.front() {
            if at.elapsed() < keep && self.bytes <= BYTES_MAX {
                break;
            }
            if let Some((_, standin)) = self.fresh.pop_front() {
                self.bytes = self.bytes.saturating_sub(standin.bytes);
                standin.expire();
            }
        }
        while self.all.len() > REMEMBERED_MAX {
            let Some((caller, old)) = self.all.pop_front() else { return };
            let key = (caller.clone(), old.content);
            if let Some(known) = self.by_content.get_mut(&key) {
                known.retain(|known| !Arc::ptr_eq(known, &old));
                if known.is_empty() {
                    self.by_content.remove(&key);
                }
            }
            let id = (caller, old.id.clone());
            if self.by_id.get(&id).is_some_and(|known| Arc::ptr_eq(known, &old)) {
                self.by_id.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::canonical::of_bytes;
    use super::*;

    fn kept(content: &str, before: &str, is_unique: bool) -> Kept {
        Kept {
            before: of_bytes(&[before.as_bytes()]),
            after: Digest::default(),
            content: of_bytes(&[content.as_bytes()]),
            is_unique,
            id: format!("{before}/{content}"),
            last_id: format!("last of {before}/{content}"),
            ours: Ours::default(),
            has_hidden: true,
            messages: vec![Message::user_text("hidden")],
            handover: Handover::default(),
        }
    }

    #[track_caller]
    fn check(standins: &Standins, caller: &str, content: &str, before: &str, found: Option<&str>) {
        let (content, before) = (of_bytes(&[content.as_bytes()]), of_bytes(&[before.as_bytes()]));
        let standin = standins.by_content(&caller.into(), content, before);
        assert_eq!(standin.map(|standin| standin.last_id.clone()).as_deref(), found);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_without_ids_is_known_only_after_its_own_history() {
        let standins = Standins::new(Duration::from_secs(60));
        standins.keep(&"a".into(), kept("done", "one", false));
        standins.keep(&"a".into(), kept("done", "two", false));
        standins.keep(&"a".into(), kept("call", "one", true));
        check(&standins, "a", "done", "one", Some("last of one/done"));
        check(&standins, "a", "done", "two", Some("last of two/done"));
        check(&standins, "a", "done", "three", None);
        check(&standins, "a", "call", "three", Some("last of one/call"));
        check(&standins, "b", "done", "one", None);
        check(&standins, "b", "call", "one", None);
        assert!(standins.by_id(&"a".into(), "one/done").is_some());
        assert!(standins.by_id(&"b".into(), "one/done").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn of_an_expired_message_stays_that_it_was_there() {
        let standins = Standins::new(Duration::from_secs(60));
        standins.keep(&"a".into(), kept("done", "one", false));
        let id = || standins.by_id(&"a".into(), "one/done").unwrap();
        assert_eq!(id().messages().unwrap().len(), 1);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(id().messages().is_none());
    }
}
