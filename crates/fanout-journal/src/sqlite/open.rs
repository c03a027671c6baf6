//! Opens the file, brings it to the present layout, and has a thread work with it.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use fanout_core::tool::BoxFuture;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::oneshot;

use crate::store::StoreError;

/// What makes each layout of the one before, from the empty file on. None is ever changed.
const LAYOUTS: [&str; 5] = [
    include_str!("../../migrations/sqlite/1.sql"),
    include_str!("../../migrations/sqlite/2.sql"),
    include_str!("../../migrations/sqlite/3.sql"),
    include_str!("../../migrations/sqlite/4.sql"),
    include_str!("../../migrations/sqlite/5.sql"),
];

/// So long one connection waits for another's, of this process or not: longer than any transaction of ours takes.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// Opens the file, or makes it.
pub(super) fn connect(path: &Path) -> Result<Connection, StoreError> {
    private(path).map_err(|error| of_system(path, &error))?;
    let connect = || {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_MAX)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        let found = migrate(&mut connection)?;
        Ok((connection, found))
    };
    let (connection, found) = connect().map_err(|error| of_sqlite(path, &error))?;
    let known = u32::try_from(LAYOUTS.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(StoreError::Newer { place: shown(path), found, known });
    }
    Ok(connection)
}

/// Brings the file to the newest layout. Answers the layout that it has then; a newer one is left alone.
fn migrate(connection: &mut Connection) -> rusqlite::Result<u32> {
    let layout =
        |connection: &Connection| connection.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0));
    let newest = u32::try_from(LAYOUTS.len()).unwrap_or(u32::MAX);
    if layout(connection)? >= newest {
        return layout(connection);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been first.
    let found = layout(&transaction)?;
    for migration in LAYOUTS.iter().skip(found as usize) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", newest.max(found))?;
    transaction.commit()?;
    Ok(newest.max(found))
}

/// Makes the file before SQLite does, so that nobody else can read it; SQLite gives those beside it the same rights.
fn private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// A connection on a thread of its own: it does one thing after another.
pub(super) struct Worker {
    path: PathBuf,
    jobs: Sender<Job>,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

impl Worker {
    pub(super) fn start(path: &Path, mut connection: Connection) -> Result<Self, StoreError> {
        let (jobs, inbox) = channel::<Job>();
        let work = move || inbox.into_iter().for_each(|job| job(&mut connection));
        let thread = thread::Builder::new().name("journal".to_owned());
        thread.spawn(work).map_err(|error| of_system(path, &error))?;
        Ok(Self { path: path.to_owned(), jobs })
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Has something done. It is done even if nobody waits for the answer any more.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let _ = tell.send(job(connection));
        });
        let sent = self.jobs.send(job).is_ok();
        Box::pin(async move {
            let gone = || StoreError::Unusable { place: shown(&self.path), detail: "its thread is gone".to_owned() };
            if !sent {
                return Err(gone());
            }
            let answer = told.await.map_err(|_| gone())?;
            answer.map_err(|error| of_sqlite(&self.path, &error))
        })
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn of_sqlite(path: &Path, error: &rusqlite::Error) -> StoreError {
    let (place, detail) = (shown(path), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { place },
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            StoreError::ReadOnly { place, detail }
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged { place, detail },
        // A disk that has turned read-only under an open file says no more than that; whoever opens the file is told.
        Some(ErrorCode::SystemIoFailure) => match private(path) {
            Err(error) => of_system(path, &error),
            Ok(()) => StoreError::Unusable {
                place,
                detail: format!("{detail}: look at its disk, and what the system logs of it"),
            },
        },
        _ => StoreError::Unusable { place, detail },
    }
}

pub(super) fn of_system(path: &Path, error: &io::Error) -> StoreError {
    let (place, detail) = (shown(path), error.to_string());
    match error.kind() {
        io::ErrorKind::StorageFull => StoreError::Full { place },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly { place, detail },
        _ => StoreError::Unusable { place, detail },
    }
}
