//! One session: one run, and the task that drives its open batch.
//!
//! From [`server`](super::server): calls in the order of their arrival, and which of them are not wanted any more. To each
//! caller: that its call has started, and its outcome. The task ends with its last caller, or with the process.
//!
//! A batch is closed when it has grown and nothing in it is unanswered, and the next one is opened, so a session may last for
//! months; what outlives its call is the run's to remember.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fanout_agent::{Cancel, new_run_id};
use fanout_core::approval::Approver;
use fanout_core::call::{Call, CallId, ToolName};
use fanout_core::event::{Event, Recorder, RunKind, What};
use fanout_core::outcome::{CallError, ErrorCode, Outcome};
use fanout_core::run::{AtMost, Batch, Bounds, Run, RunOptions, Scheduler};
use fanout_core::tool::Progress;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::sync::watch::Receiver;

use super::offered::{Offered, of_project};
use crate::gateway::Tellers;
use crate::keys::Caller;

/// Once a batch has had so many calls it is closed at the next moment in which nothing is unanswered: enough that opening
/// one costs nothing beside them, few enough that an idle session is small.
const BATCH_CALLS: u32 = 256;

/// A batch that never has such a moment takes no more calls than this until it has one: what it remembers of each call is
/// small, and still has to end somewhere.
const BATCH_CALLS_MAX: u32 = 16_384;

/// Makes what asks people for the runs of a caller.
pub(super) type ApproverOf = dyn Fn(&Caller) -> Arc<dyn Approver> + Send + Sync;

/// What all sessions of a server share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) offered: Receiver<Arc<Offered>>,
    pub(super) scheduler: Scheduler,
    pub(super) tellers: Tellers,
    pub(super) approver: Arc<ApproverOf>,
    /// No new calls are taken from now on.
    pub(super) closing: Cancel,
    /// What still runs is stopped.
    pub(super) stop: Cancel,
}

impl Shared {
    /// What a call that arrives now can be of, for whoever belongs to this project.
    pub(super) fn offered(&self, project: Option<&str>) -> Arc<Offered> {
        of_project(&self.offered.borrow(), project)
    }
}

/// A session. Dropping it stops what still runs.
pub(super) struct Session {
    places: UnboundedSender<Waiting>,
    cancels: UnboundedSender<CallId>,
    calls: AtomicU64,
}

/// A call's place in the order of arrival, to be filled by whoever answers it. An unfilled one is passed over when it is
/// dropped.
pub(super) struct Place {
    call: CallId,
    fill: oneshot::Sender<Asked>,
    cancels: UnboundedSender<CallId>,
}

/// A place as the task sees it.
struct Waiting {
    call: CallId,
    asked: oneshot::Receiver<Asked>,
}

/// What a place is filled with.
struct Asked {
    tool: ToolName,
    input: Value,
    listener: Listener,
}

/// Who waits for one call.
struct Listener {
    steps: UnboundedSender<Step>,
    outcome: oneshot::Sender<Arc<Outcome>>,
}

/// How far a call is.
pub(super) enum Step {
    /// Its first attempt begins.
    Started,
    /// Its tool says how far it is.
    Progressed(Progress),
}

/// A call that was handed over. Dropping it cancels the call.
pub(super) struct Handed {
    /// How far it is; at its end when there will be nothing more.
    pub(super) steps: UnboundedReceiver<Step>,
    /// Ready when the call has ended; fails if the session ends first.
    pub(super) outcome: oneshot::Receiver<Arc<Outcome>>,
    _cancel: CancelOnDrop,
}

struct CancelOnDrop {
    call: CallId,
    cancels: UnboundedSender<CallId>,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        // No reader: the session is over, and everything in it has ended. A call that has ended stays as it is.
        let _ = self.cancels.send(self.call.clone());
    }
}

