//! When each byte of an answer leaves, and whether the connection survives the last of them.
//!
//! From the events or the one object of a message, its pace and its faults. To the socket, as a body.
//! The plan is made first and knows no clock; [`body`] is the only thing here that waits.

use std::io;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::time::Instant;

use crate::events::Event;
use crate::fault::{Fault, LineEnd};
use crate::script::Pace;
use crate::threads::Continuation;

/// An answer's bytes with their times, counted from the first.
#[derive(Debug)]
pub(crate) struct Delivery {
    chunks: Vec<(Duration, Bytes)>,
    broken: bool,
}

impl Delivery {
    /// A stream of events.
    pub(crate) fn stream(events: Vec<Event>, pace: Pace, faults: &[Fault]) -> Self {
        let mut at = Duration::ZERO;
        let mut written = 0;
        let mut timed: Vec<(Duration, String)> = Vec::with_capacity(events.len());
        for (i, event) in events.into_iter().enumerate() {
            at += Duration::from_millis(pace.event_ms) + pings(&mut timed, i, at, faults);
            written += event.written;
            timed.push((at + writing(written, pace), event.text));
        }
        let mut text = Vec::new();
        for (at, event) in timed {
            let event = with_line_ends(event, faults);
            match text.last_mut() {
                // One write for all that is due at one time.
                Some((known, chunk)) if *known == at => String::push_str(chunk, &event),
                _ => text.push((at, event)),
            }
        }
        if faults.contains(&Fault::ByteOrderMark)
            && let Some((_, first)) = text.first_mut()
        {
            first.insert(0, '\u{feff}');
        }
        let cut = faults.iter().any(|fault| matches!(fault, Fault::CutAfterEvents { .. }));
        Self::of(text, cut, faults)
    }

    /// One object, which comes when all of it has been written. What cuts a stream after some event cuts it in half.
    pub(crate) fn whole(mut text: String, written: usize, pace: Pace, faults: &[Fault]) -> Self {
        let cut = faults.iter().any(|fault| matches!(fault, Fault::CutAfterEvents { .. }));
        if cut || faults.iter().any(|fault| matches!(fault, Fault::EndAfterEvents { .. })) {
            text.truncate(text.floor_char_boundary(text.len() / 2));
        }
        Self::of(vec![(writing(written, pace), text)], cut, faults)
    }

    fn of(text: Vec<(Duration, String)>, broken: bool, faults: &[Fault]) -> Self {
        let chunks = text.into_iter().map(|(at, text)| (at, Bytes::from(text))).collect();
        let mut delivery = Self { chunks, broken };
        for fault in faults {
            match fault {
                Fault::CutAfterBytes { bytes } => delivery.cut(*bytes),
                Fault::Slow { bytes, delay_ms } => delivery.slow((*bytes).max(1), Duration::from_millis(*delay_ms)),
                _ => {}
            }
        }
        delivery
    }

    fn cut(&mut self, bytes: usize) {
        let mut left = bytes;
        for (_, chunk) in &mut self.chunks {
            chunk.truncate(left);
            left -= chunk.len();
        }
        self.chunks.retain(|(_, chunk)| !chunk.is_empty());
        self.broken = true;
    }

    fn slow(&mut self, bytes: usize, delay: Duration) {
        let mut last = Duration::ZERO;
        let mut slowed = Vec::new();
        for (at, mut chunk) in self.chunks.drain(..) {
            while !chunk.is_empty() {
                last = at.max(last) + delay;
                slowed.push((last, chunk.split_to(bytes.min(chunk.len()))));
            }
        }
        self.chunks = slowed;
    }

    /// Whether everything is due at once and nothing breaks, so that the length can be told beforehand.
    pub(crate) fn at_once(&self) -> Option<Bytes> {
        match &self.chunks[..] {
            [(at, chunk)] if at.is_zero() && !self.broken => Some(chunk.clone()),
            _ => None,
        }
    }
}

/// How long it takes to write so many characters.
fn writing(characters: usize, pace: Pace) -> Duration {
    if pace.tok_per_s <= 0.0 {
        return Duration::ZERO;
    }
    let characters = u32::try_from(characters).unwrap_or(u32::MAX);
    Duration::try_from_secs_f64(f64::from(characters) / 4.0 / pace.tok_per_s).unwrap_or(Duration::ZERO)
}

/// Puts the pings of a pause before event `i`, and says how long the pause is.
fn pings(timed: &mut Vec<(Duration, String)>, i: usize, at: Duration, faults: &[Fault]) -> Duration {
    let mut pauses = Duration::ZERO;
    for fault in faults {
        if let Fault::Pause { after_events, pause_ms, ping_ms } = fault
            && *after_events == i
        {
            let mut ping = *ping_ms;
            while *ping_ms > 0 && ping < *pause_ms {
                timed.push((at + Duration::from_millis(ping), Event::ping().text));
                ping += ping_ms;
            }
            pauses += Duration::from_millis(*pause_ms);
        }
    }
    pauses
}

fn with_line_ends(text: String, faults: &[Fault]) -> String {
    let end = faults.iter().find_map(|fault| match fault {
        Fault::LineEnds { end } => Some(*end),
        _ => None,
    });
    match end {
        None => text,
        Some(LineEnd::Cr) => text.replace('\n', "\r"),
        Some(LineEnd::Crlf) => text.replace('\n', "\r\n"),
    }
}

/// The body that delivers. A continuation of a thread is done as its last byte leaves.
///
/// # Cancellation
/// When the client goes away the body is dropped, and with it the continuation, undone.
pub(crate) fn body(delivery: Delivery, continuation: Option<Continuation>) -> Body {
    let begin = Instant::now();
    let Delivery { chunks, broken } = delivery;
    let chunks = chunks.into_iter().peekable();
    Body::from_stream(stream::unfold(
        (chunks, continuation, false),
        move |(mut chunks, mut continuation, over)| async move {
            if over {
                return None;
            }
            let Some((at, chunk)) = chunks.next() else {
                if !broken {
                    return None;
                }
                // The bytes before the break are on the wire only once the connection had a chance to flush them.
                tokio::task::yield_now().await;
                return Some((Err(io::Error::from(io::ErrorKind::ConnectionReset)), (chunks, continuation, true)));
            };
            if !at.is_zero() {
                tokio::time::sleep_until(begin + at).await;
            }
            if !broken && chunks.peek().is_none() {
                // Before the byte that lets the client ask again, not after it.
                if let Some(mut continuation) = continuation.take() {
                    continuation.done();
                }
            }
            Some((Ok::<_, io::Error>(chunk), (chunks, continuation, false)))
        },
    ))
}
