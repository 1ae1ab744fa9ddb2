//! The file under SQLite: made readable for its owner only, in a folder that others cannot write
//! to, never through a symbolic link at its end.
//!
//! Nothing here may open the file for reading or writing. Whoever closes a descriptor of a file
//! gives up all locks that its process has on it (`fcntl`, advisory record locks), those of
//! SQLite's connections too: then any other program that looks into the store believes to be the
//! last one, and removes the log with everything that was written and not moved to the file. What
//! is opened as a path only has no part in that. This module must not know what is in it.

use std::fs::{self, OpenOptions, Permissions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::draft::cannot;
use super::error::StoreError;

/// Readable and writable for the owner.
const MODE: u32 = 0o600;

/// Which file it is, under whatever name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Whether this file lies at `path`.
    pub(super) fn is_at(self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|about| self == Self::of(&about))
    }

    fn of(about: &fs::Metadata) -> Self {
        Self { device: about.dev(), inode: about.ino() }
    }
}

/// Checks the file and makes it private; says which one it is.
pub(super) fn prepare(path: &Path) -> Result<Identity, StoreError> {
    let mut how = OpenOptions::new();
    how.read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW);
    let place = how.open(path).map_err(|error| cannot(path, "opened", &error))?;
    let about = place.metadata().map_err(|error| cannot(path, "looked at", &error))?;
    must_be_a_store(&about, path)?;
    // The file that was looked at, whatever lies under its name by now.
    let same = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
    if about.mode() & 0o777 != MODE {
        fs::set_permissions(&same, Permissions::from_mode(MODE))
            .map_err(|error| cannot(path, "made private", &error))?;
    }
    let both = Access::READ_OK | Access::WRITE_OK;
    access(&same, both).map_err(|error| cannot(path, "opened", &error.into()))?;
    Ok(Identity::of(&about))
}

/// The path with its folder as it is without symbolic links, once the folder is fit for a store.
pub(super) fn checked_place(path: &Path) -> Result<PathBuf, StoreError> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(StoreError::Invalid { why: format!("{} is no file", path.display()) });
    };
    let folder = fs::canonicalize(folder).map_err(|error| StoreError::Unavailable {
        why: format!("the folder {}: {error}; make it, for the gateway only", folder.display()),
    })?;
    let about = fs::metadata(&folder).map_err(|error| cannot(&folder, "looked at", &error))?;
    let is_sticky = about.mode() & 0o1000 != 0;
    if about.mode() & 0o022 != 0 && !is_sticky {
        let why = format!(
            "others may write to the folder {0} and could replace the store; run: chmod go-w {0}",
            folder.display()
        );
        return Err(StoreError::Invalid { why });
    }
    Ok(folder.join(name))
}

/// A file of no bytes was a store once, or will never be one: this program leaves none behind.
fn must_be_a_store(about: &fs::Metadata, path: &Path) -> Result<(), StoreError> {
    if about.is_symlink() {
        let why = format!("{} is a symbolic link; name the file itself", path.display());
        return Err(StoreError::Invalid { why });
    }
    if !about.is_file() {
        return Err(StoreError::Invalid { why: format!("{} is no file", path.display()) });
    }
    if about.len() == 0 {
        let why = format!(
            "{0} is empty: it was cut off, or its making was. Restore the last backup, or remove {0} \
             to begin anew",
            path.display()
        );
        return Err(StoreError::Corrupt { why });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::scratch::Scratch;
    use crate::store::sqlite::{Sqlite, Use};

    /// Locks of this process on a file, as the kernel tells them.
    fn locks(path: &Path) -> usize {
        let inode = fs::metadata(path).unwrap().ino().to_string();
        let process = std::process::id().to_string();
        let lines = fs::read_to_string("/proc/locks").unwrap();
        let ours = |line: &&str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.contains(&process.as_str())
                && words.iter().any(|word| word.rsplit(':').next() == Some(inode.as_str()))
        };
        lines.lines().filter(ours).count()
    }

    #[test]
    fn a_connection_more_takes_no_lock_from_those_that_are_there() {
        let folder = Scratch::new("sqlite_locks");
        let path = folder.path().join("ringway.db");
        let open = || {
            let soon = Instant::now() + Duration::from_secs(10);
            let how = Use { durable: false, bytes_max: None, read_only: false, may_make: true };
            Sqlite::open(&path, how, soon).unwrap()
        };
        let mut first = open();
        // The first look into the file locks it, for as long as the connection lasts.
        first.check(false).unwrap();
        let held = locks(&path);
        assert!(held > 0, "SQLite holds none: {}", fs::read_to_string("/proc/locks").unwrap());
        let second = open();
        prepare(&path).unwrap();
        assert!(locks(&path) >= held, "a look at the file gave SQLite's locks up");
        drop((first, second));
    }
}
