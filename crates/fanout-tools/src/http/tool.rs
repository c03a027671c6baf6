//! An endpoint as a tool.
//!
//! From `builder`: the endpoint as its author described it.
//! To a [`Toolbox`](fanout_core::toolbox::Toolbox), as [`HttpTool`].
//!
//! It sends one request and follows a redirect where that is harmless. What the answer means is read in `answer`; whether
//! a failed attempt goes again is decided in `fanout-core`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fanout_core::call::ToolName;
use fanout_core::outcome::Output;
use fanout_core::tool::{Attempt, BoxFuture, CallerToken, Tool, ToolError, ToolSpec};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::{CONTROLS, utf8_percent_encode};
use url::Url;

use super::answer::{self, Answer, BODY_MAX, ERROR_BODY_MAX};
use super::builder::HttpToolBuilder;
use super::client::cause;
use super::request::{Layout, Payload, Prepared};
use super::waits::Waits;

/// A same-origin redirect is followed this often; browsers follow more, and an API that needs more goes in circles.
const REDIRECTS_MAX: usize = 5;

/// So long the body of an error is awaited: its status says what became of the call, and a server that is in trouble may
/// never send the rest.
const ERROR_BODY_WAIT: Duration = Duration::from_secs(1);

/// What lets the far side recognise a repeat.
pub(super) static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// An endpoint as a tool. Cloning it shares everything.
#[derive(Clone)]
pub struct HttpTool {
    pub(super) spec: ToolSpec,
    pub(super) endpoint: Arc<Endpoint>,
}

pub(super) struct Endpoint {
    pub(super) layout: Layout,
    pub(super) headers: HeaderMap,
    pub(super) client: reqwest::Client,
}

impl HttpTool {
    /// Begins a tool that calls `method` on the address that `url` makes of an input, such as
    /// `https://api.example.com/users/{user_id}`.
    ///
    /// Inputs that the URL does not name go into the query for GET, HEAD and DELETE, else into one JSON body.
    pub fn builder(name: impl Into<ToolName>, method: Method, url: impl Into<String>) -> HttpToolBuilder {
        HttpToolBuilder::new(name.into(), method, url.into())
    }
}

impl Tool for HttpTool {
    fn spec(&self) -> ToolSpec {
        self.spec.clone()
    }

    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        let endpoint = self.endpoint.clone();
        Box::pin(async move { endpoint.call(&attempt).await })
    }
}

impl fmt::Debug for HttpTool {
    // Neither headers nor query: they may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { layout, .. } = &*self.endpoint;
        f.debug_struct("HttpTool")
            .field("name", &self.spec.name)
            .field("method", &layout.method)
            .field("host", &layout.address.host())
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    async fn call(&self, attempt: &Attempt) -> Result<Output, ToolError> {
        let Prepared { mut url, mut headers, body } = self.layout.prepare(&attempt.input)?;
        // What the author wrote wins over what an input says.
        headers.extend(self.headers.clone());
        headers.extend(self.filled_headers(attempt)?);
        let method = &self.layout.method;
        let follows = matches!(*method, Method::GET | Method::HEAD);
        let mut followed = 0;
        loop {
            let response = self.send(attempt, url.clone(), &headers, body.as_ref()).await?;
            let waits = Waits::of(response.headers(), SystemTime::now());
            // Before the body has come: whoever waits for it would go on to send.
            if let Some(wait) = waits.pause(response.status()) {
                attempt.pause_limit(wait);
            }
            let Some(target) = answer::redirect_target(response.status(), response.headers(), &url) else {
                return read(response, attempt, method, &waits).await;
            };
            let status = answer::status_text(response.status());
            let why = match &target {
                Ok(target) => why_not(&url, target, follows, followed),
                Err(unreadable) => Some(*unreadable),
            };
            match (target, why) {
                (Ok(target), None) => {
                    followed += 1;
                    url = target;
                }
                (target, why) => {
                    let to = target.map(|target| format!(" to {}", shown(&target))).unwrap_or_default();
                    return Err(ToolError::Failed(format!(
                        "`{}` answered {status}, a redirect{to} that was not followed: {}",
                        attempt.tool,
                        why.unwrap_or_default()
                    )));
                }
            }
        }
    }

    /// The headers that differ from call to call. Those in the end user's name reach this tool's own host and no other: a
    /// redirect to elsewhere is not followed.
    fn filled_headers(&self, attempt: &Attempt) -> Result<HeaderMap, ToolError> {
        let token = attempt.caller_token.as_ref().map(CallerToken::expose);
        let mut headers = HeaderMap::new();
        for header in &self.layout.headers {
            if header.needs_token() && token.is_none() {
                let tool = &attempt.tool;
                return Err(ToolError::NotPermitted(format!(
                    "`{tool}` acts in the name of an end user, and this run has no end user's token (the header \
                     `fanout-user-token` of a request to the gateway). Nothing was sent: go on without it, or have the user \
                     sign in"
                )));
            }
            let value = header.fill(&attempt.input, token.unwrap_or_default())?;
            headers.extend(value.map(|value| (header.name().clone(), value)));
        }
        Ok(headers)
    }

