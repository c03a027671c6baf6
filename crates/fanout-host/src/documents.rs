//! OpenAPI documents that a configuration names by address: downloaded once, and kept beside it.
//!
//! From the text of a configuration, before it is read. To `.fanout/openapi/`, where [`config`](crate::config) finds them: what
//! tools there are then depends on files alone, and stays as it was reviewed. Who deletes a file has it downloaded anew.

use std::io;
use std::path::{Path, PathBuf};

use fanout_tools::http::{DownloadError, HttpClient, download};
use fanout_tools::kept::{make_ignored_folder, write_private};
use fanout_tools::naming::hashed_name;
use fanout_tools::openapi::DOWNLOAD;
use toml::de::{DeTable, DeValue};

use crate::config::{Config, ConfigError};

/// Why a document is not there.
#[derive(Debug, thiserror::Error)]
pub enum DocumentsError {
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It cannot be downloaded.
    #[error("{}: the document of [openapi.{name}] cannot be downloaded", file.display())]
    Download {
        /// The configuration.
        file: PathBuf,
        /// The section.
        name: String,
        /// What happened.
        #[source]
        source: DownloadError,
    },
    /// It cannot be kept.
    #[error("{} cannot be written", path.display())]
    Write {
        /// Where it was to be kept.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// A document that was downloaded just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downloaded {
    /// The section's name.
    pub name: String,
    /// Where it is kept.
    pub path: PathBuf,
}

/// Where the document of this address is kept for a configuration in `folder`. Another address is another file.
pub fn kept(folder: &Path, name: &str, address: &str) -> PathBuf {
    folder.join(".fanout/openapi").join(hashed_name(name, address).as_str())
}

/// Whether `spec` is an address rather than a file.
pub(crate) fn is_address(spec: &str) -> bool {
    spec.contains("://")
}

/// Downloads the documents that a configuration names by address and that are not kept yet, one after another.
///
/// # Errors
/// [`DocumentsError`] for the first that cannot be had; those before it are kept.
pub async fn fetch(file: &Path) -> Result<Vec<Downloaded>, DocumentsError> {
    let text = Config::text(file)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let client = HttpClient::new();
    let mut downloaded = Vec::new();
    for (name, address) in addresses(&text) {
        let path = kept(folder, &name, &address);
        if path.exists() {
            continue;
        }
        let failed = |source| DocumentsError::Download { file: file.to_owned(), name: name.clone(), source };
        let bytes = download(&client, &address, DOWNLOAD).await.map_err(failed)?;
        make_ignored_folder(&path)
            .and_then(|()| write_private(&path, &bytes))
            .map_err(|source| DocumentsError::Write { path: path.clone(), source })?;
        downloaded.push(Downloaded { name, path });
    }
    Ok(downloaded)
}

/// The sections and their addresses. What is wrong with the text is for its reader to say.
fn addresses(text: &str) -> Vec<(String, String)> {
    let (table, _) = DeTable::parse_recoverable(text);
    let Some(DeValue::Table(sections)) = table.get_ref().get("openapi").map(toml::Spanned::get_ref) else {
        return Vec::new();
    };
    let address = |section: &DeValue<'_>| match section.as_table()?.get("spec")?.get_ref() {
        DeValue::String(spec) if is_address(spec) => Some(spec.to_string()),
        _ => None,
    };
    sections
        .iter()
        .filter_map(|(name, section)| Some((name.get_ref().to_string(), address(section.get_ref())?)))
        .collect()
}
