//! Who waits for permits of one group, and whose turn it is.
//!
//! Callers take turns, then the runs of each caller. Who wants much waits longer, not those beside him.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::Asker;
use crate::call::CallerId;

/// Wishes in the order in which they are granted.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    /// Callers with a wish, in the order of their turns.
    turns: VecDeque<CallerId>,
    lines: FxHashMap<CallerId, Line>,
    askers: FxHashMap<Asker, (CallerId, usize)>,
    len: usize,
}

/// The runs of one caller.
#[derive(Debug, Default)]
struct Line {
    /// Askers with a wish, in the order of their turns.
    turns: VecDeque<Asker>,
    wanted: usize,
}

impl FairQueue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Everyone who waits.
    pub(super) fn askers(&self) -> impl Iterator<Item = Asker> {
        self.askers.keys().copied()
    }

    /// The caller whose turn it is.
    pub(super) fn head(&self) -> Option<&CallerId> {
        self.turns.front()
    }

    /// Whose turn it is.
    pub(super) fn next(&self) -> Option<Asker> {
        self.lines.get(self.turns.front()?)?.turns.front().copied()
    }

    /// One more wish.
    pub(super) fn push(&mut self, caller: &CallerId, asker: Asker) {
        self.len += 1;
        let line = self.lines.entry(caller.clone()).or_default();
        if line.wanted == 0 {
            self.turns.push_back(caller.clone());
        }
        line.wanted += 1;
        let (_, wanted) = self.askers.entry(asker).or_insert_with(|| (caller.clone(), 0));
        if *wanted == 0 {
            line.turns.push_back(asker);
        }
        *wanted += 1;
    }

    /// Grants the next wish.
    pub(super) fn pop(&mut self) -> Option<Asker> {
        let caller = self.turns.pop_front()?;
        let line = self.lines.get_mut(&caller)?;
        let asker = line.turns.pop_front()?;
        line.wanted -= 1;
        self.len -= 1;
        if let Some((_, wanted)) = self.askers.get_mut(&asker) {
            *wanted -= 1;
            if *wanted > 0 {
                line.turns.push_back(asker);
            } else {
                self.askers.remove(&asker);
            }
        }
        if line.wanted > 0 {
            self.turns.push_back(caller);
        } else {
            self.lines.remove(&caller);
        }
        Some(asker)
    }

    /// Takes back one wish of this asker. Answers whether there was one.
    pub(super) fn remove(&mut self, asker: Asker) -> bool {
        let Some((caller, wanted)) = self.askers.get_mut(&asker) else { return false };
        *wanted -= 1;
        let (caller, is_last) = (caller.clone(), *wanted == 0);
        if is_last {
            self.askers.remove(&asker);
        }
        self.len -= 1;
        let Some(line) = self.lines.get_mut(&caller) else { return true };
        line.wanted -= 1;
        if is_last {
            line.turns.retain(|other| *other != asker);
        }
        if line.wanted == 0 {
            self.lines.remove(&caller);
            self.turns.retain(|other| *other != caller);
        }
        true
    }

    /// Makes room for one wish of this asker by taking one from who wants the most, if that is more than the asker would
    /// want then: a caller that fills the queue keeps nobody else out. Answers who lost a wish.
    pub(super) fn push_out(&mut self, caller: &CallerId, asker: Asker) -> Option<Asker> {
        let (longest, line) = self.lines.iter().max_by_key(|(_, line)| line.wanted)?;
        let mine = self.lines.get(caller).map_or(0, |line| line.wanted);
        let of = if line.wanted > mine + 1 { longest } else { caller };
        let wanted = |asker: &Asker| self.askers.get(asker).map_or(0, |(_, wanted)| *wanted);
        let most = self.lines.get(of)?.turns.iter().copied().max_by_key(|asker| wanted(asker))?;
        if of == caller && wanted(&most) <= wanted(&asker) + 1 {
            return None;
        }
        self.remove(most);
        Some(most)
    }

    /// How many wishes are granted before the last one of this asker, if no other comes.
    pub(super) fn ahead_of(&self, asker: Asker) -> usize {
        let Some((caller, mine)) = self.askers.get(&asker) else { return self.len };
        let Some(line) = self.lines.get(caller) else { return self.len };
        let mut own = 0;
        let mut is_behind = false;
        for other in &line.turns {
            let wanted = self.askers.get(other).map_or(0, |(_, wanted)| *wanted);
            own += wanted.min(mine - usize::from(is_behind));
            is_behind |= *other == asker;
        }
        let mut ahead = own - 1;
        is_behind = false;
        for other in &self.turns {
            if other == caller {
                is_behind = true;
            } else if let Some(line) = self.lines.get(other) {
                ahead += line.wanted.min(own - usize::from(is_behind));
            }
        }
        ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a1` is run 1 of caller a.
    fn queue(asks: &str) -> FairQueue {
        let mut queue = FairQueue::default();
        for ask in asks.split_whitespace() {
            queue.push(&ask[..1].into(), ask[1..].parse().unwrap());
        }
        queue
    }

    fn served(mut queue: FairQueue) -> String {
        let order: Vec<String> = std::iter::from_fn(|| queue.pop()).map(|asker| asker.to_string()).collect();
        assert!(queue.is_empty() && queue.lines.is_empty() && queue.askers.is_empty() && queue.turns.is_empty());
        order.join(" ")
    }

    #[test]
    fn callers_take_turns_and_then_their_runs() {
        assert_eq!(served(queue("a1 a1 a1 b2")), "1 2 1 1");
        assert_eq!(served(queue("a1 a1 a2 a2 b3")), "1 3 2 1 2");
    }

    #[test]
    fn a_wish_taken_back_is_not_served() {
        let mut waiting = queue("a1 b2 b2 a3");
        assert!(waiting.remove(1));
        assert!(!waiting.remove(1));
        assert!(waiting.remove(2));
        assert_eq!(served(waiting), "3 2");
    }

    #[test]
    fn what_is_foretold_is_how_it_comes() {
        for asks in ["a1", "a1 a1 a1 b2", "a1 a1 a2 a2 b3 c4 c4 c4 c5", "b2 a1 a1 a1 a1 b2 c3 a4"] {
            for asker in 1..=5 {
                let waiting = queue(asks);
                if !waiting.askers.contains_key(&asker) {
                    continue;
                }
                let foretold = waiting.ahead_of(asker);
                let order = served(waiting);
                let order: Vec<&str> = order.split(' ').collect();
                let last = order.iter().rposition(|other| *other == asker.to_string());
                assert_eq!(Some(foretold), last, "{asker} of {asks}");
            }
        }
    }

    #[test]
    fn who_fills_the_queue_makes_room_for_others_and_not_for_himself() {
        let mut full = queue("a1 a1 a1 a2");
        assert_eq!(full.push_out(&"b".into(), 9), Some(1), "another caller");
        assert_eq!(full.push_out(&"a".into(), 3), Some(1), "another run of the same caller");
        assert_eq!(full.push_out(&"a".into(), 3), None, "nobody has more than one by now");
        assert_eq!(full.len(), 2);
    }
}
