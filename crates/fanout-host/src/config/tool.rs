//! `[[tool]]`: one endpoint or one program as a tool, as its author describes it.
//!
//! From the page. To [`build`](crate::build), which makes a tool of it; what can be wrong with it shows here, with its
//! place.
//!
//! Nothing is built and no secret is read.

use std::collections::BTreeMap;

use fanout_core::call::GroupName;
use fanout_core::effects::Template;
use fanout_core::tool::Policy;
use fanout_tools::http::{Body, HttpTool, HttpToolBuilder, HttpToolError};
use fanout_tools::schema::{Fields, nearest};
use http::Method;
use serde_json::{Map, Value, json};

use super::approval;
use super::command::{self, CommandConfig};
use super::database::DatabaseConfig;
use super::field::Field;
use super::keys::Kind;
use super::limits::{LimitConfig, written};
use super::page::{Page, Place, Section, Spot};
use super::setting::Setting;
use super::source::{self, Names};
use super::sql::{self, SqlConfig};

/// One tool.
#[derive(Clone, Debug)]
pub struct ToolConfig {
    /// Its name; no other tool has it.
    pub name: String,
    /// What the model reads of it.
    pub description: String,
    /// The JSON Schema of its input; an object.
    pub input_schema: Value,
    /// What a call of it does.
    pub implementation: Implementation,
    /// What it is declared to read: templates that can be read and name fields of the input.
    pub reads: Option<Vec<String>>,
    /// What it is declared to write; `None`: nothing was said.
    pub writes: Option<Vec<String>>,
    /// How calls of it are treated.
    pub policy: Policy,
    /// Whether its calls wait for no other call where it has no declaration: `undeclared = "parallel"`.
    pub undeclared_parallel: bool,
    /// Where it stands.
    pub place: Place,
}

/// What a call of a tool does; exactly one of these.
#[derive(Clone, Debug)]
pub enum Implementation {
    /// `http`: asks an endpoint.
    Http(HttpConfig),
    /// `command`: runs a program.
    Command(CommandConfig),
    /// `sql`: runs statements.
    Sql(SqlConfig),
}

/// The endpoint of a tool.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// The method.
    pub method: Method,
    /// The template of the URL.
    pub url: Setting,
    /// The headers and their templates.
    pub headers: Vec<(String, Setting)>,
    /// The query parameters and their templates.
    pub query: Vec<(String, Setting)>,
    /// How the other inputs are sent; `None`: as the method does it.
    pub body: Option<Body>,
}

/// The methods that a tool can use.
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// The longest name that the Messages API takes.
const NAME_MAX: usize = 128;

/// Reads every `[[tool]]`; those with mistakes are left out. `names` are those of all tools of the file.
pub(super) fn read_all<'a>(
    page: &'a Page<'a>,
    top: &Section<'a>,
    names: &Names,
    limits: &BTreeMap<String, LimitConfig>,
    databases: &BTreeMap<String, DatabaseConfig>,
) -> Vec<ToolConfig> {
    sections(top).iter().filter_map(|section| read(page, section, names, limits, databases)).collect()
}

/// The names of every `[[tool]]`, each checked.
pub(super) fn names<'a>(page: &'a Page<'a>, top: &Section<'a>) -> Vec<String> {
    checked_names(page, &sections(top)).into_keys().map(str::to_owned).collect()
}

fn sections<'a>(top: &Section<'a>) -> Vec<Section<'a>> {
    let fields = top.get("tool").map(|field| field.tables()).unwrap_or_default();
    fields.iter().filter_map(section_of).collect()
}

fn section_of<'a>(field: &Field<'a>) -> Option<Section<'a>> {
    let section = field.section("[[tool]]", Kind::Tool)?;
    let name = section.get("name").filter(Field::is_string).and_then(|field| field.string());
    let called = name.map_or_else(|| "[[tool]]".to_owned(), |name| format!("[[tool]] `{name}`"));
    field.section(called, Kind::Tool)
}

/// The names, each with its place.
fn checked_names<'a>(page: &'a Page<'a>, sections: &[Section<'a>]) -> BTreeMap<&'a str, Place> {
    let mut names: BTreeMap<&str, Place> = BTreeMap::new();
    for section in sections {
        let Some(field) = section.get("name") else {
            page.mistake(&section.spot, "a [[tool]] needs a `name`");
            continue;
        };
        let Some(name) = field.string() else { continue };
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(fits) {
            field.expected("1 to 128 letters, digits, `_` or `-`");
        } else if name == "plan" {
            field.mistake("`plan` is a built-in tool; this one needs another name");
        } else if let Some(first) = names.get(name) {
            field.mistake(format!("two tools are called `{name}`; the first stands at {first}"));
        } else {
            names.insert(name, page.place(&field.spot));
        }
    }
    names
}

