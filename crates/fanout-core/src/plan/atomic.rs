//! A plan that is one call: all of its calls are carried out together, or none of them.
//!
//! From [`run`](crate::run): the members of an atomic plan, in program order. To the tool that carries them out, with its
//! [`Attempt`](crate::tool::Attempt), and back: what each of them came to.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::call::ToolName;
use crate::effects::{Effects, Paths};
use crate::outcome::{CallError, ErrorCode, Output};
use crate::reference::{Bound, FILLED_IN_PLAN_MAX, fill, fill_within};
use crate::secrets::Secrets;
use crate::tool::ToolError;
use crate::toolbox::Registered;

/// What a tool of the same source needs of this one, to carry out its call together with its own. Only they know what it is.
#[derive(Clone)]
pub struct AtomicPart(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for AtomicPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AtomicPart")
    }
}

/// One call of an atomic plan.
#[derive(Clone, Debug)]
pub struct Member {
    /// What the plan calls it: `charge`, or `charge/3` for one of a `for_each`.
    pub label: Arc<str>,
    pub(crate) tool: Arc<Registered>,
    /// What it is given, references not filled.
    pub(crate) input: Arc<Value>,
    /// What its labels stand for.
    pub(crate) names: Vec<(Arc<str>, Named)>,
}

/// What a label stands for in an atomic plan.
#[derive(Clone, Debug)]
pub(crate) enum Named {
    /// The output of the member at this place.
    Member(usize),
    /// Those of members that stand for one `for_each`.
    Members(Vec<usize>),
    /// A value that was known from the start.
    Value(Arc<Value>),
}

/// Calls that are carried out as one, in their order, and what one attempt has come to so far.
#[derive(Debug)]
pub struct Atomic {
    members: Arc<[Member]>,
    secrets: Arc<Secrets>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Of the members so far.
    outputs: Vec<(Output, Arc<Value>)>,
    /// How many members were begun.
    begun: usize,
    /// Why the input of the next member could not be filled.
    unfilled: Option<CallError>,
    /// So many bytes may still be filled in.
    left: usize,
    /// What the model was shown of the plan before.
    recorded: Option<Output>,
}

impl Default for State {
    fn default() -> Self {
        Self { outputs: Vec::new(), begun: 0, unfilled: None, left: FILLED_IN_PLAN_MAX, recorded: None }
    }
}

impl Atomic {
    pub(crate) fn new(members: Vec<Member>, secrets: Arc<Secrets>) -> Self {
        Self { members: members.into(), secrets, state: Mutex::default() }
    }

    /// The members, in program order. There is at least one, and all tools are of one source.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// What the tool of this member has given for the others.
    pub fn part(&self, member: usize) -> Option<&AtomicPart> {
        self.members.get(member)?.tool.spec.atomic.as_ref()
    }

    /// The same calls for another attempt. What an earlier one still does, when its time is over and it is being stopped, is
    /// told to itself alone.
    pub(crate) fn again(&self) -> Self {
        Self { members: Arc::clone(&self.members), secrets: Arc::clone(&self.secrets), state: Mutex::default() }
    }

    /// The input of a member, its references filled from what those before it came to. It fits the schema.
    ///
    /// # Errors
    /// [`ToolError::BadInput`]: all that was done so far must be undone.
    pub fn input(&self, member: usize) -> Result<Arc<Value>, ToolError> {
        let mut state = self.state();
        state.begun = state.begun.max(member + 1);
        let filled = self.filled(member, &mut state);
        filled.map_err(|error| {
            state.unfilled = Some(error.clone());
            ToolError::BadInput(error.message)
        })
    }