    async fn send(
        &self,
        attempt: &Attempt,
        url: Url,
        headers: &HeaderMap,
        body: Option<&Payload>,
    ) -> Result<reqwest::Response, ToolError> {
        let method = self.layout.method.clone();
        let place = format!("{method} {}", shown(&url));
        let mut headers = headers.clone();
        if !matches!(method, Method::GET | Method::HEAD) && !headers.contains_key(&IDEMPOTENCY_KEY) {
            headers.extend(key_header(&attempt.idempotency_key).map(|key| (IDEMPOTENCY_KEY.clone(), key)));
        }
        // A body that is empty would go without its length, and some servers answer 411 (RFC 9110, 8.6: a client should say 0
        // where a method expects a body).
        let expects_body = matches!(method, Method::POST | Method::PUT | Method::PATCH);
        if expects_body && body.is_none_or(|payload| payload.bytes.is_empty()) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut request = self.client.request(method, url);
        if let Some(payload) = body {
            if !headers.contains_key(CONTENT_TYPE) {
                headers.insert(CONTENT_TYPE, payload.content_type.clone());
            }
            request = request.body(payload.bytes.clone());
        }
        request.headers(headers).send().await.map_err(|error| {
            let tool = &attempt.tool;
            if error.is_builder() {
                ToolError::BadInput(format!("`{tool}` could not make a request for {place}"))
            } else if error.is_connect() {
                ToolError::NotSent(format!("`{tool}` found no connection for {place}: {}", cause(error)))
            } else {
                ToolError::Broken(format!("`{tool}` lost the connection for {place}: {}", cause(error)))
            }
        })
    }
}

/// Reads a response and what it means.
async fn read(
    mut response: reqwest::Response,
    attempt: &Attempt,
    method: &Method,
    waits: &Waits,
) -> Result<Output, ToolError> {
    let tool = &attempt.tool;
    let status = response.status();
    let body =
        if status.is_success() { whole(&mut response, tool, method).await? } else { beginning(&mut response).await };
    let headers = std::mem::take(response.headers_mut());
    Answer { status, headers, body }.into_output(tool, method, waits, &attempt.secrets)
}

/// All of a body. One that is too large is given up, and its connection closed, as soon as that is known.
async fn whole(response: &mut reqwest::Response, tool: &ToolName, method: &Method) -> Result<Vec<u8>, ToolError> {
    let most = answer::thousands(BODY_MAX);
    let too_large = |bytes: &str| {
        ToolError::TooLarge(format!(
            "`{tool}` answered with {bytes} bytes, and at most {most} are kept; ask for less, or for a part"
        ))
    };
    if let Some(length) = response.content_length()
        && *method != Method::HEAD
        && let Ok(length) = usize::try_from(length)
        && length > BODY_MAX
    {
        return Err(too_large(&answer::thousands(length)));
    }
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= BODY_MAX => body.extend_from_slice(&chunk),
            Ok(Some(_)) => return Err(too_large(&format!("more than {most}"))),
            Ok(None) => return Ok(body),
            Err(error) => {
                return Err(ToolError::Broken(format!(
                    "the answer of `{tool}` broke off after {} bytes: {}",
                    answer::thousands(body.len()),
                    cause(error)
                )));
            }
        }
    }
}

/// The beginning of an error's body, as far as it comes in time: it explains what the status says, and no more.
async fn beginning(response: &mut reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            let fitting = chunk.len().min(ERROR_BODY_MAX - body.len());
            body.extend_from_slice(&chunk[..fitting]);
            if body.len() == ERROR_BODY_MAX {
                break;
            }
        }
    };
    // What came is enough.
    let _ = tokio::time::timeout(ERROR_BODY_WAIT, read).await;
    body
}

/// Why a redirect is not followed. Headers go along where one is, and with them what only this host may see.
fn why_not(from: &Url, to: &Url, follows: bool, followed: usize) -> Option<&'static str> {
    if from.scheme() == "https" && to.scheme() == "http" {
        Some("it would leave https")
    } else if from.origin() != to.origin() {
        Some("it is another scheme, host or port")
    } else if !to.username().is_empty() || to.password().is_some() {
        Some("its address holds a user")
    } else if !follows {
        Some("only GET and HEAD are sent a second time")
    } else if followed == REDIRECTS_MAX {
        Some("five were followed before it")
    } else {
        None
    }
}

/// An address without what may be secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Both only fail for addresses that cannot have a user, which then have none to hide.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url[url::Position::BeforeHost..].to_owned()
}

/// The key as a header; what a header cannot carry is percent-encoded, the same on every attempt.
fn key_header(key: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&utf8_percent_encode(key, CONTROLS).to_string()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_followed_only_within_its_origin() {
        let elsewhere = Some("it is another scheme, host or port");
        for (from, to, why) in [
            ("https://a.example/x", "https://a.example/y?z", None),
            ("https://a.example/x", "https://A.example:443/y", None),
            ("https://a.example/x", "http://a.example/x", Some("it would leave https")),
            ("https://a.example/x", "http://b.example/x", Some("it would leave https")),
            ("http://a.example/x", "https://a.example/x", elsewhere),
            ("https://a.example/x", "https://b.example/x", elsewhere),
            ("https://a.example/x", "https://a.example.evil.example/x", elsewhere),
            ("https://a.example/x", "https://a.example:8443/x", elsewhere),
            ("https://a.example/x", "file:///etc/passwd", elsewhere),
            ("https://a.example/x", "https://u:p@a.example/x", Some("its address holds a user")),
        ] {
            let (from, to) = (Url::parse(from).unwrap(), Url::parse(to).unwrap());
            assert_eq!(why_not(&from, &to, true, 0), why, "{to}");
        }
        let page = Url::parse("https://a.example/x").unwrap();
        assert!(why_not(&page, &page, false, 0).is_some() && why_not(&page, &page, true, REDIRECTS_MAX).is_some());
    }
}
