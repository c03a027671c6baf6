//! What a returned message stands for: the messages behind it that its client never saw.
//!
//! From a run that ended: hidden turns, results that wait for the client. To the next request whose history holds the
//! returned message: the same bytes again, so that caches hold and thinking stays valid.
//!
//! Found by what the message says, or by its id, and only by the caller that it was returned to. A message that holds no id
//! of any call can be said in many conversations: it is known only after the same history. All of it is bounded and expires;
//! of an expired one stays that it was there. Where there is a journal it is kept there too, in the form of
//! [`stored`](super::stored), for a restart and for other processes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fanout_agent::{Handed, Handover, Ours};
use fanout_anthropic::Message;
use fanout_core::call::{CallerId, RunId};
use fanout_core::event::What;
use fanout_core::run::Past;
use fanout_host::runs::unfinished;
use fanout_journal::Journal;
use fanout_journal::memo::Memo;
use tokio::time::Instant;

use super::canonical::Digest;
use super::stored::Stored;

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
    pub(crate) handover: tokio::sync::Mutex<Pending>,
}

/// What waits for a client's answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    pub(crate) handover: Handover,
    /// The run that began to run those of our calls that waited, and may have broken off.
    pub(crate) settled_by: Option<RunId>,
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
    pub(crate) is_threaded: bool,
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
            *handover = Pending::default();
        }
    }

    /// One that is not in memory any more, as it was kept; `None` if it is not readable.
    fn of(text: &str) -> Option<Self> {
        let mut stored = Stored::read(text)?;
        let messages = std::mem::take(&mut stored.messages);
        let handover = std::mem::take(&mut stored.handover);
        Some(Self {
            after: stored.after,
            before: stored.before,
            content: stored.content,
            is_unique: stored.is_unique,
            id: stored.id,
            last_id: stored.last_id,
            ours: stored.ours,
            has_hidden: stored.has_hidden,
            bytes: bytes_of(&messages, &handover),
            messages: Mutex::new(Some(messages.into())),
            handover: tokio::sync::Mutex::new(Pending { handover, settled_by: stored.settled_by }),
        })
    }

    /// One of which the journal says no more than that it was there.
    fn expired(wanted: &Wanted) -> Self {
        let (content, before) = wanted.said.unwrap_or_default();
        Self {
            after: Digest::default(),
            before,
            content,
            // It was found by more than we could tell now.
            is_unique: false,
            id: wanted.id.clone().unwrap_or_default(),
            last_id: wanted.id.clone().unwrap_or_default(),
            ours: Ours::default(),
            has_hidden: true,
            bytes: 0,
            messages: Mutex::default(),
            handover: tokio::sync::Mutex::default(),
        }
    }

    /// As it is kept; `None` once it has expired.
    fn stored(&self, pending: &Pending) -> Option<String> {
        let stored = Stored {
            after: self.after,
            before: self.before,
            content: self.content,
            is_unique: self.is_unique,
            id: self.id.clone(),
            last_id: self.last_id.clone(),
            ours: self.ours.clone(),
            has_hidden: self.has_hidden,
            messages: self.messages()?.to_vec(),
            handover: pending.handover.clone(),
            settled_by: pending.settled_by.clone(),
        };
        Some(stored.write())
    }

    /// What it is found by, in the journal.
    fn keys(&self) -> Vec<String> {
        let exact = Wanted { id: None, said: Some((self.content, self.before)) };
        let mut keys = exact.keys();
        if !self.is_unique {
            keys.truncate(1);
        }
        keys.push(id_key(&self.id));
        keys
    }
}

/// Which is wanted: by its id, or by what it says and the history before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    id: Option<String>,
    said: Option<(Digest, Digest)>,
}

impl Wanted {
    pub(crate) fn said(content: Digest, before: Digest) -> Self {
        Self { id: None, said: Some((content, before)) }
    }

    fn id(id: &str) -> Self {
        Self { id: Some(id.to_owned()), said: None }
    }

    /// What it would be found by, the exact one first.
    fn keys(&self) -> Vec<String> {
        let said = self.said.iter().flat_map(|(content, before)| {
            let (content, before) = (content.to_hex(), before.to_hex());
            [format!("said/{content}/{before}"), format!("said/{content}")]
        });
        said.chain(self.id.as_deref().map(id_key)).collect()
    }
}

fn id_key(id: &str) -> String {
    format!("id/{id}")
}

