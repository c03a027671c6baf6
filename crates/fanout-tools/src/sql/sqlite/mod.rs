//! SQLite: a database in one file.
//!
//! From the tool: a transaction and an input. To it: rows, or what went wrong and whether anything was kept.
//! `carrying` runs one transaction, on a thread that may block; `value` turns JSON into values and back; `catalog` asks what
//! the database holds.

mod carrying;
pub mod catalog;
mod value;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanout_core::outcome::Output;
use fanout_core::tool::{Hold, ToolError};
use rusqlite::{Connection, OpenFlags};
use tokio::task::JoinError;
use tokio::time::timeout;

use carrying::Carrying;

use super::infer::Catalog;
use super::pool::Pool;
use super::statement::Statement;
use super::unit::Unit;

/// So long a connection waits for another one's lock; then the call gives its connection up, backs off and comes again.
const BUSY_MAX: Duration = Duration::from_secs(1);

/// A SQLite.
#[derive(Debug)]
pub(super) struct Sqlite {
    path: PathBuf,
    flags: OpenFlags,
    pool: Arc<Pool<Connection>>,
}

/// Why a URL names no SQLite that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// No path in it, or one that is kept nowhere.
    #[error("`{0}` names no file; a SQLite is written as sqlite://shop.db, or sqlite:///var/lib/shop.db")]
    Path(String),
    /// An unknown `mode`.
    #[error("`{0}` is none of mode=ro, mode=rw, mode=rwc")]
    Mode(String),
}

impl Sqlite {
    /// Reads a URL; a relative path starts at `folder`. A file that is not there is made only with `?mode=rwc`.
    pub(super) fn new(url: &str, folder: &Path, connections: u32) -> Result<Self, FileError> {
        let place = url.strip_prefix("sqlite:").unwrap_or(url);
        let place = place.strip_prefix("//").unwrap_or(place);
        let (path, mode) = place.split_once('?').unwrap_or((place, "mode=rw"));
        if path.is_empty() || path.contains(":memory:") {
            return Err(FileError::Path(url.to_owned()));
        }
        let flags = match mode {
            "mode=ro" => OpenFlags::SQLITE_OPEN_READ_ONLY,
            "mode=rw" => OpenFlags::SQLITE_OPEN_READ_WRITE,
            "mode=rwc" => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
            other => return Err(FileError::Mode(other.to_owned())),
        };
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Ok(Self { path: folder.join(path), flags, pool: Pool::new(connections) })
    }

    /// The one name of the file, as far as it is there.
    pub(super) fn place(&self) -> String {
        let whole = |path: &Path| path.canonicalize();
        let path = whole(&self.path).or_else(|error| match (self.path.parent(), self.path.file_name()) {
            (Some(folder), Some(name)) => {
                Ok(whole(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?.join(name))
            }
            _ => Err(error),
        });
        format!("sqlite:{}", path.unwrap_or_else(|_| self.path.clone()).display())
    }

    /// Opens a connection. Blocks.
    pub(super) fn open(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(&self.path, self.flags)?;
        connection.busy_timeout(BUSY_MAX)?;
        // What the schema says of foreign keys holds; SQLite leaves it to each connection.
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok(connection)
    }

    /// What SQLite says of each statement that it would refuse; nothing where the file cannot be opened.
    pub(super) async fn refused(self: &Arc<Self>, statements: &[Statement]) -> Vec<Option<String>> {
        let (sqlite, statements) = (Arc::clone(self), statements.to_vec());
        let looked = tokio::task::spawn_blocking(move || -> rusqlite::Result<Vec<_>> {
            let connection = sqlite.open()?;
            let look =
                |statement: &Statement| connection.prepare(statement.text()).err().map(|error| carrying::told(&error));
            Ok(statements.iter().map(look).collect())
        });
        looked.await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// What the database holds.
    pub(super) async fn catalog(self: &Arc<Self>) -> Result<Catalog, String> {
        let sqlite = Arc::clone(self);
        let loaded = tokio::task::spawn_blocking(move || catalog::load(&sqlite.open()?)).await;
        loaded.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// Waits until no transaction runs, not even one that is being stopped.
    pub(super) async fn unused(&self) {
        self.pool.unused().await;
    }

    /// Carries out a unit in one transaction. Answers with what each member came to.
    ///
    /// # Cancellation
    /// Dropping the future stops the statement within moments; until then the attempt's locks are held. What waits for
    /// another process's lock stops after a second.
    pub(super) async fn run(self: &Arc<Self>, unit: &Arc<Unit>, hold: Hold) -> Result<Vec<Output>, ToolError> {
        let free = timeout(unit.begin_max(), self.pool.place()).await;
        let place = free.map_err(|_| unit.not_begun("no free connection to"))?;
        let wanted = Wanted::default();
        let carrying = Carrying { sqlite: Arc::clone(self), unit: Arc::clone(unit), unwanted: Arc::clone(&wanted.0) };
        let ended = tokio::task::spawn_blocking(move || {
            let result = carrying.run(&place);
            drop((place, hold));
            result
        });
        ended.await.unwrap_or_else(|error: JoinError| match error.is_panic() {
            true => Err(ToolError::Panicked(error.to_string())),
            false => Err(ToolError::Stopped),
        })
    }
}

/// Somebody waits for the answer; dropped, nobody does.
#[derive(Default)]
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_name_however_it_is_reached_and_before_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("shop.db");
        let place = |url: &str| Sqlite::new(url, folder.path(), 1).unwrap().place();
        let names =
            || ["sqlite://shop.db", "sqlite:./shop.db?mode=rwc", &format!("sqlite://{}", whole.display())].map(place);
        let before = names();
        std::fs::write(&whole, "").unwrap();
        assert_eq!((&before[0], &before[0], &before), (&before[1], &before[2], &names()));
        assert_ne!(before[0], place("sqlite://other.db"));
    }

    #[test]
    fn a_file_is_named_by_a_url_and_is_not_made_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let path = |url: &str| Sqlite::new(url, folder.path(), 1).map(|sqlite| sqlite.path);
        assert_eq!(path("sqlite://shop.db"), Ok(folder.path().join("shop.db")));
        assert_eq!(path("sqlite:///var/shop.db"), Ok("/var/shop.db".into()));
        assert_eq!(path("sqlite:shop.db?mode=ro"), Ok(folder.path().join("shop.db")));
        assert!(matches!(path("sqlite::memory:"), Err(FileError::Path(_))));
        assert!(matches!(path("sqlite://"), Err(FileError::Path(_))));
        assert_eq!(path("sqlite://a?mode=x"), Err(FileError::Mode("mode=x".to_owned())));
        assert!(Sqlite::new("sqlite://shop.db", folder.path(), 1).unwrap().open().is_err());
        assert!(!folder.path().join("shop.db").exists());
        assert!(Sqlite::new("sqlite://shop.db?mode=rwc", folder.path(), 1).unwrap().open().is_ok());
    }
}
