//! What a failed try means: whether and when it goes again, and what its call is told if not.
//!
//! From an attempt's error, or a model request's. To [`schedule`](crate::schedule) and to the agent loop: the one policy
//! of the project, since two that nest multiply their attempts. Pure: randomness is handed in.

use std::time::Duration;

use crate::limits::Signal;
use crate::outcome::{CallError, ErrorCode};
use crate::tool::ToolError;

/// Exponential backoff with full jitter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// How many tries in all; the first one counts.
    pub attempts: u32,
    /// The longest wait before the second try; it doubles with every further one.
    pub base: Duration,
    /// No wait is longer, but for one that the far side named.
    pub max: Duration,
}

impl Default for Backoff {
    /// The configuration's defaults: four tries, 200 ms to 10 s.
    fn default() -> Self {
        Self { attempts: 4, base: Duration::from_millis(200), max: Duration::from_secs(10) }
    }
}

impl Backoff {
    /// How long to wait after try number `tried` (the first is 1) failed, or `None` if that was the last.
    ///
    /// `named` is the wait that the far side asked for: it is kept, and never shortened. `random` lies in 0..1.
    pub fn wait(&self, tried: u32, named: Option<Duration>, random: f64) -> Option<Duration> {
        if tried >= self.attempts {
            return None;
        }
        let doubled = 2_u32.saturating_pow(tried.saturating_sub(1));
        let ceiling = self.base.saturating_mul(doubled).min(self.max);
        let jittered = ceiling.mul_f64(random.clamp(0.0, 1.0));
        Some(named.map_or(jittered, |named| named.saturating_add(jittered.min(self.base))))
    }
}

/// What was undone since it met others: they are over within moments, and each time some of them are. The far side is well, so
/// its limit group's own backoff, which is made for trouble, is not what is wanted.
const UNDONE: Backoff = Backoff { attempts: 12, base: Duration::from_millis(20), max: Duration::from_secs(1) };

/// How a call goes again after this error, where its limit group backs off like `of_group`.
pub fn backoff(error: &ToolError, of_group: Backoff) -> Backoff {
    if matches!(error, ToolError::RolledBack(_)) { UNDONE } else { of_group }
}

/// Whether a call may go again after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It may not: the answer is final, or nothing proves that it was not carried out.
    Never,
    /// It may, as far as its limit group has retries to spend: an outage must not be multiplied.
    Spend,
    /// It may, whatever there is to spend: the far side asked for it, or is well and only undid it.
    Asked,
}

/// Whether a call may go again. What may have been carried out goes again only if that does no harm.
pub fn again(error: &ToolError, repeatable: bool) -> Again {
    match error {
        ToolError::Busy { .. } | ToolError::RolledBack(_) => Again::Asked,
        ToolError::NotSent(_) => Again::Spend,
        ToolError::Broken(_) | ToolError::Overloaded { .. } if repeatable => Again::Spend,
        ToolError::Broken(_)
        | ToolError::Overloaded { .. }
        | ToolError::Failed(_)
        | ToolError::Conflict(_)
        | ToolError::TooLarge(_)
        | ToolError::BadInput(_)
        | ToolError::NotPermitted(_)
        | ToolError::NotKept(_)
        | ToolError::Panicked(_)
        | ToolError::Recorded(_)
        | ToolError::Stopped => Again::Never,
    }
}

/// Whether the work may have been carried out all the same. What goes again only where that does no harm.
pub fn may_be_done(error: &ToolError) -> bool {
    again(error, false) != again(error, true)
}

/// What an attempt's error says about the API behind it; `None` for what is no matter of its.
pub fn signal(error: &ToolError) -> Option<Signal> {
    match error {
        ToolError::Failed(_)
        | ToolError::RolledBack(_)
        | ToolError::Conflict(_)
        | ToolError::TooLarge(_)
        | ToolError::BadInput(_) => Some(Signal::Answered),
        ToolError::Busy { .. } => Some(Signal::Refused),
        ToolError::Overloaded { .. } => Some(Signal::Overloaded),
        ToolError::Broken(_) | ToolError::NotSent(_) => Some(Signal::Failed),
        ToolError::NotPermitted(_)
        | ToolError::NotKept(_)
        | ToolError::Panicked(_)
        | ToolError::Recorded(_)
        | ToolError::Stopped => None,
    }
}

/// What an attempt's error means for its call. `repeatable` decides between "failed" and "nobody knows".
pub fn verdict(tool: &str, error: &ToolError, repeatable: bool) -> CallError {
    let unknown = |what: &str| {
        CallError::new(
            ErrorCode::OutcomeUnknown,
            format!("{what}. `{tool}` was sent and may or may not have been carried out: check before trying again"),
        )
    };
    match error {
        ToolError::Failed(message) => CallError::new(ErrorCode::Upstream, message),
        ToolError::Broken(message) | ToolError::Overloaded { message, .. } if repeatable => CallError {
            retry_after: error.retry_after(),
            ..CallError::new(
                ErrorCode::Upstream,
                format!("{message}. Running `{tool}` again does no harm: try again later"),
            )
        },
        ToolError::Broken(message) | ToolError::Overloaded { message, .. } => unknown(message),
        ToolError::NotSent(message) => CallError::new(
            ErrorCode::Upstream,
            format!("{message}. Nothing was carried out: try again later, or go on without it"),
        ),
        ToolError::Busy { message, retry_after } => {
            let message = format!("{message}. Nothing was carried out: try again later, or go on without it");
            CallError { retry_after: *retry_after, ..CallError::new(ErrorCode::RateLimited, message) }
        }
        ToolError::RolledBack(message) => CallError::new(
            ErrorCode::Conflict,
            format!("{message}. Nothing was carried out, however often it was tried: try again later"),
        ),
        ToolError::Conflict(message) => CallError::new(ErrorCode::Conflict, message),
        ToolError::TooLarge(message) => CallError::new(ErrorCode::TooLarge, message),
        ToolError::BadInput(message) => CallError::new(ErrorCode::InvalidInput, message),
        ToolError::NotPermitted(message) => CallError::new(ErrorCode::NotPermitted, message),
        ToolError::NotKept(message) => CallError::new(
            ErrorCode::Internal,
            format!("not run: {message}. Nothing was carried out; what only reads still works"),
        ),
        ToolError::Panicked(_) => CallError::new(
            ErrorCode::Internal,
            format!("`{tool}` crashed: this is a fault of the tool, not of the input. Go on without it"),
        ),
        ToolError::Recorded(error) => (**error).clone(),
        ToolError::Stopped if repeatable => {
            CallError::new(ErrorCode::Cancelled, "the run was stopped before the tool could answer")
        }
        ToolError::Stopped => unknown("The run was stopped before the tool could answer"),
    }
}

