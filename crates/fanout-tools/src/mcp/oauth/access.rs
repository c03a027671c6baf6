//! The token of one MCP server: handed out to its requests, renewed when it must be.
//!
//! From `tokens`, or from the authorization server where the client speaks for itself. To `session`, with every request.
//!
//! However many requests find a token expired, it is renewed once; and whoever stops waiting does not break that off, since
//! what was given in the meantime would be lost.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fanout_core::secrets::Secrets;
use rmcp::transport::auth::{
    AuthError, AuthorizationManager, ClientCredentialsConfig, CredentialStore, InMemoryCredentialStore,
    OAuthClientConfig,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use url::Url;

use super::requests::{Requests, is_private};
use super::tokens::{TokenFile, Tokens, now};
use crate::http::HttpClient;

/// The longest that getting a token may take, with all that must be asked before.
const RENEWAL_MAX: Duration = Duration::from_secs(60);

/// The library wants an address to come back to, also where nobody is sent anywhere.
const NOWHERE: &str = "http://127.0.0.1/callback";

/// How one becomes entitled to use a server.
pub struct McpOauth {
    /// How the authorization server knows us; `None`: we register there ourselves.
    pub client_id: Option<SecretString>,
    /// The secret that goes with it.
    pub client_secret: Option<SecretString>,
    /// What is asked for; none: what the server says that it takes.
    pub scopes: Vec<String>,
    /// On whose behalf.
    pub grant: McpGrant,
    /// Where tokens are hidden from now on.
    pub secrets: Arc<Secrets>,
}

/// On whose behalf a server is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum McpGrant {
    /// That of somebody who logs in, once, in a browser; the tokens are kept in this file.
    Login(PathBuf),
    /// Our own: id and secret are all that is needed.
    ClientCredentials,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum McpAccessError {
    /// Its address, its id or its secret cannot be used.
    #[error("{0}")]
    Wrong(String),
    /// Nobody has logged in.
    #[error("it demands a login: run `fanout login {0}`")]
    NoLogin(String),
    /// There was a login, and it does not hold any more.
    #[error("the login does not hold any more ({detail}): run `fanout login {server}`")]
    LoginEnded {
        /// The server.
        server: String,
        /// Why not.
        detail: String,
    },
    /// It takes the client, and not for this.
    #[error("{0}")]
    Scope(String),
    /// Its authorization server refused the client.
    #[error("its authorization server refuses the `client_id` or the `client_secret`: {0}")]
    Client(String),
    /// The authorization server cannot be asked now; later it may.
    #[error("its authorization server gave no token: {0}")]
    Failed(String),
    /// The file of tokens cannot be used.
    #[error("{0}")]
    File(String),
}

/// What a server's requests get their token from. Cloning it shares the token.
#[derive(Clone)]
pub struct McpAccess {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) server: String,
    pub(super) url: Url,
    pub(super) client: HttpClient,
    pub(super) oauth: McpOauth,
    held: tokio::sync::Mutex<Held>,
}

/// What is known of the token.
#[derive(Default)]
struct Held {
    tokens: Option<Tokens>,
    /// The last failure and its time: an answer to whoever asked before it.
    failed: Option<(Instant, McpAccessError)>,
    /// The token whose renewal was refused for good; asking again would be refused again.
    ended: Option<Tokens>,
}

