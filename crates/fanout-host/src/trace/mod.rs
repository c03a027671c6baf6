//! Runs in the trace event format of Chrome, which Perfetto opens.
//!
//! From the events of runs, live or from a journal. To one JSON document: a process per run, a track for the model, a track for
//! each of the calls that are there at once, a slice for each time and an arrow for each wait. The format is that of the
//! "Trace Event Format" document of the Chromium project; what we write of it stands in `entry`.
//! Every number is the events' own; the folding is [`Timeline`]'s, so that this and the waterfall cannot disagree.
//! Nothing is read from a store here, and nothing is redacted: events are as anybody may see them.

mod calls;
mod entry;

use std::borrow::Borrow;
use std::collections::HashMap;
use std::time::Duration;

use fanout_core::call::{CallId, RunId};
use fanout_core::event::{Event, What};
use fanout_core::timeline::{Timeline, Turn};
use serde_json::{Value, json};

use self::calls::Calls;
use self::entry::{Lane, Process, micros};

/// The document of these events: those of one run in their order, those of several runs mixed in any way.
///
/// Each run's clock begins at 0. A call that has not ended, the run being under way or its process killed, lasts until the
/// run's last event and has no outcome. No events give a document without entries.
pub fn trace<E: Borrow<Event>>(events: impl IntoIterator<Item = E>) -> Value {
    let mut runs: Vec<(RunId, Story)> = Vec::new();
    let mut places: HashMap<RunId, usize> = HashMap::new();
    for event in events {
        let event = event.borrow();
        let at = *places.entry(event.run.clone()).or_insert_with(|| {
            runs.push((event.run.clone(), Story::default()));
            runs.len() - 1
        });
        runs[at].1.take(event);
    }
    let (mut entries, mut about, mut arrows) = (Vec::new(), Vec::new(), 0);
    for (pid, (run, story)) in (1_u64..).zip(&runs) {
        let mut process = Process::new(pid, &mut entries, &mut arrows);
        process.named(&format!("run {}", run.as_str()));
        story.draw(&mut process);
        let figures = story.timeline.figures();
        about.push(json!({
            "run": run.as_str(), "pid": pid, "status": story.timeline.status(),
            "elapsed_us": micros(figures.elapsed), "one_by_one_us": micros(figures.one_by_one),
            "critical_path_us": micros(figures.critical_path),
        }));
    }
    json!({ "traceEvents": entries, "displayTimeUnit": "ms", "otherData": { "runs": about } })
}

/// What happened in one run.
#[derive(Default)]
struct Story {
    timeline: Timeline,
    /// What a timeline does not keep, because it takes no time.
    moments: Vec<Moment>,
    /// When work of an ended call was given up.
    given_up: HashMap<CallId, Duration>,
}

/// Something that took no time.
struct Moment {
    at: Duration,
    name: &'static str,
    args: Value,
}

impl Story {
    fn take(&mut self, event: &Event) {
        self.timeline.take(event);
        let (name, args) = match &event.what {
            What::ModelFailed { turn, error, again_after } => {
                ("model failed", json!({ "turn": turn, "error": error, "again_after_us": again_after.map(micros) }))
            }
            What::TurnDiscarded { turn, reason } => ("turn discarded", json!({ "turn": turn, "reason": reason })),
            What::LimitPaused { group, wait } => {
                ("limit paused", json!({ "group": group.as_str(), "wait_us": micros(*wait) }))
            }
            What::BreakerOpened { group, wait } => {
                ("breaker opened", json!({ "group": group.as_str(), "wait_us": micros(*wait) }))
            }
            What::StrayGivenUp { call } => {
                self.given_up.insert(call.clone(), event.at);
                ("stray given up", json!({ "call": call.as_str() }))
            }
            What::RunEnded { status, reason } => ("run ended", json!({ "status": status, "reason": reason })),
            _ => return,
        };
        self.moments.push(Moment { at: event.at, name, args });
    }

    fn draw(&self, process: &mut Process<'_>) {
        let end = self.timeline.figures().elapsed;
        process.lane(Lane::MODEL, "model");
        let turns = self.timeline.turns();
        let next = turns.iter().skip(1).map(|turn| turn.asked_at).chain([end]);
        for (turn, next) in turns.iter().zip(next) {
            model(process, turn, next);
        }
        for moment in &self.moments {
            process.moment(Lane::MODEL, moment.name, moment.at, &moment.args);
        }
        Calls::of(turns, &self.given_up, end).draw(process);
    }
}

/// The model's time of one turn. One that was never answered lasts until the next.
fn model(process: &mut Process<'_>, turn: &Turn, next: Duration) {
    if turn.number == 0 {
        return;
    }
    let until = turn.answered_at.unwrap_or(next);
    let args = json!({ "turn": turn.number, "calls": turn.bars.len(), "answered": turn.answered_at.is_some() });
    process.slice(Lane::MODEL, "model", &format!("turn {}", turn.number), turn.asked_at, until, &args);
}
