//! What an author says of an endpoint, made into a tool.
//!
//! From its author: method, URL, headers, where the inputs go, what it touches.
//! To `tool`, with everything read and checked, so that a mistake shows before the first call.
//!
//! GET and HEAD read their host and may be tried again; everything else writes it. Nothing is sent here.

use std::fmt;
use std::sync::Arc;

use fanout_core::call::ToolName;
use fanout_core::effects::{EffectsSpec, Source};
use fanout_core::tool::{Policy, Proposal, ToolSpec};
use http::{HeaderMap, Method};
use secrecy::SecretString;
use serde_json::Value;

use super::address::{Address, AddressError};
use super::client::{HttpClient, HttpClientError};
use super::credential::Credential;
use super::header::{Header, Headers, Written};
use super::parameter::{Parameter, ParameterPlace};
use super::request::{Body, Layout};
use super::tool::{Endpoint, HttpTool};
use crate::declared::{Declared, EffectsError};
use crate::schema::{Fields, UnknownField};
use crate::text::Text;

/// An endpoint as its author describes it, until [`build`](HttpToolBuilder::build).
#[must_use = "an endpoint becomes a tool with `build`"]
pub struct HttpToolBuilder {
    name: ToolName,
    method: Method,
    url: String,
    description: String,
    input_schema: Value,
    headers: Vec<Written>,
    query: Vec<(String, String)>,
    body: Option<Body>,
    declared: Declared,
    policy: Policy,
    parameters: Vec<Parameter>,
    renamed: Vec<(String, String)>,
    body_optional: bool,
    fixed: Vec<(ParameterPlace, String, SecretString)>,
    proposal: Option<Proposal>,
}

impl HttpToolBuilder {
    pub(super) fn new(name: ToolName, method: Method, url: String) -> Self {
        Self {
            name,
            method,
            url,
            description: String::new(),
            input_schema: serde_json::json!({ "type": "object" }),
            headers: Vec::new(),
            query: Vec::new(),
            body: None,
            declared: Declared::default(),
            policy: Policy::default(),
            parameters: Vec::new(),
            renamed: Vec::new(),
            body_optional: false,
            fixed: Vec::new(),
            proposal: None,
        }
    }

    /// What the model reads of it.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// The JSON Schema of its input; any object unless said.
    pub fn input_schema(mut self, schema: Value) -> Self {
        self.input_schema = schema;
        self
    }

    /// Adds a header: a text with inputs in it, such as `{tenant}`. An array that is all of it is a list with commas; with an
    /// absent input it is left out. Its value is a secret: it stands in no message and no debug output. What a server
    /// repeats of it is hidden where the toolbox knows it: [`Toolbox::hide`](fanout_core::toolbox::Toolbox::hide).
    pub fn header(mut self, name: impl Into<String>, template: impl Into<Credential>) -> Self {
        self.headers.push(Written { name: name.into(), value: template.into(), plain: false });
        self
    }

    /// Adds a header that every request carries as it is: braces in it are braces. Its value is a secret.
    pub fn secret_header(mut self, name: impl Into<String>, value: impl Into<Credential>) -> Self {
        self.headers.push(Written { name: name.into(), value: value.into(), plain: true });
        self
    }

    /// Adds a parameter to the query: a text with inputs in it, such as `{text}`. An array that is all of it repeats the
    /// name; with an absent input it is left out.
    pub fn query(mut self, name: impl Into<String>, template: impl Into<String>) -> Self {
        self.query.push((name.into(), template.into()));
        self
    }

    /// How the inputs that neither URL nor query take are sent.
    pub fn body(mut self, body: Body) -> Self {
        self.body = Some(body);
        self
    }

    /// Without any input for it, no body is sent.
    pub fn body_optional(mut self) -> Self {
        self.body_optional = true;
        self
    }

    /// Gives one input a place and a style of its own.
    pub fn parameter(mut self, parameter: Parameter) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// Sends a field of the body under another name.
    pub fn rename(mut self, field: impl Into<String>, name: impl Into<String>) -> Self {
        self.renamed.push((field.into(), name.into()));
        self
    }

    /// Adds a pair that every request carries in its query. Its value is a secret.
    pub fn secret_query(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.fixed.push((ParameterPlace::Query, name.into(), value.into()));
        self
    }

    /// Adds a cookie that every request carries. Its value is a secret.
    pub fn secret_cookie(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.fixed.push((ParameterPlace::Cookie, name.into(), value.into()));
        self
    }

    /// Takes it to touch nothing as long as nothing is declared: calls of it wait for none of its host, by its author's
    /// choice.
    pub fn undeclared_parallel(mut self) -> Self {
        self.declared.parallel = true;
        self
    }

    /// What its author might declare; shown where a declaration is missing.
    pub fn proposal(mut self, proposal: Proposal) -> Self {
        self.proposal = Some(proposal);
        self
    }

