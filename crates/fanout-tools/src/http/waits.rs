//! What a server asks its callers to wait.
//!
//! From `tool`: status and headers of a response, whatever it is. To its limit group, as a pause, and to `answer`, as the
//! wait that a refusal names.
//!
//! Read are `Retry-After` (RFC 9110), `X-RateLimit-Remaining/-Reset` as GitHub and many others send them,
//! `RateLimit-Remaining/-Reset` and `RateLimit` of the IETF's drafts (draft-ietf-httpapi-ratelimit-headers). Headers come
//! from strangers: what cannot be read, and what nobody can mean, asks for nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

/// Nobody means a longer wait; quotas are given anew by the month at the latest. What says more mistakes the unit.
const CREDIBLE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// A reset that is larger is a time since 1970 (this one was in 2001), a smaller one a wait: 31 years are none.
const EPOCH_MIN: Duration = Duration::from_secs(1_000_000_000);

/// Where a budget says how much of it is left, and when it is filled again.
const BUDGETS: [(&str, &str); 2] =
    [("x-ratelimit-remaining", "x-ratelimit-reset"), ("ratelimit-remaining", "ratelimit-reset")];

/// What the headers of one response ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Waits {
    retry_after: Option<Duration>,
    /// A budget has nothing left.
    is_used_up: bool,
    /// Until all budgets that have nothing left are filled again, as far as they say when.
    reset: Option<Duration>,
}

impl Waits {
    /// What these headers ask for. Dates count from the server's own `Date`, so that no clock needs to be right; from `now`
    /// if it sent none.
    pub(super) fn of(headers: &HeaderMap, now: SystemTime) -> Self {
        let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.trim());
        let clock = text(DATE.as_str()).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
        let mut waits = Self {
            retry_after: text(RETRY_AFTER.as_str()).and_then(|text| retry_after(text, clock)),
            ..Self::default()
        };
        for (remaining, reset) in BUDGETS {
            waits.budget(text(remaining), text(reset), clock);
        }
        for field in headers.get_all("ratelimit").iter().filter_map(|value| value.to_str().ok()) {
            waits.structured(field, clock);
        }
        waits
    }

    /// Whether a response of this status says that nothing was done because too much was asked for: a 429, or GitHub's 403.
    pub(super) fn refuse(&self, status: StatusCode) -> bool {
        match status {
            StatusCode::TOO_MANY_REQUESTS => true,
            StatusCode::FORBIDDEN => self.is_used_up || self.retry_after.is_some(),
            _ => false,
        }
    }

    /// From when another attempt makes sense, if the server said so.
    pub(super) fn named(&self) -> Option<Duration> {
        self.retry_after.or(self.reset)
    }

    /// `Retry-After` alone: a budget's reset says nothing of when a server that cannot keep up is well again.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// For how long nobody should send anything more, beside what the error of such a response says itself.
    pub(super) fn pause(&self, status: StatusCode) -> Option<Duration> {
        let in_trouble = status == StatusCode::REQUEST_TIMEOUT || status.is_server_error();
        self.reset.max(self.retry_after.filter(|_| in_trouble))
    }

    fn budget(&mut self, remaining: Option<&str>, reset: Option<&str>, clock: SystemTime) {
        if remaining.and_then(number).is_some_and(|left| left.is_zero()) {
            self.is_used_up = true;
            self.reset = self.reset.max(reset.and_then(|text| until(text, clock)));
        }
    }

    /// The field `RateLimit`: `"burst";r=0;t=2, "daily";r=900;t=3600`, or as it was before `limit=100, remaining=0, reset=2`.
    fn structured(&mut self, field: &str, clock: SystemTime) {
        let (mut remaining, mut reset) = (None, None);
        for member in split(field, ',') {
            let (mut left, mut wait) = (None, None);
            for (place, part) in split(member, ';').enumerate() {
                match part.split_once('=') {
                    Some(("remaining", value)) if place == 0 => remaining = Some(value),
                    Some(("reset", value)) if place == 0 => reset = Some(value),
                    Some(("r", value)) if place > 0 => left = Some(value),
                    Some(("t", value)) if place > 0 => wait = Some(value),
                    _ => {}
                }
            }
            self.budget(left, wait, clock);
        }
        self.budget(remaining, reset, clock);
    }
}

/// `Retry-After`: seconds or a date; a date that is past is no wait.
pub(crate) fn retry_after(text: &str, clock: SystemTime) -> Option<Duration> {
    let wait = number(text).or_else(|| {
        let when = httpdate::parse_http_date(text).ok()?;
        Some(when.duration_since(clock).unwrap_or_default())
    });
    wait.filter(|wait| *wait <= CREDIBLE_MAX)
}

