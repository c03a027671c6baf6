//! The questions that wait for people, as they are kept.
//!
//! From whoever asks and whoever decides. To an [`ApprovalStore`]: each step at it is one transaction, so that of two who decide at
//! once, in whatever processes, one is first.
//!
//! Who may ask or decide, and what follows from a decision, is not known here.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fanout_core::call::{ApprovalId, CallId, CallerId, RunId, ToolName};
use fanout_core::tool::BoxFuture;
use serde_json::{Value, json};

use crate::store::StoreError;

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

    /// Another id for it, where its own is that of a question which is no longer to be had: the same call asked it before.
    pub(crate) fn next_id(&self) -> ApprovalId {
        format!("{}{:x}", self.id, self.asked_ms).into()
    }

    /// Whether a call that is the same may take it up: its first one stopped waiting, and nothing speaks against it.
    pub fn is_free(&self, now_ms: u64) -> bool {
        let is_denied = self.ruling.as_ref().is_some_and(|ruling| !ruling.is_approved);
        self.holder.is_none() && !self.is_used && !self.is_withdrawn && !is_denied && self.expires_ms > now_ms
    }
}

/// Where questions are kept. Each method is one step: two at once come one after the other, in whatever process they are, and what one
/// answered for outlives the machine's power where the store does.
pub trait ApprovalStore: Send + Sync + 'static {
    /// The question of this call: the one that it holds already, with the same hash; else one of the same caller and hash that
    /// is free ([`Approval::is_free`]); else `asked` itself, put in. `asked.holder` holds it afterwards, and it is not
    /// withdrawn.
    fn ask(&self, asked: Approval) -> BoxFuture<'_, Result<Approval, StoreError>>;

    /// Sets the ruling of an open question; one that is not open stays as it is. Answers how it stands, `None` if there is no
    /// such question.
    fn decide(&self, id: ApprovalId, ruling: Ruling) -> BoxFuture<'_, Result<Option<Approval>, StoreError>>;

    /// The holder does this with the question; of somebody else nothing happens.
    fn part(&self, id: ApprovalId, holder: (RunId, CallId), parting: Parting) -> BoxFuture<'_, Result<(), StoreError>>;

    /// One question.
    fn get(&self, id: ApprovalId) -> BoxFuture<'_, Result<Option<Approval>, StoreError>>;

    /// Questions that the filter lets through, newest first, behind `after` if it is there.
    fn list(&self, filter: Filter, after: Option<ApprovalId>) -> BoxFuture<'_, Result<Vec<Approval>, StoreError>>;

    /// The calls of this run wait no longer: its open questions are free for the same calls made again.
    fn let_go(&self, run: RunId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// How many decisions there were, by whatever process. One that this counts is seen by [`ApprovalStore::get`] afterwards.
    fn decisions(&self) -> BoxFuture<'_, Result<u64, StoreError>>;
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

/// Now, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
