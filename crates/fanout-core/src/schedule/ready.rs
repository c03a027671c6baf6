//! Calls that want a permit: the one with the longest remaining path goes first, ties in program order.
//!
//! From [`Schedule`](super::Schedule): calls as they hold their locks, by limit group. To it: which is next, or last.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::graph::Ix;
use crate::limits::GroupId;

/// The calls that wait for permits, group by group.
#[derive(Debug, Default)]
pub(super) struct Ready {
    lines: Vec<Line>,
    /// The remaining path of every call; empty when it has to be found anew.
    remaining: Vec<Duration>,
}

#[derive(Debug)]
struct Line {
    group: GroupId,
    fresh: Vec<Ix>,
    /// The best last: most calls are sorted once and then taken from the end.
    sorted: Vec<(Duration, Reverse<Ix>)>,
    /// Those that came since.
    late: BinaryHeap<(Duration, Reverse<Ix>)>,
    is_stale: bool,
    /// How many of them still wait; the others have ended meanwhile.
    len: usize,
    /// No call here waits for a shorter time than this.
    patience: Duration,
}

impl Ready {
    /// The remaining paths have changed.
    pub(super) fn forget(&mut self) {
        self.remaining.clear();
    }

    /// One more that wants a permit of this group, and will not wait for longer than `patience`.
    pub(super) fn push(&mut self, group: GroupId, call: Ix, patience: Duration) {
        let at = self.lines.iter().position(|line| line.group == group).unwrap_or_else(|| {
            self.lines.push(Line::new(group));
            self.lines.len() - 1
        });
        let line = &mut self.lines[at];
        line.fresh.push(call);
        line.patience = if line.len == 0 { patience } else { line.patience.min(patience) };
        line.len += 1;
    }

    /// One of this group has got its permit or has ended.
    pub(super) fn left(&mut self, group: GroupId) {
        let Some(line) = self.line(group) else { return };
        line.len = line.len.saturating_sub(1);
        if line.len == 0 {
            *line = Line::new(group);
        }
    }

    /// How many of this group want a permit.
    pub(super) fn len(&self, group: GroupId) -> usize {
        self.lines.iter().find(|line| line.group == group).map_or(0, |line| line.len)
    }

    /// The shortest time that any of this group will wait, at least.
    pub(super) fn patience(&self, group: GroupId) -> Duration {
        self.lines.iter().find(|line| line.group == group).map_or(Duration::MAX, |line| line.patience)
    }

    /// Takes the next one of this group.
    pub(super) fn best(
        &mut self,
        group: GroupId,
        is_queued: impl Fn(Ix) -> bool,
        remaining: impl FnOnce() -> Vec<Duration>,
    ) -> Option<Ix> {
        let line = self.line(group)?;
        if line.sorted.is_empty() && line.late.is_empty() && line.fresh.len() == 1 {
            return line.fresh.pop().filter(|call| is_queued(*call));
        }
        self.measure(remaining);
        let at = self.lines.iter().position(|line| line.group == group)?;
        let (line, remaining) = (&mut self.lines[at], &self.remaining);
        line.sort(remaining);
        loop {
            let best = if line.sorted.last() >= line.late.peek() { line.sorted.pop() } else { line.late.pop() };
            let (_, Reverse(call)) = best?;
            if is_queued(call) {
                return Some(call);
            }
        }
    }

    /// The one of this group that would be the last; it stays.
    pub(super) fn worst(
        &mut self,
        group: GroupId,
        is_queued: impl Fn(Ix) -> bool,
        remaining: impl FnOnce() -> Vec<Duration>,
    ) -> Option<Ix> {
        self.measure(remaining);
        let remaining = &self.remaining;
        let queued = self.all(group).filter(|call| is_queued(*call));
        queued.min_by_key(|call| (remaining[*call], Reverse(*call)))
    }

    /// Every call of this group that came since it was last empty, in no order; some may have ended.
    pub(super) fn all(&self, group: GroupId) -> impl Iterator<Item = Ix> {
        let lines = self.lines.iter().filter(move |line| line.group == group);
        lines.flat_map(|line| {
            let ranked = line.sorted.iter().chain(&line.late).map(|(_, Reverse(call))| *call);
            line.fresh.iter().copied().chain(ranked)
        })
    }

    fn line(&mut self, group: GroupId) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.group == group)
    }

    fn measure(&mut self, remaining: impl FnOnce() -> Vec<Duration>) {
        if self.remaining.is_empty() {
            self.remaining = remaining();
            for line in &mut self.lines {
                line.is_stale = true;
            }
        }
    }
}

impl Line {
    fn new(group: GroupId) -> Self {
        Self {
            group,
            fresh: Vec::new(),
            sorted: Vec::new(),
            late: BinaryHeap::new(),
            is_stale: false,
            len: 0,
            patience: Duration::MAX,
        }
    }

    fn sort(&mut self, remaining: &[Duration]) {
        let Self { fresh, sorted, late, .. } = self;
        if std::mem::take(&mut self.is_stale) {
            fresh.extend(sorted.drain(..).chain(late.drain()).map(|(_, Reverse(call))| call));
            sorted.extend(fresh.drain(..).map(|call| (remaining[call], Reverse(call))));
            sorted.sort_unstable();
        }
        late.extend(fresh.drain(..).map(|call| (remaining[call], Reverse(call))));
    }
}
