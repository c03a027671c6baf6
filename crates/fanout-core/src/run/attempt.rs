//! One attempt as a task, and what it holds while it lives.
//!
//! The task reports exactly once, whatever becomes of it: an answer, a panic, or being stopped. What it holds is released
//! when the last owner is gone, so work that nobody can stop keeps its locks for as long as it really goes on.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::shared::{LockGuard, Observed, PermitGuard};
use crate::approval::Decision;
use crate::call::{ApprovalId, CallId, ToolName};
use crate::effects::Effects;
use crate::event::NotKept;
use crate::graph::Ix;
use crate::limits::{GroupId, Refusal, Signal};
use crate::outcome::Output;
use crate::secrets::Secrets;
use crate::tool::{Attempt, Backing, BoxFuture, Progress, ToolError};
use crate::toolbox::Registered;

/// How often an attempt may say how far it is: fast enough to look at, slow enough that a far side which says it without end
/// fills neither memory nor journal. What comes sooner is left out.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// What the driver of a batch is told.
pub(super) enum Message {
    /// A call holds its locks.
    Locked(Ix),
    /// A permit is here.
    Permit(PermitGuard),
    /// One wish for a permit of this group will not be granted.
    Refused { group: GroupId, refusal: Refusal },
    /// Nothing starts in this group for so long.
    Paused { group: GroupId, wait: Duration },
    /// A running attempt was told that its whole group is to wait for so long, and has seen to that.
    WaitAsked { call: Ix, wait: Duration },
    /// Nobody watches the clock for those who wait for permits.
    Unwatched,
    /// The attempt of that number says how far it is.
    Progressed { call: Ix, number: u32, progress: Progress },
    /// A question about a call stands where people see it.
    Asked { call: Ix, which: usize, approval: ApprovalId },
    /// What came of that question of a call, or why nobody could be asked.
    Decided { call: Ix, which: usize, result: Result<(ApprovalId, Decision), String> },
    /// An attempt ended; the lease is released once nobody else holds it.
    Ended { call: Ix, result: Result<Output, ToolError>, lease: Arc<Lease> },
    /// Nothing of a call is left.
    Gone(Ix),
}

/// What an attempt holds.
pub(super) struct Lease {
    held: Mutex<Held>,
    /// Which try at its call it belongs to.
    number: u32,
}

struct Held {
    lock: Option<Arc<LockGuard>>,
    permit: Option<PermitGuard>,
    /// The limit group knows how the attempt ended.
    is_judged: bool,
    /// When was told last how far it is, and whether anybody wants to know: not of work that outlived its call.
    progressed_at: Option<Instant>,
    is_watched: bool,
    /// Who is told when all of it is gone.
    tell: Option<(UnboundedSender<Message>, Ix)>,
}

impl Lease {
    pub(super) fn new(
        lock: Option<Arc<LockGuard>>,
        permit: Option<PermitGuard>,
        tell: UnboundedSender<Message>,
        call: Ix,
        number: u32,
    ) -> Arc<Self> {
        let tell = Some((tell, call));
        let held = Held { lock, permit, is_judged: false, progressed_at: None, is_watched: true, tell };
        Arc::new(Self { held: Mutex::new(held), number })
    }

    /// Tells the limit group how the attempt ended. Only the first word counts: an answer that comes with its time-out does not.
    pub(super) fn observe(&self, signal: Option<Signal>, wait: Option<Duration>) -> Observed {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let signal = signal.filter(|_| !std::mem::replace(&mut held.is_judged, true));
        held.permit.as_ref().map_or_else(Observed::default, |permit| permit.observe(signal, wait))
    }

    /// Lets go of everything, though work may still be going on.
    pub(super) fn give_up(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let released = (held.lock.take(), held.permit.take());
        drop(held);
        drop(released);
    }

    /// From now on somebody else is told.
    fn tell(&self, tell: Option<(UnboundedSender<Message>, Ix)>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        (held.tell, held.is_watched) = (tell, false);
    }

    /// Releases everything without telling: the caller knows already. Answers `false` if somebody else still holds it.
    pub(super) fn release(self: Arc<Self>) -> bool {
        match Arc::into_inner(self) {
            Some(lease) => {
                lease.tell(None);
                true
            }
            None => false,
        }
    }
}

