//! Declarations, added to the text of a configuration.
//!
//! From the text, and from [`advice`](crate::advice) for what to add. To `fanout check --write`, as the new text.
//!
//! Comments and layout stay as they are, and what was added is marked for review. The new text is only given when it reads
//! as the old one plus what was added. No file is touched here.

use fanout_core::tool::ToolSpec;
use toml::{Table as Plain, Value as PlainValue};
use toml_edit::{Array, Decor, DocumentMut, InlineTable, Item, Key, Table, TableLike, Value};

use crate::advice::{Declaration, declaration};
use crate::config::Config;

/// What stands before each addition.
pub const MARK: &str = "# proposed by fanout check: review";

/// One declaration and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition {
    /// Which part of the file describes the tool.
    pub home: Home,
    /// What is declared.
    pub declaration: Declaration,
}

/// The part of a file that describes a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// The `[[tool]]` of this name.
    Tool(String),
    /// `tools.TOOL` of a section such as `[openapi.NAME]`.
    Source {
        /// `openapi` or `mcp_servers`.
        kind: &'static str,
        /// The name of the section.
        name: String,
        /// What the section calls the tool.
        tool: String,
    },
}

/// Why declarations cannot be added to a text.
#[derive(Debug, thiserror::Error)]
pub enum DeclareError {
    /// The text is no TOML.
    #[error("the file is not TOML: {0}")]
    Toml(String),
    /// The tool is not described where it should be.
    #[error("there is no place for `{0}` in the file; add it by hand")]
    Place(String),
    /// Some lines end one way and some the other.
    #[error(
        "some lines of the file end in CRLF and some in LF; make them the same, so that the others can stay as they are"
    )]
    LineEnds,
    /// What would be written does not read as the old text plus the additions.
    #[error("the file is written in a way that nothing can be added to safely; add the lines by hand")]
    Unsafe,
}

/// What is proposed for this tool, and where it goes; `None` where no part of the file describes it.
pub fn addition(config: &Config, spec: &ToolSpec) -> Option<Addition> {
    let declaration = declaration(spec);
    let Some(proposal) = &spec.proposal else {
        return Some(Addition { home: Home::Tool(spec.name.to_string()), declaration });
    };
    let documents = config.openapi.iter().map(|document| ("openapi", document.name.as_str()));
    let servers = config.mcp_servers.keys().map(|name| ("mcp_servers", name.as_str()));
    let (kind, name) = documents.chain(servers).find(|(kind, name)| format!("[{kind}.{name}]") == proposal.section)?;
    let home = Home::Source { kind, name: name.to_owned(), tool: proposal.tool.clone() };
    Some(Addition { home, declaration })
}

/// Adds declarations to a text; a key that is there already keeps its value.
///
/// # Errors
/// [`DeclareError`]: then nothing may be written.
pub fn declare(text: &str, additions: &[Addition]) -> Result<String, DeclareError> {
    let is_crlf = text.contains("\r\n");
    let unix = text.replace("\r\n", "\n");
    if is_crlf && text.matches('\n').count() != text.matches("\r\n").count() {
        return Err(DeclareError::LineEnds);
    }
    let (bom, body) = match unix.strip_prefix('\u{feff}') {
        Some(body) => ("\u{feff}", body),
        None => ("", unix.as_str()),
    };
    let toml = |error: &dyn std::fmt::Display| DeclareError::Toml(error.to_string());
    let mut document: DocumentMut = body.parse().map_err(|error| toml(&error))?;
    let mut expected: Plain = body.parse().map_err(|error| toml(&error))?;
    for addition in additions {
        let place = || DeclareError::Place(addition.home.shown());
        add(document.as_table_mut(), addition).ok_or_else(place)?;
        expect(&mut expected, addition).ok_or_else(place)?;
    }
    let written = document.to_string();
    if written.parse::<Plain>().ok().as_ref() != Some(&expected) {
        return Err(DeclareError::Unsafe);
    }
    let written = format!("{bom}{written}");
    Ok(if is_crlf { written.replace('\n', "\r\n") } else { written })
}

impl Home {
    fn shown(&self) -> String {
        match self {
            Self::Tool(name) => name.clone(),
            Self::Source { kind, name, tool } => format!("{tool} of [{kind}.{name}]"),
        }
    }
}

