//! The same call with the same error, again and again: the model is stuck.
//!
//! From the loop, after each turn: the calls and what they came to. To it: whether the run ends.

use std::sync::Arc;

use fanout_core::call::{Call, Input, ToolName};
use fanout_core::outcome::{Content, Outcome};

/// So many equal calls with equal errors, one after another, end the run.
const REPEATS_MAX: u32 = 5;

/// The call that failed last, and how often in a row. Inputs are compared as values, errors as the model sees them.
#[derive(Default)]
pub(crate) struct Repeats {
    last: Option<(ToolName, Input, Arc<[Content]>)>,
    times: u32,
}

impl Repeats {
    /// Takes the outcomes of a turn, in order, and says in words what went on for too long, if anything did.
    pub(crate) fn take(&mut self, calls: &[Call], outcomes: &[Arc<Outcome>]) -> Option<String> {
        for (call, outcome) in calls.iter().zip(outcomes) {
            let Some(code) = outcome.error_code() else {
                *self = Self::default();
                continue;
            };
            let this = (call.tool.clone(), call.input.clone(), Arc::clone(&outcome.shown));
            if self.last.as_ref() == Some(&this) {
                self.times += 1;
            } else {
                *self = Self { last: Some(this), times: 1 };
            }
            if self.times >= REPEATS_MAX {
                let what = format!("`{}` failed {REPEATS_MAX} times in a row with the same input", call.tool);
                return Some(format!("repeated_error: {what} and the same error ({code})"));
            }
        }
        None
    }
}
