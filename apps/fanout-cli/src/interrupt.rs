//! Somebody wants it to stop: Ctrl-C, or the signal that stops a container.

use std::io::{self, IsTerminal as _};

use fanout_tools::command::Programs;

use crate::exit::INTERRUPTED;
use crate::show::say;

/// From now on the first signal calls `stop`, so that what runs can end in good order, and the second ends the process and
/// `programs` with it.
///
/// # Errors
/// When the signals cannot be listened to.
pub fn on_interrupt(programs: &Programs, stop: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let programs = programs.clone();
    let mut signals = Signals::listen()?;
    tokio::spawn(async move {
        signals.next().await;
        say("stopping; once more stops at once");
        stop();
        signals.next().await;
        programs.kill();
        std::process::exit(INTERRUPTED.into());
    });
    Ok(())
}

/// Which one came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// What stops a container.
    Terminate,
}

/// The signals, listened to. From the moment there is one of these, none of them ends the process by itself.
#[cfg(unix)]
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Listens from now on. Needs a runtime.
    ///
    /// # Errors
    /// When the signals cannot be listened to.
    pub fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

/// The signal that asks for the configuration to be read again, listened to.
#[cfg(unix)]
pub struct Hangups(tokio::signal::unix::Signal);

#[cfg(unix)]
impl Hangups {
    /// Listens from now on. Needs a runtime.
    ///
    /// # Errors
    /// When the signal cannot be listened to.
    pub fn listen() -> io::Result<Self> {
        Ok(Self(tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?))
    }

    /// Waits for the next; `None` if there will be none.
    ///
    /// The same signal comes when a terminal is closed, and means then what it always did: the process ends, in good order.
    pub async fn next(&mut self) -> Option<()> {
        let had_terminal = io::stderr().is_terminal();
        self.0.recv().await?;
        if had_terminal && !io::stderr().is_terminal() {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).ok()?;
            return None;
        }
        Some(())
    }
}

/// There is no such signal here.
#[cfg(not(unix))]
pub struct Hangups;

#[cfg(not(unix))]
impl Hangups {
    /// Never fails.
    ///
    /// # Errors
    /// None.
    pub fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    /// There will be none.
    pub async fn next(&mut self) -> Option<()> {
        None
    }
}

/// Ctrl-C, listened to: there are no other signals here.
#[cfg(not(unix))]
pub struct Signals;

#[cfg(not(unix))]
impl Signals {
    /// Listens from the first wait on.
    ///
    /// # Errors
    /// None.
    pub fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    /// Waits for the next.
    pub async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
        Signal::Interrupt
    }
}
