//! An external API that keeps its own limits and counts who passes them.
//!
//! From [`crowd`](crate::crowd): attempts as they arrive, on virtual time. To it: what each is answered, and when. To the
//! judges: how often its limits were passed.
//!
//! Written without a look at the code it judges: a rate here is the plain sentence "no span holds more", kept in whole
//! nanoseconds over every pair of arrivals.

use std::time::Duration;

use crate::seed::Rng;

/// What an API bears, and what befalls it.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The most arrivals in any span of time.
    pub rate: Option<Rate>,
    /// How many it serves at once, from which moment on: in order of time. None is no bound.
    pub at_once: Vec<(Duration, usize)>,
    /// The shortest and the longest time that it takes to answer.
    pub takes: (Duration, Duration),
    /// When it is down, and what it answers then.
    pub down: Vec<Down>,
    /// So many attempts of a hundred come to grief.
    pub trouble: usize,
}

/// Any closed span `T` holds at most `burst + calls * T / per` arrivals.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// So many calls,
    pub calls: u32,
    /// in so long,
    pub per: Duration,
    /// and so many at one moment.
    pub burst: u32,
}

/// A time of need.
#[derive(Clone, Copy, Debug)]
pub struct Down {
    /// From when on.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
    /// What it answers to everyone.
    pub says: Reply,
}

/// What an attempt came to, as the far side knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A 200.
    Well,
    /// A 404.
    No,
    /// A 429.
    TooMany(Option<Duration>),
    /// A 503.
    Unavailable(Option<Duration>),
    /// A 500, or a lost connection.
    Broken,
    /// A refused connection.
    Unreachable,
    /// No answer, ever.
    Silence,
}

impl Reply {
    /// Whether the caller must think that the work may have been done.
    pub fn may_be_done(self) -> bool {
        match self {
            Self::Well | Self::No | Self::Unavailable(_) | Self::Broken | Self::Silence => true,
            Self::TooMany(_) | Self::Unreachable => false,
        }
    }
}

/// The API.
#[derive(Clone, Debug)]
pub struct Api {
    rules: Rules,
    inside: usize,
    span: Span,
    /// How many attempts arrived.
    pub arrivals: usize,
    /// How many of them it could not bear: more than its rate, or more at once.
    pub violations: usize,
}

impl Api {
    /// One that nobody has called.
    pub fn new(rules: Rules) -> Self {
        let span = Span::new(rules.rate);
        Self { rules, inside: 0, span, arrivals: 0, violations: 0 }
    }

    /// An attempt arrives: what it will be answered, and after how long. It is inside until [`Api::leaves`].
    pub fn arrives(&mut self, now: Duration, rng: &mut Rng) -> (Duration, Reply) {
        self.arrivals += 1;
        self.inside += 1;
        let (shortest, longest) = self.rules.takes;
        let spread = usize::try_from((longest - shortest).as_nanos()).unwrap_or(usize::MAX);
        let takes = shortest + Duration::from_nanos(rng.below(spread + 1) as u64);
        // Who is turned away is turned away fast.
        let quick = shortest / 4;
        if let Some(down) = self.rules.down.iter().find(|down| down.from <= now && now < down.until) {
            return (quick, down.says);
        }
        if let Err(at) = self.span.arrive(now) {
            self.violations += 1;
            // As real ones say it: in whole seconds, rounded up.
            let seconds = (at - now).as_nanos().div_ceil(1_000_000_000);
            return (quick, Reply::TooMany(Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX)))));
        }
        let bears =
            self.rules.at_once.iter().rev().find(|(from, _)| *from <= now).map_or(usize::MAX, |(_, most)| *most);
        if self.inside > bears {
            self.violations += 1;
            return (quick, Reply::TooMany(None));
        }
        if !rng.percent(self.rules.trouble) {
            return (takes, Reply::Well);
        }
        let wait = rng.percent(50).then(|| Duration::from_millis(rng.below(2000) as u64));
        let says = [
            Reply::No,
            Reply::TooMany(wait),
            Reply::Unavailable(wait),
            Reply::Broken,
            Reply::Broken,
            Reply::Unreachable,
            Reply::Silence,
        ];
        (takes, *rng.pick(&says))
    }

    /// The attempt is over, for the far side too.
    pub fn leaves(&mut self) {
        self.inside -= 1;
    }
}

/// The times of arrivals, held to a rate.
///
/// Arrivals `i <= j` are too many if `(j - i + 1 - burst) * per > calls * (a[j] - a[i])`. With `f(k) = k * per - calls *
/// a[k]` that is `f(j) - f(i) > (burst - 1) * per`, so the least `f` so far stands for all earlier arrivals, and nothing
/// is rounded.
#[derive(Clone, Debug)]
pub struct Span {
    rate: Option<Rate>,
    count: i128,
    least: i128,
}

impl Span {
    /// Before the first arrival.
    pub fn new(rate: Option<Rate>) -> Self {
        Self { rate, count: 0, least: i128::MAX }
    }

    /// One more arrives, no earlier than the one before. One that is too many is not counted.
    ///
    /// # Errors
    /// From when on it would have been welcome.
    pub fn arrive(&mut self, now: Duration) -> Result<(), Duration> {
        let Some(Rate { calls, per, burst }) = self.rate else { return Ok(()) };
        let (calls, per) = (i128::from(calls), nanos(per));
        let here = self.count * per - calls * nanos(now);
        let above = here - self.least.min(here) - (i128::from(burst) - 1) * per;
        if above > 0 {
            let later = (above + calls - 1) / calls;
            return Err(now + Duration::from_nanos(u64::try_from(later).unwrap_or(u64::MAX)));
        }
        self.least = self.least.min(here);
        self.count += 1;
        Ok(())
    }
}

fn nanos(span: Duration) -> i128 {
    i128::try_from(span.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sentence itself, over every pair.
    fn is_within(rate: Rate, arrivals: &[Duration]) -> bool {
        (0..arrivals.len()).all(|j| {
            (0..=j).all(|i| {
                let more = (j - i + 1) as i128 - i128::from(rate.burst);
                more * nanos(rate.per) <= i128::from(rate.calls) * nanos(arrivals[j] - arrivals[i])
            })
        })
    }

    #[test]
    fn an_arrival_is_too_many_exactly_if_some_pair_says_so() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let per = Duration::from_nanos(1 + rng.below(1000) as u64);
            let rate = Rate { calls: 1 + rng.below(7) as u32, per, burst: 1 + rng.below(4) as u32 };
            let (mut span, mut taken, mut now) = (Span::new(Some(rate)), Vec::new(), Duration::ZERO);
            for _ in 0..60 {
                now += Duration::from_nanos(rng.below(per.as_nanos() as usize / 2 + 2) as u64);
                let with = |at: Duration| [taken.as_slice(), &[at]].concat();
                match span.arrive(now) {
                    Ok(()) => {
                        assert!(is_within(rate, &with(now)), "seed {seed}: let in at {now:?}");
                        taken.push(now);
                    }
                    Err(at) => {
                        assert!(!is_within(rate, &with(now)), "seed {seed}: kept out at {now:?}");
                        assert!(is_within(rate, &with(at)), "seed {seed}: not welcome at {at:?}");
                        assert!(!is_within(rate, &with(at - Duration::from_nanos(1))), "seed {seed}: {at:?} is late");
                    }
                }
            }
        }
    }
}
