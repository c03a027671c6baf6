//! The keys that an issuer of tokens publishes, kept for a while.
//!
//! From an address with a JWKS. To [`claims`](crate::claims): the keys that a token could be signed with.
//!
//! A key is used as what it is published as and in no other way; secret keys are not taken.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fanout_tools::http::{DownloadBounds, HttpClient, download};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use crate::claims::ClaimsError;

/// Keys are fetched again once they are so old: an issuer that takes one back is heard by then. Supabase has its own caches
/// keep them for as long.
const AGE_MAX: Duration = Duration::from_secs(600);

/// The least between two requests: nobody may have us ask all the time by sending tokens with invented names of keys.
const AGAIN: Duration = Duration::from_secs(5);

/// A request of a user waits for the keys, so it is not long; and an issuer has some keys, not thousands.
const BOUNDS: DownloadBounds = DownloadBounds { time: Duration::from_secs(5), bytes: 1 << 20 };

/// The keys at one address.
pub(crate) struct Published {
    address: String,
    client: HttpClient,
    known: Mutex<Known>,
    /// One request at a time.
    fetching: tokio::sync::Mutex<()>,
}

/// What is known at one moment.
#[derive(Clone, Default)]
struct Known {
    /// The keys, once there were any, and since when.
    keys: Option<(Arc<[PublishedKey]>, SystemTime)>,
    /// When the last request ended.
    tried: Option<SystemTime>,
    /// Whether it failed.
    failed: bool,
}

struct PublishedKey {
    name: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// What a token says of the key that it is signed with.
pub(crate) struct Candidates<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) name: Option<&'a str>,
}

impl Published {
    pub(crate) fn at(address: String, client: HttpClient) -> Self {
        Self { address, client, known: Mutex::default(), fetching: tokio::sync::Mutex::default() }
    }

    /// Takes over what is known of the same address.
    pub(crate) fn learn_from(&self, before: &Self) {
        if self.address == before.address {
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = before.known();
        }
    }

    /// The keys that a token could be signed with; at least one.
    pub(crate) async fn keys(&self, wanted: &Candidates<'_>, now: SystemTime) -> Result<Vec<DecodingKey>, ClaimsError> {
        let mut known = self.known();
        let is_old = known.keys.as_ref().is_none_or(|(_, since)| older(*since, AGE_MAX, now));
        // Where some are known, one request at most waits for newer ones.
        if is_old && known.may_ask(now) && (known.keys.is_none() || self.fetching.try_lock().is_ok()) {
            known = self.fetch(&known, now).await;
        }
        let found = known.matching(wanted);
        if !found.is_empty() {
            return Ok(found);
        }
        if known.may_ask(now) {
            known = self.fetch(&known, now).await;
        }
        match known.matching(wanted) {
            found if !found.is_empty() => Ok(found),
            _ if known.failed => Err(ClaimsError::Unavailable { retry_after: AGAIN }),
            _ => Err(ClaimsError::UnknownKey),
        }
    }

    fn known(&self) -> Known {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is known after a request: after that of somebody else, if there was one since `before`.
    async fn fetch(&self, before: &Known, now: SystemTime) -> Known {
        let _one = self.fetching.lock().await;
        let mut known = self.known();
        if known.tried != before.tried {
            return known;
        }
        known.tried = Some(now);
        match self.ask().await {
            Ok(keys) => {
                known.keys = Some((keys, now));
                known.failed = false;
            }
            Err(detail) => {
                known.failed = true;
                let kept = if known.keys.is_some() { "; those that are known hold on" } else { "" };
                tracing::warn!(%detail, "the keys that verify users' tokens cannot be had{kept}");
            }
        }
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known.clone();
        known
    }

    async fn ask(&self) -> Result<Arc<[PublishedKey]>, String> {
        #[derive(Deserialize)]
        struct Jwks {
            keys: Vec<Value>,
        }
        let bytes = download(&self.client, &self.address, BOUNDS).await.map_err(|error| error.to_string())?;
        let jwks: Jwks =
            serde_json::from_slice(&bytes).map_err(|_| format!("what `{}` answers is no JWKS", self.address))?;
        // One of a kind that is not known here is no reason to refuse those that are.
        Ok(jwks.keys.into_iter().filter_map(PublishedKey::read).collect())
    }
}

impl Known {
    fn may_ask(&self, now: SystemTime) -> bool {
        self.tried.is_none_or(|tried| older(tried, AGAIN, now))
    }

    fn matching(&self, wanted: &Candidates<'_>) -> Vec<DecodingKey> {
        let keys = self.keys.iter().flat_map(|(keys, _)| keys.iter());
        let fits = keys.filter(|key| key.algorithms.contains(&wanted.algorithm));
        // A token that does not name its key may be signed with any.
        let named = fits.filter(|key| wanted.name.is_none_or(|name| key.name.as_deref() == Some(name)));
        named.map(|key| key.key.clone()).collect()
    }
}

impl PublishedKey {
    fn read(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let common = &jwk.common;
        let to_sign = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
        let to_verify = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        if !to_sign || !to_verify {
            return None;
        }
        let mut algorithms = algorithms(&jwk.algorithm);
        if let Some(only) = &common.key_algorithm {
            algorithms.retain(|algorithm| format!("{algorithm:?}") == only.to_string());
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { name: common.key_id.clone(), algorithms, key })
    }
}

/// The ways to sign with such a key.
fn algorithms(parameters: &AlgorithmParameters) -> Vec<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    match parameters {
        AlgorithmParameters::RSA(_) => vec![RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => vec![ES256],
            EllipticCurve::P384 => vec![ES384],
            _ => Vec::new(),
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => vec![EdDSA],
        AlgorithmParameters::OctetKeyPair(_) | AlgorithmParameters::OctetKey(_) => Vec::new(),
    }
}

/// Whether more than this has passed. A clock that was set back has it so: it cannot say how long ago it was.
fn older(since: SystemTime, age: Duration, now: SystemTime) -> bool {
    now.duration_since(since).map_or(true, |passed| passed >= age)
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published").field("address", &self.address).finish_non_exhaustive()
    }
}