/// Adds one declaration; `None` where there is no place for it.
fn add(top: &mut Table, addition: &Addition) -> Option<()> {
    let declaration = &addition.declaration;
    match &addition.home {
        Home::Tool(wanted) => {
            let is_wanted = |name: Option<&str>| name == Some(wanted.as_str());
            match top.get_mut("tool")? {
                Item::ArrayOfTables(tools) => {
                    let name = |tool: &Table| is_wanted(tool.get("name").and_then(Item::as_str));
                    fill(tools.iter_mut().find(|tool| name(tool))?, declaration)
                }
                Item::Value(Value::Array(tools)) => {
                    let mut tools = tools.iter_mut().filter_map(Value::as_inline_table_mut);
                    let name = |tool: &InlineTable| is_wanted(tool.get("name").and_then(Value::as_str));
                    fill_inline(tools.find(|tool| name(tool))?, declaration);
                    drop(tools);
                    mark(top, "tool")
                }
                _ => None,
            }
        }
        Home::Source { kind, name, tool } => descend(top, &[kind, name, "tools", tool], declaration),
    }
}

/// Adds a declaration at the end of a path of tables, making those that are not there.
fn descend(table: &mut Table, path: &[&str], declaration: &Declaration) -> Option<()> {
    let [first, rest @ ..] = path else { return fill(table, declaration) };
    match table.get_mut(first) {
        Some(Item::Table(inner)) => descend(inner, rest, declaration),
        Some(Item::Value(Value::InlineTable(inner))) => {
            descend_inline(inner, rest, declaration)?;
            mark(table, first)
        }
        Some(_) => None,
        None if rest.is_empty() => {
            let mut entry = InlineTable::new();
            fill_inline(&mut entry, declaration);
            table.insert(first, Item::Value(Value::InlineTable(entry)));
            mark(table, first)
        }
        None => {
            let mut inner = Table::new();
            // `[openapi.shop]` with `tools.NAME = …` in it.
            inner.set_implicit(rest.len() == 3);
            inner.set_dotted(rest.len() == 1);
            descend(&mut inner, rest, declaration)?;
            table.insert(first, Item::Table(inner));
            Some(())
        }
    }
}

fn descend_inline(table: &mut InlineTable, path: &[&str], declaration: &Declaration) -> Option<()> {
    let [first, rest @ ..] = path else {
        fill_inline(table, declaration);
        return Some(());
    };
    if !table.contains_key(first) {
        put(table, first, Value::InlineTable(InlineTable::new()));
    }
    descend_inline(table.get_mut(first)?.as_inline_table_mut()?, rest, declaration)
}

fn fill(table: &mut Table, declaration: &Declaration) -> Option<()> {
    let lacking: Vec<_> = declaration.entries().filter(|(key, _)| !table.contains_key(key)).collect();
    for (key, keys) in &lacking {
        table.insert(key, Item::Value(Value::Array(keys.iter().collect::<Array>())));
    }
    lacking.first().map_or(Some(()), |(key, _)| mark(table, key))
}

fn fill_inline(table: &mut InlineTable, declaration: &Declaration) {
    for (key, keys) in declaration.entries() {
        if !table.contains_key(key) {
            put(table, key, Value::Array(keys.iter().collect::<Array>()));
        }
    }
}

/// Adds a key at the end of an inline table, with the spaces that one is usually written with.
fn put(table: &mut InlineTable, key: &str, mut value: Value) {
    // What stood last kept the space before the brace.
    let last = table.iter().last().map(|(last, _)| last.to_owned());
    if let Some(last) = last.and_then(|last| table.get_mut(&last)) {
        last.decor_mut().set_suffix("");
    }
    *value.decor_mut() = Decor::new(" ", " ");
    table.insert_formatted(&Key::new(key).with_leaf_decor(Decor::new(" ", " ")), value);
}

/// Puts the mark on a line of its own before a key. Inside of braces no comment can stand, so there it is before the line.
fn mark(table: &mut Table, key: &str) -> Option<()> {
    let mut key = TableLike::key_mut(table, key)?;
    let decor = key.leaf_decor_mut();
    let before = decor.prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default().to_owned();
    if !before.contains(MARK) {
        let indent = before.rsplit('\n').next().unwrap_or_default().to_owned();
        decor.set_prefix(format!("{before}{MARK}\n{indent}"));
    }
    Some(())
}

/// Adds one declaration to plain values: what the written text must read as.
fn expect(top: &mut Plain, addition: &Addition) -> Option<()> {
    let table = match &addition.home {
        Home::Tool(wanted) => {
            let tools = top.get_mut("tool")?.as_array_mut()?;
            let mut tools = tools.iter_mut().filter_map(PlainValue::as_table_mut);
            tools.find(|tool| tool.get("name").and_then(PlainValue::as_str) == Some(wanted))?
        }
        Home::Source { kind, name, tool } => {
            let mut table = top;
            for key in [kind, name.as_str(), "tools", tool] {
                table = table.entry(key).or_insert_with(|| PlainValue::Table(Plain::new())).as_table_mut()?;
            }
            table
        }
    };
    for (key, keys) in addition.declaration.entries() {
        table.entry(key).or_insert_with(|| keys.to_vec().into());
    }
    Some(())
}