impl McpAccess {
    /// Access to the server of this name and address. Nothing is asked and no file is read before it is needed.
    ///
    /// # Errors
    /// [`McpAccessError::Wrong`] for an address that tokens must not be sent to, and for a client without its secret.
    pub fn new(server: &str, url: &SecretString, client: HttpClient, oauth: McpOauth) -> Result<Self, McpAccessError> {
        let wrong = |what: &str| McpAccessError::Wrong(what.to_owned());
        let url = Url::parse(url.expose_secret())
            .map_err(|_| wrong("`url` must be an address such as \"https://example.com/mcp\""))?;
        if !is_private(&url) {
            return Err(wrong(
                "`oauth` needs a `url` that begins with https://, or its tokens could be read on the way",
            ));
        }
        let is_whole = oauth.client_id.is_some() && oauth.client_secret.is_some();
        if oauth.grant == McpGrant::ClientCredentials && !is_whole {
            return Err(wrong("`client_credentials` needs a `client_id` and a `client_secret`"));
        }
        let shared = Shared { server: server.to_owned(), url, client, oauth, held: tokio::sync::Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The file in which the tokens of a login are kept; `None` where nobody logs in.
    pub fn file(&self) -> Option<&Path> {
        match &self.shared.oauth.grant {
            McpGrant::Login(path) => Some(path),
            McpGrant::ClientCredentials => None,
        }
    }

    /// Deletes the tokens of a login; says whether there were any. What already runs goes on with its token until that
    /// expires.
    ///
    /// # Errors
    /// [`McpAccessError::File`] when the file cannot be deleted.
    pub fn forget(&self) -> Result<bool, McpAccessError> {
        self.shared.file().map_or(Ok(false), |file| file.forget())
    }

    /// A token to send, another than the one that was `refused`.
    ///
    /// # Cancellation
    /// A renewal that has begun goes on.
    pub(in super::super) async fn token(&self, refused: Option<String>) -> Result<String, McpAccessError> {
        let (asked, shared) = (Instant::now(), Arc::clone(&self.shared));
        let got = tokio::spawn(async move { shared.token(asked, refused.as_deref()).await }).await;
        got.unwrap_or_else(|_| Err(McpAccessError::Failed("asking for it was broken off".to_owned())))
    }

    /// What it means that the server refuses a token that was given for it a moment ago.
    pub(in super::super) fn refused(&self) -> McpAccessError {
        let server = self.shared.server.clone();
        match self.shared.oauth.grant {
            McpGrant::Login(_) => McpAccessError::LoginEnded { server, detail: "the server refuses it".to_owned() },
            McpGrant::ClientCredentials => McpAccessError::Client("the server refuses the token".to_owned()),
        }
    }

    /// What it means that the server wants another scope.
    pub(in super::super) fn lacks(&self, scope: Option<&str>) -> McpAccessError {
        let server = &self.shared.server;
        let wants = scope.map(|scope| format!(": `{scope}`")).unwrap_or_default();
        let then = match self.shared.oauth.grant {
            McpGrant::Login(_) => format!(", and run `fanout login {server}`"),
            McpGrant::ClientCredentials => String::new(),
        };
        let words = format!("it demands more than was asked for{wants}; add it to `scopes` in `oauth`{then}");
        McpAccessError::Scope(self.shared.hidden(&words))
    }
}

impl fmt::Debug for McpAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpAccess").field("server", &self.shared.server).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn file(&self) -> Option<TokenFile> {
        match &self.oauth.grant {
            McpGrant::Login(path) => Some(TokenFile::at(path.clone())),
            McpGrant::ClientCredentials => None,
        }
    }

