//! One batch that a client handed over, run in a task of its own, and told to whoever listens.
//!
//! From [`routes::tool_calls`](crate::routes): calls. To any number of listeners: how far each is, each result as it ends, then the whole
//! message. When the last listener is gone the batch is stopped, unless a call that must not be sent twice has begun:
//! then it ends, and its answer stays for who asks again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fanout_agent::reply;
use fanout_core::call::{Call, CallId, RunId};
use fanout_core::event::{Event, Recorder, RunKind, What};
use fanout_core::outcome::Outcome;
use fanout_core::run::{BatchError, Past, RunOptions};
use fanout_host::options::limits;
use fanout_host::runs::{Reopened, batch_given, elapsed};
use fanout_journal::memo::Memo;
use fanout_journal::store::StoreError;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::gateway::Shared;
use crate::keys::Caller;
use crate::touched::Touched;

/// A batch that was handed over.
pub(crate) struct Order {
    /// The id of its run.
    pub(crate) run: RunId,
    /// Who handed it over.
    pub(crate) caller: Caller,
    /// The calls that are ours, in program order; their ids differ.
    pub(crate) calls: Vec<Call>,
    /// The ids of those that are not.
    pub(crate) unhandled: Vec<CallId>,
    /// How long it goes on with nobody listening.
    pub(crate) grace: Duration,
    /// Whether it was handed over before.
    pub(crate) before: Before,
}

/// Whether a batch was handed over before, to a process that does not remember it.
pub(crate) enum Before {
    /// It has no key that it could be known by.
    Never,
    /// It was not; this is what will be known of it.
    Unknown(Memo),
    /// Its run is in the journal.
    Known,
}

/// What listeners have been told so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// A `tool_result` block for each call that ended, in the order of their ends.
    pub(crate) results: Vec<Arc<str>>,
    /// How far calls are that have not ended: the last word of each, with its place among all such words, from 1.
    pub(crate) progress: HashMap<CallId, (u64, Arc<str>)>,
    /// So many such words there were.
    pub(crate) progressed: u64,
    /// The whole answer, once there is one.
    pub(crate) whole: Option<Arc<str>>,
    /// There will be none: a fault of ours.
    pub(crate) lost: bool,
}

/// A batch that runs or ran.
pub(crate) struct Running {
    /// The id of its run.
    pub(crate) run: RunId,
    told: watch::Sender<Told>,
    ended_at: OnceLock<Instant>,
    /// What finished answers take, all of them together.
    kept_bytes: Arc<AtomicUsize>,
}

