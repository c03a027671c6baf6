//! Random numbers from a seed that is the whole story, and the loop over seeds.
//!
//! `FANOUT_SCHEDULES` says how many schedules a property plays (1,000 unless told), `FANOUT_SEED` replays one.
//! To every property test. No clock and no system randomness is used here.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// How many schedules a property plays where `FANOUT_SCHEDULES` says nothing: the core's suite then takes about ten
/// seconds on two busy processors.
pub const SCHEDULES: usize = 1_000;

/// A splitmix64 generator (Steele, Lea and Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = end.max(1) as u64;
        // The remainder's bias is one part in 2^50 for the small ranges of tests.
        (self.bits() % end) as usize
    }

    /// True in so many cases of a hundred.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// One of them.
    ///
    /// # Panics
    /// On an empty slice.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A number in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A log-normal number: `median * e^(sigma * z)` with `z` standard normal (Box and Muller).
    pub fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        let (u, v) = (1.0 - self.unit(), self.unit());
        let z = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        median * (sigma * z).exp()
    }

    /// A random order of `0..len`.
    pub fn order(&mut self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for at in (1..len).rev() {
            order.swap(at, self.below(at + 1));
        }
        order
    }
}

/// How many schedules were asked for, by `FANOUT_SCHEDULES`.
///
/// # Panics
/// When the variable is no number: a typing mistake must not look like a short test.
pub fn schedules() -> usize {
    std::env::var("FANOUT_SCHEDULES").map_or(SCHEDULES, |text| {
        text.parse().unwrap_or_else(|_| panic!("FANOUT_SCHEDULES must be a number of schedules, not `{text}`"))
    })
}

/// Plays `check` for `percent` of a hundred of the schedules asked for, one seed each, from 0 up.
///
/// # Panics
/// As `check` does, after printing the seed and how to replay it. `FANOUT_SEED` plays that one alone.
pub fn each_seed(percent: usize, check: impl Fn(u64)) {
    if let Ok(text) = std::env::var("FANOUT_SEED") {
        let seed = text.parse().unwrap_or_else(|_| panic!("FANOUT_SEED must be a number, not `{text}`"));
        return check(seed);
    }
    for seed in 0..(schedules() * percent).div_ceil(100) as u64 {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(seed))) {
            let thread = std::thread::current();
            let test = thread.name().unwrap_or("this test").to_owned();
            eprintln!("\nseed {seed} fails; replay it: FANOUT_SEED={seed} cargo nextest run {test}\n");
            resume_unwind(panic);
        }
    }
}
