//! The door: what every request passes on its way in, and every answer on its way out.
//!
//! On the way in: the name that the gateway is called by, the page that it comes from, the gateways that it has passed, whose
//! key it carries, and what kind of body. To the routes, in the request's extensions: [`RequestId`], [`Caller`] and
//! [`Hops`](crate::hop::Hops). On the way out: `request-id` on everything, and the body of every error.
//!
//! A page in somebody's browser can send requests to any address that the browser reaches, this machine's loopback included.
//! It cannot choose `host` and `origin`, and it cannot send JSON elsewhere without asking first: hence the three checks.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};

use crate::body::{BODY_MAX, too_large};
use crate::error::ApiError;
use crate::gateway::Shared;
use crate::hop::HOP;
use crate::keys::Caller;

/// The id of one request, as `request-id` says it. Stands in the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

/// Gives out request ids: 128 bits each, hashed with random keys of this process from a count.
#[derive(Debug, Default)]
pub(crate) struct RequestIds {
    keys: [RandomState; 2],
    count: AtomicU64,
}

impl RequestIds {
    /// An id that no other request has.
    fn next(&self) -> RequestId {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let [high, low] = self.keys.each_ref().map(|keys| keys.hash_one(count));
        let mut id = [b'_'; 36];
        id[..4].copy_from_slice(b"req_");
        let bits = (u128::from(high) << 64) | u128::from(low);
        for (at, digit) in id[4..].iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(bits >> (124 - 4 * at)) as usize & 15];
        }
        RequestId(String::from_utf8_lossy(&id).into())
    }
}

/// The names by which the gateway may be called.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    address: IpAddr,
    hosts: Vec<String>,
    /// The address as clients on this machine write it, which need not be taken apart.
    usual: String,
}

impl Names {
    pub(crate) fn new(address: SocketAddr, hosts: &[String]) -> Self {
        Self { address: address.ip(), hosts: hosts.to_vec(), usual: address.to_string() }
    }

    /// Whether other machines can reach it, by its address or through what calls it by another name.
    pub(crate) fn is_exposed(&self) -> bool {
        !self.address.is_loopback() || !self.hosts.is_empty()
    }

    /// Whether this is one of its names; the port counts for nothing, since a port may be mapped.
    ///
    /// On an address that stands for all of the machine's, any address is taken: a page that plays tricks with names comes
    /// with a name.
    fn knows(&self, authority: &str) -> bool {
        if authority == self.usual {
            return true;
        }
        let Ok(uri) = format!("http://{authority}/").parse::<Uri>() else { return false };
        let Some(host) = uri.host() else { return false };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback() || ip == self.address || self.address.is_unspecified(),
            Err(_) => {
                let host = host.trim_end_matches('.').to_ascii_lowercase();
                host == "localhost" || self.hosts.contains(&host)
            }
        }
    }

    fn check_host(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), ApiError> {
        let named = headers.get(HOST).and_then(|value| value.to_str().ok());
        match named.or(uri.authority().map(http::uri::Authority::as_str)) {
            Some(host) if self.knows(host) => Ok(()),
            _ => Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "host_refused",
                "the gateway is not called by this name: use the address that it listens on, or add the name to \
                 `hosts` in [server]",
            )),
        }
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        match authority {
            Some(("http" | "https", authority)) if self.knows(authority) => Ok(()),
            _ => Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "origin_refused",
                "a page from elsewhere may not use this gateway: send the request from a server of your own",
            )),
        }
    }
}

/// Lets a request in or not, and finishes its answer.
pub(crate) async fn door(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let (id, began) = (shared.request_ids.next(), Instant::now());
    let (method, uri) = (request.method().clone(), request.uri().clone());
    request.extensions_mut().insert(id.clone());
    let (answer, caller) = match admit(&shared, &uri, &mut request).await {
        Ok(caller) => (next.run(request).await, Some(caller)),
        Err(error) => (error.into_response(), None),
    };
    let answer = finish(answer, &id);
    tracing::info!(
        request_id = %id.0,
        %method,
        path = uri.path(),
        status = answer.status().as_u16(),
        caller = caller.as_ref().map(|caller| display(caller.id.as_str())),
        run = answer.headers().get(RUN_ID).and_then(|run| run.to_str().ok()).map(display),
        ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        "answered"
    );
    answer
}

