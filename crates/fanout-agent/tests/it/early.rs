//! Early start: what may run while the response still streams, and what becomes of it.

use fanout_script::{Fault, Turn};

use crate::stage::{Stage, calls, end_of, told};

const SAID: &str = "u: text | a: read r1, write w1, read r2, read x1 | u: =r1, =w1, =r2, =x1 | a: text";

/// `read x1` reads what `write w1` writes, so it must wait for it.
fn turn() -> Turn {
    let mut turn = calls("read r1, write w1, read r2");
    turn.content.push(fanout_script::Block::tool_use("read", r#"{"id":"w1"}"#).with_id("x1"));
    turn
}

#[tokio::test]
async fn a_read_starts_before_the_response_has_ended_and_a_write_after_it() {
    let stage = Stage::open([turn(), Turn::text("ok")]).hold_answers_until("r2 ok");
    let report = stage.run().await;
    assert_eq!((end_of(&report).as_str(), told(&report.conversation).as_str()), ("done", SAID));
    let log = &stage.log;
    assert!(log.at("r1 ok") < log.at("said 1") && log.at("r2 ok") < log.at("said 1"));
    assert!(log.at("said 1") < log.at("start w1") && log.at("w1 ok") < log.at("start x1"));
    for work in ["read r1", "write w1", "read r2", "read w1"] {
        assert_eq!(log.times(work), 1, "{work}: an early outcome is the outcome");
    }
    assert!(!log.has("discard 1"));
}

#[tokio::test]
async fn nothing_starts_early_where_it_is_switched_off_or_nothing_streams() {
    for (stream, early) in [(true, false), (false, true), (false, false)] {
        let stage = Stage::open([turn(), Turn::text("ok")]).streaming(stream);
        let stage = stage.with(|options| options.early_start = early);
        let report = stage.run().await;
        assert_eq!((end_of(&report).as_str(), told(&report.conversation).as_str()), ("done", SAID));
        assert!(stage.log.at("said 1") < stage.log.at("start r1"), "{:?}", stage.log.lines());
    }
}

#[tokio::test]
async fn a_broken_stream_throws_early_outcomes_away_and_the_retry_runs_them_anew() {
    for fault in [Fault::EndAfterEvents { events: 14 }, Fault::error_event(14), Fault::CutAfterEvents { events: 14 }] {
        let stage = Stage::open([turn().fault(fault.clone()), Turn::text("ok")]).hold_answers_until("r1 ok");
        let report = stage.run().await;
        assert_eq!((end_of(&report).as_str(), told(&report.conversation).as_str()), ("done", SAID), "{fault:?}");
        let log = &stage.log;
        assert!(log.at("r1 ok") < log.at("discard 1") && log.at("discard 1") < log.at("said 1"), "{:?}", log.lines());
        assert_eq!((log.times("read r1"), log.times("write w1")), (2, 1), "{fault:?}");
    }
}

#[tokio::test]
async fn what_is_thrown_away_is_recorded_before_the_turn_is_called_discarded() {
    let stage = Stage::open([turn().fault(Fault::Refusal { after_blocks: 3 })]).hold_answers_until("r2 ok");
    let report = stage.run().await;
    assert_eq!((end_of(&report).as_str(), told(&report.conversation).as_str()), ("refused", "u: text"));
    let log = &stage.log;
    assert!(log.at("w1 cancelled") < log.at("discard 1"), "{:?}", log.lines());
    assert_eq!(log.times("write w1"), 0);
}

#[tokio::test]
async fn a_cut_off_answers_early_outcomes_do_not_count() {
    let stage = Stage::open([turn().fault(Fault::cut_off(5)), Turn::text("ok")]).hold_answers_until("r2 ok");
    let report = stage.run().await;
    assert_eq!((end_of(&report).as_str(), told(&report.conversation).as_str()), ("done", SAID));
    assert_eq!((stage.log.times("read r1"), stage.log.times("write w1")), (2, 1));
}

#[tokio::test]
async fn an_early_read_that_still_runs_when_its_stream_breaks_is_stopped() {
    let broken = calls("peek p1, write w1").fault(Fault::error_event(9));
    let stage = Stage::open([broken, Turn::text("ok")]).hold_answers_until("start p1");
    let (log, opens) = (stage.log.clone(), stage.log.clone());
    let opener = tokio::spawn(async move {
        opens.until("said 1").await;
        opens.open_gate();
    });
    let report = stage.run().await;
    opener.await.unwrap();
    assert_eq!(end_of(&report), "done");
    log.nobody_is_alive().await;
    assert_eq!((log.times("peek p1"), log.times("write w1")), (1, 1));
}
