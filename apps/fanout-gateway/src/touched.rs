//! Whether a run has begun what cannot be done twice.
//!
//! From a run's events. To whoever would stop it when its client is gone.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fanout_core::call::CallId;
use fanout_core::event::{Event, Recorder, What};
use fanout_core::toolbox::Toolbox;

/// Knows whether a call has started that is not repeatable.
#[derive(Debug)]
pub(crate) struct Touched {
    toolbox: Arc<Toolbox>,
    calls: Mutex<HashSet<CallId>>,
    is_touched: AtomicBool,
}

impl Touched {
    pub(crate) fn new(toolbox: &Arc<Toolbox>) -> Arc<Self> {
        Arc::new(Self { toolbox: Arc::clone(toolbox), calls: Mutex::default(), is_touched: AtomicBool::new(false) })
    }

    pub(crate) fn is_touched(&self) -> bool {
        self.is_touched.load(Ordering::Acquire)
    }
}

impl Touched {
    /// Takes what happens in the run, or happened before it broke off.
    pub(crate) fn take(&self, what: &What) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        match what {
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

impl Recorder for Touched {
    fn record(&self, event: &Event) {
        self.take(&event.what);
    }
}
