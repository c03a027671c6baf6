//! The gateway: what all requests share, and the router over it.
//!
//! From a configuration, its tools and an address. To [`serve`](crate::serve()), or to a program that brings its own server.
//!
//! Nothing is opened and nothing is asked here; each route begins its own runs.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use fanout_agent::{Cancel, Ledger};
use fanout_anthropic::{OptionsError, WireError};
use fanout_core::approval::Approver;
use fanout_core::call::RunId;
use fanout_core::event::{Recorder, RunKind};
use fanout_core::run::Scheduler;
use fanout_core::toolbox::ToolboxError;
use fanout_host::approvals::Approvals;
use fanout_host::changes::Changes;
use fanout_host::controls::Controls;
use fanout_host::journal::begin;
use fanout_host::keys::KeysFile;
use fanout_host::notify::Notices;
use fanout_host::runs::{Equipment, Reopened, Worker, WorkerOptions};
use fanout_journal::store::{Row, StoreError};
use fanout_journal::{Journal, RunRecorder};
use tokio::sync::watch;

use crate::door::{self, Names, RequestIds};
use crate::hop::GatewayId;
use crate::keys::{Caller, Keyring};
use crate::mcp::{self, Offered};
use crate::messages::{self, Messages, MessagesOptions};
use crate::metrics::Metrics;
use crate::repeats::Repeats;
use crate::routes;
use crate::setup::{Current, Reload, ReloadError, Setup};
use crate::watch::RunWatch;

/// What a gateway is made of.
#[derive(Clone)]
pub struct GatewayOptions {
    /// What a reload replaces.
    pub setup: Setup,
    /// How it is read again; `None`: it is not.
    pub reload: Option<Reload>,
    /// What all its runs share; other users of the process may share it too.
    pub scheduler: Scheduler,
    /// Where runs are kept; `None`: nowhere, and nothing runs in the background.
    pub journal: Option<Journal>,
    /// Where calls that need a person's approval wait for it.
    pub approvals: Approvals,
    /// Where it is reached. Any address but loopback demands keys.
    pub address: SocketAddr,
    /// Where it is added up what projects and keys spend in a day.
    pub ledger: Arc<dyn Ledger>,
    /// Who is told what happens. Whoever made them closes them, after the gateway.
    pub notices: Notices,
}

