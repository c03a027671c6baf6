//! Which call of a batch waits for which; grows while the response streams.
//!
//! From [`schedule`](crate::schedule): calls in program order, and what became of them.
//! To it: the calls that nothing in the batch holds back any longer.
//!
//! The model puts no order on the calls of one turn, so every edge here is ours, and every edge points to an earlier
//! call. This file knows no clock, no task, no lock and no permit.

use std::time::Duration;

use crate::conflicts::{Clash, Conflicts, Places, Scope};
use crate::effects::{Effects, Key};
use crate::event::Why;

/// The index of a call in its batch, in order of arrival.
pub type Ix = usize;

/// What a call waits for.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The earlier call.
    pub on: Ix,
    /// Why.
    pub why: Why,
    /// The key of the clash, for a conflict.
    pub key: Option<Key>,
    /// A declaration could have told the two apart.
    pub undeclared: bool,
    /// If the earlier call fails, this one is skipped.
    pub must_succeed: bool,
    open: bool,
}

impl Edge {
    /// An edge that a call names itself, or that a tool's declaration makes.
    pub fn named(on: Ix, why: Why, must_succeed: bool) -> Self {
        Self { on, why, key: None, undeclared: false, must_succeed, open: true }
    }
}

/// What the end of one call, or better knowledge of it, means for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing in the batch holds it back any longer.
    Free(Ix),
    /// All outputs that it refers to are there.
    Known(Ix),
    /// It needs `cause`, which failed.
    Skip {
        /// The call that can't run.
        call: Ix,
        /// The call that failed.
        cause: Ix,
    },
}

#[derive(Debug)]
struct Node {
    effects: Effects,
    /// Where it stands in the index, while its keys may still shrink.
    places: Option<Box<Places>>,
    edges: Vec<Edge>,
    dependents: Vec<(Ix, usize)>,
    /// Open edges in all, and those of them that are references.
    pending: usize,
    pending_references: usize,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// No outcome yet.
    Open,
    /// Answered before it ran; it still stands between those before and those after it until its own waits are over.
    Bypassed,
    /// Answered; its work may still be going on.
    Answered { ok: bool },
    /// Answered, and nothing of it is left.
    Gone { ok: bool },
}

/// The graph of one batch.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    conflicts: Conflicts,
    clashes: Vec<Clash>,
}

impl Graph {
    /// Adds the next call in program order. `edges` are those that it names itself; conflicts are found here.
    ///
    /// `settled` says that its keys are final; those of a call with unfilled references may still shrink by
    /// [`Graph::narrow`]. What follows at once (it is free, it must be skipped) is appended to `changes`.
    pub fn add(&mut self, effects: Effects, settled: bool, edges: Vec<Edge>, changes: &mut Vec<Change>) -> Ix {
        let ix = self.nodes.len();
        let mut node = Node {
            effects,
            places: None,
            edges,
            dependents: Vec::new(),
            pending: 0,
            pending_references: 0,
            end: End::Open,
        };
        self.clashes.clear();
        let places = self.conflicts.enter(ix as u64, &node.effects, Scope::Batch, settled, &mut self.clashes);
        if !settled {
            node.places = Some(Box::new(places));
        }
        node.edges.extend(self.clashes.iter().map(|clash| Edge {
            on: usize::try_from(clash.on).unwrap_or(usize::MAX),
            why: Why::Conflict,
            key: Some(node.effects.accesses[clash.access].key.clone()),
            undeclared: clash.undeclared,
            must_succeed: false,
            open: true,
        }));
        let mut cause = None;
        for (at, edge) in node.edges.iter_mut().enumerate() {
            let earlier = &mut self.nodes[edge.on];
            edge.open = earlier.holds_back(edge.why);
            if edge.open {
                earlier.dependents.push((ix, at));
                node.pending += 1;
                node.pending_references += usize::from(edge.why == Why::Reference);
            } else if edge.must_succeed && !earlier.ended_well() {
                cause = Some(edge.on);
            }
        }
        let (free, known) = (node.pending == 0, node.pending_references == 0);
        self.nodes.push(node);
        if let Some(cause) = cause {
            changes.push(Change::Skip { call: ix, cause });
        } else {
            if known && !settled {
                changes.push(Change::Known(ix));
            }
            if free {
                changes.push(Change::Free(ix));
            }
        }
        ix
    }

    /// What a call waits for or waited for, as it arrived.
    pub fn edges(&self, call: Ix) -> &[Edge] {
        &self.nodes[call].edges
    }

    /// The keys of a call, as they are known now.
    pub fn effects(&self, call: Ix) -> &Effects {
        &self.nodes[call].effects
    }

    /// Whether nothing in the batch holds it back.
    pub fn is_free(&self, call: Ix) -> bool {
        self.nodes[call].pending == 0
    }

