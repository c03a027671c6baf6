//! How authorization servers are asked.
//!
//! From the protocol's library: whole requests. To the connections of all HTTP tools, so that proxies and certificates are
//! those of every other request.
//!
//! No redirect is followed, and nothing goes in the clear but to this machine's loopback.

use std::time::Duration;

use rmcp::transport::auth::{OAuthHttpClient, OAuthHttpClientError, OAuthHttpClientFuture, OAuthHttpRequest};
use url::Url;

use crate::http::HttpClient;
use crate::http::client::is_loopback;

/// The longest that one answer may take; the connection is awaited for half of it.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// More than this, in bytes, is no metadata and no token.
const BODY_MAX: usize = 1024 * 1024;

pub(super) struct Requests {
    client: HttpClient,
}

/// Why an authorization server is not asked, or is not heard.
#[derive(Debug, thiserror::Error)]
enum Unasked {
    #[error("its address must begin with https://, or a token could be read on the way")]
    Clear,
    #[error("its answer is too large")]
    TooLarge,
}

impl Requests {
    pub(super) fn new(client: HttpClient) -> Self {
        Self { client }
    }
}

/// Whether what goes there can be read by nobody on the way.
pub(super) fn is_private(url: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url))
}

impl OAuthHttpClient for Requests {
    fn execute(&self, request: OAuthHttpRequest) -> OAuthHttpClientFuture<'_> {
        Box::pin(async move {
            let mut request = reqwest::Request::try_from(request.request)?;
            if !is_private(request.url()) {
                return Err(OAuthHttpClientError::from(Unasked::Clear));
            }
            *request.timeout_mut() = Some(ANSWER_MAX);
            let client = self.client.to(request.url(), false, ANSWER_MAX)?;
            let mut answer = client.execute(request).await.map_err(reqwest::Error::without_url)?;
            let mut response = http::Response::builder().status(answer.status());
            for (name, value) in answer.headers() {
                response = response.header(name, value);
            }
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await? {
                if body.len() + chunk.len() > BODY_MAX {
                    return Err(Unasked::TooLarge.into());
                }
                body.extend_from_slice(&chunk);
            }
            Ok(response.body(body)?)
        })
    }
}
