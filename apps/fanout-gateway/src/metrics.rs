//! What a gateway counts, in the text format that Prometheus reads. The names are a contract.
//!
//! From [`watch`](crate::watch): what happened in each run; from the scheduler: how its limit groups stand. To `/metrics`.
//!
//! Never a run, a call, a key or an account as a label; a tool is one only if we have it, since a model may ask for any name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use fanout_agent::MODEL_GROUPS;
use fanout_core::call::ToolName;
use fanout_core::limits::{BreakerState, GroupState};
use fanout_core::toolbox::Toolbox;
use fanout_host::config::IN_FLIGHT;
use fanout_host::groups::group_of;
use tokio::sync::watch;

/// What a call may have waited for, in the words of the contract.
pub(crate) const WHYS: [&str; 7] = ["reference", "conflict", "order", "lock", "limit", "approval", "backoff"];

/// Stands for every tool that we do not have. No tool can be called so.
const UNKNOWN_TOOL: &str = "(unknown)";

/// What stands for all limit groups of requests to the model.
const MODEL: &str = "model";

/// Upper bounds of the histograms' buckets, in seconds: from a local function to a run's whole deadline.
const BUCKETS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 900.0];

/// Everything that is counted.
pub(crate) struct Metrics {
    known: RwLock<Known>,
    numbers: Mutex<Numbers>,
    runs: watch::Sender<usize>,
}

/// The tools whose names become labels. One that is gone stays among them.
#[derive(Default)]
struct Known {
    tools: BTreeSet<ToolName>,
    /// Those whose calls wait in a limit group, which counts them itself.
    limited: BTreeSet<ToolName>,
}

#[derive(Default)]
struct Numbers {
    calls: BTreeMap<(String, &'static str), u64>,
    durations: Histogram,
    waits: [Histogram; WHYS.len()],
    queued: usize,
    costs: BTreeMap<(String, String), f64>,
}

#[derive(Default)]
struct Histogram {
    counts: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

impl Metrics {
    /// Nothing counted yet. The tools' names are the only ones that become labels.
    pub(crate) fn new(toolbox: &Toolbox) -> Self {
        let metrics = Self { known: RwLock::default(), numbers: Mutex::default(), runs: watch::Sender::new(0) };
        metrics.know(toolbox);
        metrics
    }

    /// Takes further tools in.
    pub(crate) fn know(&self, toolbox: &Toolbox) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut numbers = self.numbers();
        for tool in toolbox.iter() {
            let name = &tool.spec.name;
            numbers.calls.entry((name.to_string(), "ok")).or_default();
            known.tools.insert(name.clone());
            match group_of(&tool.spec) {
                Some(_) => known.limited.insert(name.clone()),
                None => known.limited.remove(name),
            };
        }
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn run_began(&self) {
        self.runs.send_modify(|runs| *runs += 1);
    }

    pub(crate) fn run_ended(&self) {
        self.runs.send_modify(|runs| *runs = runs.saturating_sub(1));
    }

    /// Waits until nothing runs.
    pub(crate) async fn idle(&self) {
        // The sender is in `self`, so there is always an answer.
        let _ = self.runs.subscribe().wait_for(|runs| *runs == 0).await;
    }

    /// A call has its outcome. `took` is the time from its first attempt; `None` if it never ran.
    pub(crate) fn call_ended(&self, tool: &ToolName, outcome: &'static str, took: Option<Duration>) {
        let label = if self.known().tools.contains(tool) { tool.as_str() } else { UNKNOWN_TOOL };
        let mut numbers = self.numbers();
        *numbers.calls.entry((label.to_owned(), outcome)).or_default() += 1;
        if let Some(took) = took {
            numbers.durations.observe(took);
        }
    }

    /// A call waited so long; `why` is one of [`WHYS`].
    pub(crate) fn waited(&self, why: &'static str, waited: Duration) {
        if let Some(at) = WHYS.iter().position(|known| *known == why) {
            self.numbers().waits[at].observe(waited);
        }
    }

    /// A call of this tool began to wait for its first permit. Answers whether it is counted here: a limit group counts its
    /// own, and which has one may change while the call waits.
    pub(crate) fn queued(&self, tool: &ToolName) -> bool {
        let is_counted = !self.known().limited.contains(tool);
        self.numbers().queued += usize::from(is_counted);
        is_counted
    }

    /// A call that was counted does not wait for its first permit any longer.
    pub(crate) fn unqueued(&self) {
        let mut numbers = self.numbers();
        numbers.queued = numbers.queued.saturating_sub(1);
    }

    /// A run cost so many US dollars. Only models with a price cost anything that is known, so a client that makes up
    /// names of models makes no labels.
    pub(crate) fn cost(&self, project: Option<&str>, model: &str, usd: f64) {
        let labels = (project.unwrap_or_default().to_owned(), model.to_owned());
        *self.numbers().costs.entry(labels).or_default() += usd;
    }

