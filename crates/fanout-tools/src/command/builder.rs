//! What an author says of a program, made into a tool.
//!
//! From its author: the program, its arguments, where it stands, what it sees and what it touches.
//! To `tool`, with everything read and checked, so that a mistake shows before the first call.
//!
//! Nothing is started here, and it is not looked whether the program is there: it may come later.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use fanout_core::call::ToolName;
use fanout_core::effects::{EffectsSpec, Source};
use fanout_core::tool::{Policy, ToolSpec};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::answer::OUTPUT_MAX;
use super::argument::Line;
use super::group::Programs;
use super::program::Program;
use super::tool::{CommandTool, Recipe};
use crate::declared::{Declared, EffectsError};
use crate::schema::{Fields, UnknownField};

/// A program as its author describes it, until [`build`](CommandToolBuilder::build).
#[must_use = "a program becomes a tool with `build`"]
pub struct CommandToolBuilder {
    name: ToolName,
    program: String,
    description: String,
    input_schema: Value,
    arguments: Vec<SecretString>,
    stdin: Option<SecretString>,
    folder: Option<PathBuf>,
    variables: Vec<(OsString, OsString)>,
    output_max: usize,
    declared: Declared,
    policy: Policy,
}

impl CommandToolBuilder {
    pub(super) fn new(name: ToolName, program: String) -> Self {
        Self {
            name,
            program,
            description: String::new(),
            input_schema: serde_json::json!({ "type": "object" }),
            arguments: Vec::new(),
            stdin: None,
            folder: None,
            variables: Vec::new(),
            output_max: OUTPUT_MAX,
            declared: Declared::default(),
            policy: Policy::default(),
        }
    }

    /// What the model reads of it.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// The JSON Schema of its input; any object unless said.
    pub fn input_schema(mut self, schema: Value) -> Self {
        self.input_schema = schema;
        self
    }

    /// Adds an argument: a text with inputs in it, such as `--max={n}` or `{path}`; `{{` is a plain brace. An array that is
    /// all of it makes one argument per element. The text stands in no message and no debug output.
    ///
    /// An input at the start of an argument must not begin with `-`, unless an earlier argument is `--`: a program would take
    /// it for an option. An absent input leaves out the argument that it is a part of; one that is all of an argument is
    /// needed.
    pub fn argument(mut self, template: impl Into<SecretString>) -> Self {
        self.arguments.push(template.into());
        self
    }

    /// What it reads on standard input: a text with inputs in it. Without it, or with an absent input, there is nothing to
    /// read.
    pub fn stdin(mut self, template: impl Into<SecretString>) -> Self {
        self.stdin = Some(template.into());
        self
    }

    /// The folder that it is started in; that of this process unless said.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Sets a variable of its environment. Nothing is inherited; it sees only what is set or [let](Self::inherit) through,
    /// and `FANOUT_IDEMPOTENCY_KEY`, the same for every attempt at a call.
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Lets a variable of this process through, if it is set now.
    pub fn inherit(self, name: &str) -> Self {
        match std::env::var_os(name) {
            Some(value) => self.variable(name, value),
            None => self,
        }
    }

    /// The most that is kept of each stream, in bytes; 1 MiB unless said.
    pub fn output_max(mut self, bytes: usize) -> Self {
        self.output_max = bytes;
        self
    }

    /// Takes it to touch nothing as long as nothing is declared: calls of it wait for no other program, by its author's
    /// choice.
    pub fn undeclared_parallel(mut self) -> Self {
        self.declared.parallel = true;
        self
    }

