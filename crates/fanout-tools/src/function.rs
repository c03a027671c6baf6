//! A function of the program as a tool.
//!
//! From an `async fn` or a closure over a typed input; the JSON Schema that the model reads comes from the input's type.
//! To a [`Toolbox`](fanout_core::toolbox::Toolbox), as [`Function`].
//!
//! What a function touches cannot be seen from outside: undeclared, it writes its whole source. No function is run here
//! except by its own attempt.

use std::any::Any;
use std::fmt::{self, Display};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use fanout_core::call::ToolName;
use fanout_core::effects::{EffectsSpec, Source, TemplateError};
use fanout_core::outcome::Output;
use fanout_core::tool::{Attempt, BoxFuture, Tool, ToolError, ToolSpec};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::declared::{Declared, EffectsError};
use crate::schema::{Fields, UnknownField};

type Run = dyn Fn(Attempt) -> BoxFuture<'static, Result<Output, ToolError>> + Send + Sync;

/// A function as a tool. Cloning it shares the function.
#[derive(Clone)]
pub struct Function {
    spec: ToolSpec,
    run: Arc<Run>,
}

impl Function {
    /// Makes a tool of an async function over a typed input.
    ///
    /// What it gives back is anything that serialises (a text is shown as it is, everything else as JSON, which references
    /// take as data) or an [`Output`]. Its error is anything that displays, and final, unless it is a [`ToolError`],
    /// which passes as it is.
    ///
    /// ```
    /// # use fanout_core::tool::Attempt;
    /// # use fanout_tools::function::{Function, FunctionError};
    /// #[derive(serde::Deserialize, schemars::JsonSchema)]
    /// struct GetUser {
    ///     user_id: String,
    /// }
    ///
    /// let tool = Function::new("get_user", "Look up a customer by id.", |input: GetUser, _: Attempt| async move {
    ///     Ok::<_, std::io::Error>(format!("{} is called Ada", input.user_id))
    /// })
    /// .reads(["user/{user_id}"])
    /// .writes([])
    /// .build()?;
    /// # Ok::<(), FunctionError>(())
    /// ```
    ///
    /// # Cancellation
    /// Dropping the attempt drops the function's future at its next await.
    #[expect(clippy::new_ret_no_self, reason = "what comes first is the function; what is said of it follows")]
    pub fn new<I, F, Fut, T, E, As>(
        name: impl Into<ToolName>,
        description: impl Into<String>,
        body: F,
    ) -> FunctionBuilder
    where
        I: DeserializeOwned + JsonSchema + Send + 'static,
        F: Fn(I, Attempt) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: IntoOutput<As>,
        E: Display + 'static,
    {
        let run = move |attempt: Attempt| -> BoxFuture<'static, Result<Output, ToolError>> {
            let tool = attempt.tool.clone();
            match read_input(&attempt) {
                Ok(input) => {
                    let answer = body(input, attempt);
                    Box::pin(async move { settle(&tool, answer.await) })
                }
                Err(error) => Box::pin(std::future::ready(Err(error))),
            }
        };
        FunctionBuilder::new::<I>(name.into(), description.into(), Arc::new(run))
    }

    /// Makes a tool of a function that blocks its thread. It runs on the blocking pool of tokio.
    ///
    /// Input, output and errors are those of [`Function::new`]. A panic in it is [`ToolError::Panicked`].
    ///
    /// # Cancellation
    /// A thread cannot be stopped. Dropping the attempt before the function began keeps it from running; once it runs, it
    /// runs to its end, and until then the call's locks are kept (at most the scheduler's `stray_hold`).
    pub fn blocking<I, F, T, E, As>(
        name: impl Into<ToolName>,
        description: impl Into<String>,
        body: F,
    ) -> FunctionBuilder
    where
        I: DeserializeOwned + JsonSchema + Send + 'static,
        F: Fn(I, Attempt) -> Result<T, E> + Send + Sync + 'static,
        T: IntoOutput<As>,
        E: Display + 'static,
    {
        let body = Arc::new(body);
        let run = move |attempt: Attempt| -> BoxFuture<'static, Result<Output, ToolError>> {
            let body = body.clone();
            Box::pin(async move {
                let input = read_input(&attempt)?;
                let hold = attempt.hold();
                let thread = tokio::task::spawn_blocking(move || {
                    let tool = attempt.tool.clone();
                    let answer = settle(&tool, body(input, attempt));
                    // Only now is the work gone.
                    drop(hold);
                    answer
                });
                OnThread(thread).await
            })
        };
        FunctionBuilder::new::<I>(name.into(), description.into(), Arc::new(run))
    }
}

