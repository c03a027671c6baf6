//! Durations, rates and sizes as people write them.
//!
//! From the text of a value. To the options. Nothing is rounded.

use std::num::NonZeroU32;
use std::time::Duration;

use fanout_core::limits::Rate;

/// Reads `"250ms"`, `"30s"`, `"5m"`, `"2h"`, `"30d"`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(ms).map(Duration::from_millis)
}

/// Reads `"50/s"`, `"600/m"`, `"1000/h"`; none is no rate.
pub(super) fn rate(text: &str) -> Option<Rate> {
    let (calls, unit) = text.split_once('/')?;
    let per = match unit.trim() {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3_600),
        _ => return None,
    };
    let (calls, nothing) = split(calls)?;
    let calls = u32::try_from(calls).ok().and_then(NonZeroU32::new);
    calls.filter(|_| nothing.is_empty()).map(|calls| Rate { calls, per })
}

/// Reads `"64KiB"`, `"1MiB"`, `"10MB"`, `"512"` as bytes.
pub(super) fn size(text: &str) -> Option<usize> {
    let (number, unit) = split(text)?;
    let bytes: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(bytes).and_then(|bytes| usize::try_from(bytes).ok())
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, ms) in [
            ("250ms", Some(250)),
            ("30s", Some(30_000)),
            ("5 m", Some(300_000)),
            ("2h", Some(7_200_000)),
            ("30d", Some(2_592_000_000)),
            ("30", None),
            ("soon", None),
            ("-1s", None),
            ("1.5s", None),
            ("99999999999999999999s", None),
            ("9999999999999999d", None),
            ("", None),
        ] {
            assert_eq!(duration(text), ms.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn rates_are_calls_in_a_span_of_time() {
        for (text, calls, seconds) in [("50/s", 50, 1), ("600/m", 600, 60), ("1000 / h", 1_000, 3_600)] {
            let calls = NonZeroU32::new(calls).unwrap();
            assert_eq!(rate(text), Some(Rate { calls, per: Duration::from_secs(seconds) }), "{text}");
        }
        for text in ["0/s", "50", "50/d", "50/", "/s", "-1/s", "1.5/s", "5k/s", "99999999999/s", "s/50", ""] {
            assert_eq!(rate(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_bytes_unless_they_have_a_unit() {
        for (text, bytes) in [
            ("64KiB", Some(65_536)),
            ("1MiB", Some(1_048_576)),
            ("10MB", Some(10_000_000)),
            ("512", Some(512)),
            ("512 B", Some(512)),
            ("1 GiB", Some(1_073_741_824)),
            ("64K", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }
}
