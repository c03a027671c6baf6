//! The questions that wait for people, and what people decide: the one place for both.
//!
//! From the runs of this process, through an [`Approver`] each; from people, through the gateway and `fanout approvals`. To an
//! [`ApprovalStore`], which keeps them: in memory here, in the journal where there is one.
//!
//! A question is exact: its hash is that of the tool and the final input, and one approval lets one call run. Who may decide
//! is asked here; who somebody is, is found out elsewhere.

mod memory;

pub use memory::MemoryApprovals;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fanout_core::approval::{Approver, Asked, Decision, Question, Said};
use fanout_core::call::{ApprovalId, CallId, CallerId, RunId, ToolName};
use fanout_core::tool::BoxFuture;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::sync::watch;

/// A question that nobody has answered by then is closed: who would agree a day later agrees to something else.
pub const GOOD_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// More words than this, in bytes, are no remark on one call any more.
pub const WORDS_MAX: usize = 4096;

/// One question, as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Approval {
    /// Its id, such as `apr_5d41402abc4b2a76b9719d91`: the same for the same call with the same input.
    pub id: ApprovalId,
    /// The run that asked first.
    pub run: RunId,
    /// The call that asked first.
    pub call: CallId,
    /// Who began the run: it belongs to them.
    pub caller: CallerId,
    /// Their team.
    pub project: Option<String>,
    /// The tool.
    pub tool: ToolName,
    /// The final input: what was judged is what runs.
    pub input: Arc<Value>,
    /// SHA-256 over tool and canonical input, in hexadecimal digits.
    pub hash: String,
    /// When it was asked, in milliseconds since 1970.
    pub asked_ms: u64,
    /// From when on nobody can decide it, nor a call use it.
    pub expires_ms: u64,
    /// The call that waits for it, or that ran by it; `None`: its wait is over, and the next call that is the same takes it up.
    pub holder: Option<(RunId, CallId)>,
    /// What was decided; the first decision stays.
    pub ruling: Option<Ruling>,
    /// A call has begun by it, and no other may.
    pub is_used: bool,
    /// Its call ended otherwise, so there is nothing to decide.
    pub is_withdrawn: bool,
}

/// What somebody decided, and when: kept as a record of who let what happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// Whether the call may run.
    pub is_approved: bool,
    /// Who: the name of their key.
    pub by: String,
    /// Their words for the model.
    pub words: Option<String>,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

impl Approval {
    /// Its state in one word, at that time: `open`, `approved`, `denied`, `expired` or `withdrawn`.
    pub fn state(&self, now_ms: u64) -> &'static str {
        match &self.ruling {
            Some(ruling) if ruling.is_approved => "approved",
            Some(_) => "denied",
            None if self.is_withdrawn => "withdrawn",
            None if self.expires_ms <= now_ms => "expired",
            None => "open",
        }
    }

    /// It as JSON, as every surface shows it, by the present time.
    pub fn to_json(&self) -> Value {
        let decided = self.ruling.as_ref().map(|ruling| {
            let decision = if ruling.is_approved { "approved" } else { "denied" };
            json!({ "decision": decision, "by": ruling.by, "words": ruling.words, "at_ms": ruling.at_ms })
        });
        json!({
            "type": "approval", "id": self.id.as_str(), "state": self.state(now_ms()), "run": self.run.as_str(),
            "call": self.call.as_str(), "caller": self.caller.as_str(), "project": self.project,
            "tool": self.tool.as_str(), "input": *self.input, "hash": self.hash, "asked_at_ms": self.asked_ms,
            "expires_at_ms": self.expires_ms, "decided": decided, "used": self.is_used,
        })
    }

    /// Whether a call that is the same may take it up: its first one stopped waiting, and nothing speaks against it.
    pub fn is_free(&self, now_ms: u64) -> bool {
        let is_denied = self.ruling.as_ref().is_some_and(|ruling| !ruling.is_approved);
        self.holder.is_none() && !self.is_used && !self.is_withdrawn && !is_denied && self.expires_ms > now_ms
    }
}

/// Where questions are kept. Each method is one step: two at once come one after the other, in whatever process they are.
pub trait ApprovalStore: Send + Sync + 'static {
    /// The question of this call: the one that it holds already, with the same hash; else one of the same caller and hash that
    /// is free ([`Approval::is_free`]); else `asked` itself, put in. `asked.holder` holds it afterwards, and it is not
    /// withdrawn.
    fn ask(&self, asked: Approval) -> BoxFuture<'static, Result<Approval, StoreError>>;

    /// Sets the ruling of an open question; one that is not open stays as it is. Answers how it stands, `None` if there is no
    /// such question.
    fn decide(&self, id: ApprovalId, ruling: Ruling) -> BoxFuture<'static, Result<Option<Approval>, StoreError>>;

    /// The holder does this with the question; of somebody else nothing happens.
    fn part(
        &self,
        id: ApprovalId,
        holder: (RunId, CallId),
        parting: Parting,
    ) -> BoxFuture<'static, Result<(), StoreError>>;

    /// One question.
    fn get(&self, id: ApprovalId) -> BoxFuture<'static, Result<Option<Approval>, StoreError>>;

    /// Questions that the filter lets through, newest first, behind `after` if it is there.
    fn list(&self, filter: Filter, after: Option<ApprovalId>) -> BoxFuture<'static, Result<Vec<Approval>, StoreError>>;

    /// Changes whenever a question may have been decided, here or by another process.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// How a call parts from its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// It runs by it, and no other will.
    Uses,
    /// It waits no longer; the question stays open for the same call made again.
    LetsGo,
    /// It ended otherwise: the question is taken back.
    Withdraws,
}

