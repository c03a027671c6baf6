//! Where the configuration is, when nobody said.
//!
//! From the folder that the program stands in. To [`Config::find`](super::Config::find).
//!
//! What is in the file is not looked at here.

use std::path::{Path, PathBuf};

/// What the file is called.
const NAME: &str = "fanout.toml";

/// Why the file that was found may not be used unasked.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// It belongs to another user, whose tools would run with this user's secrets.
    #[error("{} belongs to another user (uid {owner}, not {user}); `--config {}` takes it all the same", path.display(), path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// It cannot be looked at.
    #[error("{} cannot be looked at", path.display())]
    Look {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// The nearest `fanout.toml`, in `folder` or above it; also where that is a folder, so that somebody hears of it.
///
/// # Errors
/// [`FindError`] when the nearest one may not be used; it does not go on looking, because what it would find is not what
/// this folder's people see.
pub(super) fn find(folder: &Path) -> Result<Option<PathBuf>, FindError> {
    for folder in folder.ancestors() {
        let path = folder.join(NAME);
        match std::fs::metadata(&path) {
            Ok(found) if found.is_file() || found.is_dir() => {
                check_owner(&path, &found)?;
                return Ok(Some(path));
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(FindError::Look { path, source }),
        }
    }
    Ok(None)
}

#[cfg(unix)]
fn check_owner(path: &Path, found: &std::fs::Metadata) -> Result<(), FindError> {
    use std::os::unix::fs::MetadataExt;

    let (owner, user) = (found.uid(), rustix::process::geteuid().as_raw());
    if owner == user { Ok(()) } else { Err(FindError::Owner { path: path.to_owned(), owner, user }) }
}

#[cfg(not(unix))]
fn check_owner(_: &Path, _: &std::fs::Metadata) -> Result<(), FindError> {
    Ok(())
}
