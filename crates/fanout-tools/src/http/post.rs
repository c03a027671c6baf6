//! A message to somebody else's program: a webhook.
//!
//! From whoever has something to tell, once for each time that it is tried. To the address, and back as what the attempt came to, in the
//! words that [`retry`](fanout_core::retry) decides by. The body of the answer is not read, no redirect is followed, and no message
//! names more of the address than its host: the rest of it is often a secret.

use std::time::{Duration, SystemTime};

use fanout_core::tool::ToolError;
use http::{HeaderMap, StatusCode};
use url::Url;

use super::answer::status_text;
use super::client::{HttpClient, cause};
use super::waits::Waits;

/// Sends a body to an address, once. Any 2xx within `timeout` means that it was taken.
///
/// # Errors
/// [`ToolError::NotSent`] without a connection, [`ToolError::Busy`] for 429, [`ToolError::Overloaded`] for 503, [`ToolError::Broken`] for
/// 408, other 5xx, a broken connection and no answer in time, [`ToolError::Failed`] for every other answer, redirects included.
///
/// # Cancellation
/// Dropping the future ends the request; it may have arrived.
pub async fn post(
    client: &HttpClient,
    url: &Url,
    headers: HeaderMap,
    body: Vec<u8>,
    timeout: Duration,
) -> Result<(), ToolError> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let client = client.to(url, true, timeout).map_err(|error| ToolError::Failed(error.to_string()))?;
    let sent = client.post(url.clone()).headers(headers).body(body).send();
    let answer = match tokio::time::timeout(timeout, sent).await {
        Err(_) => return Err(ToolError::Broken(format!("`{host}` did not answer within {timeout:?}"))),
        Ok(Err(error)) if error.is_connect() => {
            return Err(ToolError::NotSent(format!("no connection to `{host}`: {}", cause(error))));
        }
        Ok(Err(error)) => {
            return Err(ToolError::Broken(format!("lost the connection to `{host}`: {}", cause(error))));
        }
        Ok(Ok(answer)) => answer,
    };
    let status = answer.status();
    let waits = Waits::of(answer.headers(), SystemTime::now());
    let message = format!("`{host}` answered {}", status_text(status));
    match status {
        status if status.is_success() => Ok(()),
        status if waits.refuse(status) => Err(ToolError::Busy { message, retry_after: waits.named() }),
        StatusCode::SERVICE_UNAVAILABLE => Err(ToolError::Overloaded { message, retry_after: waits.retry_after() }),
        status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => Err(ToolError::Broken(message)),
        status if status.is_redirection() => Err(ToolError::Failed(format!("{message}, and no redirect is followed"))),
        _ => Err(ToolError::Failed(message)),
    }
}
