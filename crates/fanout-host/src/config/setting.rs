//! Texts with `${NAME}` in them: mostly secrets.
//!
//! From the configuration. To [`build`](crate::build), which asks for the whole text only where it is needed: a variable
//! that is not set hurts nobody who does not need it.
//!
//! A setting is never printed, neither before nor after it is filled.

use std::fmt;
use std::path::{Path, PathBuf};

use fanout_core::secrets::Secrets;
use secrecy::SecretString;

use super::page::Place;
use crate::environment::{Environment, INHERITED};

/// A text that variables and files are filled into when it is needed.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    parts: Vec<Part>,
    place: Place,
    key: String,
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable {
        name: String,
        default: Option<String>,
    },
    File(PathBuf),
    /// The token of the end user who is behind a call.
    CallerToken,
}

/// Why a setting cannot be filled.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// A variable is not set, or is empty.
    #[error("{place}: `{key}` needs the environment variable `{name}`, which is not set")]
    Unset {
        /// Where the setting stands.
        place: Place,
        /// Its key.
        key: String,
        /// The variable.
        name: String,
    },
    /// A file cannot be read.
    #[error("{place}: `{key}` needs the file {}, which cannot be read", path.display())]
    File {
        /// Where the setting stands.
        place: Place,
        /// Its key.
        key: String,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

impl Setting {
    /// Reads a text. `$${` stands for `${`.
    ///
    /// # Errors
    /// A message that names the mistake and does not repeat the text around it.
    pub(super) fn parse(text: &str, place: Place, key: &str, folder: &Path) -> Result<Self, String> {
        let setting = Self::parse_with_token(text, place, key, folder)?;
        match setting.holds_token() {
            true => Err(format!(
                "`${{caller.token}}` cannot stand in `{key}`: it differs from call to call, and only a header of an `http` tool \
                 or `auth` of [openapi.NAME] can hold it"
            )),
            false => Ok(setting),
        }
    }

    /// The same where the end user's token may stand too.
    ///
    /// # Errors
    /// Those of [`Setting::parse`].
    pub(super) fn parse_with_token(text: &str, place: Place, key: &str, folder: &Path) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if let Some(before) = rest[..at].strip_suffix('$') {
                literal.push_str(before);
                literal.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            literal.push_str(&rest[..at]);
            let (inside, after) =
                rest[at + 2..].split_once('}').ok_or_else(|| format!("in `{key}` a `${{` has no `}}`"))?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(parse_part(inside, key, folder)?);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts, place, key: key.to_owned() })
    }

    /// A setting that nobody wrote: a fixed text, the default of a key.
    pub(super) fn default_text(section: &'static str, key: &str, text: &str) -> Self {
        Self { parts: vec![Part::Text(text.to_owned())], place: Place::Default(section), key: key.to_owned() }
    }

    /// A setting that nobody wrote: a variable, the default of a key.
    pub(super) fn default_variable(section: &'static str, key: &str, name: &str) -> Self {
        let variable = Part::Variable { name: name.to_owned(), default: None };
        Self { parts: vec![variable], place: Place::Default(section), key: key.to_owned() }
    }

    /// The whole text.
    ///
    /// # Errors
    /// [`SettingError`] for the first variable that is not set or file that cannot be read.
    pub fn fill(&self, environment: &Environment) -> Result<SecretString, SettingError> {
        self.filled(environment, str::to_owned)
    }

    /// The settings around the end user's token; one, where it does not stand.
    pub(crate) fn around_token(&self) -> impl Iterator<Item = Self> {
        let texts = self.parts.split(|part| matches!(part, Part::CallerToken));
        texts.map(|parts| Self { parts: parts.to_vec(), ..self.clone() })
    }

    /// Whether the end user's token stands in it.
    pub(super) fn holds_token(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::CallerToken))
    }

    /// The whole text as a template in which `{` and `}` mean something, and are plain where they are doubled: what is filled
    /// in is text and nothing else.
    ///
    /// # Errors
    /// Those of [`Setting::fill`].
    pub(crate) fn fill_template(&self, environment: &Environment) -> Result<SecretString, SettingError> {
        self.filled(environment, plain)
    }

    /// Tells what is filled in, with the names that are shown instead; a file's name goes without its folder.
    pub(crate) fn tell(&self, environment: &Environment, secrets: &mut Secrets) {
        for part in &self.parts {
            match part {
                Part::Text(_) | Part::CallerToken => {}
                Part::Variable { name, .. } => {
                    if let Some(value) = environment.get(name).filter(|_| !INHERITED.contains(&name.as_str())) {
                        secrets.add(name, value);
                    }
                }
                Part::File(path) => {
                    if let Ok(value) = self.value(part, environment) {
                        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
                        secrets.add(&format!("file:{name}"), &value);
                    }
                }
            }
        }
    }

    fn filled(
        &self,
        environment: &Environment,
        spelled: impl Fn(&str) -> String,
    ) -> Result<SecretString, SettingError> {
        let mut filled = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.push_str(text),
                part => filled.push_str(&spelled(&self.value(part, environment)?)),
            }
        }
        Ok(filled.into())
    }

    fn value(&self, part: &Part, environment: &Environment) -> Result<String, SettingError> {
        match part {
            Part::Text(text) => Ok(text.clone()),
            // It is filled in for each call.
            Part::CallerToken => Ok(String::new()),
            Part::Variable { name, default } => {
                let value = environment.get(name).or(default.as_deref());
                let unset =
                    || SettingError::Unset { place: self.place.clone(), key: self.key.clone(), name: name.clone() };
                value.map(str::to_owned).ok_or_else(unset)
            }
            Part::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| SettingError::File {
                    place: self.place.clone(),
                    key: self.key.clone(),
                    path: path.clone(),
                    source,
                })?;
                // Every editor and `echo` end a file with a line break; no secret does.
                Ok(text.trim_end_matches(['\r', '\n']).to_owned())
            }
        }
    }

    /// Whether another one is written alike, wherever it stands.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.parts == other.parts
    }

    /// Where it stands in the configuration.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// A text such as `NAME=value` as the name and the rest; `None` where no `=` stands before what is filled in.
    pub(super) fn split_name(&self) -> Option<(String, Self)> {
        let [Part::Text(first), rest @ ..] = self.parts.as_slice() else { return None };
        let (name, value) = first.split_once('=')?;
        let value = Some(value).filter(|value| !value.is_empty()).map(|value| Part::Text(value.to_owned()));
        let parts = value.into_iter().chain(rest.iter().cloned()).collect();
        Some((name.to_owned(), Self { parts, ..self.clone() }))
    }

    /// The whole text, if nothing is filled in.
    pub(super) fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text with `stand_in` for everything that is filled in; for checking what its author wrote.
    pub(crate) fn with(&self, stand_in: &str) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Variable { .. } | Part::File(_) | Part::CallerToken => stand_in.to_owned(),
        };
        self.parts.iter().map(text).collect()
    }

    /// The whole text if no file is needed and every variable is known.
    /// What is filled in is spelled as in [`Setting::fill_template`].
    pub(super) fn known(&self, environment: &Environment) -> Option<String> {
        let text = |part: &Part| match part {
            Part::Text(text) => Some(text.clone()),
            Part::Variable { name, default } => environment.get(name).or(default.as_deref()).map(plain),
            Part::File(_) | Part::CallerToken => None,
        };
        self.parts.iter().map(text).collect()
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Setting({})", self.place)
    }
}

