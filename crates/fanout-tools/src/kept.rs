//! Files that are kept beside a configuration: private, and whole or not at all.
//!
//! From whoever has something to keep (tokens, keys, downloaded documents). To the disk. What they hold is not known here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Writes a file that only its owner can read, in the place of what is there: readers see the one or the other, and after
/// a failure the old one.
///
/// # Errors
/// What the system says; nothing is left of what was written.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Two processes may write at the same time.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let next = path.with_file_name(name);
    let written = private(&next).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&next, path)
    });
    if written.is_err() {
        // It may never have been made.
        let _ = fs::remove_file(&next);
    }
    written
}

/// Opens a file that only its owner can read, empty.
///
/// # Errors
/// What the system says.
pub fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes the folder that a file is to stand in, as one that no repository takes.
///
/// # Errors
/// What the system says.
pub fn make_ignored_folder(of: &Path) -> io::Result<()> {
    let Some(folder) = of.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    fs::create_dir_all(folder)?;
    let ignore = folder.join(".gitignore");
    if ignore.exists() { Ok(()) } else { fs::write(ignore, "*\n") }
}
