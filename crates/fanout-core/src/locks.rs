//! One first-in-first-out queue per resource, shared by all runs.
//!
//! From [`run`](crate::run): a call whose other waits are all over, with its final keys.
//! To it: the calls that now hold all they asked for.
//!
//! Every call enters one sequence in one atomic step and waits for every earlier entry whose keys clash, running or
//! waiting: readers share, writers are alone, nobody overtakes, nobody starves, and since waits point to earlier entries
//! only, nobody deadlocks (deterministic locking, as in Calvin: Thomson et al., SIGMOD 2012). Pure: no task, no time.

use crate::conflicts::{Clash, Conflicts, Places, Scope};
use crate::effects::Effects;

/// A place in the sequence: the number of its slot, and above it how often the slot was used before. Never used twice.
pub type Ticket = u64;

/// The sequence of all calls that hold or want locks.
#[derive(Debug, Default)]
pub struct Locks {
    entered: u64,
    slots: Vec<Slot>,
    free: Vec<usize>,
    conflicts: Conflicts,
    clashes: Vec<Clash>,
}

#[derive(Debug, Default)]
struct Slot {
    uses: u32,
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    /// How many entered before.
    sequence: u64,
    keys: Places,
    pending: usize,
    dependents: Vec<Ticket>,
    /// Left before it was granted; it goes once those before it are gone, because others may rely on it for order.
    abandoned: bool,
}

impl Locks {
    /// Enters the sequence with those keys that exclude calls of other runs. Answers the place, and whether the locks are
    /// held at once.
    pub fn enter(&mut self, effects: &Effects) -> (Ticket, bool) {
        let ticket = self.ticket();
        self.clashes.clear();
        let keys = self.conflicts.enter(ticket, effects, Scope::BetweenRuns, true, &mut self.clashes);
        let mut pending = 0;
        for clash in &self.clashes {
            if let Some(earlier) = place(&mut self.slots, clash.on) {
                earlier.dependents.push(ticket);
                pending += 1;
            }
        }
        let place = Place { sequence: self.entered, keys, pending, dependents: Vec::new(), abandoned: false };
        self.entered += 1;
        self.slots[slot_of(ticket)].place = Some(place);
        (ticket, pending == 0)
    }

    /// Gives up a place, held or waited for. Appends to `granted` the places that now hold their locks, in the order in
    /// which they entered.
    pub fn leave(&mut self, ticket: Ticket, granted: &mut Vec<Ticket>) {
        match place(&mut self.slots, ticket) {
            Some(place) if place.pending > 0 => place.abandoned = true,
            Some(_) => self.remove(ticket, granted),
            None => {}
        }
    }

    /// How many places are held or waited for.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether nobody holds or wants a lock.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn ticket(&mut self) -> Ticket {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        u64::from(self.slots[slot].uses) << 32 | slot as u64
    }

    fn remove(&mut self, ticket: Ticket, granted: &mut Vec<Ticket>) {
        let mut gone = vec![ticket];
        let first = granted.len();
        while let Some(ticket) = gone.pop() {
            let slot = &mut self.slots[slot_of(ticket)];
            let Some(left) = slot.place.take() else { continue };
            slot.uses = slot.uses.wrapping_add(1);
            self.free.push(slot_of(ticket));
            self.conflicts.leave(ticket, &left.keys);
            for dependent in left.dependents {
                let Some(later) = place(&mut self.slots, dependent) else { continue };
                later.pending -= 1;
                if later.pending == 0 {
                    if later.abandoned { gone.push(dependent) } else { granted.push(dependent) }
                }
            }
        }
        let slots = &mut self.slots;
        granted[first..].sort_unstable_by_key(|ticket| place(slots, *ticket).map(|place| place.sequence));
    }
}

fn slot_of(ticket: Ticket) -> usize {
    (ticket & u64::from(u32::MAX)) as usize
}

/// The place of this ticket, if it has not left.
fn place(slots: &mut [Slot], ticket: Ticket) -> Option<&mut Place> {
    let slot = slots.get_mut(slot_of(ticket))?;
    if u64::from(slot.uses) == ticket >> 32 { slot.place.as_mut() } else { None }
}
