//! One address: its notices signed and sent, each until it is taken or given up.
//!
//! From the queue of [`notify`](super). To the address, as Standard Webhooks describes it: the headers `webhook-id`,
//! `webhook-timestamp` and `webhook-signature`, an HMAC-SHA256 over `id.timestamp.body`. Whether and when a notice goes again
//! is [`retry`](fanout_core::retry)'s to say. Neither the secret nor more of the address than its host is ever logged.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fanout_core::retry::{self, Again, Backoff};
use fanout_core::tool::ToolError;
use fanout_tools::http::{HttpClient, post};
use http::{HeaderMap, HeaderValue, header};
use ring::hmac;
use secrecy::ExposeSecret;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use url::Url;

use super::{Notice, NoticeKind, Tally};
use crate::config::{Config, SettingError};
use crate::environment::Environment;

/// A receiver has so long to answer: it is to queue, not to work.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// So many notices are on their way to one address at once; more would be an attack on a small receiver.
const AT_ONCE: usize = 8;

/// How the standard writes a secret: this, then its bytes in base64.
const STANDARD_SECRET: &str = "whsec_";

/// An address, what it asked for and the key that its notices are signed with.
#[derive(Clone)]
pub struct Hook {
    url: Url,
    key: hmac::Key,
    pub(super) kinds: Vec<NoticeKind>,
}

/// Why an address of `[[notify]]` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// A variable is not set, or a file cannot be read.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// What was filled in is no address.
    #[error("`url` of [[notify]] number {0} is no address such as \"https://example.com/hook\"")]
    Address(usize),
    /// What was filled in is no secret of the standard's form.
    #[error("`secret` of [[notify]] number {0} begins with `whsec_`, and what follows is not base64")]
    Secret(usize),
    /// Anybody could sign with it.
    #[error("`secret` of [[notify]] number {0} is empty")]
    NoSecret(usize),
}

/// The addresses of a configuration, with what its variables and files fill in.
///
/// # Errors
/// [`HookError`] for the first that cannot be used.
pub fn hooks(config: &Config, environment: &Environment) -> Result<Vec<Hook>, HookError> {
    let mut hooks = Vec::new();
    for (number, notify) in (1..).zip(&config.notify) {
        let url = notify.url.fill(environment)?;
        let url = Url::parse(url.expose_secret().trim()).ok();
        let url = url.filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
        let url = url.ok_or(HookError::Address(number))?;
        let secret = notify.secret.fill(environment)?;
        let key = key(secret.expose_secret().trim(), number)?;
        hooks.push(Hook { url, key, kinds: notify.kinds.clone() });
    }
    Ok(hooks)
}

fn key(secret: &str, number: usize) -> Result<hmac::Key, HookError> {
    let bytes = match secret.strip_prefix(STANDARD_SECRET) {
        Some(encoded) => BASE64_STANDARD.decode(encoded).map_err(|_| HookError::Secret(number))?,
        None => secret.as_bytes().to_vec(),
    };
    if bytes.is_empty() {
        return Err(HookError::NoSecret(number));
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

impl Hook {
    pub(super) fn host(&self) -> String {
        self.url.host_str().unwrap_or_default().to_owned()
    }

    /// Sends what comes, [`AT_ONCE`] at once, until the queue is closed and empty.
    pub(super) async fn deliver(
        self,
        mut queue: mpsc::Receiver<Notice>,
        client: HttpClient,
        backoff: Backoff,
        tally: Arc<Tally>,
    ) {
        let (hook, mut under_way) = (Arc::new(self), JoinSet::new());
        while let Some(notice) = queue.recv().await {
            if under_way.len() >= AT_ONCE {
                under_way.join_next().await;
            }
            let (hook, client, tally) = (Arc::clone(&hook), client.clone(), Arc::clone(&tally));
            under_way.spawn(async move {
                let is_taken = hook.insist(&notice, &client, backoff).await;
                let count = if is_taken { &tally.delivered } else { &tally.failed };
                count.fetch_add(1, Ordering::Relaxed);
                tally.waiting.fetch_sub(1, Ordering::Relaxed);
            });
        }
        while under_way.join_next().await.is_some() {}
    }

    /// Tries until the notice is taken. Says whether it was.
    async fn insist(&self, notice: &Notice, client: &HttpClient, backoff: Backoff) -> bool {
        let (host, id, kind) = (self.host(), &notice.id, notice.kind.as_str());
        let mut tried = 0;
        loop {
            tried += 1;
            let error = match self.attempt(notice, client).await {
                Ok(()) => return true,
                Err(error) => error,
            };
            // A notice that arrives twice does no harm: its id tells.
            let wait = match retry::again(&error, true) {
                Again::Never => None,
                Again::Spend | Again::Asked => backoff.wait(tried, error.retry_after(), random()),
            };
            let Some(wait) = wait else {
                tracing::warn!(host, id, kind, run = notice.run.as_str(), tried, %error, "notice given up");
                return false;
            };
            tracing::debug!(host, id, kind, tried, ?wait, %error, "notice goes again later");
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(&self, notice: &Notice, client: &HttpClient) -> Result<(), ToolError> {
        let body = notice.body();
        // The signature is of this attempt: receivers refuse old ones.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let headers = self.headers(&notice.id, now, &body).map_err(|error| ToolError::Failed(error.to_string()))?;
        post(client, &self.url, headers, body, ANSWER_MAX).await
    }

    fn headers(&self, id: &str, now: u64, body: &[u8]) -> Result<HeaderMap, header::InvalidHeaderValue> {
        let mut signed = hmac::Context::with_key(&self.key);
        for part in [id.as_bytes(), b".", now.to_string().as_bytes(), b".", body] {
            signed.update(part);
        }
        let signature = format!("v1,{}", BASE64_STANDARD.encode(signed.sign()));
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("webhook-id", HeaderValue::from_str(id)?);
        headers.insert("webhook-timestamp", HeaderValue::from(now));
        headers.insert("webhook-signature", HeaderValue::from_str(&signature)?);
        Ok(headers)
    }
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hook").field("host", &self.host()).field("kinds", &self.kinds).finish_non_exhaustive()
    }
}

/// A number in 0..1.
#[expect(clippy::cast_precision_loss, reason = "jitter needs no more than 53 bits")]
fn random() -> f64 {
    (RandomState::new().hash_one(std::time::Instant::now()) >> 11) as f64 / (1_u64 << 53) as f64
}
