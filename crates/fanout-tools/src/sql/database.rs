//! A database whose statements are tools.
//!
//! From its owner: a URL, and how it may be used. To [`SqlToolBuilder`](super::SqlToolBuilder), which makes a tool of
//! statements, and to calls, which run on its connections.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fanout_core::effects::Source;
use fanout_core::limits::POOL_CONNECTIONS;
use fanout_core::once::Once;
use fanout_core::outcome::Output;
use fanout_core::tool::{Attempt, ToolError};
use secrecy::{ExposeSecret, SecretString};

use super::infer::Catalog;
use super::postgres::{AddressError, Postgres};
use super::sqlite::{FileError, Sqlite};
use super::statement::{Dialect, Statement};
use super::unit::Unit;
use super::user::user;

/// A database that is asked what it holds answers by then, or is taken not to.
const LEARN_MAX: Duration = Duration::from_secs(15);

/// How a database is reached and used.
#[derive(Clone, Debug)]
pub struct DatabaseOptions {
    /// `postgres://user:password@host/database?sslmode=verify-full`, or `sqlite://shop.db`.
    pub url: SecretString,
    /// Relative paths in the URL start here.
    pub folder: PathBuf,
    /// The most connections at once.
    pub pool: u32,
    /// The longest that one statement may take; never more than nine tenths of its tool's time-out.
    pub statement_timeout: Duration,
    /// Each transaction runs with the role and the claims of the end user's verified token, so that row-level security
    /// holds. PostgreSQL only.
    pub role_from_claims: bool,
}

impl DatabaseOptions {
    /// The defaults of the configuration: 20 connections, 10 s.
    pub fn new(url: impl Into<SecretString>) -> Self {
        Self {
            url: url.into(),
            folder: PathBuf::new(),
            pool: POOL_CONNECTIONS,
            statement_timeout: Duration::from_secs(10),
            role_from_claims: false,
        }
    }
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Its URL is of no kind that we know.
    #[error("its URL must begin with `postgres://` or `sqlite://`")]
    Scheme,
    /// Its URL, as a PostgreSQL's.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Its URL, as a SQLite's.
    #[error(transparent)]
    File(#[from] FileError),
    /// SQLite has no roles.
    #[error("`role_from_claims` needs a PostgreSQL: SQLite has no roles")]
    NoRoles,
    /// It did not say what it holds.
    #[error("it cannot be asked what it holds: {0}")]
    Unreachable(String),
}

/// A database. Cloning it shares its connections; nothing is opened before it is needed.
#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    options: DatabaseOptions,
    backend: Backend,
    catalog: Mutex<Option<Arc<Catalog>>>,
}

#[derive(Debug)]
enum Backend {
    Postgres(Arc<Postgres>),
    Sqlite(Arc<Sqlite>),
}

