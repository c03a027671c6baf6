//! Whether a run may still be stopped, and whether anybody wants it to go on.
//!
//! From a run's events: whether a call has started that cannot be done twice. From its exchange: whether somebody listens.
//! To the run: a stop, or a pause before the next question to the model.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fanout_agent::Cancel;
use fanout_core::call::CallId;
use fanout_core::event::{Event, Recorder, What};
use fanout_core::toolbox::Toolbox;
use tokio::time::timeout;

use super::exchange::Exchange;

/// Knows whether a call has started that is not repeatable.
#[derive(Debug)]
pub(super) struct Touched {
    toolbox: Arc<Toolbox>,
    calls: Mutex<HashSet<CallId>>,
    is_touched: AtomicBool,
}

impl Touched {
    pub(super) fn new(toolbox: &Arc<Toolbox>) -> Arc<Self> {
        Arc::new(Self { toolbox: Arc::clone(toolbox), calls: Mutex::default(), is_touched: AtomicBool::new(false) })
    }

    pub(super) fn is_touched(&self) -> bool {
        self.is_touched.load(Ordering::Acquire)
    }
}

impl Recorder for Touched {
    fn record(&self, event: &Event) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        match &event.what {
            What::CallArrived { call, tool, .. } if self.toolbox.get(tool).is_some_and(|tool| !tool.repeatable()) => {
                calls.insert(call.clone());
            }
            What::AttemptStarted { call, .. } if calls.contains(call) => {
                self.is_touched.store(true, Ordering::Release);
            }
            _ => {}
        }
    }
}

/// Stops a run whose client is gone, once the grace is over in which somebody could have joined it.
///
/// Where something was begun that cannot be done twice the batch goes to its end; the model is not asked again before
/// somebody joins, and after `joinable` the run ends. Ends when the run is stopped.
pub(super) async fn watch(
    exchange: &Exchange,
    touched: &Touched,
    cancel: &Cancel,
    grace: Duration,
    joinable: Duration,
) {
    loop {
        exchange.abandoned().await;
        if timeout(grace, exchange.joined()).await.is_ok() {
            continue;
        }
        if touched.is_touched() {
            exchange.park(true);
            let joined = timeout(joinable, exchange.joined()).await;
            exchange.park(false);
            if joined.is_ok() {
                continue;
            }
        }
        cancel.cancel("the client is gone");
        return;
    }
}