/// What a call is told that failed, where an attempt before may have been carried out.
pub fn in_doubt(tool: &str, error: CallError) -> CallError {
    match error.code {
        ErrorCode::OutcomeUnknown => error,
        _ => CallError::new(
            ErrorCode::OutcomeUnknown,
            format!(
                "`{tool}` was sent and may or may not have been carried out, and another attempt, which would have shown it, \
                 came to nothing (`{}`): check before trying again",
                error.code
            ),
        ),
    }
}

/// What a call is told when its time is over while it runs.
pub fn timed_out(tool: &str, after: Duration, what: &str, repeatable: bool) -> CallError {
    if repeatable {
        let message = format!("no answer from `{tool}` within its {what} of {after:?}; running it again does no harm");
        CallError::new(ErrorCode::Timeout, message)
    } else {
        let message = format!(
            "no answer from `{tool}` within its {what} of {after:?}. It was sent and may or may not have been carried \
             out: check before trying again"
        );
        CallError::new(ErrorCode::OutcomeUnknown, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_end_with_the_last_attempt() {
        let backoff = Backoff { attempts: 5, base: Duration::from_millis(200), max: Duration::from_millis(700) };
        let waits: Vec<_> = (1..=5).map(|tried| backoff.wait(tried, None, 1.0).map(|wait| wait.as_millis())).collect();
        assert_eq!(waits, [Some(200), Some(400), Some(700), Some(700), None]);
        assert_eq!(backoff.wait(1, None, 0.0), Some(Duration::ZERO));
    }

    #[test]
    fn a_wait_that_the_far_side_named_is_never_shortened() {
        let named = Duration::from_secs(60);
        let wait = Backoff::default().wait(1, Some(named), 0.5).unwrap();
        assert!(wait >= named && wait <= named + Duration::from_millis(200));
        assert_eq!(Backoff::default().wait(1, Some(Duration::MAX), 0.5), Some(Duration::MAX));
    }

    #[test]
    fn what_was_undone_goes_again_sooner_and_more_often_than_what_failed() {
        let group = Backoff::default();
        let undone = backoff(&ToolError::RolledBack("deadlock".into()), group);
        assert!(undone.attempts > group.attempts && undone.base < group.base, "{undone:?}");
        assert_eq!(backoff(&ToolError::NotSent("refused".into()), group), group);
    }

    #[test]
    fn only_what_does_no_harm_goes_again() {
        let overloaded = ToolError::Overloaded { message: "503".into(), retry_after: None };
        let busy = ToolError::Busy { message: "429".into(), retry_after: None };
        for (error, once, repeatable) in [
            (busy, Again::Asked, Again::Asked),
            (ToolError::NotSent("refused".into()), Again::Spend, Again::Spend),
            (ToolError::RolledBack("deadlock".into()), Again::Asked, Again::Asked),
            (ToolError::Broken("reset".into()), Again::Never, Again::Spend),
            (overloaded, Again::Never, Again::Spend),
            (ToolError::Failed("404".into()), Again::Never, Again::Never),
            (ToolError::Conflict("changed".into()), Again::Never, Again::Never),
            (ToolError::Panicked("oh".into()), Again::Never, Again::Never),
        ] {
            assert_eq!((again(&error, false), again(&error, true)), (once, repeatable), "{error:?}");
        }
    }

    #[test]
    fn only_what_may_have_been_done_and_may_not_be_repeated_is_unknown() {
        let code = |error: ToolError, repeatable| verdict("t", &error, repeatable).code;
        assert_eq!(code(ToolError::Broken("reset".into()), false), ErrorCode::OutcomeUnknown);
        assert_eq!(code(ToolError::Broken("reset".into()), true), ErrorCode::Upstream);
        assert_eq!(code(ToolError::NotSent("refused".into()), false), ErrorCode::Upstream);
        assert_eq!(code(ToolError::Stopped, false), ErrorCode::OutcomeUnknown);
        assert_eq!(code(ToolError::Stopped, true), ErrorCode::Cancelled);
        assert_eq!(timed_out("t", Duration::from_secs(1), "timeout", false).code, ErrorCode::OutcomeUnknown);
        assert_eq!(timed_out("t", Duration::from_secs(1), "timeout", true).code, ErrorCode::Timeout);
    }

    #[test]
    fn a_call_that_was_refused_is_told_that_nothing_was_done_and_what_to_do() {
        let busy = ToolError::Busy { message: "`pay` answered 429".into(), retry_after: Some(Duration::from_secs(7)) };
        let told = verdict("pay", &busy, false);
        assert_eq!(told.message, "`pay` answered 429. Nothing was carried out: try again later, or go on without it");
        assert_eq!((told.code, told.retry_after), (ErrorCode::RateLimited, Some(Duration::from_secs(7))));
    }
}