impl Session {
    /// Begins a session, and its run. Needs a runtime.
    pub(super) fn start(shared: &Shared, caller: Caller) -> Self {
        let (places, arriving) = unbounded_channel();
        let (cancels, cancelled) = unbounded_channel();
        let inbox = Inbox { arrivals: Arrivals { places: arriving, next: None }, cancelled };
        tokio::spawn(drive(shared.clone(), caller, inbox));
        Self { places, cancels, calls: AtomicU64::new(0) }
    }

    /// The next place in the order of arrival.
    pub(super) fn place(&self) -> Place {
        let call = CallId::from(format!("c{}", self.calls.fetch_add(1, Ordering::Relaxed) + 1));
        let (fill, asked) = oneshot::channel();
        // No reader: the session is over, and whoever fills the place is told so.
        let _ = self.places.send(Waiting { call: call.clone(), asked });
        Place { call, fill, cancels: self.cancels.clone() }
    }
}

impl Place {
    /// Hands the call over.
    pub(super) fn fill(self, tool: ToolName, input: Value) -> Handed {
        let (steps, taken) = unbounded_channel();
        let (outcome, has_ended) = oneshot::channel();
        // No reader: then nobody keeps the other ends, which says that there is no outcome.
        let _ = self.fill.send(Asked { tool, input, listener: Listener { steps, outcome } });
        let cancel = CancelOnDrop { call: self.call, cancels: self.cancels };
        Handed { steps: taken, outcome: has_ended, _cancel: cancel }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// What reaches a session's task.
struct Inbox {
    arrivals: Arrivals,
    cancelled: UnboundedReceiver<CallId>,
}

/// Calls in the order of their arrival.
struct Arrivals {
    places: UnboundedReceiver<Waiting>,
    /// The place whose turn it is.
    next: Option<Waiting>,
}

impl Arrivals {
    /// The next call in the order of arrival; `None` when there will be no more.
    ///
    /// # Cancellation
    /// Safe: the place whose turn it is is kept.
    async fn next(&mut self) -> Option<(CallId, Asked)> {
        loop {
            let place = match &mut self.next {
                Some(place) => place,
                None => self.next.insert(self.places.recv().await?),
            };
            let asked = (&mut place.asked).await;
            if let (Some(place), Ok(asked)) = (self.next.take(), asked) {
                return Some((place.call, asked));
            }
        }
    }
}

/// Keeps what happened to calls until the task tells their listeners.
#[derive(Default)]
struct Heard(Mutex<Vec<News>>);

enum News {
    Step(CallId, Step),
    Ended(CallId),
}

impl Recorder for Heard {
    fn record(&self, event: &Event) {
        let news = match &event.what {
            What::AttemptStarted { call, number: 1 } => News::Step(asked_as(call), Step::Started),
            What::CallProgress { call, progress } => News::Step(call.clone(), Step::Progressed(progress.clone())),
            // Of a plan the client knows nothing but the whole.
            What::CallEnded { outcome } | What::BundleEnded { outcome } if outcome.part_of.is_none() => {
                News::Ended(outcome.call.clone())
            }
            _ => return,
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(news);
    }
}

/// The call of the client's that a call belongs to: those of a plan are named after it, behind a `/`.
fn asked_as(call: &CallId) -> CallId {
    call.as_str().split_once('/').map_or_else(|| call.clone(), |(plan, _)| plan.into())
}

impl Heard {
    fn take(&self) -> Vec<News> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether a session goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    NextBatch,
    End,
}

async fn drive(shared: Shared, caller: Caller, mut inbox: Inbox) {
    let id = new_run_id();
    let heard = Arc::new(Heard::default());
    let mut options = RunOptions::new(id.clone());
    let (told, _) = shared.tellers.begin(&id, RunKind::Session, &caller, "an MCP session", None);
    options.recorder = Some(Arc::new((told, Arc::clone(&heard))));
    options.approver = Some((shared.approver)(&caller));
    let project = caller.project;
    options.caller = caller.id;
    options.caller_token = caller.token;
    // Calls of a session are no list that somebody wrote to be stopped at the first failure.
    options.stop_on_failure = false;
    let mut run = shared.scheduler.run(Arc::clone(&shared.offered(project.as_deref()).toolbox), options);
    run.record(|| What::RunStarted { kind: RunKind::Session, given: "".into() });
    let mut turn = 0;
    loop {
        turn += 1;
        let after = drive_batch(&shared, project.as_deref(), &mut run, &mut inbox, &heard).await;
        run.record(|| What::TurnEnded { turn });
        if after == After::End {
            break;
        }
    }
    run.record(|| What::RunEnded { status: "done", reason: None });
}

/// Drives one batch until it is time for the next.
async fn drive_batch(shared: &Shared, project: Option<&str>, run: &mut Run, inbox: &mut Inbox, heard: &Heard) -> After {
    let mut batch = run.batch();
    batch.commit();
    let mut listeners: HashMap<CallId, Listener> = HashMap::new();
    let (mut count, mut closing, mut stopped) = (0, false, false);
    loop {
        bound(&mut batch, shared.offered(project).calls_max);
        tokio::select! {
            biased;
            () = batch.progress() => {}
            Some(call) = inbox.cancelled.recv() => batch.cancel_call(&call, "the client cancelled the call"),
            arrived = inbox.arrivals.next(), if count < BATCH_CALLS_MAX && !closing => match arrived {
                Some((id, asked)) => {
                    take(&mut batch, &mut listeners, &shared.offered(project), count, id, asked);
                    count += 1;
                }
                None => {
                    batch.cancel("the session is over");
                    closing = true;
                }
            },
            _ = shared.closing.cancelled(), if !closing => closing = true,
            reason = shared.stop.cancelled(), if !stopped => {
                batch.cancel(&reason);
                (closing, stopped) = (true, true);
            }
        }
        tell(&mut batch, &mut listeners, heard);
        if batch.unanswered() == 0 {
            if closing {
                return After::End;
            }
            if count >= BATCH_CALLS {
                return After::NextBatch;
            }
        }
    }
}

/// Has no more calls run than may be unanswered, those of plans included; one too many is answered and not run.
fn bound(batch: &mut Batch<'_>, calls_max: usize) {
    let room = calls_max.saturating_sub(batch.unanswered());
    let message = format!(
        "not run: {calls_max} calls of this session are unanswered (`max_calls`); send it again when some have ended"
    );
    let most = AtMost { count: batch.asked().saturating_add(room), error: CallError::new(ErrorCode::Budget, message) };
    batch.set_bounds(Bounds { blocks: None, calls: Some(most) });
}

/// Takes one call into the batch, unless its caller is gone by now.
fn take(
    batch: &mut Batch<'_>,
    listeners: &mut HashMap<CallId, Listener>,
    offered: &Offered,
    at: u32,
    id: CallId,
    asked: Asked,
) {
    if asked.listener.outcome.is_closed() {
        return;
    }
    if !Arc::ptr_eq(batch.toolbox(), &offered.toolbox) {
        batch.set_toolbox(Arc::clone(&offered.toolbox));
    }
    let taken = batch.call(Call::new(at, id.clone(), asked.tool, asked.input));
    // Ids count up and no call names another, so there is nothing to refuse; and if there were, the caller would be told by
    // the end that is dropped here.
    if taken.is_ok() {
        listeners.insert(id, asked.listener);
    }
}

/// Tells callers what happened to their calls, and lets the batch forget what it need not know any more.
fn tell(batch: &mut Batch<'_>, listeners: &mut HashMap<CallId, Listener>, heard: &Heard) {
    for news in heard.take() {
        match news {
            News::Step(call, step) => {
                if let Some(listener) = listeners.get(&call) {
                    // Who does not want to know does not keep the other end.
                    let _ = listener.steps.send(step);
                }
            }
            News::Ended(call) => {
                if let (Some(outcome), Some(listener)) = (batch.take(&call), listeners.remove(&call)) {
                    let _ = listener.outcome.send(outcome);
                }
            }
        }
    }
}
