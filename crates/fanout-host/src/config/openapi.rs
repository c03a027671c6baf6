//! `[openapi.NAME]`: the operations of a document as tools.
//!
//! From the page, and from the document that it names. To [`build`](crate::build), which makes tools of them; what can be
//! wrong shows here, with its place.
//!
//! A document is a file: what tools there are, and what they are called, must not change under a running program, and a
//! look at a configuration needs no network. Nothing is built and no secret is read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fanout_core::tool::Policy;
use fanout_tools::openapi::{Document, Operation, Outline};
use fanout_tools::schema::{Fields, nearest};

use super::field::Field;
use super::keys::Kind;
use super::limits::LimitConfig;
use super::page::{Place, Section, Spot};
use super::setting::Setting;
use super::source::{self, Names, Said, SourceToolConfig, said};
use crate::documents::{is_address, kept};

/// A document and what was said of its tools.
#[derive(Clone, Debug)]
pub struct OpenapiConfig {
    /// What the section is called; the tools are `NAME__OPERATION`.
    pub name: String,
    /// Where the calls go, whatever the document says.
    pub base_url: Option<Setting>,
    /// Secrets by security scheme.
    pub auth: Vec<(String, Setting)>,
    /// Whether calls of tools without a declaration wait for no other call: `undeclared = "parallel"`.
    pub undeclared_parallel: bool,
    /// The operations that were chosen, in the order of the document.
    pub tools: Vec<OpenapiTool>,
    /// Where it stands.
    pub place: Place,
}

/// One operation, and what was said of it.
#[derive(Clone, Debug)]
pub struct OpenapiTool {
    /// The operation.
    pub operation: Operation,
    /// What it is declared to read: templates that can be read and name fields of the input.
    pub reads: Option<Vec<String>>,
    /// What it is declared to write; `None`: nothing was said.
    pub writes: Option<Vec<String>>,
    /// How calls of it are treated.
    pub policy: Policy,
}

/// More tools than this are told of: each stands in every request to the model, and the model has to choose among them.
const TOOLS_MANY: usize = 200;

/// A section whose document was read.
pub(super) struct Opened<'a> {
    section: Section<'a>,
    name: String,
    place: Place,
    chosen: Vec<Operation>,
    known: Vec<Outline>,
    schemes: Vec<String>,
}

/// Reads every `[openapi.NAME]` and its document; those with mistakes in them are left out.
pub(super) fn open_all<'a>(top: &Section<'a>) -> Vec<Opened<'a>> {
    let Some(all) = top.get("openapi").and_then(|field| field.section("[openapi]", Kind::Names)) else {
        return Vec::new();
    };
    all.all().filter_map(|(spot, field)| open(&spot, &field)).collect()
}

/// The names of their tools, for whoever names one.
pub(super) fn names<'o>(opened: &'o [Opened<'_>]) -> impl Iterator<Item = String> + 'o {
    opened.iter().flat_map(|opened| &opened.chosen).map(|operation| operation.outline.tool.to_string())
}

fn open<'a>(spot: &Spot, field: &Field<'a>) -> Option<Opened<'a>> {
    let name = field.key.clone();
    let section = field.section(format!("[openapi.{name}]"), Kind::Openapi)?;
    if name.trim().is_empty() {
        section.page.mistake(spot, "a document needs a name, as in [openapi.github]: its tools begin with it");
        return None;
    }
    let Some(spec) = section.get("spec") else {
        section
            .page
            .mistake(spot, format!("{} needs `spec`, the file or address of an OpenAPI document", section.name));
        return None;
    };
    let document = document(&name, &spec)?;
    let known = document.operations(&name);
    let included = patterns(&section, "include", &known);
    let excluded = patterns(&section, "exclude", &known);
    let is_chosen = |outline: &&Outline| {
        let is_meant = |patterns: &[&str]| patterns.iter().any(|pattern| outline.is_meant_by(pattern));
        included.as_deref().is_none_or(is_meant) && !excluded.as_deref().is_some_and(is_meant)
    };
    let mut chosen = Vec::new();
    for outline in known.iter().filter(is_chosen) {
        let described = document.describe(outline);
        let checked = described.and_then(|operation| {
            // Some address that is surely right: where it goes is another question.
            operation.builder("", Some("http://localhost"), &[])?.check()?;
            Ok(operation)
        });
        match checked {
            Ok(operation) => chosen.push(operation),
            Err(error) => {
                let message = format!("`{}` of {} is left out: {error}", outline.label(), section.name);
                section.page.warning(&spec.spot, message);
            }
        }
    }
    if chosen.len() > TOOLS_MANY {
        let message = format!(
            "{} brings {} tools, and each stands in every request to the model; `include` chooses among them",
            section.name,
            chosen.len()
        );
        section.page.warning(spot, message);
    }
    let (place, schemes) = (section.page.place(spot), document.schemes());
    Some(Opened { section, name, place, chosen, known, schemes })
}

fn document(name: &str, spec: &Field<'_>) -> Option<Document> {
    let text = spec.string()?;
    let path: PathBuf = match is_address(text) {
        true => kept(spec.page.folder, name, text),
        false => spec.page.folder.join(text),
    };
    if is_address(text) && !path.exists() {
        spec.mistake(format!(
            "the document at `{text}` is not downloaded yet: `fanout check` does it once and keeps it as {}",
            path.display()
        ));
        return None;
    }
    match Document::load(&path) {
        Ok(document) => Some(document),
        Err(error) => {
            spec.mistake(error.to_string());
            None
        }
    }
}

