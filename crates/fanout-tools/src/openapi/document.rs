//! The text of a document, and what its references point to.
//!
//! From a file and the files that it names. To everything else here, which reads values and follows references.
//!
//! A document may be somebody else's: it reads no file outside the folder that it lies in, and nothing is downloaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::http::DownloadBounds;

/// A larger file is hardly a description of an API; GitHub's, among the largest, has 13 MB.
const FILE_MAX: u64 = 64 * 1024 * 1024;

/// What a document that is somewhere else may take to download: as much as a file may have, and a minute.
pub const DOWNLOAD: DownloadBounds = DownloadBounds { time: Duration::from_secs(60), bytes: FILE_MAX };

/// Documents in many files have some hundred of them.
const FILES_MAX: usize = 1_000;

/// A reference to a reference is followed so often; more is a circle.
const HOPS_MAX: usize = 32;

/// A document, with the files that it refers to.
#[derive(Debug)]
pub struct Document {
    /// The first is the document itself.
    files: Vec<File>,
    /// Version 3.0, whose schemas are not quite JSON Schema.
    pub(super) is_3_0: bool,
}

#[derive(Debug)]
struct File {
    folder: PathBuf,
    value: Value,
    /// What its references call other files.
    named: BTreeMap<String, usize>,
}

/// A value, and the file that its references are read in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot<'d> {
    pub(super) file: usize,
    pub(super) value: &'d Value,
}

/// Why a document cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// A file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file that no document would be.
    #[error("{} has {bytes} bytes, and a document may have {FILE_MAX}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// More files than a document has.
    #[error("the document refers to more than {FILES_MAX} files")]
    TooMany,
    /// Neither JSON nor YAML.
    #[error("{} is neither JSON nor YAML: {detail}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        detail: String,
    },
    /// A file elsewhere.
    #[error("the document refers to {reference}, which is outside of the folder that the document lies in")]
    Outside {
        /// The reference.
        reference: String,
    },
    /// The version before OpenAPI.
    #[error(
        "{} is Swagger {version}; convert it to OpenAPI 3 once: npx swagger2openapi {} --outfile openapi.json",
        path.display(), path.display()
    )]
    Swagger {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: String,
    },
    /// Something else, or a version to come.
    #[error("{} is not an OpenAPI document of version 3.0 or 3.1: its `openapi` is {found}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
}

impl Document {
    /// Reads a document and every file that it refers to.
    ///
    /// # Errors
    /// [`DocumentError`] names the file and what is wrong with it.
    pub fn load(path: &Path) -> Result<Self, DocumentError> {
        let cannot = |source| DocumentError::Read { path: path.to_owned(), source };
        let place = path.canonicalize().map_err(cannot)?;
        let within = place.parent().unwrap_or(Path::new("/")).to_owned();
        let value = read(&place, path)?;
        let is_3_0 = check_version(path, &value)?;
        let mut files = vec![File { folder: within.clone(), value, named: BTreeMap::new() }];
        let mut known = BTreeMap::from([(place, 0)]);
        let mut at = 0;
        while at < files.len() {
            let mut names = Vec::new();
            file_references(&files[at].value, &mut names);
            for name in names {
                if files[at].named.contains_key(&name) {
                    continue;
                }
                let named = files[at].folder.join(percent_decode_str(&name).decode_utf8_lossy().as_ref());
                let cannot = |source| DocumentError::Read { path: named.clone(), source };
                let place = named.canonicalize().map_err(cannot)?;
                if !place.starts_with(&within) {
                    return Err(DocumentError::Outside { reference: name });
                }
                let number = match known.get(&place) {
                    Some(number) => *number,
                    None if files.len() == FILES_MAX => return Err(DocumentError::TooMany),
                    None => {
                        let folder = place.parent().unwrap_or(&within).to_owned();
                        files.push(File { folder, value: read(&place, &named)?, named: BTreeMap::new() });
                        known.insert(place, files.len() - 1);
                        files.len() - 1
                    }
                };
                files[at].named.insert(name, number);
            }
            at += 1;
        }
        Ok(Self { files, is_3_0 })
    }

