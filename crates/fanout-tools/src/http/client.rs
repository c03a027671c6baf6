//! The connections of all HTTP tools.
//!
//! From whoever builds the tools: one client, which every tool clones.
//! To `tool`, which sends through it.
//!
//! What is not repeatable has connections of its own, which are never idle for long: see [`IDLE_MAX_ONCE`].
//!
//! It follows no redirect and repeats no request: both are decisions, and they are made elsewhere, once.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustls_platform_verifier::BuilderVerifierExt;
use url::{Host, Url};

/// A connection that is not there by then will hardly come. Nor is it awaited for more than half of a tool's time-out, so
/// that a host that swallows packets is known to have been sent nothing.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Many servers close an idle connection after a minute; a request on one that is just closing is lost, and sent again.
const IDLE_MAX: Duration = Duration::from_secs(50);

/// The same for requests that may not be sent again: a lost one would be of unknown outcome. A server may close an idle
/// connection at any time without asking (RFC 9112, 9.5), and by default some do so after 2 s (gunicorn's `keepalive`)
/// or 5 s (Node's `keepAliveTimeout`, Apache's `KeepAliveTimeout`). Half of the shortest leaves room for the way there;
/// a row of writes in one turn still shares its handshake.
const IDLE_MAX_ONCE: Duration = Duration::from_secs(1);

/// Shared connections; cloning it shares them. Nothing is opened before the first request.
#[derive(Clone, Debug)]
pub struct HttpClient {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    proxies: bool,
    clients: Mutex<HashMap<Way, reqwest::Client>>,
    /// Without and with certificates; shared, so that a fresh connection resumes a session of another one.
    tls: [OnceLock<rustls::ClientConfig>; 2],
}

/// What kind of connection a host and a tool ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Way {
    tls: bool,
    proxies: bool,
    /// Its requests may be sent again.
    repeatable: bool,
    /// So long a connection is awaited.
    connect: Duration,
}

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum HttpClientError {
    /// The certificates of this system cannot be read.
    #[error("the certificates of this system cannot be read")]
    Certificates(#[source] rustls::Error),
    /// The proxies of the environment cannot be used.
    #[error("no HTTP client could be made")]
    Client(#[source] reqwest::Error),
}

impl HttpClient {
    /// A client that goes through the proxies that the environment names (`HTTPS_PROXY`, `NO_PROXY` and their kin), except
    /// to this machine's loopback.
    pub fn new() -> Self {
        Self::with_proxies(true)
    }

    /// A client that goes straight to every host.
    pub fn direct() -> Self {
        Self::with_proxies(false)
    }

    fn with_proxies(proxies: bool) -> Self {
        Self { shared: Arc::new(Shared { proxies, clients: Default::default(), tls: Default::default() }) }
    }

    /// The client for a host, and for a tool with this time-out that is `repeatable` or not. Certificates are read when the
    /// first `https` tool asks, because that takes longer than a whole call on loopback.
    pub(crate) fn to(
        &self,
        origin: &Url,
        repeatable: bool,
        timeout: Duration,
    ) -> Result<reqwest::Client, HttpClientError> {
        let proxies = self.shared.proxies && !is_loopback(origin);
        let connect = CONNECT_MAX.min(timeout / 2);
        let way = Way { tls: origin.scheme() != "http", proxies, repeatable, connect };
        let mut clients = self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&way) {
            return Ok(client.clone());
        }
        let client = build(way, self.tls(way.tls)?)?;
        clients.insert(way, client.clone());
        Ok(client)
    }

    fn tls(&self, certificates: bool) -> Result<rustls::ClientConfig, HttpClientError> {
        let place = &self.shared.tls[usize::from(certificates)];
        if let Some(tls) = place.get() {
            return Ok(tls.clone());
        }
        let tls = tls_config(certificates)?;
        Ok(place.get_or_init(|| tls).clone())
    }
}

/// Whether a host is this machine, as its name says.
/// The innermost cause: the outer ones only say that a request failed. It holds no address.
pub(crate) fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut innermost: &dyn Error = &error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

pub(crate) fn is_loopback(origin: &Url) -> bool {
    match origin.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn tls_config(certificates: bool) -> Result<rustls::ClientConfig, HttpClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(HttpClientError::Certificates)?;
    let mut tls = if certificates {
        tls.with_platform_verifier().map_err(HttpClientError::Certificates)?.with_no_client_auth()
    } else {
        tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

fn build(way: Way, tls: rustls::ClientConfig) -> Result<reqwest::Client, HttpClientError> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(way.connect)
        .pool_idle_timeout(if way.repeatable { IDLE_MAX } else { IDLE_MAX_ONCE });
    if !way.proxies {
        builder = builder.no_proxy();
    }
    builder.build().map_err(HttpClientError::Client)
}

impl Default for HttpClient {
    fn default() -> Self {
        Self::new()
    }
}
