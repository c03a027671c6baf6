//! What a request that failed proves, and what its call comes to: against servers that misbehave at every stage.
//!
//! Each test says what becomes of a call that is repeatable (GET) and of one that is not (POST), and that the server saw no
//! request more than there were attempts: of the POST one, unless nothing can have been carried out.

use std::time::Duration;

use axum::http::Method;
use fanout_core::limits::LimitOptions;
use fanout_core::outcome::Outcome;
use fanout_core::retry::Backoff;
use fanout_core::tool::Policy;
use fanout_tools::http::{HttpTool, HttpToolBuilder};

use crate::batch::{Bench, bounded, shown, word};
use crate::server;
use crate::wire::{Act, Drip, HalfClose, Hang, Notice, Read, Repeat, Reset, Wire, write};

fn tool(method: &Method, base: &str, timeout: Duration) -> HttpToolBuilder {
    let policy = Policy { timeout, ..Policy::default() };
    HttpTool::builder("t", method.clone(), format!("{base}/orders")).policy(policy)
}

/// Two attempts, without much of a wait between them.
fn limits() -> LimitOptions {
    let retry = Backoff { attempts: 2, base: Duration::from_millis(1), max: Duration::from_millis(1) };
    LimitOptions { retry, ..LimitOptions::at_once(8) }
}

async fn call(method: &Method, base: &str, timeout: Duration) -> Outcome {
    let outcomes = Bench::new(base, limits(), [tool(method, base, timeout)]).calls("t", 1).await;
    (*outcomes[0]).clone()
}

/// Checks what a GET and a POST come to, and answers what the model reads of either.
async fn check_within(script: impl IntoIterator<Item = Act>, timeout: Duration, get: &str, post: &str) -> [String; 2] {
    let script: Vec<Act> = script.into_iter().collect();
    let mut texts = Vec::new();
    for (method, expected) in [(Method::GET, get), (Method::POST, post)] {
        let wire = Wire::start(script.clone()).await;
        let outcome = call(&method, &wire.base, timeout).await;
        assert_eq!(word(&outcome), expected, "{method}: {outcome:?}");
        bounded(wire.quiet()).await;
        assert_eq!(wire.requests(), outcome.attempts as usize, "{method}");
        texts.push(shown(&outcome));
    }
    texts.try_into().unwrap()
}

async fn check(script: impl IntoIterator<Item = Act>, get: &str, post: &str) -> [String; 2] {
    check_within(script, Duration::from_secs(30), get, post).await
}

