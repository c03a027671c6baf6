//! What is no TOML, in words that say what to write.
//!
//! From the parser's own messages, which name what a grammar expects. To the page, as mistakes.
//!
//! Nothing is repeated that stood to the right of a `=`: it may be a secret.

use std::ops::Range;

/// Another format that the text seems to be, and where it begins to.
pub(super) fn other_format(text: &str) -> Option<(usize, &'static str)> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        if !trimmed.is_empty() && !trimmed.starts_with('#') {
            let place = at + line.find(trimmed).unwrap_or_default();
            return format_of(trimmed).map(|format| (place, format));
        }
        at += line.len();
    }
    None
}

fn format_of(line: &str) -> Option<&'static str> {
    let key = line.split_once(':').filter(|(_, rest)| rest.is_empty() || rest.starts_with(' '));
    let is_name = |key: &str| !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    match line {
        _ if line.starts_with('{') => Some("JSON"),
        _ if line.starts_with('<') => Some("XML or HTML"),
        _ if line.starts_with("---") || key.is_some_and(|(key, _)| is_name(key)) => Some("YAML"),
        _ => None,
    }
}

/// One of the parser's messages, about these bytes of the text.
pub(super) fn explain(text: &str, span: &Range<usize>, message: &str) -> String {
    let rest = text.get(span.start..).unwrap_or_default();
    let line = rest.lines().next().unwrap_or_default();
    let known = |part: &str| message.contains(part);
    let value_is_missing = line.trim().is_empty() || line.starts_with('#');
    if known("duplicate key") {
        return twice(text, span);
    }
    if known("carriage return") {
        return "lines must end in LF or CRLF, not in CR alone; save the file with the line ends of Unix or Windows"
            .to_owned();
    }
    if line.starts_with(':') {
        return "a key is followed by `=`, not by `:`".to_owned();
    }
    if line.starts_with(['\u{201c}', '\u{201d}', '\u{201e}', '\u{2018}', '\u{2019}']) {
        return "these are typographic quotes; a text stands in straight ones: \"…\"".to_owned();
    }
    let word: String = line.chars().take_while(|c| c.is_alphanumeric()).collect();
    let word = match word.to_lowercase() {
        // The parser points behind the letters that would have been right.
        word if known("boolean") || known("float") => whole_word(text, span.start).unwrap_or(word),
        word => word,
    };
    match word.as_str() {
        "null" | "none" | "nil" => return "there is no null: leave the key out".to_owned(),
        "true" | "false" | "yes" | "no" | "on" | "off" => {
            return "what is true or false is written `true` or `false`, in small letters and without quotes"
                .to_owned();
        }
        _ => {}
    }
    let ours = [
        ("missing comma", "a `,` or the closing bracket is missing before this"),
        ("in array", "the list before this is not closed: `]` is missing"),
        ("unclosed array", "a list is not closed: `]` is missing"),
        ("unclosed inline table", "a table is not closed: `}` is missing"),
        ("unclosed table", "a section's name is not closed: `]` is missing"),
        ("key with no value", "a key needs `=` and a value, as in key = \"value\""),
        (
            "unexpected key or value",
            "the line must end here: one key = value on each line, and 1000 or 1_000 for a thousand",
        ),
        ("leading zero", "a number cannot begin with 0"),
        ("unicode value", ESCAPE),
        ("escape", ESCAPE),
        ("expected `\"`", "a text is not closed: `\"` is missing at the end of the line"),
        ("expected `'`", "a text is not closed: `'` is missing at the end of the line"),
        (
            "must be quoted",
            match value_is_missing {
                true => "there is no value behind the `=`",
                false => "a text must stand in quotes, as in key = \"value\"; so must durations, rates and sizes",
            },
        ),
    ];
    let found = ours.iter().find(|(part, _)| known(part));
    found.map_or_else(|| format!("this is not TOML: {message}"), |(_, words)| (*words).to_owned())
}

const ESCAPE: &str =
    "in double quotes a backslash begins an escape: write it twice, or the text in single quotes, as in 'C:\\tools'";

/// The letters around a place.
fn whole_word(text: &str, at: usize) -> Option<String> {
    let before = text.get(..at)?;
    let start = before.rfind(|c: char| !c.is_ascii_alphanumeric()).map_or(0, |at| at + 1);
    let word = text.get(start..)?.chars().take_while(char::is_ascii_alphanumeric);
    Some(word.collect::<String>().to_lowercase())
}

/// A key or a section that stands twice, with the line of the first if it is written alike.
fn twice(text: &str, span: &Range<usize>) -> String {
    let name = text.get(span.clone()).unwrap_or_default();
    let before = text.get(..span.start).unwrap_or_default();
    let number = before.matches('\n').count();
    let line = text.lines().nth(number).unwrap_or_default().trim();
    let earlier = text.lines().take(number).enumerate();
    let first = if line.starts_with('[') {
        earlier.filter(|(_, other)| other.trim() == line).map(|(at, _)| at + 1).next()
    } else {
        let is_key =
            |other: &str| other.trim_start().strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='));
        let mut section: Vec<(usize, &str)> = earlier.collect();
        let from = section.iter().rposition(|(_, other)| other.trim_start().starts_with('[')).unwrap_or(0);
        section.drain(..from);
        section.into_iter().find(|(_, other)| is_key(other)).map(|(at, _)| at + 1)
    };
    let first = first.map(|first| format!("; the first stands in line {first}")).unwrap_or_default();
    format!("`{name}` is given twice{first}")
}