impl Tool for Function {
    fn spec(&self) -> ToolSpec {
        self.spec.clone()
    }

    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Result<Output, ToolError>> {
        (self.run)(attempt)
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// What a function may give back. `As` tells the two kinds apart and is always inferred.
pub trait IntoOutput<As> {
    /// The value as an output.
    ///
    /// # Errors
    /// [`ToolError::Failed`] when the value has no form in JSON. The work was done.
    fn into_output(self, tool: &ToolName) -> Result<Output, ToolError>;
}

/// Marks what is given back as data.
#[derive(Debug)]
pub enum AsData {}

/// Marks what is given back as an [`Output`].
#[derive(Debug)]
pub enum AsIs {}

impl<T: Serialize> IntoOutput<AsData> for T {
    fn into_output(self, tool: &ToolName) -> Result<Output, ToolError> {
        match serde_json::to_value(self) {
            Ok(Value::String(text)) => Ok(Output::text(text)),
            Ok(value) => Ok(Output::json(value)),
            Err(error) => Err(ToolError::Failed(format!("`{tool}` ran, but what it gave back is not JSON: {error}"))),
        }
    }
}

impl IntoOutput<AsIs> for Output {
    fn into_output(self, _: &ToolName) -> Result<Output, ToolError> {
        Ok(self)
    }
}

/// A function and what its author says of it, until [`build`](FunctionBuilder::build).
#[must_use = "a function becomes a tool with `build`"]
pub struct FunctionBuilder {
    spec: ToolSpec,
    declared: Declared,
    run: Arc<Run>,
}

impl FunctionBuilder {
    fn new<I: JsonSchema>(name: ToolName, description: String, run: Arc<Run>) -> Self {
        let mut spec = ToolSpec::new(name, Source::function());
        spec.description = description;
        spec.input_schema = schema_of::<I>();
        Self { spec, declared: Declared::default(), run }
    }

    /// Declares what it reads: templates over the input, such as `user/{user_id}`. None at all: it reads nothing that
    /// anything else touches.
    pub fn reads<'a>(mut self, templates: impl IntoIterator<Item = &'a str>) -> Self {
        self.declared.reads(templates);
        self
    }

    /// Declares what it writes. None at all: it writes nothing, and may be tried again.
    pub fn writes<'a>(mut self, templates: impl IntoIterator<Item = &'a str>) -> Self {
        self.declared.writes(templates);
        self
    }

    /// In a batch it follows the earlier calls of these tools.
    pub fn after<'a>(mut self, tools: impl IntoIterator<Item = &'a str>) -> Self {
        self.spec.policy.after = tools.into_iter().map(ToolName::from).collect();
        self
    }

    /// Running it again with the same input does no harm.
    pub fn idempotent(mut self) -> Self {
        self.spec.policy.idempotent = true;
        self
    }

    /// The longest that one attempt may take; 30 seconds unless said.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.spec.policy.timeout = timeout;
        self
    }

    /// The longest that a call may take, from the end of its waits on calls and people; 2 minutes unless said.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.spec.policy.deadline = deadline;
        self
    }

    /// The most bytes of a result that the model is shown; 64 KiB unless said.
    pub fn result_max(mut self, bytes: usize) -> Self {
        self.spec.policy.result_max = bytes;
        self
    }

    /// It runs calls itself, such as a sub-agent: it takes no locks and no permits of its own.
    pub fn nested(mut self) -> Self {
        self.spec.policy.nested = true;
        self
    }

    /// Where it comes from, for comparing effects with others that declare nothing; `function` unless said.
    pub fn source(mut self, source: impl Into<Source>) -> Self {
        self.spec.source = source.into();
        self
    }

    /// Replaces the schema that was made from the input's type, for inputs that a type cannot describe.
    pub fn input_schema(mut self, schema: Value) -> Self {
        self.spec.input_schema = schema;
        self
    }

    /// Makes the tool.
    ///
    /// # Errors
    /// [`FunctionError`] when a template cannot be read or names a field that the input lacks, or when the input is no
    /// object.
    pub fn build(mut self) -> Result<Function, FunctionError> {
        let tool = self.spec.name.clone();
        if self.spec.input_schema.get("type") != Some(&Value::String("object".into())) {
            return Err(FunctionError::NotAnObject { tool });
        }
        let fields = Fields::of(&self.spec.input_schema);
        let effects = self.declared.effects(EffectsSpec::writes_all_of(&self.spec.source), &fields);
        self.spec.effects = effects.map_err(|error| FunctionError::of(&tool, error))?;
        Ok(Function { spec: self.spec, run: self.run })
    }
}

