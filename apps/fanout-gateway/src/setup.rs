//! What a gateway is set up with, and what replaces it while it runs: a configuration, its tools and its upstream, as one.
//!
//! From whoever reads configurations: a [`Setup`], at the start and at each [`Gateway::reload`](crate::Gateway::reload). To
//! every route: the [`Current`] one. What has begun ends with the one that it began with.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use fanout_agent::Offer;
use fanout_anthropic::{HttpModel, HttpOptions, Model};
use fanout_core::plan::PLAN;
use fanout_core::tool::Policy;
use fanout_core::toolbox::Toolbox;
use fanout_host::build::Upstream;
use fanout_host::changes::{Changes, fixed};
use fanout_host::claims::Verifier;
use fanout_host::config::Config;
use fanout_host::options::toolboxes;

use crate::error::ApiError;
use crate::gateway::GatewayError;
use crate::mcp::Offered;
use crate::messages;

/// What a gateway is set up with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The whole configuration: budgets of a run, prices, and `[server]`.
    pub config: Config,
    /// The tools that it runs.
    pub toolbox: Arc<Toolbox>,
    /// Where it sends what it passes on.
    pub upstream: Upstream,
    /// What verifies end users' tokens; `None`: nobody does.
    pub verifier: Option<Arc<Verifier>>,
}

/// Reads the configuration again and makes its tools. What is wrong comes in words.
pub type Reload = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Setup, String>> + Send>> + Send + Sync>;

/// Why everything stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Nobody said how.
    #[error("this gateway has no configuration file to read again")]
    Never,
    /// The configuration, or something that it names, is not right.
    #[error("{0}")]
    Refused(String),
    /// Something changed that holds for as long as the process.
    #[error("{} cannot change while the gateway runs; start it anew for that", .0.join(", "))]
    Fixed(Vec<String>),
    /// The tools or the upstream are not right.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
}

/// Tools, and how models are offered them.
pub(crate) struct Tools {
    pub(crate) toolbox: Arc<Toolbox>,
    /// The tools as models are offered them.
    offer: Offer,
    /// Both with `plan` among them, for requests that ask for it where it is not offered to all; `None` where it is, or there is
    /// nothing to plan with.
    planning: Option<(Arc<Toolbox>, Offer)>,
}

/// A setup, ready for requests.
pub(crate) struct Current {
    pub(crate) config: Arc<Config>,
    pub(crate) toolbox: Arc<Toolbox>,
    /// Those of the projects that may not use all of them.
    pub(crate) toolboxes: Arc<BTreeMap<String, Arc<Toolbox>>>,
    /// The tools as they are offered to whoever may use all, and to those projects.
    all: Tools,
    projects: BTreeMap<String, Tools>,
    /// The tools as MCP clients are offered them.
    pub(crate) offered: Arc<Offered>,
    pub(crate) upstream: messages::Upstream,
    /// The same upstream, for runs that no client waits for.
    pub(crate) model: Arc<dyn Model>,
    pub(crate) verifier: Option<Arc<Verifier>>,
}

impl Current {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// [`GatewayError`] for an upstream or tools that are not right.
    pub(crate) fn new(setup: Setup) -> Result<Self, GatewayError> {
        let Setup { config, toolbox, upstream, verifier } = setup;
        let toolboxes = Arc::new(toolboxes(&config, &toolbox)?);
        let own = |(name, toolbox): (&String, &Arc<Toolbox>)| Ok((name.clone(), Tools::new(Arc::clone(toolbox))?));
        Ok(Self {
            all: Tools::new(Arc::clone(&toolbox))?,
            projects: toolboxes.iter().map(own).collect::<Result<_, GatewayError>>()?,
            offered: Arc::new(Offered::new(Arc::clone(&toolbox), &toolboxes, &config.run)),
            toolboxes,
            model: Arc::new(HttpModel::new(HttpOptions {
                base_url: upstream.base_url.clone(),
                api_key: upstream.api_key.clone(),
                ..HttpOptions::default()
            })?),
            upstream: messages::Upstream::new(&upstream.base_url, upstream.api_key)?,
            config: Arc::new(config),
            toolbox,
            verifier,
        })
    }

    /// The tools of whoever belongs to this project.
    pub(crate) fn tools_of(&self, project: Option<&str>) -> &Tools {
        project.and_then(|project| self.projects.get(project)).unwrap_or(&self.all)
    }

    /// What this one changes of the one before.
    ///
    /// # Errors
    /// [`ReloadError::Fixed`].
    pub(crate) fn after(&self, before: &Self) -> Result<Changes, ReloadError> {
        let fixed = fixed(&before.config, &self.config);
        if fixed.is_empty() {
            Ok(Changes::between((&before.config, &before.toolbox), (&self.config, &self.toolbox)))
        } else {
            Err(ReloadError::Fixed(fixed))
        }
    }
}

impl Tools {
    fn new(toolbox: Arc<Toolbox>) -> Result<Self, GatewayError> {
        Ok(Self { offer: Offer::new(&toolbox)?, planning: planning(&toolbox)?, toolbox })
    }

    /// The tools, and the offer of them, with `plan` among them or not; `None`: as the configuration says.
    ///
    /// # Errors
    /// 400 where there is no `plan` to be had.
    pub(crate) fn planned(&self, plan: Option<bool>) -> Result<(Arc<Toolbox>, Offer), ApiError> {
        let (same, has_plan) = ((Arc::clone(&self.toolbox), self.offer.clone()), has_plan(&self.toolbox));
        match (plan, &self.planning) {
            (Some(false), _) if has_plan => Ok((same.0, same.1.only(|name| name != PLAN))),
            (Some(true), Some(planning)) => Ok(planning.clone()),
            (Some(true), None) if !has_plan => Err(ApiError::invalid(format!(
                "there is no `{PLAN}` to be had: this gateway has no tools to plan with, or one of another kind has that name"
            ))),
            _ => Ok(same),
        }
    }
}

fn has_plan(toolbox: &Toolbox) -> bool {
    toolbox.get(&PLAN.into()).is_some_and(|tool| tool.is_plan())
}

fn planning(toolbox: &Toolbox) -> Result<Option<(Arc<Toolbox>, Offer)>, GatewayError> {
    let mut toolbox = toolbox.clone();
    if toolbox.is_empty() || toolbox.add_plan(Policy::default().result_max).is_err() {
        return Ok(None);
    }
    let offer = Offer::new(&toolbox)?;
    Ok(Some((Arc::new(toolbox), offer)))
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current").field("file", &self.config.file).finish_non_exhaustive()
    }
}
