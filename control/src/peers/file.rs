//! Changes a configuration file without losing it: one writer at a time, whole or not at all.
//!
//! A lock beside the file keeps two editors apart (the file itself is replaced, so it cannot carry
//! the lock). The new text is written aside, made durable and renamed into place. Owner and group
//! stay as they were, so that a gateway without root can still read what root edited; nobody else
//! can, as preshared keys may be inside.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::keys;

/// A configuration file that nobody else edits meanwhile.
#[derive(Debug)]
pub struct Locked {
    path: PathBuf,
    text: Zeroizing<String>,
    /// Holds the lock until it is dropped.
    _lock: fs::File,
}

impl Locked {
    /// Takes the lock, waiting for another editor to finish, and reads the file.
    ///
    /// # Errors
    /// A file that cannot be read, a folder that cannot be written.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        // A link stays a link: what it points at is edited.
        let path = fs::canonicalize(path)
            .map_err(|error| Failure::file("read the configuration", path, &error))?;
        let lock_path = lock_path(&path);
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path);
        let lock = lock.and_then(|lock| lock.lock().map(|()| lock));
        let lock =
            lock.map_err(|error| Failure::file("lock the configuration by", &lock_path, &error))?;
        let text = fs::read_to_string(&path)
            .map_err(|error| Failure::file("read the configuration", &path, &error))?;
        Ok(Self { path, text: Zeroizing::new(text), _lock: lock })
    }

    /// The file as it is.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where it is, links resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file and gives the lock back.
    ///
    /// # Errors
    /// A folder that cannot be written; the file is as before then.
    pub fn replace(self, text: &str) -> Result<(), Failure> {
        let path = self.path.clone();
        self.try_replace(text)
            .map_err(|error| Failure::file("write the configuration", &path, &error))
    }

    /// The same for whoever tells a full disk from other errors.
    ///
    /// # Errors
    /// What the system said; the file is as before then.
    pub fn try_replace(self, text: &str) -> io::Result<()> {
        replace(&self.path, text.as_bytes())
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let before = fs::metadata(path)?;
    let aside = keys::aside(path);
    keys::write_aside(&aside, bytes)?;
    let placed = adopt(&aside, &before).and_then(|()| fs::rename(&aside, path));
    if placed.is_err() {
        // The first error is the one to report; what is left aside is removed as far as possible.
        let _ = fs::remove_file(&aside);
    }
    placed?;
    keys::sync_folder(path)
}

/// Gives the new file the owner of the old one. Its group may read it only if that was so on
/// purpose, that is without everybody else.
fn adopt(aside: &Path, before: &fs::Metadata) -> io::Result<()> {
    let made = fs::metadata(aside)?;
    if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
        chown(aside, Some(before.uid()), Some(before.gid()))?;
    }
    let group = if before.mode() & 0o007 == 0 { before.mode() & 0o060 } else { 0 };
    let mode = 0o600 | group;
    fs::set_permissions(aside, fs::Permissions::from_mode(mode))
}

fn lock_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.lock"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_replaced_file_is_whole_and_for_its_owner_only() {
        let folder = Scratch::new("replace");
        let path = folder.path().join("a.toml");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let file = Locked::open(&path).unwrap();
        assert_eq!(file.text(), "old");
        file.replace("new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 2, "file and lock: {left:?}");
    }

    #[test]
    fn a_group_that_was_let_in_on_purpose_stays_in() {
        let folder = Scratch::new("replace_group");
        let path = folder.path().join("a.toml");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        Locked::open(&path).unwrap().replace("new").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    }

    #[test]
    fn a_link_to_the_configuration_stays_a_link() {
        let folder = Scratch::new("replace_link");
        let (path, link) = (folder.path().join("a.toml"), folder.path().join("link.toml"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        Locked::open(&link).unwrap().replace("new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn editors_at_the_same_time_lose_no_change() {
        let folder = Scratch::new("replace_race");
        let path = folder.path().join("a.toml");
        fs::write(&path, "").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..8 {
                        let file = Locked::open(&path).unwrap();
                        let text = format!("{}x", file.text());
                        file.replace(&text).unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read_to_string(&path).unwrap().len(), 32);
    }
}