#[tokio::test]
async fn a_refused_connection_goes_again_since_nothing_was_sent() {
    for method in [Method::GET, Method::POST] {
        let base = server::nobody().await;
        let outcome = call(&method, &base, Duration::from_secs(30)).await;
        assert_eq!(word(&outcome), "upstream after 2");
        assert!(shown(&outcome).contains("Nothing was carried out"), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_handshake_that_is_reset_or_answered_with_something_else_goes_again() {
    for script in [vec![Reset], vec![Notice, Reset], vec![Notice, write("no TLS here")]] {
        for method in [Method::GET, Method::POST] {
            let wire = Wire::start(script.clone()).await;
            let outcome = call(&method, &wire.base.replace("http:", "https:"), Duration::from_secs(30)).await;
            assert_eq!(word(&outcome), "upstream after 2");
            assert_eq!(wire.connections(), 2);
            assert!(shown(&outcome).contains("Nothing was carried out"), "{outcome:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_never_ends_is_given_up_before_the_timeout() {
    for timeout in [30, 2] {
        for method in [Method::GET, Method::POST] {
            let wire = Wire::start([Hang]).await;
            let outcome = call(&method, &wire.base.replace("http:", "https:"), Duration::from_secs(timeout)).await;
            assert_eq!(word(&outcome), "upstream after 2");
            assert!(shown(&outcome).contains("Nothing was carried out"), "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_reset_as_soon_as_the_connection_is_there() {
    for method in [Method::GET, Method::POST] {
        let wire = Wire::start([Reset]).await;
        let outcome = call(&method, &wire.base, Duration::from_secs(30)).await;
        // The reset may come before the connection is known to be there, which proves that nothing was sent.
        let proven = word(&outcome) == "upstream after 2" && shown(&outcome).contains("Nothing was carried out");
        let expected = if method == Method::GET { "upstream after 2" } else { "outcome_unknown after 1" };
        assert!(proven || word(&outcome) == expected, "{method}: {outcome:?}");
        assert_eq!(wire.connections(), outcome.attempts as usize);
    }
}

#[tokio::test]
async fn a_reset_before_the_request_was_read() {
    check([Notice, Reset], "upstream after 2", "outcome_unknown after 1").await;
}

#[tokio::test]
async fn a_reset_after_the_request_was_read() {
    check([Read, Reset], "upstream after 2", "outcome_unknown after 1").await;
}

#[tokio::test]
async fn a_reset_in_the_headers() {
    let script = [Read, write("HTTP/1.1 200 OK\r\ncontent-le"), Reset];
    check(script, "upstream after 2", "outcome_unknown after 1").await;
}

#[tokio::test]
async fn a_reset_in_the_body() {
    for head in ["content-length: 10\r\n\r\nhalf", "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", "\r\nhalf"] {
        let script = [Read, write(&format!("HTTP/1.1 200 OK\r\n{head}")), Reset];
        check(script, "upstream after 2", "outcome_unknown after 1").await;
    }
}

#[tokio::test]
async fn a_reset_while_a_long_request_is_sent() {
    let wire = Wire::start([Notice, Reset]).await;
    let tool = tool(&Method::POST, &wire.base, Duration::from_secs(30));
    let input = serde_json::json!({ "text": "x".repeat(16 * 1024 * 1024) });
    let outcome = Bench::new(&wire.base, limits(), [tool]).with_input(input).calls("t", 1).await;
    assert_eq!(word(&outcome[0]), "outcome_unknown after 1");
    assert_eq!(wire.requests(), 1);
}

#[tokio::test]
async fn a_server_that_half_closes_instead_of_answering() {
    for begun in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"] {
        check([Read, write(begun), HalfClose], "upstream after 2", "outcome_unknown after 1").await;
    }
}

#[tokio::test]
async fn a_server_that_half_closes_after_a_whole_answer() {
    for whole in ["content-length: 2\r\n\r\nok", "\r\nok"] {
        let shown = check([Read, write(&format!("HTTP/1.1 200 OK\r\n{whole}")), HalfClose], "ok after 1", "ok after 1");
        assert_eq!(shown.await, ["ok", "ok"]);
    }
}

#[tokio::test]
async fn an_answer_that_is_shorter_than_it_says() {
    let script = [Read, write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")];
    let [get, post] = check(script, "upstream after 2", "outcome_unknown after 1").await;
    for shown in [get, post] {
        assert!(shown.contains("broke off after 4 bytes"), "{shown}");
    }
}

#[tokio::test]
async fn an_answer_that_is_longer_than_it_says_ends_where_it_said_and_answers_nobody_else() {
    let smuggled = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let long = write(&format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok{smuggled}"));
    for method in [Method::GET, Method::POST] {
        let wire = Wire::start([Read, long.clone(), Read, Hang]).await;
        let bench = Bench::new(&wire.base, limits(), [tool(&method, &wire.base, Duration::from_secs(30))]);
        for _ in 0..50 {
            let outcome = bench.calls("t", 1).await;
            assert_eq!((word(&outcome[0]), shown(&outcome[0])), ("ok after 1".to_owned(), "ok".to_owned()));
        }
    }
}

#[tokio::test]
async fn a_length_that_is_no_number_or_two() {
    for length in ["content-length: ten", "content-length: -1", "content-length: 2\r\ncontent-length: 3"] {
        let script = [Read, write(&format!("HTTP/1.1 200 OK\r\n{length}\r\n\r\nok"))];
        check(script, "upstream after 2", "outcome_unknown after 1").await;
    }
}

#[tokio::test]
async fn headers_without_an_end() {
    let script = [Read, write("HTTP/1.1 200 OK\r\n"), Repeat(b"x-more: 1\r\n".repeat(1000))];
    check(script, "upstream after 2", "outcome_unknown after 1").await;
}

#[tokio::test]
async fn an_answer_that_is_not_http() {
    check([Read, write("220 mail.example ESMTP\r\n\r\n")], "upstream after 2", "outcome_unknown after 1").await;
}

/// Long enough to connect on loopback, even on a busy machine; the answers that it ends would never come.
const SLOW: Duration = Duration::from_millis(500);

#[tokio::test]
async fn no_answer_at_all_is_ended_by_the_timeout() {
    check_within([Read, Hang], SLOW, "timeout after 2", "outcome_unknown after 1").await;
}

#[tokio::test]
async fn headers_that_come_byte_by_byte_are_ended_by_the_timeout() {
    let script = [Read, Drip(b"HTTP/1.1 200 OK\r\nx-slow: 1")];
    check_within(script, SLOW, "timeout after 2", "outcome_unknown after 1").await;
}

#[tokio::test]
async fn a_body_that_comes_byte_by_byte_is_ended_by_the_timeout() {
    for head in ["content-length: 1000000\r\n\r\n", "\r\n", "transfer-encoding: chunked\r\n\r\nfffff\r\n"] {
        let script = [Read, write(&format!("HTTP/1.1 200 OK\r\n{head}")), Drip(b"1")];
        check_within(script, SLOW, "timeout after 2", "outcome_unknown after 1").await;
    }
}

#[tokio::test]
async fn a_body_without_an_end_is_ended_by_the_cap_and_hung_up() {
    let piece = "0123456789abcdef".repeat(4096);
    let chunk = format!("10000\r\n{piece}\r\n");
    for (head, body) in [("", piece), ("transfer-encoding: chunked\r\n", chunk)] {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n{head}\r\n");
        let script = [Read, write(&head), Repeat(body.into_bytes())];
        for shown in check(script, "too_large after 1", "too_large after 1").await {
            assert!(shown.contains("more than 16,777,216 bytes, and at most 16,777,216 are kept"), "{shown}");
        }
    }
}

#[tokio::test]
async fn an_error_whose_body_has_no_end_or_never_comes_is_that_error() {
    for (last, told) in [
        (Repeat(b"no such order, ".to_vec()), "no such order, no such"),
        (Drip(b"no such order"), "no such o"),
        (Hang, ""),
    ] {
        let script = [Read, write("HTTP/1.1 404 Not Found\r\n\r\n"), last];
        for shown in check(script, "upstream after 1", "upstream after 1").await {
            assert!(shown.contains("404 Not Found") && shown.contains(told), "{shown}");
        }
    }
}

/// Answers the first request on a connection, and is gone without a word when the second one comes.
fn forgetful() -> [Act; 4] {
    [Read, write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"), Notice, Reset]
}

/// Lets an hour glass run: connections in the pool grow old.
async fn idle(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn what_is_not_repeatable_is_never_sent_on_a_connection_that_was_idle() {
    let wire = Wire::start(forgetful()).await;
    let bench = Bench::new(&wire.base, limits(), [tool(&Method::POST, &wire.base, Duration::from_secs(30))]);
    for calls in 1..=4 {
        assert_eq!(word(&bench.calls("t", 1).await[0]), "ok after 1");
        assert_eq!((wire.requests(), wire.connections()), (calls, calls));
        idle(Duration::from_millis(1_500)).await;
    }
}

#[tokio::test]
async fn what_is_repeatable_is_sent_again_when_the_connection_was_stale() {
    let wire = Wire::start(forgetful()).await;
    let bench = Bench::new(&wire.base, limits(), [tool(&Method::GET, &wire.base, Duration::from_secs(30))]);
    assert_eq!(word(&bench.calls("t", 1).await[0]), "ok after 1");
    idle(Duration::from_millis(1_500)).await;
    assert_eq!(word(&bench.calls("t", 1).await[0]), "ok after 2");
    assert_eq!((wire.requests(), wire.connections()), (3, 2));
}

#[tokio::test]
async fn a_post_declared_to_be_idempotent_is_treated_like_a_get() {
    let wire = Wire::start(forgetful()).await;
    let policy = Policy { idempotent: true, ..Policy::default() };
    let tool = tool(&Method::POST, &wire.base, Duration::from_secs(30)).policy(policy);
    let bench = Bench::new(&wire.base, limits(), [tool]);
    assert_eq!(word(&bench.calls("t", 1).await[0]), "ok after 1");
    idle(Duration::from_millis(1_500)).await;
    assert_eq!(word(&bench.calls("t", 1).await[0]), "ok after 2");
    assert_eq!((wire.requests(), wire.connections()), (3, 2));
}

#[tokio::test]
async fn writes_of_one_turn_share_a_connection() {
    let answer = write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let wire = Wire::start([Read, answer.clone(), Read, answer.clone(), Read, answer]).await;
    let bench = Bench::new(&wire.base, limits(), [tool(&Method::POST, &wire.base, Duration::from_secs(30))]);
    for outcome in bench.calls("t", 3).await {
        assert_eq!(word(&outcome), "ok after 1");
    }
    assert_eq!((wire.requests(), wire.connections()), (3, 1));
}
