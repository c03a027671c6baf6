//! One endpoint as a tool.
//!
//! From its author, through `builder`; to a [`Toolbox`](fanout_core::toolbox::Toolbox), as [`HttpTool`].
//! In the order of a call: `tool` is what the toolbox holds; `address` fills inputs into the URL; `request` lays the rest
//! into query, body, headers and cookies, each `parameter` in its style; a `credential` is what its author sends along, `header` what a call fills of it; `client` keeps the connections; `answer` reads
//! what came back, `explanation` the body of an error, `picture` what can be shown as one, `waits` what it asks of everyone else.
//! `download` is no tool: it fetches what tools are made of; nor is `post`, which tells others what happened.
//! Nothing here sends a request twice: that is decided in `fanout-core`, from what an attempt came to.

mod address;
pub(crate) mod answer;
mod builder;
pub(crate) mod client;
mod credential;
mod download;
mod explanation;
mod header;
mod parameter;
pub(crate) mod picture;
mod post;
mod request;
mod tool;
pub(crate) mod waits;

pub use address::AddressError;
pub use answer::BODY_MAX;
pub use builder::{HttpToolBuilder, HttpToolError};
pub use client::{HttpClient, HttpClientError};
pub use credential::Credential;
pub use download::{DownloadBounds, DownloadError, check_address, download};
pub use parameter::{Parameter, ParameterPlace, Style};
pub use post::post;
pub use request::Body;
pub use tool::HttpTool;
