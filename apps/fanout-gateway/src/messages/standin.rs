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
use fanout_anthropic::{Message, Role};
use fanout_core::call::{CallerId, RunId};
use fanout_core::event::What;
use fanout_core::run::Past;
use fanout_host::runs::unfinished;
use fanout_journal::Journal;
use fanout_journal::memo::Memo;
use fanout_journal::store::StoreError;
use tokio::time::Instant;

use super::canonical::{self, Digest};
use super::stored;

/// So many bytes of messages are kept, in all. The oldest go first.
const BYTES_MAX: usize = 256 * 1024 * 1024;

/// So many messages are remembered, in all, expired ones included.
const REMEMBERED_MAX: usize = 100_000;

/// A message that was returned: what it is known by, and what of it does not expire while the process lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Returned {
    /// The history before it.
    pub(crate) before: Digest,
    pub(crate) content: Digest,
    pub(crate) is_unique: bool,
    /// The id that the client knows it by.
    pub(crate) id: String,
    /// The upstream's id of the last message behind it, which a thread is continued from.
    pub(crate) last_id: String,
    pub(crate) ours: Ours,
    /// Whether there is more behind it than the client saw.
    pub(crate) has_hidden: bool,
}

impl Returned {
    /// The history that it was said in, itself included.
    pub(crate) fn after(&self) -> Digest {
        canonical::then(self.before, Role::Assistant, self.content)
    }

    /// What it is found by, in the journal.
    fn keys(&self) -> Vec<String> {
        let mut keys = Wanted::said(self.content, self.before).keys();
        if !self.is_unique {
            keys.truncate(1);
        }
        keys.push(id_key(&self.id));
        keys
    }
}

/// What waits for a client's answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    pub(crate) handover: Handover,
    /// The run that began to run those of our calls that waited, and may have broken off.
    pub(crate) settled_by: Option<RunId>,
}

/// What stands behind one returned message.
#[derive(Debug)]
pub(crate) struct Standin {
    pub(crate) returned: Returned,
    /// How many bytes it holds.
    bytes: usize,
    /// The messages; `None` once they have expired.
    messages: Mutex<Option<Arc<[Message]>>>,
    /// What the client must answer, and our results that wait for that. Held while those that waited run, so that they run
    /// once.
    pub(crate) pending: tokio::sync::Mutex<Pending>,
}

impl Standin {
    pub(crate) fn new(returned: Returned, messages: Option<Vec<Message>>, pending: Pending) -> Self {
        let bytes = messages.as_ref().map_or(0, |messages| bytes_of(messages, &pending.handover));
        let messages = Mutex::new(messages.map(Into::into));
        Self { returned, bytes, messages, pending: tokio::sync::Mutex::new(pending) }
    }

    /// One of which the journal says no more than that it was there.
    fn expired(wanted: &Wanted) -> Self {
        let (content, before) = wanted.said.unwrap_or_default();
        let id = wanted.id.clone().unwrap_or_default();
        // What had nothing behind it was not kept.
        let returned = Returned { content, before, last_id: id.clone(), id, has_hidden: true, ..Returned::default() };
        Self::new(returned, None, Pending::default())
    }

