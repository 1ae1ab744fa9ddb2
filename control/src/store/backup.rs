//! Copies of an SQLite store: made while it runs, and put back while it does not.
//!
//! A copy is made under another name, checked, made durable and then given its name, so that a file
//! with that name is always whole. This module must not know threads.

use std::fs::{self, Metadata};
use std::io;
use std::iter;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::backup::Backup;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::draft::{Draft, cannot, with_end};
use super::engine::Engine as _;
use super::error::StoreError;
use super::migrations;
use super::sqlite::{Sqlite, Use, damaged, translate};
use super::sqlite_file;

/// Longest wait for locks.
const PATIENCE: Duration = Duration::from_secs(10);

/// Copies the store in `from`, which may be running, to `to`.
///
/// # Errors
/// [`StoreError::Invalid`] if something is at `to` and `overwrite` is false, or nothing can be
/// written there; and those of the store.
pub fn backup(from: &Path, to: &Path, overwrite: bool) -> Result<(), StoreError> {
    let to = sqlite_file::checked_place(to).map_err(of_the_place)?;
    if !overwrite && to.symlink_metadata().is_ok() {
        return Err(is_there(&to));
    }
    let draft = Draft::new(&to).map_err(of_the_place)?;
    copy(from, draft.path())?;
    let is_free = draft.publish(&to, overwrite).map_err(of_the_place)?;
    if is_free { Ok(()) } else { Err(is_there(&to)) }
}

/// What is wrong where a copy is to lie is no fault of the store, which goes on.
fn of_the_place(error: StoreError) -> StoreError {
    if let StoreError::Unavailable { why } | StoreError::Full { why } = error {
        return StoreError::Invalid { why };
    }
    error
}

/// Puts a backup in place of the store in `to`, which must not be running. What was there is kept
/// beside it, under a name that is given back. The store belongs to whom the one before belonged,
/// or the folder if there was none, so that a gateway that does not run as root can open what root
/// put there.
///
/// # Errors
/// [`StoreError::Corrupt`] and [`StoreError::Newer`] for a backup that is of no use,
/// [`StoreError::Busy`] if the store runs, and those of the files; nothing is replaced then.
pub fn restore(from: &Path, to: &Path) -> Result<Option<PathBuf>, StoreError> {
    let to = sqlite_file::checked_place(to)?;
    let draft = Draft::new(&to)?;
    // Through a copy, which is checked: so the backup itself stays as it is, whatever happens.
    fs::copy(from, draft.path()).map_err(|error| cannot(from, "copied", &error))?;
    check(draft.path(), from)?;
    let there = to.symlink_metadata();
    if there.is_ok() {
        must_rest(&to)?;
    }
    belong_like(draft.path(), &there, &to)?;
    // Also without a store: the log of one that is gone would be written over the backup.
    let kept = free_name(&to);
    let moved = set_aside(&to, &kept)?;
    if let Err(error) = draft.publish(&to, true) {
        put_back(&to, &kept, &moved);
        return Err(error);
    }
    Ok(moved.contains(&"").then_some(kept))
}

/// What a store consists of. Its log goes first: the file alone is a store too, the log is not.
const PARTS: [&str; 3] = ["-wal", "-shm", ""];

/// A name beside the store that nothing has yet.
fn free_name(to: &Path) -> PathBuf {
    let is_free =
        |name: &PathBuf| PARTS.iter().all(|end| with_end(name, end).symlink_metadata().is_err());
    let numbered = (2..u32::MAX).map(|number| with_end(to, &format!(".replaced.{number}")));
    let mut names = iter::once(with_end(to, ".replaced")).chain(numbered);
    names.find(is_free).unwrap_or_else(|| with_end(to, ".replaced"))
}

/// Moves what is there to another name, all or nothing; says which parts there were.
fn set_aside(to: &Path, kept: &Path) -> Result<Vec<&'static str>, StoreError> {
    let mut moved = Vec::new();
    for end in PARTS {
        let old = with_end(to, end);
        match fs::rename(&old, with_end(kept, end)) {
            Ok(()) => moved.push(end),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                put_back(to, kept, &moved);
                return Err(cannot(&old, "moved away", &error));
            }
        }
    }
    Ok(moved)
}