fn read(
    page: &Page<'_>,
    section: &Section<'_>,
    names: &Names,
    limits: &BTreeMap<String, LimitConfig>,
    databases: &BTreeMap<String, DatabaseConfig>,
) -> Option<ToolConfig> {
    let name = section.get("name").filter(Field::is_string).and_then(|field| field.string());
    let description = section.get("description").and_then(|field| field.string()).unwrap_or_default();
    let input_schema = input_schema(section);
    let fields = input_schema.as_ref().map(Fields::of).unwrap_or_else(|| Fields::of(&Value::Bool(true)));
    let reads = section.get("reads").and_then(|field| templates(&field, Some(&fields)));
    let writes = section.get("writes").and_then(|field| templates(&field, Some(&fields)));
    let policy = Policy { stop_on_failure: source::stops_on_failure(section), ..policy(section, names, limits) };
    let undeclared_parallel = source::undeclared_parallel(section);
    let implementation = implementation(section, input_schema.as_ref(), databases);
    section.finish();
    let implementation = implementation?;
    if let (Some(_), None, Some(spot)) = (&reads, &writes, section.spot_of("reads"))
        && let Some(what) = writes_all(&implementation)
    {
        let message = format!("{} declares `reads` and not `writes`: {what}; add `writes = […]`", section.name);
        page.warning(&spot, message);
    }
    Some(ToolConfig {
        name: name?.to_owned(),
        description: description.to_owned(),
        input_schema: input_schema?,
        implementation,
        reads,
        writes,
        policy,
        undeclared_parallel,
        place: page.place(&section.spot),
    })
}

/// From whichever of its keys is given.
fn implementation(
    section: &Section<'_>,
    schema: Option<&Value>,
    databases: &BTreeMap<String, DatabaseConfig>,
) -> Option<Implementation> {
    let given = [section.get("http"), section.get("command"), section.get("sql")];
    let mut given = given.into_iter().flatten();
    let Some(field) = given.next() else {
        let needs = "needs `http = { method = …, url = … }`, `sql = { database = …, statement = … }` or \
                     `command = { program = …, args = […] }`";
        section.page.mistake(&section.spot, format!("{} {needs}", section.name));
        return None;
    };
    if let Some(second) = given.next() {
        second.mistake(format!("{} does one thing: `http`, `sql` or `command`", section.name));
        return None;
    }
    match field.key.as_str() {
        "http" => endpoint(&field, section, schema).map(Implementation::Http),
        "sql" => sql::read(&field, section, schema, databases).map(Implementation::Sql),
        _ => command::read(&field, section, schema).map(Implementation::Command),
    }
}

/// What is taken for granted of a tool that declares no writes, if that is any.
fn writes_all(implementation: &Implementation) -> Option<String> {
    match implementation {
        Implementation::Http(HttpConfig { method, .. }) => (!matches!(*method, Method::GET | Method::HEAD))
            .then(|| format!("{method} is taken to write all of its host")),
        // What its statements write is seen.
        Implementation::Sql(_) => None,
        Implementation::Command(_) => Some("a program is taken to write all that programs touch".to_owned()),
    }
}

/// How calls of a tool are treated, by its own word.
pub(super) fn policy(section: &Section<'_>, names: &Names, limits: &BTreeMap<String, LimitConfig>) -> Policy {
    let default = Policy::default();
    let mut after = Vec::new();
    for (tool, spot) in section.get("after").and_then(|field| field.strings()).unwrap_or_default() {
        match names.find(tool) {
            Ok(name) => after.push(name),
            Err(hint) => {
                section.page.mistake(&spot, format!("`after` names `{tool}`, which is no tool of this file{hint}"));
            }
        }
    }
    let nested = section.get("nested").and_then(|field| field.boolean()).unwrap_or_default();
    if let Some(spot) = section.spot_of("limit").filter(|_| nested) {
        let message = format!(
            "`limit` does nothing for {}: with `nested = true` the calls that it runs wait for permits, it does not; \
             leave one of the two out",
            section.name
        );
        section.page.mistake(&spot, message);
    }
    Policy {
        timeout: section.get("timeout").and_then(|field| field.duration()).unwrap_or(default.timeout),
        deadline: section.get("deadline").and_then(|field| field.duration()).unwrap_or(default.deadline),
        result_max: section.get("max_result").and_then(|field| field.size()).unwrap_or(default.result_max),
        limit: section.get("limit").and_then(|field| limit(&field, limits)),
        after,
        idempotent: section.get("idempotent").and_then(|field| field.boolean()).unwrap_or_default(),
        nested,
        approval: section.get("approval").and_then(|field| approval::read(&field)).unwrap_or_default(),
        stop_on_failure: default.stop_on_failure,
    }
}

