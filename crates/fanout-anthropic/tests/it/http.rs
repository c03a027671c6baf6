//! The client against a real socket: what it sends, and what it makes of every kind of answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanout_anthropic::{
    Again, HttpModel, HttpOptions, Message, Model, ModelError, OptionsError, Part, Request, Response,
};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::server::{STREAM_HEAD, Server, Step, chunk, whole};

const KEY: &str = "sk-very-secret";
const STREAM: &str = include_str!("../../fixtures/calls_in_parallel.sse");
const BODY: &str = include_str!("../../fixtures/calls_in_parallel.json");

fn options(base_url: &str) -> HttpOptions {
    HttpOptions { base_url: base_url.to_owned(), api_key: Some(KEY.into()), ..HttpOptions::default() }
}

fn request() -> Request {
    Request { stream: true, ..Request::new("claude", 100, vec![Message::user_text("hé")]) }
}

async fn ask(options: HttpOptions) -> Result<Response, ModelError> {
    HttpModel::new(options).unwrap().respond(&request(), &mut |_| {}).await
}

/// What the client makes of this answer. Whatever it is, the key must not be in it.
async fn check(answer: Vec<Step>) -> Result<Response, ModelError> {
    let server = Server::start(vec![answer]).await;
    let seen = ask(options(&server.url())).await;
    assert!(!format!("{seen:?}").contains(KEY));
    seen
}

fn stream(steps: impl IntoIterator<Item = Step>) -> Vec<Step> {
    [Step::Write(STREAM_HEAD.into())].into_iter().chain(steps).collect()
}

fn whole_stream() -> Vec<Step> {
    stream([Step::Write([chunk(STREAM.as_bytes()), chunk(b"")].concat())])
}

#[tokio::test]
async fn a_request_is_sent_as_it_is_with_its_headers() {
    let server = Server::start(vec![whole_stream()]).await;
    let base_url = format!("{}/prefix/", server.url());
    ask(HttpOptions {
        beta: vec!["one-1".to_owned(), "two-2".to_owned()],
        headers: vec![("X-Extra".to_owned(), "more".into())],
        ..options(&base_url)
    })
    .await
    .unwrap();
    let seen = server.seen.lock().unwrap();
    let (head, body) = &seen.requests[0];
    assert!(head.starts_with("POST /prefix/v1/messages HTTP/1.1\r\n"), "{head}");
    for line in [
        "content-type: application/json",
        "anthropic-version: 2023-06-01",
        "anthropic-beta: one-1,two-2",
        "x-api-key: sk-very-secret",
        "x-extra: more",
    ] {
        assert_eq!(head.lines().filter(|seen| *seen == line).count(), 1, "{line} in {head}");
    }
    assert_eq!(*body, request().to_bytes());
}

#[tokio::test]
async fn a_request_without_a_key_has_no_key_header() {
    let server = Server::start(vec![whole_stream()]).await;
    ask(HttpOptions { api_key: None, ..options(&server.url()) }).await.unwrap();
    assert!(!server.seen.lock().unwrap().requests[0].0.contains("x-api-key"));
}

#[tokio::test]
async fn a_stream_gives_its_response_and_the_id_of_its_header() {
    for answer in [whole_stream(), stream([Step::Drip([chunk(STREAM.as_bytes()), chunk(b"")].concat())])] {
        let response = check(answer).await.unwrap();
        assert_eq!(response.to_json(), BODY.trim_end());
        assert_eq!(response.request_id.as_deref(), Some("req_1"));
    }
}

