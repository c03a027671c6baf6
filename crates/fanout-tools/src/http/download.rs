//! A document that is somewhere else: downloaded once, to be a file from then on.
//!
//! From an address. To a file beside the configuration, which [`Document::load`](super::Document::load) reads.
//!
//! No credential is sent. What comes is not looked at: whether it is a document shows when it is read.

use std::time::Duration;

use url::Url;

use super::document::FILE_MAX;
use crate::http::HttpClient;
use crate::http::client::{cause, is_loopback};

/// All of it must be there by then.
const TIME_MAX: Duration = Duration::from_secs(60);

/// So many redirects are followed; documents of releases are often behind two.
const REDIRECTS_MAX: usize = 5;

/// Why a document was not downloaded.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The address is none.
    #[error("`{0}` is no address such as \"https://example.com/openapi.json\"")]
    Address(String),
    /// Whoever stands in between could put in operations of their own.
    #[error(
        "`{0}` is not encrypted: a document decides what is sent where, so it must come by https (or from this machine)"
    )]
    Plain(String),
    /// There can be no client.
    #[error(transparent)]
    Client(#[from] crate::http::HttpClientError),
    /// The request failed, or the answer broke off.
    #[error("`{url}` cannot be had: {detail}")]
    Transport {
        /// Where from.
        url: String,
        /// What happened.
        detail: String,
    },
    /// Another answer than the document.
    #[error("`{url}` answered {status}")]
    Status {
        /// Where from.
        url: String,
        /// The status.
        status: u16,
    },
    /// A redirect that leads nowhere or on and on.
    #[error("`{0}` leads on and on, or nowhere")]
    Redirects(String),
    /// More than any document.
    #[error("`{0}` is longer than {FILE_MAX} bytes, the most that a document may have")]
    TooLarge(String),
}

/// Downloads a document, within a minute and 64 MiB. Follows redirects, never to what is not encrypted.
///
/// # Errors
/// [`DownloadError`] names the address and what came of it.
pub async fn download(client: &HttpClient, address: &str) -> Result<Vec<u8>, DownloadError> {
    let url = Url::parse(address).map_err(|_| DownloadError::Address(address.to_owned()))?;
    let late = |_| DownloadError::Transport {
        url: address.to_owned(),
        detail: format!("not within {} s", TIME_MAX.as_secs()),
    };
    tokio::time::timeout(TIME_MAX, fetch(client, url)).await.map_err(late)?
}

async fn fetch(client: &HttpClient, mut url: Url) -> Result<Vec<u8>, DownloadError> {
    for _ in 0..=REDIRECTS_MAX {
        check(&url)?;
        let lost = |error: reqwest::Error| DownloadError::Transport { url: url.to_string(), detail: cause(error) };
        let mut answer = client.to(&url, true, TIME_MAX)?.get(url.clone()).send().await.map_err(lost)?;
        if answer.status().is_redirection() {
            let location = answer.headers().get("location").and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            url = next.ok_or_else(|| DownloadError::Redirects(url.to_string()))?;
            continue;
        }
        if !answer.status().is_success() {
            return Err(DownloadError::Status { url: url.to_string(), status: answer.status().as_u16() });
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(lost)? {
            bytes.extend_from_slice(&chunk);
            if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_MAX {
                return Err(DownloadError::TooLarge(url.to_string()));
            }
        }
        return Ok(bytes);
    }
    Err(DownloadError::Redirects(url.to_string()))
}

fn check(url: &Url) -> Result<(), DownloadError> {
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(url) => Ok(()),
        "http" => Err(DownloadError::Plain(url.to_string())),
        _ => Err(DownloadError::Address(url.to_string())),
    }
}
