//! A file that is somewhere else: a document that describes tools, the keys of an issuer of tokens.
//!
//! From an address. To whoever acts by what it says, so it comes encrypted or from this machine.
//!
//! No credential is sent. What comes is not looked at.

use std::time::Duration;

use url::Url;

use super::client::{HttpClient, HttpClientError, cause, is_loopback};

/// The most that one download may take.
#[derive(Clone, Copy, Debug)]
pub struct DownloadBounds {
    /// All of it must be there by then.
    pub time: Duration,
    /// The most bytes.
    pub bytes: u64,
}

/// So many redirects are followed; documents of releases are often behind two.
const REDIRECTS_MAX: usize = 5;

/// Why a file was not downloaded.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The address is none.
    #[error("`{0}` is no address such as \"https://example.com/openapi.json\"")]
    Address(String),
    /// Whoever stands in between could put in what they like.
    #[error(
        "`{0}` is not encrypted: whoever stands in between could change what it says, so it must come by https (or from this machine)"
    )]
    Plain(String),
    /// There can be no client.
    #[error(transparent)]
    Client(#[from] HttpClientError),
    /// The request failed, or the answer broke off.
    #[error("`{url}` cannot be had: {detail}")]
    Transport {
        /// Where from.
        url: String,
        /// What happened.
        detail: String,
    },
    /// Another answer than the file.
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
    /// More than it may be.
    #[error("`{url}` is longer than {bytes} bytes, the most that it may have")]
    TooLarge {
        /// Where from.
        url: String,
        /// The bound.
        bytes: u64,
    },
}

/// Whether a file may be downloaded from this address; nothing is sent.
///
/// # Errors
/// [`DownloadError::Address`], [`DownloadError::Plain`].
pub fn check_address(address: &str) -> Result<(), DownloadError> {
    parse(address).map(drop)
}

/// Downloads a file. Follows redirects, never to what is not encrypted.
///
/// # Errors
/// [`DownloadError`] names the address and what came of it.
///
/// # Cancellation
/// Dropping the future ends the request.
pub async fn download(client: &HttpClient, address: &str, bounds: DownloadBounds) -> Result<Vec<u8>, DownloadError> {
    let url = parse(address)?;
    let late = |_| DownloadError::Transport {
        url: address.to_owned(),
        detail: format!("not within {} s", bounds.time.as_secs()),
    };
    tokio::time::timeout(bounds.time, fetch(client, url, bounds)).await.map_err(late)?
}

fn parse(address: &str) -> Result<Url, DownloadError> {
    let url = Url::parse(address).map_err(|_| DownloadError::Address(address.to_owned()))?;
    check(&url)?;
    Ok(url)
}

async fn fetch(client: &HttpClient, mut url: Url, bounds: DownloadBounds) -> Result<Vec<u8>, DownloadError> {
    for _ in 0..=REDIRECTS_MAX {
        check(&url)?;
        let lost = |error: reqwest::Error| DownloadError::Transport { url: url.to_string(), detail: cause(error) };
        let mut answer = client.to(&url, true, bounds.time)?.get(url.clone()).send().await.map_err(lost)?;
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
            if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bounds.bytes {
                return Err(DownloadError::TooLarge { url: url.to_string(), bytes: bounds.bytes });
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
