//! One MCP server: how it is reached, and the one connection that all its tools share.
//!
//! From whoever reads the configuration. To `tool`, which asks for the connection at every attempt.
//!
//! A server that is gone is started again by the next call that needs it: at once if it had run for a while, else after a
//! wait that doubles. What it lists afterwards decides which calls still make sense; a toolbox, which is fixed, does not
//! change with it: who watches the list makes another.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use fanout_core::secrets::Secrets;
use http::{HeaderName, HeaderValue};
use rmcp::model::Tool;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;
use url::Url;

use super::catalogue::{Catalogued, known};
use super::connection::Connection;
use super::failure::McpError;
use super::oauth::McpAccess;
use super::process::Launch;
use crate::http::HttpClient;

/// So long a server may take from its start to its list of tools: a launcher such as `npx -y` or `uvx` downloads it first.
const START_MAX: Duration = Duration::from_secs(60);

/// A server that has run for so long did not fail because of how it was started.
const STEADY: Duration = Duration::from_secs(10);

/// The first wait between two starts, and the longest; it doubles with every start that failed or did not last.
const WAIT: Duration = Duration::from_millis(250);
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A shorter wait for the next start is waited out; for a longer one a call is answered at once.
const WAITED_OUT: Duration = Duration::from_secs(1);

/// How a server is reached.
#[derive(Clone)]
pub enum McpReach {
    /// As a program of our own, over its standard streams. It is started when it is first needed, and ends with us.
    Program {
        /// The program, looked for in its own `PATH`.
        program: OsString,
        /// Its arguments, each as it is: no shell reads them.
        args: Vec<OsString>,
        /// Its whole environment: nothing is inherited beside it.
        env: Vec<(String, SecretString)>,
        /// The folder that it runs in; `None` is ours.
        folder: Option<PathBuf>,
        /// What is hidden in what it writes on its standard error, which goes into logs and messages.
        secrets: Arc<Secrets>,
    },
    /// Over streamable HTTP.
    Http {
        /// Its address.
        url: SecretString,
        /// Headers of every request.
        headers: Vec<(String, SecretString)>,
        /// The connections.
        client: HttpClient,
        /// Where its tokens come from; `None`: it is sent none but those of `headers`.
        access: Option<McpAccess>,
    },
}

/// One server. Cloning it shares the connection; dropping the last clone, and the last tool, closes it.
#[derive(Clone, Debug)]
pub struct McpServer {
    pub(super) shared: Arc<Shared>,
}

/// A tool as the server lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct McpListed {
    /// What the server calls it.
    pub name: String,
    /// What it says of it.
    pub description: String,
    /// The JSON Schema of its input.
    pub input_schema: Value,
    /// Its hint that it changes nothing. A hint: it makes no tool repeatable.
    pub read_only: bool,
    /// What the catalogue says of it.
    pub catalogued: Option<Catalogued>,
}

pub(super) struct Shared {
    name: String,
    reach: Reach,
    current: Mutex<Option<Arc<Connection>>>,
    /// What the server listed last.
    listed: Mutex<Vec<Tool>>,
    /// Who wants to know when that changes.
    watcher: OnceLock<Arc<Notify>>,
    /// One start at a time.
    starts: tokio::sync::Mutex<Starts>,
}

enum Reach {
    Program(Launch),
    Http { url: Url, headers: HashMap<HeaderName, HeaderValue>, client: HttpClient, access: Option<McpAccess> },
}

/// What became of the starts so far.
#[derive(Default)]
struct Starts {
    /// So many in a row failed or did not last.
    failures: u32,
    last: Option<Instant>,
    error: Option<McpError>,
}

