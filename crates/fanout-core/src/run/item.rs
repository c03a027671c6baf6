//! What stands at one place of a batch.
//!
//! From `batch` and `plan`, which put it there. To `drive`, which keeps it true. The schedule knows the same places by the
//! same numbers, and none of this.

use std::cell::OnceCell;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::Value;
use tokio::task::AbortHandle;

use super::asking::Asking;
use super::attempt::Lease;
use super::plan::{Planned, Together};
use super::shared::LockGuard;
use crate::call::CallId;
use crate::graph::Ix;
use crate::outcome::Outcome;
use crate::schedule::Limit;
use crate::toolbox::Registered;

/// What stands at one place of a batch.
pub(super) struct Item {
    pub(super) call: CallId,
    pub(super) tool: Option<Arc<Registered>>,
    pub(super) input: Arc<Value>,
    /// What the labels in its input stand for.
    pub(super) names: Vec<Name>,
    /// The bundle that it is a part of, and what it is itself.
    pub(super) bundle: Option<Ix>,
    pub(super) role: Role,
    /// Its output as references see it, once one has asked.
    pub(super) value: OnceCell<Arc<Value>>,
    pub(super) limit: Arc<Limit>,
    /// Its place in the locks, until it is answered.
    pub(super) lock: Option<Arc<LockGuard>>,
    /// What it asks people, while it does.
    pub(super) asking: Option<Box<Asking>>,
    /// What people said to it, shown behind its result.
    pub(super) words: Vec<Arc<str>>,
    pub(super) running: Option<Running>,
    pub(super) started_at: Duration,
    pub(super) outcome: Option<Arc<Outcome>>,
    pub(super) attempts: u32,
}

/// What a label of an input stands for.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) label: Arc<str>,
    pub(super) named: Named,
}

/// A call, or a value.
#[derive(Clone, Debug)]
pub(super) enum Named {
    /// What this call comes to.
    Call(Ix),
    /// This.
    Value(Arc<Value>),
}

/// What it is.
#[derive(Debug, Default)]
pub(super) enum Role {
    /// A call.
    #[default]
    Call,
    /// A plan: its calls are its parts.
    Plan(Box<Planned>),
    /// The `for_each` at this place of its plan: a call per element is its part.
    Each(usize),
    /// A plan that is one call.
    Atomic(Box<Together>),
}

/// A call as it comes into the batch.
pub(super) struct New {
    pub(super) call: CallId,
    pub(super) tool: Arc<Registered>,
    pub(super) input: Arc<Value>,
    pub(super) names: Vec<Name>,
    pub(super) bundle: Option<Ix>,
    pub(super) role: Role,
}

impl New {
    /// A plan: what it is given is in its role.
    pub(super) fn plan(call: &CallId, tool: &Arc<Registered>, role: Role) -> Self {
        let (call, tool) = (call.clone(), Arc::clone(tool));
        Self { call, tool, input: Arc::default(), names: Vec::new(), bundle: None, role }
    }
}

/// An attempt at a call, while it runs.
pub(super) struct Running {
    /// What stops it; work of an earlier batch is being stopped already.
    pub(super) abort: Option<AbortHandle>,
    pub(super) lease: Weak<Lease>,
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").field("call", &self.call).field("outcome", &self.outcome).finish_non_exhaustive()
    }
}
