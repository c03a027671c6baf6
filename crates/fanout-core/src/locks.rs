//! One first-in-first-out queue per resource, shared by all runs.
//!
//! From [`run`](crate::run): a call whose other waits are all over, with its final keys.
//! To it: the calls that now hold all they asked for.
//!
//! Every call enters one sequence in one atomic step and waits for every earlier entry whose keys clash, running or
//! waiting: readers share, writers are alone, nobody overtakes, nobody starves, and since waits point to earlier entries
//! only, nobody deadlocks (deterministic locking, as in Calvin: Thomson et al., SIGMOD 2012). Pure: no task, no time.

use rustc_hash::FxHashMap;

use crate::conflicts::{Clash, Conflicts};
use crate::effects::Effects;

/// A place in the sequence. Never used twice.
pub type Ticket = u64;

/// The sequence of all calls that hold or want locks.
#[derive(Debug, Default)]
pub struct Locks {
    next: Ticket,
    places: FxHashMap<Ticket, Place>,
    conflicts: Conflicts,
    clashes: Vec<Clash>,
}

#[derive(Debug)]
struct Place {
    effects: Effects,
    pending: usize,
    dependents: Vec<Ticket>,
    /// Left before it was granted; it goes once those before it are gone, because others may rely on it for order.
    abandoned: bool,
}

impl Locks {
    /// Enters the sequence. Answers the place, and whether the locks are held at once.
    pub fn enter(&mut self, effects: Effects) -> (Ticket, bool) {
        let ticket = self.next;
        self.next += 1;
        self.clashes.clear();
        self.conflicts.enter(ticket, &effects, true, &mut self.clashes);
        let mut pending = 0;
        for clash in &self.clashes {
            if let Some(earlier) = self.places.get_mut(&clash.on) {
                earlier.dependents.push(ticket);
                pending += 1;
            }
        }
        self.places.insert(ticket, Place { effects, pending, dependents: Vec::new(), abandoned: false });
        (ticket, pending == 0)
    }

    /// Gives up a place, held or waited for. Appends to `granted` the places that now hold their locks, in the order in
    /// which they entered.
    pub fn leave(&mut self, ticket: Ticket, granted: &mut Vec<Ticket>) {
        match self.places.get_mut(&ticket) {
            Some(place) if place.pending > 0 => place.abandoned = true,
            Some(_) => self.remove(ticket, granted),
            None => {}
        }
    }

    /// How many places are held or waited for.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nobody holds or wants a lock.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn remove(&mut self, ticket: Ticket, granted: &mut Vec<Ticket>) {
        let mut gone = vec![ticket];
        let first = granted.len();
        while let Some(ticket) = gone.pop() {
            let Some(place) = self.places.remove(&ticket) else { continue };
            self.conflicts.leave(ticket, &place.effects);
            for dependent in place.dependents {
                let Some(later) = self.places.get_mut(&dependent) else { continue };
                later.pending -= 1;
                if later.pending == 0 {
                    if later.abandoned { gone.push(dependent) } else { granted.push(dependent) }
                }
            }
        }
        granted[first..].sort_unstable();
    }
}
