//! One value of the configuration, read as what its key asks for.
//!
//! From [`Section`](super::page::Section). To the options; what does not fit is noted with its place and with what would.
//!
//! Every reader answers `None` after noting a mistake, so that the caller goes on and finds the next one.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use fanout_core::limits::Rate;
use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::Kind;
use super::page::{Page, Place, Section, Spot};
use super::setting::Setting;
use super::units;

/// A value and where it was given.
pub(super) struct Field<'a> {
    pub(super) page: &'a Page<'a>,
    pub(super) key: String,
    pub(super) given: Given<'a>,
    pub(super) spot: Spot,
}

/// How a value was given.
pub(super) enum Given<'a> {
    Toml(&'a DeValue<'a>),
    /// A variable's text stands for whatever type the key asks for.
    Variable(&'a str),
}

impl<'a> Field<'a> {
    pub(super) fn of_toml(page: &'a Page<'a>, key: &str, value: &'a Spanned<DeValue<'a>>) -> Self {
        let spot = Spot::Text(value.span());
        Self { page, key: key.to_owned(), given: Given::Toml(value.get_ref()), spot }
    }

    /// Notes that the value is not what the key asks for. It is repeated as it was written where it cannot be a secret.
    pub(super) fn expected(&self, what: &str) {
        let not = match (&self.given, &self.spot) {
            (Given::Toml(value), Spot::Text(span)) => {
                // The span of a section is that of its name.
                let is_shown = !MAY_BE_SECRET.contains(&self.key.as_str())
                    && (!matches!(value, DeValue::Table(_))
                        || self.page.excerpt(span).is_some_and(|text| text.starts_with('{')));
                let excerpt = self.page.excerpt(span).filter(|_| is_shown);
                format!(", not {}", excerpt.unwrap_or(type_of(value)))
            }
            (Given::Toml(value), Spot::Variable(_)) => format!(", not {}", type_of(value)),
            (Given::Variable(_), _) => String::new(),
        };
        self.mistake(format!("`{}` must be {what}{not}", self.key));
    }

    pub(super) fn mistake(&self, message: impl Into<String>) {
        self.page.mistake(&self.spot, message);
    }

    /// Whether the value is a text, noting nothing.
    pub(super) fn is_string(&self) -> bool {
        self.text().is_some()
    }

    /// Whether the value is `true` or `false`, noting nothing.
    pub(super) fn is_boolean(&self) -> bool {
        matches!(self.given, Given::Toml(DeValue::Boolean(_)))
    }

    /// Whether the value is a table, noting nothing.
    pub(super) fn is_table(&self) -> bool {
        matches!(self.given, Given::Toml(DeValue::Table(_)))
    }

