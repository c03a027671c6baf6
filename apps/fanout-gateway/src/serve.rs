//! Opening and closing the door.
//!
//! From an address. To the [`Gateway`]: connections, each with a bound on how long its headers may take and on how long it
//! may do nothing. When it is time to stop, nobody new is let in, and what runs is given time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket};

use crate::gateway::Gateway;

/// How many connections may wait to be accepted. The usual 128 overflow when a thousand clients begin at once.
const WAITING_MAX: u32 = 4096;

/// How long the headers of a request may take, and how long a kept connection may be without one. Longer than most clients
/// keep idle connections, so that it is they who close: then no request is lost in between.
const HEADERS_MAX: Duration = Duration::from_secs(60);

/// After a failed accept (too many open files, say) the next one waits: the failure would only repeat.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long stopped runs have to write their answers.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Opens an address with room for a crowd. Needs a runtime.
///
/// # Errors
/// When the address can't be had.
pub fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A fixed port can be had again at once after a restart.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING_MAX)
}

/// Serves until `shutdown` is ready. From then on no connection and no call is taken; what runs has `grace` to end, is then
/// stopped, and has a few seconds more to say what it came to.
///
/// # Cancellation
/// Dropping the future closes the port. Connections that are open go on by themselves.
pub async fn serve(listener: TcpListener, gateway: &Gateway, shutdown: impl Future<Output = ()>, grace: Duration) {
    let router = gateway.router();
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS_MAX);
    let connections = GracefulShutdown::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Events are small and are waited for; a socket that is gone by now says so when it is read.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = connections.watch(builder.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    gateway.close();
    let ended = async {
        connections.shutdown().await;
        gateway.idle().await;
    };
    tokio::pin!(ended);
    if tokio::time::timeout(grace, &mut ended).await.is_err() {
        tracing::warn!("what still runs is stopped: its time to end is over");
        gateway.stop();
        // Who does not read its answer by then does not get it.
        let _ = tokio::time::timeout(LAST_WORDS, ended).await;
    }
}
