//! Parameters and body of an operation, laid into one object.
//!
//! From the document's Parameter and Request Body Objects. To `operation`: the schema of a tool's input, and where each of its
//! fields goes.
//!
//! A body that is an object stands with its fields beside the parameters, unless two of them have one name; any other body
//! is the field `body`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::document::{Document, Spot};
use super::operation::OperationError;
use super::schema::{Schemas, bounded};
use crate::http::{Body, Parameter, ParameterPlace, Style};

/// The longest name of a field that the Messages API takes.
const FIELD_MAX: usize = 64;

/// The longest description of a parameter, in bytes.
const DESCRIPTION_MAX: usize = 300;

/// Headers that OpenAPI leaves to other parts of a document, or that belong to the connection.
const NOT_INPUTS: [&str; 9] = [
    "accept",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "host",
    "idempotency-key",
    "transfer-encoding",
    "user-agent",
];

/// What an operation takes, and where it goes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Inputs {
    pub(super) schema: Value,
    /// The path, with the names of the fields in its braces.
    pub(super) path: String,
    pub(super) parameters: Vec<Parameter>,
    pub(super) renamed: Vec<(String, String)>,
    pub(super) body: Body,
    pub(super) body_optional: bool,
    /// What the body is, where the tool would say something else.
    pub(super) media: Option<String>,
}

/// Reads what an operation takes: `shared` are the parameters of its path, which its own win over.
pub(super) fn read<'d>(
    document: &'d Document,
    path: &str,
    shared: Option<Spot<'d>>,
    operation: Spot<'d>,
    takes_body: bool,
) -> Result<Inputs, OperationError> {
    let mut reader = Reader {
        schemas: Schemas::new(document),
        properties: Map::new(),
        required: BTreeSet::new(),
        inputs: Inputs {
            schema: Value::Null,
            path: path.to_owned(),
            parameters: Vec::new(),
            renamed: Vec::new(),
            body: Body::Nothing,
            body_optional: false,
            media: None,
        },
        open: None,
    };
    let own = operation.get("parameters");
    let mut merged: Vec<(&str, &str, Spot<'d>)> = Vec::new();
    for spot in shared.into_iter().chain(own).flat_map(Spot::elements) {
        let Some(spot) = document.resolved(spot) else { continue };
        let (Some(name), Some(place)) = (spot.text("name"), spot.text("in")) else { continue };
        match merged.iter_mut().find(|(other, at, _)| (*other, *at) == (name, place)) {
            Some(known) => known.2 = spot,
            None => merged.push((name, place, spot)),
        }
    }
    let mut segments = BTreeMap::new();
    for (name, place, spot) in merged {
        reader.parameter(name, place, spot, &mut segments)?;
    }
    reader.path(path, &segments);
    if let Some(body) = operation.get("requestBody").filter(|_| takes_body).and_then(|body| document.resolved(body)) {
        reader.body(body);
    }
    let mut schema = json!({
        "type": "object", "properties": reader.properties, "required": reader.required,
        "additionalProperties": false,
    });
    if let Some(open) = reader.open {
        schema["additionalProperties"] = open;
    }
    Ok(Inputs { schema, ..reader.inputs })
}

struct Reader<'d> {
    schemas: Schemas<'d>,
    properties: Map<String, Value>,
    required: BTreeSet<String>,
    inputs: Inputs,
    /// What the body takes beside the fields that it names.
    open: Option<Value>,
}

impl<'d> Reader<'d> {
    fn parameter(
        &mut self,
        name: &'d str,
        place: &'d str,
        spot: Spot<'d>,
        segments: &mut BTreeMap<&'d str, String>,
    ) -> Result<(), OperationError> {
        let content = spot.get("content").and_then(|content| content.entries().next()).map(|(_, media)| media);
        let (at, style) = match place {
            "path" => (ParameterPlace::Path, "simple"),
            "query" => (ParameterPlace::Query, "form"),
            "header" if NOT_INPUTS.contains(&name.to_ascii_lowercase().as_str()) => return Ok(()),
            "header" => (ParameterPlace::Header, "simple"),
            "cookie" => (ParameterPlace::Cookie, "form"),
            _ => return Ok(()),
        };
        let style = if content.is_some() { Style::Json } else { style_of(spot, style, name)? };
        let schema = content.unwrap_or(spot).get("schema");
        let mut schema = schema.map_or_else(|| json!({ "type": "string" }), |schema| self.schemas.read(schema));
        if let (Some(text), Value::Object(schema)) = (spot.text("description"), &mut schema) {
            schema.insert("description".to_owned(), bounded(text, DESCRIPTION_MAX));
        }
        let field = self.free_field(name, place);
        if place == "path" {
            segments.insert(name, field.clone());
        }
        // A segment cannot be left out, whatever a document says.
        if place == "path" || spot.flag("required") {
            self.required.insert(field.clone());
        }
        self.properties.insert(field.clone(), schema);
        self.inputs.parameters.push(Parameter { field, name: name.to_owned(), place: at, style });
        Ok(())
    }