    fn filled(&self, member: usize, state: &mut State) -> Result<Arc<Value>, CallError> {
        let Some(member) = self.members.get(member) else {
            return Err(CallError::new(ErrorCode::Internal, "the atomic plan has no such call"));
        };
        let State { outputs, left, .. } = state;
        let output = |at: usize| outputs.get(at).map(|(_, value)| Arc::clone(value));
        let bound = |label: &str, index: Option<usize>| {
            let (_, named) = member.names.iter().find(|(name, _)| &**name == label)?;
            Some(match (named, index) {
                (Named::Value(value), _) => Bound::Whole(Arc::clone(value)),
                (Named::Member(at), _) => Bound::Whole(output(*at)?),
                (Named::Members(all), Some(index)) => Bound::Part(match all.get(index) {
                    Some(at) => Ok(output(*at)?),
                    None => Err(all.len()),
                }),
                (Named::Members(all), None) => {
                    let values = all.iter().map(|at| output(*at).map(|value| (*value).clone()));
                    Bound::Whole(Arc::new(Value::Array(values.collect::<Option<_>>()?)))
                }
            })
        };
        let input = fill_within(left, &member.input, &bound)?;
        member.tool.schema.check(member.tool.spec.name.as_str(), &input)?;
        Ok(Arc::new(input))
    }

    /// What the next member came to. It counts once all of them are kept.
    pub fn answer(&self, mut output: Output) {
        self.secrets.hide_in_output(&mut output);
        let value = Arc::new(output.value());
        self.state().outputs.push((output, value));
    }

    /// What the whole plan came to is known from before: the model is shown this, whatever the members were told.
    pub fn answer_recorded(&self, shown: Output) {
        self.state().recorded = Some(shown);
    }

    /// What the model was shown of the plan before.
    pub(crate) fn recorded(&self) -> Option<Output> {
        self.state().recorded.clone()
    }

    /// What each member came to, once the attempt has ended as `result` says.
    pub(crate) fn came_to(&self, result: &Result<(), CallError>) -> Vec<Result<Output, CallError>> {
        let state = self.state();
        let Err(error) = result else {
            return state.outputs.iter().map(|(output, _)| Ok(output.clone())).collect();
        };
        let reached = state.outputs.len();
        // What fails before the first or after the last, such as BEGIN and COMMIT, is nobody's alone.
        let culprit = self.members.get(reached).filter(|_| state.begun > reached);
        let error = state.unfilled.clone().filter(|_| culprit.is_some()).unwrap_or_else(|| error.clone());
        let is_known = error.code != ErrorCode::OutcomeUnknown;
        let outcome = |at: usize| match culprit {
            _ if !is_known => error.clone(),
            None => error.clone(),
            Some(_) if at == reached => error.clone(),
            Some(culprit) => {
                let what = if at < reached { "undone" } else { "not run" };
                let (label, tool) = (&culprit.label, &culprit.tool.spec.name);
                let message = format!("{what}: the plan is atomic, and `{label}` (`{tool}`) failed");
                CallError::new(ErrorCode::Skipped, message)
            }
        };
        (0..self.members.len()).map(|at| Err(outcome(at))).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// The name of its tool.
    pub fn tool(&self) -> &ToolName {
        &self.tool.spec.name
    }

    /// What it touches, as far as that is known before anything has run.
    pub(crate) fn effects(&self, paths: &Paths) -> Effects {
        self.tool.effects_of(&self.known_input(), paths)
    }

    /// Whether it refers to no other's output: what it is given is known before anything has run.
    pub(crate) fn is_settled(&self) -> bool {
        self.names.iter().all(|(_, named)| matches!(named, Named::Value(_)))
    }

    /// What it is given, as far as that is known before anything has run.
    pub(crate) fn known_input(&self) -> Value {
        let bound = |label: &str, _: Option<usize>| {
            let (_, named) = self.names.iter().find(|(name, _)| &**name == label)?;
            if let Named::Value(value) = named { Some(Bound::Whole(Arc::clone(value))) } else { None }
        };
        fill(&self.input, &bound).map_or_else(|_| (*self.input).clone(), |(input, _)| input)
    }
}