/// Which questions are listed.
#[derive(Clone, Debug)]
pub struct Filter {
    /// For whom.
    pub viewer: Viewer,
    /// Only those that can be decided.
    pub is_open: bool,
    /// At most so many.
    pub count_max: usize,
    /// The time that it is asked at, in milliseconds since 1970.
    pub now_ms: u64,
}

impl Filter {
    /// Whether it lets this question through.
    pub fn takes(&self, approval: &Approval) -> bool {
        self.viewer.sees(approval) && (!self.is_open || approval.state(self.now_ms) == "open")
    }
}

/// Somebody who looks at questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Viewer {
    /// Who.
    pub caller: CallerId,
    /// Their team.
    pub project: Option<String>,
    /// They see all, and may decide all.
    pub is_admin: bool,
    /// They may decide those of their team.
    pub may_approve: bool,
}

impl Viewer {
    /// Whether they may know of it: it is their own, or one that they may decide.
    pub fn sees(&self, approval: &Approval) -> bool {
        self.caller == approval.caller || self.may_decide(approval)
    }

    /// Whether they may decide it.
    pub fn may_decide(&self, approval: &Approval) -> bool {
        self.is_admin || (self.may_approve && self.project == approval.project)
    }
}

/// Why questions cannot be kept or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// As many as there is place for are open.
    #[error("{0} approvals are open already, and no more are kept: decide some, or let them expire")]
    Full(usize),
    /// The store fails.
    #[error("approvals cannot be kept: {0}")]
    Broken(String),
}

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
}

impl Approvals {
    /// Questions in this store, each good for so long.
    pub fn new(store: Arc<dyn ApprovalStore>, good_for: Duration) -> Self {
        Self { store, good_for }
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

/// Now, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
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
        let (store, wait) = (Arc::clone(&self.approvals.store), self.wait);
        let asked = self.approvals.question(question, self.project.clone());
        Box::pin(async move {
            // Subscribed before it is asked: a decision in between is seen.
            let changes = store.changes();
            let holder = asked.holder.clone();
            let asked = store.ask(asked).await.map_err(|error| error.to_string())?;
            let Some(holder) = holder else { return Err("the question has no call".to_owned()) };
            let held = Held { store, id: asked.id.clone(), holder, is_open: true };
            Ok(Asked { approval: asked.id, decision: Box::pin(decision(held, changes, wait)) })
        })
    }
}

/// Waits until somebody decides, the question expires, or `wait` is over.
async fn decision(mut held: Held, mut changes: watch::Receiver<u64>, wait: Option<Duration>) -> Decision {
    let until = wait.and_then(|wait| tokio::time::Instant::now().checked_add(wait));
    loop {
        changes.mark_unchanged();
        let found = match held.store.get(held.id.clone()).await {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(approval = held.id.as_str(), error = %error, "an approval cannot be read: its call is denied");
                None
            }
        };
        let Some(found) = found else { return Decision::Expired };
        let now = now_ms();
        if let Some(ruling) = found.ruling {
            let said = Said { by: Some(ruling.by.into()), words: ruling.words.map(Into::into) };
            return match ruling.is_approved {
                true => held.part(Parting::Uses).await.map_or(Decision::Expired, |()| Decision::Approved(said)),
                false => {
                    held.is_open = false;
                    Decision::Denied(said)
                }
            };
        }
        if found.expires_ms <= now {
            held.is_open = false;
            return Decision::Expired;
        }
        let expires = tokio::time::sleep(Duration::from_millis(found.expires_ms - now));
        tokio::select! {
            biased;
            changed = changes.changed() => if changed.is_err() {
                return Decision::Expired;
            },
            () = over(until) => {
                let _ = held.part(Parting::LetsGo).await;
                return Decision::Expired;
            }
            () = expires => {}
        }
    }
}

async fn over(until: Option<tokio::time::Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// A question that a call holds. Dropping it while it is open takes it back.
struct Held {
    store: Arc<dyn ApprovalStore>,
    id: ApprovalId,
    holder: (RunId, CallId),
    is_open: bool,
}

impl Held {
    /// Parts from it. If the store fails, nothing may run by it.
    async fn part(&mut self, parting: Parting) -> Result<(), StoreError> {
        self.is_open = false;
        let parted = self.store.part(self.id.clone(), self.holder.clone(), parting).await;
        if let Err(error) = &parted {
            tracing::error!(approval = self.id.as_str(), error = %error, "an approval cannot be written: its call is denied");
        }
        parted
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        let withdrawn = self.store.part(self.id.clone(), self.holder.clone(), Parting::Withdraws);
        // Outside of a runtime the process is on its way out; the question is asked again by whoever resumes the run.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(withdrawn);
        }
    }
}
