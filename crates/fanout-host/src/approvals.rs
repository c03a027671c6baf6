//! The questions that wait for people, and what people decide: the one place for both.
//!
//! From the runs of this process, through an [`Approver`] each; from people, through the gateway and `fanout approvals`. To an
//! [`ApprovalStore`], which keeps them: in the journal, in memory where there is none.
//!
//! A question is exact: its hash is that of the tool and the final input, and one approval lets one call run. Who may decide
//! is asked here; who somebody is, is found out elsewhere.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanout_core::approval::{Approver, Asked, Decision, Question, Said};
use fanout_core::call::{ApprovalId, CallId, RunId, ToolName};
use fanout_core::tool::BoxFuture;
use fanout_journal::MemoryApprovals;
use fanout_journal::approvals::{Approval, ApprovalStore, Filter, Parting, Ruling, Viewer, now_ms};
use fanout_journal::store::StoreError;
use ring::digest::{SHA256, digest};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// A question that nobody has answered by then is closed: who would agree a day later agrees to something else.
pub const GOOD_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a decision that another process took may go unseen.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// More words than this, in bytes, are no remark on one call any more.
pub const WORDS_MAX: usize = 4096;

/// Why a decision does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecideError {
    /// There is none of that id, or the viewer may not know of it.
    #[error("there is no approval `{0}`")]
    Unknown(ApprovalId),
    /// They may see it and not decide.
    #[error("this key may not decide on approvals: `fanout keys add --approve` makes one that may")]
    NotPermitted,
    /// Somebody was first.
    #[error("`{id}` was {} by {} already, and that stays", if ruling.is_approved { "approved" } else { "denied" }, ruling.by)]
    Decided {
        /// Which.
        id: ApprovalId,
        /// The decision that counts.
        ruling: Ruling,
    },
    /// Its time is over.
    #[error("`{0}` has expired: the call has to be made again")]
    Expired(ApprovalId),
    /// Its call is over.
    #[error("`{0}` was taken back: its call has ended otherwise")]
    Withdrawn(ApprovalId),
    /// Too many words.
    #[error("the words are {0} bytes long; at most {WORDS_MAX} are passed on to the model")]
    Words(usize),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The questions of a process. Cloning it copies a pointer.
#[derive(Clone)]
pub struct Approvals {
    store: Arc<dyn ApprovalStore>,
    good_for: Duration,
    /// Changes when a question may have been decided.
    changes: Arc<watch::Sender<u64>>,
    /// Somebody looks whether other processes have decided something.
    looking: Arc<AtomicBool>,
    /// Calls that wait for as long as it takes are not taken back: whoever comes next goes on with their runs.
    parked: Arc<AtomicBool>,
}

impl Approvals {
    /// Questions in this store, each good for so long.
    pub fn new(store: Arc<dyn ApprovalStore>, good_for: Duration) -> Self {
        Self { store, good_for, changes: Arc::default(), looking: Arc::default(), parked: Arc::default() }
    }

    /// Questions that end with the process.
    pub fn in_memory() -> Self {
        Self::new(Arc::new(MemoryApprovals::default()), GOOD_FOR)
    }

    /// What asks for the runs of a team. Each call waits for so long; `None`: until somebody decides, or the question expires.
    pub fn approver(&self, project: Option<String>, wait: Option<Duration>) -> Arc<dyn Approver> {
        Arc::new(Asking { approvals: self.clone(), project, wait })
    }

    /// Decides a question. Of several decisions the first counts; who repeats their own is answered as they were then.
    ///
    /// # Errors
    /// [`DecideError`] names the decision that counts, if there is one.
    pub async fn decide(
        &self,
        id: &ApprovalId,
        viewer: &Viewer,
        is_approved: bool,
        words: Option<String>,
    ) -> Result<Approval, DecideError> {
        let known = self.get(id, viewer).await?;
        if !viewer.may_decide(&known) {
            return Err(DecideError::NotPermitted);
        }
        let words = words.filter(|words| !words.trim().is_empty());
        if let Some(length) = words.as_ref().map(String::len).filter(|length| *length > WORDS_MAX) {
            return Err(DecideError::Words(length));
        }
        let by = viewer.caller.to_string();
        let ruling = Ruling { is_approved, by, words, at_ms: now_ms() };
        let decided = self.store.decide(id.clone(), ruling.clone()).await?;
        self.changes.send_modify(|count| *count += 1);
        let decided = decided.ok_or_else(|| DecideError::Unknown(id.clone()))?;
        match &decided.ruling {
            Some(first) if first.by == ruling.by && first.is_approved == is_approved => Ok(decided),
            Some(first) => Err(DecideError::Decided { id: id.clone(), ruling: first.clone() }),
            None if decided.is_withdrawn => Err(DecideError::Withdrawn(id.clone())),
            None => Err(DecideError::Expired(id.clone())),
        }
    }

