//! Whether an API is failing, and is given time.
//!
//! Closed, it counts. Open, nothing is sent until the cool-down is over. Then it is half open: one attempt, the probe,
//! finds out. Attempts that began before it last changed have nothing to say about it any more.

use std::collections::VecDeque;
use std::time::Duration;

use super::options::BreakerOptions;

/// The window moves on in steps of one part in so many.
const SLOTS: u32 = 10;

/// One circuit breaker.
#[derive(Debug)]
pub(super) struct Breaker {
    options: BreakerOptions,
    state: State,
    /// Grows whenever the state changes.
    generation: u32,
    slots: VecDeque<Slot>,
}

/// In which state a breaker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Closed,
    Open {
        until: Duration,
    },
    HalfOpen(Probe),
    /// A person keeps it open.
    Held {
        until: Duration,
    },
}

/// The attempt that finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// The next one to ask.
    Nobody,
    Waiting,
    Running,
}

#[derive(Debug)]
struct Slot {
    number: u128,
    calls: u32,
    failures: u32,
}

impl Breaker {
    pub(super) fn new(options: BreakerOptions) -> Self {
        Self { options, state: State::Closed, generation: 0, slots: VecDeque::new() }
    }

    /// Judges otherwise from here on; as it stands, it stands.
    pub(super) fn set_options(&mut self, options: BreakerOptions) {
        self.options = options;
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Whether a person keeps it open.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.state, State::Held { .. })
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether one more may be sent or wait for it; if not, from when it makes sense to ask again.
    ///
    /// # Errors
    /// The time at which the cool-down is over; while a probe is under way, now.
    pub(super) fn admit(&mut self, now: Duration) -> Result<(), Duration> {
        match self.state {
            State::Closed => Ok(()),
            State::Open { until } | State::Held { until } if now < until => Err(until),
            State::Held { .. } => {
                self.close();
                Ok(())
            }
            State::HalfOpen(Probe::Waiting | Probe::Running) => Err(now),
            State::Open { .. } | State::HalfOpen(Probe::Nobody) => {
                self.change(State::HalfOpen(Probe::Waiting));
                Ok(())
            }
        }
    }

    /// Who was admitted last starts.
    pub(super) fn started(&mut self) {
        if self.state == State::HalfOpen(Probe::Waiting) {
            self.state = State::HalfOpen(Probe::Running);
        }
    }

    /// Who was admitted last will not start after all.
    pub(super) fn withdrawn(&mut self) {
        if self.state == State::HalfOpen(Probe::Waiting) {
            self.state = State::HalfOpen(Probe::Nobody);
        }
    }

    /// An attempt of that generation is gone. A probe that told nothing leaves its place to another.
    pub(super) fn ended(&mut self, generation: u32) {
        if generation == self.generation && self.state == State::HalfOpen(Probe::Running) {
            self.state = State::HalfOpen(Probe::Nobody);
        }
    }

    /// An attempt of that generation ended. Answers whether the breaker opened.
    pub(super) fn observe(&mut self, generation: u32, failed: bool, now: Duration) -> bool {
        if generation != self.generation {
            return false;
        }
        match self.state {
            State::Closed => {
                self.count(failed, now);
                let (calls, failures) =
                    self.slots.iter().fold((0, 0), |sum, slot| (sum.0 + slot.calls, sum.1 + slot.failures));
                let is_failing = calls >= self.options.calls_min
                    && f64::from(failures) >= self.options.failure_ratio * f64::from(calls)
                    && failures > 0;
                if is_failing {
                    self.open(now);
                }
                is_failing
            }
            State::HalfOpen(_) if failed => {
                self.open(now);
                true
            }
            State::HalfOpen(_) => {
                self.change(State::Closed);
                false
            }
            State::Open { .. } | State::Held { .. } => false,
        }
    }

    /// Nothing is sent until then, whatever attempts come to.
    pub(super) fn hold(&mut self, until: Duration) {
        self.change(State::Held { until });
    }

    /// All is well, and it begins to count anew.
    pub(super) fn close(&mut self) {
        self.change(State::Closed);
    }

