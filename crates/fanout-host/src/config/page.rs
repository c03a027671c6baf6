//! The text of a configuration, and what is wrong with it.
//!
//! From a file. To everything that reads a part of it: [`Section`] hands out the values of one table and knows in the end
//! which of its keys nobody asked for.
//!
//! What a key means is not known here.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use fanout_tools::schema::nearest;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::field::{Field, Given};
use super::keys::Kind;
use super::{keys, later, syntax};
use crate::environment::Environment;

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Nowhere: the default of a key of this section.
    Default(&'static str),
    /// In an environment variable.
    Variable(String),
    /// In a file; line and column count from 1, the column in characters.
    File {
        /// The file.
        file: String,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default(section) => write!(f, "[{section}]"),
            Self::Variable(name) => f.write_str(name),
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
        }
    }
}

/// One thing that is wrong, or perhaps not meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where it stands.
    pub place: Place,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Every mistake of a configuration, in the order of the text; at least one. Displays as one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The mistakes.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.mistakes.iter().enumerate() {
            let line = if at == 0 { "" } else { "\n" };
            write!(f, "{line}{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Bytes as text.
///
/// # Errors
/// The one mistake, with its place, where they are no UTF-8.
pub(super) fn decode(file: &str, bytes: Vec<u8>) -> Result<String, ConfigErrors> {
    String::from_utf8(bytes).map_err(|error| {
        let (bytes, valid) = (error.as_bytes(), error.utf8_error().valid_up_to());
        let before = String::from_utf8_lossy(&bytes[..valid]);
        let message = match bytes {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "this is UTF-16; save the file as UTF-8".to_owned(),
            _ => format!("the byte 0x{:02x} is no UTF-8; save the file as UTF-8", bytes[valid]),
        };
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let place = Place::File { file: file.to_owned(), line: before.matches('\n').count() + 1, column };
        ConfigErrors { mistakes: vec![Mistake { place, message }] }
    })
}

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    /// Bytes of the text.
    Text(Range<usize>),
    /// A variable that overrides a key.
    Variable(String),
}

/// A text on its way to options.
pub(super) struct Page<'a> {
    pub(super) file: &'a str,
    text: &'a str,
    pub(super) folder: &'a Path,
    pub(super) environment: &'a Environment,
    mistakes: RefCell<Vec<Mistake>>,
    warnings: RefCell<Vec<Mistake>>,
    /// Whether `[server]` has end users' tokens verified.
    pub(super) verifies_tokens: Cell<bool>,
}

impl<'a> Page<'a> {
    pub(super) fn new(file: &'a str, text: &'a str, folder: &'a Path, environment: &'a Environment) -> Self {
        Self {
            file,
            text,
            folder,
            environment,
            mistakes: RefCell::default(),
            warnings: RefCell::default(),
            verifies_tokens: Cell::new(false),
        }
    }

    /// The text as a table; `None` where it is no TOML. Every place where it is not is noted, and nothing else: what the
    /// rest would mean is a guess.
    pub(super) fn table(&self) -> Option<Spanned<DeTable<'a>>> {
        let (table, mut errors) = DeTable::parse_recoverable(self.text);
        errors.sort_by_key(|error| error.span().map(|span| span.start));
        if errors.is_empty() {
            return Some(table);
        }
        if let Some((at, format)) = syntax::other_format(self.text) {
            let message =
                format!("this is {format}, and a configuration is TOML: [run] on a line, max_turns = 50 on the next");
            self.mistake(&Spot::Text(at..at), message);
            return None;
        }
        let mut line_before = 0;
        for error in errors {
            let span = error.span().unwrap_or_default();
            // Behind the first mistake of a line, the parser guesses.
            let line = self.text.get(..span.start).unwrap_or_default().matches('\n').count() + 1;
            if line != line_before {
                let message = error.message().trim().replace('\n', "; ");
                self.mistake(&Spot::Text(span.clone()), syntax::explain(self.text, &span, &message));
            }
            line_before = line;
        }
        None
    }

    pub(super) fn mistake(&self, spot: &Spot, message: impl Into<String>) {
        self.mistakes.borrow_mut().push(Mistake { place: self.place(spot), message: message.into() });
    }

    pub(super) fn warning(&self, spot: &Spot, message: impl Into<String>) {
        self.warnings.borrow_mut().push(Mistake { place: self.place(spot), message: message.into() });
    }

    /// Notes that the end user's token stands in a value.
    pub(super) fn takes_token(&self, spot: &Spot, key: &str) {
        if !self.verifies_tokens.get() {
            let message = format!(
                "`${{caller.token}}` in `{key}` is sent as it came, and the API must verify it; with `jwt` in [server] the gateway does"
            );
            self.warning(spot, message);
        }
    }

    /// Notes what is wrong in another file.
    pub(super) fn mistake_at(&self, mistake: Mistake) {
        self.mistakes.borrow_mut().push(mistake);
    }

    /// Notes what is perhaps not meant, in whatever file.
    pub(super) fn warning_at(&self, warning: Mistake) {
        self.warnings.borrow_mut().push(warning);
    }

    pub(super) fn place(&self, spot: &Spot) -> Place {
        match spot {
            Spot::Variable(name) => Place::Variable(name.clone()),
            Spot::Text(span) => {
                let before = self.text.get(..span.start).unwrap_or(self.text);
                let line_start = before.rfind('\n').map_or(0, |at| at + 1);
                let line = before.matches('\n').count() + 1;
                let column = before[line_start..].chars().count() + 1;
                Place::File { file: self.file.to_owned(), line, column }
            }
        }
    }

    /// The text of a value as its author wrote it, if it is short enough to repeat.
    pub(super) fn excerpt(&self, span: &Range<usize>) -> Option<&'a str> {
        let text = self.text.get(span.clone())?;
        (!text.contains('\n') && text.chars().count() <= EXCERPT_MAX).then_some(text)
    }

    /// The warnings, or every mistake.
    pub(super) fn finish(self) -> Result<Vec<Mistake>, ConfigErrors> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort();
        mistakes.dedup();
        if !mistakes.is_empty() {
            return Err(ConfigErrors { mistakes });
        }
        let mut warnings = self.warnings.into_inner();
        warnings.sort();
        Ok(warnings)
    }
}

