//! The gateway: what all requests share, and the router over it.
//!
//! From a configuration, its tools and an address. To [`serve`](crate::serve()), or to a program that brings its own server.
//!
//! Nothing is opened and nothing is asked here; each route begins its own runs.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use fanout_agent::Cancel;
use fanout_core::call::RunId;
use fanout_core::event::Recorder;
use fanout_core::run::Scheduler;
use fanout_core::toolbox::Toolbox;
use fanout_host::build::Upstream;
use fanout_host::config::{self, Config};
use fanout_host::keys::KeysFile;
use fanout_host::options::agent_options;

use crate::door::{self, Names, RequestIds};
use crate::hop::GatewayId;
use crate::keys::{Caller, Keyring};
use crate::mcp;
use crate::messages::{self, Messages, MessagesError, MessagesOptions};
use crate::metrics::Metrics;
use crate::repeats::Repeats;
use crate::routes;
use crate::watch::RunWatch;

/// What a gateway is made of.
#[derive(Clone)]
pub struct GatewayOptions {
    /// The whole configuration: budgets of a run, prices, and `[server]`.
    pub config: Config,
    /// The tools that it runs.
    pub toolbox: Arc<Toolbox>,
    /// What all its runs share; other users of the process may share it too.
    pub scheduler: Scheduler,
    /// Where it sends what it passes on.
    pub upstream: Upstream,
    /// Where it is reached. Any address but loopback demands keys.
    pub address: SocketAddr,
}

/// Why there can be no gateway.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The upstream or the tools are not right.
    #[error(transparent)]
    Messages(#[from] MessagesError),
    /// The system has no random bytes to know itself again by.
    #[error("the system has no random bytes")]
    Random(#[source] fanout_host::keys::KeysError),
}

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) toolbox: Arc<Toolbox>,
    pub(crate) scheduler: Scheduler,
    pub(crate) upstream: Upstream,
    pub(crate) names: Names,
    pub(crate) keyring: Keyring,
    pub(crate) id: GatewayId,
    pub(crate) request_ids: RequestIds,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) repeats: Repeats,
    /// No new calls are taken from now on.
    pub(crate) closing: Cancel,
    /// What still runs is stopped.
    pub(crate) stop: Cancel,
}

impl Shared {
    /// Counts and logs one run, for as long as what is returned lives. It is the run's recorder.
    pub(crate) fn watch(&self, run: RunId, caller: &Caller) -> Arc<RunWatch> {
        Arc::new(RunWatch::begin(run, caller, Arc::clone(&self.metrics)))
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
        let server = &options.config.server;
        let names = Names::new(options.address, &server.hosts);
        let keyring = Keyring::new(KeysFile::at(&server.keys_file), names.is_exposed());
        let metrics = Arc::new(Metrics::new(&options.toolbox));
        let shared = Shared {
            id: GatewayId::draw().map_err(GatewayError::Random)?,
            request_ids: RequestIds::default(),
            config: options.config,
            toolbox: options.toolbox,
            scheduler: options.scheduler,
            upstream: options.upstream,
            names,
            keyring,
            metrics,
            repeats: Repeats::default(),
            closing: Cancel::default(),
            stop: Cancel::default(),
        };
        let shared = Arc::new(shared);
        let messages = Messages::new(messages_options(&shared))?;
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

    /// Waits until nothing runs.
    pub async fn idle(&self) {
        self.shared.metrics.idle().await;
    }
}

/// What the Messages API's own paths are made of.
fn messages_options(shared: &Arc<Shared>) -> MessagesOptions {
    let (config, metrics) = (shared.config.clone(), Arc::clone(&shared.metrics));
    let agent = move |model: &str| agent_options(&config, model);
    let spending = Arc::clone(&metrics);
    let spent = move |caller: &Caller, model: &str, usd: f64| spending.cost(caller.project.as_deref(), model, usd);
    let recorder = move |run: &RunId, caller: &Caller| {
        Arc::new(RunWatch::begin(run.clone(), caller, Arc::clone(&metrics))) as Arc<dyn Recorder>
    };
    let (upstream, server) = (&shared.upstream, &shared.config.server);
    let writes = match server.writes_after_client {
        config::WritesAfterClient::Wait => fanout_agent::WritesAfterClient::Wait,
        config::WritesAfterClient::Run => fanout_agent::WritesAfterClient::Run,
    };
    MessagesOptions {
        api_key: upstream.api_key.clone(),
        spent: Arc::new(spent),
        writes,
        disconnect_grace: server.disconnect_grace,
        closing: shared.closing.clone(),
        stop: shared.stop.clone(),
        ..MessagesOptions::new(
            Arc::clone(&shared.toolbox),
            shared.scheduler.clone(),
            upstream.base_url.as_str(),
            Arc::new(agent),
            Arc::new(recorder),
        )
    }
}