    fn open(&mut self, now: Duration) {
        self.change(State::Open { until: now.saturating_add(self.options.cool_down) });
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.generation = self.generation.wrapping_add(1);
        self.slots.clear();
    }

    fn count(&mut self, failed: bool, now: Duration) {
        let length = (self.options.window / SLOTS).as_nanos().max(1);
        let number = now.as_nanos() / length;
        while self.slots.front().is_some_and(|slot| slot.number + u128::from(SLOTS) <= number) {
            self.slots.pop_front();
        }
        if self.slots.back().is_none_or(|slot| slot.number < number) {
            self.slots.push_back(Slot { number, calls: 0, failures: 0 });
        }
        if let Some(slot) = self.slots.back_mut() {
            slot.calls = slot.calls.saturating_add(1);
            slot.failures = slot.failures.saturating_add(u32::from(failed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn breaker() -> Breaker {
        Breaker::new(BreakerOptions { calls_min: 4, ..BreakerOptions::default() })
    }

    /// Ends so many attempts at that time; answers whether it opened.
    fn end(breaker: &mut Breaker, failed: bool, count: usize, now: Duration) -> bool {
        (0..count).any(|_| breaker.observe(breaker.generation(), failed, now))
    }

    #[test]
    fn it_opens_when_enough_of_enough_failed_within_the_window() {
        let mut breaker = breaker();
        assert!(!end(&mut breaker, false, 5, at(0)), "all is well");
        assert!(!end(&mut breaker, true, 4, at(1)), "4 of 9");
        assert!(end(&mut breaker, true, 1, at(3)), "5 of 10");
        assert_eq!(breaker.admit(at(4)), Err(at(18)));
    }

    #[test]
    fn what_is_older_than_the_window_counts_no_more() {
        let mut breaker = breaker();
        assert!(!end(&mut breaker, true, 3, at(0)), "too few to tell");
        assert!(!end(&mut breaker, true, 3, at(31)));
        assert!(end(&mut breaker, true, 1, at(32)));
    }

    #[test]
    fn one_probe_decides_after_the_cool_down() {
        let mut breaker = breaker();
        let old = breaker.generation();
        assert!(end(&mut breaker, true, 4, at(0)));
        assert_eq!(breaker.admit(at(15)), Ok(()));
        assert_eq!(breaker.admit(at(15)), Err(at(15)), "only one");
        assert!(!breaker.observe(old, true, at(16)), "an attempt from before says nothing");
        assert!(end(&mut breaker, true, 1, at(16)));
        assert_eq!(breaker.admit(at(17)), Err(at(31)));
        assert_eq!(breaker.admit(at(31)), Ok(()));
        breaker.withdrawn();
        assert_eq!(breaker.admit(at(32)), Ok(()), "the next one probes");
        breaker.started();
        breaker.ended(old);
        assert_eq!(breaker.admit(at(32)), Err(at(32)), "one from before is no probe");
        breaker.ended(breaker.generation());
        assert_eq!(breaker.admit(at(32)), Ok(()), "a probe that told nothing leaves its place");
        end(&mut breaker, false, 1, at(33));
        assert_eq!(breaker.state(), State::Closed);
        assert!(!end(&mut breaker, true, 3, at(34)), "it begins to count anew");
    }

    #[test]
    fn one_that_a_person_keeps_open_minds_nobody_else() {
        let mut breaker = breaker();
        let old = breaker.generation();
        breaker.hold(at(100));
        assert_eq!(breaker.admit(at(16)), Err(at(100)), "no cool-down ends it");
        assert!(!breaker.observe(old, false, at(17)) && !end(&mut breaker, false, 9, at(18)));
        assert_eq!(breaker.state(), State::Held { until: at(100) });
        assert_eq!(breaker.admit(at(100)), Ok(()));
        assert_eq!(breaker.state(), State::Closed, "no probe");
        assert!(!end(&mut breaker, true, 3, at(101)), "it begins to count anew");
        assert!(end(&mut breaker, true, 1, at(102)));
        breaker.close();
        assert_eq!(breaker.admit(at(102)), Ok(()));
        assert!(!end(&mut breaker, true, 3, at(103)), "and after that too");
    }
}
