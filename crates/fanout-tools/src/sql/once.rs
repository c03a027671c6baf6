//! The row that keeps a call from being carried out twice, as the transaction of the call sees it.
//!
//! From an attempt: whose row it is. To `postgres` and `sqlite`, which claim it before the first statement and fill it after the
//! last one.
//!
//! No database is known here.

use std::sync::Arc;

use fanout_core::once::{Once, from_text, to_text};
use fanout_core::outcome::Output;
use fanout_core::secrets::Secrets;
use fanout_core::tool::{Attempt, ToolError};

/// The row of a call.
#[derive(Debug)]
pub(super) struct OutcomeRow {
    pub(super) once: Arc<Once>,
    /// The run and the call.
    pub(super) key: [String; 2],
    secrets: Arc<Secrets>,
}

/// What a row says at the begin of a transaction.
#[derive(Debug)]
pub(super) enum Claimed {
    /// It is this transaction's, and stands there.
    At(String),
    /// The call was carried out before, and this is the text of what it came to.
    Before(String),
}

impl OutcomeRow {
    /// That of the attempt's call, if it is to have one.
    pub(super) fn of(attempt: &Attempt) -> Option<Self> {
        let once = Arc::clone(attempt.once.as_ref()?);
        let key = [attempt.run.to_string(), attempt.call.to_string()];
        Some(Self { once, key, secrets: Arc::clone(&attempt.secrets) })
    }

    /// What is kept of the outputs: as they are answered, so without secrets.
    pub(super) fn text(&self, outputs: &mut [Output]) -> String {
        outputs.iter_mut().for_each(|output| self.secrets.hide_in_output(output));
        to_text(outputs)
    }

    /// The outputs of a call of so many members, as they were kept.
    ///
    /// # Errors
    /// [`ToolError::Broken`]: it was carried out, and what it came to cannot be read.
    pub(super) fn outputs(&self, who: &str, text: &str, members: usize) -> Result<Vec<Output>, ToolError> {
        from_text(text).filter(|outputs| outputs.len() == members).ok_or_else(|| {
            ToolError::Broken(format!("{who} was carried out before, and the row of its outcome cannot be read"))
        })
    }

    /// There is a row that nobody sees: it went between two looks at it.
    pub(super) fn vanished(who: &str) -> ToolError {
        ToolError::RolledBack(format!("{who} met the row of its outcome while that was being removed"))
    }
}