#[tokio::test]
async fn a_part_is_told_before_the_rest_has_come() {
    let told = Arc::new(Notify::new());
    let (first, rest) = STREAM.split_at(STREAM.find("event: content_block_stop").unwrap());
    let server = Server::start(vec![stream([
        Step::Write(chunk(first.as_bytes())),
        Step::Wait(Arc::clone(&told)),
        Step::Write([chunk(rest.as_bytes()), chunk(b"")].concat()),
    ])])
    .await;
    let model = HttpModel::new(options(&server.url())).unwrap();
    let mut on_part = |part: Part<'_>| {
        if matches!(part, Part::Text("I will look.")) {
            told.notify_one();
        }
    };
    // Were the parts held back to the end, the server would wait for ever.
    model.respond(&request(), &mut on_part).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_not_streamed_is_told_all_at_once() {
    let server =
        Server::start(vec![whole("200 OK", "content-type: application/json\r\nrequest-id: req_2\r\n", BODY)]).await;
    let model = HttpModel::new(options(&server.url())).unwrap();
    let parts = Mutex::new(Vec::new());
    let mut on_part = |part: Part<'_>| parts.lock().unwrap().push(format!("{part:?}"));
    let response = model.respond(&request(), &mut on_part).await.unwrap();
    assert_eq!(response.to_json(), BODY.trim_end());
    assert_eq!(response.request_id.as_deref(), Some("req_2"));
    let parts = parts.lock().unwrap();
    assert_eq!(parts.len(), 7);
    assert!(parts[0].starts_with("Limits(RateLimits { status: 200"), "{parts:?}");
    assert!(parts[1].starts_with("Text") && parts[6].starts_with("Block { index: 4"), "{parts:?}");
}

#[tokio::test]
async fn a_response_does_not_wait_for_the_end_of_its_body() {
    // Were the end of the body waited for, this would hang.
    check(stream([Step::Write(chunk(STREAM.as_bytes())), Step::Hang])).await.unwrap();
}

#[tokio::test]
async fn finished_streams_give_their_connections_back() {
    let end_apart = stream([Step::Write(chunk(STREAM.as_bytes())), Step::Write(chunk(b""))]);
    let server = Server::start(vec![end_apart]).await;
    let model = HttpModel::new(options(&server.url())).unwrap();
    for _ in 0..50 {
        model.respond(&request(), &mut |_| {}).await.unwrap();
    }
    let seen = server.seen.lock().unwrap();
    assert_eq!(seen.requests.len(), 50);
    // How many a pool of idle connections needs is its own affair, but never one for each request.
    assert!(seen.connections < 25, "{}", seen.connections);
}