/// Longer values are named by their type in a message, not repeated.
const EXCERPT_MAX: usize = 40;

/// One table: hands out its values and remembers what was asked for.
pub(super) struct Section<'a> {
    pub(super) page: &'a Page<'a>,
    /// How messages call it: `[run]`, ``[[tool]] `get_user` ``; empty for the top.
    pub(super) name: String,
    /// Where the table stands.
    pub(super) spot: Spot,
    /// Which table of `later` concerns it.
    kind: Kind,
    /// `RUN` in `FANOUT_RUN__MAX_TURNS`; `None` where nothing can be overridden.
    variable: Option<&'static str>,
    entries: Vec<Entry<'a>>,
    asked: RefCell<BTreeSet<&'static str>>,
}

struct Entry<'a> {
    key: &'a str,
    key_span: Range<usize>,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Section<'a> {
    pub(super) fn new(
        page: &'a Page<'a>,
        name: impl Into<String>,
        kind: Kind,
        span: Range<usize>,
        table: Option<&'a DeTable<'a>>,
    ) -> Self {
        let entry = |(key, value): (&'a Spanned<_>, _)| {
            let text: &'a std::borrow::Cow<'a, str> = key.get_ref();
            Entry { key: text, key_span: key.span(), value }
        };
        let entries = table.into_iter().flatten().map(entry).collect();
        let spot = Spot::Text(span);
        Self { page, name: name.into(), spot, kind, variable: None, entries, asked: RefCell::default() }
    }

    /// Lets `FANOUT_<variable>__<KEY>` win over the keys of this section.
    pub(super) fn overridden_by(mut self, variable: &'static str) -> Self {
        self.variable = Some(variable);
        self
    }

    /// The value of a key, if it is given.
    pub(super) fn get(&self, key: &'static str) -> Option<Field<'a>> {
        debug_assert!(
            self.kind.has(key),
            "`{key}` of {} ({:?}) is read and not described in `keys`",
            self.name,
            self.kind
        );
        self.asked.borrow_mut().insert(key);
        if let Some(section) = self.variable {
            let variable = format!("FANOUT_{section}__{}", key.to_uppercase());
            if let Some(text) = self.page.environment.get(&variable) {
                let spot = Spot::Variable(variable);
                return Some(Field { page: self.page, key: key.to_owned(), given: Given::Variable(text), spot });
            }
        }
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(Field::of_toml(self.page, key, entry.value))
    }

    /// Every key with its value, for a table whose keys are names.
    pub(super) fn all(&self) -> impl Iterator<Item = (Spot, Field<'a>)> + '_ {
        self.entries
            .iter()
            .map(|entry| (Spot::Text(entry.key_span.clone()), Field::of_toml(self.page, entry.key, entry.value)))
    }

    /// Where a key stands, if it is given in the text.
    pub(super) fn spot_of(&self, key: &str) -> Option<Spot> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(Spot::Text(entry.key_span.clone()))
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(&self) {
        for entry in &self.entries {
            self.unasked(entry.key, &Spot::Text(entry.key_span.clone()));
        }
        if let Some(section) = self.variable {
            let prefix = format!("FANOUT_{section}__");
            for (key, _) in self.page.environment.starting_with(&prefix) {
                let spot = Spot::Variable(format!("{prefix}{key}"));
                let (upper, lower) = (key.to_uppercase(), key.to_lowercase());
                if key != upper && self.asked.borrow().contains(lower.as_str()) {
                    self.page.mistake(&spot, format!("it is spelled {prefix}{upper}"));
                }
                self.unasked(&lower, &spot);
            }
        }
    }

    fn unasked(&self, key: &str, spot: &Spot) {
        let asked = self.asked.borrow();
        if asked.contains(key) {
            return;
        }
        if let Some(sentence) = later::sentence(self.kind, key) {
            return self.page.mistake(spot, sentence);
        }
        if later::is_of_limits(self.kind, key) {
            let message = format!(
                "unknown key `{key}` in {}; it belongs into [limits.NAME], and the tool says `limit = \"NAME\"`",
                self.name
            );
            return self.page.mistake(spot, message);
        }
        let place = if self.name.is_empty() { String::new() } else { format!(" in {}", self.name) };
        let hint = match (nearest(key, asked.iter().copied().chain(later::keys(self.kind))), keys::tables_with(key)) {
            (Some(meant), Some(tables)) if !tables.contains(" and ") => {
                format!("did you mean `{meant}`? `{key}` is a key of {tables}")
            }
            (Some(meant), _) => format!("did you mean `{meant}`?"),
            (None, Some(tables)) => format!("it is a key of {tables}"),
            (None, None) => {
                let keys: Vec<String> = asked.iter().map(|key| format!("`{key}`")).collect();
                format!("the keys are {}", keys.join(", "))
            }
        };
        self.page.mistake(spot, format!("unknown key `{key}`{place}; {hint}"));
    }
}
