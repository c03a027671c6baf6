//! What clients are offered, and that they are told when it changes.
//!
//! From a toolbox. To every session: the tools of the calls that arrive from now on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use fanout_core::toolbox::Toolbox;
use fanout_host::config::RunConfig;
use rmcp::RoleServer;
use rmcp::model::Tool;
use rmcp::service::Peer;
use tokio::sync::watch::Receiver;
use tokio::task::AbortHandle;

use super::describe;

/// The tools, and how many calls of a session may be unanswered.
pub(crate) struct Offered {
    pub(super) toolbox: Arc<Toolbox>,
    /// In the protocol's words.
    pub(super) tools: Vec<Tool>,
    pub(super) calls_max: usize,
    /// The same for projects that may not use all of them.
    projects: BTreeMap<String, Arc<Self>>,
}

impl Offered {
    pub(crate) fn new(toolbox: Arc<Toolbox>, projects: &BTreeMap<String, Arc<Toolbox>>, run: &RunConfig) -> Self {
        let calls_max = usize::try_from(run.max_calls).unwrap_or(usize::MAX);
        let own = |(name, toolbox): (&String, &Arc<Toolbox>)| {
            (name.clone(), Arc::new(Self::at_most(Arc::clone(toolbox), calls_max)))
        };
        Self { projects: projects.iter().map(own).collect(), ..Self::at_most(toolbox, calls_max) }
    }

    pub(super) fn at_most(toolbox: Arc<Toolbox>, calls_max: usize) -> Self {
        Self { tools: describe::tools(&toolbox), toolbox, calls_max, projects: BTreeMap::new() }
    }
}

/// What whoever belongs to this project is offered.
pub(super) fn of_project(offered: &Arc<Offered>, project: Option<&str>) -> Arc<Offered> {
    Arc::clone(project.and_then(|project| offered.projects.get(project)).unwrap_or(offered))
}

impl fmt::Debug for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offered").field("tools", &self.tools.len()).finish_non_exhaustive()
    }
}

/// Tells a client whenever there are other tools, for as long as this lives.
pub(super) struct Telling(AbortHandle);

impl Telling {
    /// Needs a runtime.
    pub(super) fn start(mut offered: Receiver<Arc<Offered>>, peer: Peer<RoleServer>) -> Self {
        let task = tokio::spawn(async move {
            while offered.changed().await.is_ok() {
                // Who cannot be told is gone.
                if peer.notify_tool_list_changed().await.is_err() {
                    return;
                }
            }
        });
        Self(task.abort_handle())
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.abort();
    }
}