    /// Declares what it reads; see [`FunctionBuilder::reads`](crate::function::FunctionBuilder::reads).
    pub fn reads<'a>(mut self, templates: impl IntoIterator<Item = &'a str>) -> Self {
        self.declared.reads(templates);
        self
    }

    /// Declares what it writes. None at all: it writes nothing, and may be tried again.
    pub fn writes<'a>(mut self, templates: impl IntoIterator<Item = &'a str>) -> Self {
        self.declared.writes(templates);
        self
    }

    /// How calls of it are treated.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Finds the mistakes that [`build`](CommandToolBuilder::build) would find.
    ///
    /// # Errors
    /// The first of them.
    pub fn check(&self) -> Result<(), CommandToolError> {
        self.read().map(drop)
    }

    /// Makes the tool; what it starts stands among `programs`.
    ///
    /// # Errors
    /// [`CommandToolError`] when something that the author wrote cannot be right. Nothing is started.
    pub fn build(self, programs: &Programs) -> Result<CommandTool, CommandToolError> {
        let (line, effects) = self.read()?;
        let spec = ToolSpec {
            description: self.description,
            input_schema: self.input_schema,
            effects,
            policy: self.policy,
            ..ToolSpec::new(self.name.clone(), Source::command())
        };
        let program = Program { tool: self.name, name: self.program, folder: self.folder, variables: self.variables };
        let recipe =
            Recipe { line, program: Arc::new(program), output_max: self.output_max, programs: programs.clone() };
        Ok(CommandTool { spec, recipe: Arc::new(recipe) })
    }

    fn read(&self) -> Result<(Line, EffectsSpec), CommandToolError> {
        if self.program.is_empty() || self.program.contains('\0') {
            return Err(CommandToolError::Program);
        }
        if self.program.contains(['{', '}']) {
            return Err(CommandToolError::ProgramField);
        }
        let arguments = self.arguments.iter().map(ExposeSecret::expose_secret);
        let line = Line::parse(arguments, self.stdin.as_ref().map(ExposeSecret::expose_secret))?;
        for (at, argument) in self.arguments.iter().enumerate() {
            if argument.expose_secret().contains('\0') {
                return Err(CommandToolError::Nul { place: format!("argument {}", at + 1) });
            }
        }
        for (name, value) in &self.variables {
            let (name_bytes, value_bytes) = (name.as_encoded_bytes(), value.as_encoded_bytes());
            if name_bytes.is_empty() || name_bytes.iter().any(|byte| matches!(byte, b'=' | 0)) {
                return Err(CommandToolError::VariableName { name: name.to_string_lossy().into_owned() });
            }
            if value_bytes.contains(&0) {
                return Err(CommandToolError::Nul { place: format!("the variable `{}`", name.to_string_lossy()) });
            }
        }
        let fields = Fields::of(&self.input_schema);
        for (place, field) in line.fields() {
            if let Some(first) = field.first() {
                fields.check(first, || place)?;
            }
        }
        let effects = self.declared.effects(EffectsSpec::writes_all_of(&Source::command()), &fields)?;
        Ok((line, effects))
    }
}

impl fmt::Debug for CommandToolBuilder {
    // Neither arguments nor variables: they may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandToolBuilder")
            .field("name", &self.name)
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

/// Why a program cannot be a tool. None repeats an argument, standard input or a variable's value.
#[derive(Debug, thiserror::Error)]
pub enum CommandToolError {
    /// No program.
    #[error("the program must be a path or a name that stands in PATH, such as \"ruff\"")]
    Program,
    /// An input would choose what runs.
    #[error("the program must be fixed: fields such as `{{path}}` can only stand in its arguments and standard input")]
    ProgramField,
    /// A brace without its partner, or `{}`.
    #[error("in {place} a `{{` needs a field name and a `}}`, as in `{{path}}`; a plain brace is written twice")]
    Brace {
        /// The argument, counted from 1, or standard input.
        place: String,
    },
    /// An input stands where the name of an option does.
    #[error("in {place} an input would choose the option; write its name out, as in `--name={{value}}`")]
    OptionName {
        /// The argument, counted from 1.
        place: String,
    },
    /// A character that no argument can hold.
    #[error("{place} holds a NUL character, which cannot be handed over")]
    Nul {
        /// The argument, counted from 1, or the variable.
        place: String,
    },
    /// A variable that cannot be set.
    #[error("`{name}` is no name of an environment variable")]
    VariableName {
        /// Its name.
        name: String,
    },
    /// What it is declared to touch cannot be right.
    #[error(transparent)]
    Effects(#[from] EffectsError),
    /// A template names a field that the input lacks.
    #[error(transparent)]
    UnknownField(#[from] UnknownField),
}
