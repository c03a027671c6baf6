//! The `plan` tool: a whole graph of calls in one answer of the model.
//!
//! From the input of one call of `plan`, and the tools at hand. To [`run`](crate::run): its calls, each with the labels that
//! it uses. In the order of a plan's life: `offer` says to the model what it can write, `parse` reads what it wrote, `atomic` is
//! given to the tool that carries out all of it as one, `answer` puts the one result together.
//!
//! The model does not see the ids of the calls that it is writing, so a plan names its calls by labels of its own. Nothing
//! here runs or waits.

mod answer;
mod atomic;
mod offer;
mod parse;

pub use answer::{Came, answer};
pub(crate) use atomic::Named as AtomicNamed;
pub use atomic::{Atomic, AtomicPart, Member as AtomicMember};
pub(crate) use offer::{description, schema};
pub(crate) use parse::too_many;

use std::sync::Arc;

use serde_json::Value;

use crate::effects::{Effects, Paths};
use crate::graph::Of;
use crate::toolbox::Registered;

/// What the tool is called.
pub const PLAN: &str = "plan";

/// The label of the element that a call of a `for_each` is for.
pub const ITEM: &str = "item";

/// At most so many calls a plan, those of its `for_each` included. The number is the design's.
pub const CALLS_MAX: usize = 1_000;

/// A plan that is well formed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its calls, in program order.
    pub members: Vec<Member>,
    /// What the model is shown, in its order; `None`: everything.
    pub shown: Option<Vec<Shown>>,
    /// All of it is one call.
    pub atomic: bool,
}

/// One call of a plan, or one for each element of something.
#[derive(Clone, Debug)]
pub struct Member {
    /// What the plan calls it.
    pub label: Arc<str>,
    /// Its tool.
    pub tool: Arc<Registered>,
    /// What it is given, references not filled.
    pub input: Arc<Value>,
    /// It stands for one call per element.
    pub each: Option<Each>,
    /// What its input refers to, [`ITEM`] aside; each once.
    pub uses: Vec<Use>,
    /// The earlier members that must have ended well.
    pub needs: Vec<usize>,
}

/// The elements of a `for_each`.
#[derive(Clone, Debug)]
pub enum Each {
    /// Those of an array, references not filled.
    In {
        /// The array, or the reference to it.
        items: Arc<Value>,
        /// What it refers to.
        uses: Vec<Use>,
    },
    /// The outputs of the calls of this earlier `for_each`, each by itself.
    With(usize),
}

/// An earlier call that an input refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Which member.
    pub on: usize,
    /// All of it, or one of the calls that it stands for.
    pub of: Of,
}

/// One thing that the model is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// As the model wrote it.
    pub name: String,
    /// Which member.
    pub member: usize,
    /// What of its output.
    pub pointer: String,
}

impl Member {
    /// What it touches, as far as that is known before anything has run: what a reference stands for is not.
    pub fn effects(&self, paths: &Paths) -> Effects {
        self.tool.effects_of(&self.input, paths)
    }

    /// The elements of its `for_each`, if they are known before anything has run.
    pub fn known_items(&self) -> Option<&Vec<Value>> {
        match &self.each {
            Some(Each::In { items, uses }) if uses.is_empty() => items.as_array(),
            _ => None,
        }
    }
}
