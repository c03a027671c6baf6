//! PostgreSQL, and what is like it (Supabase).
//!
//! From the tool: a transaction and an input. To it: rows, or what went wrong and whether anything was kept.
//! In the order of a call: `address` says where to connect, `session` is a connection, `carrying` runs one transaction on
//! it, `statements` those of one call in it, `value` turns JSON into values and back, `failure` says what an error means; `catalog` asks what the database holds.
//!
//! No prepared statement outlives its transaction, so that it works behind a pooler that hands each transaction to another
//! server connection.

mod address;
mod carrying;
pub mod catalog;
mod failure;
mod progress;
mod session;
mod statements;
mod value;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use fanout_core::outcome::Output;
use fanout_core::tool::{Hold, ToolError};
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

pub use address::AddressError;

use address::Address;
use carrying::Carrying;
use catalog::CatalogError;
use progress::Progress;
use session::Session;

use super::infer::Catalog;
use super::pool::Pool;
use super::statement::Statement;
use super::unit::Unit;
use super::user::User;

/// So long it is awaited that a stopped statement ends; then its connection is closed under it, and the server ends it by
/// `statement_timeout` at the latest.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A PostgreSQL.
pub(super) struct Postgres {
    address: Address,
    pool: Arc<Pool<Session>>,
    types: Types,
}

/// What the parameters of each statement are, by its text.
#[derive(Default)]
struct Types(Mutex<HashMap<String, Arc<[Type]>>>);

impl Types {
    fn get(&self, statement: &Statement) -> Option<Arc<[Type]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(statement.text()).cloned()
    }

    /// What is known may be no more: somebody has changed the tables.
    fn forget(&self, unit: &Unit) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = unit.transactions().flat_map(|transaction| &transaction.steps);
        steps.for_each(|step| drop(known.remove(step.statement.text())));
    }

    fn put(&self, statement: &Statement, types: Arc<[Type]>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(statement.text().to_owned(), types);
    }
}

impl fmt::Debug for Postgres {
    // The address holds a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}

impl Postgres {
    pub(super) fn new(url: &SecretString, folder: &Path, connections: u32) -> Result<Self, AddressError> {
        Ok(Self {
            address: Address::parse(url.expose_secret(), folder)?,
            pool: Pool::new(connections),
            types: Types::default(),
        })
    }

    /// Whether the line to it leaves this machine and nobody proves who is at its other end.
    pub(super) fn is_unproven(&self) -> bool {
        self.address.is_unproven
    }

    /// A connection that is none of the pool's. The task that carries it ends with the client.
    pub(super) async fn connect(&self) -> Result<Client, Error> {
        let (client, connection) = self.address.config.connect(self.address.tls.clone()).await?;
        tokio::spawn(async move {
            // How it ended is told to whoever waits for an answer.
            let _ = connection.await;
        });
        Ok(client)
    }

    /// The one name of the database, whoever comes and however.
    pub(super) fn place(&self) -> String {
        self.address.place()
    }

    /// Waits until no transaction runs, not even one that is being stopped.
    pub(super) async fn unused(&self) {
        self.pool.unused().await;
    }

    /// Carries out a unit in one transaction. Answers with what each member came to.
    ///
    /// # Cancellation
    /// Dropping the future stops the statement in the server; until it is stopped, the attempt's locks are held. Once COMMIT
    /// is on its way it is awaited instead.
    pub(super) async fn run(
        self: &Arc<Self>,
        unit: &Arc<Unit>,
        hold: Hold,
        user: Option<User>,
    ) -> Result<Vec<Output>, ToolError> {
        let free = timeout(unit.begin_max(), self.pool.place()).await;
        let place = free.map_err(|_| unit.not_begun("no free connection to"))?;
        let progress: Arc<Progress> = Arc::default();
        let carrying =
            Carrying { postgres: Arc::clone(self), unit: Arc::clone(unit), user, progress: Arc::clone(&progress) };
        let work: Work = Box::pin(carrying.run(place));
        Carried { work: Some(work), progress, hold }.await
    }

    /// What the server says of each statement that it would refuse; nothing where it cannot be asked.
    pub(super) async fn refused(&self, statements: &[Statement]) -> Vec<Option<String>> {
        let mut refused = Vec::with_capacity(statements.len());
        let Ok(session) = Session::open(&self.address).await else { return refused };
        for statement in statements {
            // In a transaction, so that it is looked at where it is ended.
            if session.client.batch_execute("BEGIN READ ONLY").await.is_err() {
                return Vec::new();
            }
            let looked = session.client.prepare(statement.text()).await.map(drop);
            let is_refusal = |error: &Error| error.as_db_error().is_some() && !failure::is_not_for_us(error);
            refused.push(looked.err().filter(is_refusal).map(|error| failure::told(&error)));
            if session.client.batch_execute("ROLLBACK").await.is_err() {
                return Vec::new();
            }
        }
        refused
    }

    /// What the database holds, as its user sees it.
    pub(super) async fn catalog(&self) -> Result<Catalog, String> {
        let session = Session::open(&self.address).await.map_err(|error| failure::told(&error))?;
        catalog::load(&session.client).await.map_err(|error| match error {
            CatalogError::Refused(error) => failure::told(&error),
            CatalogError::Unreadable(error) => error.to_string(),
        })
    }
}

type Work = Pin<Box<dyn Future<Output = Result<Vec<Output>, ToolError>> + Send>>;

/// A transaction that somebody waits for. Where nobody does any more, it is stopped and ended by itself.
struct Carried {
    /// `None` once it has ended.
    work: Option<Work>,
    progress: Arc<Progress>,
    hold: Hold,
}

impl Future for Carried {
    type Output = Result<Vec<Output>, ToolError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else { return Poll::Ready(Err(ToolError::Stopped)) };
        let ended = ready!(work.as_mut().poll(cx));
        self.work = None;
        Poll::Ready(ended)
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        if let (Some(work), Ok(runtime)) = (self.work.take(), Handle::try_current()) {
            runtime.spawn(stop(work, Arc::clone(&self.progress), self.hold.clone()));
        }
    }
}

/// Ends a transaction that nobody waits for; the call's locks are held until it is over.
async fn stop(work: Work, progress: Arc<Progress>, _hold: Hold) {
    progress.spoil();
    if let Some(canceller) = progress.canceller().filter(|_| !progress.is_committing()) {
        // A statement that cannot be stopped so is stopped by its connection's end, below.
        let _ = timeout(STOP_MAX, canceller.cancel()).await;
    }
    // The answer is nobody's; what counts is that the work is over.
    let _ = timeout(STOP_MAX, work).await;
}
