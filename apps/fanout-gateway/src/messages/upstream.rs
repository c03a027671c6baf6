//! The Messages API behind the gateway: its address, its key, and which headers cross.
//!
//! From a client's request: its headers. To the upstream: those that are the client's to say, the upstream's key, and the
//! gateways passed. From its answers: the headers that are not about the connection.
//!
//! Our own key and every `fanout-*` header stay here.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use fanout_anthropic::{HttpOptions, OptionsError};
use http::Method;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName,
    HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use reqwest::{RequestBuilder, Url};
use secrecy::{ExposeSecret, SecretString};

use crate::hop::{HOP, Hops};
use crate::keys::X_API_KEY;

/// Where a client names the upstream's key.
static UPSTREAM_KEY: HeaderName = HeaderName::from_static("fanout-upstream-key");

/// Nearly every request goes there, so its address is read once.
const MESSAGES: &str = "/v1/messages";

/// Where the gateway sends what it passes on.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    client: reqwest::Client,
    base: String,
    messages: Option<Url>,
    key: Option<SecretString>,
    host: Arc<str>,
    /// Tells clients' own keys apart without holding them; different in every process.
    accounts: RandomState,
    pub(crate) idle_timeout: Duration,
}

/// Clients' own keys are told apart into so many accounts. Two that share one by chance also share its rate limits, which is
/// slower for them and wrong for nobody.
const ACCOUNTS: u64 = 1024;

/// What a request is sent on for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// As it is, once.
    Pass,
    /// As one of several that a run makes, whose answers are read here.
    Ask,
}

impl Upstream {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// [`OptionsError`] for an address that is none, or when TLS cannot be set up.
    pub(crate) fn new(base_url: &str, key: Option<SecretString>) -> Result<Self, OptionsError> {
        let options = HttpOptions { base_url: base_url.to_owned(), ..HttpOptions::default() };
        let (client, base) = options.connections()?;
        let messages = Url::parse(&format!("{base}{MESSAGES}")).ok();
        let host = messages.as_ref().and_then(Url::host_str).map_or_else(|| Arc::from("model"), Arc::from);
        let accounts = RandomState::new();
        Ok(Self { client, base, messages, key, host, accounts, idle_timeout: options.idle_timeout })
    }

    /// Whose rate limits a request with these headers counts against: the host's, for the gateway's own key; else those of one
    /// of [`ACCOUNTS`] at that host.
    pub(crate) fn api(&self, headers: &HeaderMap) -> String {
        let key = headers.get(&X_API_KEY).or_else(|| headers.get(AUTHORIZATION)).map(HeaderValue::as_bytes);
        let own = self.key.as_ref().map(|key| key.expose_secret().as_bytes());
        match key {
            Some(key) if own != Some(key) => format!("{}/{}", self.host, self.accounts.hash_one(key) % ACCOUNTS),
            _ => self.host.to_string(),
        }
    }

    /// A request for a path and its query.
    pub(crate) fn request(&self, method: Method, path_and_query: &str) -> RequestBuilder {
        match &self.messages {
            Some(messages) if path_and_query == MESSAGES => self.client.request(method, messages.clone()),
            _ => self.client.request(method, format!("{}{path_and_query}", self.base)),
        }
    }

    /// The client's headers as they go on.
    pub(crate) fn headers(&self, from: &HeaderMap, hops: Option<&Hops>, purpose: Purpose) -> HeaderMap {
        let mut headers = crossing(from, |name| {
            let is_request = *name == HOST || *name == EXPECT || *name == CONTENT_LENGTH;
            let is_ours = name.as_str().starts_with("fanout-");
            // A run asks several times, and reads the answers: neither a repeated key nor compression may cross.
            let is_once = *name == ACCEPT_ENCODING || name.as_str() == "idempotency-key";
            is_request || is_ours || (is_once && purpose == Purpose::Ask)
        });
        let own = from.get(&UPSTREAM_KEY).cloned();
        let key = own.or_else(|| HeaderValue::from_str(self.key.as_ref()?.expose_secret()).ok());
        if let Some(mut key) = key {
            headers.remove(AUTHORIZATION);
            key.set_sensitive(true);
            headers.insert(X_API_KEY.clone(), key);
        }
        if let Some(Hops(hops)) = hops {
            headers.insert(HOP.clone(), hops.clone());
        }
        headers
    }
}

/// The headers of an upstream's answer as they go on to the client. `is_anew` where its body is written anew here.
pub(crate) fn answered(from: &HeaderMap, is_anew: bool) -> HeaderMap {
    crossing(from, |name| is_anew && (*name == CONTENT_LENGTH || *name == CONTENT_ENCODING))
}

/// All headers that are not about one connection, nor dropped.
fn crossing(from: &HeaderMap, is_dropped: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let named: Vec<String> = from
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let is_of_connection = |name: &HeaderName| {
        [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name)
            || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "proxy-authorization" | "proxy-authenticate")
            || named.iter().any(|named| named == name.as_str())
    };
    let kept = from.iter().filter(|(name, _)| !is_of_connection(name) && !is_dropped(name));
    let mut headers = HeaderMap::with_capacity(from.len() + 2);
    kept.for_each(|(name, value)| {
        headers.append(name, value.clone());
    });
    headers
}
