//! The one room of this crate that opens a connection: a model over HTTP.
//!
//! The key goes into one header and nowhere else: not into errors, `Debug` texts or a redirect. No process-wide setting is
//! touched, TLS included.

mod client;

mod options;

mod answer;

mod limits;

pub use answer::RESPONSE_BYTES_MAX;
pub use client::{HttpModel, REQUEST_BYTES_MAX};
pub use options::{HttpOptions, OptionsError};
