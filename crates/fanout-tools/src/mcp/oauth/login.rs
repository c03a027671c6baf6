//! A person logs in, in a browser, and comes back to a door on this machine's loopback.
//!
//! From the command: an [`McpAccess`]. To its file of tokens.
//!
//! The door stands open for one answer, which must carry the `state` that went out; what it says is exchanged for tokens with
//! the PKCE verifier, which never left this process.

use std::net::Ipv4Addr;
use std::time::Duration;

use rmcp::transport::auth::{AuthorizationManager, InMemoryCredentialStore};
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use url::Url;

use super::access::{McpAccess, McpAccessError, Shared, client, words};
use super::requests::is_private;

/// So long a person may take.
const LOGIN_MAX: Duration = Duration::from_secs(300);

/// So long a browser may take to say what it wants, and the most bytes that it may take for it.
const HEAD_WAIT: Duration = Duration::from_secs(10);
const HEAD_MAX: usize = 16 * 1024;

/// Where the browser is sent back to.
const CALLBACK: &str = "/callback";

/// Why a login did not come about.
#[derive(Debug, thiserror::Error)]
pub enum McpLoginError {
    /// Nobody logs in to this server.
    #[error("the MCP server `{0}` needs no login: `client_credentials` in `oauth` is enough")]
    NotNeeded(String),
    /// There is no door to come back to.
    #[error("nobody can come back to 127.0.0.1 (`redirect_port` in `oauth`)")]
    Door(#[source] std::io::Error),
    /// The server or its authorization server cannot be asked, or what it says cannot be used.
    #[error("the MCP server `{server}` offers no login that can be used: {detail}")]
    Unusable {
        /// The server.
        server: String,
        /// What is wrong.
        detail: String,
    },
    /// The authorization server said no, or the person did.
    #[error("the login to `{server}` was refused: {detail}")]
    Refused {
        /// The server.
        server: String,
        /// What was said.
        detail: String,
    },
    /// What came back was not an answer to this login.
    #[error(
        "what came back from the browser does not answer this login (its `state` is another); nothing was taken, log in again"
    )]
    State,
    /// Nobody came back.
    #[error("nobody came back from the browser within {0} minutes; log in again")]
    Late(u64),
    /// The tokens cannot be kept.
    #[error(transparent)]
    Access(#[from] McpAccessError),
}

/// A login that has begun.
pub struct McpLogin {
    access: McpAccess,
    manager: AuthorizationManager,
    store: InMemoryCredentialStore,
    client_secret: Option<String>,
    door: TcpListener,
    address: Url,
    state: String,
}

/// What the browser came back with.
#[derive(Default)]
struct Answer {
    state: Option<String>,
    code: Option<String>,
    issuer: Option<String>,
    error: Option<String>,
    description: Option<String>,
}

impl McpAccess {
    /// Begins a login: finds the authorization server, registers there if need be, and opens the door to come back to at
    /// `port` of 127.0.0.1; `None`: any that is free.
    ///
    /// # Errors
    /// [`McpLoginError`] says what the server lacks.
    pub async fn login(&self, port: Option<u16>) -> Result<McpLogin, McpLoginError> {
        let shared = &self.shared;
        if shared.file().is_none() {
            return Err(McpLoginError::NotNeeded(shared.server.clone()));
        }
        let unusable = |detail: String| McpLoginError::Unusable { server: shared.server.clone(), detail };
        let wrong = |error| unusable(shared.hidden(&words(&error)));
        let door = TcpListener::bind((Ipv4Addr::LOCALHOST, port.unwrap_or_default())).await;
        let door = door.map_err(McpLoginError::Door)?;
        let port = door.local_addr().map_err(McpLoginError::Door)?.port();
        let redirect = format!("http://127.0.0.1:{port}{CALLBACK}");
        let mut manager = shared.manager().await.map_err(wrong)?;
        let found = manager.resolve_metadata().await.map_err(wrong)?;
        let is_published = found.source.is_discovered();
        manager.set_metadata(found.metadata);
        let scopes = shared.scopes(&manager).await;
        let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
        let client_secret = match &shared.oauth.client_id {
            Some(id) => {
                let secret = shared.oauth.client_secret.as_ref().map(ExposeSecret::expose_secret);
                manager.configure_client(client(id.expose_secret(), secret, &redirect)).map_err(wrong)?;
                secret.map(str::to_owned)
            }
            None => {
                let made = manager.register_client("fanout", &redirect, &scopes).await;
                made.map_err(|error| unusable(unregistered(shared, &words(&error), is_published)))?.client_secret
            }
        };
        let store = InMemoryCredentialStore::new();
        manager.set_credential_store(store.clone());
        let address = manager.get_authorization_url(&scopes).await.map_err(wrong)?;
        let address = Url::parse(&address).map_err(|_| unusable("its address for logins is none".to_owned()))?;
        if !is_private(&address) {
            return Err(unusable("its address for logins does not begin with https://".to_owned()));
        }
        let state = address.query_pairs().find(|(name, _)| name == "state").map(|(_, state)| state.into_owned());
        let state = state.unwrap_or_default();
        Ok(McpLogin { access: self.clone(), manager, store, client_secret, door, address, state })
    }
}

