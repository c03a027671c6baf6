//! Fanout's own keys: who may use a gateway.
//!
//! From `fanout keys`, which writes them into one file. To the gateway, which asks whose key a request carries.
//!
//! The file holds hashes only. A key is 256 random bits, so one round of SHA-256 is as good as many: there is nothing to
//! guess. The key itself is shown once, when it is made, and is never kept.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fanout_tools::kept::write_private;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// What every key begins with: so that one is recognised where it should not be, and never sent to an upstream.
pub const KEY_PREFIX: &str = "fanout_";

/// A key that was given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Its name, for people, logs and `revoke`; no secret.
    pub id: String,
    /// The SHA-256 of the key, in hexadecimal digits.
    sha256: String,
    /// When it was made, as HTTP writes dates.
    pub created: String,
    /// The team that uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Whether it sees what others began, and may change the gateway.
    #[serde(default)]
    pub admin: bool,
    /// Whether it may decide on approvals.
    #[serde(default)]
    pub approve: bool,
}

/// What a new key may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// The team that uses it.
    pub project: Option<String>,
    /// See [`Key::admin`].
    pub admin: bool,
    /// See [`Key::approve`].
    pub approve: bool,
}

/// Why keys cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read.
    #[error("the keys in {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("the keys cannot be written to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It is not what `fanout keys` writes.
    #[error("{} does not hold keys: {detail}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// There is no such key.
    #[error("there is no key `{id}` in {}; see `fanout keys list`", path.display())]
    Unknown {
        /// What was asked for.
        id: String,
        /// The file.
        path: PathBuf,
    },
    /// The system gave no random bytes.
    #[error("the system has no random bytes for a key")]
    Random,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default, rename = "key")]
    keys: Vec<Key>,
}

/// The file that keys stand in. It may not be there yet; then there are none.
#[derive(Clone, Debug)]
pub struct KeysFile {
    path: PathBuf,
}

impl KeysFile {
    /// The keys at this place.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// When the file was last written and how long it is, for telling whether it changed; `None` where there is none.
    ///
    /// # Errors
    /// [`KeysError::Read`] when it cannot be looked at.
    pub fn stamp(&self) -> Result<Option<(SystemTime, u64)>, KeysError> {
        let stamp = std::fs::metadata(&self.path).and_then(|found| Ok((found.modified()?, found.len())));
        self.unless_absent(stamp)
    }

    /// All keys, in the order in which they were made.
    ///
    /// # Errors
    /// [`KeysError::Read`] or [`KeysError::Malformed`]. A file that is not there holds none.
    pub fn read(&self) -> Result<Vec<Key>, KeysError> {
        let Some(text) = self.unless_absent(std::fs::read_to_string(&self.path))? else { return Ok(Vec::new()) };
        let malformed = |detail: String| KeysError::Malformed { path: self.path.clone(), detail };
        let page: Page = toml::from_str(&text).map_err(|error| malformed(error.message().to_owned()))?;
        match page.keys.iter().find(|key| hash_of(key).is_none()) {
            Some(key) => Err(malformed(format!("the `sha256` of `{}` is none", key.id))),
            None => Ok(page.keys),
        }
    }

    /// Makes a key, writes down its hash, and gives the key, which nobody can find out later.
    ///
    /// # Errors
    /// [`KeysError`]; then there is no new key.
    pub fn add(&self, grant: Grant) -> Result<(Key, SecretString), KeysError> {
        let secret = SecretString::from(format!("{KEY_PREFIX}{}", random_hex::<32>()?));
        let key = Key {
            id: format!("key_{}", random_hex::<6>()?),
            sha256: hex(&sha256(secret.expose_secret())),
            created: httpdate::fmt_http_date(SystemTime::now()),
            project: grant.project,
            admin: grant.admin,
            approve: grant.approve,
        };
        self.change(|keys| {
            keys.push(key.clone());
            Ok(())
        })?;
        Ok((key, secret))
    }

    /// Takes a key away. Gateways notice with their next request.
    ///
    /// # Errors
    /// [`KeysError::Unknown`] when there is none of this id; [`KeysError`] as for [`KeysFile::add`].
    pub fn revoke(&self, id: &str) -> Result<Key, KeysError> {
        let unknown = || KeysError::Unknown { id: id.to_owned(), path: self.path.clone() };
        self.change(|keys| {
            let at = keys.iter().position(|key| key.id == id).ok_or_else(unknown)?;
            Ok(keys.remove(at))
        })
    }

    /// One change at a time, also between processes; readers see the file before it or after it.
    fn change<T>(&self, change: impl FnOnce(&mut Vec<Key>) -> Result<T, KeysError>) -> Result<T, KeysError> {
        let failed = |source| KeysError::Write { path: self.path.clone(), source };
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let _one_at_a_time = lock(folder).map_err(failed)?;
        let mut keys = self.read()?;
        let changed = change(&mut keys)?;
        let page = toml::to_string(&Page { keys }).map_err(|error| failed(io::Error::other(error)))?;
        write_private(&self.path, format!("{HEADER}{page}").as_bytes()).map_err(failed)?;
        Ok(changed)
    }

    fn unless_absent<T>(&self, found: io::Result<T>) -> Result<Option<T>, KeysError> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KeysError::Read { path: self.path.clone(), source }),
        }
    }
}

const HEADER: &str = "# Written by `fanout keys`. These are hashes: no key can be made out of this file.\n\n";

/// The key that this text is, if it is one. Every key is compared, and each in constant time.
pub fn whose<'a>(keys: &'a [Key], text: &str) -> Option<&'a Key> {
    let hash = sha256(text);
    let mut found = None;
    for key in keys {
        if hash_of(key).is_some_and(|known| bool::from(known[..].ct_eq(&hash[..]))) {
            found = Some(key);
        }
    }
    found
}

/// So many random bytes as hexadecimal digits.
///
/// # Errors
/// [`KeysError::Random`] when the system has none.
pub fn random_hex<const BYTES: usize>() -> Result<String, KeysError> {
    let mut bytes = [0; BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| KeysError::Random)?;
    Ok(hex(&bytes))
}

fn sha256(text: &str) -> Vec<u8> {
    digest(&SHA256, text.as_bytes()).as_ref().to_vec()
}

fn hash_of(key: &Key) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(key.sha256.get(at..at + 2)?, 16).ok();
    let whole = key.sha256.len() == 64 && key.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then(|| (0..64).step_by(2).filter_map(pair).collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Nobody else changes files of ours in this folder while the handle lives.
#[cfg(unix)]
fn lock(folder: &Path) -> io::Result<File> {
    let folder = File::open(folder)?;
    folder.lock()?;
    Ok(folder)
}

/// Folders have no locks here: two changes at the very same time can lose one of them.
#[cfg(not(unix))]
fn lock(_: &Path) -> io::Result<()> {
    Ok(())
}
