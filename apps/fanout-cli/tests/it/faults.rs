//! Every fault of the scripted server, as a person at the terminal meets it: a clear sentence, or a correct recovery.

use fanout_script::{Block, Fault, RefusedAddress, Script, Server, ServerOptions, Turn};

use crate::api::Api;
use crate::binary::{Came, Desk};

/// A turn that calls a tool, then one that says "done", with this fault in the first.
fn faulty(fault: Fault) -> Turn {
    Turn::new([Block::text("I look."), Block::tool_use("look", r#"{"id":"1"}"#).with_id("a")]).always(fault)
}

/// Runs it, streaming and not, and gives both ends.
async fn meet(turn: Turn, more: &str) -> [Came; 2] {
    let api = Api::open().await;
    let server = Server::start(ServerOptions::script(Script::new([turn]))).unwrap();
    let mut came = Vec::new();
    for stream in [true, false] {
        let config = format!("[model]\nstream = {stream}\n{more}\n{}", api.tool("look", "GET", "ok/{id}", ""));
        let desk = Desk::with(&config).set("ANTHROPIC_BASE_URL", server.base_url());
        came.push(desk.run(&["run", &format!("go, stream {stream}")], "").await);
    }
    assert_eq!(server.violations(), [], "nothing was sent that the API would refuse");
    came.try_into().unwrap()
}

/// It cannot be mended: it ends with this code, and its last line begins and ends so.
#[track_caller]
fn ends(came: Came, code: i32, start: &str, end: &str) {
    let came = came.code(code);
    let last = came.err.lines().last().unwrap_or_default();
    assert!(last.starts_with(start) && last.ends_with(end), "{last}");
}

/// It is mended: the answer is there.
#[track_caller]
fn recovers(came: Came) {
    assert_eq!(came.code(0).out, "done\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_mended_ends_with_a_sentence_that_says_what_to_do() {
    let cap = "; no wait was named, so this may be a spending cap: look at the account's limits before trying again";
    for (fault, status, start, end) in [
        (Fault::status(400), 1, "failed: the API answered 400 `invalid_request_error`: ", ")"),
        (
            Fault::status(401),
            1,
            "failed: the API answered 401 `authentication_error`: ",
            "; check the key: ANTHROPIC_API_KEY, or `api_key` in `[model]`",
        ),
        (
            Fault::status(404),
            1,
            "failed: the API answered 404 `not_found_error`: ",
            "; check `name` and `base_url` in `[model]`",
        ),
        (Fault::status(429), 1, "failed: the API answered 429 `rate_limit_error`: ", cap),
        (
            Fault::rate_limited(86_400),
            3,
            "failed: the API answered 429 `rate_limit_error`: ",
            "is longer than what is left of the run",
        ),
        (Fault::overloaded(), 1, "failed: the API answered 529 `overloaded_error`: ", "(4 tries)"),
        (Fault::html(500), 1, "failed: the API answered 500 `unknown_error`: <html>", "(4 tries)"),
    ] {
        for came in meet(faulty(fault), "").await {
            ends(came, status, start, end);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_always_breaks_off_ends_with_a_sentence() {
    for fault in [
        Fault::Reset,
        Fault::CutAfterBytes { bytes: 40 },
        Fault::CutAfterEvents { events: 3 },
        Fault::EndAfterEvents { events: 3 },
        Fault::error_event(3),
    ] {
        for came in meet(faulty(fault), "").await {
            ends(came, 1, "failed: ", "");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_tried_again_and_told() {
    for (fault, told) in [
        (Fault::rate_limited(0), "the API answered 429"),
        (Fault::overloaded(), "the API answered 529"),
        (Fault::html(500), "the API answered 500"),
        (Fault::Reset, "broke off"),
        (Fault::error_event(4), "overloaded_error"),
        (Fault::CutAfterEvents { events: 4 }, ""),
    ] {
        let turn = Turn::new([Block::tool_use("look", r#"{"id":"1"}"#)]).fault(fault);
        for came in meet(turn, "").await {
            assert!(came.err.contains(told), "{}", came.err);
            recovers(came);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_strange_and_allowed_changes_nothing() {
    for fault in [
        Fault::UnknownEvents,
        Fault::UnknownFields,
        Fault::Slow { bytes: 7, delay_ms: 0 },
        Fault::Pause { after_events: 3, pause_ms: 20, ping_ms: 5 },
        Fault::ByteOrderMark,
    ] {
        for came in meet(faulty(fault), "").await {
            recovers(came);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_ends_the_run_and_is_no_answer() {
    for came in meet(faulty(Fault::Refusal { after_blocks: 1 }), "").await {
        assert_eq!(came.out, "");
        ends(came, 1, "refused: the model refused", "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_stays_cut_off_fails_and_one_that_does_not_recovers() {
    for came in meet(Turn::text("a long story").always(Fault::cut_off(4)), "").await {
        ends(came, 1, "failed: max_tokens", "");
    }
    for came in meet(faulty(Fault::None).fault(Fault::cut_off(4)), "").await {
        recovers(came);
    }
    for came in meet(faulty(Fault::context_window(4)), "").await {
        ends(came, 1, "failed: context_window", "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_turn_goes_on() {
    for came in meet(Turn::text("a moment").stop("pause_turn"), "").await {
        recovers(came);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_is_named() {
    let address = RefusedAddress::take().unwrap();
    let desk = Desk::new().set("ANTHROPIC_BASE_URL", address.base_url().unwrap());
    let came = desk.run(&["run", "hi"], "").await;
    assert!(!came.err.contains("took"), "without an answer there is nothing to compare: {}", came.err);
    ends(
        came,
        1,
        "failed: no connection to the API: ",
        "; check ANTHROPIC_BASE_URL, or `base_url` in `[model]` (4 tries)",
    );
}
