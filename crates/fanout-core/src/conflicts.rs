//! Who touched what: for a new entry, the nearest earlier entries that it clashes with.
//!
//! From [`effects`](crate::effects): the keys of one call.
//! To [`graph`](crate::graph), for the calls of one batch, and to [`locks`](crate::locks), for the calls of all runs.
//!
//! A tree of key segments; every node remembers the last writers and the readers since. An entry that clashes with a
//! later writer is not remembered any longer: whoever comes next waits for that writer, which waits for it. So a chain
//! of a hundred thousand writes costs one edge each. This file knows no call, no time and no waiting.

use std::hash::{BuildHasher, Hash, Hasher};

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashMap};
use smallvec::SmallVec;

use crate::effects::{Access, Effects, Key, Mode, Origin, Source};

/// What stands in the index: a call of a batch, or a place in the queue of all runs. Never used twice.
pub type Entry = u64;

/// A clash of a new entry with an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The earlier entry.
    pub on: Entry,
    /// Which of the new entry's accesses clashes.
    pub access: usize,
    /// Only inferred keys of one source clash: a declaration could have told the two apart.
    pub undeclared: bool,
}

/// Which of an entry's keys count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All: calls of one batch are held against each other by every key they have.
    Batch,
    /// Those that exclude calls of other runs: declared keys, and SQL's inferred ones.
    BetweenRuns,
}

/// Where an entry stands in the index, for taking it out again.
pub type Places = SmallVec<[u32; 4]>;

/// The index.
#[derive(Debug)]
pub struct Conflicts {
    nodes: Vec<Node>,
    /// The nodes by parent and segment, each with its hash: growing the table, and passing by another node in it, need not
    /// look at the nodes.
    by_segment: HashTable<(u32, u32)>,
    free: Vec<u32>,
    sources: FxHashMap<Source, u32>,
}

#[derive(Debug)]
struct Node {
    parent: u32,
    /// Its first child and its neighbours among its parent's children; [`NONE`] where there is none.
    first_child: u32,
    next: u32,
    previous: u32,
    /// The first key that came here, and where in its text this node's segment stands.
    key: Option<Key>,
    segment: (u32, u32),
    hash: u32,
    slots: SmallVec<[Slot; 1]>,
}

/// No node.
const NONE: u32 = u32::MAX;

/// The entries of one class at one node.
#[derive(Debug)]
struct Slot {
    class: Class,
    subtree: bool,
    writers: Entries,
    readers: Entries,
}

/// Entries in the order in which they came. They leave in nearly that order, so those in front of the one that leaves are
/// moved, not those behind it: a hundred thousand readers of one key cost each the same.
#[derive(Debug, Default)]
struct Entries {
    list: SmallVec<[Entry; 2]>,
    /// So many at the front are gone.
    gone: usize,
}

impl Entries {
    fn as_slice(&self) -> &[Entry] {
        &self.list[self.gone..]
    }

    fn is_empty(&self) -> bool {
        self.list.len() == self.gone
    }

    fn push(&mut self, entry: Entry) {
        self.list.push(entry);
    }

    fn clear(&mut self) {
        self.list.clear();
        self.gone = 0;
    }

    fn remove(&mut self, entry: Entry) {
        let Some(at) = self.as_slice().iter().position(|other| *other == entry) else { return };
        self.list.copy_within(self.gone..self.gone + at, self.gone + 1);
        self.gone += 1;
        // Half of it empty: moving the rest costs no more than what left since the last time.
        if self.gone * 2 >= self.list.len() {
            self.list.drain(..self.gone);
            self.gone = 0;
        }
    }
}

/// Entries of one class at one key are interchangeable: the same keys may be held against them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Class {
    source: u32,
    declared: bool,
    origin: Origin,
}

impl Class {
    /// Whether a key of this class may be held against one of `other`.
    fn compares(self, other: Self) -> bool {
        crate::effects::compares(
            self.source == other.source,
            self.declared && other.declared,
            self.origin,
            other.origin,
        )
    }

    /// Whether a writer of this class may stand for the earlier entries of `other` that it clashes with: whoever clashes
    /// with those clashes with it as well. Across sources that does not hold, and a declared call's inferred keys do not
    /// even hold each other apart.
    fn stands_for(self, other: Self) -> bool {
        self.source == other.source
            && match (self.declared, self.origin) {
                (true, Origin::Declared) => other.declared && other.origin == Origin::Declared,
                (false, Origin::Inferred) => other.origin == Origin::Inferred,
                _ => false,
            }
    }
}

const ROOT: u32 = 0;

impl Default for Conflicts {
    fn default() -> Self {
        let root = Node::new(NONE, None, (0, 0), 0);
        Self { nodes: vec![root], by_segment: HashTable::new(), free: Vec::new(), sources: FxHashMap::default() }
    }
}

