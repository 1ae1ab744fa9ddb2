//! Copies of an SQLite store: made while it runs, and put back while it does not.
//!
//! A copy is made under another name, checked, made durable and then given its name, so that a file
//! with that name is always whole. This module must not know threads.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};

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
/// [`StoreError::Invalid`] if something is at `to` and `overwrite` is false, and those of the
/// files.
pub fn backup(from: &Path, to: &Path, overwrite: bool) -> Result<(), StoreError> {
    let to = sqlite_file::checked_place(to)?;
    if !overwrite && to.symlink_metadata().is_ok() {
        return Err(is_there(&to));
    }
    let draft = Draft::new(&to)?;
    copy(from, draft.path())?;
    if draft.publish(&to, overwrite)? { Ok(()) } else { Err(is_there(&to)) }
}

/// Puts a backup in place of the store in `to`, which must not be running. What was there is kept
/// beside it, as `….replaced`.
///
/// # Errors
/// [`StoreError::Corrupt`] and [`StoreError::Newer`] for a backup that is of no use,
/// [`StoreError::Busy`] if the store runs, and those of the files; nothing is replaced then.
pub fn restore(from: &Path, to: &Path) -> Result<(), StoreError> {
    let to = sqlite_file::checked_place(to)?;
    let draft = Draft::new(&to)?;
    // Through a copy, which is checked: so the backup itself stays as it is, whatever happens.
    fs::copy(from, draft.path()).map_err(|error| cannot(from, "copied", &error))?;
    check(draft.path(), from)?;
    if to.symlink_metadata().is_ok() {
        must_rest(&to)?;
        for end in ["", "-wal", "-shm"] {
            let (old, kept) = (with_end(&to, end), with_end(&to, &format!(".replaced{end}")));
            let moved = fs::rename(&old, &kept);
            match moved {
                Err(error) if end.is_empty() => return Err(cannot(&old, "moved away", &error)),
                // There need not be one.
                Ok(()) | Err(_) => {}
            }
        }
    }
    draft.publish(&to, true).map(|_| ())
}

fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let (shown, target) = (from.display().to_string(), to.display().to_string());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = |path, flags| Connection::open_with_flags(path, flags);
    let source = open(from, flags).map_err(|error| translate(&error, &shown))?;
    source.busy_timeout(PATIENCE).map_err(|error| translate(&error, &shown))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = open(to, flags).map_err(|error| translate(&error, &target))?;
    let backup = Backup::new(&source, &mut copy).map_err(|error| translate(&error, &target))?;
    // All in one step: one state of the store, and no beginning anew when somebody writes
    // meanwhile.
    backup.step(-1).map_err(|error| translate(&error, &shown))?;
    drop(backup);
    // One file, without a log beside it.
    let finish = copy.execute_batch("PRAGMA journal_mode = DELETE");
    finish.map_err(|error| translate(&error, &target))?;
    let answer = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match answer {
        Ok(word) if word == "ok" => Ok(()),
        Ok(what) => Err(damaged(&shown, &format!("the copy of it is not whole: {what}"))),
        Err(error) => Err(translate(&error, &target)),
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
