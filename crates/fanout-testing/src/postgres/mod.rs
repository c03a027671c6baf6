//! A throw-away PostgreSQL: for tests that need a real one.
//!
//! From the PostgreSQL, pgbouncer and openssl that are installed. To tests and benches: servers of their own, in a
//! temporary folder and on a free port, which end with the process that started them, however that ends. Nothing here
//! ever connects to a server that it did not start.

mod database;
mod keeper;
mod pooler;
mod programs;
mod server;

pub use database::Database;
pub use pooler::Pgbouncer;
pub use server::Postgres;

use std::io;
use std::path::PathBuf;

/// What Supabase sets up in every project, as far as row-level security rests on it: the roles `anon`, `authenticated`,
/// `service_role` and `authenticator`, and `auth.uid()`, `auth.role()`, `auth.jwt()`, which read `request.jwt.claims`.
/// It may be run in several databases of one server: roles that are there are left.
pub const SUPABASE: &str = include_str!("supabase.sql");

/// Why there is no server, or why it did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The machine has not what it takes. Nothing is skipped for it: the tests fail.
    #[error(
        "{what} is neither on PATH nor where packages put it: install the package `{package}`, or run `cargo xtask test`, which does"
    )]
    Missing {
        /// What was looked for.
        what: String,
        /// The package of Debian and its like that has it.
        package: &'static str,
    },
    /// A program that cannot be started.
    #[error("`{program}` cannot be started")]
    NotStarted {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program that ended with an error, or never got ready.
    #[error("`{program}` failed:\n{said}")]
    Failed {
        /// Which.
        program: String,
        /// What it printed or logged.
        said: String,
    },
    /// A file or folder of the server that cannot be written or read.
    #[error("`{}` cannot be used", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No port of the loopback could be had.
    #[error("no free port on 127.0.0.1")]
    NoPort(#[source] io::Error),
}