    pub(super) fn string(&self) -> Option<&'a str> {
        let text = self.text();
        if text.is_none() {
            self.expected("a text in quotes");
        }
        text
    }

    /// A text that may be a secret: it is not repeated when it is wrong.
    pub(super) fn setting(&self) -> Option<Setting> {
        self.setting_by(Setting::parse)
    }

    /// A setting in which the end user's token may stand.
    pub(super) fn credential(&self) -> Option<Setting> {
        let setting = self.setting_by(Setting::parse_with_token)?;
        if setting.holds_token() {
            self.page.takes_token(&self.spot, &self.key);
        }
        Some(setting)
    }

    fn setting_by(&self, parse: impl Fn(&str, Place, &str, &Path) -> Result<Setting, String>) -> Option<Setting> {
        let Some(text) = self.text() else {
            self.mistake(format!("`{}` must be a text in quotes", self.key));
            return None;
        };
        match parse(text, self.page.place(&self.spot), &self.key, self.page.folder) {
            Ok(setting) => {
                if is_bare_variable(text) {
                    let message =
                        format!("in `{}` a `$` before a name is plain text; a variable is written ${{NAME}}", self.key);
                    self.page.warning(&self.spot, message);
                }
                Some(setting)
            }
            Err(message) => {
                self.mistake(message);
                None
            }
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        let flag = match &self.given {
            Given::Toml(DeValue::Boolean(flag)) => Some(*flag),
            Given::Variable("true") => Some(true),
            Given::Variable("false") => Some(false),
            _ => None,
        };
        if flag.is_none() {
            self.expected("true or false");
        }
        flag
    }

    pub(super) fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let number = match &self.given {
            Given::Toml(DeValue::Integer(number)) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            Given::Variable(text) => text.replace('_', "").parse().ok(),
            Given::Toml(_) => None,
        };
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let (least, most) = range.into_inner();
            match most {
                u64::MAX => self.expected(&format!("a whole number of at least {least}")),
                _ => self.expected(&format!("a whole number from {least} to {most}")),
            }
        }
        number
    }

    /// A number that is not negative.
    pub(super) fn amount(&self) -> Option<f64> {
        let number = self.number().filter(|number| number.is_finite() && *number >= 0.0);
        if number.is_none() {
            self.expected("a number of at least 0");
        }
        number
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        let duration = self.text().and_then(units::duration).filter(|duration| !duration.is_zero());
        if duration.is_none() {
            self.expected("a duration such as \"30s\" or \"5m\"");
        }
        duration
    }

    pub(super) fn rate(&self) -> Option<Rate> {
        let rate = self.text().and_then(units::rate);
        if rate.is_none() {
            self.expected("so many calls a second, minute or hour, such as \"50/s\", \"600/m\" or \"1000/h\"");
        }
        rate
    }

    /// A share: above 0, and 1 at most.
    pub(super) fn share(&self) -> Option<f64> {
        let share = self.number().filter(|share| *share > 0.0 && *share <= 1.0);
        if share.is_none() {
            self.expected("a share above 0 and up to 1, such as 0.5");
        }
        share
    }

    pub(super) fn size(&self) -> Option<usize> {
        let size = match &self.given {
            Given::Toml(DeValue::Integer(number)) if number.radix() == 10 => units::size(number.as_str()),
            _ => self.text().and_then(units::size),
        };
        let size = size.filter(|size| *size > 0);
        if size.is_none() {
            self.expected("a size such as \"64KiB\" or \"1MB\"");
        }
        size
    }

    /// A list of texts, each with its place.
    pub(super) fn strings(&self) -> Option<Vec<(&'a str, Spot)>> {
        let Given::Toml(DeValue::Array(elements)) = self.given else {
            self.expected("a list such as [\"a\", \"b\"]");
            return None;
        };
        let texts = elements.iter().filter_map(|element| {
            let field = Field::of_toml(self.page, &self.key, element);
            let text = field.text();
            if text.is_none() {
                field.expected("a list of texts in quotes");
            }
            Some((text?, field.spot))
        });
        Some(texts.collect())
    }

    /// A list of texts that may be secrets, each with its place.
    pub(super) fn settings(&self) -> Option<Vec<(Setting, Spot)>> {
        let Given::Toml(DeValue::Array(elements)) = self.given else {
            self.mistake(format!("`{}` must be a list such as [\"a\", \"b\"]", self.key));
            return None;
        };
        let settings = elements.iter().filter_map(|element| {
            let field = Field::of_toml(self.page, &self.key, element);
            Some((field.setting()?, field.spot))
        });
        Some(settings.collect())
    }

    /// The tables of `[[key]]`.
    pub(super) fn tables(&self) -> Vec<Self> {
        match self.given {
            Given::Toml(DeValue::Array(tables)) => {
                tables.iter().map(|table| Field::of_toml(self.page, &self.key, table)).collect()
            }
            _ => {
                self.mistake(format!("`{0}` must be written as [[{0}]], once for each", self.key));
                Vec::new()
            }
        }
    }

    pub(super) fn table(&self) -> Option<&'a DeTable<'a>> {
        self.table_of(Kind::Names)
    }

    fn table_of(&self, kind: Kind) -> Option<&'a DeTable<'a>> {
        let header = kind.table().map(|table| table.header);
        match self.given {
            Given::Toml(DeValue::Table(table)) => return Some(table),
            Given::Toml(DeValue::Array(_)) if header == Some(&format!("[{}]", self.key)) => {
                self.mistake(format!("`{0}` must be written as [{0}], once", self.key));
            }
            _ => match kind.lacks_name(&self.key) {
                Some(header) => {
                    self.mistake(format!(
                        "`{}` is a key of {header}: what it is about needs a name before it",
                        self.key
                    ));
                }
                None => self.expected(&kind.expected()),
            },
        }
        None
    }

    /// The value as a table with keys of its own.
    pub(super) fn section(&self, name: impl Into<String>, kind: Kind) -> Option<Section<'a>> {
        let table = self.table_of(kind)?;
        let span = match &self.spot {
            Spot::Text(span) => span.clone(),
            Spot::Variable(_) => 0..0,
        };
        Some(Section::new(self.page, name, kind, span, Some(table)))
    }

    /// The value as JSON.
    pub(super) fn json(&self) -> Option<Value> {
        match self.given {
            Given::Toml(value) => {
                let json = to_json(value);
                if json.is_none() {
                    self.expected("something that JSON can hold: no dates, no `inf`, no `nan`");
                }
                json
            }
            Given::Variable(text) => Some(Value::String(text.to_owned())),
        }
    }

    fn number(&self) -> Option<f64> {
        match &self.given {
            Given::Toml(DeValue::Integer(number)) if number.radix() == 10 => number.as_str().parse().ok(),
            Given::Toml(DeValue::Float(number)) => number.as_str().parse().ok(),
            Given::Variable(text) => text.parse().ok(),
            Given::Toml(_) => None,
        }
    }

    fn text(&self) -> Option<&'a str> {
        match self.given {
            Given::Toml(DeValue::String(text)) => Some(text),
            Given::Variable(text) => Some(text),
            Given::Toml(_) => None,
        }
    }
}

/// `$NAME` or `Bearer $NAME`, as a shell would fill it in.
fn is_bare_variable(text: &str) -> bool {
    let last = text.rsplit(' ').next().unwrap_or_default();
    let is_letter = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    last.strip_prefix('$').is_some_and(|name| !name.is_empty() && name.chars().all(is_letter))
}

/// Tables in which secrets stand: a text in their place may be one that slipped.
const MAY_BE_SECRET: [&str; 11] =
    ["args", "command", "env", "headers", "http", "http_headers", "jwt", "model", "notify", "oauth", "query"];

fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

pub(super) fn to_json(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Integer(number) => Value::Number(i64::from_str_radix(number.as_str(), number.radix()).ok()?.into()),
        DeValue::Float(number) => Value::Number(Number::from_f64(number.as_str().parse().ok()?)?),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(_) => return None,
        DeValue::Array(elements) => {
            Value::Array(elements.iter().map(|element| to_json(element.get_ref())).collect::<Option<_>>()?)
        }
        DeValue::Table(table) => {
            let pair = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let name: &std::borrow::Cow<'_, str> = key.get_ref();
                Some((name.clone().into_owned(), to_json(value.get_ref())?))
            };
            Value::Object(table.iter().map(pair).collect::<Option<Map<_, _>>>()?)
        }
    })
}
