//! What was asked: one call, its names and its place in the program.
//!
//! From the model's response (`fanout-agent`) or a program that holds a [`Batch`](crate::run::Batch).
//! To [`graph`](crate::graph), which finds out what it waits for, and to [`tool`](crate::tool), which runs it.
//!
//! Words only: nothing here decides, waits or runs.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use smallvec::SmallVec;

/// A short shared text that is a name; cloning it copies a pointer.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<T: Into<Arc<str>>> From<T> for $name {
            fn from(text: T) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name! {
    /// The id of one `tool_use` block, as the model wrote it. Unique within a batch.
    CallId
}
name! {
    /// The name of a tool, as the model uses it.
    ToolName
}
name! {
    /// The id of one run: one agent loop, or one batch handed over by a program.
    RunId
}
name! {
    /// The name of a limit group: the budget of one external API.
    GroupName
}
name! {
    /// The id of one question to people: whether a call may run.
    ApprovalId
}
name! {
    /// Who began a run. Permits are shared out fairly across callers first, then across the runs of each.
    CallerId
}

/// Where a call stands in program order: `2`, or `3.0` for the first element of what stands at `3`.
///
/// Positions compare as paths, so everything below `3` comes after `3` and before `4`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position(SmallVec<[u32; 4]>);

impl Position {
    /// The place of the `index`-th block of a batch, counted from 0.
    pub fn block(index: u32) -> Self {
        Self(SmallVec::from_slice(&[index]))
    }

    /// The place that was printed so; `None`: no place is.
    pub fn printed(text: &str) -> Option<Self> {
        let path: Option<SmallVec<[u32; 4]>> = text.split('.').map(|index| index.parse().ok()).collect();
        path.map(Self)
    }

    /// Compares as the order in which things end that contain others: what stands below a place comes before it.
    pub fn cmp_closing(&self, other: &Self) -> Ordering {
        let shared = self.0.iter().zip(&other.0).map(|(mine, theirs)| mine.cmp(theirs)).find(|order| order.is_ne());
        shared.unwrap_or_else(|| other.0.len().cmp(&self.0.len()))
    }

    /// The place of the `index`-th part of what stands here.
    #[must_use]
    pub fn part(&self, index: u32) -> Self {
        let mut path = self.0.clone();
        path.push(index);
        Self(path)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, index) in self.0.iter().enumerate() {
            if depth > 0 {
                f.write_str(".")?;
            }
            write!(f, "{index}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a call was given.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A JSON value, as the model meant it.
    Json(Value),
    /// Text that is not JSON; eager input streaming can bring it. The call ends as `invalid_input`, and the model is
    /// shown its own text.
    Invalid(String),
}

/// One `tool_use` block, or one member of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The model's id for it.
    pub id: CallId,
    /// Which tool it asks for; perhaps one that nobody has.
    pub tool: ToolName,
    /// What the tool is given.
    pub input: Input,
    /// Its place in program order. Calls of one batch arrive with growing positions.
    pub position: Position,
    /// The earlier calls it names. Empty for a plain `tool_use` block: the model cannot see the ids it is writing.
    pub links: Vec<Link>,
}

impl Call {
    /// A plain `tool_use` block: the `index`-th of its batch, counted from 0.
    pub fn new(index: u32, id: impl Into<CallId>, tool: impl Into<ToolName>, input: Value) -> Self {
        Self {
            id: id.into(),
            tool: tool.into(),
            input: Input::Json(input),
            position: Position::block(index),
            links: Vec::new(),
        }
    }
}

/// An earlier call of the batch that a call names itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// The earlier call.
    pub on: CallId,
    /// What it is needed for.
    pub need: Need,
}

/// Why a call names an earlier one.
#[derive(Clone, Debug, PartialEq)]
pub enum Need {
    /// Its output fills the references under this label. If it fails, this call is `skipped`.
    Output {
        /// The label that `$ref` objects in the input use.
        label: String,
    },
    /// It must have ended well. If it fails, this call is `skipped`.
    Success,
    /// It must have ended, well or not.
    Order,
}