    /// One question, as somebody may see it.
    ///
    /// # Errors
    /// [`DecideError::Unknown`] also for one that they may not know of; [`DecideError::Store`].
    pub async fn get(&self, id: &ApprovalId, viewer: &Viewer) -> Result<Approval, DecideError> {
        let found = self.store.get(id.clone()).await?;
        found.filter(|found| viewer.sees(found)).ok_or_else(|| DecideError::Unknown(id.clone()))
    }

    /// Questions, newest first, behind `after` if it is there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, filter: Filter, after: Option<ApprovalId>) -> Result<Vec<Approval>, StoreError> {
        self.store.list(filter, after).await
    }

    /// The calls of a run that is over wait no longer: what they asked is there for the same calls made again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn let_go(&self, run: &RunId) -> Result<(), StoreError> {
        self.store.let_go(run.clone()).await
    }

    /// From now on the questions of background runs stay as they are when their calls are dropped: the process is stopping, and
    /// whoever comes next goes on with those runs.
    pub fn park(&self) {
        self.parked.store(true, Ordering::Release);
    }

    /// What changes when a question may have been decided, here or by another process. Needs a runtime.
    fn changes(&self) -> watch::Receiver<u64> {
        let changes = self.changes.subscribe();
        if !self.looking.swap(true, Ordering::AcqRel) {
            tokio::spawn(self.clone().look());
        }
        changes
    }

    /// Looks whether other processes have decided something, for as long as anybody waits.
    async fn look(self) {
        let mut seen = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.changes.receiver_count() == 0 {
                self.looking.store(false, Ordering::Release);
                let is_idle = self.changes.receiver_count() == 0;
                if is_idle || self.looking.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
            // A store that fails is said by whoever waits.
            let found = self.store.decisions().await.ok();
            if found.is_some() && found != seen {
                seen = found;
                self.changes.send_modify(|count| *count += 1);
            }
        }
    }

    fn question(&self, question: Question, project: Option<String>) -> Approval {
        let Question { run, caller, call, tool, input } = question;
        let hash = hash(&tool, &input);
        let asked_ms = now_ms();
        let good_for = u64::try_from(self.good_for.as_millis()).unwrap_or(u64::MAX);
        Approval {
            id: id_of(&run, &call, &hash),
            holder: Some((run.clone(), call.clone())),
            run,
            call,
            caller,
            project,
            tool,
            input,
            hash,
            asked_ms,
            expires_ms: asked_ms.saturating_add(good_for),
            ruling: None,
            is_used: false,
            is_withdrawn: false,
        }
    }
}

impl fmt::Debug for Approvals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Approvals").field("good_for", &self.good_for).finish_non_exhaustive()
    }
}

/// SHA-256 over a tool's name and an input, in hexadecimal digits; in which order an object's fields were written is nothing.
pub fn hash(tool: &ToolName, input: &Value) -> String {
    let mut text = format!("{tool}\n");
    canonical(input, &mut text);
    hex(text.as_bytes())
}

fn id_of(run: &RunId, call: &CallId, hash: &str) -> ApprovalId {
    // Lengths stand before the parts, so that no two different ones are one text.
    let text = format!("{} {run}{} {call}{hash}", run.as_str().len(), call.as_str().len());
    format!("apr_{}", &hex(text.as_bytes())[..24]).into()
}

