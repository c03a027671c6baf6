//! What may be spent in a day, by all the runs of a project or of a key together.
//!
//! From a run, before each model request: the most that it can cost. To it: whether the day has room for that. What is spent and set
//! aside stands in a [`Ledger`], which many runs and, if it is kept, many processes share; so they cannot overshoot together.
//!
//! A request that was surely not charged gives its part back. Of one that was sent and whose usage nobody knows (the answer broke
//! off, the run was stopped, the process was killed) all that was set aside stays spent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fanout_core::tool::BoxFuture;

use crate::agent::AgentOptions;
use crate::budget::BudgetError;
use crate::stop::End;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Ledgers count in billionths of a US dollar: whole numbers add up to the same in any order.
const NANOS: f64 = 1e9;

/// A day of UTC, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u64);

impl Day {
    /// The day of this moment.
    pub fn of(now: SystemTime) -> Self {
        Self(since_epoch(now).as_secs() / DAY.as_secs())
    }

    /// How long this day still lasts; nothing for one that is over.
    pub fn left(self, now: SystemTime) -> Duration {
        let end = DAY.saturating_mul(u32::try_from(self.0.saturating_add(1)).unwrap_or(u32::MAX));
        end.saturating_sub(since_epoch(now))
    }
}

fn since_epoch(now: SystemTime) -> Duration {
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Whole billionths of a US dollar, rounded up; what is no amount is none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` keeps within bounds, and no amount is negative"
)]
pub fn nano_usd(usd: f64) -> u64 {
    (usd.max(0.0) * NANOS).ceil() as u64
}

#[expect(clippy::cast_precision_loss, reason = "for reading: 2^53 billionths are nine million dollars")]
fn usd(nano_usd: u64) -> f64 {
    nano_usd as f64 / NANOS
}

/// The most that may be spent in a day by whoever shares a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DailyCap {
    /// Whose spending is added up, such as `project/support` or `key/k_1`.
    pub scope: Arc<str>,
    /// How people know the cap, such as `` `max_cost_usd_per_day` of [project.support] ``.
    pub name: Arc<str>,
    /// The most, in billionths of a US dollar.
    pub max_nano_usd: u64,
}

/// Why a ledger sets nothing aside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// A cap leaves no room.
    #[error("{left_nano_usd} billionths of a dollar are left of a day's cap")]
    Full {
        /// Which of the caps that were asked for.
        cap: usize,
        /// What is left of it.
        left_nano_usd: u64,
    },
    /// What was spent cannot be known now.
    #[error("{0}")]
    Unavailable(String),
}

/// What was spent and what is set aside, by day and scope.
pub trait Ledger: Send + Sync + 'static {
    /// Sets this amount aside in the scope of each of these caps: in all of them, or in none. What is spent and set aside in a scope
    /// never comes to more than its cap.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing is set aside then.
    ///
    /// # Cancellation
    /// Dropping the future may leave the amount set aside, and so spent.
    fn reserve<'a>(&'a self, day: Day, caps: &'a [DailyCap], nano_usd: u64) -> BoxFuture<'a, Result<(), LedgerError>>;

    /// Of what was set aside in these scopes on that day, so much was spent and the rest is free again. Never waits: one that must
    /// write does so later. What is never settled stays set aside, which is as good as spent.
    fn settle(&self, day: Day, caps: &[DailyCap], reserved_nano_usd: u64, spent_nano_usd: u64);
}

/// A ledger that lives as long as its process.
#[derive(Debug, Default)]
pub struct MemoryLedger(Mutex<HashMap<(Day, Arc<str>), u64>>);

impl MemoryLedger {
    /// What is spent and set aside, in billionths of a US dollar.
    pub fn used(&self, day: Day, scope: &str) -> u64 {
        let used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        used.get(&(day, Arc::from(scope))).copied().unwrap_or_default()
    }
}

impl Ledger for MemoryLedger {
    fn reserve<'a>(&'a self, day: Day, caps: &'a [DailyCap], nano_usd: u64) -> BoxFuture<'a, Result<(), LedgerError>> {
        Box::pin(async move {
            let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // What was begun yesterday may still be settled.
            used.retain(|(known, _), _| known.0.saturating_add(1) >= day.0);
            for (at, cap) in caps.iter().enumerate() {
                let known = used.get(&(day, Arc::clone(&cap.scope))).copied().unwrap_or_default();
                let left_nano_usd = cap.max_nano_usd.saturating_sub(known);
                if nano_usd > left_nano_usd {
                    return Err(LedgerError::Full { cap: at, left_nano_usd });
                }
            }
            for cap in caps {
                let known = used.entry((day, Arc::clone(&cap.scope))).or_default();
                *known = known.saturating_add(nano_usd);
            }
            Ok(())
        })
    }

    fn settle(&self, day: Day, caps: &[DailyCap], reserved_nano_usd: u64, spent_nano_usd: u64) {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for cap in caps {
            if let Some(known) = used.get_mut(&(day, Arc::clone(&cap.scope))) {
                *known = known.saturating_sub(reserved_nano_usd).saturating_add(spent_nano_usd);
            }
        }
    }
}

/// The caps that a run is under, and the ledger that they are counted in. Each scope must stand in them once.
#[derive(Clone)]
pub struct Daily {
    /// Where is added up.
    pub ledger: Arc<dyn Ledger>,
    /// The caps; without any there is no bound.
    pub caps: Arc<[DailyCap]>,
}

impl Daily {
    /// Refuses caps in dollars that cannot be counted.
    pub(crate) fn check(&self, options: &AgentOptions) -> Result<(), End> {
        match (self.caps.first(), options.price) {
            (Some(cap), None) => Err(End::Failed(format!(
                "there is a cap of ${:.2} a day ({}) and no price for `{2}`: add [prices.\"{2}\"], or take the cap away",
                usd(cap.max_nano_usd),
                cap.name,
                options.model
            ))),
            _ => Ok(()),
        }
    }

    /// Sets aside what a request can cost at most, on the day of `now`.
    pub(crate) async fn reserve(&self, wanted_usd: f64, now: SystemTime) -> Result<DailyReservation, BudgetError> {
        let (day, nano_usd) = (Day::of(now), nano_usd(wanted_usd));
        self.ledger.reserve(day, &self.caps, nano_usd).await.map_err(|error| match error {
            LedgerError::Full { cap, left_nano_usd } => {
                let cap = self.caps.get(cap);
                BudgetError::Day {
                    wanted: wanted_usd,
                    left: usd(left_nano_usd),
                    max: usd(cap.map_or(0, |cap| cap.max_nano_usd)),
                    name: cap.map(|cap| Arc::clone(&cap.name)).unwrap_or_default(),
                    ends_in: day.left(now),
                }
            }
            LedgerError::Unavailable(detail) => BudgetError::Unknown(detail),
        })?;
        Ok(DailyReservation { daily: self.clone(), day, nano_usd, spent: 0 })
    }
}

impl std::fmt::Debug for Daily {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daily").field("caps", &self.caps).finish_non_exhaustive()
    }
}

/// What is set aside of a day, until it is dropped: then what was not spent is free again.
#[derive(Debug)]
pub(crate) struct DailyReservation {
    daily: Daily,
    day: Day,
    nano_usd: u64,
    /// What is known to be spent; all of it, from when the request is sent until its usage is known.
    spent: u64,
}

impl DailyReservation {
    /// The request is on its way: unless more becomes known, all of it is spent.
    pub(crate) fn sent(&mut self) {
        self.spent = self.nano_usd;
    }

    /// So much was really spent.
    pub(crate) fn spend(&mut self, usd: f64) {
        self.spent = nano_usd(usd);
    }
}

impl Drop for DailyReservation {
    fn drop(&mut self) {
        self.daily.ledger.settle(self.day, &self.daily.caps, self.nano_usd, self.spent);
    }
}

/// `3 h 20 min`; less than a minute is one.
pub(crate) fn in_words(time: Duration) -> String {
    let minutes = time.as_secs().div_ceil(60).max(1);
    match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    fn daily(ledger: &Arc<MemoryLedger>, caps: &[(&str, f64)]) -> Daily {
        let cap = |(scope, max): &(&str, f64)| DailyCap {
            scope: (*scope).into(),
            name: format!("cap of {scope}").into(),
            max_nano_usd: nano_usd(*max),
        };
        Daily { ledger: Arc::clone(ledger) as _, caps: caps.iter().map(cap).collect() }
    }

    #[tokio::test]
    async fn a_cap_that_leaves_no_room_is_named_with_the_end_of_the_day_and_nothing_is_set_aside() {
        let ledger = Arc::new(MemoryLedger::default());
        let both = daily(&ledger, &[("project/a", 1.0), ("key/k", 0.5)]);
        let held = both.reserve(0.4, at(3_600)).await.unwrap();
        let refused = both.reserve(0.2, at(3_600)).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the next request may cost $0.2000 and $0.1000 of $0.50 a day is left (cap of key/k); the day ends at 00:00 UTC, in 23 h"
        );
        assert_eq!(ledger.used(Day(0), "project/a"), nano_usd(0.4), "in all scopes or in none");
        drop(held);
        assert_eq!((ledger.used(Day(0), "project/a"), ledger.used(Day(0), "key/k")), (0, 0));
    }

    #[tokio::test]
    async fn what_was_sent_and_is_not_known_stays_spent() {
        let ledger = Arc::new(MemoryLedger::default());
        let one = daily(&ledger, &[("project/a", 1.0)]);
        let reserve = async || one.reserve(0.25, at(0)).await.unwrap();
        drop(reserve().await);
        assert_eq!(ledger.used(Day(0), "project/a"), 0, "not sent");
        let mut known = reserve().await;
        known.sent();
        known.spend(0.1);
        drop(known);
        assert_eq!(ledger.used(Day(0), "project/a"), nano_usd(0.1));
        let mut unknown = reserve().await;
        unknown.sent();
        drop(unknown);
        assert_eq!(ledger.used(Day(0), "project/a"), nano_usd(0.35));
    }

    #[tokio::test]
    async fn a_new_day_has_all_its_room_and_what_was_begun_counts_for_the_day_before() {
        let ledger = Arc::new(MemoryLedger::default());
        let one = daily(&ledger, &[("project/a", 1.0)]);
        let mut late = one.reserve(1.0, at(86_399)).await.unwrap();
        assert!(one.reserve(0.1, at(86_399)).await.is_err());
        let _next = one.reserve(1.0, at(86_400)).await.unwrap();
        late.sent();
        late.spend(0.5);
        drop(late);
        assert_eq!(
            (ledger.used(Day(0), "project/a"), ledger.used(Day(1), "project/a")),
            (nano_usd(0.5), nano_usd(1.0))
        );
        assert_eq!(Day(0).left(at(86_399)), Duration::from_secs(1));
    }

    #[test]
    fn times_are_said_in_hours_and_minutes() {
        for (secs, words) in [(0, "1 min"), (61, "2 min"), (3_600, "1 h"), (12_000, "3 h 20 min")] {
            assert_eq!(in_words(Duration::from_secs(secs)), words);
        }
    }
}
