//! The file under SQLite: made readable for its owner only, in a folder that others cannot write
//! to, never through a symbolic link at its end. This module must not know what is in it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

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
    how.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = match how.open(path) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            let why = format!("{} is a symbolic link; name the file itself", path.display());
            return Err(StoreError::Invalid { why });
        }
        Err(error) => return Err(cannot(path, "opened", &error)),
    };
    must_be_a_store(&file, path)?;
    let about = file.metadata().map_err(|error| cannot(path, "looked at", &error))?;
    if about.mode() & 0o777 != MODE {
        file.set_permissions(Permissions::from_mode(MODE))
            .map_err(|error| cannot(path, "made private", &error))?;
    }
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
fn must_be_a_store(file: &File, path: &Path) -> Result<(), StoreError> {
    let about = file.metadata().map_err(|error| cannot(path, "looked at", &error))?;
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
