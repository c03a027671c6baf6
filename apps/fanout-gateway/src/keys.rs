//! Who asks: the key that a request carries, and what its holder may do.
//!
//! From the headers, and from the file that `fanout keys` writes. To every route: a [`Caller`]. A key of ours is taken out of
//! the headers here, so that nothing behind the door can send it to an upstream.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use fanout_core::call::CallerId;
use fanout_host::keys::{KEY_PREFIX, Key, KeysError, KeysFile, whose};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, StatusCode};

use crate::error::ApiError;

/// The header of the API's own clients.
pub(crate) static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

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
        Self { id: "local".into(), project: None, has_key: false, is_admin: true }
    }

    /// Somebody without a key, where none is needed.
    pub(crate) fn nobody() -> Self {
        Self { id: "nobody".into(), project: None, has_key: false, is_admin: false }
    }

    fn of(key: &Key) -> Self {
        Self { id: key.id.as_str().into(), project: key.project.clone(), has_key: true, is_admin: key.admin }
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

fn wrong() -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "key_unknown",
        "the key does not hold: it was revoked, or it is a key of something else; `fanout keys add` makes one",
    )
}
