//! The end user's token: whether it is what it says it is, and what it says.
//!
//! From `[server] jwt`, and from the address where an issuer publishes its keys. To the gateway's door: a [`CallerToken`] with
//! its claims, or why there is none.
//!
//! No token and no key is in an error or a log. What may be done by a claim is decided where it is done.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanout_core::tool::CallerToken;
use fanout_tools::http::{DownloadError, HttpClient, check_address};
use jsonwebtoken::{Algorithm, DecodingKey};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::{JwtConfig, JwtKeys, Place, Setting, SettingError};
use crate::environment::Environment;
use crate::published::{Candidates, Published};

/// The clocks of an issuer and of this machine may be so far apart.
const LEEWAY: Duration = Duration::from_secs(30);

/// RFC 7518, 3.2: a key of HS256 has at least as many bits as its hash.
const SECRET_MIN: usize = 32;

/// Verifies tokens by the keys of one issuer.
#[derive(Debug)]
pub struct Verifier {
    keys: Keys,
    issuer: Option<String>,
    audience: Option<String>,
}

enum Keys {
    Secret(DecodingKey),
    Published(Published),
}

/// Why tokens cannot be verified as the configuration says.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// A variable is not set, or a file cannot be read.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// Somebody could find the secret by trying.
    #[error(
        "{place}: `secret` of `jwt` must have at least {SECRET_MIN} bytes, as HS256 demands (RFC 7518), and has {bytes}"
    )]
    Short {
        /// Where it stands.
        place: Place,
        /// How many it has.
        bytes: usize,
    },
    /// Keys cannot come from there.
    #[error("{place}: `jwks_url` of `jwt` cannot be used")]
    Address {
        /// Where it stands.
        place: Place,
        /// Why.
        source: DownloadError,
    },
}

/// Why a token counts for nothing. The message is for whoever sent it, and holds nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    /// It is no JSON Web Token in compact form.
    #[error("it is no signed JSON Web Token")]
    Malformed,
    /// Signed in a way that proves nothing by the keys that are configured.
    #[error("it is signed in another way than `jwt` in [server] has keys for: {0}")]
    Algorithm(&'static str),
    /// Signed with a key that the issuer does not publish.
    #[error("the issuer publishes no key that it could be signed with")]
    UnknownKey,
    /// Not signed with the key, or changed since.
    #[error("its signature is wrong: it was signed with another key, or changed since")]
    Signature,
    /// Without an end it would be good for ever.
    #[error("it has no `exp`, the time at which it expires")]
    NoExpiry,
    /// Its time is over.
    #[error("it has expired: get a new one")]
    Expired,
    /// Its time has not come.
    #[error("it is not good yet (`nbf`)")]
    NotYet,
    /// Somebody else issued it.
    #[error("it comes from another issuer (`iss`) than `jwt` in [server] names")]
    Issuer,
    /// Meant for somebody else.
    #[error("it is meant for another audience (`aud`) than `jwt` in [server] names")]
    Audience,
    /// The keys could not be had, and are asked for again after the time that is named.
    #[error("the keys that verify it cannot be had from their issuer now")]
    Unavailable {
        /// When it makes sense to come back.
        retry_after: Duration,
    },
}

/// What the header of a token says.
#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    kid: Option<String>,
    /// Extensions that a reader must understand or refuse the token (RFC 7515, 4.1.11). None is understood here.
    crit: Option<Value>,
}

impl Verifier {
    /// A verifier as the configuration says; nothing is fetched before the first token.
    ///
    /// # Errors
    /// [`VerifierError`].
    pub fn new(config: &JwtConfig, environment: &Environment) -> Result<Self, VerifierError> {
        let fill = |setting: &Setting| -> Result<String, SettingError> {
            Ok(setting.fill(environment)?.expose_secret().to_owned())
        };
        let keys = match &config.keys {
            JwtKeys::Secret(setting) => {
                let (secret, place) = (setting.fill(environment)?, setting.place().clone());
                let bytes = secret.expose_secret().len();
                if bytes < SECRET_MIN {
                    return Err(VerifierError::Short { place, bytes });
                }
                Keys::Secret(DecodingKey::from_secret(secret.expose_secret().as_bytes()))
            }
            JwtKeys::Published(setting) => {
                let (address, place) = (fill(setting)?, setting.place().clone());
                check_address(&address).map_err(|source| VerifierError::Address { place, source })?;
                Keys::Published(Published::at(address, HttpClient::new()))
            }
        };
        let filled = |setting: &Option<Setting>| setting.as_ref().map(fill).transpose();
        let (issuer, audience) = (filled(&config.issuer)?, filled(&config.audience)?);
        Ok(Self { keys, issuer, audience })
    }