    /// The path with fields for its names; one that no parameter describes is a text.
    fn path(&mut self, path: &str, segments: &BTreeMap<&str, String>) {
        let mut text = String::new();
        let mut rest = path;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, after)) = after.split_once('}') else { break };
            let field = segments.get(name).cloned().unwrap_or_else(|| {
                let field = self.free_field(name, "path");
                self.properties.insert(field.clone(), json!({ "type": "string" }));
                self.required.insert(field.clone());
                field
            });
            text.push_str(&format!("{before}{{{field}}}"));
            rest = after;
        }
        text.push_str(rest);
        self.inputs.path = text;
        // A parameter of the path that the path does not name would be asked for and never sent.
        let named = |field: &str| self.inputs.path.contains(&format!("{{{field}}}"));
        let idle: Vec<String> = segments.values().filter(|field| !named(field)).cloned().collect();
        for field in idle {
            self.properties.remove(&field);
            self.required.remove(&field);
            self.inputs.parameters.retain(|parameter| parameter.field != field);
        }
    }

    fn body(&mut self, spot: Spot<'d>) {
        let Some((media, kind, content)) = spot.get("content").and_then(chosen_media) else { return };
        let is_required = spot.flag("required");
        let schema = content.get("schema").map_or_else(|| json!({}), |schema| self.schemas.read(schema));
        self.inputs.body_optional = !is_required;
        let fields = if kind == Body::Raw { None } else { Fields::of(&schema) };
        let fields = fields.filter(|fields| {
            kind != Body::Json || fields.properties.keys().all(|name| !self.properties.contains_key(&field_name(name)))
        });
        match fields {
            Some(fields) => {
                self.inputs.body = kind;
                let encoding = content.get("encoding");
                for (name, schema) in fields.properties {
                    let field = self.free_field(&name, "body");
                    let style =
                        encoding.and_then(|encoding| encoding.get(&name)).filter(|spot| spot.get("style").is_some());
                    if kind == Body::Form {
                        let style = style.and_then(|spot| style_of(spot, "form", &name).ok());
                        let style = style.unwrap_or_else(|| form_style(&schema));
                        let place = ParameterPlace::Form;
                        self.inputs.parameters.push(Parameter {
                            field: field.clone(),
                            name: name.clone(),
                            place,
                            style,
                        });
                    } else if field != name {
                        self.inputs.renamed.push((field.clone(), name.clone()));
                    }
                    if is_required && fields.required.contains(&name) {
                        self.required.insert(field.clone());
                    }
                    self.properties.insert(field, schema);
                }
                self.open = fields.open;
            }
            None => {
                self.inputs.body = if kind == Body::Raw { Body::Raw } else { Body::Value };
                let field = self.free_field("body", "content");
                if is_required {
                    self.required.insert(field.clone());
                }
                let schema = if kind == Body::Raw { json!({ "type": "string" }) } else { schema };
                self.properties.insert(field, schema);
            }
        }
        let says = |name: &str| media.split(';').next().is_some_and(|said| said.trim() == name);
        let own = says("application/json") || media.contains('*') || matches!(kind, Body::Form | Body::Multipart);
        self.inputs.media = (!own).then(|| media.to_owned());
    }

    /// A name for a field that the API takes and that no other field has.
    fn free_field(&self, name: &str, place: &str) -> String {
        let plain = if place == "body" { field_name(name) } else { field_name(name).replace('.', "_") };
        let mut field = plain.clone();
        let mut number = 1;
        while self.properties.contains_key(&field) {
            let end = if number == 1 { format!("_{place}") } else { format!("_{place}{number}") };
            field = format!("{}{end}", &plain[..plain.len().min(FIELD_MAX - end.len())]);
            number += 1;
        }
        field
    }
}

/// The fields of a body, where it is an object that names them.
struct Fields {
    properties: Map<String, Value>,
    required: BTreeSet<String>,
    open: Option<Value>,
}

