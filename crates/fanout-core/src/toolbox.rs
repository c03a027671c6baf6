//! Tools by name, each ready to run: schema compiled, layers around it.
//!
//! From whoever brings tools. To [`run`](crate::run), which looks up every call.
//! A toolbox is filled once and then only read.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustc_hash::FxHashMap;
use serde_json::Value;
use tower_layer::Layer;
use tower_service::Service;

use crate::call::ToolName;
use crate::effects::{Effects, Paths, Source};
use crate::layer::ToolService;
use crate::limits::LimitOptions;
use crate::once::Once;
use crate::outcome::Output;
use crate::plan::{self, PLAN};
use crate::schedule::Terms;
use crate::secrets::Secrets;
use crate::tool::{Attempt, BoxFuture, Tool, ToolError, ToolSpec};
use crate::validate::InputSchema;

/// The API takes no longer names, and no other characters than letters, digits, `_` and `-`.
const NAME_MAX: usize = 128;

/// The tools of a run. A copy shares the tools with it, and what is learned of them.
#[derive(Clone, Debug, Default)]
pub struct Toolbox {
    tools: Vec<Arc<Registered>>,
    by_name: FxHashMap<ToolName, usize>,
    /// Some tool's declaration orders calls of a batch, so batches have to remember who came before.
    pub(crate) ordered: bool,
    secrets: Arc<Secrets>,
}

/// How long calls of one tool take, learned from those that ended.
#[derive(Debug, Default)]
pub(crate) struct Latency(AtomicU64);

impl Latency {
    /// What to expect; a tool never seen counts as an ordinary API call.
    pub(crate) fn expected(&self) -> Duration {
        match self.0.load(Ordering::Relaxed) {
            0 => UNSEEN,
            nanos => Duration::from_nanos(nanos),
        }
    }

    /// Takes one more sample. A lost race between two samples loses one of them, which no average minds.
    pub(crate) fn learn(&self, took: Duration) {
        let sample = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        let known = self.0.load(Ordering::Relaxed);
        let mixed = if known == 0 { sample } else { known - known / LEARNING + sample / LEARNING };
        self.0.store(mixed.max(1), Ordering::Relaxed);
    }
}

/// Before anything is learned every tool counts the same; only the ratio to learned ones matters.
const UNSEEN: Duration = Duration::from_millis(200);

/// One sample moves the average by one part in so many: a dozen calls are enough to follow a change.
const LEARNING: u64 = 8;

/// One tool in a toolbox.
#[derive(Debug)]
pub struct Registered {
    /// What it says of itself.
    pub spec: ToolSpec,
    pub(crate) terms: Arc<Terms>,
    /// It names a limit group, or its source has one.
    pub(crate) is_limited: bool,
    pub(crate) schema: Arc<InputSchema>,
    pub(crate) latency: Arc<Latency>,
    pub(crate) service: ToolService,
    pub(crate) is_plan: bool,
}

impl Registered {
    /// [`ToolSpec::repeatable`], asked once.
    pub fn repeatable(&self) -> bool {
        self.terms.repeatable
    }

    /// Whether a call of it may go again though it may have been carried out: it is repeatable, or its outcome is kept with
    /// what it does, as [`Once`] says.
    pub fn resumable(&self, once: Option<&Once>) -> bool {
        self.repeatable() || once.is_some_and(|once| once.holds_for(self.spec.database.as_deref()))
    }

    /// Whether it is the built-in tool `plan`, whose calls are run in its place.
    pub fn is_plan(&self) -> bool {
        self.is_plan
    }

    /// What a call with this input touches. One that runs calls itself touches nothing but what is declared: those are held
    /// back by themselves.
    pub fn effects_of(&self, input: &Value, paths: &Paths) -> Effects {
        let spec = &self.spec;
        if spec.policy.nested && !spec.effects.is_declared() {
            return Effects::none(spec.source.clone());
        }
        spec.effects.resolve(&spec.source, input, paths)
    }
}

/// Why a tool was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolboxError {
    /// Another has that name already.
    #[error("two tools are called `{0}`")]
    Twice(ToolName),
    /// The Messages API would refuse the name.
    #[error("`{0}` is no name for a tool: it must be 1 to 128 letters, digits, `_` or `-`")]
    Name(ToolName),
    /// Its input schema is none.
    #[error("the input schema of `{tool}` is not a valid JSON Schema: {detail}")]
    Schema {
        /// The tool.
        tool: ToolName,
        /// What is wrong.
        detail: String,
    },
}

/// What `plan` says of itself. A plan's calls are run in its place, so it is never called.
struct PlanTool(ToolSpec);

impl Tool for PlanTool {
    fn spec(&self) -> ToolSpec {
        self.0.clone()
    }

    fn call(&self, _: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        Box::pin(async { Err(ToolError::Failed("a plan is run by its batch".to_owned())) })
    }
}