    /// Takes better knowledge of what a call touches. Effects only ever shrink. Answers the calls that it no longer waits
    /// for; who waited for it in vain is among `changes`.
    pub fn narrow(&mut self, call: Ix, effects: Effects, changes: &mut Vec<Change>) -> Vec<Ix> {
        // Calls that arrive later are held against what is known now.
        let node = &mut self.nodes[call];
        node.effects = effects;
        if let Some(places) = node.places.take() {
            self.conflicts.leave(call as u64, &places);
        }
        self.clashes.clear();
        let places = self.conflicts.enter(call as u64, &node.effects, Scope::Batch, false, &mut self.clashes);
        node.places = Some(Box::new(places));
        let mut freed_from = Vec::new();
        for at in 0..self.nodes[call].edges.len() {
            let edge = &self.nodes[call].edges[at];
            if edge.open && edge.why == Why::Conflict && !self.clash(edge.on, call) {
                freed_from.push(edge.on);
                self.close(call, at, changes);
            }
        }
        let dependents = std::mem::take(&mut self.nodes[call].dependents);
        for (dependent, at) in &dependents {
            let edge = &self.nodes[*dependent].edges[*at];
            if edge.open && edge.why == Why::Conflict && !self.clash(call, *dependent) {
                self.close(*dependent, *at, changes);
            }
        }
        self.nodes[call].dependents = dependents;
        self.settle_bypassed(changes);
        freed_from
    }

    /// The call has its outcome. Who refers to it, or is declared to follow it, goes on.
    pub fn answer(&mut self, call: Ix, ok: bool, changes: &mut Vec<Change>) {
        self.nodes[call].end = End::Answered { ok };
        for at in 0..self.nodes[call].dependents.len() {
            let (dependent, edge_at) = self.nodes[call].dependents[at];
            let edge = &self.nodes[dependent].edges[edge_at];
            if !edge.open || edge.why == Why::Conflict {
                continue;
            }
            if edge.must_succeed && !ok && self.nodes[dependent].end == End::Open {
                changes.push(Change::Skip { call: dependent, cause: call });
            }
            self.close(dependent, edge_at, changes);
        }
        self.settle_bypassed(changes);
    }

    /// The call was answered without having run. It frees who refers to it now, and those who conflict with it once its
    /// own waits are over: it stood for the earlier calls that they would have waited for.
    pub fn bypass(&mut self, call: Ix, changes: &mut Vec<Change>) {
        self.answer(call, false, changes);
        if self.nodes[call].pending == 0 {
            self.leave(call, changes);
        } else {
            self.nodes[call].end = End::Bypassed;
        }
    }

    /// Nothing of an answered call is left. Who conflicts with it goes on.
    pub fn leave(&mut self, call: Ix, changes: &mut Vec<Change>) {
        let ok = matches!(self.nodes[call].end, End::Answered { ok: true });
        self.nodes[call].end = End::Gone { ok };
        for at in 0..self.nodes[call].dependents.len() {
            let (dependent, edge_at) = self.nodes[call].dependents[at];
            self.close(dependent, edge_at, changes);
        }
        self.settle_bypassed(changes);
    }

    /// The time from each call's start to the end of the longest path that begins with it, by `expected` durations.
    /// Calls that are answered count nothing.
    pub fn remaining(&self, expected: impl Fn(Ix) -> Duration) -> Vec<Duration> {
        let mut remaining = vec![Duration::ZERO; self.nodes.len()];
        for (ix, node) in self.nodes.iter().enumerate().rev() {
            let open = node.dependents.iter().filter(|(dependent, at)| self.nodes[*dependent].edges[*at].open);
            let after = open.map(|(dependent, _)| remaining[*dependent]).max().unwrap_or_default();
            let own = if node.end == End::Open { expected(ix) } else { Duration::ZERO };
            remaining[ix] = own + after;
        }
        remaining
    }

    fn clash(&self, a: Ix, b: Ix) -> bool {
        self.nodes[a].effects.clash(&self.nodes[b].effects).is_some()
    }

    fn close(&mut self, call: Ix, at: usize, changes: &mut Vec<Change>) {
        let node = &mut self.nodes[call];
        let edge = &mut node.edges[at];
        if !edge.open {
            return;
        }
        edge.open = false;
        node.pending -= 1;
        if edge.why == Why::Reference {
            node.pending_references -= 1;
            if node.pending_references == 0 && node.end == End::Open {
                changes.push(Change::Known(call));
            }
        }
        if node.pending == 0 {
            changes.push(Change::Free(call));
        }
    }

    /// Bypassed calls whose own waits are over are gone; that may free others.
    fn settle_bypassed(&mut self, changes: &mut Vec<Change>) {
        let mut at = 0;
        while at < changes.len() {
            if let Change::Free(call) = changes[at]
                && self.nodes[call].end == End::Bypassed
            {
                self.nodes[call].end = End::Gone { ok: false };
                for at in 0..self.nodes[call].dependents.len() {
                    let (dependent, edge_at) = self.nodes[call].dependents[at];
                    self.close(dependent, edge_at, changes);
                }
            }
            at += 1;
        }
    }
}

impl Node {
    fn holds_back(&self, why: Why) -> bool {
        match self.end {
            End::Open => true,
            End::Bypassed | End::Answered { .. } => why == Why::Conflict,
            End::Gone { .. } => false,
        }
    }

    fn ended_well(&self) -> bool {
        matches!(self.end, End::Answered { ok: true } | End::Gone { ok: true })
    }
}