#[tokio::test]
async fn a_cut_stream_is_broken() {
    let half = &STREAM.as_bytes()[..STREAM.len() / 2];
    let ended = vec![Step::Write(chunk(half)), Step::Write(chunk(b"")), Step::Close];
    for answer in [
        stream([Step::Write(chunk(half)), Step::Close]),
        stream(ended),
        stream([Step::Close]),
        vec![Step::Write(b"HTTP/1.1 200 OK\r\ncontent-ty".to_vec()), Step::Close],
        vec![Step::Write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{".to_vec()), Step::Close],
        vec![Step::Close],
    ] {
        let error = check(answer).await.unwrap_err();
        assert!(matches!(error, ModelError::Broken { .. }), "{error:?}");
        assert_eq!(error.again(), Again::Backoff);
    }
}

#[tokio::test]
async fn an_error_after_200_is_a_stream_error() {
    let event = b"data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    let error = check(stream([Step::Write(chunk(event)), Step::Hang])).await.unwrap_err();
    let want = ModelError::Stream {
        kind: "overloaded_error".to_owned(),
        message: "Overloaded".to_owned(),
        error_code: None,
        request_id: Some("req_1".to_owned()),
    };
    assert_eq!(error, want);
    let body = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_1"}"#;
    assert_eq!(check(whole("200 OK", "", body)).await.unwrap_err(), want);
}

/// What the client makes of an error status: the display of the error, and what a second try is worth.
async fn refused(status: &str, headers: &str, body: &str) -> (String, Again) {
    let error = check(whole(status, headers, body)).await.unwrap_err();
    assert!(matches!(error, ModelError::Status { .. }), "{error:?}");
    (error.to_string(), error.again())
}

const LIMITED: &str =
    r#"{"type":"error","error":{"type":"rate_limit_error","message":"Slow down"},"request_id":"req_9"}"#;

#[tokio::test]
async fn a_429_says_when_to_come_back_or_never() {
    let date = "date: Sun, 06 Nov 1994 08:49:00 GMT\r\nretry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let past = "date: Sun, 06 Nov 1994 08:49:00 GMT\r\nretry-after: Sun, 06 Nov 1994 08:48:37 GMT\r\n";
    for (headers, want) in [
        ("", Again::Never),
        ("x-should-retry: true\r\n", Again::Never),
        ("retry-after: soon\r\n", Again::Never),
        ("retry-after: -1\r\n", Again::Never),
        ("retry-after: 1e300\r\n", Again::Never),
        ("retry-after: 7\r\n", Again::After(Duration::from_secs(7))),
        ("retry-after: 0.5\r\n", Again::After(Duration::from_millis(500))),
        ("retry-after: 7\r\nretry-after-ms: 250\r\n", Again::After(Duration::from_millis(250))),
        ("retry-after: 7\r\nx-should-retry: false\r\n", Again::Never),
        ("retry-after: 7\r\nx-should-retry: true\r\n", Again::After(Duration::from_secs(7))),
        (date, Again::After(Duration::from_secs(37))),
        (past, Again::After(Duration::ZERO)),
        ("retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n", Again::After(Duration::ZERO)),
    ] {
        let (text, again) = refused("429 Too Many Requests", headers, LIMITED).await;
        assert_eq!((text.as_str(), again), ("the API answered 429 `rate_limit_error`: Slow down", want), "{headers}");
    }
}

#[tokio::test]
async fn each_status_has_its_worth() {
    for (status, headers, want) in [
        ("400 Bad Request", "", Again::Never),
        ("400 Bad Request", "x-should-retry: true\r\nretry-after: 1\r\n", Again::Never),
        ("401 Unauthorized", "", Again::Never),
        ("403 Forbidden", "", Again::Never),
        ("404 Not Found", "", Again::Never),
        ("408 Request Timeout", "", Again::Backoff),
        ("409 Conflict", "", Again::Backoff),
        ("413 Payload Too Large", "", Again::Never),
        ("500 Internal Server Error", "", Again::Backoff),
        ("500 Internal Server Error", "x-should-retry: false\r\n", Again::Never),
        ("503 Service Unavailable", "retry-after: 3\r\n", Again::After(Duration::from_secs(3))),
        ("529 Overloaded", "", Again::Backoff),
    ] {
        assert_eq!(refused(status, headers, LIMITED).await.1, want, "{status} {headers}");
    }
}

#[tokio::test]
async fn an_error_keeps_its_code_and_the_id_of_its_request() {
    let body = r#"{"type":"error","error":{"type":"invalid_request_error","message":"no","details":{"error_code":"thread_not_found"}}}"#;
    let error = check(whole("404 Not Found", "request-id: req_3\r\n", body)).await.unwrap_err();
    assert_eq!(error.request_id(), Some("req_3"));
    assert!(matches!(error, ModelError::Status { error_code: Some(code), .. } if code == "thread_not_found"));
    let error = check(whole("429 Too Many Requests", "request-id: req_3\r\n", LIMITED)).await.unwrap_err();
    assert_eq!(error.request_id(), Some("req_9"));
}

#[tokio::test]
async fn a_body_that_is_not_the_apis_is_quoted() {
    let page = format!("<html>Bad gateway at proxy-7{}</html>", " ".repeat(10_000));
    let (text, again) = refused("502 Bad Gateway", "", &page).await;
    assert_eq!(text, "the API answered 502 `unknown_error`: <html>Bad gateway at proxy-7");
    assert_eq!(again, Again::Backoff);
    let (text, _) = refused("502 Bad Gateway", "", &"x".repeat(100_000)).await;
    assert_eq!(text.len(), "the API answered 502 `unknown_error`: ".len() + 500);
    let (text, _) = refused("503 Service Unavailable", "", "").await;
    assert_eq!(text, "the API answered 503 `unknown_error`: Service Unavailable");
    let (text, _) = refused("500 Internal Server Error", "", r#"{"error":"down"}"#).await;
    assert_eq!(text, r#"the API answered 500 `unknown_error`: {"error":"down"}"#);
    let error = check(whole("200 OK", "", "<html>welcome</html>")).await.unwrap_err();
    assert!(matches!(error, ModelError::Malformed { .. }), "{error:?}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(vec![whole_stream()]).await;
    let location = format!("location: {}/v1/messages\r\n", elsewhere.url());
    for status in ["301 Moved Permanently", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let (text, again) = refused(status, &location, "").await;
        assert!(text.contains(&elsewhere.url()) && text.contains("redirected"), "{text}");
        assert_eq!(again, Again::Never);
    }
    assert_eq!(elsewhere.seen.lock().unwrap().connections, 0);
}

#[tokio::test]
async fn a_closed_port_is_no_connection() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = ask(options(&format!("http://{free}"))).await.unwrap_err();
    assert!(matches!(error, ModelError::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert_eq!(error.again(), Again::Backoff);
}

#[tokio::test]
async fn silence_ends_in_a_time_out() {
    let limit = Duration::from_millis(60);
    let event = chunk(b": hello\n\n");
    for answer in [vec![Step::Hang], stream([Step::Write(event), Step::Hang])] {
        let server = Server::start(vec![answer]).await;
        let error = ask(HttpOptions { idle_timeout: limit, ..options(&server.url()) }).await.unwrap_err();
        assert_eq!(error, ModelError::TimedOut { limit });
        assert_eq!(error.again(), Again::Backoff);
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_by_size() {
    let server = Server::start(vec![whole_stream()]).await;
    let model = HttpModel::new(options(&server.url())).unwrap();
    let large = Request::new("claude", 1, vec![Message::user_text(&"x".repeat(33 << 20))]);
    let error = model.respond(&large, &mut |_| {}).await.unwrap_err();
    assert_eq!(error.to_string(), "the request takes more than 33554432 bytes");
    assert_eq!(server.seen.lock().unwrap().connections, 0);

    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 70000000\r\n\r\n".to_vec();
    let error = check(vec![Step::Write(head), Step::Hang]).await.unwrap_err();
    assert_eq!(error.to_string(), "the response takes more than 67108864 bytes");
    let comment = chunk([b":".as_slice(), &vec![b'x'; 1 << 20], b"\n"].concat().as_slice());
    let endless = stream(vec![Step::Write(comment); 65]);
    let error = check(endless).await.unwrap_err();
    assert_eq!(error.to_string(), "the response takes more than 67108864 bytes");
    assert_eq!(error.again(), Again::Never);
}

#[tokio::test]
async fn dropping_the_future_closes_the_connection() {
    let mut server =
        Server::start(vec![stream([Step::Write(chunk(STREAM.as_bytes().split_at(600).0)), Step::Hang])]).await;
    let model = HttpModel::new(options(&server.url())).unwrap();
    let told = Arc::new(Notify::new());
    let tell = Arc::clone(&told);
    let task = tokio::spawn(async move { model.respond(&request(), &mut |_| tell.notify_one()).await });
    told.notified().await;
    task.abort();
    server.gone.recv().await.unwrap();
}

#[test]
fn no_debug_text_holds_a_secret() {
    let mut options = options("https://example.com");
    options.headers.push(("authorization".to_owned(), KEY.into()));
    let shown = format!("{options:?}");
    assert!(shown.contains("authorization") && !shown.contains(KEY), "{shown}");
    options.base_url = "https://user:pass@example.com/?token=pass".to_owned();
    assert!(!format!("{options:?}").contains("pass"));
    options.base_url = "http://127.0.0.1:1".to_owned();
    assert!(!format!("{:?}", HttpModel::new(options).unwrap()).contains(KEY));
}

#[test]
fn options_that_cannot_work_are_refused_at_once() {
    for (base_url, want) in [
        ("api.anthropic.com", "base URL `api.anthropic.com` is no address: relative URL without a base"),
        ("", "base URL `` is no address: relative URL without a base"),
        ("ftp://x", "base URL `ftp://x` must begin with `http://` or `https://`"),
        ("localhost:8080", "base URL `localhost:8080` must begin with `http://` or `https://`"),
        ("http://u:p@x", "base URL `http://[hidden]@x` must not hold a user or a password: use a header"),
        ("http://x/?a=secret", "base URL `http://x/` must end with its path: no `?` and no `#`"),
    ] {
        let error = HttpModel::new(options(base_url)).unwrap_err();
        assert_eq!(error.to_string(), want);
    }
    let bad_key = HttpOptions { api_key: Some("a\nb".into()), ..options("http://127.0.0.1") };
    let error = HttpModel::new(bad_key).unwrap_err();
    assert!(matches!(&error, OptionsError::Header { name } if name == "x-api-key"));
    assert!(!format!("{error:?} {error}").contains("a\nb"));
}

#[tokio::test]
async fn no_process_wide_setting_is_touched() {
    let server = Server::start(vec![whole_stream()]).await;
    ask(options(&server.url())).await.unwrap();
    // A machine may have no certificates.
    assert!(matches!(HttpModel::new(HttpOptions::default()), Ok(_) | Err(OptionsError::Tls(_))));
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
}
