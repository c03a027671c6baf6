//! What a client is made from, and what can be wrong with it.
//!
//! From configuration or the environment, read by someone else. To [`HttpModel`](super::HttpModel): a client and an address.
//!
//! No mistake is left for the first request to find, and no error text holds a secret.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, ClientBuilder, Url, redirect};
use rustls::crypto::CryptoProvider;
use secrecy::{ExposeSecret, SecretString};

/// How long a connection may take by default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long no byte may arrive by default. A model that thinks before its first token can be silent for minutes; the official
/// clients wait 10.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// Where messages are posted, behind the base URL.
const MESSAGES_PATH: &str = "/v1/messages";

/// Where the model is and how to speak to it.
#[derive(Clone)]
pub struct HttpOptions {
    /// `http` or `https`, a path prefix allowed; `/v1/messages` is added. A server on this machine's loopback is never spoken
    /// to through a proxy; for any other the system's proxy settings hold.
    pub base_url: String,
    /// Sent as `x-api-key`; without it no such header is sent.
    pub api_key: Option<SecretString>,
    /// Sent as `anthropic-version`.
    pub version: String,
    /// Sent as `anthropic-beta`, comma-separated; none, no header.
    pub beta: Vec<String>,
    /// Sent with every request; of the headers above, these win.
    pub headers: Vec<(String, SecretString)>,
    /// How long no byte may arrive, before the first and between any two.
    pub idle_timeout: Duration,
    /// How long a new connection may take, name look-up and TLS included.
    pub connect_timeout: Duration,
}

impl Default for HttpOptions {
    /// Anthropic's own address, without a key.
    fn default() -> Self {
        Self {
            base_url: "https://api.anthropic.com".to_owned(),
            api_key: None,
            version: "2023-06-01".to_owned(),
            beta: Vec::new(),
            headers: Vec::new(),
            idle_timeout: IDLE_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
        }
    }
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The address is none. Its user and password, if any, are not repeated.
    #[error("base URL `{url}` {detail}")]
    BaseUrl {
        /// The address, or what may be shown of it.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A header that HTTP does not allow. Its value is not repeated.
    #[error("header `{name}` has a name or a value that HTTP does not allow")]
    Header {
        /// The header's name.
        name: String,
    },
    /// No TLS: this machine's certificates could not be read, most often.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The client could not be made.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
}

impl HttpOptions {
    /// The connections alone, for a gateway that passes its clients' own headers on: none of the headers here is sent, nor a
    /// key. Also the base URL, without a slash at its end.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn connections(&self) -> Result<(Client, String), OptionsError> {
        let (builder, url) = self.builder()?;
        let base = url.as_str().strip_suffix(MESSAGES_PATH).unwrap_or(url.as_str()).to_owned();
        Ok((builder.build().map_err(OptionsError::Client)?, base))
    }

    /// The client and the address to post to.
    pub(super) fn build(self) -> Result<(Client, Url), OptionsError> {
        let (builder, url) = self.builder()?;
        Ok((builder.default_headers(self.header_map()?).build().map_err(OptionsError::Client)?, url))
    }

    fn builder(&self) -> Result<(ClientBuilder, Url), OptionsError> {
        let url = address(&self.base_url)?;
        let local = is_local(&url);
        let mut builder = Client::builder()
            .user_agent(concat!("fanout/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout)
            .read_timeout(self.idle_timeout)
            // A redirect would carry the key to whatever host it names.
            .redirect(redirect::Policy::none())
            .tcp_nodelay(true)
            // Hundreds of runs share one client and pause between turns: as many connections as runs are worth keeping.
            .pool_max_idle_per_host(usize::MAX)
            .tls_backend_preconfigured(tls(local && url.scheme() == "http").map_err(OptionsError::Tls)?);
        if local {
            builder = builder.no_proxy();
        }
        Ok((builder, url))
    }

    fn header_map(&self) -> Result<HeaderMap, OptionsError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut put = |name: &str, value: &str, is_secret: bool| {
            let refused = |_| OptionsError::Header { name: name.to_owned() };
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused(()))?;
            let mut value = HeaderValue::from_str(value).map_err(|_| refused(()))?;
            value.set_sensitive(is_secret);
            headers.insert(key, value);
            Ok(())
        };
        put("anthropic-version", &self.version, false)?;
        if !self.beta.is_empty() {
            put("anthropic-beta", &self.beta.join(","), false)?;
        }
        if let Some(key) = &self.api_key {
            put("x-api-key", key.expose_secret(), true)?;
        }
        for (name, value) in &self.headers {
            put(name, value.expose_secret(), true)?;
        }
        Ok(headers)
    }
}

impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("HttpOptions")
            .field("base_url", &shown(&self.base_url))
            .field("api_key", &self.api_key.as_ref().map(|_| "[hidden]"))
            .field("version", &self.version)
            .field("beta", &self.beta)
            .field("headers", &names)
            .field("idle_timeout", &self.idle_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .finish()
    }
}

/// The address to post to.
fn address(base_url: &str) -> Result<Url, OptionsError> {
    let refused = |detail: &str| OptionsError::BaseUrl { url: shown(base_url), detail: detail.to_owned() };
    let mut url = Url::parse(base_url.trim()).map_err(|error| refused(&format!("is no address: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused("must begin with `http://` or `https://`"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("must not hold a user or a password: use a header"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refused("must end with its path: no `?` and no `#`"));
    }
    let path = format!("{}{MESSAGES_PATH}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

/// An address without what may be a secret in it.
fn shown(base_url: &str) -> String {
    let path_end = base_url.find(['?', '#']).unwrap_or(base_url.len());
    let url = &base_url[..path_end];
    match url.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.find("://").map_or("", |at| &before[..at + 3]);
            format!("{scheme}[hidden]@{host}")
        }
        None => url.to_owned(),
    }
}

fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host == "localhost"
        || host.trim_start_matches('[').trim_end_matches(']').parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// TLS by the process's own provider, or else by ring; which certificates hold is the platform's to say.
///
/// A server on loopback that is spoken to plainly, as in tests and demos, asks for no certificates: a machine may have none,
/// and reading them takes longer than starting such a program.
fn tls(is_plain: bool) -> Result<rustls::ClientConfig, rustls::Error> {
    let provider =
        CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let mut config = match is_plain {
        true => builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth(),
        false => {
            let verifier = rustls_platform_verifier::Verifier::new(provider)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
