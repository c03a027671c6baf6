//! Who changed what: every deed of a person that changes how calls are run, kept for good.
//!
//! From whoever is on call, at the terminal or over HTTP. To the audit trail, and to every process: the last deed about a
//! subject is the order that stands, so that nothing can hold that the trail does not tell of.

use serde_json::{Value, json};

/// One deed.
#[derive(Clone, Debug, PartialEq)]
pub struct Deed {
    /// Its number: what is done later has a larger one. 0 for one that is not kept yet.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who: the name of their key, or where they did it.
    pub who: String,
    /// Their team.
    pub project: Option<String>,
    /// What.
    pub action: Action,
    /// To what: a tool, a limit group, a run, an approval, a key. Empty where there is only one.
    pub target: String,
    /// The rest, such as the reason. No secret is ever in it.
    pub detail: Value,
}

/// What somebody did, in the words of the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// `pause`
    Pause,
    /// `unpause`
    Unpause,
    /// `tools disable`
    DisableTool,
    /// `tools enable`
    EnableTool,
    /// `limits set`
    SetLimits,
    /// `limits reset`
    ResetLimits,
    /// `breaker open`
    OpenBreaker,
    /// `breaker close`
    CloseBreaker,
    /// `approvals approve`
    Approve,
    /// `approvals deny`
    Deny,
    /// `runs approve`: a proposed run may begin.
    ApproveRun,
    /// `runs deny`
    DenyRun,
    /// `runs cancel`
    CancelRun,
    /// `runs prune`
    PruneRuns,
    /// `keys add`
    AddKey,
    /// `keys revoke`
    RevokeKey,
    /// `reload`
    Reload,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 17] = [
        Self::Pause,
        Self::Unpause,
        Self::DisableTool,
        Self::EnableTool,
        Self::SetLimits,
        Self::ResetLimits,
        Self::OpenBreaker,
        Self::CloseBreaker,
        Self::Approve,
        Self::Deny,
        Self::ApproveRun,
        Self::DenyRun,
        Self::CancelRun,
        Self::PruneRuns,
        Self::AddKey,
        Self::RevokeKey,
        Self::Reload,
    ];

    /// The words that every surface uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::DisableTool => "tools disable",
            Self::EnableTool => "tools enable",
            Self::SetLimits => "limits set",
            Self::ResetLimits => "limits reset",
            Self::OpenBreaker => "breaker open",
            Self::CloseBreaker => "breaker close",
            Self::Approve => "approvals approve",
            Self::Deny => "approvals deny",
            Self::ApproveRun => "runs approve",
            Self::DenyRun => "runs deny",
            Self::CancelRun => "runs cancel",
            Self::PruneRuns => "runs prune",
            Self::AddKey => "keys add",
            Self::RevokeKey => "keys revoke",
            Self::Reload => "reload",
        }
    }

    /// The action of these words.
    pub fn of(words: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == words)
    }

    /// What it gives an order about, if it stands until another one does; two about the same are one after the other.
    pub const fn subject(self) -> Option<&'static str> {
        match self {
            Self::Pause | Self::Unpause => Some("pause"),
            Self::DisableTool | Self::EnableTool => Some("tool"),
            Self::SetLimits | Self::ResetLimits => Some("limits"),
            Self::OpenBreaker | Self::CloseBreaker => Some("breaker"),
            _ => None,
        }
    }
}

impl Deed {
    /// It as JSON, as every surface shows it.
    pub fn to_json(&self) -> Value {
        json!({
            "type": "deed", "id": self.number, "at_ms": self.at_ms, "who": self.who, "project": self.project,
            "action": self.action.as_str(), "target": self.target, "detail": self.detail,
        })
    }

    /// As it is kept; what cannot be read says why.
    pub(crate) fn read(
        (number, at_ms, who, project): (u64, u64, String, Option<String>),
        action: &str,
        target: String,
        detail: &str,
    ) -> Result<Self, String> {
        let action = Action::of(action).ok_or_else(|| format!("deed {number} is of no kind known here: `{action}`"))?;
        let detail = serde_json::from_str(detail).map_err(|error| format!("deed {number}: {error}"))?;
        Ok(Self { number, at_ms, who, project, action, target, detail })
    }
}
