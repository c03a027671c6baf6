//! One operation as a tool.
//!
//! From the document, by an outline. To `fanout-host`, which adds the configuration's word and puts it into a toolbox.
//!
//! Nothing of the document is kept: an operation is all that its tool needs.

use std::collections::BTreeMap;

use fanout_core::tool::Proposal;
use serde_json::Value;

use super::document::{Document, Spot};
use super::effects::proposed_key;
use super::input::{self, Inputs};
use super::outline::Outline;
use super::schema::bounded;
use super::security::{Known, Needs, chosen};
use crate::http::{Credential, HttpTool, HttpToolBuilder, HttpToolError};

/// The longest description of a tool, in bytes: many documents hold whole chapters there, and every request pays for them.
const DESCRIPTION_MAX: usize = 1_024;

/// One operation, read.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Which one.
    pub outline: Outline,
    /// Its summary and its description, bounded.
    pub description: String,
    /// Where it is sent, if the document says so with scheme and host: without a slash at the end.
    pub server: Option<String>,
    inputs: Inputs,
    needs: Needs,
    schemes: BTreeMap<String, Known>,
}

/// Why an operation can be no tool.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// Nothing says where it is sent.
    #[error("the document names no server with scheme and host; write `base_url`")]
    NoServer,
    /// A style that is not spelled here.
    #[error("its parameter `{name}` has the style `{style}`, which is not known here")]
    Style {
        /// The parameter.
        name: String,
        /// The style.
        style: String,
    },
    /// The end user's token where it cannot stand.
    #[error(
        "`auth`: the scheme `{scheme}` is no header, and `${{caller.token}}` can only be sent in one; use `bearer`"
    )]
    CallerToken {
        /// The scheme.
        scheme: String,
    },
    /// It is gone: the outline is another document's.
    #[error("there is no such operation")]
    Absent,
    /// The endpoint cannot be a tool.
    #[error(transparent)]
    Tool(#[from] HttpToolError),
}

impl Document {
    /// Reads one operation.
    ///
    /// # Errors
    /// [`OperationError`] when it cannot be spelled as a request here, or when `outline` is not this document's.
    pub fn describe(&self, outline: &Outline) -> Result<Operation, OperationError> {
        let item = self.root().get("paths").and_then(|paths| paths.get(&outline.path));
        let item = item.and_then(|item| self.resolved(item)).ok_or(OperationError::Absent)?;
        let operation = item.get(&outline.method.as_str().to_ascii_lowercase()).ok_or(OperationError::Absent)?;
        // A GET has no body, whatever a document says (RFC 9110, 9.3.1: no meaning that all agree on).
        let takes_body = !matches!(outline.method.as_str(), "GET" | "HEAD");
        let inputs = input::read(self, &outline.path, item.get("parameters"), operation, takes_body)?;
        Ok(Operation {
            outline: outline.clone(),
            description: description(outline, operation),
            server: server(operation).or_else(|| server(item)).or_else(|| server(self.root())),
            inputs,
            needs: self.needs(operation),
            schemes: self.all_schemes(),
        })
    }
}

impl Operation {
    /// The JSON Schema of its input.
    pub fn input_schema(&self) -> &Value {
        &self.inputs.schema
    }

    /// The key that its path proposes, such as `orders/{id}/*`.
    pub fn proposed_key(&self) -> Option<String> {
        proposed_key(&self.inputs.path)
    }

    /// The tool, sent to `base_url` if there is one and else to the document's server, with the secrets of `auth` (by
    /// scheme) that it asks for. `source` is the section that it is described in, such as `[openapi.shop]`.
    ///
    /// # Errors
    /// [`OperationError::NoServer`], [`OperationError::CallerToken`]; other mistakes show when the tool is built.
    pub fn builder(
        &self,
        source: &str,
        base_url: Option<&str>,
        auth: &[(String, Credential)],
    ) -> Result<HttpToolBuilder, OperationError> {
        let Inputs { schema, path, parameters, renamed, body, body_optional, media } = &self.inputs;
        let base = base_url.or(self.server.as_deref()).ok_or(OperationError::NoServer)?;
        let url = format!("{}{path}", base.trim_end_matches('/'));
        let label = self.outline.label();
        let proposal = Proposal { section: source.to_owned(), tool: label.clone(), key: self.proposed_key() };
        let mut builder = HttpTool::builder(self.outline.tool.clone(), self.outline.method.clone(), url)
            .description(&self.description)
            .body(*body)
            .proposal(proposal);
        if *body_optional {
            builder = builder.body_optional();
        }
        if let Some(media) = media {
            builder = builder.header("content-type", media.clone());
        }
        let names = chosen(&self.needs, |name| auth.iter().any(|(given, _)| given == name), &self.schemes);
        let mut set = Vec::new();
        for (name, secret) in auth.iter().filter(|(name, _)| names.contains(name)) {
            if let Some(known) = self.schemes.get(name) {
                set.push(known.scheme.clone());
                let absent = || OperationError::CallerToken { scheme: name.clone() };
                builder = known.scheme.apply(builder, secret).ok_or_else(absent)?;
            }
        }
        let mut schema = schema.clone();
        for parameter in parameters {
            // What the configuration sends is not the model's to say.
            if set.iter().any(|scheme| scheme.sends(parameter.place, &parameter.name)) {
                without(&mut schema, &parameter.field);
            } else {
                builder = builder.parameter(parameter.clone());
            }
        }
        for (field, name) in renamed {
            builder = builder.rename(field, name);
        }
        Ok(builder.input_schema(schema))
    }
}

fn without(schema: &mut Value, field: &str) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.remove(field);
    }
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| name != field);
    }
}

fn description(outline: &Outline, operation: Spot<'_>) -> String {
    let said = ["summary", "description"].map(|key| operation.text(key).map(str::trim).unwrap_or_default());
    let [summary, description] = said;
    let mut text = match (summary, description) {
        ("", "") => outline.place(),
        (one, "") | ("", one) => one.to_owned(),
        (summary, description) if description.starts_with(summary) => description.to_owned(),
        (summary, description) => format!("{summary}\n\n{description}"),
    };
    if operation.flag("deprecated") {
        text = format!("Deprecated. {text}");
    }
    bounded(&text, DESCRIPTION_MAX).as_str().unwrap_or_default().to_owned()
}

/// The first server that a part of the document names, with the defaults of its variables; one without a host is none.
fn server(spot: Spot<'_>) -> Option<String> {
    let server = spot.get("servers")?.elements().next()?;
    let mut url = server.text("url")?.to_owned();
    for (name, variable) in server.get("variables").into_iter().flat_map(Spot::entries) {
        let default = variable.value.get("default").map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        url = url.replace(&format!("{{{name}}}"), &default.unwrap_or_default());
    }
    url.contains("://").then(|| url.trim_end_matches('/').to_owned())
}
