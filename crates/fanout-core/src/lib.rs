//! The scheduler.
pub mod call;
pub mod effects;
pub mod event;
pub mod outcome;
pub mod tool;