/// The patterns of `include` or `exclude`; each must mean an operation.
fn patterns<'a>(section: &Section<'a>, key: &'static str, known: &[Outline]) -> Option<Vec<&'a str>> {
    let patterns = section.get(key)?.strings()?;
    for (pattern, spot) in &patterns {
        if !known.iter().any(|outline| outline.is_meant_by(pattern)) {
            let message =
                format!("`{key}` names `{pattern}`, which is no operation of the document{}", hint(pattern, known));
            section.page.mistake(spot, message);
        }
    }
    Some(patterns.into_iter().map(|(pattern, _)| pattern).collect())
}

/// The operation that was perhaps meant.
fn hint(name: &str, known: &[Outline]) -> String {
    let labels: Vec<String> = known.iter().flat_map(|outline| [outline.label(), outline.place()]).collect();
    let meant = nearest(name, labels.iter().map(String::as_str));
    meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default()
}

/// Reads what the sections say of their tools. `names` are those of all tools of the file.
pub(super) fn read_all(
    opened: Vec<Opened<'_>>,
    names: &Names,
    limits: &BTreeMap<String, LimitConfig>,
) -> Vec<OpenapiConfig> {
    opened.into_iter().map(|opened| read(opened, names, limits)).collect()
}

fn read(opened: Opened<'_>, names: &Names, limits: &BTreeMap<String, LimitConfig>) -> OpenapiConfig {
    let Opened { section, name, place, chosen, known, schemes } = opened;
    let base_url = section.get("base_url").and_then(|field| Some((field.setting()?, field.spot)));
    let auth = auth(&section, &schemes);
    let Said { policy, parallel } = said(&section, limits);
    let plain = |operation| OpenapiTool { operation, reads: None, writes: None, policy: policy.clone() };
    let own = |outline: &Outline| [outline.label(), outline.place()].map(|name| (name, outline.tool.clone()));
    let own = chosen.iter().flat_map(|operation| own(&operation.outline)).collect();
    let names = Names { own: Some(own), ..names.clone() };
    let mut tools: Vec<OpenapiTool> = chosen.into_iter().map(plain).collect();
    if let Some(said) = section.get("tools").and_then(|field| field.section("`tools`", Kind::Names)) {
        for (spot, field) in said.all() {
            let wanted = |outline: &Outline| outline.label() == field.key || outline.place() == field.key;
            match tools.iter_mut().find(|tool| wanted(&tool.operation.outline)) {
                Some(tool) => {
                    let fields = Fields::of(tool.operation.input_schema());
                    let said = source::tool(&field, &section.name, Some(&fields), &names, limits, &policy);
                    if let Some(SourceToolConfig { reads, writes, policy, .. }) = said {
                        (tool.reads, tool.writes, tool.policy) = (reads, writes, policy);
                    }
                }
                None => {
                    let why = match known.iter().any(wanted) {
                        true => ", which is not among the tools: `include` or `exclude` leaves it out".to_owned(),
                        false => format!(", which is no operation of the document{}", hint(&field.key, &known)),
                    };
                    section.page.mistake(&spot, format!("`tools` names `{}`{why}", field.key));
                }
            }
        }
    }
    check_servers(&section, base_url.as_ref(), &tools);
    section.finish();
    let base_url = base_url.map(|(setting, _)| setting);
    OpenapiConfig { name, base_url, auth, undeclared_parallel: parallel, tools, place }
}

fn auth(section: &Section<'_>, schemes: &[String]) -> Vec<(String, Setting)> {
    let said = section.get("auth").and_then(|field| field.section(format!("`auth` of {}", section.name), Kind::Names));
    let mut auth = Vec::new();
    for (spot, field) in said.iter().flat_map(Section::all) {
        if !schemes.contains(&field.key) {
            let hint = match nearest(&field.key, schemes.iter().map(String::as_str)) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!(
                    "there are {}",
                    schemes.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
                ),
            };
            let message = format!("`auth` names `{}`, which is no security scheme of the document; {hint}", field.key);
            section.page.mistake(&spot, message);
        }
        auth.extend(field.credential().map(|setting| (field.key.clone(), setting)));
    }
    auth
}

/// Notes a `base_url` that cannot be used, and the want of one.
fn check_servers(section: &Section<'_>, base_url: Option<&(Setting, Spot)>, tools: &[OpenapiTool]) {
    match base_url {
        Some((setting, spot)) => {
            let Some(url) = setting.known(section.page.environment) else { return };
            let checked = tools.first().map(|tool| tool.operation.builder("", Some(&url), &[]));
            if let Some(Err(error)) = checked.map(|built| built.and_then(|builder| Ok(builder.check()?))) {
                section.page.mistake(spot, format!("`base_url`: {error}"));
            }
        }
        None => {
            if let Some(tool) = tools.iter().find(|tool| tool.operation.server.is_none()) {
                let message = format!(
                    "{} needs `base_url`: the document names no server with scheme and host for `{}`",
                    section.name,
                    tool.operation.outline.label()
                );
                section.page.mistake(&section.spot, message);
            }
        }
    }
}
