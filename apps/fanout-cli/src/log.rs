//! The log of a server: lines from every thread to standard error, written by a thread of their own.
//!
//! From `tracing`, one line at a time. To standard error, many lines at a time and some milliseconds later. A server that
//! answered thousands of requests a second would else make as many writes, and its threads would wait for one another at each.
//!
//! No line is dropped: when too many wait, whoever logs waits.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{self, FormatTime};

/// Lines that come within so long are one write. Nobody who reads a log sees the difference.
const PAUSE: Duration = Duration::from_millis(50);

/// So many bytes may wait: some thousand lines.
const WAITING_MAX: usize = 1024 * 1024;

/// Where log lines go; cloned, it is the same place.
#[derive(Clone, Default)]
pub struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
    written: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    is_writing: bool,
    /// Somebody waits for what is written: a pause would be lost time.
    is_hurried: bool,
}

/// Waits, when it is dropped, until every line is written.
#[must_use = "the last lines are lost without it"]
pub struct Last(Lines);

impl Lines {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<(Self, Last)> {
        let lines = Self::default();
        let shared = Arc::clone(&lines.0);
        thread::Builder::new().name("log".to_owned()).spawn(move || shared.write_to(out))?;
        Ok((lines.clone(), Last(lines)))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, line: &[u8]) {
        let mut state = self.state();
        while state.waiting.len() > WAITING_MAX {
            self.hurry(&mut state);
            state = self.written.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let is_first = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        if is_first {
            self.arrived.notify_one();
        }
    }

    fn write_to(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            let mut state = self.state();
            while state.waiting.is_empty() {
                state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let paused = self.arrived.wait_timeout_while(state, PAUSE, |state| !state.is_hurried);
            let (mut state, _) = paused.unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut state.waiting, &mut lines);
            (state.is_writing, state.is_hurried) = (true, false);
            drop(state);
            // Nobody is left to be told that the log cannot be written.
            let _ = out.write_all(&lines).and_then(|()| out.flush());
            lines.clear();
            self.state().is_writing = false;
            self.written.notify_all();
        }
    }

    fn hurry(&self, state: &mut State) {
        state.is_hurried = true;
        self.arrived.notify_one();
    }

    fn finish(&self) {
        let mut state = self.state();
        while state.is_writing || !state.waiting.is_empty() {
            self.hurry(&mut state);
            state = self.written.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.take(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The time of a line as `tracing` prints it; the part that changes once a second is printed once a second.
pub struct Clock;

thread_local! {
    /// The second since the epoch, and how its lines begin.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

impl FormatTime for Clock {
    fn format_time(&self, line: &mut Writer<'_>) -> fmt::Result {
        let now = since_epoch()?;
        SECOND.with_borrow_mut(|(second, text)| {
            if *second == now.as_secs() {
                return write!(line, "{text}.{:06}Z", now.subsec_micros());
            }
            let mut whole = String::new();
            time::SystemTime.format_time(&mut Writer::new(&mut whole))?;
            // What was printed is of this second only if it is not over by now.
            if since_epoch()?.as_secs() == now.as_secs() {
                *second = now.as_secs();
                *text = whole.chars().take_while(|character| *character != '.').collect();
            }
            line.write_str(&whole)
        })
    }
}

fn since_epoch() -> Result<Duration, fmt::Error> {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(|_| fmt::Error)
}

impl Drop for Last {
    fn drop(&mut self) {
        self.0.0.finish();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Writes only when it is let.
    struct Slow {
        let_through: Receiver<()>,
        out: Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.let_through.recv();
            let _ = self.out.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_time_of_a_line_reads_the_same_whether_its_second_is_known_or_not() {
        let print = |clock: &dyn FormatTime| {
            let mut text = String::new();
            clock.format_time(&mut Writer::new(&mut text)).unwrap();
            text
        };
        let lines: Vec<String> = (0..50).map(|_| print(&Clock)).collect();
        let shape = |text: &str| text.replace(|character: char| character.is_ascii_digit(), "0");
        assert!(lines.iter().all(|line| shape(line) == "0000-00-00T00:00:00.000000Z"), "{lines:?}");
        assert!(lines.is_sorted(), "{lines:?}");
        assert!(lines[49] <= print(&time::SystemTime));
    }

    #[test]
    fn every_line_is_written_in_order_before_the_end() {
        let ((go, let_through), (out, written)) = (channel(), channel());
        let (lines, last) = Lines::start(Slow { let_through, out }).unwrap();
        let count = 4 * WAITING_MAX / 64;
        let many = lines.clone();
        let logging = thread::spawn(move || {
            for number in 0..count {
                (&many).write_all(format!("{number:063}\n").as_bytes()).unwrap();
            }
        });
        // Whoever logs too much waits for the writer, which waits for this.
        drop(go);
        logging.join().unwrap();
        drop(last);
        let all: Vec<u8> = written.try_iter().flatten().collect();
        let all = String::from_utf8(all).unwrap();
        assert_eq!(all.lines().count(), count);
        assert!(all.lines().enumerate().all(|(at, line)| line.trim_start_matches('0') == at.to_string() || at == 0));
    }
}
