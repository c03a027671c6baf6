//! `[store]` and `[worker]`: where runs are kept, and how those in the background are worked on.
//!
//! From the page. To whoever opens the journal and works through its queue.

use std::path::PathBuf;
use std::time::Duration;

use super::field::Field;
use super::page::{Page, Section};
use super::sections::{count, or};
use super::setting::Setting;

/// `[store]`: where runs are kept.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The journal.
    pub place: StorePlace,
    /// For how long a run is kept after its end.
    pub retention: Duration,
}

/// Where the journal is.
#[derive(Clone, Debug)]
pub enum StorePlace {
    /// Nothing is kept beyond the process.
    Memory,
    /// In this SQLite file.
    Sqlite(PathBuf),
    /// In the PostgreSQL of this URL.
    Postgres(Setting),
}

/// The file that is used if none is named, beside the configuration.
const DEFAULT_FILE: &str = ".fanout/fanout.db";

impl Default for StoreConfig {
    fn default() -> Self {
        Self { place: StorePlace::Sqlite(DEFAULT_FILE.into()), retention: Duration::from_secs(30 * 24 * 60 * 60) }
    }
}

/// `[worker]`: background runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// How many of them go on at once in this process.
    pub concurrency: usize,
    /// Three times in so long the runs of processes that are gone are looked for.
    pub lease: Duration,
    /// A run in which nothing happens for so long is stopped.
    pub watchdog: Duration,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self { concurrency: 4, lease: Duration::from_secs(30), watchdog: Duration::from_secs(5 * 60) }
    }
}

pub(super) fn read(page: &Page<'_>, section: &Section<'_>) -> StoreConfig {
    let default = StorePlace::Sqlite(page.folder.join(DEFAULT_FILE));
    let config = StoreConfig {
        place: or(section, "url", default, |field| place(page, field)),
        retention: or(section, "retention", StoreConfig::default().retention, Field::duration),
    };
    section.finish();
    config
}

fn place(page: &Page<'_>, field: &Field<'_>) -> Option<StorePlace> {
    let url = field.string()?;
    if url == "memory:" {
        return Some(StorePlace::Memory);
    }
    // Who keeps a URL in a variable has a password in it, so it is no file's.
    if ["postgres:", "postgresql:", "${"].iter().any(|start| url.starts_with(start)) {
        return field.setting().map(StorePlace::Postgres);
    }
    let file = url.strip_prefix("sqlite:").map(|file| file.strip_prefix("//").unwrap_or(file));
    match file.filter(|file| !file.is_empty() && !file.contains(":memory:") && !file.contains('?')) {
        Some(file) => Some(StorePlace::Sqlite(page.folder.join(file))),
        None => {
            field.mistake("`url` of [store] must be \"sqlite://FILE\", \"postgres://…\" or \"memory:\"");
            None
        }
    }
}

pub(super) fn read_worker(section: &Section<'_>) -> WorkerConfig {
    let default = WorkerConfig::default();
    let config = WorkerConfig {
        concurrency: or(section, "concurrency", default.concurrency, |field| {
            count(field).and_then(|number| usize::try_from(number).ok())
        }),
        lease: or(section, "lease", default.lease, Field::duration),
        watchdog: or(section, "watchdog", default.watchdog, Field::duration),
    };
    section.finish();
    config
}