impl Running {
    /// Starts a batch. What is returned second listens to it already. Needs a runtime.
    pub(crate) fn start(
        order: Order,
        shared: &Arc<Shared>,
        kept_bytes: &Arc<AtomicUsize>,
    ) -> (Arc<Self>, watch::Receiver<Told>) {
        let (told, listener) = watch::channel(Told::default());
        let running = Arc::new(Self {
            run: order.run.clone(),
            told,
            ended_at: OnceLock::new(),
            kept_bytes: Arc::clone(kept_bytes),
        });
        let end = End(Arc::clone(&running));
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            let unhandled = order.unhandled.clone();
            let outcomes = drive(order, &shared, &end.0).await;
            if let Err(error) = &outcomes {
                tracing::error!(%error, run = end.0.run.as_str(), "a batch is lost");
            }
            end.0.finish(outcomes.as_deref().ok(), &unhandled);
        });
        (running, listener)
    }

    /// Listens from the beginning.
    pub(crate) fn listen(&self) -> watch::Receiver<Told> {
        let mut listener = self.told.subscribe();
        listener.mark_changed();
        listener
    }

    /// When it ended.
    pub(crate) fn ended_at(&self) -> Option<Instant> {
        self.ended_at.get().copied()
    }

    /// Waits until nobody has listened for so long.
    async fn abandoned(&self, grace: Duration) {
        loop {
            self.told.closed().await;
            tokio::time::sleep(grace).await;
            if self.told.receiver_count() == 0 {
                return;
            }
        }
    }

    fn finish(&self, outcomes: Option<&[Arc<Outcome>]>, unhandled: &[CallId]) {
        let whole = outcomes.map(|outcomes| whole(outcomes, unhandled));
        let _ = self.ended_at.set(Instant::now());
        self.kept_bytes.fetch_add(whole.as_ref().map_or(0, |whole| whole.len()), Ordering::Relaxed);
        self.told.send_modify(|told| {
            told.lost = whole.is_none();
            told.whole = whole;
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let kept = self.told.borrow().whole.as_ref().map_or(0, |whole| whole.len());
        self.kept_bytes.fetch_sub(kept, Ordering::Relaxed);
    }
}

/// Tells the listeners of a batch whose task is gone without an answer.
struct End(Arc<Running>);

impl Drop for End {
    fn drop(&mut self) {
        if self.0.ended_at().is_none() {
            self.0.finish(None, &[]);
        }
    }
}

/// Tells the listeners of each result. Of a plan's calls they know nothing but the whole.
struct Teller {
    running: Arc<Running>,
    asked: HashSet<CallId>,
}

impl Recorder for Teller {
    fn record(&self, event: &Event) {
        match &event.what {
            What::CallEnded { outcome } | What::BundleEnded { outcome } if outcome.part_of.is_none() => {
                let block = block(outcome);
                self.running.told.send_modify(|told| {
                    told.progress.remove(&outcome.call);
                    told.results.push(block);
                });
            }
            What::CallProgress { call, progress } if self.asked.contains(call) => {
                let word = serde_json::json!({
                    "tool_use_id": call.as_str(), "progress": progress.done, "total": progress.total,
                    "message": progress.message.as_deref(),
                });
                self.running.told.send_modify(|told| {
                    told.progressed += 1;
                    told.progress.insert(call.clone(), (told.progressed, word.to_string().into()));
                });
            }
            _ => {}
        }
    }
}

/// Why a batch has no outcomes.
#[derive(Debug, thiserror::Error)]
enum DriveError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Runs the calls within the configuration's bounds for one response and one run.
async fn drive(order: Order, shared: &Shared, running: &Arc<Running>) -> Result<Vec<Arc<Outcome>>, DriveError> {
    let current = shared.current();
    let toolbox = &current.tools_of(order.caller.project.as_deref()).toolbox;
    let asked = order.calls.iter().map(|call| call.id.clone()).collect();
    let title = order.calls.first().map_or(String::new(), |call| call.tool.to_string());
    let reopened = match (shared.journal(), order.before) {
        (Some(journal), Before::Known) => Reopened::take(journal, &order.run, &order.caller.id).await?,
        (Some(journal), Before::Unknown(memo)) => {
            journal.keep(memo);
            None
        }
        _ => None,
    };
    let (watch, _) = shared.tellers().begin(&order.run, RunKind::Batch, &order.caller, &title, reopened.as_ref());
    let given = batch_given(&order.calls);
    let teller = Teller { running: Arc::clone(running), asked };
    let touched = Touched::new(toolbox);
    let mut options = RunOptions::new(order.run.clone());
    options.caller = order.caller.id.clone();
    options.elapsed = reopened.as_ref().map(|reopened| elapsed(&reopened.told)).unwrap_or_default();
    options.caller_token = order.caller.token.clone();
    options.approver = Some(shared.approver(&order.caller));
    options.recorder = Some(Arc::new((watch, (teller, Arc::clone(&touched)))));
    let mut run = shared.scheduler.run(Arc::clone(toolbox), options);
    run.record(|| match &reopened {
        Some(_) => What::RunResumed,
        None => What::RunStarted { kind: RunKind::Batch, given },
    });
    let bounds = &current.config.run;
    let mut batch = run.batch();
    batch.set_bounds(limits(bounds).bounds(0, 0));
    if let Some(reopened) = &reopened {
        let mut past = Past::default();
        for (number, _, what) in reopened.events() {
            past.take(what, number);
            touched.take(what);
        }
        batch.remember(past);
    }
    for call in order.calls {
        batch.call(call)?;
    }
    batch.commit();
    let (deadline, abandoned) = (tokio::time::sleep(bounds.deadline), running.abandoned(order.grace));
    tokio::pin!(deadline, abandoned);
    let (mut stopped, mut watched) = (None, true);
    while batch.unanswered() > 0 {
        let reason = tokio::select! {
            biased;
            () = batch.progress() => continue,
            reason = shared.stop.cancelled(), if stopped.is_none() => reason,
            () = &mut deadline, if stopped.is_none() => "the run's deadline passed".to_owned(),
            () = &mut abandoned, if stopped.is_none() && watched => {
                watched = false;
                if touched.is_touched() {
                    continue;
                }
                "the client is gone".to_owned()
            }
        };
        batch.cancel(&reason);
        stopped = Some(reason);
    }
    let outcomes = batch.finish().await;
    let status = if stopped.is_some() { "cancelled" } else { "done" };
    run.record(|| What::RunEnded { status, reason: stopped });
    if let Some(kept) = run.teller().kept()
        && let Err(error) = kept.await
    {
        tracing::error!(%error, "what a batch came to is not kept");
    }
    Ok(outcomes)
}

/// One result as the block that goes to the model.
fn block(outcome: &Arc<Outcome>) -> Arc<str> {
    let message = reply(std::slice::from_ref(outcome));
    let blocks = message.blocks().unwrap_or_default();
    blocks.first().map_or_else(|| Arc::from("null"), |block| block.raw().as_str().into())
}

/// `{"role":"user","content":[…],"unhandled":[…]}`: the results in program order.
fn whole(outcomes: &[Arc<Outcome>], unhandled: &[CallId]) -> Arc<str> {
    let message = reply(outcomes);
    let ids: Vec<&str> = unhandled.iter().map(CallId::as_str).collect();
    let open = message.raw().as_str().trim_end_matches('}');
    format!("{open},\"unhandled\":{}}}", serde_json::json!(ids)).into()
}
