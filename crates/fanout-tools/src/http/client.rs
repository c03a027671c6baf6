//! The connections of all HTTP tools.
//!
//! From whoever builds the tools: one client, which every tool clones.
//! To `tool`, which sends through it.
//!
//! It follows no redirect and repeats no request: both are decisions, and they are made elsewhere, once.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls_platform_verifier::BuilderVerifierExt;
use url::{Host, Url};

/// A connection that is not there by then will hardly come. It is shorter than any useful time-out, so that a host that
/// swallows packets is known to have been sent nothing.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Many servers close an idle connection after a minute; a request on one that is just closing would be lost.
const IDLE_MAX: Duration = Duration::from_secs(50);

/// Shared connections; cloning it shares them. Nothing is opened before the first request.
#[derive(Clone, Debug)]
pub struct HttpClient {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    proxies: bool,
    /// By [`Way::index`].
    clients: [OnceLock<reqwest::Client>; 4],
}

/// What kind of connection a host asks for.
#[derive(Clone, Copy)]
struct Way {
    tls: bool,
    proxies: bool,
}

impl Way {
    fn index(self) -> usize {
        usize::from(self.tls) + 2 * usize::from(self.proxies)
    }
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
        Self { shared: Arc::new(Shared { proxies, clients: Default::default() }) }
    }

    /// The client for a host. Certificates are read when the first `https` tool asks, because that takes longer than a
    /// whole call on loopback.
    pub(super) fn to(&self, origin: &Url) -> Result<reqwest::Client, HttpClientError> {
        let way = Way { tls: origin.scheme() != "http", proxies: self.shared.proxies && !is_loopback(origin) };
        let place = &self.shared.clients[way.index()];
        if let Some(client) = place.get() {
            return Ok(client.clone());
        }
        let client = build(way)?;
        Ok(place.get_or_init(|| client).clone())
    }
}

fn is_loopback(origin: &Url) -> bool {
    match origin.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn build(way: Way) -> Result<reqwest::Client, HttpClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(HttpClientError::Certificates)?;
    let mut tls = if way.tls {
        tls.with_platform_verifier().map_err(HttpClientError::Certificates)?.with_no_client_auth()
    } else {
        tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_MAX)
        .pool_idle_timeout(IDLE_MAX);
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
