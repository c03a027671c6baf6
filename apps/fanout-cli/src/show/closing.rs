//! The closing lines: what it took, what else it could have taken, and the line that would make it faster.

use std::time::Duration;

use fanout_core::call::ToolName;
use fanout_core::timeline::{Figures, Timeline};
use fanout_core::toolbox::Toolbox;
use fanout_host::advice::advice;

use super::{QUIET, STRONG, styled, time};

/// `took 1.24 s; one by one 2.83 s; critical path 1.20 s; saved 56 %`
pub fn figures(figures: &Figures) -> String {
    let saved = match figures.saved_percent() {
        0 => "nothing to save: no calls could run side by side".to_owned(),
        percent => format!("saved {percent} %"),
    };
    format!(
        "{} {}; one by one it would have taken {}; no schedule could beat {} (the critical path); {}",
        styled(QUIET, "took"),
        styled(STRONG, time(figures.elapsed)),
        time(figures.one_by_one),
        time(figures.critical_path),
        styled(STRONG, saved)
    )
}

/// What want of a declaration cost, with the lines to add; `None` if it cost nothing to speak of.
pub fn advise(timeline: &Timeline, toolbox: &Toolbox) -> Option<String> {
    let undeclared: Vec<(ToolName, Duration)> =
        timeline.undeclared().into_iter().filter(|(_, cost)| *cost >= Duration::from_millis(1)).collect();
    let (_, most) = undeclared.first()?;
    let lines: Vec<String> = undeclared
        .iter()
        .filter_map(|(tool, _)| toolbox.get(tool))
        .map(|tool| format!("  {}", advice(&tool.spec)))
        .collect();
    Some(format!(
        "{} of it for want of a declaration: calls of one source wait for each other until each says what it touches. \
         To be reviewed and added:\n{}",
        styled(STRONG, time(*most)),
        lines.join("\n")
    ))
}