    /// Declares what it reads; see [`FunctionBuilder::reads`](crate::function::FunctionBuilder::reads).
    pub fn reads<'a>(mut self, templates: impl IntoIterator<Item = &'a str>) -> Self {
        self.declared.reads(templates);
        self
    }

    /// Declares what it writes. None at all: it writes nothing, and may be tried again.
    pub fn writes<'a>(mut self, templates: impl IntoIterator<Item = &'a str>) -> Self {
        self.declared.writes(templates);
        self
    }

    /// How calls of it are treated.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Finds the mistakes that [`build`](HttpToolBuilder::build) would find, without a client.
    ///
    /// # Errors
    /// The first of them.
    pub fn check(&self) -> Result<(), HttpToolError> {
        self.read().map(drop)
    }

    /// Makes the tool; it sends through `client`.
    ///
    /// # Errors
    /// [`HttpToolError`] when something that the author wrote cannot be right. Nothing is sent.
    pub fn build(self, client: &HttpClient) -> Result<HttpTool, HttpToolError> {
        let Parts { source, effects, headers, layout } = self.read()?;
        let safe = is_safe(&layout.method);
        let spec = ToolSpec {
            description: self.description,
            input_schema: self.input_schema,
            effects,
            safe,
            policy: self.policy,
            proposal: self.proposal,
            ..ToolSpec::new(self.name, source)
        };
        let client = client.to(layout.address.origin(), spec.repeatable(), spec.policy.timeout)?;
        Ok(HttpTool { spec, endpoint: Arc::new(Endpoint { layout, headers, client }) })
    }

    fn read(&self) -> Result<Parts, HttpToolError> {
        let address = Address::parse(&self.url)?;
        let source = Source::http(&address.host());
        let fields = Fields::of(&self.input_schema);
        let all_of = if is_safe(&self.method) { EffectsSpec::reads_all_of } else { EffectsSpec::writes_all_of };
        let effects = self.declared.effects(all_of(&source), &fields)?;
        let Headers { fixed: headers, filled } = Headers::read(&self.headers)?;
        let layout = self.layout(address, filled, &fields)?;
        Ok(Parts { source, effects, headers, layout })
    }

    fn layout(&self, address: Address, headers: Vec<Header>, fields: &Fields) -> Result<Layout, HttpToolError> {
        let method = self.method.clone();
        if matches!(method, Method::CONNECT | Method::TRACE) {
            return Err(HttpToolError::Method { method });
        }
        if self.body.is_some_and(|body| body != Body::Nothing) && is_safe(&method) {
            return Err(HttpToolError::NoBody { method });
        }
        let text = |(name, template): &(String, String)| match Text::parse(template) {
            Some(text) => Ok((name.clone(), text)),
            None => Err(HttpToolError::Query { name: name.clone() }),
        };
        let query = self.query.iter().map(text).collect::<Result<_, _>>()?;
        let layout = Layout {
            body: self.body.or(Layout::default_body(&method)),
            method,
            address,
            query,
            headers,
            parameters: self.parameters.clone(),
            renamed: self.renamed.clone(),
            body_optional: self.body_optional,
            fixed: self.fixed.clone(),
        };
        for field in layout.fields().filter_map(<[_]>::first) {
            fields.check(field, || "the url or the query".to_owned())?;
        }
        for header in &layout.headers {
            for field in header.fields().filter_map(<[_]>::first) {
                fields.check(field, || format!("the header `{}`", header.name()))?;
            }
        }
        if layout.body == Some(Body::Raw)
            && let Some(names) = fields.closed()
        {
            let left = names.filter(|name| !layout.takes(name)).count();
            if left != 1 {
                return Err(HttpToolError::RawBody { left });
            }
        }
        Ok(layout)
    }
}

/// What the author wrote, read.
struct Parts {
    source: Source,
    effects: EffectsSpec,
    headers: HeaderMap,
    layout: Layout,
}

/// Whether HTTP itself guarantees that a request changes nothing.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

impl fmt::Debug for HttpToolBuilder {
    // Neither headers, query nor URL: they may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpToolBuilder")
            .field("name", &self.name)
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// Why an endpoint cannot be a tool. None repeats a header's value, the query or a user's part.
#[derive(Debug, thiserror::Error)]
pub enum HttpToolError {
    /// The URL cannot be used.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The template of a query parameter cannot be read.
    #[error(
        "in the query parameter `{name}` a `{{` needs a field name and a `}}`, as in `{{text}}`; a plain brace is written \
         twice"
    )]
    Query {
        /// The parameter.
        name: String,
    },
    /// What it is declared to touch cannot be right.
    #[error(transparent)]
    Effects(#[from] EffectsError),
    /// A template names a field that the input lacks.
    #[error(transparent)]
    UnknownField(#[from] UnknownField),
    /// A method that is no call of an endpoint.
    #[error("a tool cannot use the method {method}")]
    Method {
        /// The method.
        method: Method,
    },
    /// A body where none can be sent.
    #[error("{method} sends no body: its inputs go into the path and the query")]
    NoBody {
        /// The method.
        method: Method,
    },
    /// A raw body that would not be one input.
    #[error("a raw body is the one input that neither the url, the query nor a header names, but {left} are left")]
    RawBody {
        /// How many inputs are left.
        left: usize,
    },
    /// A header that belongs to the connection.
    #[error("the header `{name}` is set by the connection itself")]
    ReservedHeader {
        /// The header.
        name: String,
    },
    /// A header whose name or value cannot be sent.
    #[error("the header `{name}` cannot be sent: its name or its value holds a character that a header must not hold")]
    Header {
        /// The header.
        name: String,
    },
    /// The template of a header cannot be read.
    #[error(
        "in the header `{name}` a `{{` needs a field name and a `}}`, as in `{{tenant}}`; a plain brace is written twice"
    )]
    HeaderTemplate {
        /// The header.
        name: String,
    },
    /// An input in the key that tells a repeat from another call.
    #[error(
        "the header `idempotency-key` cannot hold an input: two calls with the same one would pass for one call. Leave it \
         out: every call is sent a key of its own, the same on every attempt"
    )]
    IdempotencyKey,
    /// There is no client to send through.
    #[error(transparent)]
    Client(#[from] HttpClientError),
}