impl McpServer {
    /// A server that is not reached for before it is needed.
    ///
    /// # Errors
    /// [`McpError::Reach`] for an address or a header that cannot be used.
    pub fn new(name: &str, reach: McpReach) -> Result<Self, McpError> {
        let reach = match reach {
            McpReach::Program { program, args, env, folder, secrets } => {
                let env = env.into_iter().map(|(name, value)| (name, value.expose_secret().into())).collect();
                Reach::Program(Launch { program, args, env, folder, secrets })
            }
            McpReach::Http { url, headers, client, access } => {
                let wrong =
                    || McpError::Reach("`url` must be an address such as \"https://example.com/mcp\"".to_owned());
                let url = Url::parse(url.expose_secret()).map_err(|_| wrong())?;
                if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
                    return Err(wrong());
                }
                let headers = headers.iter().map(header).collect::<Result<_, _>>()?;
                Reach::Http { url, headers, client, access }
            }
        };
        let shared = Shared {
            name: name.to_owned(),
            reach,
            current: Mutex::default(),
            listed: Mutex::default(),
            watcher: OnceLock::new(),
            starts: tokio::sync::Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Has `watcher` told whenever the server lists its tools otherwise than before. The first watcher stays.
    pub fn watch_list(&self, watcher: &Arc<Notify>) {
        let _ = self.shared.watcher.set(Arc::clone(watcher));
    }

    /// Connects, if it is not yet, and lists the tools, in the order of the server. Takes at most a minute.
    ///
    /// # Errors
    /// [`McpError`] says what became of it, with what the server said last.
    pub async fn list(&self) -> Result<Vec<McpListed>, McpError> {
        let connection = Shared::connection(&self.shared).await?;
        let tools = tokio::time::timeout(START_MAX, connection.list()).await.map_err(|_| slow())??;
        self.shared.relisted(&tools);
        let known = known(connection.server().as_ref(), &tools);
        Ok(tools.into_iter().map(|tool| McpListed { catalogued: known(&tool.name), ..McpListed::of(tool) }).collect())
    }
}

fn header((name, value): &(String, SecretString)) -> Result<(HeaderName, HeaderValue), McpError> {
    let unsendable = || McpError::Reach(format!("the header `{name}` cannot be sent"));
    let header = HeaderName::try_from(name).map_err(|_| unsendable())?;
    if matches!(
        header.as_str(),
        "accept" | "content-type" | "mcp-session-id" | "last-event-id" | "host" | "content-length"
    ) {
        return Err(McpError::Reach(format!("the header `{name}` is set by the protocol itself")));
    }
    let mut value = HeaderValue::from_str(value.expose_secret()).map_err(|_| unsendable())?;
    value.set_sensitive(true);
    Ok((header, value))
}

impl McpListed {
    fn of(tool: Tool) -> Self {
        let read_only = is_read_only(&tool);
        let title = tool.title.unwrap_or_default();
        Self {
            name: tool.name.into_owned(),
            description: tool.description.map_or(title, std::borrow::Cow::into_owned),
            input_schema: Value::Object((*tool.input_schema).clone()),
            read_only,
            catalogued: None,
        }
    }
}

fn is_read_only(tool: &Tool) -> bool {
    tool.annotations.as_ref().and_then(|hints| hints.read_only_hint).unwrap_or_default()
}

fn slow() -> McpError {
    McpError::Slow(format!("{} s", START_MAX.as_secs()))
}

impl Shared {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the server still lists this tool, and if so, whether it hints that it changes nothing.
    pub(super) fn listed(&self, tool: &str) -> Option<bool> {
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed.iter().find(|listed| listed.name == tool).map(is_read_only)
    }

    /// Takes a new list. What it changes is logged, and told to who watches: the toolbox that was made of the first one stays
    /// as it is.
    pub(super) fn relisted(&self, tools: &[Tool]) {
        let old = {
            let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *listed, tools.to_vec())
        };
        if old.is_empty() || old == tools {
            return;
        }
        let lacks = |tools: &[Tool], name: &str| !tools.iter().any(|tool| tool.name == name);
        let added: Vec<&str> = tools.iter().map(|tool| &*tool.name).filter(|name| lacks(&old, name)).collect();
        let gone: Vec<&str> = old.iter().map(|tool| &*tool.name).filter(|name| lacks(tools, name)).collect();
        match self.watcher.get() {
            Some(watcher) => {
                tracing::info!(target: "fanout::mcp", server = self.name, ?added, ?gone, "the server's tools have changed");
                watcher.notify_one();
            }
            None => tracing::warn!(
                target: "fanout::mcp", server = self.name, ?added, ?gone,
                "the server's tools have changed; what is new is offered after a restart of fanout"
            ),
        }
    }

