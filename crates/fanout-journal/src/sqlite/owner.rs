//! Which process a run belongs to, and whether that one lives.
//!
//! Each process that opens the journal holds a lock on a file of its own beside it, for as long as it lives: the system lets
//! go of it when the process ends, however it ends, and not before. No clock is asked, so a process that was only
//! stopped for a while still has its runs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

pub(super) struct Owner {
    name: String,
    folder: PathBuf,
    /// Locked while this lives.
    _file: File,
}

impl Owner {
    /// A new owner beside the journal at this path.
    pub(super) fn new(journal: &Path) -> io::Result<Self> {
        let mut folder = journal.file_name().unwrap_or_default().to_owned();
        folder.push(".owners");
        let folder = journal.with_file_name(folder);
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&folder)?;
        let random = || RandomState::new().hash_one(std::process::id());
        let name = format!("{:016x}{:016x}", random(), random());
        let file = options(true).open(folder.join(&name))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::Error(error) => error,
            TryLockError::WouldBlock => io::Error::other("its new lock is taken"),
        })?;
        Ok(Self { name, folder, _file: file })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the process behind an owner is gone. One that cannot be told is taken to live.
    pub(super) fn is_gone(&self, other: &str) -> bool {
        if other == self.name {
            return false;
        }
        match options(false).open(self.folder.join(other)) {
            Ok(file) => file.try_lock().is_ok(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Takes away what is left of an owner that is gone and has no runs any more.
    pub(super) fn forget(&self, gone: &str) {
        // A file that stays is tidied by whoever comes next.
        let _ = fs::remove_file(self.folder.join(gone));
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.folder.join(&self.name));
    }
}

fn options(create: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(create);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
