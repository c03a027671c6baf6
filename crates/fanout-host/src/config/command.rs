//! `command` of a `[[tool]]`: a program, as its author describes it.
//!
//! From the page. To [`build`](crate::build), which makes a tool of it; what can be wrong with it shows here, with its
//! place.
//!
//! Nothing is started, and no secret is read.

use std::path::PathBuf;

use fanout_tools::command::{CommandTool, CommandToolBuilder, OUTPUT_MAX};
use serde_json::Value;

use super::field::Field;
use super::keys::Kind;
use super::page::{Page, Section, Spot};
use super::setting::Setting;

/// The program of a tool.
#[derive(Clone, Debug)]
pub struct CommandConfig {
    /// A name that is looked up in `PATH`, or a path; one that is not absolute starts at the configuration's folder.
    pub program: String,
    /// The templates of its arguments, in their order.
    pub args: Vec<Setting>,
    /// The template of its standard input; `None`: there is nothing to read.
    pub stdin: Option<Setting>,
    /// The folder that it is started in; the configuration's unless said.
    pub cwd: PathBuf,
    /// The variables that it sees; there are no others.
    pub env: Vec<Variable>,
    /// The most that is kept of each stream, in bytes.
    pub max_output: usize,
}

/// A variable that a program sees.
#[derive(Clone, Debug)]
pub enum Variable {
    /// `"PATH"`: as it is here, if it is set.
    Inherited(String),
    /// `"TOKEN=${TOKEN}"`.
    Set(String, Setting),
}

/// Reads the table of one tool.
pub(super) fn read(field: &Field<'_>, tool: &Section<'_>, schema: Option<&Value>) -> Option<CommandConfig> {
    let section = field.section(format!("`command` of {}", tool.name), Kind::Command)?;
    let program = section.get("program");
    if program.is_none() {
        section.page.mistake(&section.spot, format!("{} needs `program`", section.name));
    }
    let program = program.and_then(|field| Some((field.string()?, field.spot)));
    let args = section.get("args").and_then(|field| field.settings()).unwrap_or_default();
    let stdin = section.get("stdin").and_then(|field| Some((field.setting()?, field.spot)));
    let cwd = section.get("cwd").and_then(|field| field.string());
    let env = section.get("env").map(|field| variables(&field)).unwrap_or_default();
    let max_output = section.get("max_output").and_then(|field| field.size());
    section.finish();
    let (program, spot) = program?;
    let schema = schema?;
    check(&section, schema, (program, &spot), &args, stdin.as_ref());
    let page = section.page;
    check_one_word(page, &spot, "program", program);
    let is_path = program.contains(std::path::is_separator);
    let program = match is_path.then(|| std::path::absolute(page.folder.join(program))) {
        Some(Ok(path)) => path.to_string_lossy().into_owned(),
        _ => program.to_owned(),
    };
    Some(CommandConfig {
        program,
        args: args.into_iter().map(|(setting, _)| setting).collect(),
        stdin: stdin.map(|(setting, _)| setting),
        cwd: page.folder.join(cwd.unwrap_or(".")),
        env,
        max_output: max_output.unwrap_or(OUTPUT_MAX),
    })
}

/// Tells of a name that holds spaces: most likely a command line, which no shell takes apart here.
pub(super) fn check_one_word(page: &Page<'_>, spot: &Spot, key: &str, program: &str) {
    if program.contains(' ') && !program.contains(std::path::is_separator) {
        page.warning(spot, format!("`{key}` is taken as one name, spaces and all; arguments stand in `args`"));
    }
}

/// `["PATH", "TOKEN=${TOKEN}"]`.
fn variables(field: &Field<'_>) -> Vec<Variable> {
    let read = |(setting, spot): (Setting, Spot)| {
        let read = variable(&setting);
        if read.is_none() {
            field.page.mistake(&spot, "`env` takes names such as \"PATH\", and \"NAME=value\"");
        }
        read
    };
    field.settings().unwrap_or_default().into_iter().filter_map(read).collect()
}

fn variable(setting: &Setting) -> Option<Variable> {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    let fits = |name: &str| name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit());
    match setting.split_name() {
        Some((name, value)) => fits(&name).then_some(Variable::Set(name, value)),
        None => setting.literal().filter(|name| fits(name)).map(|name| Variable::Inherited(name.to_owned())),
    }
}

/// Notes what is wrong: each part is tried in a program of its own, so that one mistake does not hide the next.
fn check(
    section: &Section<'_>,
    schema: &Value,
    (program, spot): (&str, &Spot),
    args: &[(Setting, Spot)],
    stdin: Option<&(Setting, Spot)>,
) {
    let draft = |program: &str| CommandTool::builder("draft", program).input_schema(schema.clone());
    let note = |spot: &Spot, draft: CommandToolBuilder| {
        if let Err(error) = draft.check() {
            section.page.mistake(spot, error.to_string());
            return false;
        }
        true
    };
    if program.contains("${") {
        section.page.mistake(spot, "`program` takes no `${…}`: what runs must be written out");
    } else {
        note(spot, draft(program));
    }
    // Some program that is surely right; an argument that is wrong is told once.
    let mut right: Vec<String> = Vec::new();
    for (setting, spot) in args {
        right.push(setting.with("x"));
        let draft = right.iter().fold(draft("true"), |draft, text| draft.argument(text.as_str()));
        if !note(spot, draft)
            && let Some(last) = right.last_mut()
        {
            "x".clone_into(last);
        }
    }
    if let Some((setting, spot)) = stdin {
        note(spot, draft("true").stdin(setting.with("x")));
    }
}