/// Why there can be no gateway.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The upstream cannot be reached by its address.
    #[error(transparent)]
    Upstream(#[from] OptionsError),
    /// The tools cannot be printed.
    #[error("the tools cannot be sent: {0}")]
    Tools(#[from] WireError),
    /// A project's tools cannot be put together.
    #[error(transparent)]
    Toolbox(#[from] ToolboxError),
    /// The system has no random bytes to know itself again by.
    #[error("the system has no random bytes")]
    Random(#[source] fanout_host::keys::KeysError),
}

/// What all requests share.
pub(crate) struct Shared {
    current: watch::Sender<Arc<Current>>,
    /// The tools as MCP clients are offered them, for those who want to know when there are others.
    pub(crate) offered: watch::Sender<Arc<Offered>>,
    reload: Option<Reload>,
    /// One at a time.
    reloading: tokio::sync::Mutex<()>,
    pub(crate) scheduler: Scheduler,
    pub(crate) approvals: Approvals,
    pub(crate) names: Names,
    pub(crate) keyring: Keyring,
    pub(crate) id: GatewayId,
    pub(crate) request_ids: RequestIds,
    pub(crate) metrics: Arc<Metrics>,
    notices: Notices,
    /// What people on call have ordered.
    pub(crate) controls: Arc<Controls>,
    pub(crate) repeats: Repeats,
    /// Works on what runs in the background, where runs are kept.
    pub(crate) worker: Option<Arc<Worker>>,
    /// No new calls are taken from now on.
    pub(crate) closing: Cancel,
    /// What still runs is stopped.
    pub(crate) stop: Cancel,
}

impl Shared {
    /// What a request that comes now is answered with.
    pub(crate) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.borrow())
    }

    /// Reads the configuration again, and takes it if all of it is right: all or nothing.
    pub(crate) async fn reload(&self) -> Result<Changes, ReloadError> {
        let reload = self.reload.as_ref().ok_or(ReloadError::Never)?;
        let _one = self.reloading.lock().await;
        let next = Current::new(reload().await.map_err(ReloadError::Refused)?)?;
        let before = self.current();
        let changes = next.after(&before)?;
        // From here on nothing can fail.
        next.toolbox.learn_from(&before.toolbox);
        if let (Some(next), Some(before)) = (&next.verifier, &before.verifier) {
            next.learn_from(before);
        }
        self.metrics.know(&next.toolbox);
        self.controls.configured(Arc::clone(&next.config));
        self.offered.send_replace(Arc::clone(&next.offered));
        self.current.send_replace(Arc::new(next));
        Ok(changes)
    }

    /// What asks people for the runs of a caller.
    pub(crate) fn approver(&self, caller: &Caller) -> Arc<dyn Approver> {
        let wait = self.current().config.run.approval_wait;
        self.approvals.approver(caller.project.clone(), Some(wait))
    }

    /// Where runs are kept.
    pub(crate) fn journal(&self) -> Option<&Journal> {
        self.worker.as_ref().map(|worker| worker.journal())
    }

    /// Who is told what happens in the runs that begin here.
    pub(crate) fn tellers(&self) -> Tellers {
        let (metrics, notices) = (Arc::clone(&self.metrics), self.notices.clone());
        Tellers { journal: self.journal().cloned(), metrics, notices }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A gateway. Cloning it copies a pointer.
#[derive(Clone, Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    messages: Arc<Messages>,
}

impl Gateway {
    /// A gateway without any runs.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub fn new(options: GatewayOptions) -> Result<Self, GatewayError> {
        let current = Current::new(options.setup.clone())?;
        let server = &current.config.server;
        let names = Names::new(options.address, &server.hosts);
        let keyring = Keyring::new(KeysFile::at(&server.keys_file), names.is_exposed());
        let metrics = Arc::new(Metrics::new(&current.toolbox));
        let offered = watch::Sender::new(Arc::clone(&current.offered));
        let current = watch::Sender::new(Arc::new(current));
        let config = Arc::clone(&current.borrow().config);
        let controls = Controls::new(options.journal.clone(), options.scheduler.clone(), config);
        let worker = options.journal.clone().map(|journal| worker(journal, &options, &current, &metrics));
        let shared = Shared {
            worker,
            id: GatewayId::draw().map_err(GatewayError::Random)?,
            request_ids: RequestIds::default(),
            offered,
            current,
            reload: options.reload,
            reloading: tokio::sync::Mutex::default(),
            scheduler: options.scheduler,
            approvals: options.approvals,
            names,
            keyring,
            metrics,
            notices: options.notices,
            controls: Arc::new(controls),
            repeats: Repeats::default(),
            closing: Cancel::default(),
            stop: Cancel::default(),
        };
        let shared = Arc::new(shared);
        let messages = Messages::new(messages_options(&shared, options.ledger));
        Ok(Self { shared, messages })
    }

    /// Every route, behind the door that looks at who asks. It can be served by any server of HTTP/1.1.
    pub fn router(&self) -> Router {
        let shared = &self.shared;
        Router::new()
            .merge(routes::routes().router)
            .merge(mcp::routes(shared))
            .merge(messages::routes(Arc::clone(&self.messages)))
            .fallback(routes::unknown_path)
            .method_not_allowed_fallback(routes::unknown_method)
            .layer(from_fn_with_state(Arc::clone(shared), door::door))
            .with_state(Arc::clone(shared))
    }

    /// Reads the configuration again, and takes it if all of it is right. What has begun ends as it began; limits hold from
    /// now on for all. One reload at a time.
    ///
    /// # Errors
    /// [`ReloadError`], and everything stays as it was.
    ///
    /// # Cancellation
    /// Dropping the future changes nothing, or all.
    pub async fn reload(&self) -> Result<Changes, ReloadError> {
        self.shared.reload().await
    }

    /// Whether every request must carry a key: it can be reached from other machines.
    pub fn demands_keys(&self) -> bool {
        self.shared.keyring.is_demanded()
    }

    /// Takes no new calls from now on, and says so where it is asked whether it is ready. What runs goes on.
    pub fn close(&self) {
        self.shared.closing.cancel("the gateway is stopping");
    }

    /// Stops what still runs: calls that were not sent are `cancelled`, and every call still gets its outcome.
    pub fn stop(&self) {
        self.close();
        self.shared.stop.cancel("the gateway is stopping");
    }

    /// Goes on with the runs of processes that are gone. To be awaited before anything is served: what was under way in them
    /// comes before anything new. Answers how many there were.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        // What was ordered holds for what goes on, too.
        self.shared.controls.look().await?;
        match &self.shared.worker {
            Some(worker) => Ok(worker.recover().await?.len()),
            None => Ok(0),
        }
    }

    /// Works on what runs in the background, until [`Gateway::close`] and for as long as `grace` after it. What has not ended by
    /// then breaks off, and whoever comes next goes on with it.
    pub async fn work(&self, grace: Duration) {
        let Some(worker) = &self.shared.worker else { return };
        let working = tokio::spawn(Arc::clone(worker).work());
        let looking = tokio::spawn(Arc::clone(&self.shared.controls).keep_looking());
        self.shared.closing.cancelled().await;
        worker.drain();
        tracing::info!("stopping: nothing more begins in the background");
        worker.close(grace).await;
        // It ends by itself once the worker is closed.
        let _ = working.await;
        looking.abort();
    }

    /// Waits until nothing runs that somebody waits for.
    pub async fn idle(&self) {
        self.shared.metrics.idle().await;
    }
}