/// In how long a budget is filled again; one whose time has come says nothing of why it is empty.
fn until(text: &str, clock: SystemTime) -> Option<Duration> {
    let reset = number(text)?;
    let wait = if reset < EPOCH_MIN {
        reset
    } else {
        UNIX_EPOCH.checked_add(reset)?.duration_since(clock).unwrap_or_default()
    };
    Some(wait).filter(|wait| !wait.is_zero() && *wait <= CREDIBLE_MAX)
}

/// Digits, perhaps with a fraction: no sign, no exponent, nothing that is not a number. Cut to nanoseconds, never rounded up.
fn number(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0, |nanos: u32, digit| nanos * 10 + u32::from(digit - b'0'));
    Some(Duration::new(whole.parse().ok()?, nanos))
}

/// The parts of a structured field, without the white space around them. What stands in quotes is not parted.
fn split(text: &str, at: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = text.split(move |c| {
        if is_escaped {
            is_escaped = false;
            return false;
        }
        is_escaped = is_quoted && c == '\\';
        is_quoted ^= c == '"';
        c == at && !is_quoted
    });
    parts.map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW: u64 = 784_111_777;

    fn headers(lines: &str) -> HeaderMap {
        let pair = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
        };
        lines.lines().map(|line| pair(line.trim())).collect()
    }

    fn waits(lines: &str) -> Waits {
        Waits::of(&headers(lines), UNIX_EPOCH + Duration::from_secs(NOW))
    }

    #[track_caller]
    fn check_retry_after(value: &str, millis: Option<u64>) {
        let read = waits(&format!("retry-after: {value}"));
        assert_eq!(read, Waits { retry_after: millis.map(Duration::from_millis), ..Waits::default() }, "{value}");
    }

    #[test]
    fn a_wait_is_seconds_or_a_date() {
        check_retry_after("7", Some(7_000));
        check_retry_after("0", Some(0));
        check_retry_after("1.25", Some(1_250));
        check_retry_after("Sun, 06 Nov 1994 08:50:37 GMT", Some(60_000));
        check_retry_after("Sunday, 06-Nov-94 08:50:37 GMT", Some(60_000));
        check_retry_after("Sun, 06 Nov 1994 08:00:00 GMT", Some(0));
        for absurd in
            ["soon", "-1", "+1", "1e3", "NaN", "inf", ".5", "7 s", "40000000", "Sun, 06 Nov 2094 08:00:00 GMT"]
        {
            check_retry_after(absurd, None);
        }
        check_retry_after(&"9".repeat(30), None);
    }

    #[test]
    fn a_date_counts_from_the_servers_own() {
        let read = waits("date: Sun, 06 Nov 1994 10:00:00 GMT\nretry-after: Sun, 06 Nov 1994 10:00:30 GMT");
        assert_eq!(read.named(), Some(Duration::from_secs(30)), "whose clock runs ahead by more than an hour");
        let read = waits("date: today\nretry-after: Sun, 06 Nov 1994 08:50:07 GMT");
        assert_eq!(read.named(), Some(Duration::from_secs(30)));
    }

    #[track_caller]
    fn check_reset(lines: &str, is_used_up: bool, seconds: Option<u64>) {
        let reset = seconds.map(Duration::from_secs);
        assert_eq!(waits(lines), Waits { retry_after: None, is_used_up, reset }, "{lines}");
    }

    #[test]
    fn a_budget_with_nothing_left_pauses_until_its_reset() {
        check_reset("x-ratelimit-remaining: 0\nx-ratelimit-reset: 30", true, Some(30));
        check_reset("x-ratelimit-remaining: 1\nx-ratelimit-reset: 30", false, None);
        check_reset("x-ratelimit-remaining: 0", true, None);
        check_reset("x-ratelimit-reset: 30", false, None);
        check_reset("ratelimit-remaining: 0\nratelimit-reset: 30", true, Some(30));
        check_reset("ratelimit-remaining: 0\nx-ratelimit-reset: 30", true, None);
        let both = "x-ratelimit-remaining: 0\nx-ratelimit-reset: 30\nratelimit-remaining: 0\nratelimit-reset: 40";
        check_reset(both, true, Some(40));
    }

    #[test]
    fn a_large_reset_is_a_time() {
        let date = "date: Thu, 17 Aug 2023 09:06:40 GMT";
        for (reset, seconds) in
            [("1692266460", Some(3_260)), ("1692263200", None), ("1692000000", None), ("1692263201", Some(1))]
        {
            check_reset(&format!("{date}\nx-ratelimit-remaining: 0\nx-ratelimit-reset: {reset}"), true, seconds);
        }
        check_reset(&format!("{date}\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1692263201000"), true, None);
    }

    #[test]
    fn the_structured_field_is_read_as_it_is_and_as_it_was() {
        for (field, is_used_up, seconds) in [
            (r#""default";r=0;t=30"#, true, Some(30)),
            (r#""default";r=5;t=30"#, false, None),
            (r#""default"; t=30 ;r=0;pk=:QUJD:"#, true, Some(30)),
            (r#""burst";r=0;t=2, "daily";r=0;t=9,"monthly";r=1;t=99"#, true, Some(9)),
            (r#""a;r=0;t=7,b\";r=0;t=8";r=1;t=9"#, false, None),
            (r#"burst;r=0"#, true, None),
            ("limit=100, remaining=0, reset=30", true, Some(30)),
            ("limit=100,remaining=3,reset=30", false, None),
            ("limit=0;r=0, remaining=1, reset=30", true, None),
            (r#""x";r=0;t=-3"#, true, None),
            (";;,,=;r=", false, None),
        ] {
            check_reset(&format!("ratelimit: {field}"), is_used_up, seconds);
        }
        check_reset("ratelimit: \"a\";r=0;t=3\nratelimit: \"b\";r=0;t=4", true, Some(4));
    }

    #[test]
    fn a_status_says_what_becomes_of_the_waits() {
        let second = Duration::from_secs(1);
        let check = |lines: &str, status: u16, refuses: bool, named: u32, pause: u32| {
            let (waits, status) = (waits(lines), StatusCode::from_u16(status).unwrap());
            let wait = |seconds: u32| (seconds > 0).then(|| second * seconds);
            assert_eq!(
                (waits.refuse(status), waits.named(), waits.pause(status)),
                (refuses, wait(named), wait(pause)),
                "{lines} {status}"
            );
        };
        let (asked, empty) = ("retry-after: 2", "x-ratelimit-remaining: 0\nx-ratelimit-reset: 5");
        let both = format!("{asked}\n{empty}");
        check(asked, 429, true, 2, 0);
        check(empty, 429, true, 5, 5);
        check(&both, 429, true, 2, 5);
        check("x-a: b", 429, true, 0, 0);
        check(asked, 403, true, 2, 0);
        check(empty, 403, true, 5, 5);
        check("x-ratelimit-remaining: 7\nx-ratelimit-reset: 5", 403, false, 0, 0);
        check("x-a: b", 403, false, 0, 0);
        check(empty, 200, false, 5, 5);
        check(asked, 202, false, 2, 0);
        for status in [408, 500, 502, 503, 504] {
            check(asked, status, false, 2, 2);
        }
        check(&both, 500, false, 2, 5);
        check(empty, 404, false, 5, 5);
    }

    /// The largest number that stands in a text, and one second for its fraction.
    fn largest(text: &str) -> f64 {
        let numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<f64>().ok());
        numbers.fold(0.0, f64::max) + 1.0
    }

    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            "[0-9]{1,40}",
            "-?[0-9]{0,12}[.,]?[0-9]{0,12}(e[0-9]{1,3})?",
            "[0-9]{0,3}(NaN|inf|-|;|\"|=|,|\\\\|r=0|t=[0-9]{1,20}){0,8}",
            r#"(limit|remaining|reset|"[a-z,;\\]{0,3}")(=[0-9]{1,12})?(;[rt]=-?[0-9]{1,25}(\.[0-9]{1,12})?){0,3}(, ?(remaining|reset)=[0-9]{0,22}){0,2}"#,
            "[ -~]{0,40}",
        ]
    }

    proptest! {
        #[test]
        fn no_header_panics_or_pauses_for_more_than_is_said(
            lines in proptest::collection::vec((0_usize..7, value()), 0..8),
            status in 100_u16..600,
            now in 0_u64..10_000_000_000,
        ) {
            let names = ["retry-after", "date", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit-remaining",
                "ratelimit-reset", "ratelimit"];
            let mut headers = HeaderMap::new();
            for (name, value) in &lines {
                if let Ok(value) = HeaderValue::from_str(value) {
                    headers.append(names[*name], value);
                }
            }
            let waits = Waits::of(&headers, UNIX_EPOCH + Duration::from_secs(now));
            let said = lines.iter().map(|(_, value)| largest(value)).fold(0.0, f64::max);
            let status = StatusCode::from_u16(status).unwrap();
            for wait in [waits.named(), waits.pause(status)].into_iter().flatten() {
                prop_assert!(wait.as_secs_f64() <= said && wait <= CREDIBLE_MAX, "{wait:?} of {lines:?}");
            }
        }

        #[test]
        fn a_date_pauses_for_what_is_left_until_then(at in 0_u64..4_000_000_000, from in 0_u64..4_000_000_000) {
            let date = |seconds| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
            let read = waits(&format!("date: {}\nretry-after: {}", date(from), date(at)));
            let left = Duration::from_secs(at.saturating_sub(from));
            prop_assert_eq!(read.named(), (left <= CREDIBLE_MAX).then_some(left));
        }
    }
}
