//! Somebody wants it to stop: Ctrl-C, or the signal that stops a container.

use std::io;

use crate::exit::INTERRUPTED;
use crate::show::say;

/// From now on the first signal calls `stop`, so that what runs can end in good order, and the second ends the process.
///
/// # Errors
/// When the signals cannot be listened to.
pub fn on_interrupt(stop: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::listen()?;
    tokio::spawn(async move {
        signals.next().await;
        say("stopping; once more stops at once");
        stop();
        signals.next().await;
        std::process::exit(INTERRUPTED.into());
    });
    Ok(())
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
