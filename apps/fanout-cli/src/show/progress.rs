//! What happens, as it happens.

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fanout_core::event::{Event, Recorder, What};
use fanout_core::outcome::{Content, Outcome};
use fanout_core::timeline::{Bar, Timeline};
use fanout_host::lines;

use super::{ERROR, FINE, QUIET, styled, time};

/// Listens to one run: keeps its timeline, and prints progress.
pub struct Watcher {
    json: bool,
    timeline: Mutex<Timeline>,
}

impl Watcher {
    /// Prints JSON lines to standard output, or words to standard error.
    pub fn new(json: bool) -> Self {
        Self { json, timeline: Mutex::default() }
    }

    /// The timeline so far.
    pub fn timeline(&self) -> MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, event: &Event) {
        let at = styled(QUIET, format!("{:>8}", time(event.at)));
        match &event.what {
            What::TurnStarted { turn } => anstream::eprintln!("{at}  turn {turn}: asking the model"),
            What::TurnDiscarded { turn, reason } => {
                anstream::eprintln!("{at}  turn {turn}: early results thrown away: {reason}");
            }
            What::CallEnded { outcome } => {
                let timeline = self.timeline();
                if let Some(bar) = timeline.bar(&outcome.call) {
                    anstream::eprintln!("{at}  {}", ended(bar, outcome));
                }
            }
            What::StrayEnded { call, given_up: true } => {
                anstream::eprintln!("{at}  {call} is still working after its end; its locks are taken away");
            }
            _ => {}
        }
    }
}

impl Recorder for Watcher {
    fn record(&self, event: &Event) {
        self.timeline().take(event);
        if !self.json {
            self.say(event);
        } else if let Some(line) = lines::line(event) {
            print_line(&line);
        }
    }
}

/// One JSON object on a line of its own. A reader that is gone is no reason to stop the run.
pub fn print_line(line: &serde_json::Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn ended(bar: &Bar, outcome: &Outcome) -> String {
    let took = time(bar.took());
    match outcome.error_code() {
        None => format!("{} {} {took}", styled(FINE, "✓"), bar.tool),
        Some(code) => {
            let why = outcome.result.as_ref().err().map_or_else(|| first_line(outcome), |error| error.message.clone());
            format!("{} {} {took} {code}: {why}", styled(ERROR, "✗"), bar.tool)
        }
    }
}

fn first_line(outcome: &Outcome) -> String {
    let text = outcome.shown.iter().find_map(|content| match content {
        Content::Text(text) => text.lines().next(),
        Content::Image { .. } => None,
    });
    text.unwrap_or_default().to_owned()
}
