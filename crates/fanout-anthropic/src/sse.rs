//! Server-sent events out of bytes, however they were cut.
//!
//! From whoever reads a body: its bytes as they arrive. To it, and to [`Assembler`](crate::Assembler): each event's name and
//! data.
//!
//! Lines end in LF, CR or CRLF, mixed at will; a leading byte order mark, comments and unknown fields are passed over;
//! several `data` lines make one data. An event that no blank line ends is no event. Nothing here knows JSON.

use std::mem;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The part of a stream that has not become an event yet.
///
/// A line that lies whole in one piece of the body is read where it lies; only one that is cut is put together here.
#[derive(Debug, Default)]
pub struct Events {
    line: Vec<u8>,
    name: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// The last byte was a CR, so an LF that follows it belongs to the same line end.
    after_cr: bool,
    /// A first line was read, so no byte order mark is looked for any more.
    has_begun: bool,
}

impl Events {
    /// A stream of which nothing has come yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the next piece of the body and calls `on_event` with the name and the data of each event that it completes.
    ///
    /// # Errors
    /// The first error of `on_event`; the rest of `bytes` is then not read.
    pub fn feed<E>(&mut self, bytes: &[u8], mut on_event: impl FnMut(&[u8], &[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            if mem::take(&mut self.after_cr) && first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', rest) else {
                self.line.extend_from_slice(rest);
                return Ok(());
            };
            self.after_cr = rest[end] == b'\r';
            let is_event = if self.line.is_empty() {
                self.take_line(&rest[..end])
            } else {
                let mut line = mem::take(&mut self.line);
                line.extend_from_slice(&rest[..end]);
                let is_event = self.take_line(&line);
                line.clear();
                self.line = line;
                is_event
            };
            rest = &rest[end + 1..];
            if is_event {
                let told = on_event(&self.name, &self.data);
                self.name.clear();
                self.data.clear();
                told?;
            }
        }
        Ok(())
    }

    /// Reads one line, without its end; says whether it completes an event.
    fn take_line(&mut self, line: &[u8]) -> bool {
        let line = match mem::replace(&mut self.has_begun, true) {
            true => line,
            false => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line),
        };
        if line.is_empty() {
            let is_event = mem::take(&mut self.has_data);
            if !is_event {
                self.name.clear();
            }
            return is_event;
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &line[line.len()..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if mem::replace(&mut self.has_data, true) {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
            }
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            // A comment (an empty field name), `id`, `retry`, or a field that we do not know.
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::Events;

    /// The events of `stream`, which must be the same whole and byte by byte.
    #[track_caller]
    fn check(stream: &[u8], want: &[(&str, &str)]) {
        for size in [stream.len().max(1), 1, 2, 3] {
            let (mut events, mut seen) = (Events::default(), Vec::new());
            for piece in stream.chunks(size) {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                events
                    .feed(piece, |name, data| {
                        seen.push((text(name), text(data)));
                        Ok::<_, ()>(())
                    })
                    .unwrap();
            }
            let seen: Vec<_> = seen.iter().map(|(name, data)| (name.as_str(), data.as_str())).collect();
            assert_eq!(seen, want, "in pieces of {size}");
        }
    }

    #[test]
    fn every_line_end_ends_a_line() {
        check(b"event: a\ndata: 1\n\n", &[("a", "1")]);
        check(b"event: a\rdata: 1\r\rdata: 2\r\r", &[("a", "1"), ("", "2")]);
        check(b"event: a\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n", &[("a", "1"), ("", "2")]);
        check(b"event: a\rdata: 1\n\r\ndata: 2\n\r", &[("a", "1"), ("", "2")]);
    }

    #[test]
    fn a_leading_byte_order_mark_is_passed_over() {
        check(b"\xEF\xBB\xBFdata: 1\n\n", &[("", "1")]);
        check(b"\xEF\xBB\xBF\ndata: \xEF\xBB\xBF\n\n", &[("", "\u{feff}")]);
    }

    #[test]
    fn data_lines_are_joined_and_one_space_is_taken_off() {
        check(b"data:1\ndata:  2\ndata\n\n", &[("", "1\n 2\n")]);
        check("data: é😀\n\n".as_bytes(), &[("", "é😀")]);
    }

    #[test]
    fn comments_and_unknown_fields_are_no_events() {
        check(b": hello\n\nid: 7\nretry: 10\nwhat\n\ndata: 1\n\n", &[("", "1")]);
        check(b"event: a\n\ndata: 1\n\n", &[("", "1")]);
    }

    #[test]
    fn an_event_without_its_blank_line_is_no_event() {
        check(b"data: 1\n", &[]);
        check(b"data: 1", &[]);
        check(b"", &[]);
    }
}
