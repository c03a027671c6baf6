//! What an API says is left of a budget that refills with time, such as tokens per minute.
//!
//! From the far side's headers: [`Reading`]s. To the group: from when an attempt of a certain cost may start.
//!
//! Between two readings it is reckoned: what was started is taken off, what the time brings is added.

use std::time::Duration;

use smallvec::SmallVec;

/// What one attempt takes of the meters of its group, by name. A meter that nobody has read yet bounds nothing.
pub type Cost = SmallVec<[(&'static str, u64); 4]>;

/// What the far side says of one of its budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Which.
    pub meter: &'static str,
    /// How much there is when it is full.
    pub limit: u64,
    /// How much is left.
    pub left: u64,
    /// In how long it is full again.
    pub full_in: Duration,
}

/// A budget is full again in a minute, if nothing better is known.
const REFILL: Duration = Duration::from_secs(60);

/// One budget, as it was last read and as it has been reckoned since.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    pub(super) name: &'static str,
    limit: f64,
    left: f64,
    read_at: Duration,
    a_second: f64,
}

impl Meter {
    /// `spoken_for` has started since the far side answered, and may not be counted in the reading.
    pub(super) fn read(reading: Reading, spoken_for: u64, now: Duration) -> Self {
        let (limit, left) = (real(reading.limit), real(reading.left));
        let used = (limit - left).max(0.0);
        let a_second = if reading.full_in.is_zero() || used == 0.0 {
            limit / REFILL.as_secs_f64()
        } else {
            used / reading.full_in.as_secs_f64()
        };
        Self { name: reading.meter, limit, left: left - real(spoken_for), read_at: now, a_second }
    }

    /// From when so much may be taken. What is more than all of it is had when it is full.
    pub(super) fn ready_at(&self, cost: u64) -> Duration {
        let lacking = real(cost).min(self.limit) - self.left;
        if lacking <= 0.0 {
            return Duration::ZERO;
        }
        let wait = Duration::try_from_secs_f64(lacking / self.a_second).unwrap_or(REFILL);
        self.read_at.saturating_add(wait.min(REFILL))
    }

    /// So much is taken now.
    pub(super) fn spend(&mut self, cost: u64, now: Duration) {
        let refilled = now.saturating_sub(self.read_at).as_secs_f64() * self.a_second;
        self.left = (self.left + refilled).min(self.limit) - real(cost);
        self.read_at = now;
    }
}

#[expect(clippy::cast_precision_loss, reason = "budgets stay far below 2^53")]
fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn meter(left: u64, full_in: u64) -> Meter {
        Meter::read(Reading { meter: "tokens", limit: 600, left, full_in: at(full_in) }, 0, at(100))
    }

    #[test]
    fn what_is_left_can_be_taken_at_once_and_the_rest_comes_with_time() {
        let mut meter = meter(100, 50);
        assert_eq!(meter.ready_at(100), Duration::ZERO);
        assert_eq!(meter.ready_at(110), at(101), "ten a second");
        assert_eq!(meter.ready_at(10_000), at(150), "more than all of it is had when it is full");
        meter.spend(100, at(100));
        assert_eq!(meter.ready_at(50), at(105));
        meter.spend(50, at(105));
        assert_eq!(meter.ready_at(600), at(165));
    }

    #[test]
    fn a_reading_that_makes_no_sense_holds_nobody_for_longer_than_a_refill() {
        for reading in [
            Reading { meter: "t", limit: 0, left: 0, full_in: at(0) },
            Reading { meter: "t", limit: u64::MAX, left: 0, full_in: Duration::MAX },
            Reading { meter: "t", limit: 1, left: u64::MAX, full_in: Duration::MAX },
        ] {
            let meter = Meter::read(reading, u64::MAX, at(1));
            assert!(meter.ready_at(u64::MAX) <= at(61), "{reading:?}");
        }
    }
}
