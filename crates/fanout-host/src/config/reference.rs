//! The page of every key, for people.
//!
//! From [`keys`](super::keys). To `docs/configuration.md`; a test holds the two together.

use std::fmt::Write as _;

use super::keys::{self, Key, Table, Takes};

const BEGINNING: &str = "\
# The configuration: every key

This page is made of the descriptions that the program itself reads by; editors get the same from `fanout schema`. A file that
shows most keys at once: [`fanout.example.toml`](../fanout.example.toml). A first one of your own: `fanout init`.

`fanout.toml` is looked for in the current folder and above, unless `--config FILE` names another. Files that it names are looked for
beside it. What this version does not know is refused, never ignored.

- **Durations** are whole numbers with a unit: `\"250ms\"`, `\"30s\"`, `\"5m\"`, `\"2h\"`, `\"30d\"`. **Rates**: `\"50/s\"`, `\"600/m\"`, `\"1000/h\"`.
  **Sizes**: `\"64KiB\"`, `\"1MB\"`, or bytes.
- **Text with `${…}`**: `${NAME}` is an environment variable, `${NAME:-default}` one with a default, `${file:/run/secrets/x}` the content
  of a file; `$${` is a plain `${`. A variable that is not set is a mistake only where it is needed.
- **Overrides**: `FANOUT_SECTION__KEY` in the environment wins over the sections that say so, lists excepted, as in
  `FANOUT_RUN__MAX_TURNS=3`.
";

/// The reference page as Markdown: every section, every key with what it takes, its default, an example and what it means.
pub fn reference() -> String {
    let mut page = BEGINNING.to_owned();
    for table in keys::all() {
        section(&mut page, table);
    }
    page
}

fn section(page: &mut String, table: &Table) {
    // Headings name what stands in the file as it is written there.
    let heading = match table.header.contains(['[', '{']) {
        true => format!("`{}`", table.header),
        // "the top of the file", as the title of a part.
        false => table.header.replacen('t', "T", 1),
    };
    let _ = writeln!(page, "\n## {heading}\n\n{}", table.about);
    if table.overridden {
        let name = table.header.trim_matches(['[', ']']).to_uppercase();
        let _ = writeln!(page, "Overridden by `FANOUT_{name}__KEY`.");
    }
    let _ = writeln!(page, "\n| key | takes | left out | example | means |\n|---|---|---|---|---|");
    for key in table.keys {
        let default = match (key.needed, key.default) {
            (true, _) => "needed".to_owned(),
            (false, Some(default)) => code(default),
            (false, None) => String::new(),
        };
        let (name, example) = (key.name, code(key.example));
        let _ = writeln!(page, "| `{name}` | {} | {default} | {example} | {} |", takes(key), cell(key.about));
    }
}

fn code(text: &str) -> String {
    format!("`{}`", cell(text))
}

/// `|` would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn takes(key: &Key) -> String {
    match key.takes {
        Takes::Text => "text".to_owned(),
        Takes::Setting => "text with `${…}`".to_owned(),
        Takes::Like(_, words) => words.to_owned(),
        Takes::OneOf(values) => values.iter().map(|value| format!("`\"{value}\"`")).collect::<Vec<_>>().join(", "),
        Takes::Flag => "true or false".to_owned(),
        Takes::Whole(least, _) => format!("whole number from {least}"),
        Takes::Amount | Takes::Number => "number".to_owned(),
        Takes::Anything => "any value".to_owned(),
        Takes::Share => "share above 0, up to 1".to_owned(),
        Takes::Duration => "duration".to_owned(),
        Takes::Rate => "rate".to_owned(),
        Takes::Size => "size".to_owned(),
        Takes::Texts => "texts".to_owned(),
        Takes::Settings => "texts with `${…}`".to_owned(),
        Takes::ListLike(_, words) => format!("list of {words}"),
        Takes::SettingsByName | Takes::CredentialsByName => "texts with `${…}` by name".to_owned(),
        Takes::Inputs => "schemas by name".to_owned(),
        Takes::Schema => "JSON Schema of an object".to_owned(),
        Takes::OneOfOr(values, kind) => {
            let values = values.iter().map(|value| format!("`\"{value}\"`")).collect::<Vec<_>>().join(", ");
            format!("{values}, or {}", kind.table().map(|table| format!("`{}`", table.header)).unwrap_or_default())
        }
        Takes::FlagOr(kind) => {
            format!("true or false, or {}", kind.table().map(|table| format!("`{}`", table.header)).unwrap_or_default())
        }
        Takes::Table(kind) | Takes::Tables(kind) | Takes::TablesByName(kind) => {
            kind.table().map(|table| format!("`{}`", table.header)).unwrap_or_default()
        }
    }
}