    /// Goes on with the published keys that another verifier knows, if they are from the same address.
    pub fn learn_from(&self, before: &Self) {
        if let (Keys::Published(mine), Keys::Published(known)) = (&self.keys, &before.keys) {
            mine.learn_from(known);
        }
    }

    /// Verifies a token at this time.
    ///
    /// Keys are fetched for the first token, once they are old, and for one that is signed with a key of another name, but
    /// no more often than every few seconds. While they cannot be fetched, those that are known hold.
    ///
    /// # Errors
    /// [`ClaimsError`]; [`ClaimsError::Unavailable`] says nothing against the token.
    ///
    /// # Cancellation
    /// Dropping the future ends the request for keys that it waits for; the next token sends another.
    pub async fn verify(&self, token: &str, now: SystemTime) -> Result<CallerToken, ClaimsError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(ClaimsError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(ClaimsError::Malformed)?;
        let header: Header = part(header)?;
        if header.crit.is_some() {
            return Err(ClaimsError::Malformed);
        }
        self.check_signature(&header, signed, signature, now).await?;
        let claims: Map<String, Value> = part(payload)?;
        let good_until = self.check_claims(&claims, now)?;
        Ok(CallerToken::verified(token, claims, good_until))
    }

    async fn check_signature(
        &self,
        header: &Header,
        signed: &str,
        signature: &str,
        now: SystemTime,
    ) -> Result<(), ClaimsError> {
        let holds = |key: &DecodingKey| {
            jsonwebtoken::crypto::verify(signature, signed.as_bytes(), key, header.alg).unwrap_or(false)
        };
        let is_secret = matches!(header.alg, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
        let held = match &self.keys {
            Keys::Secret(_) if header.alg != Algorithm::HS256 => {
                return Err(ClaimsError::Algorithm("a shared `secret` verifies HS256 alone"));
            }
            Keys::Secret(key) => holds(key),
            // A key that everybody can read would be the secret.
            Keys::Published(_) if is_secret => {
                return Err(ClaimsError::Algorithm(
                    "the keys at its `jwks_url` are public, and HS256 needs a secret one",
                ));
            }
            Keys::Published(published) => {
                let candidates = Candidates { algorithm: header.alg, name: header.kid.as_deref() };
                published.keys(&candidates, now).await?.iter().any(holds)
            }
        };
        if held { Ok(()) } else { Err(ClaimsError::Signature) }
    }

    /// Until when a token with these claims is good.
    fn check_claims(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<SystemTime, ClaimsError> {
        let good_until = time(claims.get("exp")).and_then(|time| time.checked_add(LEEWAY));
        let good_until = good_until.ok_or(ClaimsError::NoExpiry)?;
        if now >= good_until {
            return Err(ClaimsError::Expired);
        }
        if let Some(begin) = claims.get("nbf")
            && time(Some(begin)).is_none_or(|begin| begin > now + LEEWAY)
        {
            return Err(ClaimsError::NotYet);
        }
        let is = |claim: Option<&Value>, wanted: &str| claim.and_then(Value::as_str) == Some(wanted);
        if self.issuer.as_deref().is_some_and(|issuer| !is(claims.get("iss"), issuer)) {
            return Err(ClaimsError::Issuer);
        }
        let meant_for = |audience: &str| match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().any(|one| is(Some(one), audience)),
            one => is(one, audience),
        };
        if self.audience.as_deref().is_some_and(|audience| !meant_for(audience)) {
            return Err(ClaimsError::Audience);
        }
        Ok(good_until)
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Secret(_) => f.write_str("Secret"),
            Self::Published(published) => published.fmt(f),
        }
    }
}

/// The verifier of a configuration, if it says that tokens are verified.
///
/// # Errors
/// [`VerifierError`].
pub fn build_verifier(
    config: Option<&JwtConfig>,
    environment: &Environment,
) -> Result<Option<Arc<Verifier>>, VerifierError> {
    config.map(|config| Verifier::new(config, environment).map(Arc::new)).transpose()
}

/// A part of a token before its signature.
fn part<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, ClaimsError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| ClaimsError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| ClaimsError::Malformed)
}

/// Seconds since 1970 as a time (RFC 7519, `NumericDate`).
fn time(claim: Option<&Value>) -> Option<SystemTime> {
    let seconds = Duration::try_from_secs_f64(claim?.as_f64()?).ok()?;
    UNIX_EPOCH.checked_add(seconds)
}
