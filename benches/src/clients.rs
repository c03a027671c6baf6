//! The HTTP clients of both sides, made in one place so that they differ in nothing.
//!
//! To [`ours`](crate::ours), [`raw`](crate::raw) and the bare proxy. Only loopback is ever spoken to: no proxy, no certificates.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, ClientBuilder};
use serde_json::{Value, json};

/// The client of the tools, reqwest's defaults: the same code runs on both sides.
///
/// # Errors
/// When TLS cannot be set up.
pub fn tools() -> anyhow::Result<Client> {
    Ok(plain()?.build()?)
}

/// The client of a hand-written loop: every setting that `HttpModel` makes for itself, made here too.
///
/// # Errors
/// When TLS cannot be set up.
pub fn model() -> anyhow::Result<Client> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
    Ok(patient()?.default_headers(headers).build()?)
}

/// The client of a hand-written proxy: the same without headers of its own.
///
/// # Errors
/// When TLS cannot be set up.
pub fn proxy() -> anyhow::Result<Client> {
    Ok(patient()?.build()?)
}

/// Every setting that the gateway and `HttpModel` make for their connections to the model.
fn patient() -> anyhow::Result<ClientBuilder> {
    let builder = plain()?
        .user_agent("hand-written")
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(600))
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true)
        .pool_max_idle_per_host(usize::MAX);
    Ok(builder)
}

/// The settings of [`tools`], and of [`model`] and [`proxy`], for the result files.
pub fn settings() -> Value {
    json!({
        "tools": "reqwest defaults, no proxy",
        "model": "connect timeout 10 s, read timeout 600 s, no redirects, nodelay, idle connections unbounded, no proxy",
    })
}

fn plain() -> anyhow::Result<ClientBuilder> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(Client::builder().tls_backend_preconfigured(tls).no_proxy())
}