    async fn token(&self, asked: Instant, refused: Option<&str>) -> Result<String, McpAccessError> {
        let mut held = self.held.lock().await;
        let is_good = |tokens: &Tokens| tokens.is_fresh(now()) && refused != Some(&tokens.access_token);
        if let Some(tokens) = held.tokens.as_ref().filter(|tokens| is_good(tokens)) {
            return Ok(tokens.access_token.clone());
        }
        if let Some((when, error)) = &held.failed
            && *when >= asked
        {
            return Err(error.clone());
        }
        let slow = |_| Err(McpAccessError::Failed(format!("no answer within {} s", RENEWAL_MAX.as_secs())));
        let made = match self.file() {
            None => tokio::time::timeout(RENEWAL_MAX, self.of_client()).await.unwrap_or_else(slow),
            Some(file) => self.of_login(&file, is_good, &mut held.ended).await,
        };
        match made {
            Ok(tokens) => {
                self.hide(&tokens);
                let token = tokens.access_token.clone();
                (held.tokens, held.failed) = (Some(tokens), None);
                Ok(token)
            }
            Err(error) => {
                held.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// The tokens of the file, renewed if they are not good. One process at a time.
    async fn of_login(
        &self,
        file: &TokenFile,
        is_good: impl Fn(&Tokens) -> bool,
        ended: &mut Option<Tokens>,
    ) -> Result<Tokens, McpAccessError> {
        // Most of the time there is nothing to renew, and nobody to wait for.
        let stored = self.stored(file)?;
        if is_good(&stored) {
            return Ok(stored);
        }
        let own = file.clone();
        let locked = tokio::task::spawn_blocking(move || own.lock()).await;
        let _alone = locked.map_err(|_| McpAccessError::Failed("asking for it was broken off".to_owned()))??;
        let stored = self.stored(file)?;
        if is_good(&stored) {
            return Ok(stored);
        }
        if ended.as_ref() == Some(&stored) {
            return Err(self.ended("it was refused"));
        }
        self.hide(&stored);
        let renewed = tokio::time::timeout(RENEWAL_MAX, self.renewed(&stored)).await;
        let renewed = renewed.unwrap_or_else(|_| Err(McpAccessError::Failed("it did not answer in time".to_owned())));
        match renewed {
            Ok(tokens) => {
                // Before anything else: the token before it may be worth nothing any more.
                file.write(&tokens)?;
                Ok(tokens)
            }
            Err(error) => {
                if matches!(error, McpAccessError::LoginEnded { .. }) {
                    *ended = Some(stored);
                }
                Err(error)
            }
        }
    }

    /// What the file holds for this server. Tokens of another address are none of ours.
    fn stored(&self, file: &TokenFile) -> Result<Tokens, McpAccessError> {
        let stored = file.read()?.filter(|tokens| tokens.server == self.url.as_str());
        stored.ok_or_else(|| McpAccessError::NoLogin(self.server.clone()))
    }

    async fn renewed(&self, stored: &Tokens) -> Result<Tokens, McpAccessError> {
        let failed = |error| self.failed(&error);
        if stored.refresh_token.is_none() {
            return Err(self.ended("it has expired"));
        }
        let mut manager = self.manager().await.map_err(failed)?;
        let store = InMemoryCredentialStore::new();
        let credentials = stored.stored().ok_or_else(|| self.ended("its file is damaged"))?;
        store.save(credentials).await.map_err(failed)?;
        manager.set_credential_store(store.clone());
        // Reads the metadata, and drops what another authorization server gave.
        if !manager.initialize_from_store().await.map_err(failed)? {
            return Err(self.ended("the server has another authorization server now"));
        }
        manager
            .configure_client(client(&stored.client_id, stored.client_secret.as_deref(), NOWHERE))
            .map_err(failed)?;
        match manager.refresh_token().await {
            Ok(_) => self.given(&store, stored.client_secret.clone()).await,
            Err(AuthError::TokenRefreshRejected(detail)) => Err(self.ended(&self.hidden(&detail))),
            Err(AuthError::AuthorizationRequired) => Err(self.ended("it has expired")),
            Err(error) => Err(failed(error)),
        }
    }

    /// A token for ourselves.
    async fn of_client(&self) -> Result<Tokens, McpAccessError> {
        let failed = |error| self.failed(&error);
        let secret = |secret: &Option<SecretString>| secret.as_ref().map(|text| text.expose_secret().to_owned());
        let mut manager = self.manager().await.map_err(failed)?;
        manager.set_metadata(manager.resolve_metadata().await.map_err(failed)?.metadata);
        let store = InMemoryCredentialStore::new();
        manager.set_credential_store(store.clone());
        let config = ClientCredentialsConfig::ClientSecret {
            client_id: secret(&self.oauth.client_id).unwrap_or_default(),
            client_secret: secret(&self.oauth.client_secret).unwrap_or_default(),
            scopes: self.scopes(&manager).await,
            resource: Some(self.url.to_string()),
        };
        manager.validate_client_credentials_metadata(&config).map_err(failed)?;
        manager.configure_client_credentials(&config).map_err(failed)?;
        manager.exchange_client_credentials(&config).await.map_err(|error| match error {
            AuthError::ClientCredentialsError(detail) if detail.contains("invalid_client") => {
                McpAccessError::Client(self.hidden(&detail))
            }
            error => failed(error),
        })?;
        self.given(&store, None).await
    }

    /// What the library was given last.
    pub(super) async fn given(
        &self,
        store: &InMemoryCredentialStore,
        client_secret: Option<String>,
    ) -> Result<Tokens, McpAccessError> {
        let stored = store.load().await.map_err(|error| self.failed(&error))?;
        let tokens = stored.and_then(|stored| Tokens::of(&stored, self.url.as_str(), client_secret));
        tokens.ok_or_else(|| McpAccessError::Failed("what it answered holds no token".to_owned()))
    }

    /// The library's side of one exchange; a fresh one for each, so that metadata are those of now.
    pub(super) async fn manager(&self) -> Result<AuthorizationManager, AuthError> {
        let requests = Arc::new(Requests::new(self.client.clone()));
        AuthorizationManager::new_with_oauth_http_client(self.url.clone(), requests).await
    }

    /// The scopes to ask for: those of the configuration, or those that the server names.
    pub(super) async fn scopes(&self, manager: &AuthorizationManager) -> Vec<String> {
        match self.oauth.scopes.is_empty() {
            true => manager.select_initial_scopes(&[]).await,
            false => self.oauth.scopes.clone(),
        }
    }

    /// Has the tokens hidden wherever somebody could see them.
    pub(super) fn hide(&self, tokens: &Tokens) {
        let secrets = &self.oauth.secrets;
        secrets.renew(&format!("token of mcp/{}", self.server), &tokens.access_token);
        if let Some(token) = &tokens.refresh_token {
            secrets.renew(&format!("refresh token of mcp/{}", self.server), token);
        }
        if let Some(secret) = &tokens.client_secret {
            secrets.renew(&format!("client secret of mcp/{}", self.server), secret);
        }
    }

    pub(super) fn hidden(&self, text: &str) -> String {
        self.oauth.secrets.hide(text).into_owned()
    }

    fn ended(&self, detail: &str) -> McpAccessError {
        McpAccessError::LoginEnded { server: self.server.clone(), detail: detail.to_owned() }
    }

    pub(super) fn failed(&self, error: &AuthError) -> McpAccessError {
        McpAccessError::Failed(self.hidden(&words(error)))
    }
}

/// A client as the library wants it.
pub(super) fn client(id: &str, secret: Option<&str>, redirect: &str) -> OAuthClientConfig {
    let config = OAuthClientConfig::new(id, redirect);
    secret.into_iter().fold(config, OAuthClientConfig::with_client_secret)
}

/// What an error says, with its last cause: what the system says.
pub(super) fn words(error: &AuthError) -> String {
    let mut source = std::error::Error::source(error);
    while let Some(deeper) = source.and_then(std::error::Error::source) {
        source = Some(deeper);
    }
    match source {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
