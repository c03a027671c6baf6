//! The operations of an OpenAPI document as tools.
//!
//! From a file, JSON or YAML, of version 3.0 or 3.1, with the files beside it that it refers to. To a toolbox, as HTTP tools:
//! [`Document::operations`] lists what there is, [`Document::describe`] reads one operation, and
//! [`Operation::builder`] makes an [`HttpToolBuilder`](crate::http::HttpToolBuilder) of it.
//!
//! In reading order: `document` is the text and its references, `outline` what operations there are and what they are
//! called, `operation` one of them; `input` lays parameters and body into one object, `schema` makes JSON Schema of what
//! the document says, `security` says how credentials travel, `effects` proposes keys.
//! Nothing here asks anybody.

mod document;
mod effects;
mod input;
mod operation;
mod outline;
mod schema;
mod security;

pub use document::{DOWNLOAD, Document, DocumentError};
pub use operation::{Operation, OperationError};
pub use outline::{Outline, matches_pattern};
