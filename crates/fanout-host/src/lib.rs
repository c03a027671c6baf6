//! The wiring that terminal and gateway share: configuration to a running whole.
//!
//! In reading order: [`environment`] is what the surroundings say, [`config`] reads `fanout.toml` into options, [`prices`]
//! turns tokens into dollars, and [`build`] makes of the options what runs: tools, and the model's client. [`explain`],
//! [`advice`] and [`lines`] are what people and programs are shown of it.
//! No call is scheduled and no request is sent here.

pub mod advice;
pub mod build;
pub mod config;
pub mod environment;
pub mod explain;
pub mod lines;
pub mod prices;