impl fmt::Debug for FunctionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { spec, declared, run: _ } = self;
        f.debug_struct("FunctionBuilder").field("spec", spec).field("declared", declared).finish_non_exhaustive()
    }
}

/// Why a function cannot be a tool.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FunctionError {
    /// A template of its effects cannot be read.
    #[error("in the effects of `{tool}`")]
    Template {
        /// The tool.
        tool: ToolName,
        /// What is wrong with the template.
        #[source]
        source: TemplateError,
    },
    /// A template names a field that the input lacks.
    #[error("{place} in the effects of `{tool}` names `{field}`, which its input lacks{}", did_you_mean(.nearest))]
    UnknownField {
        /// The tool.
        tool: ToolName,
        /// The template, in backticks.
        place: String,
        /// The field that it names.
        field: String,
        /// The field that was perhaps meant.
        nearest: Option<String>,
    },
    /// The Messages API takes objects as inputs, and nothing else.
    #[error("the input of `{tool}` must be a struct or a map: its schema has to say `\"type\": \"object\"`")]
    NotAnObject {
        /// The tool.
        tool: ToolName,
    },
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

impl FunctionError {
    fn of(tool: &ToolName, error: EffectsError) -> Self {
        let tool = tool.clone();
        match error {
            EffectsError::Template(source) => Self::Template { tool, source },
            EffectsError::UnknownField(UnknownField { place, field, nearest }) => {
                Self::UnknownField { tool, place, field, nearest }
            }
        }
    }
}

/// The schema of an input type. What says nothing to the model (`$schema`, the type's name) is left out: it would be
/// paid for in every request.
fn schema_of<I: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.meta_schema = None);
    let mut schema = settings.into_generator().into_root_schema_for::<I>().to_value();
    if schema == Value::Bool(true) {
        schema = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(object) = &mut schema {
        object.remove("title");
        if !object.contains_key("type") {
            // A tagged enum is a choice of objects and does not say so at its top, where the API asks for it.
            object.insert("type".to_owned(), Value::String("object".to_owned()));
        }
    }
    schema
}

fn read_input<I: DeserializeOwned>(attempt: &Attempt) -> Result<I, ToolError> {
    serde_path_to_error::deserialize(&*attempt.input).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { "the input".to_owned() } else { format!("`{path}`") };
        ToolError::BadInput(format!("{place}: {}", error.into_inner()))
    })
}

fn settle<T: IntoOutput<As>, E: Display + 'static, As>(
    tool: &ToolName,
    answer: Result<T, E>,
) -> Result<Output, ToolError> {
    match answer {
        Ok(value) => value.into_output(tool),
        Err(error) => Err(match (&error as &dyn Any).downcast_ref::<ToolError>() {
            Some(error) => error.clone(),
            None => ToolError::Failed(error.to_string()),
        }),
    }
}

/// A function on a thread of the blocking pool. Dropping it takes the function out of the queue if it has not begun.
struct OnThread(JoinHandle<Result<Output, ToolError>>);

impl Future for OnThread {
    type Output = Result<Output, ToolError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|ended| match ended {
            Ok(answer) => answer,
            Err(error) => Err(match error.try_into_panic() {
                Ok(panic) => ToolError::Panicked(panic_text(&*panic)),
                Err(_) => ToolError::Stopped,
            }),
        })
    }
}

impl Drop for OnThread {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