fn put_back(to: &Path, kept: &Path, moved: &[&str]) {
    for end in moved.iter().rev() {
        // What could be moved a moment ago can be moved back, or is where the error says.
        let _ = fs::rename(with_end(kept, end), with_end(to, end));
    }
}

/// Gives the draft the owner of the store that was there, or of the folder.
fn belong_like(draft: &Path, there: &io::Result<Metadata>, to: &Path) -> Result<(), StoreError> {
    let folder;
    let like = match there {
        Ok(store) => store,
        Err(_) => {
            let path = to.parent().unwrap_or(to);
            folder = fs::metadata(path).map_err(|error| cannot(path, "looked at", &error))?;
            &folder
        }
    };
    let own = fs::metadata(draft).map_err(|error| cannot(draft, "looked at", &error))?;
    if (own.uid(), own.gid()) == (like.uid(), like.gid()) {
        return Ok(());
    }
    let given = chown(draft, Some(like.uid()), Some(like.gid()));
    given.map_err(|error| cannot(draft, "given to the owner of the store", &error))
}

fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let (shown, target) = (from.display().to_string(), to.display().to_string());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = |path, flags| Connection::open_with_flags(path, flags);
    let source = open(from, flags).map_err(|error| translate(&error, &shown))?;
    source.busy_timeout(PATIENCE).map_err(|error| translate(&error, &shown))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let of_target = |error| of_the_place(translate(&error, &target));
    let mut copy = open(to, flags).map_err(of_target)?;
    let backup = Backup::new(&source, &mut copy).map_err(of_target)?;
    // All in one step: one state of the store, and no beginning anew when somebody writes
    // meanwhile.
    backup.step(-1).map_err(|error| match error.sqlite_error_code() {
        // Reading needs no room.
        Some(ErrorCode::DiskFull) => of_target(error),
        Some(_) | None => translate(&error, &shown),
    })?;
    drop(backup);
    // One file, without a log beside it.
    let finish = copy.execute_batch("PRAGMA journal_mode = DELETE");
    finish.map_err(of_target)?;
    let answer = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match answer {
        Ok(word) if word == "ok" => Ok(()),
        Ok(what) => Err(damaged(&shown, &format!("the copy of it is not whole: {what}"))),
        Err(error) => Err(of_target(error)),
    }
}

/// Whether the copy of a backup may become the store.
fn check(path: &Path, backup: &Path) -> Result<(), StoreError> {
    let how = Use { durable: true, bytes_max: None, read_only: false, may_make: false };
    // The copy has a name of its own that says nothing to anybody.
    let name = |error| {
        let StoreError::Corrupt { why } = error else { return error };
        let why = why.split(". Stop").next().unwrap_or_default();
        let why = why.replace(&path.display().to_string(), &backup.display().to_string());
        StoreError::Corrupt { why: format!("{why}. This backup is of no use: take another one") }
    };
    let mut engine = Sqlite::open(path, how, Instant::now() + PATIENCE).map_err(name)?;
    engine.check(true).map_err(name)?;
    let (found, known) = (migrations::version(&mut engine)?, migrations::known());
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    if found == 0 {
        let why = format!("{} is no backup of a store: it has no records", backup.display());
        return Err(StoreError::Invalid { why });
    }
    engine.batch("PRAGMA journal_mode = DELETE").map_err(name)
}

/// Leaving the write-ahead log needs the file for oneself, so it fails while a gateway runs. A
/// store that is too damaged for this is replaced all the same.
fn must_rest(path: &Path) -> Result<(), StoreError> {
    let shown = path.display().to_string();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let leave = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get::<_, String>(0))
    };
    match leave().map_err(|error| translate(&error, &shown)) {
        Err(StoreError::Busy { .. }) => Err(StoreError::Busy {
            why: format!("{shown} is in use; stop the gateway before restoring a backup"),
        }),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn is_there(path: &Path) -> StoreError {
    let why = format!("{} exists; name another file, or ask to overwrite it", path.display());
    StoreError::Invalid { why }
}