/// What the Messages API's own paths are made of.
fn messages_options(shared: &Arc<Shared>, ledger: Arc<dyn Ledger>) -> MessagesOptions {
    let spending = Arc::clone(&shared.metrics);
    let spent = move |caller: &Caller, model: &str, usd: f64| spending.cost(caller.project.as_deref(), model, usd);
    MessagesOptions {
        closing: shared.closing.clone(),
        stop: shared.stop.clone(),
        ..MessagesOptions::new(
            shared.current.subscribe(),
            shared.scheduler.clone(),
            shared.approvals.clone(),
            shared.tellers(),
            Arc::new(spent),
            ledger,
        )
    }
}

/// Who is told what happens in runs: it is counted and logged, and kept where runs are.
#[derive(Clone)]
pub(crate) struct Tellers {
    pub(crate) journal: Option<Journal>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) notices: Notices,
}

/// The recorder of a run, for as long as it lives, and of those in it who keeps what happens.
pub(crate) type Telling = (Arc<dyn Recorder>, Option<Arc<RunRecorder>>);

impl Tellers {
    /// Begins a run, or goes on with one that broke off.
    pub(crate) fn begin(
        &self,
        run: &RunId,
        kind: RunKind,
        caller: &Caller,
        title: &str,
        reopened: Option<&Reopened>,
    ) -> Telling {
        let (metrics, notices) = (Arc::clone(&self.metrics), self.notices.clone());
        let watch = RunWatch::begin(run.clone(), caller.id.clone(), metrics, notices);
        let Some(journal) = &self.journal else { return (Arc::new(watch), None) };
        let kept = Arc::new(match reopened {
            Some(reopened) => reopened.recorder(journal),
            None => begin(journal, run, kind, &caller.id, caller.project.as_deref(), title),
        });
        (Arc::new((watch, Arc::clone(&kept))), Some(kept))
    }
}

/// Works on runs with what is current when each begins.
fn worker(
    journal: Journal,
    options: &GatewayOptions,
    current: &watch::Sender<Arc<Current>>,
    metrics: &Arc<Metrics>,
) -> Arc<Worker> {
    let (current, metrics, notices) = (current.subscribe(), Arc::clone(metrics), options.notices.clone());
    let equipment = move || {
        let current = Arc::clone(&current.borrow());
        let (model, toolbox) = (Arc::clone(&current.model), Arc::clone(&current.toolbox));
        let projects = Arc::clone(&current.toolboxes);
        Equipment { model, toolbox, projects, config: Arc::clone(&current.config) }
    };
    let recorder = move |row: &Row| {
        let caller = row.caller.as_str().into();
        Arc::new(RunWatch::begin(row.run.clone(), caller, Arc::clone(&metrics), notices.clone())) as Arc<dyn Recorder>
    };
    Worker::new(WorkerOptions {
        journal,
        scheduler: options.scheduler.clone(),
        equipment: Arc::new(equipment),
        approvals: options.approvals.clone(),
        ledger: Arc::clone(&options.ledger),
        recorder: Arc::new(recorder),
    })
}
