//! Attempts that ended, and whether their calls go again.
//!
//! From the driver: answers and time-outs. To the call's outcome, or to a backoff in which it keeps its locks.

use std::sync::Arc;
use std::time::Duration;

use super::terms::Step;
use super::{Failed, Phase, Schedule};
use crate::graph::Ix;
use crate::outcome::{CallError, ErrorCode, Output};
use crate::retry::{self, Again};
use crate::tool::ToolError;

impl Schedule {
    /// An attempt ended. The call's locks are kept until [`Schedule::gone`]. `has_retry` says whether the limit group has a
    /// retry to spend on it.
    pub fn ended(&mut self, call: Ix, result: Result<Output, ToolError>, has_retry: bool, now: Duration) {
        if self.items[call].phase != Phase::Running {
            return;
        }
        match result {
            Ok(output) => self.answer(call, Ok(Arc::new(output)), now),
            Err(error) => match self.again(call, &error, has_retry, now) {
                Some(wait) => self.back_off(call, error, wait, now),
                None => {
                    let error = self.verdict(call, &error);
                    self.answer(call, Err(error), now);
                }
            },
        }
    }

    /// The answer to [`Step::TimedOut`]: the attempt is stopped, and its call goes again or ends.
    pub fn timed_out(&mut self, call: Ix, has_retry: bool, now: Duration) {
        if self.items[call].phase != Phase::Running {
            return;
        }
        let terms = Arc::clone(&self.items[call].treatment.terms);
        if self.items[call].deadline_at <= now {
            let error = retry::timed_out(terms.tool.as_str(), terms.deadline, "deadline", terms.repeatable);
            self.stop(call, error, now);
            return;
        }
        let after = terms.timeout;
        let error = ToolError::Broken(format!("no answer from `{}` within its timeout of {after:?}", terms.tool));
        match self.again(call, &error, has_retry, now) {
            Some(wait) => {
                self.steps.push_back(Step::Stop(call));
                self.back_off(call, error, wait, now);
            }
            None => {
                let error = retry::timed_out(terms.tool.as_str(), after, "timeout", terms.repeatable);
                let error = self.with_attempts(call, error);
                self.stop(call, error, now);
            }
        }
    }

    /// Whether a call goes again after this error, and after how long.
    pub(super) fn again(&mut self, call: Ix, error: &ToolError, has_retry: bool, now: Duration) -> Option<Duration> {
        let random = self.random();
        let item = &self.items[call];
        let (limit, resumable) = (&item.treatment.limit, item.treatment.resumable);
        match retry::again(error, resumable) {
            Again::Never => return None,
            Again::Spend if !has_retry => return None,
            Again::Spend | Again::Asked => {}
        }
        let named = error.retry_after();
        if named.is_some_and(|named| named > limit.wait_max) {
            return None;
        }
        let wait = retry::backoff(error, limit.retry).wait(item.attempts, named, random)?;
        (now.saturating_add(wait) < item.deadline_at).then_some(wait)
    }

    pub(super) fn back_off(&mut self, call: Ix, error: ToolError, wait: Duration, now: Duration) {
        let item = &mut self.items[call];
        item.treatment.in_doubt |= !item.treatment.terms.repeatable && retry::may_be_done(&error);
        item.phase = Phase::Backoff;
        item.failed = Some(Box::new(Failed { error, again_at: now.saturating_add(wait), is_gone: false }));
        let at = item.deadline_at;
        self.set_timer(call, at);
        self.steps.push_back(Step::Backoff { call, wait });
    }

    /// The failed attempt is gone: from now on the clock alone holds the call back.
    pub(super) fn wait_to_go_again(&mut self, call: Ix) {
        let item = &self.items[call];
        if let Some(failed) = &item.failed {
            let at = failed.again_at.min(item.deadline_at);
            self.set_timer(call, at);
        }
    }

    /// What an attempt's error means for its call, now that it does not go again.
    pub(super) fn verdict(&self, call: Ix, error: &ToolError) -> CallError {
        let terms = &self.items[call].treatment.terms;
        self.with_attempts(call, retry::verdict(terms.tool.as_str(), error, terms.repeatable))
    }

    /// Says how often the call was tried, if that was more than once.
    fn with_attempts(&self, call: Ix, mut error: CallError) -> CallError {
        let attempts = self.items[call].attempts;
        if attempts > 1 && error.code != ErrorCode::OutcomeUnknown {
            error.message.push_str(&format!(" ({attempts} attempts failed)"));
        }
        error
    }

    /// A number in 0..1, from the seed: splitmix64.
    #[expect(clippy::cast_precision_loss, reason = "jitter needs no more than 53 bits")]
    pub(super) fn random(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (bits >> 11) as f64 / (1_u64 << 53) as f64
    }
}
