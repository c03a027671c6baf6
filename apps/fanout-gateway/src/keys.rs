//! Who asks: the key that a request carries, and what its holder may do.
//!
//! From the headers, and from the file that `fanout keys` writes. To every route: a [`Caller`]. A key of ours is taken out of
//! the headers here, so that nothing behind the door can send it to an upstream.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use fanout_core::call::CallerId;
use fanout_core::tool::CallerToken;
use fanout_host::claims::{ClaimsError, Verifier};
use fanout_host::controls::Who;
use fanout_host::keys::{KEY_PREFIX, Key, KeysError, KeysFile, whose};
use fanout_journal::approvals::Viewer;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, StatusCode};

use crate::error::ApiError;

/// The header of the API's own clients.
pub(crate) static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The header of the end user's token.
static USER_TOKEN: HeaderName = HeaderName::from_static("fanout-user-token");

/// A longer token is none: a whole head is seldom more than 16 KiB.
const TOKEN_MAX: usize = 8 * 1024;

/// Who sent a request. Stands in its extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Runs belong to it, and permits are shared out fairly between ids.
    pub(crate) id: CallerId,
    /// The team, for metrics and, later, budgets.
    pub(crate) project: Option<String>,
    /// Whether it sent a key of ours. If it did not, what it sent as a key is its own, for the upstream.
    pub(crate) has_key: bool,
    /// Whether it may change the gateway: whoever is on this machine, where no keys are demanded; else who has such a key.
    pub(crate) is_admin: bool,
    /// Whether it may decide on approvals, of all if it is an admin's, else of its own project.
    pub(crate) may_approve: bool,
    /// The token of the end user in whose name it asks. It goes to the tools that send it on, and nowhere else.
    pub(crate) token: Option<CallerToken>,
}

/// The keys that hold now.
pub(crate) struct Keyring {
    file: KeysFile,
    demanded: bool,
    read: Mutex<Read>,
}

/// What was read, and what the file looked like then.
#[derive(Default)]
struct Read {
    stamp: Option<(SystemTime, u64)>,
    keys: Arc<Vec<Key>>,
}

impl Keyring {
    pub(crate) fn new(file: KeysFile, demanded: bool) -> Self {
        Self { file, demanded, read: Mutex::default() }
    }

    pub(crate) fn is_demanded(&self) -> bool {
        self.demanded
    }

    /// Finds out who asks, and takes keys of ours out of the headers. Where keys are demanded, no other is left in them
    /// either: it was meant for us.
    ///
    /// # Errors
    /// 401 for a key of ours that does not hold, and for none where one is demanded; 500 when the keys cannot be read.
    pub(crate) fn enter(&self, headers: &mut HeaderMap) -> Result<Caller, ApiError> {
        let is_ours = |text: &&str| self.demanded || text.starts_with(KEY_PREFIX);
        let mut sent: Vec<String> = Vec::new();
        for name in [&X_API_KEY, &AUTHORIZATION] {
            let known = sent.len();
            let keys = headers.get_all(name).iter().filter_map(|value| key_in(value.to_str().ok()?));
            sent.extend(keys.filter(is_ours).map(str::to_owned));
            if self.demanded || sent.len() > known {
                headers.remove(name);
            }
        }
        if sent.is_empty() {
            return if self.demanded { Err(missing()) } else { Ok(Caller::local()) };
        }
        let keys = self.keys().map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "the keys cannot be read: nobody is let in");
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "keys_unreadable", "the gateway cannot read its keys")
        })?;
        sent.iter().find_map(|text| whose(&keys, text)).map(Caller::of).ok_or_else(wrong)
    }

    /// The keys, read anew when the file has changed.
    fn keys(&self) -> Result<Arc<Vec<Key>>, KeysError> {
        let stamp = self.file.stamp()?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.stamp != stamp {
            *read = Read { keys: Arc::new(self.file.read()?), stamp };
        }
        Ok(Arc::clone(&read.keys))
    }
}

impl Caller {
    /// Whoever is on this machine.
    pub(crate) fn local() -> Self {
        Self { id: "local".into(), project: None, has_key: false, is_admin: true, may_approve: true, token: None }
    }

