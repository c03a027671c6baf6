//! The journal that `[store]` names.
//!
//! From [`Config`]. To whoever begins runs: a [`Journal`], or none where nothing is to be kept.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use fanout_core::call::{CallerId, RunId};
use fanout_core::event::RunKind;
use fanout_core::once::Once;
use fanout_journal::approvals::ApprovalStore;
use fanout_journal::spending::SpendingStore;
use fanout_journal::store::{NewRun, RunState, Store, StoreError};
use fanout_journal::{Connect, Journal, JournalOptions, PostgresStore, RunRecorder, SqliteStore};
use fanout_tools::kept::make_ignored_folder;
use fanout_tools::sql::{Database, DatabaseError, DatabaseOptions};
use tokio::task::JoinHandle;

use crate::approvals::{Approvals, GOOD_FOR};
use crate::config::{Config, SettingError, StorePlace};
use crate::environment::Environment;
use crate::ledger::StoreLedger;

/// The most bytes of what people know a run by.
const TITLE_MAX: usize = 120;

/// Ends the process once so many events are kept, as a crash would: debug builds obey it, for the tests that do so at every
/// event.
const KILL_AFTER: &str = "FANOUT_TEST_KILL_AFTER";

/// Why there is no journal.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its folder cannot be made.
    #[error("the folder of the journal {} cannot be made; name another file as `url` of [store], or \"memory:\"", path.display())]
    Folder {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It cannot be used.
    #[error("{0}; another place: `url` of [store]; \"memory:\" keeps nothing")]
    Store(StoreError),
    /// Its URL needs something that is not there.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// Its URL is not right.
    #[error("`url` of [store]: {0}")]
    Url(DatabaseError),
}

// Their words stand in ours already, so they are no sources.
impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<DatabaseError> for OpenError {
    fn from(error: DatabaseError) -> Self {
        Self::Url(error)
    }
}

/// A journal that is open, and the tasks that write it and say that this process lives.
#[derive(Debug)]
pub struct Opened {
    /// The journal.
    pub journal: Journal,
    /// Where tools of the same database keep what their calls came to.
    pub once: Arc<Once>,
    /// Where calls that need a person's approval wait for it.
    pub approvals: Approvals,
    /// What teams and their keys spend in a day.
    pub ledger: Arc<StoreLedger>,
    writing: JoinHandle<()>,
    beating: JoinHandle<()>,
}

impl Opened {
    /// Opens the journal that the configuration names; `None`: nothing is to be kept. Needs a runtime.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(config: &Config, environment: &Environment) -> Result<Option<Self>, OpenError> {
        let lease = config.worker.lease;
        if let StorePlace::Sqlite(path) = &config.store.place {
            make_ignored_folder(path).map_err(|source| OpenError::Folder { path: path.clone(), source })?;
        }
        let Some(database) = database(config, environment)? else { return Ok(None) };
        let (place, once) = (database.place(), database.once());
        let (store, approvals, spending): (_, Arc<dyn ApprovalStore>, Arc<dyn SpendingStore>) =
            match &config.store.place {
                StorePlace::Sqlite(path) => {
                    let store = Arc::new(SqliteStore::open(path)?);
                    (Arc::clone(&store) as Arc<dyn Store>, Arc::clone(&store) as _, store)
                }
                StorePlace::Memory | StorePlace::Postgres(_) => {
                    let store = Arc::new(PostgresStore::open(connect(database), place, lease).await?);
                    (Arc::clone(&store) as _, Arc::clone(&store) as _, store)
                }
            };
        let kill_after = environment.get(KILL_AFTER).filter(|_| cfg!(debug_assertions));
        let options = JournalOptions { kill_after: kill_after.and_then(|count| count.parse().ok()) };
        let (journal, writing) = Journal::new(Arc::clone(&store), options);
        let beating = tokio::spawn(async move {
            loop {
                tokio::time::sleep(lease / 3).await;
                // What is wrong with the journal is said where something is to be written.
                let _ = store.beat().await;
            }
        });
        let approvals = Approvals::new(approvals, GOOD_FOR);
        let ledger = Arc::new(StoreLedger::new(spending));
        Ok(Some(Self { journal, once: Arc::new(once), approvals, ledger, writing, beating }))
    }

    /// Writes what was recorded, and ends.
    ///
    /// # Errors
    /// Why not all of it could be written; the rest is lost with the process.
    pub async fn close(self) -> Result<(), StoreError> {
        self.beating.abort();
        let _ = tokio::time::timeout(SETTLE_MAX, self.ledger.settled()).await;
        self.journal.close();
        let mut writing = self.writing;
        loop {
            tokio::select! {
                _ = &mut writing => return Ok(()),
                () = tokio::time::sleep(CLOSE_LOOK) => {
                    if let Some(error) = self.journal.failing() {
                        return Err(error);
                    }
                }
            }
        }
    }
}

/// How long what runs really cost has to be written; what is not counts as spent.
const SETTLE_MAX: std::time::Duration = std::time::Duration::from_secs(2);

/// Where calls of the journal's own database keep what they came to; `None`: nothing is kept. Nothing is opened.
///
/// # Errors
/// [`OpenError`] for a URL that is not right, or needs something that is not there.
pub fn once(config: &Config, environment: &Environment) -> Result<Option<Once>, OpenError> {
    Ok(database(config, environment)?.map(|database| database.once()))
}

/// The database that the journal is in.
fn database(config: &Config, environment: &Environment) -> Result<Option<Database>, OpenError> {
    let url = match &config.store.place {
        StorePlace::Memory => return Ok(None),
        StorePlace::Sqlite(path) => format!("sqlite://{}", path.display()).into(),
        StorePlace::Postgres(url) => url.fill(environment)?,
    };
    Ok(Some(Database::new("store", DatabaseOptions::new(url))?))
}

/// How often is looked whether a journal that is being closed can be written at all.
const CLOSE_LOOK: std::time::Duration = std::time::Duration::from_millis(200);

/// How the journal reaches its PostgreSQL.
fn connect(database: Database) -> Connect {
    Arc::new(move || {
        let database = database.clone();
        Box::pin(async move {
            match database.connect().await {
                Some(connected) => connected,
                // Its URL is a PostgreSQL's.
                None => std::future::pending().await,
            }
        })
    })
}

/// Begins a run that is under way at once, and answers its recorder.
pub fn begin(
    journal: &Journal,
    run: &RunId,
    kind: RunKind,
    caller: &CallerId,
    project: Option<&str>,
    title: &str,
) -> RunRecorder {
    journal.begin(new_run(run, kind, RunState::Running, caller, project, title))
}

/// A run as the journal first knows it.
pub fn new_run(
    run: &RunId,
    kind: RunKind,
    state: RunState,
    caller: &CallerId,
    project: Option<&str>,
    title: &str,
) -> NewRun {
    let line = title.trim().replace(char::is_control, " ");
    NewRun {
        run: run.clone(),
        kind,
        state,
        caller: caller.to_string(),
        project: project.map(str::to_owned),
        title: line[..line.floor_char_boundary(TITLE_MAX)].to_owned(),
    }
}