impl Database {
    /// The database of that name; the name stands in keys and limit groups (`sql/NAME`). Nothing is opened.
    ///
    /// # Errors
    /// [`DatabaseError`] for a URL that cannot be right.
    pub fn new(name: impl Into<String>, options: DatabaseOptions) -> Result<Self, DatabaseError> {
        let url = options.url.expose_secret();
        let backend = match Self::dialect_of(url).ok_or(DatabaseError::Scheme)? {
            Dialect::Postgres => {
                Backend::Postgres(Arc::new(Postgres::new(&options.url, &options.folder, options.pool)?))
            }
            Dialect::Sqlite if options.role_from_claims => return Err(DatabaseError::NoRoles),
            Dialect::Sqlite => Backend::Sqlite(Arc::new(Sqlite::new(url, &options.folder, options.pool)?)),
        };
        let shared = Shared { name: name.into(), options, backend, catalog: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whose SQL a URL's database speaks, if its scheme is known.
    pub fn dialect_of(url: &str) -> Option<Dialect> {
        match url.split_once(':')?.0 {
            "postgres" | "postgresql" => Some(Dialect::Postgres),
            "sqlite" => Some(Dialect::Sqlite),
            _ => None,
        }
    }

    /// Asks what it holds: tables, keys, views, triggers. What tools read and write is inferred from it; those that are
    /// built before are taken to touch the whole database.
    ///
    /// # Errors
    /// [`DatabaseError::Unreachable`], also when there is no answer within 15 s.
    pub async fn learn(&self) -> Result<(), DatabaseError> {
        let learned = tokio::time::timeout(LEARN_MAX, self.shared.backend.catalog()).await;
        let late = || Err(format!("no answer within {LEARN_MAX:?}"));
        let catalog = learned.unwrap_or_else(|_| late()).map_err(DatabaseError::Unreachable)?;
        *self.shared.catalog.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(catalog));
        Ok(())
    }

    /// Has each statement looked at, and none carried out: what the database says of those that it would refuse, such as a
    /// column that is not there. Those that it takes, and all if it cannot be asked, are `None`. Also where it cannot tell: what
    /// only an end user may see.
    pub async fn refused(&self, statements: &[Statement]) -> Vec<Option<String>> {
        let looked = async {
            match &self.shared.backend {
                Backend::Postgres(postgres) => postgres.refused(statements).await,
                Backend::Sqlite(sqlite) => sqlite.refused(statements).await,
            }
        };
        let refused = tokio::time::timeout(LEARN_MAX, looked).await.unwrap_or_default();
        if refused.len() == statements.len() { refused } else { vec![None; statements.len()] }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Waits until no transaction runs, not even one whose call was stopped: that takes some seconds at most.
    ///
    /// # Cancellation
    /// Dropping the future changes nothing.
    pub async fn unused(&self) {
        match &self.shared.backend {
            Backend::Postgres(postgres) => postgres.unused().await,
            Backend::Sqlite(sqlite) => sqlite.unused().await,
        }
    }

    /// Whether the two share their connections.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// The one name of the database that its URL leads to, whoever comes and however: the file, or the servers and the
    /// database there. Two names may still be one database; one name is never two.
    pub fn place(&self) -> Arc<str> {
        match &self.shared.backend {
            Backend::Postgres(postgres) => postgres.place().into(),
            Backend::Sqlite(sqlite) => sqlite.place().into(),
        }
    }

    /// What the journal's own database offers to tools: see [`Once`]. Its table must be there.
    pub fn once(&self) -> Once {
        match self.dialect() {
            Dialect::Postgres => Once::postgres(self.place()),
            Dialect::Sqlite => Once::sqlite(self.place()),
        }
    }

    /// Opens a connection that is none of the pool's, if it is a PostgreSQL: for the journal, which has words of its own for
    /// it. The task that carries it ends with the client.
    ///
    /// # Errors
    /// What the connecting client was told.
    pub async fn connect(&self) -> Option<Result<tokio_postgres::Client, tokio_postgres::Error>> {
        match &self.shared.backend {
            Backend::Postgres(postgres) => Some(postgres.connect().await),
            Backend::Sqlite(_) => None,
        }
    }

    /// Whose SQL it speaks.
    pub fn dialect(&self) -> Dialect {
        match self.shared.backend {
            Backend::Postgres(_) => Dialect::Postgres,
            Backend::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// The source of its tools.
    pub fn source(&self) -> Source {
        Source::sql(self.name())
    }

    /// Whether the line to it leaves this machine and nothing proves who is at its other end: `sslmode` is neither
    /// `verify-ca` nor `verify-full`.
    pub fn is_unproven(&self) -> bool {
        match &self.shared.backend {
            Backend::Postgres(postgres) => postgres.is_unproven(),
            Backend::Sqlite(_) => false,
        }
    }

    pub(super) fn catalog(&self) -> Option<Arc<Catalog>> {
        self.shared.catalog.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn options(&self) -> &DatabaseOptions {
        &self.shared.options
    }

    /// Carries out a unit in one transaction, and answers with what its last member came to. Dropping the future stops it; see
    /// the backends.
    pub(super) async fn run(&self, unit: &Arc<Unit>, attempt: &Attempt) -> Result<Output, ToolError> {
        let mut outputs = match &self.shared.backend {
            Backend::Postgres(postgres) => {
                let user = if self.options().role_from_claims { Some(user(attempt)?) } else { None };
                postgres.run(unit, attempt.hold(), user).await
            }
            Backend::Sqlite(sqlite) => sqlite.run(unit, attempt.hold()).await,
        }?;
        Ok(outputs.pop().unwrap_or_default())
    }
}

impl Backend {
    async fn catalog(&self) -> Result<Catalog, String> {
        match self {
            Self::Postgres(postgres) => postgres.catalog().await,
            Self::Sqlite(sqlite) => sqlite.catalog().await,
        }
    }
}

impl fmt::Debug for Database {
    // The URL holds a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("name", &self.shared.name).finish_non_exhaustive()
    }
}
