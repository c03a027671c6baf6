//! What happens, as it happens.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fanout_core::event::{Event, Recorder, What};
use fanout_core::outcome::{Content, ErrorCode, Outcome};
use fanout_core::timeline::{Bar, Timeline};
use fanout_host::lines;

use super::print::{first_line, print_line, say};
use super::{ERROR, FINE, QUIET, plain, styled, time};

/// Listens to one run: keeps its timeline, and prints progress.
pub struct Watcher {
    json: bool,
    timeline: Mutex<Timeline>,
    /// Somebody was told that calls of this turn find no budget: thousands can, for one and the same reason.
    budget_said: AtomicBool,
}

impl Watcher {
    /// Prints JSON lines to standard output, or words to standard error.
    pub fn new(json: bool) -> Self {
        Self { json, timeline: Mutex::default(), budget_said: AtomicBool::new(false) }
    }

    /// The timeline so far.
    pub fn timeline(&self) -> MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, event: &Event) {
        let at = styled(QUIET, format!("{:>8}", time(event.at)));
        match &event.what {
            What::TurnStarted { turn } => {
                self.budget_said.store(false, Ordering::Relaxed);
                say(format!("{at}  turn {turn}: asking the model"));
            }
            // One that ends the run is said at the end.
            What::ModelFailed { turn, error, again_after: Some(wait) } => {
                say(format!("{at}  turn {turn}: {}; again in {}", first_line(error), time(*wait)));
            }
            What::TurnDiscarded { turn, reason } => {
                say(format!("{at}  turn {turn}: early results thrown away: {}", first_line(reason)));
            }
            What::CallEnded { outcome } => {
                if outcome.error_code() == Some(ErrorCode::Budget) && self.budget_said.swap(true, Ordering::Relaxed) {
                    return;
                }
                let timeline = self.timeline();
                if let Some(bar) = timeline.bar(&outcome.call) {
                    say(format!("{at}  {}", ended(bar, outcome)));
                }
            }
            What::ApprovalAsked { call, approval, .. } => {
                let timeline = self.timeline();
                let tool = plain(timeline.bar(call).map_or(call.as_str(), |bar| bar.tool.as_str()));
                say(format!("{at}  {tool} waits for a person: approval {approval}"));
            }
            What::ApprovalDecided { call, decision, .. } => {
                let timeline = self.timeline();
                let tool = plain(timeline.bar(call).map_or(call.as_str(), |bar| bar.tool.as_str()));
                let by = decision.said().and_then(|said| said.by.as_deref());
                let by = by.map(|by| format!(" by {}", plain(by))).unwrap_or_default();
                say(format!("{at}  {tool}: approval {}{by}", decision.as_str()));
            }
            What::CallBackoff { call, attempts, wait } => {
                let timeline = self.timeline();
                let tool = plain(timeline.bar(call).map_or(call.as_str(), |bar| bar.tool.as_str()));
                say(format!("{at}  {tool} goes again in {}: attempt {attempts} failed", time(*wait)));
            }
            What::LimitPaused { group, wait } => {
                let group = plain(group.as_str());
                say(format!("{at}  waits {} for {group}: asked by the far side", time(*wait)));
            }
            What::BreakerOpened { group, wait } => {
                let group = plain(group.as_str());
                say(format!(
                    "{at}  {} {group} is failing: nothing is sent to it for {}",
                    styled(ERROR, "✗"),
                    time(*wait)
                ));
            }
            What::StrayGivenUp { call } => {
                let call = plain(call.as_str());
                say(format!("{at}  {call} is still working after its end; its locks are taken away"));
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

fn ended(bar: &Bar, outcome: &Outcome) -> String {
    let (tool, took) = (plain(bar.tool.as_str()), time(bar.took()));
    match outcome.error_code() {
        None => format!("{} {tool} {took}", styled(FINE, "✓")),
        Some(code) => {
            let why = outcome.result.as_ref().err().map_or_else(|| shown(outcome), |error| &error.message);
            format!("{} {tool} {took} {code}: {}", styled(ERROR, "✗"), first_line(why))
        }
    }
}

fn shown(outcome: &Outcome) -> &str {
    let text = outcome.shown.iter().find_map(|content| match content {
        Content::Text(text) => Some(&**text),
        Content::Image { .. } => None,
    });
    text.unwrap_or_default()
}
