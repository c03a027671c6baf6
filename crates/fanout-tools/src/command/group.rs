//! The processes of a call: the program, and all that it started.
//!
//! From `program`, as they are started. To `tool`, which waits for the program; and to whoever ends the whole process, which
//! must leave none of them behind ([`Programs`]).
//!
//! A group that is dropped is ended: asked to (SIGTERM), and made to (SIGKILL) after [`GRACE`]. Until its last process is gone
//! it keeps the call's hold, so that nobody who conflicts with it starts. A process that leaves the group (`setsid`) is out of
//! reach. What the processes print is not read here.

use std::collections::BTreeMap;
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use fanout_core::tool::Hold;
use tokio::process::Child;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::living;

/// So long a program has to end by itself when it is asked to. With what follows it stays below the scheduler's `stray_hold`
/// of 5 s, after which locks are given up though work goes on.
pub const GRACE: Duration = Duration::from_secs(2);

/// So long a killed group is awaited: the system needs a moment, and one whose dead nobody buries is never gone.
const KILLED_MAX: Duration = Duration::from_secs(2);

/// How often it is looked whether a group is gone, from the first look to later ones.
const LOOK: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// So many programs are started at once; more would only wait for one another in the system.
const STARTING_MAX: usize = 8;

/// All programs that are started by some tools. Cloning it shares them.
#[derive(Clone, Debug)]
pub struct Programs {
    pub(super) starting: Arc<Semaphore>,
    /// One at a time looks through all processes.
    looking: Arc<Semaphore>,
    running: Arc<watch::Sender<Running>>,
}

/// The ids of the groups by the order of their starts; `None` while one is being started.
#[derive(Debug, Default)]
struct Running {
    started: u64,
    groups: BTreeMap<u64, Option<u32>>,
}

impl Default for Programs {
    fn default() -> Self {
        Self {
            starting: Arc::new(Semaphore::new(STARTING_MAX)),
            looking: Arc::new(Semaphore::new(1)),
            running: Arc::default(),
        }
    }
}

impl Programs {
    /// No programs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until none of them runs. Those whose calls were stopped take [`GRACE`] and a little more at most; nobody is asked
    /// to end by this.
    ///
    /// # Cancellation
    /// Dropping the future changes nothing.
    pub async fn gone(&self) {
        // The sender lives as long as `self`.
        let _ = self.running.subscribe().wait_for(|running| running.groups.is_empty()).await;
    }

    /// Kills every one of them at once, for a process that is about to end itself without another look.
    pub fn kill(&self) {
        for id in self.running.borrow().groups.values().flatten() {
            signal(*id, How::Kill);
        }
    }

    /// A place for a program that is about to be started.
    pub(super) fn place(&self) -> Place {
        let mut number = 0;
        self.running.send_modify(|running| {
            running.started += 1;
            number = running.started;
            running.groups.insert(number, None);
        });
        Place { programs: self.clone(), number }
    }
}

/// A place among the programs; given back when it is dropped.
pub(super) struct Place {
    programs: Programs,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.programs.running.send_modify(|running| {
            running.groups.remove(&self.number);
        });
    }
}

/// A program and all that it started, as far as they stay in its process group.
pub(super) struct Group {
    /// `None` once nothing is left.
    life: Option<Life>,
}

impl Group {
    /// From a child that leads a process group. Needs the context of a runtime.
    pub(super) fn new(child: Child, hold: Hold, place: Place) -> Self {
        let id = child.id();
        place.programs.running.send_modify(|running| {
            running.groups.insert(place.number, id);
        });
        let life = Life { child, id, gone: false, runtime: Handle::current(), _hold: hold, place };
        Self { life: Some(life) }
    }

