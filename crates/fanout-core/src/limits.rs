//! Who may run next when not all may.
//!
//! From [`run`](crate::run): how many calls of a batch want a permit.
//! To it: whose turn it is.
//!
//! So far there is one limit, on the attempts that run at once in this process. It is fair: callers take turns, then the
//! runs of each caller. Which of a run's calls goes first is the run's own affair ([`schedule`](crate::schedule)).
//! Pure: no task, no time.

use std::collections::VecDeque;

use crate::call::CallerId;

/// Who asks: one batch of one run. Never used twice.
pub type Asker = u64;

/// A number of permits, shared out fairly.
#[derive(Debug)]
pub struct Permits {
    free: usize,
    /// Those that wait, in the order of their turns.
    callers: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    caller: CallerId,
    askers: VecDeque<(Asker, usize)>,
}

impl Permits {
    /// So many permits.
    pub fn new(max: usize) -> Self {
        Self { free: max, callers: VecDeque::new() }
    }

    /// Asks for one permit. Answers whether it is given at once; if not, it is given by a later [`Permits::give_back`].
    pub fn ask(&mut self, caller: &CallerId, asker: Asker) -> bool {
        if self.free > 0 {
            self.free -= 1;
            return true;
        }
        let at = self.callers.iter().position(|waiting| waiting.caller == *caller).unwrap_or_else(|| {
            self.callers.push_back(Waiting { caller: caller.clone(), askers: VecDeque::new() });
            self.callers.len() - 1
        });
        let askers = &mut self.callers[at].askers;
        match askers.iter_mut().find(|(other, _)| *other == asker) {
            Some((_, wanted)) => *wanted += 1,
            None => askers.push_back((asker, 1)),
        }
        false
    }

    /// Takes back one wish of this asker that has not been granted. Without one, nothing happens.
    pub fn withdraw(&mut self, asker: Asker) {
        for at in 0..self.callers.len() {
            let askers = &mut self.callers[at].askers;
            let Some(place) = askers.iter().position(|(other, _)| *other == asker) else { continue };
            askers[place].1 -= 1;
            if askers[place].1 == 0 {
                askers.remove(place);
            }
            if askers.is_empty() {
                self.callers.remove(at);
            }
            return;
        }
    }

    /// Gives a permit back, and answers who has it now.
    pub fn give_back(&mut self) -> Option<Asker> {
        let Some(mut waiting) = self.callers.pop_front() else {
            self.free += 1;
            return None;
        };
        let (asker, wanted) = waiting.askers.pop_front()?;
        if wanted > 1 {
            waiting.askers.push_back((asker, wanted - 1));
        }
        if !waiting.askers.is_empty() {
            self.callers.push_back(waiting);
        }
        Some(asker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks as `asks` says (`a1` is run 1 of caller a), with one permit taken, and gives back until all have been served.
    #[track_caller]
    fn check(asks: &str, served: &str) {
        let mut permits = Permits::new(1);
        assert!(permits.ask(&"first".into(), 0));
        for ask in asks.split(' ') {
            let (caller, run) = ask.split_at(1);
            assert!(!permits.ask(&caller.into(), run.parse().unwrap()));
        }
        let order: Vec<String> = std::iter::from_fn(|| permits.give_back()).map(|asker| asker.to_string()).collect();
        assert_eq!(order.join(" "), served);
        assert!(permits.ask(&"last".into(), 9));
    }

    #[test]
    fn callers_take_turns_and_then_their_runs() {
        check("a1 a1 a1 b2", "1 2 1 1");
        check("a1 a1 a2 a2 b3", "1 3 2 1 2");
    }

    #[test]
    fn a_wish_taken_back_is_not_served() {
        let mut permits = Permits::new(0);
        let (a, b) = ("a".into(), "b".into());
        assert!(!permits.ask(&a, 1));
        assert!(!permits.ask(&b, 2));
        permits.withdraw(1);
        permits.withdraw(1);
        assert_eq!(permits.give_back(), Some(2));
        assert_eq!(permits.give_back(), None);
    }
}