impl Backing for Lease {
    fn progressed(&self, progress: Progress) {
        let (mut held, now) = (self.held.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        if !held.is_watched || held.progressed_at.is_some_and(|at| now.duration_since(at) < PROGRESS_EVERY) {
            return;
        }
        held.progressed_at = Some(now);
        if let Some((tell, call)) = &held.tell {
            let _ = tell.send(Message::Progressed { call: *call, number: self.number, progress });
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Locks first: whoever is told next may ask for them at once.
        held.lock.take();
        held.permit.take();
        if let Some((tell, call)) = held.tell.take() {
            let _ = tell.send(Message::Gone(call));
        }
    }
}

/// Work that outlived its call, on its way to the run's next batch.
pub(super) struct Stray {
    pub(super) call: CallId,
    pub(super) tool: ToolName,
    pub(super) effects: Effects,
    pub(super) until: Duration,
    pub(super) lease: Weak<Lease>,
}

impl std::fmt::Debug for Stray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stray").field("call", &self.call).field("until", &self.until).finish_non_exhaustive()
    }
}

impl Stray {
    /// Has the given batch told when the work is gone. `None` if it is gone by now.
    pub(super) fn watch(&self, tell: &UnboundedSender<Message>, call: Ix) -> Option<Arc<Lease>> {
        let lease = self.lease.upgrade()?;
        lease.tell(Some((tell.clone(), call)));
        Some(lease)
    }
}

/// Whether an attempt begins.
pub(super) enum Begin {
    /// Once this has come to its end, if there is anything to wait for.
    Once(Option<BoxFuture<'static, Result<(), NotKept>>>),
    /// It does not.
    Refused(ToolError),
}

/// Starts an attempt in a task of its own: a tool that blocks its thread or panics harms nobody else.
pub(super) fn spawn(
    tool: Arc<Registered>,
    attempt: Attempt,
    begin: Begin,
    lease: Arc<Lease>,
    tell: UnboundedSender<Message>,
    call: Ix,
) -> AbortHandle {
    let mut report = Report { tell, call, lease: Some(lease) };
    let task = tokio::spawn(async move {
        let secrets = Arc::clone(&attempt.secrets);
        let result = match begin {
            Begin::Once(Some(kept)) => match kept.await {
                Ok(()) => caught(&tool, attempt).await,
                Err(error) => Err(ToolError::NotKept(error.to_string())),
            },
            Begin::Once(None) => caught(&tool, attempt).await,
            Begin::Refused(error) => Err(error),
        };
        report.send(without(&secrets, result));
    });
    task.abort_handle()
}

async fn caught(tool: &Registered, attempt: Attempt) -> Result<Output, ToolError> {
    let started = catch_unwind(AssertUnwindSafe(|| tool.service.run(attempt)));
    let mut future = started.map_err(panicked)?;
    let result = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll,
        Err(panic) => Poll::Ready(Err(panicked(panic))),
    })
    .await;
    // A panic while the future is taken down comes after the answer, and does not make it untrue.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(future)));
    result
}

/// What came back, without what nobody may see. It happens here, once and before anybody looks: model, references, events
/// and all that is made of them have the same bytes.
fn without(secrets: &Secrets, result: Result<Output, ToolError>) -> Result<Output, ToolError> {
    match result {
        Ok(mut output) => {
            secrets.hide_in_output(&mut output);
            Ok(output)
        }
        Err(error) => Err(error.hiding(secrets)),
    }
}

fn panicked(panic: Box<dyn Any + Send>) -> ToolError {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    ToolError::Panicked(text.unwrap_or_else(|| "no message".to_owned()))
}

/// Reports once: what the attempt came to, or that it was stopped.
struct Report {
    tell: UnboundedSender<Message>,
    call: Ix,
    lease: Option<Arc<Lease>>,
}

impl Report {
    fn send(&mut self, result: Result<Output, ToolError>) {
        if let Some(lease) = self.lease.take() {
            let _ = self.tell.send(Message::Ended { call: self.call, result, lease });
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.send(Err(ToolError::Stopped));
    }
}