    /// The messages behind it, if they have not expired.
    pub(crate) fn messages(&self) -> Option<Arc<[Message]>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn expire(&self) {
        *self.messages.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // Whoever holds it now is putting it into a request, and needs it no longer after that.
        if let Ok(mut pending) = self.pending.try_lock() {
            *pending = Pending::default();
        }
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
    pub(crate) async fn keep(
        &self,
        caller: &CallerId,
        returned: Returned,
        messages: Vec<Message>,
        handover: Handover,
        is_threaded: bool,
    ) {
        // The client has everything of another itself.
        let is_more = returned.has_hidden || is_threaded || !handover.calls.is_empty();
        let pending = Pending { handover, settled_by: None };
        let standin = Arc::new(Standin::new(returned, Some(messages), pending.clone()));
        self.state().add(caller, &standin, self.keep);
        if is_more {
            self.record(caller, &standin, &pending);
            self.recorded().await;
        }
    }

    /// Has one kept with what has become of it: before anything that is recorded later, and not waited for.
    pub(crate) fn record(&self, caller: &CallerId, standin: &Standin, pending: &Pending) {
        if let (Some(journal), Some(messages)) = (&self.journal, standin.messages()) {
            let (caller, keys) = (caller.to_string(), standin.returned.keys());
            let text = stored::write(&standin.returned, &messages, pending);
            journal.keep(Memo { caller, keys, text, keep: self.keep });
        }
    }

    /// Waits until what was recorded outlives the process.
    pub(crate) async fn recorded(&self) {
        if let Some(journal) = &self.journal
            && let Err(error) = journal.kept().await
        {
            tracing::warn!(%error, "what a message stands for does not outlive this process");
        }
    }

    /// What is known of the calls of this one that wait, before this run begins them: another process may have run them, or
    /// another run may have broken off in the middle.
    ///
    /// # Errors
    /// [`StoreError`]: nobody knows then what was done, so nothing may begin.
    pub(crate) async fn catch_up(
        &self,
        caller: &CallerId,
        standin: &Standin,
        pending: &mut Pending,
        own: &RunId,
    ) -> Result<Past, StoreError> {
        let Some(journal) = &self.journal else { return Ok(Past::default()) };
        let keys = vec![id_key(&standin.returned.id)];
        if let Some(Recalled::There(latest)) = recall(journal, caller, vec![keys]).await?.pop().flatten() {
            *pending = latest.pending.into_inner();
        }
        let mut past = Past::default();
        if let Some(earlier) = &pending.settled_by {
            let told = unfinished(journal, earlier, own).await?;
            let settling = told.iter().take_while(|told| !matches!(told.what, What::RunStarted { .. }));
            settling.for_each(|told| past.take(&told.what, told.number));
        }
        Ok(past)
    }

    /// Takes those of them into memory that are in the journal only.
    ///
    /// # Errors
    /// [`StoreError`]: nobody knows then what the client's history stands for.
    pub(crate) async fn fetch(&self, caller: &CallerId, mut wanted: Vec<Wanted>) -> Result<(), StoreError> {
        wanted.retain(|wanted| self.known(caller, wanted).is_none());
        let Some(journal) = self.journal.as_ref().filter(|_| !wanted.is_empty()) else { return Ok(()) };
        let found = recall(journal, caller, wanted.iter().map(Wanted::keys).collect()).await?;
        let mut state = self.state();
        for (wanted, found) in wanted.iter().zip(found) {
            let standin = match found {
                Some(Recalled::There(standin)) => *standin,
                Some(Recalled::Expired) => Standin::expired(wanted),
                None => continue,
            };
            // Another request may have been first.
            if state.find(caller, wanted).is_none() {
                state.add(caller, &Arc::new(standin), self.keep);
            }
        }
        Ok(())
    }

    /// What stands behind a message of this content that came after this history, of those that are in memory.
    pub(crate) fn by_content(&self, caller: &CallerId, content: Digest, before: Digest) -> Option<Arc<Standin>> {
        self.known(caller, &Wanted::said(content, before))
    }

    /// What stands behind the message that the client knows by this id.
    ///
    /// # Errors
    /// As for [`Standins::fetch`].
    pub(crate) async fn by_id(&self, caller: &CallerId, id: &str) -> Result<Option<Arc<Standin>>, StoreError> {
        let wanted = Wanted::id(id);
        self.fetch(caller, vec![wanted.clone()]).await?;
        Ok(self.known(caller, &wanted))
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

/// What the journal knows of one.
enum Recalled {
    There(Box<Standin>),
    Expired,
}

/// For each of these lists what the journal knows under the first of its keys that is known.
async fn recall(
    journal: &Journal,
    caller: &CallerId,
    keys: Vec<Vec<String>>,
) -> Result<Vec<Option<Recalled>>, StoreError> {
    let found = journal.store().recall(caller.to_string(), keys).await?;
    let standin = |text: Option<String>| text.and_then(|text| stored::read(&text)).map(Box::new);
    Ok(found.into_iter().map(|memo| Some(standin(memo?.text).map_or(Recalled::Expired, Recalled::There))).collect())
}

impl State {
    fn add(&mut self, caller: &CallerId, standin: &Arc<Standin>, keep: Duration) {
        self.bytes += standin.bytes;
        self.by_content.entry((caller.clone(), standin.returned.content)).or_default().push(Arc::clone(standin));
        self.by_id.insert((caller.clone(), standin.returned.id.clone()), Arc::clone(standin));
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
        let exact = known.iter().rev().find(|known| known.returned.before == before);
        exact.or_else(|| known.iter().rev().find(|known| known.returned.is_unique)).cloned()
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
            let key = (caller.clone(), old.returned.content);
            if let Some(known) = self.by_content.get_mut(&key) {
                known.retain(|known| !Arc::ptr_eq(known, &old));
                if known.is_empty() {
                    self.by_content.remove(&key);
                }
            }
            let id = (caller, old.returned.id.clone());
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

    async fn keep(standins: &Standins, content: &str, before: &str, is_unique: bool) {
        let returned = Returned {
            before: of_bytes(&[before.as_bytes()]),
            content: of_bytes(&[content.as_bytes()]),
            is_unique,
            id: format!("{before}/{content}"),
            last_id: format!("last of {before}/{content}"),
            has_hidden: true,
            ..Returned::default()
        };
        standins.keep(&"a".into(), returned, vec![Message::user_text("hidden")], Handover::default(), false).await;
    }

    #[track_caller]
    fn check(standins: &Standins, caller: &str, content: &str, before: &str, found: Option<&str>) {
        let (content, before) = (of_bytes(&[content.as_bytes()]), of_bytes(&[before.as_bytes()]));
        let standin = standins.by_content(&caller.into(), content, before);
        assert_eq!(standin.map(|standin| standin.returned.last_id.clone()).as_deref(), found);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_without_ids_is_known_only_after_its_own_history() {
        let standins = Standins::new(Duration::from_secs(60), None);
        keep(&standins, "done", "one", false).await;
        keep(&standins, "done", "two", false).await;
        keep(&standins, "call", "one", true).await;
        check(&standins, "a", "done", "one", Some("last of one/done"));
        check(&standins, "a", "done", "two", Some("last of two/done"));
        check(&standins, "a", "done", "three", None);
        check(&standins, "a", "call", "three", Some("last of one/call"));
        check(&standins, "b", "done", "one", None);
        check(&standins, "b", "call", "one", None);
        assert!(standins.by_id(&"a".into(), "one/done").await.unwrap().is_some());
        assert!(standins.by_id(&"b".into(), "one/done").await.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn of_an_expired_message_stays_that_it_was_there() {
        let standins = Standins::new(Duration::from_secs(60), None);
        keep(&standins, "done", "one", false).await;
        let id = async || standins.by_id(&"a".into(), "one/done").await.unwrap().unwrap();
        assert_eq!(id().await.messages().unwrap().len(), 1);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(id().await.messages().is_none());
    }
}