impl Toolbox {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on with what `before` learned of tools of the same name and source: how long their calls take.
    pub fn learn_from(&self, before: &Self) {
        for tool in &self.tools {
            if let Some(known) = before.get(&tool.spec.name).filter(|known| known.spec.source == tool.spec.source) {
                tool.latency.0.store(known.latency.0.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }

    /// Hides these, from now on, in what tools say of themselves and in all that comes back from them: no model, event,
    /// reference or log sees more than their names. Whoever gives a tool a secret tells the toolbox before it puts the tool in.
    pub fn hide(&mut self, secrets: Secrets) {
        self.secrets = Arc::new(secrets);
    }

    /// What is hidden.
    pub fn secrets(&self) -> &Arc<Secrets> {
        &self.secrets
    }

    /// Puts a tool in.
    ///
    /// # Errors
    /// [`ToolboxError`] for a name that is taken or none, and for a schema that is none.
    pub fn add(&mut self, tool: impl Tool) -> Result<(), ToolboxError> {
        self.add_shared(Arc::new(tool))
    }

    /// Like [`Toolbox::add`], for a tool that somebody else holds too.
    ///
    /// # Errors
    /// As there.
    pub fn add_shared(&mut self, tool: Arc<dyn Tool>) -> Result<(), ToolboxError> {
        self.put(tool, false)
    }

    /// Puts in the built-in tool `plan`: whole graphs of calls of the tools that are in the box by now. Put it in last: what it
    /// says of itself names them. Of what a plan comes to the model is shown about `result_max` bytes.
    ///
    /// # Errors
    /// [`ToolboxError::Twice`] if another tool is called `plan`.
    pub fn add_plan(&mut self, result_max: usize) -> Result<(), ToolboxError> {
        let specs: Vec<&ToolSpec> = self.tools.iter().map(|tool| &tool.spec).collect();
        let mut spec = ToolSpec::new(PLAN, Source::function());
        (spec.description, spec.input_schema) = (plan::description(&specs), plan::schema(&specs));
        spec.policy.result_max = result_max;
        self.put(Arc::new(PlanTool(spec)), true)
    }

    fn put(&mut self, tool: Arc<dyn Tool>, is_plan: bool) -> Result<(), ToolboxError> {
        let mut spec = tool.spec();
        if let Cow::Owned(hidden) = self.secrets.hide(&spec.description) {
            spec.description = hidden;
        }
        self.secrets.hide_in(&mut spec.input_schema);
        let name = spec.name.clone();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.as_str().is_empty() || name.as_str().len() > NAME_MAX || !name.as_str().bytes().all(fits) {
            return Err(ToolboxError::Name(name));
        }
        if self.by_name.contains_key(&name) {
            return Err(ToolboxError::Twice(name));
        }
        let schema = InputSchema::new(&spec.input_schema)
            .map_err(|detail| ToolboxError::Schema { tool: name.clone(), detail })?;
        let terms = Terms {
            tool: name.clone(),
            timeout: spec.policy.timeout,
            deadline: spec.policy.deadline,
            repeatable: spec.repeatable(),
            nested: spec.policy.nested,
        };
        let terms = Arc::new(terms);
        let is_limited = spec.policy.limit.is_some() || LimitOptions::unasked(&spec.source).is_some();
        self.by_name.insert(name, self.tools.len());
        self.ordered |= spec.policy.stop_on_failure || !spec.policy.after.is_empty();
        let (schema, latency, service) = (Arc::new(schema), Arc::default(), ToolService::new(tool));
        self.tools.push(Arc::new(Registered { spec, terms, is_limited, schema, latency, service, is_plan }));
        Ok(())
    }

    /// The same box with these tools alone, and with `plan` over them if it is in this one. What is learned of a tool is learned in
    /// both.
    ///
    /// # Errors
    /// As for [`Toolbox::add_plan`].
    pub fn only(&self, keep: impl Fn(&ToolName) -> bool) -> Result<Self, ToolboxError> {
        let mut kept = Self { secrets: Arc::clone(&self.secrets), ..Self::default() };
        let mut plan = None;
        for tool in &self.tools {
            let name = &tool.spec.name;
            if tool.is_plan {
                plan = Some(tool.spec.policy.result_max);
            } else if keep(name) {
                kept.by_name.insert(name.clone(), kept.tools.len());
                kept.ordered |= tool.spec.policy.stop_on_failure || !tool.spec.policy.after.is_empty();
                kept.tools.push(Arc::clone(tool));
            }
        }
        match plan.filter(|_| !kept.is_empty()) {
            Some(result_max) => kept.add_plan(result_max).map(|()| kept),
            None => Ok(kept),
        }
    }

    /// Wraps one attempt of every tool that is in the box by now: a `tower` layer for tracing, limits of your own, faults
    /// for tests. The layer added last is met first. A layer sees attempts, not calls: it must not retry.
    pub fn layer<L>(&mut self, layer: &L)
    where
        L: Layer<ToolService>,
        L::Service: Service<Attempt, Response = Output, Error = ToolError> + Clone + Send + Sync + 'static,
        <L::Service as Service<Attempt>>::Future: Send + 'static,
    {
        for tool in &mut self.tools {
            let service = ToolService::wrap(layer.layer(tool.service.clone()));
            *tool = Arc::new(Registered {
                spec: tool.spec.clone(),
                terms: Arc::clone(&tool.terms),
                is_limited: tool.is_limited,
                schema: Arc::clone(&tool.schema),
                latency: Arc::clone(&tool.latency),
                service,
                is_plan: tool.is_plan,
            });
        }
    }

    /// The tool of that name.
    pub fn get(&self, name: &ToolName) -> Option<&Arc<Registered>> {
        self.by_name.get(name).map(|at| &self.tools[*at])
    }

    /// All tools, in the order in which they were put in.
    pub fn iter(&self) -> impl Iterator<Item = &Registered> {
        self.tools.iter().map(|tool| &**tool)
    }

    /// How many tools there are.
    pub fn len(&self) -> usize {
        self.tools.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }
}
