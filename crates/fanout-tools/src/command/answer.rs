//! What a program printed and how it ended, as an output or as what is known of the failure.
//!
//! From `tool`: the bytes of its streams as they come, and its status.
//! To the scheduler, which acts on the variant, and to the model, which reads the message.
//!
//! What the program was given as secrets stands in neither.

use std::process::ExitStatus;

use fanout_core::call::ToolName;
use fanout_core::outcome::{Content, Output};
use fanout_core::secrets::Secrets;
use fanout_core::tool::ToolError;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

/// So much of each stream is kept unless its author says otherwise, in bytes (1 MiB).
pub const OUTPUT_MAX: usize = 1024 * 1024;

/// So many characters of each stream are repeated to the model when the program failed.
const EXCERPT_MAX: usize = 2_000;

/// So much is read at once, in bytes: what a pipe holds on Linux.
const READ_MAX: usize = 64 * 1024;

/// A stream as far as it is kept: all of it is read, so that the program is never held up.
pub(super) struct Kept {
    bytes: Vec<u8>,
    total: usize,
    max: usize,
    /// Whether the end is kept, else the beginning.
    end: bool,
}

impl Kept {
    /// The beginning of a stream, in so many bytes.
    pub(super) fn beginning(max: usize) -> Self {
        Self { bytes: Vec::new(), total: 0, max, end: false }
    }

    /// The end of a stream, in so many bytes.
    pub(super) fn end(max: usize) -> Self {
        Self { end: true, ..Self::beginning(max) }
    }

    /// Reads a stream to its end. One that breaks has ended.
    ///
    /// # Cancellation
    /// What was read stays.
    pub(super) async fn read(&mut self, stream: Option<impl AsyncRead + Unpin>) {
        let Some(mut stream) = stream else { return };
        let mut buffer = vec![0; READ_MAX];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            self.add(&buffer[..count]);
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len());
        if self.end {
            self.bytes.extend_from_slice(bytes);
            // Twice as much before it is cut: moving the end to the front for each piece would cost more than reading it.
            if self.bytes.len() > self.max.saturating_mul(2) {
                self.cut();
            }
        } else {
            let fitting = bytes.len().min(self.max - self.bytes.len());
            self.bytes.extend_from_slice(&bytes[..fitting]);
        }
    }

    fn cut(&mut self) {
        if self.end {
            self.bytes.drain(..self.bytes.len().saturating_sub(self.max));
        }
    }

    fn is_cut(&self) -> bool {
        self.total > self.bytes.len()
    }

    /// The bytes as text, and whether some of them were none. A character or a secret that the cut went through is left out.
    fn text(&mut self, secrets: &Secrets) -> (String, bool) {
        self.cut();
        let mut bytes = self.bytes.as_slice();
        if self.is_cut() && self.end {
            let continued = bytes.iter().take(3).take_while(|byte| **byte & 0b1100_0000 == 0b1000_0000).count();
            bytes = &bytes[continued..];
        } else if self.is_cut()
            && let Err(error) = std::str::from_utf8(bytes)
            && error.error_len().is_none()
        {
            bytes = &bytes[..error.valid_up_to()];
        }
        let text = String::from_utf8_lossy(bytes);
        let broken = matches!(text, std::borrow::Cow::Owned(_));
        let text = secrets.hide(&text);
        let whole = match (self.is_cut(), self.end) {
            (false, _) => &text,
            (true, true) => secrets.trim_start(&text),
            (true, false) => secrets.trim_end(&text),
        };
        (whole.to_owned(), broken)
    }

    /// What of it explains a failure: its end, or where only the beginning was kept, that.
    fn excerpt(&mut self, secrets: &Secrets) -> String {
        let (text, _) = self.text(secrets);
        let text = text.trim();
        let count = text.chars().count();
        if self.is_cut() && !self.end {
            return text.chars().take(EXCERPT_MAX).chain(['…']).collect();
        }
        let left_out = count.saturating_sub(EXCERPT_MAX);
        let mark = if left_out > 0 || self.is_cut() { "…" } else { "" };
        format!("{mark}{}", text.chars().skip(left_out).collect::<String>())
    }
}

/// A program that has ended.
pub(super) struct Answer {
    pub(super) status: ExitStatus,
    pub(super) stdout: Kept,
    pub(super) stderr: Kept,
}

impl Answer {
    /// What it means to a call of `tool`.
    ///
    /// # Errors
    /// An exit status but 0: [`ToolError::Failed`], the program's own answer. Ended by a signal: [`ToolError::Broken`], it may
    /// have done its work.
    pub(super) fn into_output(mut self, tool: &ToolName, secrets: &Secrets) -> Result<Output, ToolError> {
        if self.status.success() {
            return Ok(output(&mut self.stdout, secrets));
        }
        let said = [("", self.stderr.excerpt(secrets)), ("standard output: ", self.stdout.excerpt(secrets))];
        let said = said.iter().filter(|(_, text)| !text.is_empty());
        let said: String = said.map(|(what, text)| format!("\n{what}{text}")).collect();
        let colon = if said.is_empty() { "" } else { ":" };
        match self.status.code() {
            Some(code) => Err(ToolError::Failed(format!("`{tool}` ended with exit status {code}{colon}{said}"))),
            None => Err(ToolError::Broken(format!("`{tool}` was ended by {}{colon}{said}", signal_of(self.status)))),
        }
    }
}

