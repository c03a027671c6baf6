//! What goes wrong between the agent and the API.

use std::time::Duration;

use fanout_agent::{Conversation, RunSettings};
use fanout_script::{Block, Fault, Pace, RetryAfter, Turn};

use crate::stage::{Stage, call, calls, end_of, told};

fn status(status: u16, retry_after: Option<RetryAfter>) -> Fault {
    Fault::Status { status, message: None, retry_after, html: None }
}

/// A turn that writes, with these faults on its first attempts, then an answer.
fn stage(faults: impl IntoIterator<Item = Fault>, stream: bool) -> Stage {
    let turn = faults.into_iter().fold(calls("read r1, write w1"), Turn::fault);
    Stage::open([turn, Turn::text("ok")]).streaming(stream)
}

const WHOLE: &str = "u: text | a: read r1, write w1 | u: =r1, =w1 | a: text";

#[tokio::test]
async fn a_passing_fault_is_tried_again_and_no_write_runs_twice() {
    let slow = Fault::Slow { bytes: 3, delay_ms: 0 };
    let pause = Fault::Pause { after_events: 4, pause_ms: 60, ping_ms: 5 };
    let silence = Fault::Pause { after_events: 4, pause_ms: 60, ping_ms: 0 };
    let together = Fault::Together { faults: vec![Fault::UnknownEvents, Fault::UnknownFields, Fault::ByteOrderMark] };
    for (fault, requests) in [
        (Fault::overloaded(), 3),
        (status(500, None), 3),
        (status(503, None), 3),
        (status(529, Some(RetryAfter::Seconds(0))), 3),
        (Fault::html(502), 3),
        (status(408, None), 3),
        (status(409, None), 3),
        (Fault::rate_limited(0), 3),
        (status(429, Some(RetryAfter::Date(0))), 3),
        (Fault::Reset, 3),
        (Fault::error_event(0), 3),
        (Fault::error_event(5), 3),
        (Fault::ErrorEvent { after_events: 2, error_type: "error_of_tomorrow".to_owned() }, 3),
        (Fault::CutAfterBytes { bytes: 0 }, 3),
        (Fault::CutAfterBytes { bytes: 333 }, 3),
        (slow, 2),
        (pause, 2),
        (silence, 2),
        (together, 2),
    ] {
        for stream in [true, false] {
            let stage = stage([fault.clone()], stream);
            let report = stage.run().await;
            assert_eq!((end_of(&report).as_str(), told(&report.conversation).as_str()), ("done", WHOLE), "{fault:?}");
            assert_eq!(stage.asked().len(), requests, "{fault:?}, stream: {stream}");
            assert_eq!((stage.log.times("write w1"), report.turns), (1, 2), "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_after_any_event_is_asked_for_again_and_no_write_runs_twice() {
    let turn =
        || Turn::new([Block::thinking("hm", "sig"), call("read", "r1"), call("write", "w1"), call("read", "r2")]);
    let said = "thinking, read r1, write w1, read r2";
    let mut whole_at = None;
    for events in 0..26 {
        for fault in [Fault::CutAfterEvents { events }, Fault::EndAfterEvents { events }, Fault::error_event(events)] {
            let stage = Stage::open([turn().fault(fault.clone()), Turn::text("ok")]);
            let report = stage.run().await;
            assert_eq!(end_of(&report), "done", "{fault:?}");
            let expected = format!("u: text | a: {said} | u: =r1, =w1, =r2 | a: text");
            assert_eq!(told(&report.conversation), expected, "{fault:?}");
            assert_eq!(stage.log.times("write w1"), 1, "{fault:?}");
            assert!(stage.log.at("said 1") < stage.log.at("start w1"), "{fault:?}");
            if stage.asked().len() == 2 {
                whole_at = whole_at.or(Some(events));
            }
        }
    }
    assert!(whole_at.is_some_and(|at| at > 15), "the last ones reach the stream's end: {whole_at:?}");
}

#[tokio::test]
async fn a_key_that_an_error_repeats_is_in_no_reason_and_no_event() {
    for (status, retries) in [(401, 0), (500, 3)] {
        let message = Some("invalid x-api-key: sk-secret-0123".to_owned());
        let fault = Fault::Status { status, message, retry_after: None, html: None };
        let stage = stage(vec![fault; 4], true).hiding("KEY", "sk-secret-0123");
        let end = end_of(&stage.run().await);
        assert!(end.contains("invalid x-api-key: [redacted KEY]"), "{end}");
        let lines = stage.log.lines().join(" ");
        assert!(!format!("{end}{lines}").contains("sk-secret"), "{lines}");
        assert_eq!(stage.asked().len(), retries + 1);
    }
}

/// A fault that ends the run at once: so many requests, this in the reason.
async fn ends(fault: Fault, reason: &[&str]) {
    for stream in [true, false] {
        let stage = stage([fault.clone()], stream);
        let report = stage.run().await;
        let end = end_of(&report);
        assert!(end.starts_with("failed: ") && reason.iter().all(|part| end.contains(part)), "{end}");
        assert_eq!((stage.asked().len(), report.turns), (1, 0), "{end}");
        assert_eq!(told(&report.conversation), "u: text");
        assert_eq!(stage.log.times("write w1"), 0);
    }
}

#[tokio::test]
async fn what_a_second_try_cannot_mend_is_not_tried_again() {
    ends(status(429, None), &["429", "spending cap", "request req_"]).await;
    ends(status(400, None), &["400", "invalid_request_error"]).await;
    ends(status(401, None), &["401", "ANTHROPIC_API_KEY"]).await;
    ends(status(403, None), &["403"]).await;
    ends(status(404, None), &["404", "base_url"]).await;
    ends(status(413, None), &["413"]).await;
    ends(
        Fault::ErrorEvent { after_events: 3, error_type: "invalid_request_error".to_owned() },
        &["invalid_request_error"],
    )
    .await;
}

#[tokio::test]
async fn tries_are_bounded_and_the_reason_says_how_many() {
    for (fault, word) in [
        (Fault::overloaded(), "529"),
        (Fault::html(502), "upstream unavailable"),
        (Fault::Reset, "broke off"),
        (Fault::error_event(4), "overloaded_error"),
        (Fault::CutAfterEvents { events: 4 }, "broke off"),
    ] {
        let turn = calls("read r1, write w1").always(fault);
        let stage = Stage::open([turn]).backoff(3);
        let report = stage.run().await;
        let end = end_of(&report);
        assert!(end.starts_with("failed: ") && end.contains(word) && end.contains("3 tries"), "{end}");
        assert_eq!(stage.asked().len(), 3);
        assert_eq!(stage.log.times("write w1"), 0);
    }
}

#[tokio::test]
async fn an_answer_starts_the_count_of_tries_anew() {
    let turn = |id| calls(id).fault(Fault::overloaded()).fault(Fault::overloaded());
    let stage = Stage::open([turn("read r1"), turn("read r2"), turn("write w1"), Turn::text("ok")]).backoff(3);
    assert_eq!(end_of(&stage.run().await), "done");
    assert_eq!(stage.asked().len(), 10);
}

#[tokio::test]
async fn nobody_at_the_address_is_said_so_after_bounded_tries() {
    let stage = Stage::open([]).backoff(2);
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let http = fanout_anthropic::HttpOptions { base_url: format!("http://{closed}"), ..Default::default() };
    let model = std::sync::Arc::new(fanout_anthropic::HttpModel::new(http).unwrap());
    let agent =
        fanout_agent::Agent::new(model, stage.scheduler.clone(), stage.toolbox.clone(), stage.options.clone()).unwrap();
    let report = agent.run(Conversation::from_prompt("go"), RunSettings::default()).await;
    let end = end_of(&report);
    assert!(end.starts_with("failed: no connection") && end.contains("ANTHROPIC_BASE_URL"), "{end}");
    assert!(end.contains("2 tries"), "{end}");
}

#[tokio::test]
async fn a_wait_that_the_server_names_is_kept() {
    for after in [RetryAfter::Seconds(60), RetryAfter::Date(60)] {
        for code in [429, 529, 503] {
            let stage = stage([status(code, Some(after))], true).jump_over_waits();
            let report = stage.run().await;
            assert_eq!(end_of(&report), "done");
            // A date has whole seconds.
            assert!(report.elapsed >= Duration::from_secs(59), "{after:?} {:?}", report.elapsed);
            assert!(report.elapsed <= Duration::from_secs(75), "{after:?} {:?}", report.elapsed);
        }
    }
}

#[tokio::test]
async fn a_wait_longer_than_what_is_left_ends_the_run_at_once() {
    // The last one is more seconds than any clock of this machine can count to.
    for seconds in [901, 100_000_000, u64::MAX / 2, 18_446_744_073_709_000_000] {
        let stage = stage([Fault::rate_limited(seconds)], true);
        let report = stage.run().await;
        let end = end_of(&report);
        assert!(end.starts_with("failed: ") && end.contains("429") && end.contains("left of the run"), "{end}");
        assert!(end.contains("request req_"), "{end}");
        assert_eq!(stage.asked().len(), 1);
        assert!(report.elapsed < Duration::from_secs(60));
    }
}

#[tokio::test]
async fn the_longest_deadline_is_no_fault() {
    let stage = stage([], true).with(|options| options.limits.deadline = Duration::MAX);
    assert_eq!(end_of(&stage.run().await), "done");
}

#[tokio::test]
async fn slow_words_are_waited_for() {
    let pace = Pace { think_ms: 20, tok_per_s: 400.0, event_ms: 1 };
    let stage = Stage::open([calls("read r1, write w1").pace(pace), Turn::text("ok").pace(pace)]);
    assert_eq!(told(&stage.run().await.conversation), WHOLE);
}

#[tokio::test]
async fn a_silence_past_the_idle_timeout_is_asked_for_again_and_pings_are_no_silence() {
    let pause = |pause_ms, ping_ms| Fault::Pause { after_events: 6, pause_ms, ping_ms };
    let stage = stage([pause(60_000, 0), pause(600, 20)], true).idle_timeout(Duration::from_millis(400));
    let report = stage.run().await;
    assert_eq!((end_of(&report).as_str(), told(&report.conversation).as_str()), ("done", WHOLE));
    assert_eq!(stage.log.times("write w1"), 1);
    assert!(stage.asked().len() >= 3);
}

#[tokio::test]
async fn a_failed_request_is_told_with_what_follows() {
    let stage = stage([Fault::overloaded(), status(400, None)], true);
    assert_eq!(stage.run().await.status.as_str(), "failed");
    let at = |line: &str| stage.log.at(line);
    assert!(at("ask 1") < at("failed 1 again") && at("failed 1 again") < at("failed 1 for good"));
    assert!(at("failed 1 for good") < at("run failed"));
}
