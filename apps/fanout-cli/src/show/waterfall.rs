//! The picture of a run: a line per call, from left to right as time went.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;

use fanout_core::timeline::{Bar, Timeline, Turn};

use super::waits::waits;
use super::{ERROR, FINE, MODEL, QUIET, STRONG, styled, time};

/// Without a terminal to ask, lines are so wide.
const WIDTH: usize = 110;
/// The picture itself is never narrower.
const PICTURE_MIN: usize = 20;
/// Names longer than this are cut.
const NAME_MAX: usize = 22;
/// Room for the words behind a bar.
const WORDS: usize = 42;
/// Of a turn with more calls than this, only so many are drawn: a terminal holds no more, and the rest look alike.
pub(super) const ROWS_MAX: usize = 40;

/// Draws the run: what the model took, and for each call how long it waited, for what, and how long it ran.
///
/// At most [`ROWS_MAX`] calls of a turn are drawn, those on the critical path and the slowest first, in program order; a line
/// says how many more there were.
pub fn waterfall(timeline: &Timeline) -> String {
    let width = terminal_size::terminal_size().map_or(WIDTH, |(width, _)| usize::from(width.0));
    draw(timeline, width).trim_end().to_owned()
}

fn draw(timeline: &Timeline, width: usize) -> String {
    let turns: Vec<(&Turn, Vec<Row<'_>>)> = timeline.turns().iter().map(|turn| (turn, rows(turn))).collect();
    let rows = turns.iter().flat_map(|(_, rows)| rows);
    let names = rows.map(|row| row.name().count()).max().unwrap_or(0).clamp(6, NAME_MAX);
    let scale = Scale {
        columns: width.saturating_sub(names + WORDS).max(PICTURE_MIN),
        total: timeline.figures().elapsed.max(Duration::from_millis(1)),
    };
    let mut text = String::new();
    for (turn, rows) in turns {
        draw_turn(&mut text, turn, &rows, names, &scale);
    }
    text
}

/// A call that is drawn.
struct Row<'a> {
    bar: &'a Bar,
    critical: bool,
}

impl Row<'_> {
    fn name(&self) -> impl Iterator<Item = char> {
        // A model can ask for a tool of any name.
        self.bar.tool.as_str().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c })
    }
}

/// The calls of a turn that are drawn, in program order.
fn rows(turn: &Turn) -> Vec<Row<'_>> {
    let critical: HashSet<_> = turn.critical_calls().into_iter().map(|bar| &bar.call).collect();
    let mut rows: Vec<Row<'_>> =
        calls(turn).into_iter().map(|bar| Row { bar, critical: critical.contains(&bar.call) }).collect();
    if rows.len() > ROWS_MAX {
        rows.sort_by_key(|row| Reverse((row.critical, row.bar.took())));
        rows.truncate(ROWS_MAX);
        rows.sort_by(|a, b| a.bar.position.cmp(&b.bar.position));
    }
    rows
}

/// The calls of a turn, in program order; those that only stand for others are not drawn.
fn calls(turn: &Turn) -> Vec<&Bar> {
    turn.in_order().into_iter().filter(|bar| !bar.is_bundle).collect()
}

