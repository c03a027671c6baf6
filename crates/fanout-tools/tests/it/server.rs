//! A server on loopback that writes down what it saw and answers as its path says.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// A running server; it ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) base: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Where `/away` points to.
    elsewhere: Arc<str>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_beside("http://127.0.0.1:9/elsewhere?token=secret").await
    }

    /// Starts a server whose `/away` redirects to `elsewhere`.
    pub(crate) async fn start_beside(elsewhere: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { base, seen: Arc::default(), elsewhere: elsewhere.into() };
        let app = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        server
    }

    /// Every request so far, in order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn answer(State(server): State<Server>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let seen = Seen { method, target: uri.to_string(), headers, body: String::from_utf8(body.to_vec()).unwrap() };
    server.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    let typed = |media: &'static str, body: Vec<u8>| ([(header::CONTENT_TYPE, media)], body).into_response();
    let to = |location: &str| (StatusCode::FOUND, [(header::LOCATION, location.to_owned())]).into_response();
    match uri.path() {
        "/json" => typed("application/json; charset=utf-8", br#"{ "b": 1.0, "a": [1] }"#.to_vec()),
        "/problem" => typed("application/vnd.api+json", br#"{"ok":true}"#.to_vec()),
        "/broken-json" => typed("application/json", b"{".to_vec()),
        "/text" => typed("text/plain", b"hello".to_vec()),
        "/latin" => typed("text/plain; charset=iso-8859-1", b"caf\xe9".to_vec()),
        "/latin-json" => typed("application/json", b"caf\xe9".to_vec()),
        "/wide" => typed("text/plain; charset=\"UTF-16LE\"", b"h\0i\0".to_vec()),
        "/wide-unnamed" => typed("text/csv", b"\xFF\xFEh\0i\0".to_vec()),
        "/marked" => typed("application/json", b"\xEF\xBB\xBF[1]".to_vec()),
        "/page" => {
            let page = "<!doctype html><title>410 Gone</title><p>It was here.";
            (StatusCode::GONE, [(header::CONTENT_TYPE, "text/html")], page).into_response()
        }
        "/zipped-error" => (StatusCode::BAD_REQUEST, [(header::CONTENT_ENCODING, "br")], vec![1, 2]).into_response(),
        "/binary-error" => {
            (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, "image/png")], vec![0, 0xFF]).into_response()
        }
        "/large-png" => typed("image/png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x1f\x41\0\0\0\x01".to_vec()),
        "/mislabelled" => typed("text/plain", b"\x7fE\0\xff".to_vec()),
        "/jpg-named-png" => typed("image/png", vec![0xFF, 0xD8, 0xFF, 0xE0]),
        "/page-named-png" => typed("image/png", b"<html>".to_vec()),
        "/huge-png" => typed("image/png", [b"\x89PNG".to_vec(), vec![0; 3_750_001 - 4]].concat()),
        "/png" => typed("image/png", vec![0x89, b'P', b'N', b'G']),
        "/pdf" => typed("application/pdf", vec![0; 1_234]),
        "/untyped" => Response::new(Body::from("plain")),
        "/zipped" => {
            ([(header::CONTENT_ENCODING, "gzip"), (header::CONTENT_TYPE, "text/plain")], vec![1, 2]).into_response()
        }
        "/empty" => StatusCode::NO_CONTENT.into_response(),
        "/big" => typed("text/plain", vec![b'x'; 16 * 1024 * 1024 + 1]),
        "/largest" => typed("text/plain", vec![b'x'; 16 * 1024 * 1024]),
        "/busy" => (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "7")], "slow down").into_response(),
        "/github" => {
            let budget = [
                ("date", "Thu, 17 Aug 2023 09:06:40 GMT"),
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "1692263260"),
            ];
            (StatusCode::FORBIDDEN, budget, "API rate limit exceeded").into_response()
        }
        "/overloaded" => (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "9")]).into_response(),
        "/there" => to("/json"),
        "/round" => to("/round"),
        "/hops/0" => StatusCode::OK.into_response(),
        path if path.starts_with("/hops/") => {
            let left: u32 = path.trim_start_matches("/hops/").parse().unwrap();
            to(&format!("/hops/{}", left - 1))
        }
        "/away" => to(&server.elsewhere),
        "/nowhere" => StatusCode::MOVED_PERMANENTLY.into_response(),
        path => match path.strip_prefix("/status/").and_then(|code| code.parse().ok()) {
            Some(code) => {
                let body = r#"{"error":{"message":"as asked"}}"#;
                (StatusCode::from_u16(code).unwrap(), [(header::CONTENT_TYPE, "application/json")], body)
                    .into_response()
            }
            None => StatusCode::OK.into_response(),
        },
    }
}

/// A listener that reads one request, writes these bytes and hangs up.
pub(crate) async fn raw(answer: &'static [u8]) -> String {
    pieces(vec![answer]).await
}

/// The same in pieces, each a packet of its own as far as that can be asked for.
pub(crate) async fn pieces(answer: Vec<&'static [u8]>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut request = vec![0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        for piece in answer {
            stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        stream.shutdown().await.unwrap();
    });
    base
}

/// A listener that reads one request and never answers; it tells when the request came and when the connection ended.
pub(crate) async fn hanging() -> (String, tokio::sync::mpsc::Receiver<&'static str>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = tokio::sync::mpsc::channel(2);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        tell.send("the request came").await.unwrap();
        while matches!(stream.read(&mut request).await, Ok(length) if length > 0) {}
        tell.send("the connection ended").await.unwrap();
    });
    (base, told)
}

/// An address that nobody listens on: it was free a moment ago.
pub(crate) async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
