//! One entry of a trace: the few kinds of the format that we write.
//!
//! From [`trace`](super): what is drawn, where and when. To the list `traceEvents`. Times are microseconds with three decimals, as
//! the format has them. Every entry has `ph`, `pid`, `tid`, `ts` and `name`.

use std::time::Duration;

use serde_json::{Value, json};

/// A track of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane(u64);

impl Lane {
    /// The track of the model, above those of the calls.
    pub(super) const MODEL: Self = Self(1);

    /// The track of calls of this number, counted from 0.
    pub(super) fn of_calls(number: usize) -> Self {
        Self(number as u64 + 2)
    }
}

/// Where an arrow begins or ends: inside a slice of this track.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) lane: Lane,
    pub(super) at: Duration,
}

/// Writes the entries of one run.
pub(super) struct Process<'e> {
    pid: u64,
    entries: &'e mut Vec<Value>,
    /// How many arrows the whole document has: their ids are one set.
    arrows: &'e mut u64,
}

impl<'e> Process<'e> {
    pub(super) fn new(pid: u64, entries: &'e mut Vec<Value>, arrows: &'e mut u64) -> Self {
        Self { pid, entries, arrows }
    }

    /// What the process is called.
    pub(super) fn named(&mut self, name: &str) {
        self.entries.push(json!({
            "ph": "M", "name": "process_name", "pid": self.pid, "tid": Lane::MODEL.0, "ts": 0, "args": { "name": name },
        }));
    }

    /// What a track is called, and its place among the others.
    pub(super) fn lane(&mut self, lane: Lane, name: &str) {
        for (what, args) in
            [("thread_name", json!({ "name": name })), ("thread_sort_index", json!({ "sort_index": lane.0 }))]
        {
            self.entries
                .push(json!({ "ph": "M", "name": what, "pid": self.pid, "tid": lane.0, "ts": 0, "args": args }));
        }
    }

    /// Something that lasted.
    pub(super) fn slice(&mut self, lane: Lane, kind: &str, name: &str, from: Duration, until: Duration, args: &Value) {
        self.entries.push(json!({
            "ph": "X", "cat": kind, "name": name, "pid": self.pid, "tid": lane.0, "ts": micros(from),
            "dur": micros(until.saturating_sub(from)), "args": args,
        }));
    }

    /// Something that took no time.
    pub(super) fn moment(&mut self, lane: Lane, name: &str, at: Duration, args: &Value) {
        self.entries.push(json!({
            "ph": "i", "s": "p", "cat": "moment", "name": name, "pid": self.pid, "tid": lane.0, "ts": micros(at), "args": args,
        }));
    }

    /// An arrow from the end of a wait's cause to what waited. It must not end before it begins.
    pub(super) fn arrow(&mut self, kind: &str, from: End, to: End, args: &Value) {
        *self.arrows += 1;
        let entry = |ph: &str, end: End| {
            json!({
                "ph": ph, "cat": "waits", "name": kind, "id": *self.arrows, "pid": self.pid, "tid": end.lane.0,
                "ts": micros(end.at), "args": args,
            })
        };
        let (start, mut finish) = (entry("s", from), entry("f", to));
        // It binds to the slice that it is in; without this, to the next one that begins.
        finish["bp"] = json!("e");
        self.entries.extend([start, finish]);
    }
}

/// Microseconds, to the nanosecond.
#[expect(clippy::cast_precision_loss, reason = "2^53 nanoseconds are 104 days, past which a trace is rounded")]
pub(super) fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1_000.0
}
