//! One connection to a PostgreSQL.
//!
//! From `address`: how to connect. To a call, for one transaction.

use tokio::task::AbortHandle;
use tokio_postgres::{CancelToken, Client, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::Address;

/// An open connection. Dropped, it is closed, whatever it is waiting for.
pub(super) struct Session {
    pub(super) client: Client,
    work: AbortHandle,
}

/// How to stop what a connection is doing.
#[derive(Clone)]
pub(super) struct Canceller {
    token: CancelToken,
    tls: MakeRustlsConnect,
}

impl Session {
    /// # Cancellation
    /// Dropping the future gives the connection up.
    pub(super) async fn open(address: &Address) -> Result<Self, Error> {
        let (client, connection) = address.config.connect(address.tls.clone()).await?;
        let work = tokio::spawn(async move {
            // How it ended is told to whoever waits for an answer.
            let _ = connection.await;
        });
        Ok(Self { client, work: work.abort_handle() })
    }

    pub(super) fn canceller(&self, address: &Address) -> Canceller {
        Canceller { token: self.client.cancel_token(), tls: address.tls.clone() }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl Canceller {
    /// Asks the server to stop the statement, over a connection of its own. Whether it did shows in the statement's answer.
    pub(super) async fn cancel(&self) -> Result<(), Error> {
        self.token.cancel_query(self.tls.clone()).await
    }
}
