//! When something has to happen next.
//!
//! From [`schedule`](crate::schedule): times at which calls run out of time. To it: the earliest.
//!
//! Nearly all times of a batch come from two or three spans after a clock that only goes forward, so each span's times
//! arrive in order. They are kept in a few lanes, each in order, where adding and taking cost the same however many there
//! are; a heap would move through its whole depth for every call. Whether a time still counts, its owner knows.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use crate::graph::Ix;

/// A time and the call that it belongs to.
pub(crate) type Due = (Duration, Ix);

/// More spans than this are rare; what fits no lane goes into a heap.
const LANES_MAX: usize = 8;

/// The times that were set, earliest first, equal ones in program order.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    lanes: Vec<VecDeque<Due>>,
    rest: BinaryHeap<Reverse<Due>>,
}

impl Timers {
    /// Adds a time.
    pub(crate) fn set(&mut self, due: Due) {
        // The lane that ends latest before it: the others stay open for earlier times.
        let fits = self.lanes.iter().enumerate().filter(|(_, lane)| lane.back().is_none_or(|last| *last <= due));
        match fits.max_by_key(|(_, lane)| lane.back()) {
            Some((at, _)) => self.lanes[at].push_back(due),
            None if self.lanes.len() < LANES_MAX => self.lanes.push(VecDeque::from([due])),
            None => self.rest.push(Reverse(due)),
        }
    }

    /// The earliest that still counts. Those before it in their lanes that do not are forgotten.
    pub(crate) fn first(&mut self, counts: impl Fn(Due) -> bool) -> Option<Due> {
        let stale = |due: &Due| !counts(*due);
        for lane in &mut self.lanes {
            while lane.pop_front_if(|due| stale(due)).is_some() {}
        }
        while self.rest.peek().is_some_and(|Reverse(due)| stale(due)) {
            self.rest.pop();
        }
        let rest = self.rest.peek().map(|Reverse(due)| *due);
        self.lanes.iter().filter_map(|lane| lane.front().copied()).chain(rest).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(set: &[u64], taken: &[u64]) {
        let mut timers = Timers::default();
        for (call, at) in set.iter().enumerate() {
            timers.set((Duration::from_millis(*at), call));
        }
        let mut order: Vec<Due> = Vec::new();
        while let Some(first) = timers.first(|due| !order.contains(&due)) {
            order.push(first);
        }
        let times: Vec<u64> = order.iter().map(|(at, _)| u64::try_from(at.as_millis()).unwrap()).collect();
        assert_eq!(times, taken);
        assert!(order.is_sorted(), "equal times in program order: {order:?}");
    }

    #[test]
    fn times_come_out_in_order_however_they_went_in() {
        check(&[], &[]);
        check(&[120, 30, 121, 31, 122, 32], &[30, 31, 32, 120, 121, 122]);
        check(&[5, 5, 5], &[5, 5, 5]);
        check(&[12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 6], &[1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 11, 12]);
    }
}
