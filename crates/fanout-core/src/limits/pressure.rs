//! How many attempts an API bears at once, learned from its refusals.
//!
//! Additive increase, multiplicative decrease: down to half on a repeated 429 or 503, up by one for every round of
//! answers, never above the configured bound. An API that minds a sudden rise is approached slowly: what may run at once
//! begins low and doubles with every round, until the first refusal.

use std::time::Duration;

/// A refusal so long after the one before counts as the first again; a group without a bound of its own forgets its
/// learned one after it.
const CALM: Duration = Duration::from_secs(60);

/// The bound on what runs at once.
#[derive(Clone, Debug)]
pub(super) struct Pressure {
    /// The configured bound.
    most: f64,
    allowed: f64,
    /// It was never refused, and is still on its way up.
    is_ramping: bool,
    refused_at: Option<Duration>,
    lowered_at: Option<Duration>,
}

impl Pressure {
    /// Bounded so; `None` is no bound until there are refusals.
    pub(super) fn new(most: Option<u32>) -> Self {
        let most = most.map_or(f64::INFINITY, f64::from);
        Self { most, allowed: most, is_ramping: false, refused_at: None, lowered_at: None }
    }

    /// The same, with so many to begin with.
    pub(super) fn ramping(self, from: u32) -> Self {
        Self { allowed: self.most.min(f64::from(from)), is_ramping: true, ..self }
    }

    /// Bounded otherwise from here on. What was learned stays, as far as it is below the new bound.
    pub(super) fn set_bound(&mut self, most: Option<u32>) {
        let most = most.map_or(f64::INFINITY, f64::from);
        let was_free = self.allowed >= self.most;
        self.allowed = if was_free { most } else { self.allowed.min(most) };
        self.most = most;
    }

    /// How many may run at once now; `None` for no bound.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be finite, at least 1")]
    pub(super) fn allowed(&self) -> Option<usize> {
        self.allowed.is_finite().then_some(self.allowed as usize)
    }

    /// Whether one more may run beside `running`.
    pub(super) fn bears(&self, running: usize) -> bool {
        self.allowed().is_none_or(|allowed| running < allowed)
    }

    /// The API refused an attempt that began at `since`, with `running` at once. The first refusal in a calm is taken as it
    /// is; one of an attempt from before the bound was last lowered says nothing about the new bound.
    pub(super) fn refused(&mut self, since: Duration, running: usize, now: Duration) {
        self.is_ramping = false;
        let is_repeated = self.refused_at.is_some_and(|at| now.saturating_sub(at) <= CALM);
        self.refused_at = Some(now);
        if !is_repeated || self.lowered_at.is_some_and(|at| since <= at) {
            return;
        }
        self.lowered_at = Some(now);
        let running = f64::from(u32::try_from(running).unwrap_or(u32::MAX));
        self.allowed = (self.allowed.min(running) / 2.0).max(1.0);
    }

    /// The API answered an attempt that began at `since`, with `running` at once.
    pub(super) fn answered(&mut self, since: Duration, running: usize, now: Duration) {
        if self.is_ramping {
            // What is not used is no news of how much more it bears.
            if self.allowed().is_some_and(|allowed| running.saturating_mul(2) > allowed) {
                self.allowed = (self.allowed + 1.0).min(self.most);
            }
            return;
        }
        if self.allowed >= self.most || self.lowered_at.is_some_and(|at| since <= at) {
            return;
        }
        let is_calm = self.refused_at.is_none_or(|at| now.saturating_sub(at) > CALM);
        self.allowed = if self.most.is_infinite() && is_calm {
            self.most
        } else {
            (self.allowed + 1.0 / self.allowed).min(self.most)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_repeated_refusal_halves_it_once_per_round() {
        let mut pressure = Pressure::new(Some(32));
        pressure.refused(at(0), 32, at(100));
        assert_eq!(pressure.allowed(), Some(32), "the first is no trend");
        for _ in 0..31 {
            pressure.refused(at(0), 32, at(101));
        }
        assert_eq!(pressure.allowed(), Some(16), "the others of the same round say nothing new");
        pressure.refused(at(200), 16, at(300));
        assert_eq!(pressure.allowed(), Some(8));
        for round in 0..10 {
            pressure.refused(at(400 + round * 100), 1, at(450 + round * 100));
        }
        assert_eq!(pressure.allowed(), Some(1), "never below one");
    }

    #[test]
    fn it_rises_by_one_a_round_up_to_its_bound() {
        let mut pressure = Pressure::new(Some(8));
        pressure.refused(at(0), 8, at(1));
        pressure.refused(at(0), 8, at(2));
        assert_eq!(pressure.allowed(), Some(4));
        for _ in 0..5 {
            pressure.answered(at(10), 1, at(20));
        }
        assert_eq!(pressure.allowed(), Some(5));
        for _ in 0..100 {
            pressure.answered(at(10), 1, at(20));
        }
        assert_eq!(pressure.allowed(), Some(8));
    }

    #[test]
    fn a_ramp_doubles_with_every_round_that_used_it_until_the_first_refusal() {
        let mut pressure = Pressure::new(None).ramping(4);
        (0..100).for_each(|_| pressure.answered(at(0), 2, at(1)));
        assert_eq!(pressure.allowed(), Some(4), "half of it was enough");
        for round in [4, 8, 16] {
            (0..round).for_each(|_| pressure.answered(at(0), 2 * round, at(1)));
        }
        assert_eq!(pressure.allowed(), Some(32));
        pressure.refused(at(2), 32, at(3));
        pressure.answered(at(2), 32, at(4));
        assert_eq!(pressure.allowed(), Some(32), "one by one from now on");
    }

    #[test]
    fn without_a_bound_the_learned_one_is_forgotten_in_a_calm() {
        let mut pressure = Pressure::new(None);
        assert!(pressure.bears(1_000_000));
        pressure.refused(at(0), 100, at(1));
        pressure.refused(at(0), 100, at(2));
        assert_eq!(pressure.allowed(), Some(50));
        pressure.answered(at(10), 1, at(20));
        assert_eq!(pressure.allowed(), Some(50));
        pressure.answered(at(10), 1, at(100_000));
        assert_eq!(pressure.allowed(), None);
    }
}