    pub(super) fn root(&self) -> Spot<'_> {
        Spot { file: 0, value: &self.files[0].value }
    }

    /// What a reference points to, however many references are on the way; `None` where there is nothing, where it goes in
    /// circles, or where it would have to be downloaded.
    pub(super) fn resolved<'d>(&'d self, spot: Spot<'d>) -> Option<Spot<'d>> {
        let mut spot = spot;
        for _ in 0..HOPS_MAX {
            match spot.value.get("$ref").and_then(Value::as_str) {
                None => return Some(spot),
                Some(reference) => spot = self.target(spot.file, reference)?,
            }
        }
        None
    }

    fn target(&self, file: usize, reference: &str) -> Option<Spot<'_>> {
        let (name, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let file = if name.is_empty() { file } else { *self.files[file].named.get(name)? };
        let pointer = percent_decode_str(fragment).decode_utf8_lossy();
        self.files[file].value.pointer(&pointer).map(|value| Spot { file, value })
    }
}

impl<'d> Spot<'d> {
    pub(super) fn get(self, key: &str) -> Option<Self> {
        self.value.get(key).map(|value| self.at(value))
    }

    /// A value of the same file.
    pub(super) fn at(self, value: &'d Value) -> Self {
        Self { file: self.file, value }
    }

    pub(super) fn text(self, key: &str) -> Option<&'d str> {
        self.value.get(key)?.as_str()
    }

    pub(super) fn flag(self, key: &str) -> bool {
        self.value.get(key) == Some(&Value::Bool(true))
    }

    pub(super) fn entries(self) -> impl Iterator<Item = (&'d String, Self)> {
        self.value.as_object().into_iter().flatten().map(move |(key, value)| (key, self.at(value)))
    }

    pub(super) fn elements(self) -> impl Iterator<Item = Self> {
        self.value.as_array().into_iter().flatten().map(move |value| self.at(value))
    }
}

fn read(place: &Path, named: &Path) -> Result<Value, DocumentError> {
    let cannot = |source| DocumentError::Read { path: named.to_owned(), source };
    let bytes = std::fs::metadata(place).map_err(cannot)?.len();
    if bytes > FILE_MAX {
        return Err(DocumentError::TooLarge { path: named.to_owned(), bytes });
    }
    let text = std::fs::read_to_string(place).map_err(cannot)?;
    let text = text.trim_start_matches('\u{FEFF}');
    let wrong = |detail: String| DocumentError::Syntax { path: named.to_owned(), detail };
    // What begins like JSON is told what is wrong with it as JSON, though much of it would be YAML too.
    if text.trim_start().starts_with(['{', '[']) {
        serde_json::from_str(text).map_err(|error| wrong(error.to_string()))
    } else {
        serde_norway::from_str(text).map_err(|error| wrong(error.to_string()))
    }
}

/// Whether it is version 3.0.
fn check_version(path: &Path, value: &Value) -> Result<bool, DocumentError> {
    // Without quotes, YAML takes a version for a number.
    let said = |key| value.get(key).map(|said| said.as_str().map_or_else(|| said.to_string(), str::to_owned));
    if let Some(version) = said("swagger") {
        return Err(DocumentError::Swagger { path: path.to_owned(), version });
    }
    let version = said("openapi");
    let is =
        |number: &str| version.as_deref().is_some_and(|said| said == number || said.starts_with(&format!("{number}.")));
    match (is("3.0"), is("3.1")) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        _ => {
            let found = version.map_or_else(|| "absent".to_owned(), |version| format!("`{version}`"));
            Err(DocumentError::Version { path: path.to_owned(), found })
        }
    }
}

/// What the references in a value call other files.
fn file_references(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let name = reference.split('#').next().unwrap_or_default();
                if !name.is_empty() && !name.contains("://") {
                    names.push(name.to_owned());
                }
            }
            // An example may show a reference; it is none.
            let read = fields.iter().filter(|(key, _)| *key != "example" && *key != "examples");
            read.for_each(|(_, value)| file_references(value, names));
        }
        Value::Array(elements) => elements.iter().for_each(|value| file_references(value, names)),
        _ => {}
    }
}