impl Conflicts {
    /// Adds an entry, and appends to `clashes` the nearest earlier ones that it clashes with: per key the last writers,
    /// and for a writer also the readers since. Whoever clashes with an entry that is not named, clashes with one that
    /// is and that came after it.
    ///
    /// The keys of an entry that is not `settled` may still shrink, so it stands for nobody: those before it stay named.
    pub fn enter(
        &mut self,
        entry: Entry,
        effects: &Effects,
        scope: Scope,
        settled: bool,
        clashes: &mut Vec<Clash>,
    ) -> Places {
        let source = self.source(&effects.source);
        let mut places = Places::new();
        for (at, access) in scope.of(effects) {
            let class = Class { source, declared: effects.declared, origin: access.origin };
            let subtree = access.key.is_subtree();
            let mut node = ROOT;
            self.clashes_at(node, class, access.mode, false, at, clashes);
            let mut segments = access.key.segments().peekable();
            let mut start = 0;
            while let Some(segment) = segments.next() {
                node = self.child(node, &access.key, start, segment);
                start += segment.len() + 1;
                let exact_too = segments.peek().is_none();
                self.clashes_at(node, class, access.mode, exact_too, at, clashes);
            }
            if subtree {
                if node == ROOT {
                    self.clashes_exact(ROOT, class, access.mode, at, clashes);
                }
                self.for_all_below(node, |index, below| {
                    index.clashes_at(below, class, access.mode, true, at, clashes);
                });
            }
            places.push(node);
        }
        // Emptied branches fall off only once everything has its place: one of them may be where the next key goes.
        let mut emptied = Vec::new();
        for ((_, access), node) in scope.of(effects).zip(&places) {
            let (class, node) = (Class { source, declared: effects.declared, origin: access.origin }, *node);
            if access.mode == Mode::Write && settled {
                self.stand_in(node, class, access.key.is_subtree(), &mut emptied);
            }
            self.place(entry, node, class, access.mode, access.key.is_subtree());
        }
        for node in emptied {
            self.prune(node);
        }
        places
    }

    /// Takes an entry out of the places where it entered. A writer that came later may stand for it by now; then its node
    /// may even have been given to another key, where nothing of it is found.
    pub fn leave(&mut self, entry: Entry, places: &Places) {
        for node in places {
            for slot in &mut self.nodes[*node as usize].slots {
                slot.writers.remove(entry);
                slot.readers.remove(entry);
            }
            self.prune(*node);
        }
    }

    fn source(&mut self, source: &Source) -> u32 {
        if let Some(id) = self.sources.get(source) {
            return *id;
        }
        let id = u32::try_from(self.sources.len()).unwrap_or(u32::MAX);
        self.sources.insert(source.clone(), id);
        id
    }

    /// The entries at a node that a key on or below it meets: those of the subtree, and with `exact_too` those of just
    /// the node.
    fn clashes_at(
        &self,
        node: u32,
        class: Class,
        mode: Mode,
        exact_too: bool,
        access: usize,
        clashes: &mut Vec<Clash>,
    ) {
        for slot in &self.nodes[node as usize].slots {
            if (slot.subtree || exact_too) && class.compares(slot.class) {
                slot.clashes(class, mode, access, clashes);
            }
        }
    }

    fn clashes_exact(&self, node: u32, class: Class, mode: Mode, access: usize, clashes: &mut Vec<Clash>) {
        for slot in &self.nodes[node as usize].slots {
            if !slot.subtree && class.compares(slot.class) {
                slot.clashes(class, mode, access, clashes);
            }
        }
    }

    fn place(&mut self, entry: Entry, node: u32, class: Class, mode: Mode, subtree: bool) {
        let slots = &mut self.nodes[node as usize].slots;
        let at = slots.iter().position(|slot| slot.class == class && slot.subtree == subtree).unwrap_or_else(|| {
            slots.push(Slot { class, subtree, writers: Entries::default(), readers: Entries::default() });
            slots.len() - 1
        });
        match mode {
            Mode::Write => slots[at].writers.push(entry),
            Mode::Read => slots[at].readers.push(entry),
        }
    }

    /// Forgets the entries that a new writer at `node` stands for. Nodes below that may hold nothing now are appended to
    /// `emptied`.
    fn stand_in(&mut self, node: u32, class: Class, subtree: bool, emptied: &mut Vec<u32>) {
        for slot in &mut self.nodes[node as usize].slots {
            if class.stands_for(slot.class) && (subtree || !slot.subtree) {
                slot.writers.clear();
                slot.readers.clear();
            }
        }
        if !subtree || self.nodes[node as usize].first_child == NONE {
            return;
        }
        let first = emptied.len();
        self.for_all_below(node, |_, child| emptied.push(child));
        for child in &emptied[first..] {
            for slot in &mut self.nodes[*child as usize].slots {
                if class.stands_for(slot.class) {
                    slot.writers.clear();
                    slot.readers.clear();
                }
            }
        }
    }