fn bytes_of(messages: &[Message], handover: &Handover) -> usize {
    let messages: usize = messages.iter().map(|message| message.raw().as_str().len()).sum();
    let results = handover.calls.iter().map(|call| match call {
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
    journal: Option<Journal>,
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
    /// Messages are kept for so long; in the journal too, if there is one.
    pub(crate) fn new(keep: Duration, journal: Option<Journal>) -> Self {
        Self { state: Mutex::default(), keep, journal }
    }

    /// Keeps what stands behind a message that is about to be returned to this caller. When this is over it outlives the
    /// process, if the journal can be written at all.
    pub(crate) async fn keep(&self, caller: &CallerId, kept: Kept) {
        let bytes = bytes_of(&kept.messages, &kept.handover);
        let pending = Pending { handover: kept.handover, settled_by: None };
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
            handover: tokio::sync::Mutex::new(pending.clone()),
        });
        self.state().add(caller, &standin, self.keep);
        // The client has everything of another itself.
        let is_more = standin.has_hidden || kept.is_threaded || !pending.handover.calls.is_empty();
        if is_more {
            self.write(caller, &standin, &pending).await;
        }
    }

    /// Says that a run begins to run what waited in this one: before any of it is sent, and not waited for.
    pub(crate) fn settling(&self, caller: &CallerId, standin: &Standin, pending: &Pending) {
        let text = standin.stored(pending);
        if let (Some(journal), Some(text)) = (&self.journal, text) {
            journal.keep(Memo { caller: caller.to_string(), keys: standin.keys(), text, keep: self.keep });
        }
    }

    /// Keeps one with what has become of it.
    pub(crate) async fn write(&self, caller: &CallerId, standin: &Standin, pending: &Pending) {
        self.settling(caller, standin, pending);
        if let Some(journal) = &self.journal
            && let Err(error) = journal.kept().await
        {
            tracing::warn!(%error, "what a message stands for does not outlive this process");
        }
    }

    /// What is known of the calls that this run began to run for a client's answers and did not end.
    pub(crate) async fn past(&self, run: &RunId, own: &RunId) -> Past {
        let Some(journal) = &self.journal else { return Past::default() };
        match unfinished(journal, run, own).await {
            Ok(told) => {
                let mut past = Past::default();
                let settling = told.iter().take_while(|told| !matches!(told.what, What::RunStarted { .. }));
                settling.for_each(|told| past.take(&told.what, told.number));
                past
            }
            Err(error) => {
                tracing::warn!(%error, run = run.as_str(), "what its calls came to cannot be read");
                Past::default()
            }
        }
    }

    /// Takes those of them into memory that are in the journal only.
    pub(crate) async fn fetch(&self, caller: &CallerId, mut wanted: Vec<Wanted>) {
        let Some(journal) = &self.journal else { return };
        wanted.retain(|wanted| self.known(caller, wanted).is_none());
        if wanted.is_empty() {
            return;
        }
        let keys = wanted.iter().map(Wanted::keys).collect();
        let found = match journal.store().recall(caller.to_string(), keys).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "what earlier messages stand for cannot be read");
                return;
            }
        };
        let mut state = self.state();
        for (wanted, found) in wanted.iter().zip(found) {
            let standin = match found.map(|memo| memo.text) {
                Some(Some(text)) => Standin::of(&text),
                Some(None) => Some(Standin::expired(wanted)),
                None => None,
            };
            // Another request may have been first.
            if let Some(standin) = standin.filter(|_| state.find(caller, wanted).is_none()) {
                state.add(caller, &Arc::new(standin), self.keep);
            }
        }
    }

    /// What stands behind a message of this content that came after this history, of those that are in memory.
    pub(crate) fn by_content(&self, caller: &CallerId, content: Digest, before: Digest) -> Option<Arc<Standin>> {
        self.known(caller, &Wanted::said(content, before))
    }

    /// What stands behind the message that the client knows by this id.
    pub(crate) async fn by_id(&self, caller: &CallerId, id: &str) -> Option<Arc<Standin>> {
        let wanted = Wanted::id(id);
        self.fetch(caller, vec![wanted.clone()]).await;
        self.known(caller, &wanted)
    }

    fn known(&self, caller: &CallerId, wanted: &Wanted) -> Option<Arc<Standin>> {
        let mut state = self.state();
        state.forget_old(self.keep);
        state.find(caller, wanted)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, caller: &CallerId, standin: &Arc<Standin>, keep: Duration) {
        self.bytes += standin.bytes;
        self.by_content.entry((caller.clone(), standin.content)).or_default().push(Arc::clone(standin));
        self.by_id.insert((caller.clone(), standin.id.clone()), Arc::clone(standin));
        self.fresh.push_back((Instant::now(), Arc::clone(standin)));
        self.all.push_back((caller.clone(), Arc::clone(standin)));
        self.forget_old(keep);
    }

    fn find(&self, caller: &CallerId, wanted: &Wanted) -> Option<Arc<Standin>> {
        if let Some(id) = &wanted.id {
            return self.by_id.get(&(caller.clone(), id.clone())).cloned();
        }
        let (content, before) = wanted.said?;
        let known = self.by_content.get(&(caller.clone(), content))?;
        let exact = known.iter().rev().find(|known| known.before == before);
        exact.or_else(|| known.iter().rev().find(|known| known.is_unique)).cloned()
    }

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
            is_threaded: false,
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
        let standins = Standins::new(Duration::from_secs(60), None);
        standins.keep(&"a".into(), kept("done", "one", false)).await;
        standins.keep(&"a".into(), kept("done", "two", false)).await;
        standins.keep(&"a".into(), kept("call", "one", true)).await;
        check(&standins, "a", "done", "one", Some("last of one/done"));
        check(&standins, "a", "done", "two", Some("last of two/done"));
        check(&standins, "a", "done", "three", None);
        check(&standins, "a", "call", "three", Some("last of one/call"));
        check(&standins, "b", "done", "one", None);
        check(&standins, "b", "call", "one", None);
        assert!(standins.by_id(&"a".into(), "one/done").await.is_some());
        assert!(standins.by_id(&"b".into(), "one/done").await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn of_an_expired_message_stays_that_it_was_there() {
        let standins = Standins::new(Duration::from_secs(60), None);
        standins.keep(&"a".into(), kept("done", "one", false)).await;
        let id = async || standins.by_id(&"a".into(), "one/done").await.unwrap();
        assert_eq!(id().await.messages().unwrap().len(), 1);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(id().await.messages().is_none());
    }
}
