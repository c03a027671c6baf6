//! `[[notify]]`: others are told what happened, by signed webhooks.
//!
//! From the events of runs, and from whoever makes a [`Notice`]. To every address that asked for its kind: `hook` signs it and
//! sends it, in tasks of its own. Sending a notice never waits, and an address that is down delays nobody: not the run, and not the other
//! addresses. A notice may arrive twice, under one id. What is queued when the process is killed is lost, until somebody who kept
//! the notice sends it again: its id comes from the run and the event alone.

mod hook;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use fanout_core::call::RunId;
use fanout_core::event::{Event, Recorder, What};
use fanout_core::retry::Backoff;
use fanout_tools::http::HttpClient;
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use self::hook::{Hook, HookError, hooks};

/// So many notices wait for one address; a run ends rarely, and an outage of minutes must not eat the memory.
const QUEUE_MAX: usize = 10_000;

/// How often one notice is tried: for about two minutes on average, ten at most.
const BACKOFF: Backoff = Backoff { attempts: 8, base: Duration::from_secs(2), max: Duration::from_secs(300) };

/// What a notice is about. The words are those of `events` in `[[notify]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoticeKind {
    /// A run is over.
    RunEnded,
    /// A run ended since a budget was used up.
    Budget,
    /// Nothing is sent to an API for a while.
    BreakerOpen,
    /// A call waits for a person.
    Approval,
}

impl NoticeKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::RunEnded, Self::Budget, Self::BreakerOpen, Self::Approval];

    /// The word that every surface uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RunEnded => "run_ended",
            Self::Budget => "budget",
            Self::BreakerOpen => "breaker_open",
            Self::Approval => "approval",
        }
    }
}

/// One thing to tell. It holds nothing that a call was given or gave back.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// The same for the same event of the same run, whoever sends it and whenever: the receiver's means against doubles.
    pub id: String,
    /// What it is about.
    pub kind: NoticeKind,
    /// In which run it happened.
    pub run: RunId,
    /// When it happened.
    pub at: SystemTime,
    /// What there is to say of it, beside `type`, `id`, `run` and `at`.
    pub fields: Map<String, Value>,
}

impl Notice {
    /// A notice of what happened in a run. `which` tells it from others of its kind in that run, such as an approval's id.
    pub fn new(kind: NoticeKind, run: &RunId, which: &str, at: SystemTime, fields: Map<String, Value>) -> Self {
        let mut named = Vec::new();
        for part in [run.as_str(), kind.as_str(), which] {
            // The length parts them, whatever an id holds.
            named.extend_from_slice(&part.len().to_be_bytes());
            named.extend_from_slice(part.as_bytes());
        }
        let hash = digest(&SHA256, &named);
        let id = hash.as_ref()[..16].iter().fold("msg_".to_owned(), |id, byte| format!("{id}{byte:02x}"));
        Self { id, kind, run: run.clone(), at, fields }
    }

    /// What an event has to tell that happened at this moment: nothing, one notice or two.
    pub fn of(event: &Event, at: SystemTime) -> Vec<Self> {
        let (run, fields) = (&event.run, |value: Value| value.as_object().cloned().unwrap_or_default());
        match &event.what {
            What::RunEnded { status, reason } => {
                let said = fields(json!({ "status": status, "reason": reason }));
                let ended = Self::new(NoticeKind::RunEnded, run, "", at, said);
                let budget = || Self::new(NoticeKind::Budget, run, "", at, fields(json!({ "reason": reason })));
                let budget = (*status == "budget").then(budget);
                [ended].into_iter().chain(budget).collect()
            }
            What::BreakerOpened { group, wait } => {
                let said = fields(json!({ "limit": group.as_str(), "for_s": wait.as_secs_f64() }));
                let which = format!("{} {}", event.at.as_nanos(), group.as_str());
                vec![Self::new(NoticeKind::BreakerOpen, run, &which, at, said)]
            }
            What::ApprovalAsked { call, tool, approval } => {
                let said = json!({ "approval": approval.as_str(), "call": call.as_str(), "tool": tool.as_str() });
                vec![Self::new(NoticeKind::Approval, run, approval.as_str(), at, fields(said))]
            }
            _ => Vec::new(),
        }
    }

    /// What is sent.
    fn body(&self) -> Vec<u8> {
        let mut body = Map::new();
        body.insert("type".to_owned(), json!(self.kind.as_str()));
        body.insert("id".to_owned(), json!(self.id));
        body.insert("run".to_owned(), json!(self.run.as_str()));
        body.insert(
            "at".to_owned(),
            json!(DateTime::<Utc>::from(self.at).to_rfc3339_opts(SecondsFormat::Millis, true)),
        );
        body.extend(self.fields.iter().map(|(name, value)| (name.clone(), value.clone())));
        Value::Object(body).to_string().into_bytes()
    }
}

