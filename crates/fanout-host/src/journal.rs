//! The journal that `[store]` names.
//!
//! From [`StoreConfig`]. To whoever begins runs: a [`Journal`], or none where nothing is to be kept.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use fanout_core::call::{CallerId, RunId};
use fanout_core::event::RunKind;
use fanout_journal::store::{NewRun, RunState, StoreError};
use fanout_journal::{Journal, JournalOptions, RunRecorder, SqliteStore};
use fanout_tools::kept::make_ignored_folder;
use tokio::task::JoinHandle;

use crate::config::{StoreConfig, StorePlace};
use crate::environment::Environment;

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
    /// The file cannot be used.
    #[error("{0}; another file: `url` of [store]; \"memory:\" keeps nothing")]
    Store(#[from] StoreError),
}

/// A journal that is open, and the task that writes it.
#[derive(Debug)]
pub struct Opened {
    /// The journal.
    pub journal: Journal,
    writing: JoinHandle<()>,
}

impl Opened {
    /// Opens the journal that the configuration names; `None`: nothing is to be kept. Needs a runtime.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(config: &StoreConfig, environment: &Environment) -> Result<Option<Self>, OpenError> {
        let StorePlace::Sqlite(path) = &config.place else { return Ok(None) };
        make_ignored_folder(path).map_err(|source| OpenError::Folder { path: path.clone(), source })?;
        let store = SqliteStore::open(path)?;
        let kill_after = environment.get(KILL_AFTER).filter(|_| cfg!(debug_assertions));
        let options = JournalOptions { kill_after: kill_after.and_then(|count| count.parse().ok()) };
        let (journal, writing) = Journal::new(Arc::new(store), options);
        Ok(Some(Self { journal, writing }))
    }

    /// Writes what was recorded, and ends.
    ///
    /// # Errors
    /// Why not all of it could be written; the rest is lost with the process.
    pub async fn close(self) -> Result<(), StoreError> {
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

/// How often is looked whether a journal that is being closed can be written at all.
const CLOSE_LOOK: std::time::Duration = std::time::Duration::from_millis(200);

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