    /// Somebody without a key, where none is needed.
    pub(crate) fn nobody() -> Self {
        Self { id: "nobody".into(), project: None, has_key: false, is_admin: false, may_approve: false, token: None }
    }

    /// The same with the end user's token that the request carries, which is taken out of the headers.
    ///
    /// # Errors
    /// 400 for a token that no header could carry on.
    pub(crate) fn with_token(mut self, headers: &mut HeaderMap) -> Result<Self, ApiError> {
        let mut sent = headers.get_all(&USER_TOKEN).iter();
        let (first, more) = (sent.next(), sent.next().is_some());
        if let Some(token) = first {
            let fits = |text: &&str| !text.is_empty() && !text.contains([' ', '\t']) && text.len() <= TOKEN_MAX;
            let token = token.to_str().ok().filter(fits).filter(|_| !more).ok_or_else(not_a_token)?;
            self.token = Some(token.into());
        }
        headers.remove(&USER_TOKEN);
        Ok(self)
    }

    /// The same with its token verified, if it has one.
    ///
    /// # Errors
    /// 401 for a token that does not hold, with the reason; 503 while that cannot be known.
    pub(crate) async fn verified_by(mut self, verifier: &Verifier) -> Result<Self, ApiError> {
        if let Some(token) = &self.token {
            let verified = verifier.verify(token.expose(), SystemTime::now()).await;
            self.token = Some(verified.map_err(|error| refused(&error))?);
        }
        Ok(self)
    }

    /// Them as somebody whose deeds are kept.
    pub(crate) fn who(&self) -> Who {
        Who { name: self.id.to_string(), project: self.project.clone() }
    }

    /// # Errors
    /// 403 for a key that may not do this: it is not an admin's.
    pub(crate) fn must_be_admin(&self, this: &str) -> Result<(), ApiError> {
        if self.is_admin {
            return Ok(());
        }
        let message = format!("this key may not {this}: `fanout keys add --admin` makes one that may");
        Err(ApiError::new(StatusCode::FORBIDDEN, "not_permitted", message))
    }

    /// Them as somebody who looks at approvals.
    pub(crate) fn viewer(&self) -> Viewer {
        Viewer {
            caller: self.id.clone(),
            project: self.project.clone(),
            is_admin: self.is_admin,
            may_approve: self.may_approve,
        }
    }

    /// The token as a part of what a request says; empty without one. Two requests that differ in it are not the same.
    pub(crate) fn token_text(&self) -> &str {
        self.token.as_ref().map_or("", CallerToken::expose)
    }

    fn of(key: &Key) -> Self {
        Self {
            id: key.id.as_str().into(),
            project: key.project.clone(),
            has_key: true,
            is_admin: key.admin,
            may_approve: key.approve || key.admin,
            token: None,
        }
    }
}

/// The key in a header's value, with `Bearer` before it or without.
fn key_in(value: &str) -> Option<&str> {
    let value = value.trim();
    let bare = match value.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => key.trim(),
        Some(_) => return None,
        None => value,
    };
    (!bare.is_empty()).then_some(bare)
}

fn missing() -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "key_missing",
        "this gateway can be reached from other machines, so it demands a key of its own: make one with \
         `fanout keys add` and send it as `x-api-key` or as `authorization: Bearer`",
    )
}

fn not_a_token() -> ApiError {
    let message = format!(
        "the header `{USER_TOKEN}` must be one token of at most {TOKEN_MAX} visible ASCII characters, without `Bearer` before it"
    );
    ApiError::invalid(message)
}

fn refused(error: &ClaimsError) -> ApiError {
    match error {
        ClaimsError::Unavailable { retry_after } => {
            let message = format!("the user's token in `{USER_TOKEN}` cannot be verified now: {error}");
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "user_token_unverifiable", message).retry_after(*retry_after)
        }
        _ => {
            let message = format!("the user's token in `{USER_TOKEN}` does not count: {error}");
            ApiError::new(StatusCode::UNAUTHORIZED, "user_token_refused", message)
        }
    }
}

fn wrong() -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "key_unknown",
        "the key does not hold: it was revoked, or it is a key of something else; `fanout keys add` makes one",
    )
}
