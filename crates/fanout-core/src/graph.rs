//! Which call of a batch waits for which; grows while the response streams.
//!
//! From [`schedule`](crate::schedule): calls in program order, and what became of them.
//! To it: the calls that nothing in the batch holds back any longer.
//!
//! The model puts no order on the calls of one turn, so every edge here is ours, and every edge points to an earlier
//! call. This file knows no clock, no task, no lock and no permit.

use std::ops::Range;
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
    /// What it waits for, where the earlier call is a bundle.
    pub of: Of,
    /// It turned out to hold nothing back, or others stand in its place.
    pub void: bool,
    open: bool,
}

/// What a call waits for of a bundle: a call that stands for others, its parts, and has its outcome when all of them have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Of {
    /// The outcomes of all parts; of a call that is no bundle, its own.
    #[default]
    All,
    /// The outcome of the part at this place, counted from 0. If there is none such, nothing once that is known.
    Part(usize),
    /// That it is known which parts there are.
    Opening,
}

/// A part of a bundle, as it becomes known.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it touches: no more than its bundle was known to.
    pub effects: Effects,
    /// Its keys are final.
    pub settled: bool,
    /// What it names itself. What its bundle follows it follows too, and what the bundle conflicts with, where it does so
    /// itself.
    pub edges: Vec<Edge>,
}

/// What came of opening a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The parts, in program order.
    pub parts: Vec<Ix>,
    /// The later calls that waited for the bundle and wait for parts of it now, or for none.
    pub moved: Vec<Ix>,
}

impl Edge {
    /// An edge that a call names itself, or that a tool's declaration makes.
    pub fn named(on: Ix, why: Why, must_succeed: bool) -> Self {
        Self { on, why, key: None, undeclared: false, must_succeed, of: Of::All, void: false, open: true }
    }

    /// The same for a bundle's part, or its opening.
    #[must_use]
    pub fn of(self, of: Of) -> Self {
        Self { of, ..self }
    }

    fn conflict(on: Ix, key: Option<Key>, undeclared: bool) -> Self {
        Self { on, why: Why::Conflict, key, undeclared, must_succeed: false, of: Of::All, void: false, open: true }
    }
}