impl Fields {
    fn of(schema: &Value) -> Option<Self> {
        let mut fields = Self { properties: Map::new(), required: BTreeSet::new(), open: None };
        (fields.collect(schema) && !fields.properties.is_empty()).then_some(fields)
    }

    /// Takes in what a schema says; `false` where it says more than which fields there are.
    fn collect(&mut self, schema: &Value) -> bool {
        let Value::Object(object) = schema else { return false };
        let is_object = match object.get("type") {
            None => true,
            Some(Value::Array(names)) => names.contains(&json!("object")),
            Some(name) => name == "object",
        };
        if !is_object || ["patternProperties", "not", "enum", "const"].iter().any(|key| object.contains_key(*key)) {
            return false;
        }
        let properties = object.get("properties").and_then(Value::as_object).into_iter().flatten();
        for (name, property) in properties {
            self.properties.entry(name.clone()).or_insert_with(|| property.clone());
        }
        let required = object.get("required").and_then(Value::as_array).into_iter().flatten();
        self.required.extend(required.filter_map(Value::as_str).map(str::to_owned));
        if let Some(open) = object.get("additionalProperties").filter(|open| **open != Value::Bool(false)) {
            self.open = Some(open.clone());
        }
        // Alternatives of which fields are needed are the far side's to check; alternatives of fields are not one object.
        let any = object.get("anyOf").and_then(Value::as_array).into_iter().flatten();
        let says_fields =
            |part: &Value| part.as_object().is_none_or(|part| part.keys().any(|key| !LOOSE.contains(&key.as_str())));
        if any.into_iter().any(says_fields) {
            return false;
        }
        let all = object.get("allOf").and_then(Value::as_array).into_iter().flatten();
        all.into_iter().all(|part| self.collect(part))
    }
}

/// Keywords that name no field.
const LOOSE: [&str; 5] = ["description", "examples", "required", "title", "type"];

/// What is sent, of all that the operation takes: JSON before a form, a form before parts, anything named before the rest.
fn chosen_media<'d>(content: Spot<'d>) -> Option<(&'d str, Body, Spot<'d>)> {
    let rank = |media: &str| {
        let kind = media.split(';').next().unwrap_or(media).trim().to_ascii_lowercase();
        match kind.as_str() {
            "application/json" => (0, Body::Json),
            "application/merge-patch+json" => (1, Body::Json),
            kind if kind.ends_with("+json") || kind == "text/json" => (2, Body::Json),
            "*/*" | "application/*" => (3, Body::Json),
            "application/x-www-form-urlencoded" => (4, Body::Form),
            "multipart/form-data" => (5, Body::Multipart),
            kind if kind.starts_with("text/") => (6, Body::Raw),
            _ => (7, Body::Raw),
        }
    };
    let ranked = content.entries().map(|(media, spot)| (rank(media), media.as_str(), spot));
    ranked.min_by_key(|((rank, _), ..)| *rank).map(|((_, kind), media, spot)| (media, kind, spot))
}

/// How a form's field is spelled where the document does not say: objects as `a[b]=c`, as those who read them expect.
fn form_style(schema: &Value) -> Style {
    let holds_objects =
        |schema: &Value| schema.get("type") == Some(&json!("object")) || schema.get("properties").is_some();
    let deep = holds_objects(schema) || schema.get("items").is_some_and(holds_objects);
    if deep { Style::Deep } else { Style::Exploded }
}

fn style_of(spot: Spot<'_>, default: &str, name: &str) -> Result<Style, OperationError> {
    let style = spot.text("style").unwrap_or(default);
    let explode = spot.value.get("explode").and_then(Value::as_bool).unwrap_or(style == "form");
    Ok(match (style, explode) {
        ("form", true) => Style::Exploded,
        ("form", false) | ("simple", false) => Style::Commas,
        ("simple", true) => Style::Assignments,
        ("spaceDelimited" | "pipeDelimited", true) => Style::Exploded,
        ("spaceDelimited", false) => Style::Spaces,
        ("pipeDelimited", false) => Style::Pipes,
        ("deepObject", _) => Style::Deep,
        _ => return Err(OperationError::Style { name: name.to_owned(), style: style.to_owned() }),
    })
}

/// A name with `_` for every character that the API does not take in the name of a field.
fn field_name(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let kept: String = name.chars().map(|c| if fits(c) { c } else { '_' }).take(FIELD_MAX).collect();
    if kept.is_empty() { "_".to_owned() } else { kept }
}