/// The header that names the run behind an answer.
pub(crate) const RUN_ID: &str = "fanout-run-id";

static REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

async fn admit(shared: &Shared, uri: &Uri, request: &mut Request) -> Result<Caller, ApiError> {
    shared.names.check_host(request.headers(), uri)?;
    shared.names.check_origin(request.headers())?;
    let hops = shared.id.arrive(request.headers().get(&HOP))?;
    let caller = match shared.keyring.enter(request.headers_mut()) {
        Err(_) if is_open(uri.path()) => Caller::nobody(),
        caller => caller?,
    };
    let mut caller = caller.with_token(request.headers_mut())?;
    if let Some(verifier) = &shared.current().verifier {
        caller = match is_open(uri.path()) {
            // What is told to anybody is told to whoever sends whatever token.
            true => Caller { token: None, ..caller },
            false => caller.verified_by(verifier).await?,
        };
    }
    check_body(request)?;
    request.extensions_mut().insert(hops);
    request.extensions_mut().insert(caller.clone());
    Ok(caller)
}

/// What may be asked without a key: nothing that says who calls what.
fn is_open(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/openapi.json")
}

fn check_body(request: &Request) -> Result<(), ApiError> {
    if request.body().is_end_stream() || takes_any_body(request.uri().path()) {
        return Ok(());
    }
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > BODY_MAX) {
        return Err(too_large());
    }
    if !is_json(request.headers()) {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_json",
            "the body must be JSON: send it with `content-type: application/json`",
        ));
    }
    Ok(())
}

/// What is only passed on takes the bodies that its upstream takes: files, say.
fn takes_any_body(path: &str) -> bool {
    path.starts_with("/v1/") && path != "/v1/messages" && path != "/v1/messages/count_tokens"
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// Puts in what only the door knows. An answer that was passed on keeps the id that its upstream gave it.
fn finish(mut answer: Response, id: &RequestId) -> Response {
    if let Some(error) = answer.extensions_mut().remove::<ApiError>() {
        let headers = std::mem::take(answer.headers_mut());
        answer = error.into_answer(&id.0);
        for (name, value) in headers.iter().filter(|(name, _)| *name != CONTENT_TYPE && *name != CONTENT_LENGTH) {
            answer.headers_mut().append(name, value.clone());
        }
    }
    if !answer.headers().contains_key(&REQUEST_ID)
        && let Ok(id) = HeaderValue::from_str(&id.0)
    {
        answer.headers_mut().insert(REQUEST_ID.clone(), id);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, hosts: &[&str], known: &[&str], unknown: &[&str]) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let names = Names::new(SocketAddr::new(address.parse().unwrap(), 1), &hosts);
        for host in known {
            assert!(names.knows(host), "{host} on {address}");
        }
        for host in unknown {
            assert!(!names.knows(host), "{host} on {address}");
        }
    }

    #[test]
    fn a_gateway_answers_to_its_own_names_alone() {
        let loopback =
            ["localhost", "localhost:8787", "LOCALHOST", "localhost.", "127.0.0.1:1", "127.1.2.3", "[::1]:80"];
        let foreign =
            ["evil.example", "localhost.evil.example", "10.0.0.2", "", "a b", "user@", "127.0.0.1.evil.example"];
        check("127.0.0.1", &[], &loopback, &foreign);
        check("::1", &[], &loopback, &foreign);
        check("10.0.0.1", &[], &["10.0.0.1:80", "localhost"], &["10.0.0.2", "evil.example"]);
        check("0.0.0.0", &["a.example"], &["10.0.0.2", "[fe80::1]", "A.example:8"], &["evil.example", "b.a.example"]);
    }

    #[test]
    fn only_loopback_by_its_own_names_is_not_exposed() {
        let exposed = |address: &str, hosts: &[String]| {
            Names::new(SocketAddr::new(address.parse().unwrap(), 1), hosts).is_exposed()
        };
        assert!(!exposed("127.0.0.1", &[]) && !exposed("::1", &[]));
        assert!(exposed("0.0.0.0", &[]) && exposed("10.0.0.1", &[]) && exposed("127.0.0.1", &["a.example".to_owned()]));
    }
}