    /// The connection, made anew if there is none. Whoever stops waiting stops no start: others wait for the same.
    pub(super) async fn connection(shared: &Arc<Self>) -> Result<Arc<Connection>, McpError> {
        if let Some(connection) = shared.open() {
            return Ok(connection);
        }
        let (asked, own) = (Instant::now(), Arc::clone(shared));
        let started = tokio::spawn(async move { own.start(asked).await }).await;
        started.unwrap_or_else(|_| Err(McpError::Start("its start was broken off".to_owned())))
    }

    fn open(&self) -> Option<Arc<Connection>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().filter(|connection| !connection.is_closed()).map(Arc::clone)
    }

    /// Starts it, for whoever asked at this moment: a start that failed since then is an answer to them too.
    async fn start(self: Arc<Self>, asked: Instant) -> Result<Arc<Connection>, McpError> {
        let mut starts = self.starts.lock().await;
        if let Some(connection) = self.open() {
            return Ok(connection);
        }
        if let (Some(error), Some(last)) = (&starts.error, starts.last)
            && last >= asked
        {
            return Err(error.clone());
        }
        let died = self.current.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(died) = &died {
            match died.is_lost() {
                true => tracing::info!(target: "fanout::mcp", server = self.name, "the server has lost its session"),
                false => {
                    tracing::warn!(target: "fanout::mcp", server = self.name, "the server is gone; it is started again");
                }
            }
            let lasted = starts.last.is_some_and(|last| last.elapsed() >= STEADY);
            starts.failures = if lasted { 0 } else { starts.failures + 1 };
        }
        // Ending what is left of it may take a moment, in which no task of this thread would run.
        let ended = tokio::task::spawn_blocking(move || drop(died)).await;
        ended.map_err(|_| McpError::Start("its start was broken off".to_owned()))?;
        let wait = starts.wait();
        if wait > WAITED_OUT {
            let error = starts.error.as_ref().map_or("it keeps ending".to_owned(), ToString::to_string);
            return Err(McpError::Waiting(error));
        }
        tokio::time::sleep(wait).await;
        let made = tokio::time::timeout(START_MAX, self.connect()).await.unwrap_or_else(|_| Err(slow()));
        starts.last = Some(Instant::now());
        match made {
            Ok(connection) => {
                let connection = Arc::new(connection);
                *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&connection));
                starts.error = None;
                Ok(connection)
            }
            Err(error) => {
                starts.failures += 1;
                starts.error = Some(error.clone());
                Err(error)
            }
        }
    }

    async fn connect(self: &Arc<Self>) -> Result<Connection, McpError> {
        let ears = Arc::downgrade(self);
        let connection = match &self.reach {
            Reach::Program(launch) => Connection::with_process(ears, &self.name, launch).await?,
            Reach::Http { url, headers, client, access } => {
                Connection::over_http(ears, client, url, headers.clone(), access.clone()).await?
            }
        };
        // Not the first time: what it lists now may differ.
        let known = !self.listed.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if known {
            self.relisted(&connection.list().await?);
        }
        Ok(connection)
    }
}

impl Starts {
    /// How long until the next start is due.
    fn wait(&self) -> Duration {
        let (Some(last), Some(doublings)) = (self.last, self.failures.checked_sub(1)) else { return Duration::ZERO };
        let wait = WAIT.saturating_mul(2_u32.saturating_pow(doublings)).min(WAIT_MAX);
        wait.saturating_sub(last.elapsed())
    }
}

impl fmt::Debug for Shared {
    // Not how it is reached: addresses, headers and variables may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpServer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Whether both lead to the same server in the same way.
impl PartialEq for McpReach {
    fn eq(&self, other: &Self) -> bool {
        let exposed = |pairs: &[(String, SecretString)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect()
        };
        match (self, other) {
            (
                Self::Program { program, args, env, folder, .. },
                Self::Program {
                    program: their_program, args: their_args, env: their_env, folder: their_folder, ..
                },
            ) => {
                (program, args, folder) == (their_program, their_args, their_folder)
                    && exposed(env) == exposed(their_env)
            }
            // Who was given access may have been given another one since.
            (
                Self::Http { url, headers, access: None, .. },
                Self::Http { url: their_url, headers: their_headers, access: None, .. },
            ) => url.expose_secret() == their_url.expose_secret() && exposed(headers) == exposed(their_headers),
            _ => false,
        }
    }
}

impl fmt::Debug for McpReach {
    // Nothing of it: see above.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Program { .. } => "Program",
            Self::Http { .. } => "Http",
        })
    }
}
