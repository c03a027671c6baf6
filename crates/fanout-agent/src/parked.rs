//! Whether a run waits for people and for nothing else, and how long it has.
//!
//! From the events of the run, as they happen or as they are kept. To whoever counts its time, watches its progress or
//! keeps a place for it: none of that goes on meanwhile.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fanout_core::call::CallId;
use fanout_core::event::{Event, Recorder, What};

/// What is known of a run. It is parked while a call waits for people and no other is on its way.
#[derive(Debug, Default)]
pub struct Parked {
    /// How many questions of each call are open.
    asked: HashMap<CallId, u32>,
    /// The calls that have what they need and go for it.
    going: HashSet<CallId>,
    since: Option<Duration>,
    total: Duration,
}

impl Parked {
    /// Takes the next event of the run, and when it happened since the run began.
    pub fn take(&mut self, at: Duration, what: &What) {
        match what {
            What::ApprovalAsked { call, .. } => *self.asked.entry(call.clone()).or_default() += 1,
            What::ApprovalDecided { call, .. } => {
                if let Some(open) = self.asked.get_mut(call) {
                    *open = open.saturating_sub(1);
                    if *open == 0 {
                        self.asked.remove(call);
                    }
                }
            }
            What::CallReady { call, .. } => {
                self.going.insert(call.clone());
            }
            What::CallEnded { outcome } => {
                self.asked.remove(&outcome.call);
                self.going.remove(&outcome.call);
            }
            // What the process before it was about, it is no more: it is asked again, and begun again.
            What::RunResumed => {
                self.asked.clear();
                self.going.clear();
            }
            _ => return,
        }
        let is_parked = !self.asked.is_empty() && self.going.is_empty();
        match (self.since, is_parked) {
            (None, true) => self.since = Some(at),
            (Some(since), false) => {
                self.total += at.saturating_sub(since);
                self.since = None;
            }
            _ => {}
        }
    }

    /// Whether it is parked.
    pub fn is_parked(&self) -> bool {
        self.since.is_some()
    }

    /// How long it was, each time until it went on.
    pub fn total(&self) -> Duration {
        self.total
    }
}

/// The same of a run that goes on: it is a recorder of it.
#[derive(Debug, Default)]
pub struct Parking(Mutex<Parked>);

impl Parking {
    /// Whether the run is parked.
    pub fn is_parked(&self) -> bool {
        self.now().is_parked()
    }

    /// How long it was, each time until it went on.
    pub fn total(&self) -> Duration {
        self.now().total()
    }

    fn now(&self) -> MutexGuard<'_, Parked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder for Parking {
    fn record(&self, event: &Event) {
        self.now().take(event.at, &event.what);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fanout_core::approval::Decision;
    use fanout_core::outcome::{Outcome, Output};

    use super::*;

    /// Events such as `5 asks a`, by when they happen; answers when it was parked, and whether it still is.
    #[track_caller]
    fn check(events: &[&str], total: u64, is_parked: bool) {
        let mut parked = Parked::default();
        for event in events {
            let [at, does, call] = event.split(' ').collect::<Vec<_>>()[..] else { panic!("{event}") };
            let (call, approval) = (CallId::from(call), "apr".into());
            let what = match does {
                "asks" => What::ApprovalAsked { call, tool: "pay".into(), approval },
                "decided" => What::ApprovalDecided { call, approval, decision: Decision::Expired },
                "ready" => What::CallReady { call, filled: None },
                "resumed" => What::RunResumed,
                _ => {
                    let result = Ok(Arc::new(Output::default()));
                    What::CallEnded {
                        outcome: Arc::new(Outcome { call, part_of: None, result, shown: Arc::from([]), attempts: 0 }),
                    }
                }
            };
            parked.take(Duration::from_millis(at.parse().unwrap()), &what);
        }
        assert_eq!((parked.total(), parked.is_parked()), (Duration::from_millis(total), is_parked), "{events:?}");
    }

    #[test]
    fn a_run_is_parked_while_it_waits_for_people_and_for_nothing_else() {
        check(&[], 0, false);
        check(&["5 asks a"], 0, true);
        check(&["5 asks a", "25 decided a", "25 ready a", "30 ended a"], 20, false);
        check(&["1 ready b", "5 asks a", "15 ended b", "25 decided a"], 10, false);
        check(&["5 asks a", "10 ready b", "15 ended b", "25 decided a"], 15, false);
        check(&["5 asks a", "6 asks b", "16 decided b", "16 ready b"], 11, false);
        check(&["5 asks p", "5 asks p", "10 decided p", "20 decided p"], 15, false);
        check(&["5 asks a", "25 ended a"], 20, false);
        check(&["5 ready a", "6 asks b", "9 resumed -", "9 asks b", "19 decided b"], 10, false);
    }
}