/// What became of notices, for each address counted on its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoticeCounts {
    /// Taken by their receiver.
    pub delivered: u64,
    /// Given up: refused, tried as often as they may be, or the process ended.
    pub failed: u64,
    /// Never tried: the queue was full.
    pub dropped: u64,
}

/// Takes notices for all addresses. Clones share the queues.
#[derive(Clone, Debug, Default)]
pub struct Notices {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Vec<Line>>,
    tally: Arc<Tally>,
}

/// The queue of one address and the task that empties it.
#[derive(Debug)]
struct Line {
    kinds: Vec<NoticeKind>,
    host: String,
    queue: mpsc::Sender<Notice>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Tally {
    waiting: AtomicU64,
    delivered: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

impl Notices {
    /// Starts a task for each of these addresses, on the present runtime. Without any, notices go nowhere.
    ///
    /// # Panics
    /// Outside of a tokio runtime, if there is an address.
    pub fn start(hooks: Vec<Hook>, client: &HttpClient) -> Self {
        Self::start_with(hooks, client, BACKOFF, QUEUE_MAX)
    }

    /// The same with another backoff and another bound on each queue.
    ///
    /// # Panics
    /// As [`Notices::start`].
    pub fn start_with(hooks: Vec<Hook>, client: &HttpClient, backoff: Backoff, queue_max: usize) -> Self {
        let notices = Self::default();
        let line = |hook: Hook| {
            let (queue, waiting) = mpsc::channel(queue_max.max(1));
            let (kinds, host) = (hook.kinds.clone(), hook.host());
            let task = tokio::spawn(hook.deliver(waiting, client.clone(), backoff, Arc::clone(&notices.shared.tally)));
            Line { kinds, host, queue, task }
        };
        let lines = hooks.into_iter().map(line).collect();
        *notices.shared.lines.lock().unwrap_or_else(PoisonError::into_inner) = lines;
        notices
    }

    /// Queues a notice for every address that asked for its kind. Never waits: for an address whose queue is full it is dropped,
    /// counted and logged.
    pub fn send(&self, notice: &Notice) {
        let tally = &self.shared.tally;
        for line in &*self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner) {
            if !line.kinds.contains(&notice.kind) {
                continue;
            }
            tally.waiting.fetch_add(1, Ordering::Relaxed);
            if line.queue.try_send(notice.clone()).is_err() {
                tally.waiting.fetch_sub(1, Ordering::Relaxed);
                tally.dropped.fetch_add(1, Ordering::Relaxed);
                let (host, id, kind) = (&line.host, &notice.id, notice.kind.as_str());
                tracing::warn!(
                    host,
                    id,
                    kind,
                    run = notice.run.as_str(),
                    "notice dropped: too many wait for this address"
                );
            }
        }
    }

    /// What became of the notices so far.
    pub fn counts(&self) -> NoticeCounts {
        let tally = &self.shared.tally;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        NoticeCounts { delivered: read(&tally.delivered), failed: read(&tally.failed), dropped: read(&tally.dropped) }
    }

    /// Takes no more notices, and waits until those that are queued have been sent or given up, at most so long. The rest is given
    /// up then, counted and logged.
    ///
    /// # Cancellation
    /// Dropping the future leaves the rest to be sent for as long as the runtime lives.
    pub async fn close(&self, grace: Duration) {
        let lines = std::mem::take(&mut *self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner));
        let until = tokio::time::Instant::now() + grace;
        let mut tasks = Vec::new();
        for Line { queue, task, .. } in lines {
            drop(queue);
            tasks.push(task);
        }
        for mut task in tasks {
            if tokio::time::timeout_at(until, &mut task).await.is_err() {
                task.abort();
                // Once it is gone it counts nothing any more.
                let _ = task.await;
            }
        }
        let left = self.shared.tally.waiting.swap(0, Ordering::Relaxed);
        if left > 0 {
            self.shared.tally.failed.fetch_add(left, Ordering::Relaxed);
            tracing::warn!(left, "notices given up: the process ends");
        }
    }
}

/// The events of any number of runs.
impl Recorder for Notices {
    fn record(&self, event: &Event) {
        for notice in Notice::of(event, SystemTime::now()) {
            self.send(&notice);
        }
    }
}
