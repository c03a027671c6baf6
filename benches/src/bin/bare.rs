//! The other side of `proxy`: the reverse proxy that one writes with axum and reqwest, and nothing more.
//!
//! ```text
//! bare http://127.0.0.1:8080     # prints where it listens, and serves until it is ended
//! ```
//!
//! It sends every request on to the one upstream and streams both bodies through, with connections kept and without the
//! headers that belong to a connection. It looks at nothing, knows nobody, counts nothing and logs nothing.

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use fanout_benches::{clients, mock};
use reqwest::Client;

#[derive(Clone)]
struct Proxy {
    client: Client,
    upstream: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let upstream = std::env::args().nth(1).context("the upstream's address")?;
    let listener = mock::listen().await?;
    println!("http://{}", listener.local_addr()?);
    let proxy = Proxy { client: clients::proxy()?, upstream };
    let app = Router::new().fallback(pass).with_state(proxy);
    let listener = listener.tap_io(|socket| {
        let _ = socket.set_nodelay(true);
    });
    Ok(axum::serve(listener, app).await?)
}

async fn pass(State(proxy): State<Proxy>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let url = format!("{}{target}", proxy.upstream);
    strip(&mut parts.headers);
    parts.headers.remove(HOST);
    // `content-length` goes on with the other headers, so that a body of a known length is not sent in chunks.
    let body = reqwest::Body::wrap_stream(body.into_data_stream());
    match proxy.client.request(parts.method, url).headers(parts.headers).body(body).send().await {
        Ok(answer) => {
            let answer: axum::http::Response<reqwest::Body> = answer.into();
            let (mut parts, body) = answer.into_parts();
            strip(&mut parts.headers);
            Response::from_parts(parts, Body::new(body))
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

fn strip(headers: &mut HeaderMap) {
    for name in [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate"] {
        headers.remove(name);
    }
}
