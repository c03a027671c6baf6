//! Requests that came before: the same `Idempotency-Key` from the same caller is one run.
//!
//! From [`routes::tool_calls`](crate::routes). To it: the batch that runs or ran under the key, or leave to start one.
//!
//! What runs and what ended lately is in memory. The ids of runs are made from caller and key, so that the tools' own idempotency keys
//! stay the same on any process, and so that the journal knows what became of a key that no process remembers.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fanout_core::call::{CallerId, RunId};
use fanout_journal::Journal;
use fanout_journal::memo::Memo;
use http::{HeaderMap, StatusCode};
use ring::digest::{Context, SHA256};
use tokio::sync::watch;

use crate::batch::{Running, Told};
use crate::error::ApiError;
use crate::keys::Caller;
use crate::routes::unkept;

/// The header's name.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// How long an answer is kept after its batch ended.
const KEPT: Duration = Duration::from_secs(10 * 60);
/// How long the journal knows which body a key came with. Runs are kept for longer only if nobody prunes them.
const KNOWN: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// At most so many answers are kept, running ones included.
const ENTRIES_MAX: usize = 10_000;
/// At most so many bytes of answers are kept; what is asked for now comes on top.
const BYTES_MAX: usize = 256 * 1024 * 1024;
/// Longer keys are refused: a key is a name, and it is kept.
const KEY_MAX: usize = 255;

/// Whose key, and which.
type Id = (CallerId, String);

/// The batches by caller and key.
#[derive(Default)]
pub(crate) struct Repeats {
    kept: Mutex<Kept>,
    /// What finished answers take, kept or still on their way to a client.
    pub(crate) bytes: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Kept {
    entries: HashMap<Id, Entry>,
    /// In the order in which they began.
    order: VecDeque<Id>,
}

struct Entry {
    body: [u8; 32],
    running: Arc<Running>,
}

/// What is asked for under a key.
pub(crate) struct Request {
    caller: CallerId,
    key: String,
    body: [u8; 32],
}

impl Request {
    /// What these headers and this body ask for; `None` without a key: then two requests are two runs.
    ///
    /// # Errors
    /// 400 for a key that is empty, too long or no text.
    pub(crate) fn of(headers: &HeaderMap, caller: &Caller, body: &str) -> Result<Option<Self>, ApiError> {
        let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
        let key = value.to_str().ok().map(str::trim).filter(|key| (1..=KEY_MAX).contains(&key.len()));
        let Some(key) = key else {
            let message = format!("the header `{IDEMPOTENCY_KEY}` must be a text of 1 to {KEY_MAX} characters");
            return Err(ApiError::invalid(message));
        };
        let body = sha256(&[body, caller.token_text()]);
        Ok(Some(Self { caller: caller.id.clone(), key: key.to_owned(), body }))
    }

    /// The run's id: the same for the same caller and key, on any process.
    pub(crate) fn run(&self) -> RunId {
        let hash = sha256(&[self.caller.as_str(), &self.key]);
        format!("run_{}", hex(&hash[..16])).into()
    }
}

impl Request {
    /// Whether the key came before, to whatever process: then its run is in the journal.
    ///
    /// # Errors
    /// 409 for another body under the key; 503 when the journal cannot be read: nobody knows then what was done.
    pub(crate) async fn is_known(&self, journal: &Journal) -> Result<bool, ApiError> {
        let found = journal.store().recall(self.caller.to_string(), vec![vec![self.memo_key()]]).await;
        let found = found.map_err(|error| unkept(&error))?.pop().flatten();
        match found.and_then(|memo| memo.text) {
            Some(body) if body == hex(&self.body) => Ok(true),
            Some(_) => Err(reused()),
            // With which body is forgotten.
            None if journal.run(&self.run()).await.map_err(|error| unkept(&error))?.is_some() => Err(reused()),
            None => Ok(false),
        }
    }

    /// What the journal keeps of it: to be kept before anything of its run.
    pub(crate) fn memo(&self) -> Memo {
        let keys = vec![self.memo_key()];
        Memo { caller: self.caller.to_string(), keys, text: hex(&self.body), keep: KNOWN }
    }

    fn memo_key(&self) -> String {
        format!("batch/{}", self.run())
    }
}

impl Repeats {
    /// Joins the batch under the key, or starts one.
    ///
    /// # Errors
    /// 409 for another body under the key, 503 when more batches with keys run than are kept.
    pub(crate) fn join(
        &self,
        request: Request,
        start: impl FnOnce() -> (Arc<Running>, watch::Receiver<Told>),
    ) -> Result<(Arc<Running>, watch::Receiver<Told>), ApiError> {
        let mut kept = self.kept();
        kept.forget(&self.bytes);
        let id = (request.caller, request.key);
        if let Some(entry) = kept.entries.get(&id) {
            if entry.body != request.body {
                return Err(reused());
            }
            return Ok((Arc::clone(&entry.running), entry.running.listen()));
        }
        if kept.entries.len() >= ENTRIES_MAX {
            return Err(full());
        }
        let (running, listener) = start();
        kept.entries.insert(id.clone(), Entry { body: request.body, running: Arc::clone(&running) });
        kept.order.push_back(id);
        Ok((running, listener))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Forgets what has ended long ago, and of the rest the oldest while there is too much of it. What runs is never
    /// forgotten; it stands in the way of younger ones only for as long as a run may take.
    fn forget(&mut self, bytes: &AtomicUsize) {
        while let Some(id) = self.order.front() {
            let ended_at = self.entries.get(id).map(|entry| entry.running.ended_at());
            let goes = match ended_at {
                None => true,
                Some(None) => false,
                Some(Some(at)) => {
                    at.elapsed() >= KEPT
                        || self.entries.len() >= ENTRIES_MAX
                        || bytes.load(Ordering::Relaxed) > BYTES_MAX
                }
            };
            if !goes {
                return;
            }
            self.entries.remove(id);
            self.order.pop_front();
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of texts, each with its length before it: no two lists of texts run together.
fn sha256(texts: &[&str]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for text in texts {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

fn reused() -> ApiError {
    let message = format!(
        "another body or another user's token was sent under this `{IDEMPOTENCY_KEY}`: take a new key for a new request"
    );
    ApiError::new(StatusCode::CONFLICT, "idempotency_key_reused", message)
}

fn full() -> ApiError {
    let message = format!("{ENTRIES_MAX} batches with an `{IDEMPOTENCY_KEY}` are running: try again later");
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_runs", message)
}