/// The limit group that a tool names.
pub(super) fn limit(field: &Field<'_>, limits: &BTreeMap<String, LimitConfig>) -> Option<GroupName> {
    let name = field.string()?;
    if limits.contains_key(name) {
        return Some(name.into());
    }
    let hint = match nearest(name, limits.keys().map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("there must be a section {}", written(name)),
    };
    field.mistake(format!("`limit` names `{name}`, which is no limit group of this file; {hint}"));
    None
}

/// Templates of effects, each held against the fields of the input, where they are known.
pub(super) fn templates(field: &Field<'_>, fields: Option<&Fields>) -> Option<Vec<String>> {
    let mut texts = Vec::new();
    for (text, spot) in field.strings()? {
        match Template::parse(text) {
            Ok(template) => {
                let named = fields.map(|fields| template.fields().map(move |name| (fields, name)));
                for (fields, lacking) in named.into_iter().flatten().filter(|(fields, name)| !fields.has(name)) {
                    let hint = fields.nearest(lacking).map(|meant| format!("; did you mean `{meant}`?"));
                    let hint = hint.unwrap_or_default();
                    let message = format!("`{text}` names `{lacking}`, which the input lacks{hint}");
                    field.page.mistake(&spot, message);
                }
            }
            Err(error) => field.page.mistake(&spot, error.to_string()),
        }
        texts.push(text.to_owned());
    }
    Some(texts)
}

/// The schema from whichever of its three keys is given. Without any, the tool takes no inputs.
fn input_schema(section: &Section<'_>) -> Option<Value> {
    let given = [section.get("input"), section.get("input_schema"), section.get("input_schema_file")];
    let mut given = given.into_iter().flatten();
    let Some(field) = given.next() else { return Some(object(Map::new(), Vec::new())) };
    if let Some(second) = given.next() {
        second.mistake(format!("`{}` and `{}` say the same thing; one of them is enough", field.key, second.key));
    }
    let schema = match field.key.as_str() {
        "input" => shorthand(&field),
        "input_schema" => field.table().and_then(|_| field.json()),
        _ => schema_file(&field),
    }?;
    if let Err(error) = jsonschema::meta::validate(&schema) {
        let place = error.instance_path().to_string();
        let place = if place.is_empty() { String::new() } else { format!(" at {place}") };
        field.mistake(format!("`{}` is not a valid JSON Schema{place}: {error}", field.key));
        return None;
    }
    if schema.get("type") != Some(&json!("object")) {
        field.mistake(format!("`{}` must say type = \"object\": the input of a tool is one", field.key));
        return None;
    }
    Some(schema)
}

