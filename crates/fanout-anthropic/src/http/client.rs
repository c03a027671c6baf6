//! A model over HTTP: one request out, one answer in.
//!
//! From the agent, through [`Model`]: a request. To it: what the server answered, or what kept it from answering.
//!
//! Nothing here sleeps or tries again.

use std::time::Duration;

use reqwest::{Client, Url};

use super::answer;
use super::options::{HttpOptions, OptionsError};
use crate::model::{BoxFuture, Model, ModelError, Part};
use crate::wire::{Request, Response};

/// Largest request sent, in bytes: the API takes at most 32 MB. Refusing it here saves the upload and names the reason.
pub const REQUEST_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A Messages API server. A clone shares the connections.
#[derive(Clone)]
pub struct HttpModel {
    client: Client,
    url: Url,
    idle_timeout: Duration,
}

impl HttpModel {
    /// Checks the options and makes the client; connects to nothing.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn new(options: HttpOptions) -> Result<Self, OptionsError> {
        let idle_timeout = options.idle_timeout;
        let (client, url) = options.build()?;
        Ok(Self { client, url, idle_timeout })
    }

    async fn send(
        &self,
        request: &Request,
        on_part: &mut (dyn FnMut(Part<'_>) + Send),
    ) -> Result<Response, ModelError> {
        let body = request.to_bytes();
        if body.len() > REQUEST_BYTES_MAX {
            return Err(ModelError::TooLarge { what: "request", limit: REQUEST_BYTES_MAX });
        }
        let answer = self
            .client
            .post(self.url.clone())
            .body(body)
            .send()
            .await
            .map_err(|error| answer::failure(error, self.idle_timeout))?;
        if !answer.status().is_success() {
            return Err(answer::refusal(answer, on_part).await);
        }
        answer::read(answer, self.idle_timeout, on_part).await
    }
}

impl Model for HttpModel {
    /// The host.
    fn api(&self) -> &str {
        self.url.host_str().unwrap_or("model")
    }

    fn respond<'a>(
        &'a self,
        request: &'a Request,
        on_part: &'a mut (dyn FnMut(Part<'_>) + Send),
    ) -> BoxFuture<'a, Result<Response, ModelError>> {
        Box::pin(self.send(request, on_part))
    }
}

impl std::fmt::Debug for HttpModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpModel").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}
