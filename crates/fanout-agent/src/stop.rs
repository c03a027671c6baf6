//! When a run ends, and as what.

use std::sync::Arc;
use std::time::Duration;

use fanout_anthropic::{ModelError, Usage};
use tokio::sync::watch;

use crate::budget::BudgetError;
use crate::client::Handover;
use crate::conversation::Conversation;

/// The final state of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// The model is done.
    Done,
    /// It cannot go on; the report's `reason` says why.
    Failed,
    /// A budget is used up.
    Budget,
    /// The model refused.
    Refused,
    /// It was stopped.
    Cancelled,
}

impl Status {
    /// The word that every surface uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Budget => "budget",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a run came to. The conversation is always one that the API takes: every call in it is answered.
#[derive(Clone, Debug)]
pub struct Report {
    /// The final state.
    pub status: Status,
    /// A short word or sentence, where the state alone does not say why.
    pub reason: Option<String>,
    /// When trying again makes sense: the model's API left no room before the run's time was over, or the day's cap is reached.
    pub retry_after: Option<Duration>,
    /// The text of the model's last answer; what there is of it, if the run did not end as `done`.
    pub answer: String,
    /// How often the model was asked and answered.
    pub turns: u32,
    /// How many calls were given an outcome.
    pub calls: u32,
    /// What all requests took.
    pub usage: Usage,
    /// What that cost, where the model's price is known.
    pub cost_usd: Option<f64>,
    /// How long the run took.
    pub elapsed: Duration,
    /// Everything that was said. With a `handover` its last message has calls that are not answered yet.
    pub conversation: Conversation,
    /// What the last turn left for the client to answer, where the run was a client's and ended so.
    pub handover: Option<Handover>,
}

/// Why a run stops before the model is done.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Failed(String),
    /// The API's limits leave no room before the run's time is over.
    RateLimited {
        reason: String,
        wait: Duration,
    },
    Budget(BudgetError),
    Refused,
    Cancelled(String),
}

impl End {
    /// Nothing more can be afforded, or it cannot be known.
    pub(crate) fn unaffordable(error: BudgetError) -> Self {
        match error {
            BudgetError::Unknown(_) => Self::Failed(error.to_string()),
            _ => Self::Budget(error),
        }
    }

    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Failed(_) | Self::RateLimited { .. } => Status::Failed,
            Self::Budget(_) => Status::Budget,
            Self::Refused => Status::Refused,
            Self::Cancelled(_) => Status::Cancelled,
        }
    }

    /// When trying again makes sense, where that is known.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { wait, .. } | Self::Budget(BudgetError::Day { ends_in: wait, .. }) => Some(*wait),
            Self::Failed(_) | Self::Budget(_) | Self::Refused | Self::Cancelled(_) => None,
        }
    }

    pub(crate) fn reason(&self) -> Option<String> {
        match self {
            Self::Failed(reason) | Self::RateLimited { reason, .. } | Self::Cancelled(reason) => Some(reason.clone()),
            Self::Budget(error) => Some(error.to_string()),
            Self::Refused => None,
        }
    }
}

/// A model's error in words, with what to look at.
pub(crate) fn explained(error: &ModelError) -> String {
    let id = error.request_id().map(|id| format!(" (request {id})")).unwrap_or_default();
    let hint = match error {
        ModelError::Status { status: 401 | 403, .. } => "; check the key: ANTHROPIC_API_KEY, or `api_key` in `[model]`",
        ModelError::Status { status: 404, .. } => "; check `name` and `base_url` in `[model]`",
        ModelError::Status { status: 429, retry_after: None, .. } => {
            "; no wait was named, so this may be a spending cap: look at the account's limits before trying again"
        }
        ModelError::Connect { .. } => "; check ANTHROPIC_BASE_URL, or `base_url` in `[model]`",
        _ => "",
    };
    format!("{error}{id}{hint}")
}

/// Stops a run from outside. Clones stop the same run.
#[derive(Clone, Debug)]
pub struct Cancel(Arc<watch::Sender<Option<String>>>);

impl Default for Cancel {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Cancel {
    /// Stops the run: calls that were not sent are `cancelled`, and every call still gets its outcome. The first reason
    /// counts.
    pub fn cancel(&self, reason: &str) {
        self.0.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(reason.to_owned());
            }
            first
        });
    }

    /// The reason, once the run is stopped.
    pub fn reason(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Waits until the run is stopped, and gives the reason.
    pub async fn cancelled(&self) -> String {
        let mut receiver = self.0.subscribe();
        // What it borrows must be given back before the next await: it cannot move between threads.
        let reason = receiver.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // The sender is in `self`, so it cannot be gone.
            None => std::future::pending().await,
        }
    }
}