fn output(stdout: &mut Kept, secrets: &Secrets) -> Output {
    let total = thousands(stdout.total);
    if stdout.total == 0 {
        let content = vec![Content::Text("exit status 0, no output".into())];
        return Output { content, structured: Some(Value::String(String::new())), is_error: false };
    }
    let (text, broken) = stdout.text(secrets);
    if broken && stdout.bytes.contains(&0) {
        return Output::text(format!("exit status 0, binary output of {total} bytes"));
    }
    let mut notes = Vec::new();
    if stdout.is_cut() {
        let kept = thousands(stdout.bytes.len());
        notes.push(format!("only the first {kept} of {total} bytes of the output were kept (`max_output`)"));
    }
    if broken {
        notes.push("the output is not UTF-8; what could not be read is shown as \u{FFFD}".to_owned());
    }
    if notes.is_empty() {
        let structured = serde_json::from_str(&text).ok();
        return Output { structured, ..Output::text(text) };
    }
    // The note stands first, where no cut takes it away; a reference takes the text alone.
    let content = vec![Content::Text(format!("({})", notes.join("; ")).into()), Content::Text(text.as_str().into())];
    Output { content, structured: Some(Value::String(text)), is_error: false }
}

#[cfg(unix)]
fn signal_of(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    let Some(number) = status.signal() else { return "the system".to_owned() };
    let name = SIGNALS.iter().find(|(known, _)| *known == number).map(|(_, name)| format!(" ({name})"));
    format!("signal {number}{}", name.unwrap_or_default())
}

#[cfg(not(unix))]
fn signal_of(_: ExitStatus) -> String {
    "the system".to_owned()
}

/// The signals that end programs in practice and have one number on every Unix.
#[cfg(unix)]
const SIGNALS: [(i32, &str); 10] = [
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (3, "SIGQUIT"),
    (4, "SIGILL"),
    (6, "SIGABRT"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (11, "SIGSEGV"),
    (13, "SIGPIPE"),
    (15, "SIGTERM"),
];

/// `1,234,567`.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(mut kept: Kept, pieces: &[&[u8]]) -> Kept {
        pieces.iter().for_each(|piece| kept.add(piece));
        kept
    }

    /// What the model is shown of an output, piece by piece.
    #[track_caller]
    fn check(max: usize, pieces: &[&[u8]], shown: &[&str]) {
        let output = output(&mut kept(Kept::beginning(max), pieces), &Secrets::default());
        let text = |content: &Content| match content {
            Content::Text(text) => text.to_string(),
            Content::Image { .. } => "image".to_owned(),
        };
        assert_eq!(output.content.iter().map(text).collect::<Vec<_>>(), shown);
    }

    #[test]
    fn what_was_kept_is_shown_with_an_honest_note() {
        check(9, &[b"a", b"b\n"], &["ab\n"]);
        check(9, &[], &["exit status 0, no output"]);
        let note = "(only the first 4 of 1,006 bytes of the output were kept (`max_output`))";
        check(4, &[b"abc", b"def", &[b'x'; 1000]], &[note, "abcd"]);
        let note = "(only the first 2 of 5 bytes of the output were kept (`max_output`))";
        check(2, &["aäö".as_bytes()], &[note, "a"]);
        let note = "(the output is not UTF-8; what could not be read is shown as \u{FFFD})";
        check(9, &[b"caf\xe9"], &[note, "caf\u{FFFD}"]);
        check(9, &[b"\0\xff\xfe"], &["exit status 0, binary output of 3 bytes"]);
    }

    #[test]
    fn json_is_data_too() {
        let value = |text: &[u8]| output(&mut kept(Kept::beginning(99), &[text]), &Secrets::default()).value();
        assert_eq!(value(b"{\"a\":1}\n"), serde_json::json!({"a": 1}));
        assert_eq!(value(b"a\n"), Value::String("a\n".to_owned()));
        assert_eq!(value(b""), Value::String(String::new()));
    }

    #[test]
    fn the_end_of_a_stream_is_kept_however_it_comes() {
        for size in 1..12 {
            let text: Vec<u8> = (0..100).map(|n| b'a' + n % 26).collect();
            let mut kept = kept(Kept::end(10), &text.chunks(size).collect::<Vec<_>>());
            assert_eq!(kept.excerpt(&Secrets::default()), format!("…{}", String::from_utf8_lossy(&text[90..])));
        }
        let mut whole = kept(Kept::end(10), &[b" ten bytes"]);
        assert_eq!(whole.excerpt(&Secrets::default()), "ten bytes");
        let mut split = kept(Kept::end(3), &["aää".as_bytes()]);
        assert_eq!(split.excerpt(&Secrets::default()), "…ä");
    }

    #[test]
    fn a_secret_is_shown_by_its_name() {
        let mut secrets = Secrets::default();
        secrets.add("TOKEN", "s3cret");
        let text = |max, kept: fn(usize) -> Kept| self::kept(kept(max), &[b"ab s3cret cd"]).text(&secrets).0;
        assert_eq!(text(12, Kept::beginning), "ab [redacted TOKEN] cd");
        assert_eq!(text(12, Kept::end), "ab [redacted TOKEN] cd");
        assert_eq!(text(8, Kept::beginning), "ab ");
        assert_eq!(text(7, Kept::end), " cd");
    }
}
