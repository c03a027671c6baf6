//! An even pace with bursts.
//!
//! The generic cell rate algorithm: one time stands for the whole past. Of any span `T`, closed at both ends, at most
//! `burst + T / interval` starts lie in it.

use std::num::NonZeroU32;
use std::time::Duration;

use super::options::Rate;

/// When the next attempt may start.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// How far ahead of the even pace the starts may run.
    tolerance: Duration,
    /// When the next start would be due at the even pace.
    due: Duration,
}

impl Pace {
    pub(super) fn new(rate: Rate, burst: NonZeroU32) -> Self {
        let interval = rate.interval();
        Self { interval, tolerance: interval.saturating_mul(burst.get() - 1), due: Duration::ZERO }
    }

    /// The same starts behind it, and another pace from here on.
    pub(super) fn follow(self, before: &Self) -> Self {
        Self { due: before.due, ..self }
    }

    /// From when the next one may start.
    pub(super) fn ready_at(&self) -> Duration {
        self.due.saturating_sub(self.tolerance)
    }

    /// From when one may start before which `ahead` others start, none of them before `now`.
    pub(super) fn ready_after(&self, ahead: usize, now: Duration) -> Duration {
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        let due = self.due.max(now).saturating_add(self.interval.saturating_mul(ahead));
        due.saturating_sub(self.tolerance).max(now)
    }

    /// One starts now.
    pub(super) fn take(&mut self, now: Duration) {
        self.due = self.due.max(now).saturating_add(self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(calls: u32, burst: u32) -> Pace {
        let rate = Rate { calls: NonZeroU32::new(calls).unwrap(), per: Duration::from_secs(1) };
        Pace::new(rate, NonZeroU32::new(burst).unwrap())
    }

    /// Starts as many as may start at each of these milliseconds.
    #[track_caller]
    fn check(mut pace: Pace, at: &[u64], started: &[usize]) {
        let starts = |at: &u64| {
            let now = Duration::from_millis(*at);
            std::iter::from_fn(|| (pace.ready_at() <= now).then(|| pace.take(now))).count()
        };
        assert_eq!(at.iter().map(starts).collect::<Vec<_>>(), started);
    }

    #[test]
    fn a_burst_is_followed_by_the_even_pace() {
        check(pace(10, 3), &[0, 50, 100, 200, 350, 400, 1000], &[3, 0, 1, 1, 1, 1, 3]);
        check(pace(10, 1), &[0, 99, 100, 101, 5000, 5000], &[1, 0, 1, 0, 1, 0]);
    }

    #[test]
    fn the_foretold_time_is_that_of_the_start() {
        let mut pace = pace(10, 3);
        for ahead in 0..20 {
            let foretold = pace.clone().ready_after(ahead, Duration::ZERO);
            assert_eq!(foretold, Duration::from_millis(100 * (ahead as u64).saturating_sub(2)), "{ahead}");
        }
        pace.take(Duration::ZERO);
        assert_eq!(pace.ready_after(2, Duration::ZERO), Duration::from_millis(100));
    }

    #[test]
    fn a_rate_that_does_not_divide_is_kept_by_rounding_up() {
        let rate = Rate { calls: NonZeroU32::new(3).unwrap(), per: Duration::from_secs(1) };
        assert!(rate.interval() * 3 >= Duration::from_secs(1));
    }
}
