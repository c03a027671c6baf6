//! Where words go: results to standard output, all else to standard error.
//!
//! Nothing here panics. A reader of standard error that is gone is no reason to stop a run; one of standard output that
//! hung up (`| head -1`) has what it wanted; a full disk is an error, and the command says so.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// A result that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("standard output cannot be written")]
pub struct Unwritten(#[source] io::Error);

/// Says a line on standard error.
pub fn say(line: impl Display) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// Gives a result on standard output, byte for byte, and ends the line.
///
/// # Errors
/// [`Unwritten`], but for a reader that hung up.
pub fn give(text: &str) -> Result<(), Unwritten> {
    let mut out = io::stdout().lock();
    unless_hung_up(out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()))
}

/// Gives lines for people on standard output; colours only where a terminal takes them.
///
/// # Errors
/// As [`give`].
pub fn give_styled(lines: &str) -> Result<(), Unwritten> {
    let mut out = anstream::stdout().lock();
    unless_hung_up(out.write_all(lines.as_bytes()).and_then(|()| out.flush()))
}

/// Gives what the model said. A terminal is spared what would move its cursor or worse; a program gets every byte.
///
/// # Errors
/// As [`give`].
pub fn give_answer(text: &str) -> Result<(), Unwritten> {
    if io::stdout().is_terminal() { give(&plain(text)) } else { give(text) }
}

/// One JSON object on a line of its own, while a run goes on. A reader that is gone is no reason to stop it.
pub fn print_line(line: &serde_json::Value) {
    let _ = give(&line.to_string());
}

/// A text of somebody else's for a terminal: without control characters, but for the ends of lines and tabs.
pub fn plain(text: &str) -> Cow<'_, str> {
    let bad = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(bad) { text.replace(bad, "\u{fffd}").into() } else { text.into() }
}

/// The first line of somebody else's text, cut where it gets too long for a line of progress.
pub fn first_line(text: &str) -> String {
    let line = plain(text.lines().next().unwrap_or_default()).into_owned();
    match line.char_indices().nth(LINE_MAX) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// The most characters of somebody else's text in a line of progress: an upstream's error can be a whole page.
const LINE_MAX: usize = 300;

fn unless_hung_up(written: io::Result<()>) -> Result<(), Unwritten> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Unwritten(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_move_the_cursor_is_not_shown() {
        assert_eq!(plain("a\tb\nc"), "a\tb\nc");
        assert_eq!(plain("a\u{1b}[2Jb\rc\u{9b}1m"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}1m");
    }

    #[test]
    fn a_line_of_progress_is_one_line_and_no_page() {
        assert_eq!(first_line("what\nand why"), "what");
        assert_eq!(first_line(&"ä".repeat(1_000)).chars().count(), LINE_MAX + 1);
        assert_eq!(first_line(""), "");
    }
}