    /// The child of a node for the segment that begins at `start` in the text of `key`.
    fn child(&mut self, node: u32, key: &Key, start: usize, segment: &str) -> u32 {
        let hash = hash(node, segment);
        let nodes = &self.nodes;
        let is_it = |other: &(u32, u32)| other.1 == hash && nodes[other.0 as usize].is(node, segment);
        if let Some((child, _)) = self.by_segment.find(spread(hash), is_it) {
            return *child;
        }
        let place = |at: usize| u32::try_from(at).unwrap_or(NONE);
        let mut fresh = Node::new(node, Some(key.clone()), (place(start), place(start + segment.len())), hash);
        fresh.next = self.nodes[node as usize].first_child;
        let child = match self.free.pop() {
            Some(child) => {
                // The slots of a node that is used again keep their room.
                fresh.slots = std::mem::take(&mut self.nodes[child as usize].slots);
                self.nodes[child as usize] = fresh;
                child
            }
            None => {
                self.nodes.push(fresh);
                place(self.nodes.len() - 1)
            }
        };
        let next = self.nodes[child as usize].next;
        if next != NONE {
            self.nodes[next as usize].previous = child;
        }
        self.nodes[node as usize].first_child = child;
        self.by_segment.insert_unique(spread(hash), (child, hash), |(_, hash)| spread(*hash));
        child
    }

    /// Every node below, parents before children.
    fn for_all_below(&self, node: u32, mut each: impl FnMut(&Self, u32)) {
        let mut open = vec![self.nodes[node as usize].first_child];
        while let Some(mut below) = open.pop() {
            while below != NONE {
                each(self, below);
                let Node { first_child, next, .. } = self.nodes[below as usize];
                if first_child != NONE {
                    open.push(first_child);
                }
                below = next;
            }
        }
    }

    /// Gives back a node that holds nothing, and its parents as far as they hold nothing either. One that was given back
    /// already stays as it is.
    fn prune(&mut self, mut node: u32) {
        while node != ROOT {
            let this = &self.nodes[node as usize];
            if this.key.is_none() || this.first_child != NONE || this.slots.iter().any(Slot::is_used) {
                return;
            }
            let (parent, next, previous, hash) = (this.parent, this.next, this.previous, this.hash);
            if let Ok(entry) = self.by_segment.find_entry(spread(hash), |(child, _)| *child == node) {
                entry.remove();
            }
            if next != NONE {
                self.nodes[next as usize].previous = previous;
            }
            if previous == NONE {
                self.nodes[parent as usize].first_child = next;
            } else {
                self.nodes[previous as usize].next = next;
            }
            let this = &mut self.nodes[node as usize];
            this.key = None;
            this.slots.clear();
            self.free.push(node);
            node = parent;
        }
    }
}

impl Scope {
    /// The accesses that count, with their places in the effects.
    fn of(self, effects: &Effects) -> impl Iterator<Item = (usize, &Access)> {
        let all = self == Self::Batch;
        effects.accesses.iter().enumerate().filter(move |(_, access)| all || effects.excludes_between_runs(access))
    }
}

impl Node {
    fn new(parent: u32, key: Option<Key>, segment: (u32, u32), hash: u32) -> Self {
        Self { parent, first_child: NONE, next: NONE, previous: NONE, key, segment, hash, slots: SmallVec::new() }
    }

    fn segment(&self) -> &str {
        let (start, end) = self.segment;
        self.key.as_ref().map_or("", |key| &key.as_str()[start as usize..end as usize])
    }

    fn is(&self, parent: u32, segment: &str) -> bool {
        self.parent == parent && self.segment() == segment
    }
}

fn hash(parent: u32, segment: &str) -> u32 {
    let mut hasher = FxBuildHasher.build_hasher();
    parent.hash(&mut hasher);
    segment.hash(&mut hasher);
    let hash = hasher.finish();
    (hash >> 32) as u32 ^ hash as u32
}

/// The table wants its bits everywhere; the factor is that of Fibonacci hashing, 2^64 over the golden ratio.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Slot {
    fn clashes(&self, class: Class, mode: Mode, access: usize, clashes: &mut Vec<Clash>) {
        let undeclared = class.source == self.class.source && class.origin == Origin::Inferred;
        let readers = if mode == Mode::Write { self.readers.as_slice() } else { &[] };
        for on in self.writers.as_slice().iter().chain(readers) {
            let clash = Clash { on: *on, access, undeclared };
            if clashes.last() != Some(&clash) {
                clashes.push(clash);
            }
        }
    }

    fn is_used(&self) -> bool {
        !self.writers.is_empty() || !self.readers.is_empty()
    }
}
