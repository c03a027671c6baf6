//! The memory: every event of every run, kept, so that a broken run can go on.
//!
//! From [`fanout_core`]: events. To it, after a restart: the same events again. What a run does with them is not known here.
//!
//! The modules in the order of an event:

pub mod record;

mod recorder;
mod writer;

pub mod approvals;
pub mod deeds;
pub mod memo;
pub mod spending;
pub mod store;

mod memory;

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

mod journal;

pub use journal::{Journal, JournalOptions, Told};
pub use memory::MemoryApprovals;
#[cfg(feature = "postgres")]
pub use postgres::{Connect, PostgresStore};
pub use recorder::RunRecorder;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;
