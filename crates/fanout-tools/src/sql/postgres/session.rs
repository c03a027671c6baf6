//! One connection to a PostgreSQL.
//!
//! From `address`: how to connect. To a call, for one transaction.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_postgres::config::Host;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Client, Config, Error, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::{Address, PORT};

/// An open connection. Dropped, it is closed, whatever it is waiting for.
pub(super) struct Session {
    pub(super) client: Client,
    /// When its server was started.
    pub(super) started: String,
    work: AbortHandle,
}

/// How to stop what a connection is doing.
#[derive(Clone)]
pub(super) struct Canceller {
    token: CancelToken,
    tls: MakeRustlsConnect,
    /// Where the server is, if there is one place only.
    place: Option<(String, u16)>,
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
        let work = work.abort_handle();
        let mut session = Self { client, started: String::new(), work };
        // Over the simple protocol, which leaves nothing behind on a pooler's connection.
        let messages = session.client.simple_query("select pg_postmaster_start_time()::text").await?;
        let started = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        session.started = started.unwrap_or_default().to_owned();
        Ok(session)
    }

    pub(super) fn canceller(&self, address: &Address) -> Canceller {
        Canceller { token: self.client.cancel_token(), tls: address.tls.clone(), place: place(&address.config) }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// The host and the port of a server that is in one place.
fn place(config: &Config) -> Option<(String, u16)> {
    let [Host::Tcp(host)] = config.get_hosts() else { return None };
    Some((host.clone(), config.get_ports().first().copied().unwrap_or(PORT)))
}

impl Canceller {
    /// Asks the server to stop the statement, over a connection of its own. Whether it did shows in the statement's answer.
    pub(super) async fn cancel(&self) -> Result<(), Error> {
        let stream = match &self.place {
            Some((host, port)) => TcpStream::connect((host.as_str(), *port)).await.ok(),
            None => None,
        };
        let Some((stream, (host, _))) = stream.zip(self.place.as_ref()) else {
            return self.token.cancel_query(self.tls.clone()).await;
        };
        let mut tls = self.tls.clone();
        let Ok(tls) = MakeTlsConnect::<Patient>::make_tls_connect(&mut tls, host);
        self.token.cancel_query_raw(Patient(stream), tls).await
    }
}

/// A line that is closed by the other end first. pgbouncer 1.18 ends altogether where a request to cancel is hung up before
/// it was passed on (its issues 801 and 846).
struct Patient(TcpStream);

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut unheard = [0; 64];
            let mut buffer = ReadBuf::new(&mut unheard);
            match ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                // It is closed, one way or another.
                _ => return Pin::new(&mut self.0).poll_shutdown(cx),
            }
        }
    }
}