/// A value as a template spells it: braces in it are braces.
fn plain(value: &str) -> String {
    value.replace('{', "{{").replace('}', "}}")
}

fn parse_part(inside: &str, key: &str, folder: &Path) -> Result<Part, String> {
    if let Some(path) = inside.strip_prefix("file:") {
        if path.trim().is_empty() {
            return Err(format!("in `{key}`, `${{file:}}` needs a path, as in `${{file:/run/secrets/key}}`"));
        }
        return Ok(Part::File(folder.join(path)));
    }
    if inside == "caller.token" {
        return Ok(Part::CallerToken);
    }
    let (name, default) = match inside.split_once(":-") {
        Some((_, default)) if default.contains("${") => {
            return Err(format!("in `{key}`, the default of a `${{NAME:-default}}` cannot hold another `${{`"));
        }
        Some((name, default)) => (name, Some(default.to_owned())),
        None => (inside, None),
    };
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !name.starts_with(letter) || !name.chars().all(|c| letter(c) || c.is_ascii_digit()) {
        return Err(format!(
            "in `{key}`, `${{…}}` must be `${{NAME}}`, `${{NAME:-default}}` or `${{file:/path}}`; `$${{` is a plain `${{`"
        ));
    }
    Ok(Part::Variable { name: name.to_owned(), default })
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn parse(text: &str) -> Result<Setting, String> {
        Setting::parse(text, Place::Variable("X".to_owned()), "api_key", Path::new("/nowhere"))
    }

    #[track_caller]
    fn check(text: &str, filled: &str) {
        let environment = Environment::from_iter([("A", "1"), ("EMPTY", "")]);
        let answer = match parse(text).unwrap().fill(&environment) {
            Ok(secret) => secret.expose_secret().to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(answer, filled);
    }

    #[test]
    fn variables_are_filled_in() {
        check("plain", "plain");
        check("Bearer ${A}", "Bearer 1");
        check("${A}${A}-", "11-");
        check("${B:-x y}", "x y");
        check("${B:-}", "");
        check("${EMPTY:-x}", "x");
        check("${A:-x}", "1");
        check("$A $ {A}", "$A $ {A}");
        check("$${A} $$${A}", "${A} $${A}");
    }

    #[test]
    fn what_is_missing_is_named() {
        check("${B}", "X: `api_key` needs the environment variable `B`, which is not set");
        check("${EMPTY}", "X: `api_key` needs the environment variable `EMPTY`, which is not set");
        check("${file:key}", "X: `api_key` needs the file /nowhere/key, which cannot be read");
    }

    #[test]
    fn a_mistake_is_named_without_the_text_around_it() {
        for text in ["s3cret ${", "s3cret ${A", "s3cret ${1A}", "s3cret ${}", "s3cret ${a-b}", "s3cret ${caller.token}"]
        {
            let message = parse(text).unwrap_err();
            assert!(message.contains("`api_key`") && !message.contains("s3cret"), "{message}");
        }
        assert!(parse("${caller.token}").unwrap_err().contains("cannot stand in `api_key`"));
        let place = Place::Variable("X".to_owned());
        let setting = Setting::parse_with_token("a ${A} ${caller.token}", place, "h", Path::new("")).unwrap();
        let environment = Environment::from_iter([("A", "{1}")]);
        let texts: Vec<String> =
            setting.around_token().map(|text| text.fill(&environment).unwrap().expose_secret().to_owned()).collect();
        assert_eq!(texts, ["a {1} ", ""]);
        assert_eq!(parse("${A}{x}").unwrap().fill_template(&environment).unwrap().expose_secret(), "{{1}}{x}");
        assert!(!format!("{:?}", parse("s3cret").unwrap()).contains("s3cret"));
    }
}
