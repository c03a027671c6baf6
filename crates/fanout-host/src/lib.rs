//! The wiring that terminal and gateway share: configuration to a running whole.
//!
//! In reading order: [`environment`] is what the surroundings say, [`config`] reads `fanout.toml`, [`options`] and
//! [`build`] make of it what runs: an agent's options, tools, and the model's client; [`secrets`] are what none of them
//! shows; [`databases`] opens those whose statements are tools; [`connect`] adds the tools that MCP servers list, [`login`] is how a person gets access to one; [`declare`] adds
//! declarations to a file, [`documents`] fetches what it names by address; [`keys`] are who may use a
//! gateway, [`approvals`] what waits for a person and what they decide, [`notify`] tells others what happened, [`journal`] is where runs are kept and [`ledger`] what they spent, [`runs`] works on those in the background and goes on with those that broke off, [`status`] says how they stand, [`claims`] what a user's token says, by the keys that its issuer has `published`. [`groups`], [`explain`], [`advice`], [`changes`], [`lines`] and [`trace`] are what people and programs are shown.
//! No call is scheduled here.

pub mod advice;
pub mod approvals;
pub mod build;
pub mod changes;
pub mod claims;
pub mod config;
pub mod connect;
pub mod controls;
pub mod databases;
pub mod declare;
pub mod documents;
pub mod environment;
pub mod explain;
pub mod groups;
pub mod journal;
pub mod keys;
pub mod ledger;
pub mod lines;
pub mod login;
pub mod notify;
pub mod options;
mod published;
pub mod runs;
pub mod secrets;
pub mod status;
pub mod trace;