    /// All of it as text, with the limit groups as they stand.
    pub(crate) fn print(&self, groups: &[GroupState]) -> String {
        let runs = *self.runs.borrow();
        let numbers = self.numbers();
        let mut out = String::with_capacity(8 * 1024);
        head(&mut out, "fanout_calls_total", "counter", "Calls by how they ended.");
        for ((tool, outcome), count) in &numbers.calls {
            let tool = escaped(tool);
            let _ = writeln!(out, "fanout_calls_total{{tool=\"{tool}\",outcome=\"{outcome}\"}} {count}");
        }
        let help = "Time of a call from its first attempt to its outcome.";
        head(&mut out, "fanout_call_duration_seconds", "histogram", help);
        numbers.durations.print(&mut out, "fanout_call_duration_seconds", "");
        let help = "Time that calls waited before and between attempts, by what for.";
        head(&mut out, "fanout_call_wait_seconds", "histogram", help);
        for (why, waits) in WHYS.iter().zip(&numbers.waits) {
            waits.print(&mut out, "fanout_call_wait_seconds", &format!("why=\"{why}\""));
        }
        head(&mut out, "fanout_limit_queue_depth", "gauge", "Calls that wait for a permit of a limit group.");
        let _ = writeln!(out, "fanout_limit_queue_depth{{group=\"{IN_FLIGHT}\"}} {}", numbers.queued);
        let labels = labels(groups);
        for (name, (waiting, _)) in &labels {
            let _ = writeln!(out, "fanout_limit_queue_depth{{group=\"{}\"}} {waiting}", escaped(name));
        }
        head(&mut out, "fanout_breaker_open", "gauge", "1 while a limit group's breaker is open.");
        for (name, (_, open)) in &labels {
            let _ = writeln!(out, "fanout_breaker_open{{group=\"{}\"}} {}", escaped(name), u8::from(*open));
        }
        head(&mut out, "fanout_runs_active", "gauge", "Runs that have not ended.");
        let _ = writeln!(out, "fanout_runs_active {runs}");
        head(&mut out, "fanout_cost_usd_total", "counter", "What the model's tokens cost, where a price is known.");
        for ((project, model), usd) in &numbers.costs {
            let (project, model) = (escaped(project), escaped(model));
            let _ = writeln!(out, "fanout_cost_usd_total{{project=\"{project}\",model=\"{model}\"}} {usd}");
        }
        out
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Histogram {
    fn observe(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        for (count, bound) in self.counts.iter_mut().zip(BUCKETS) {
            *count += u64::from(seconds <= bound);
        }
        self.count += 1;
        self.sum += seconds;
    }

    fn print(&self, out: &mut String, name: &str, label: &str) {
        let comma = if label.is_empty() { "" } else { "," };
        for (count, bound) in self.counts.iter().zip(BUCKETS) {
            let _ = writeln!(out, "{name}_bucket{{{label}{comma}le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(out, "{name}_bucket{{{label}{comma}le=\"+Inf\"}} {}", self.count);
        let braces = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
        let _ = writeln!(out, "{name}_sum{braces} {}\n{name}_count{braces} {}", self.sum, self.count);
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// How many wait in each group, and whether its breaker is open, by label: a group's name, but one label for all accounts at the
/// model's API, however many keys clients bring.
fn labels(groups: &[GroupState]) -> BTreeMap<&str, (usize, bool)> {
    let mut labels = BTreeMap::<&str, (usize, bool)>::new();
    for group in groups {
        let name = group.name.as_str();
        let label = if name.starts_with(MODEL_GROUPS) { MODEL } else { name };
        let (waiting, open) = labels.entry(label).or_default();
        *waiting += group.waiting;
        *open |= group.breaker != BreakerState::Closed;
    }
    labels
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_accounts_at_the_models_api_are_one_label() {
        let group = |name: &str, waiting, breaker| GroupState {
            name: name.into(),
            waiting,
            running: 0,
            concurrency: None,
            paused_for: Duration::ZERO,
            breaker,
        };
        let open = BreakerState::Open { for_: Duration::from_secs(1) };
        let groups = [
            group("payments", 1, BreakerState::HalfOpen),
            group("model/api.example.com", 2, BreakerState::Closed),
            group("model/api.example.com/7", 3, open),
            group("model/api.example.com/11", 4, BreakerState::Closed),
        ];
        let text = Metrics::new(&Toolbox::default()).print(&groups);
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("{group=")).collect();
        assert_eq!(
            lines,
            [
                "fanout_limit_queue_depth{group=\"in_flight\"} 0",
                "fanout_limit_queue_depth{group=\"model\"} 9",
                "fanout_limit_queue_depth{group=\"payments\"} 1",
                "fanout_breaker_open{group=\"model\"} 1",
                "fanout_breaker_open{group=\"payments\"} 1",
            ]
        );
    }
}