    /// Waits for the program itself.
    ///
    /// # Cancellation
    /// Dropping the future changes nothing.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        match &mut self.life {
            Some(life) => life.child.wait().await,
            None => Err(io::Error::other("it is gone")),
        }
    }

    /// Ends what the program left running, and waits for that.
    ///
    /// # Cancellation
    /// When the future is dropped, the rest is ended without it.
    pub(super) async fn finish(&mut self) {
        if let Some(life) = &mut self.life {
            if life.id.is_none_or(|id| !is_there(id)) {
                life.gone = true;
            } else {
                life.signal(How::Ask);
                life.end().await;
            }
        }
        self.life = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(mut life) = self.life.take() else { return };
        life.signal(How::Ask);
        let runtime = life.runtime.clone();
        // A runtime that is shut down drops the task, and with it the group, which is killed then.
        runtime.spawn(async move { life.end().await });
    }
}

struct Life {
    child: Child,
    id: Option<u32>,
    gone: bool,
    runtime: Handle,
    // In this order: whoever waits for all programs to be gone may go on to end the process.
    _hold: Hold,
    place: Place,
}

impl Life {
    /// Waits for a group that was asked to end, and kills it if it does not.
    async fn end(&mut self) {
        if !self.gone_within(GRACE).await {
            self.signal(How::Kill);
            self.gone_within(KILLED_MAX).await;
            self.gone = true;
        }
    }

    async fn gone_within(&mut self, most: Duration) -> bool {
        let gone = async {
            // A child that nobody can wait for is looked for all the same.
            let _ = self.child.wait().await;
            let mut look = LOOK.0;
            while let Some(id) = self.id.filter(|id| is_there(*id)) {
                bury(id);
                if look == LOOK.1 && !living::any(&self.place.programs.looking, id).await {
                    // One that was born while the others were counted is no reason to leave it alive.
                    signal(id, How::Kill);
                    break;
                }
                sleep(look).await;
                look = (look * 2).min(LOOK.1);
            }
        };
        self.gone = timeout(most, gone).await.is_ok();
        self.gone
    }

    fn signal(&mut self, how: How) {
        // While one of its processes is there, even a dead one, the system gives the group's number to nobody else.
        match self.id {
            Some(id) if cfg!(unix) && is_there(id) => signal(id, how),
            _ if cfg!(unix) => {}
            // Elsewhere there are no groups, and nobody can be asked.
            _ => drop(self.child.start_kill()),
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if !self.gone {
            self.signal(How::Kill);
        }
    }
}

/// How a group is told to end.
#[derive(Clone, Copy)]
enum How {
    Ask,
    Kill,
}

#[cfg(unix)]
fn group(id: u32) -> Option<rustix::process::Pid> {
    // Nothing is to be sent to group 1, which some systems take for everybody, nor to our own.
    i32::try_from(id).ok().filter(|id| *id > 1).and_then(rustix::process::Pid::from_raw)
}

#[cfg(unix)]
fn signal(id: u32, how: How) {
    use rustix::process::{Signal, kill_process_group};
    let signal = match how {
        How::Ask => Signal::TERM,
        How::Kill => Signal::KILL,
    };
    if let Some(group) = group(id) {
        // It only fails for a group that is gone, or that became somebody else's, whom we may not end.
        let _ = kill_process_group(group, signal);
    }
}

/// Buries the dead of a group that fell to us because their parents are dead: in a container this process may be the one that
/// all orphans fall to. Only for a group whose leader is buried; that one's status belongs to who waits for it.
#[cfg(unix)]
fn bury(id: u32) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let Some(group) = group(id) else { return };
    while let Ok(Some(_)) = waitid(WaitId::Pgid(Some(group)), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {}
}

/// Whether a process of the group is left, if only a dead one.
#[cfg(unix)]
fn is_there(id: u32) -> bool {
    use rustix::io::Errno;
    use rustix::process::test_kill_process_group;
    group(id).is_some_and(|group| test_kill_process_group(group) != Err(Errno::SRCH))
}

#[cfg(not(unix))]
fn signal(_: u32, _: How) {}

#[cfg(not(unix))]
fn bury(_: u32) {}

#[cfg(not(unix))]
fn is_there(_: u32) -> bool {
    false
}
