//! Calls that people have to agree to: asked about beside their waits in the batch.
//!
//! From the driver: whether somebody has to, and what they said. To [`Step::Ask`](super::Step::Ask), and to the call's way on.

use std::time::Duration;

use super::{Phase, Schedule};
use crate::graph::Ix;
use crate::outcome::CallError;

/// Whether people agree to a call, beside its waits in the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consent {
    /// Nobody has to.
    Free,
    /// Somebody has to, and is asked once its input is final and the response counts.
    Needed,
    /// Somebody was asked.
    Asked,
    /// They agree.
    Given,
}

impl Schedule {
    /// People have to agree to this call, as its final input says; told before [`Schedule::prepared`].
    pub fn needs_approval(&mut self, call: Ix) {
        if self.items[call].phase == Phase::Waiting {
            self.items[call].consent = Consent::Needed;
        }
    }

    /// Whether people have to agree to this call, once its input is final.
    pub fn needs_people(&self, call: Ix) -> Option<bool> {
        let item = &self.items[call];
        item.settled.then_some(item.consent != Consent::Free)
    }

    /// The answer to [`Step::Ask`](super::Step::Ask): people agree, or why the call ends. Its deadline has not begun yet.
    pub fn decided(&mut self, call: Ix, result: Result<(), CallError>, now: Duration) {
        let item = &mut self.items[call];
        if item.phase != Phase::Waiting || item.consent != Consent::Asked {
            return;
        }
        match result {
            Ok(()) => {
                item.consent = Consent::Given;
                self.try_enter(call, now);
            }
            Err(error) => self.end(call, error, now),
        }
    }

    /// A call that waits for others is asked about meanwhile.
    pub(super) fn ask_beside(&mut self, call: Ix, now: Duration) {
        if self.items[call].consent == Consent::Needed {
            self.try_enter(call, now);
        }
    }
}
