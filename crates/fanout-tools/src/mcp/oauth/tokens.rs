//! Tokens, and the file in which they outlive a process.
//!
//! From `login` and from what `access` renewed. To `access`, in this process and in others with the same configuration.
//!
//! The file can be read by its owner alone, stands in a folder that no repository takes, and is replaced as a whole. The
//! form is ours, so that the protocol library's may change.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use rmcp::transport::auth::StoredCredentials;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::access::McpAccessError;
use crate::kept::{make_ignored_folder, private, write_private};

/// A token is renewed so long before it expires, in seconds, or in the last half of a shorter life.
const AHEAD: u64 = 30;

/// What an authorization server gave for one MCP server.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tokens {
    /// The address of the MCP server: a token is sent nowhere else.
    pub(super) server: String,
    /// Who gave it.
    #[serde(default)]
    pub(super) issuer: Option<String>,
    pub(super) client_id: String,
    #[serde(default)]
    pub(super) client_secret: Option<String>,
    pub(super) access_token: String,
    #[serde(default)]
    pub(super) refresh_token: Option<String>,
    /// So many seconds it holds from `received_at` on, in seconds since 1970; `None`: nobody said.
    #[serde(default)]
    pub(super) expires_in: Option<u64>,
    pub(super) received_at: u64,
    #[serde(default)]
    pub(super) scopes: Vec<String>,
}

impl Tokens {
    /// Takes over what the library was given; `None` if that is no token.
    pub(super) fn of(stored: &StoredCredentials, server: &str, client_secret: Option<String>) -> Option<Self> {
        let stored = serde_json::to_value(stored).ok()?;
        let answer = &stored["token_response"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Some(Self {
            server: server.to_owned(),
            issuer: text(&stored["issuer"]),
            client_id: text(&stored["client_id"])?,
            client_secret,
            access_token: text(&answer["access_token"])?,
            refresh_token: text(&answer["refresh_token"]),
            expires_in: answer["expires_in"].as_u64(),
            received_at: stored["token_received_at"].as_u64().unwrap_or_else(now),
            scopes: stored["granted_scopes"].as_array().into_iter().flatten().filter_map(text).collect(),
        })
    }

    /// The same as the library keeps it.
    pub(super) fn stored(&self) -> Option<StoredCredentials> {
        let mut answer = json!({ "access_token": self.access_token, "token_type": "bearer" });
        if let Some(token) = &self.refresh_token {
            answer["refresh_token"] = json!(token);
        }
        let stored = json!({
            "client_id": self.client_id, "token_response": answer, "granted_scopes": self.scopes,
            "token_received_at": self.received_at, "issuer": self.issuer,
        });
        serde_json::from_value(stored).ok()
    }

    /// Whether it is worth sending.
    pub(super) fn is_fresh(&self, now: u64) -> bool {
        let Some(life) = self.expires_in else { return true };
        let left = (self.received_at + life).saturating_sub(now);
        left > AHEAD.min(life / 2)
    }
}

impl fmt::Debug for Tokens {
    // Nothing that could be used.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Where tokens are kept.
#[derive(Clone, Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// What it holds; `None` where there is none.
    pub(super) fn read(&self) -> Result<Option<Tokens>, McpAccessError> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => {
                serde_json::from_str(&text).map(Some).map_err(|_| self.wrong("is no file of tokens; delete it"))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.wrong(&format!("cannot be read: {error}"))),
        }
    }

    /// Puts tokens in the place of what it holds.
    pub(super) fn write(&self, tokens: &Tokens) -> Result<(), McpAccessError> {
        let written = make_ignored_folder(&self.path)
            .and_then(|()| write_private(&self.path, serde_json::to_string_pretty(tokens)?.as_bytes()));
        written.map_err(|error| self.wrong(&format!("cannot be written: {error}")))
    }

    /// Takes it away; says whether there was one.
    pub(super) fn forget(&self) -> Result<bool, McpAccessError> {
        match std::fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.wrong(&format!("cannot be deleted: {error}"))),
        }
    }

    /// Nobody else renews these tokens while the handle lives, in no process: a refresh token may be good for one use. Waits
    /// for whoever does, so it belongs on a thread that may block.
    pub(super) fn lock(&self) -> Result<File, McpAccessError> {
        let lock = || {
            make_ignored_folder(&self.path)?;
            let file = private(&self.path.with_extension("lock"))?;
            file.lock()?;
            Ok(file)
        };
        lock().map_err(|error: io::Error| self.wrong(&format!("cannot be locked: {error}")))
    }

    fn wrong(&self, what: &str) -> McpAccessError {
        McpAccessError::File(format!("{} {what}", self.path.display()))
    }
}