/// What the end of one call, or better knowledge of it, means for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing in the batch holds it back any longer.
    Free(Ix),
    /// All outputs that it refers to are there, and all that it needs has ended well. Not before: whether it is skipped or
    /// its references point at nothing must not hang on which is known first.
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
    /// Open edges in all, and those of them to calls that must succeed: what it refers to, and what it needs.
    pending: usize,
    pending_needed: usize,
    end: End,
    bundle: Option<Ix>,
    /// Its parts, once it is an open bundle.
    parts: Option<Box<[Ix]>>,
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
    /// In program order, each bundle behind its parts; empty while that is the order of arrival.
    order: Vec<Ix>,
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
        let mut node = Node::new(effects, edges);
        self.clashes.clear();
        let places = self.conflicts.enter(ix as u64, &node.effects, Scope::Batch, settled, &mut self.clashes);
        if !settled {
            node.places = Some(Box::new(places));
        }
        node.conflicts_with(&self.clashes);
        if !self.order.is_empty() {
            self.order.push(ix);
        }
        self.insert(node, settled, changes);
        ix
    }

    /// Opens a bundle: these are its parts, in program order. They stand where the bundle stood, so whoever came later and
    /// conflicts with one of them waits for it. The bundle itself touches nothing any more; it is answered by
    /// [`Graph::answer`] and [`Graph::leave`] when all of them are.
    pub fn open(&mut self, bundle: Ix, parts: Vec<Part>, changes: &mut Vec<Change>) -> Opened {
        let first = self.nodes.len();
        if let Some(places) = self.nodes[bundle].places.take() {
            self.conflicts.leave(bundle as u64, &places);
        }
        self.place_before(bundle, first..first + parts.len());
        // Whoever came later is in the index already, so the parts are held against each other in one of their own.
        let mut among = Conflicts::default();
        let inherited: Vec<Edge> = self.nodes[bundle].edges.iter().filter(|edge| !edge.void).cloned().collect();
        for part in parts {
            let ix = self.nodes.len();
            let mut node = Node::new(part.effects, part.edges);
            node.bundle = Some(bundle);
            node.edges.extend(inherited.iter().filter_map(|edge| self.inherits(&node.effects, edge)));
            self.clashes.clear();
            among.enter(ix as u64, &node.effects, Scope::Batch, part.settled, &mut self.clashes);
            node.conflicts_with(&self.clashes);
            // It stands for nobody: calls behind it may be in the index already.
            let places = self.conflicts.enter(ix as u64, &node.effects, Scope::Batch, false, &mut Vec::new());
            node.places = Some(Box::new(places));
            self.insert(node, part.settled, changes);
        }
        let parts: Box<[Ix]> = (first..self.nodes.len()).collect();
        self.nodes[bundle].parts = Some(parts.clone());
        self.nodes[bundle].effects.accesses.clear();
        let moved = self.move_dependents(bundle, &mut among, changes);
        self.settle_bypassed(changes);
        Opened { parts: parts.to_vec(), moved }
    }

    /// The edge of a part that is not its own: what its bundle follows, and what both conflict with.
    fn inherits(&self, effects: &Effects, edge: &Edge) -> Option<Edge> {
        match edge.why {
            Why::Order => Some(edge.clone()),
            Why::Reference => None,
            Why::Conflict => {
                let key = effects.clash(&self.nodes[edge.on].effects)?.clone();
                Some(Edge::conflict(edge.on, Some(key), edge.undeclared))
            }
        }
    }

    /// Has those who waited for the bundle as a whole wait for what they really need of it. `among` knows its parts.
    fn move_dependents(&mut self, bundle: Ix, among: &mut Conflicts, changes: &mut Vec<Change>) -> Vec<Ix> {
        let mut moved = Vec::new();
        for (dependent, at) in std::mem::take(&mut self.nodes[bundle].dependents) {
            let edge = self.nodes[dependent].edges[at].clone();
            if !edge.open {
                continue;
            }
            match edge.of {
                Of::All if edge.why != Why::Conflict => {
                    self.nodes[bundle].dependents.push((dependent, at));
                    continue;
                }
                Of::All => {
                    self.clashes.clear();
                    let effects = self.nodes[dependent].effects.clone();
                    let places = among.enter(dependent as u64, &effects, Scope::Batch, false, &mut self.clashes);
                    among.leave(dependent as u64, &places);
                    for clash in std::mem::take(&mut self.clashes) {
                        self.late_edge(dependent, Edge::of_clash(&clash, &effects));
                    }
                }
                Of::Part(part) => {
                    if let Some(on) = self.part(bundle, part) {
                        self.late_edge(dependent, Edge { on, of: Of::All, ..edge });
                    }
                }
                Of::Opening => {}
            }
            moved.push(dependent);
            self.void(dependent, at, changes);
        }
        moved.dedup();
        moved
    }

    /// One more edge of a call that came before what it waits for.
    fn late_edge(&mut self, call: Ix, edge: Edge) {
        let node = &mut self.nodes[call];
        let (on, at) = (edge.on, node.edges.len());
        node.pending += 1;
        node.pending_needed += usize::from(edge.must_succeed);
        node.edges.push(edge);
        self.nodes[on].dependents.push((call, at));
    }

    fn insert(&mut self, mut node: Node, settled: bool, changes: &mut Vec<Change>) {
        let ix = self.nodes.len();
        let mut cause = None;
        for (at, edge) in node.edges.iter_mut().enumerate() {
            if !self.resolve(edge) {
                edge.open = false;
                continue;
            }
            let earlier = &mut self.nodes[edge.on];
            edge.open = earlier.holds_back(edge.why);
            if edge.open {
                earlier.dependents.push((ix, at));
                node.pending += 1;
                node.pending_needed += usize::from(edge.must_succeed);
            } else if edge.must_succeed && !earlier.ended_well() {
                cause = Some(edge.on);
            }
        }
        let (free, known) = (node.pending == 0, node.pending_needed == 0);
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
    }

    /// Points the edge at the part that it is for, if its bundle is open. Answers whether there is anything to wait for.
    fn resolve(&self, edge: &mut Edge) -> bool {
        match (edge.of, &self.nodes[edge.on].parts) {
            (Of::Part(part), Some(parts)) => match parts.get(part) {
                Some(on) => {
                    (edge.on, edge.of) = (*on, Of::All);
                    true
                }
                None => false,
            },
            (Of::Opening, Some(_)) => false,
            _ => true,
        }
    }

    /// The part of an open bundle at this place.
    pub fn part(&self, bundle: Ix, part: usize) -> Option<Ix> {
        self.nodes[bundle].parts.as_ref()?.get(part).copied()
    }

    /// The parts of a bundle, if it is open.
    pub fn parts(&self, bundle: Ix) -> Option<&[Ix]> {
        self.nodes[bundle].parts.as_deref()
    }

    /// All calls in program order, each bundle behind its parts.
    pub fn in_order(&self) -> impl DoubleEndedIterator<Item = Ix> + ExactSizeIterator {
        (0..self.nodes.len()).map(|at| self.order.get(at).copied().unwrap_or(at))
    }

    fn place_before(&mut self, bundle: Ix, parts: Range<Ix>) {
        if self.order.is_empty() {
            self.order = (0..self.nodes.len()).collect();
        }
        let at = self.order.iter().position(|ix| *ix == bundle).unwrap_or(self.order.len());
        self.order.splice(at..at, parts);
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

    /// Takes better knowledge of what a call touches. Effects only ever shrink. Answers those that wait for less now: the call
    /// itself, and later ones that waited for it in vain.
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
        let mut freed = Vec::new();
        for at in 0..self.nodes[call].edges.len() {
            let edge = &self.nodes[call].edges[at];
            // Also what is over by now was waited for in vain.
            if !edge.void && edge.why == Why::Conflict && !self.clash(edge.on, call) {
                freed.push(call);
                self.void(call, at, changes);
            }
        }
        let dependents = std::mem::take(&mut self.nodes[call].dependents);
        for (dependent, at) in &dependents {
            let edge = &self.nodes[*dependent].edges[*at];
            if edge.open && edge.why == Why::Conflict && !self.clash(call, *dependent) {
                freed.push(*dependent);
                self.void(*dependent, *at, changes);
            }
        }
        self.nodes[call].dependents = dependents;
        self.settle_bypassed(changes);
        freed.dedup();
        freed
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
        for ix in self.in_order().rev() {
            let node = &self.nodes[ix];
            let open = node.dependents.iter().filter(|(dependent, at)| self.nodes[*dependent].edges[*at].open);
            let after = open.map(|(dependent, _)| *dependent).chain(node.bundle);
            let after = after.map(|later| remaining[later]).max().unwrap_or_default();
            let own = if node.end == End::Open && node.parts.is_none() { expected(ix) } else { Duration::ZERO };
            remaining[ix] = own + after;
        }
        remaining
    }

    fn clash(&self, a: Ix, b: Ix) -> bool {
        self.nodes[a].effects.clash(&self.nodes[b].effects).is_some()
    }

    fn void(&mut self, call: Ix, at: usize, changes: &mut Vec<Change>) {
        self.nodes[call].edges[at].void = true;
        self.close(call, at, changes);
    }

    fn close(&mut self, call: Ix, at: usize, changes: &mut Vec<Change>) {
        let node = &mut self.nodes[call];
        let edge = &mut node.edges[at];
        if !edge.open {
            return;
        }
        edge.open = false;
        node.pending -= 1;
        if edge.must_succeed {
            node.pending_needed -= 1;
            if node.pending_needed == 0 && node.end == End::Open {
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

impl Edge {
    /// That of a call with these effects.
    fn of_clash(clash: &Clash, effects: &Effects) -> Self {
        let on = usize::try_from(clash.on).unwrap_or(usize::MAX);
        Self::conflict(on, Some(effects.accesses[clash.access].key.clone()), clash.undeclared)
    }
}

impl Node {
    fn new(effects: Effects, edges: Vec<Edge>) -> Self {
        Self {
            effects,
            places: None,
            edges,
            dependents: Vec::new(),
            pending: 0,
            pending_needed: 0,
            end: End::Open,
            bundle: None,
            parts: None,
        }
    }

    fn conflicts_with(&mut self, clashes: &[Clash]) {
        self.edges.extend(clashes.iter().map(|clash| Edge::of_clash(clash, &self.effects)));
    }

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
