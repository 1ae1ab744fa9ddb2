//! A file that appears whole or not at all: made under another name, written to the disk, and then
//! given its own. This module must not know what is in it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::error::StoreError;

/// A file beside the place where it will stand, removed with all that SQLite puts beside it.
pub(super) struct Draft {
    path: PathBuf,
}

impl Draft {
    /// An empty one, for the owner only.
    pub(super) fn new(to: &Path) -> Result<Self, StoreError> {
        let path = with_end(to, &format!(".{}.draft", uuid::Uuid::now_v7().simple()));
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        made.map_err(|error| cannot(&path, "made", &error))?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in place; whether that was free, or `overwrite` is true.
    pub(super) fn publish(self, to: &Path, overwrite: bool) -> Result<bool, StoreError> {
        let sync = File::open(&self.path).and_then(|file| file.sync_all());
        sync.map_err(|error| cannot(&self.path, "written to the disk", &error))?;
        let named =
            if overwrite { fs::rename(&self.path, to) } else { fs::hard_link(&self.path, to) };
        match named {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            other => other.map_err(|error| cannot(to, "put in place", &error))?,
        }
        let folder = to.parent().unwrap_or(to);
        let sync = File::open(folder).and_then(|folder| folder.sync_all());
        sync.map_err(|error| cannot(folder, "written to the disk", &error))?;
        Ok(true)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        for end in ["", "-journal", "-wal", "-shm"] {
            // Most of these are not there; what cannot be removed stays, under a name that says so.
            let _ = fs::remove_file(with_end(&self.path, end));
        }
    }
}

/// A path with something behind its name.
pub(super) fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// The error of a file.
pub(super) fn cannot(path: &Path, done: &str, error: &io::Error) -> StoreError {
    StoreError::Unavailable {
        why: format!(
            "{} cannot be {done}: {error}; look at its disk, its folder and who owns it",
            path.display()
        ),
    }
}
