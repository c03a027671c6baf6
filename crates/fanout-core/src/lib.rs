//! The scheduler: which call may run when.
//!
//! A batch of calls goes in, one outcome per call comes out, in the order in which the model named them, and the results
//! are those of running them one by one. No network, no wire format and no storage is to be found here.
//!
//! The modules in the order of one call's journey:

pub mod approval;
pub mod call;
pub mod effects;

pub mod conflicts;
pub mod graph;
pub mod limits;
pub mod locks;
pub mod plan;
pub mod reference;
pub mod retry;
pub mod schedule;
mod timers;

pub mod layer;
pub mod once;
pub mod tool;
pub mod toolbox;
pub mod validate;

pub mod outcome;
pub mod secrets;
pub mod shape;

pub mod event;
pub mod timeline;

#[cfg(feature = "run")]
pub mod run;
