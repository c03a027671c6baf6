//! What is remembered for a caller until it expires, such as what a message stands for that was returned to it.
//!
//! From whoever answers callers, by [`Journal::keep`](crate::Journal::keep): among the events, in the one order, so that what rests on
//! something remembered is never kept without it. To the same, after a restart or in another process, by
//! [`Store::recall`](crate::store::Store::recall).
//!
//! What it says and what its keys mean is not known here. All of it is bounded; the oldest goes first.

use std::time::Duration;

/// So many bytes of text are kept at least, and about so many at most.
pub(crate) const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// So many memos are kept, those included that are over.
pub(crate) const COUNT_MAX: u64 = 100_000;

/// The bytes are added up once in so many memos.
pub(crate) const ADDED_UP_EVERY: u64 = 1024;

/// Something to remember. It takes the place of what is remembered under its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memo {
    /// For whom.
    pub caller: String,
    /// What it is found by.
    pub keys: Vec<String>,
    /// What it says.
    pub text: String,
    /// For how long; of one that is over stays that it was there.
    pub keep: Duration,
}

/// Something that is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// What it says; `None`: that is over.
    pub text: Option<String>,
}

impl Memo {
    /// Of these bytes its store counts.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len()
    }

    /// For how long, in milliseconds.
    pub(crate) fn keep_ms(&self) -> u64 {
        // Half the range, so that a time can be added to it.
        u64::try_from(self.keep.as_millis()).unwrap_or(u64::MAX).min(u64::MAX >> 2)
    }
}

/// Whether the bytes are to be added up: the memos up to number `after` are there now, and those up to `before` were.
pub(crate) fn is_time_to_add_up(before: u64, after: u64) -> bool {
    before / ADDED_UP_EVERY != after / ADDED_UP_EVERY
}