fn draw_turn(text: &mut String, turn: &Turn, rows: &[Row<'_>], names: usize, scale: &Scale) {
    if let Some(answered_at) = turn.answered_at {
        let picture = scale.draw(&[(turn.asked_at, answered_at, '░', MODEL)]);
        let words = format!("{} for turn {}", time(turn.model_time()), turn.number);
        let _ = writeln!(text, "{:<names$} {picture} {}", "model", styled(QUIET, words));
    }
    for row in rows {
        let name: String = row.name().take(names).collect();
        let style = if row.critical { STRONG } else { anstyle::Style::new() };
        let _ = writeln!(
            text,
            "{} {} {}",
            styled(style, format!("{name:<names$}")),
            scale.draw(&segments(row.bar)),
            words(row.bar, turn)
        );
    }
    let more = calls(turn).len() - rows.len();
    if more > 0 {
        let _ = writeln!(text, "{}", styled(QUIET, format!("{:<names$} and {more} more calls", "")));
    }
}

/// From where to where, with which character. Later ones are drawn over earlier ones.
type Segment = (Duration, Duration, char, anstyle::Style);

fn segments(bar: &Bar) -> Vec<Segment> {
    let ended = bar.ended_at.unwrap_or(bar.arrived_at);
    let style = if bar.error.is_some() { ERROR } else { FINE };
    let mut segments = Vec::with_capacity(2 * bar.attempts.len() + 1);
    let mut waits_from = bar.arrived_at;
    for attempt in &bar.attempts {
        let until = attempt.backoff.map_or(ended, |(from, _)| from);
        segments.push((waits_from, attempt.started_at, '·', QUIET));
        segments.push((attempt.started_at, until, '█', if attempt.backoff.is_some() { ERROR } else { style }));
        waits_from = until;
    }
    if waits_from < ended {
        segments.push((waits_from, ended, '·', QUIET));
    }
    segments
}

fn words(bar: &Bar, turn: &Turn) -> String {
    let mut words = match bar.error {
        None => time(bar.took()),
        Some(code) => format!("{} {}", time(bar.took()), styled(ERROR, code)),
    };
    if let Some(waited) = waited(bar, turn) {
        let _ = write!(words, " {}", styled(QUIET, waited));
    }
    words
}

/// What a call waited for the longest, if it was long enough to be seen.
fn waited(bar: &Bar, turn: &Turn) -> Option<String> {
    waits(bar, turn).into_iter().max_by_key(|(time, _)| *time).map(|(_, words)| words)
}

struct Scale {
    columns: usize,
    total: Duration,
}

impl Scale {
    /// One line of the picture. What is too short to see still gets one column.
    fn draw(&self, segments: &[Segment]) -> String {
        let mut cells: Vec<Option<(char, anstyle::Style)>> = vec![None; self.columns];
        for (from, to, mark, style) in segments {
            let from = self.column(*from).min(self.columns.saturating_sub(1));
            let to = self.column(*to);
            let least = usize::from(*mark != '·');
            let end = to.max(from + least).min(self.columns);
            for cell in &mut cells[from.min(end)..end] {
                *cell = Some((*mark, *style));
            }
        }
        cells.chunk_by(|a, b| a == b).fold(String::new(), |mut line, cells| {
            match cells[0] {
                None => line.extend(cells.iter().map(|_| ' ')),
                Some((mark, style)) => line.push_str(&styled(style, mark.to_string().repeat(cells.len()))),
            }
            line
        })
    }

    fn column(&self, at: Duration) -> usize {
        let column = at.as_micros() * self.columns as u128 / self.total.as_micros().max(1);
        usize::try_from(column).unwrap_or(usize::MAX).min(self.columns)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fanout_core::call::{CallId, Position};
    use fanout_core::effects::Key;
    use fanout_core::event::{Event, Wait, What, Why};
    use fanout_core::outcome::{CallError, ErrorCode, Outcome, Output};

    use fanout_core::event::Tokens;

    use super::*;

    /// A timeline of one turn, written event by event.
    struct Story(Timeline);

    impl Story {
        fn begin() -> Self {
            let mut story = Self(Timeline::default());
            story.at(0, What::TurnStarted { turn: 1 });
            let (tokens, stop_reason) = (Tokens::default(), "tool_use".to_owned());
            story.at(200, What::ModelEnded { turn: 1, stop_reason, tokens, cost_usd: None, state: None });
            story
        }

        fn at(&mut self, ms: u64, what: What) {
            self.0.take(&Event { run: "r".into(), at: Duration::from_millis(ms), what });
        }

        /// A call from its arrival to its end, after the call of that id.
        fn call(&mut self, index: u32, tool: &str, (from, to): (u64, u64), after: Option<&str>, fails: bool) {
            let call = CallId::from(format!("c{index}"));
            let wait = |on: &str| Wait {
                on: on.into(),
                why: Why::Conflict,
                key: Some(Key::exact(["shelf", "1"])),
                undeclared: false,
            };
            let (tool, position) = (tool.into(), Position::block(index));
            let waits: Arc<[Wait]> = after.map(wait).into_iter().collect();
            self.at(
                200,
                What::CallArrived {
                    call: call.clone(),
                    tool,
                    part_of: None,
                    position,
                    declared: true,
                    input: Arc::default(),
                    waits,
                },
            );
            self.at(from, What::CallReady { call: call.clone(), filled: None });
            self.at(from, What::AttemptStarted { call: call.clone(), number: 1 });
            let result =
                if fails { Err(CallError::new(ErrorCode::Upstream, "no")) } else { Ok(Arc::new(Output::text("x"))) };
            let outcome = Outcome { call, part_of: None, result, shown: Vec::new().into(), attempts: 1 };
            self.at(to, What::CallEnded { outcome: Arc::new(outcome) });
        }

        /// The picture at this width, without colours.
        fn drawn(&self, width: usize) -> String {
            anstream::adapter::strip_str(&draw(&self.0, width)).to_string()
        }
    }

    fn shelf() -> Story {
        let mut story = Story::begin();
        story.call(0, "take", (200, 600), None, false);
        story.call(1, "look", (200, 300), None, true);
        story.call(2, "take", (600, 1_000), Some("c0"), false);
        story
    }

    #[test]
    fn a_run_is_a_line_per_call_from_left_to_right() {
        let expected = "\
model  ░░░░░░░░                                 200 ms for turn 1
take           ████████████████                 400 ms
look           ████                             100 ms upstream
take           ················████████████████ 400 ms waited 400 ms for take (shelf/1)
";
        assert_eq!(shelf().drawn(6 + WORDS + 40), expected);
    }

    #[test]
    fn failed_attempts_and_the_waits_between_them_are_seen() {
        let mut story = Story::begin();
        let call = || CallId::from("c0");
        let (tool, position) = ("pay".into(), Position::block(0));
        story.at(
            200,
            What::CallArrived {
                call: call(),
                tool,
                part_of: None,
                position,
                declared: true,
                input: Arc::default(),
                waits: Arc::from([]),
            },
        );
        story.at(200, What::CallReady { call: call(), filled: None });
        story.at(400, What::AttemptStarted { call: call(), number: 1 });
        story.at(500, What::AttemptEnded { call: call(), number: 1, error: Some("429".to_owned()) });
        story.at(500, What::CallBackoff { call: call(), attempts: 1, wait: Duration::from_millis(300) });
        story.at(900, What::AttemptStarted { call: call(), number: 2 });
        let result = Ok(Arc::new(Output::text("x")));
        let outcome = Outcome { call: call(), part_of: None, result, shown: Vec::new().into(), attempts: 2 };
        story.at(1_000, What::CallEnded { outcome: Arc::new(outcome) });
        let expected = "\
model  ░░░░░░░░                                 200 ms for turn 1
pay            ········████················████ 500 ms waited 300 ms for a free slot
";
        assert_eq!(story.drawn(6 + WORDS + 40), expected);
        assert_eq!(story.0.turns()[0].bars[0].backed_off(), Duration::from_millis(300));
    }

    #[test]
    fn a_narrow_terminal_and_odd_names_are_drawn_all_the_same() {
        let mut story = shelf();
        story.call(3, &"långt_namn\u{1b}[2J".repeat(20), (200, 300), None, false);
        story.call(4, "", (1_000, 1_000), None, false);
        for width in [0, 1, 20, 80] {
            let drawn = story.drawn(width);
            assert_eq!(drawn.lines().count(), 6, "{drawn}");
            assert!(!draw(&story.0, width).contains("\u{1b}[2J"), "a name cannot clear the screen");
        }
        assert_eq!(Story(Timeline::default()).drawn(80), "");
    }

    #[test]
    fn of_a_crowd_the_critical_and_the_slowest_are_drawn() {
        let mut story = Story::begin();
        for index in 0..5_000 {
            let slow = index % 500 == 7;
            story.call(index, if slow { "slow" } else { "quick" }, (200, if slow { 900 } else { 210 }), None, false);
        }
        story.call(5_000, "longest", (200, 1_000), None, false);
        let drawn = story.drawn(100);
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(lines.len(), 1 + ROWS_MAX + 1);
        assert_eq!(lines.iter().filter(|line| line.starts_with("slow")).count(), 10);
        assert!(lines[ROWS_MAX].starts_with("longest"), "in program order: {}", lines[ROWS_MAX]);
        assert_eq!(lines[ROWS_MAX + 1].trim(), "and 4961 more calls");
    }
}