/// Why no client could be registered, and what helps.
fn unregistered(shared: &Shared, detail: &str, is_published: bool) -> String {
    match is_published {
        true => format!(
            "no client can be registered ({}); register one by hand and give it: oauth = {{ client_id = \"…\" }}",
            shared.hidden(detail)
        ),
        false => {
            "it publishes no OAuth metadata (RFC 9728, RFC 8414), and where servers without have their endpoints there \
                  are none; if it takes a fixed token, give it in `http_headers`"
                .to_owned()
        }
    }
}

impl McpLogin {
    /// The address to open in a browser.
    pub fn address(&self) -> &str {
        self.address.as_str()
    }

    /// Waits for the person to come back, for five minutes at most, and keeps the tokens.
    ///
    /// # Errors
    /// [`McpLoginError`]; then the tokens of an earlier login, if there are any, stay as they are.
    ///
    /// # Cancellation
    /// Dropping the future closes the door; nothing is kept.
    pub async fn finish(self) -> Result<(), McpLoginError> {
        let late = |_| McpLoginError::Late(LOGIN_MAX.as_secs() / 60);
        let (mut browser, answer) = tokio::time::timeout(LOGIN_MAX, self.answer()).await.map_err(late)?;
        let done = self.take(answer).await;
        let (status, words) = match &done {
            Ok(()) => ("200 OK", "You are logged in. This page can be closed."),
            Err(_) => ("400 Bad Request", "The login did not come about; the terminal says why."),
        };
        // Whoever has closed the page needs no words.
        let _ = say(&mut browser, status, words).await;
        done
    }

    /// Waits for the request that brings the answer. Browsers also open connections that they never use, so all are heard at
    /// once.
    async fn answer(&self) -> (TcpStream, Answer) {
        let (sender, mut heard) = mpsc::channel(1);
        loop {
            tokio::select! {
                accepted = self.door.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let sender = sender.clone();
                    tokio::spawn(async move {
                        if let Ok(Some(heard)) = tokio::time::timeout(HEAD_WAIT, asked(stream)).await {
                            // Nobody waits any more once one has answered.
                            let _ = sender.send(heard).await;
                        }
                    });
                }
                Some(answered) = heard.recv() => return answered,
            }
        }
    }

    async fn take(&self, answer: Answer) -> Result<(), McpLoginError> {
        let shared = &self.access.shared;
        let refused =
            |detail: &str| McpLoginError::Refused { server: shared.server.clone(), detail: shared.hidden(detail) };
        if answer.state.as_deref() != Some(&self.state) {
            return Err(McpLoginError::State);
        }
        if let Some(error) = answer.error {
            let description = answer.description.map(|text| format!(": {text}")).unwrap_or_default();
            return Err(refused(&format!("{error}{description}")));
        }
        let code = answer.code.ok_or_else(|| refused("the answer holds no code"))?;
        let exchanged = self.manager.exchange_code_for_token_with_issuer(&code, &self.state, answer.issuer.as_deref());
        exchanged.await.map_err(|error| refused(&words(&error)))?;
        let tokens = shared.given(&self.store, self.client_secret.clone()).await?;
        shared.hide(&tokens);
        if let Some(file) = shared.file() {
            file.write(&tokens)?;
        }
        Ok(())
    }
}

/// Reads what a browser asks for; one that asks for anything but the answer's page gets none.
async fn asked(mut stream: TcpStream) -> Option<(TcpStream, Answer)> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > HEAD_MAX || stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let head = String::from_utf8_lossy(&head);
    let target = head.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    let url = Url::parse("http://127.0.0.1").and_then(|base| base.join(target)).ok();
    let Some(url) = url.filter(|url| url.path() == CALLBACK) else {
        let _ = say(&mut stream, "404 Not Found", "Nothing is here.").await;
        return None;
    };
    let mut answer = Answer::default();
    for (name, value) in url.query_pairs() {
        let place = match &*name {
            "state" => &mut answer.state,
            "code" => &mut answer.code,
            "iss" => &mut answer.issuer,
            "error" => &mut answer.error,
            "error_description" => &mut answer.description,
            _ => continue,
        };
        *place = Some(value.into_owned());
    }
    Some((stream, answer))
}

async fn say(stream: &mut TcpStream, status: &str, words: &str) -> std::io::Result<()> {
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{words}",
        words.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