fn object(properties: Map<String, Value>, required: Vec<String>) -> Value {
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// `{ user_id = { type = "string" }, verbose = { type = "boolean", required = false } }`: an object of these and no
/// others, all required but those that say otherwise.
fn shorthand(field: &Field<'_>) -> Option<Value> {
    let section = field.section("`input`", Kind::Names)?;
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (_, field) in section.all() {
        field.table()?;
        let Some(Value::Object(mut property)) = field.json() else { continue };
        // An object's own `required` is a list, and stays.
        let needed = match property.get("required") {
            Some(Value::Bool(needed)) => {
                let needed = *needed;
                property.remove("required");
                needed
            }
            _ => true,
        };
        if needed {
            required.push(field.key.clone());
        }
        properties.insert(field.key.clone(), Value::Object(property));
    }
    Some(object(properties, required))
}

fn schema_file(field: &Field<'_>) -> Option<Value> {
    let name = field.string()?;
    let path = field.page.folder.join(name);
    let read = std::fs::read_to_string(&path).map_err(|error| format!("{name} cannot be read: {error}"));
    match read.and_then(|text| serde_json::from_str(&text).map_err(|error| format!("{name} is not JSON: {error}"))) {
        Ok(schema) => Some(schema),
        Err(message) => {
            field.mistake(message);
            None
        }
    }
}

fn endpoint<'a>(field: &Field<'a>, tool: &Section<'_>, schema: Option<&Value>) -> Option<HttpConfig> {
    let section = field.section(format!("`http` of {}", tool.name), Kind::Http)?;
    let needed = |key| {
        let field = section.get(key);
        if field.is_none() {
            section.page.mistake(&section.spot, format!("{} needs `{key}`", section.name));
        }
        field
    };
    let method = needed("method").and_then(|field| method(&field));
    let url = needed("url").and_then(|field| Some((field.setting()?, field.spot)));
    let settings = |key, read: fn(&Field<'a>) -> Option<Setting>| {
        let section = section.get(key).and_then(|field: Field<'_>| field.section(format!("`{key}`"), Kind::Names));
        let all = section.iter().flat_map(Section::all);
        let pair = |(spot, field): (Spot, Field<'a>)| Some((field.key.clone(), read(&field)?, spot));
        all.filter_map(pair).collect::<Vec<_>>()
    };
    let headers = settings("headers", Field::credential);
    let query = settings("query", Field::setting);
    let body = section.get("body").and_then(|field| Some((body(&field)?, field.spot)));
    section.finish();
    let (method, url) = (method?, url?);
    if let Some(schema) = schema {
        Draft { section: &section, schema, method: &method, url: &url, headers: &headers, query: &query, body: &body }
            .check();
    }
    let plain = |(name, setting, _): (String, Setting, Spot)| (name, setting);
    Some(HttpConfig {
        method,
        url: url.0,
        headers: headers.into_iter().map(plain).collect(),
        query: query.into_iter().map(plain).collect(),
        body: body.map(|(body, _)| body),
    })
}

fn method(field: &Field<'_>) -> Option<Method> {
    let text = field.string()?;
    let found = METHODS.into_iter().find(|method| method.as_str() == text);
    if found.is_none() {
        let names: Vec<String> = METHODS.iter().map(|method| format!("\"{method}\"")).collect();
        field.expected(&format!("one of {}", names.join(", ")));
    }
    found
}

fn body(field: &Field<'_>) -> Option<Body> {
    match field.string()? {
        "json" => Some(Body::Json),
        "form" => Some(Body::Form),
        "raw" => Some(Body::Raw),
        _ => {
            field.expected("\"json\", \"form\" or \"raw\"");
            None
        }
    }
}

/// An endpoint with the places of its parts, for finding what is wrong with it before any secret is read.
struct Draft<'d, 'a> {
    section: &'d Section<'a>,
    schema: &'d Value,
    method: &'d Method,
    url: &'d (Setting, Spot),
    headers: &'d [(String, Setting, Spot)],
    query: &'d [(String, Setting, Spot)],
    body: &'d Option<(Body, Spot)>,
}

impl Draft<'_, '_> {
    /// Notes what is wrong: each part is tried in an endpoint of its own, so that one mistake does not hide the next.
    fn check(&self) {
        // Without the variables in it, nothing can be said about a URL.
        let url = self.url.0.known(self.section.page.environment);
        if let Some(url) = &url {
            self.note(&self.url.1, self.draft(url));
        }
        // Some address that is surely right, for the parts that do not depend on it.
        let right = "http://localhost/";
        for (name, setting, spot) in self.headers {
            self.note(spot, self.draft(right).header(name, setting.with("x")));
        }
        for (name, setting, spot) in self.query {
            self.note(spot, self.draft(right).query(name, setting.with("x")));
        }
        if let (Some((body, spot)), Some(url)) = (self.body, &url) {
            let query = self.query.iter();
            let whole = query.fold(self.draft(url), |draft, (name, setting, _)| draft.query(name, setting.with("x")));
            let headers = self.headers.iter();
            let whole = headers.fold(whole, |draft, (name, setting, _)| draft.header(name, setting.with("x")));
            if let Err(error @ (HttpToolError::NoBody { .. } | HttpToolError::RawBody { .. })) =
                whole.body(*body).check()
            {
                self.section.page.mistake(spot, error.to_string());
            }
        }
    }

    fn draft(&self, url: &str) -> HttpToolBuilder {
        HttpTool::builder("draft", self.method.clone(), url).input_schema(self.schema.clone())
    }

    fn note(&self, spot: &Spot, draft: HttpToolBuilder) {
        if let Err(error) = draft.check() {
            self.section.page.mistake(spot, error.to_string());
        }
    }
}