fn hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(key, _)| *key);
            text.push('{');
            for (at, (key, value)) in sorted.into_iter().enumerate() {
                text.push_str(if at == 0 { "" } else { "," });
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(elements) => {
            text.push('[');
            for (at, element) in elements.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { "," });
                canonical(element, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

/// Asks for the runs of one surface.
struct Asking {
    approvals: Approvals,
    project: Option<String>,
    wait: Option<Duration>,
}

impl Approver for Asking {
    fn ask(&self, question: Question) -> BoxFuture<'static, Result<Asked, String>> {
        let (approvals, wait) = (self.approvals.clone(), self.wait);
        let asked = approvals.question(question, self.project.clone());
        Box::pin(async move {
            // Subscribed before it is asked: a decision in between is seen.
            let changes = approvals.changes();
            let holder = asked.holder.clone();
            let asked = approvals.store.ask(asked).await.map_err(|error| error.to_string())?;
            let Some(holder) = holder else { return Err("the question has no call".to_owned()) };
            let parked = wait.is_none().then_some(approvals.parked);
            let held = Held { store: approvals.store, id: asked.id.clone(), holder, is_open: true, parked };
            Ok(Asked { approval: asked.id, decision: Box::pin(decision(held, changes, wait)) })
        })
    }
}

/// Waits until somebody decides, the question expires, or `wait` is over. A store that fails is asked again: nobody has
/// decided anything by that, and nothing runs before it is written that it does.
async fn decision(mut held: Held, mut changes: watch::Receiver<u64>, wait: Option<Duration>) -> Decision {
    let until = wait.and_then(|wait| Instant::now().checked_add(wait));
    let mut is_failing = false;
    loop {
        changes.mark_unchanged();
        let again = match held.look().await {
            Ok(Standing::Over(decision)) => return decision,
            Ok(Standing::Open { expires_ms }) => {
                is_failing = false;
                Duration::from_millis(expires_ms.saturating_sub(now_ms()))
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::error!(approval = held.id.as_str(), %error, "whether a call is approved cannot be read or written");
                }
                LOOK_EVERY
            }
        };
        tokio::select! {
            biased;
            changed = changes.changed() => if changed.is_err() {
                return Decision::Expired;
            },
            () = over(until) => {
                // Who takes it up is the next call that is the same.
                if let Err(error) = held.part(Parting::LetsGo).await {
                    tracing::error!(approval = held.id.as_str(), %error, "that a call waits no longer cannot be written");
                }
                return Decision::Expired;
            }
            () = sleep(again) => {}
        }
    }
}

/// How a question stands.
enum Standing {
    Open { expires_ms: u64 },
    Over(Decision),
}

async fn over(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// A question that a call holds. Dropping it while it is open takes it back.
struct Held {
    store: Arc<dyn ApprovalStore>,
    id: ApprovalId,
    holder: (RunId, CallId),
    is_open: bool,
    /// Set once it is to stay when its call is dropped.
    parked: Option<Arc<AtomicBool>>,
}

impl Held {
    /// How it stands. What is approved is the call's to run by afterwards, and no other's.
    async fn look(&mut self) -> Result<Standing, StoreError> {
        let Some(found) = self.store.get(self.id.clone()).await? else { return Ok(Standing::Over(Decision::Expired)) };
        let decision = match found.ruling {
            Some(Ruling { is_approved, by, words, .. }) => {
                let said = Said { by: Some(by.into()), words: words.map(Into::into) };
                if is_approved {
                    self.part(Parting::Uses).await?;
                    Decision::Approved(said)
                } else {
                    Decision::Denied(said)
                }
            }
            None if found.expires_ms <= now_ms() => Decision::Expired,
            None => return Ok(Standing::Open { expires_ms: found.expires_ms }),
        };
        self.is_open = false;
        Ok(Standing::Over(decision))
    }

    async fn part(&mut self, parting: Parting) -> Result<(), StoreError> {
        self.store.part(self.id.clone(), self.holder.clone(), parting).await?;
        self.is_open = false;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let is_parked = self.parked.as_ref().is_some_and(|parked| parked.load(Ordering::Acquire));
        if !self.is_open || is_parked {
            return;
        }
        let (store, id, holder) = (Arc::clone(&self.store), self.id.clone(), self.holder.clone());
        let withdrawn = async move {
            if let Err(error) = store.part(id.clone(), holder, Parting::Withdraws).await {
                tracing::error!(approval = id.as_str(), %error, "that a question is taken back cannot be written");
            }
        };
        // Outside of a runtime the process is on its way out; the question is asked again by whoever resumes the run.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(withdrawn);
        }
    }
}
