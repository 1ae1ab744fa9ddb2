//! SQLite: the store of one gateway, in a file.
//!
//! A write-ahead log, so that readers do not wait for the writer; every change on the disk before
//! it counts as kept; foreign keys checked; what is deleted overwritten. Locks of other processes
//! are waited for no longer than the request has time. Errors are told by code, never by text, but
//! for the columns of a unique index, which SQLite tells nowhere else. This module must not know a
//! record.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql, ffi};

use super::constraints::conflict;
use super::draft::Draft;
use super::engine::{Dialect, Engine, Mode, Row, Value, patience};
use super::error::StoreError;
use super::sqlite_file;

/// Marks a file as a store of Ringway: "RGWY" in the header of the file.
pub(super) const APPLICATION_ID: i64 = 0x5247_5759;

/// How a file is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    /// Waits for the disk at every commit.
    pub(crate) durable: bool,
    /// Most bytes of the file.
    pub(crate) bytes_max: Option<u64>,
    /// Only reads.
    pub(crate) read_only: bool,
    /// Makes the file if it is absent.
    pub(crate) may_make: bool,
}

/// A connection to a file.
pub(crate) struct Sqlite {
    connection: Connection,
    path: String,
    /// Which file is open, whatever lies under its name by now.
    file: sqlite_file::Identity,
}

impl Sqlite {
    /// Opens a file, makes it if it is absent, and prepares the connection. What is in it is not
    /// looked at: see [`Self::check`].
    pub(crate) fn open(path: &Path, how: Use, deadline: Instant) -> Result<Self, StoreError> {
        let path = sqlite_file::checked_place(path)?;
        if how.may_make && path.symlink_metadata().is_err() {
            make(&path)?;
        }
        let file = sqlite_file::prepare(&path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let shown = path.display().to_string();
        let connection =
            Connection::open_with_flags(&path, flags).map_err(|error| translate(&error, &shown))?;
        let mut engine = Self { connection, path: shown, file };
        engine.wait_until(deadline)?;
        engine.must_be_ours()?;
        engine.prepare(how)?;
        Ok(engine)
    }

    /// Before anything is written, the mode of the log included.
    fn must_be_ours(&mut self) -> Result<(), StoreError> {
        if self.number("application_id")? == APPLICATION_ID {
            return Ok(());
        }
        let tables = self.query("SELECT COUNT(*) FROM sqlite_master", &[])?;
        if matches!(tables.first().map(Vec::as_slice), Some([Value::Int(0)])) {
            return self.pragma(&format!("application_id = {APPLICATION_ID}"));
        }
        let why =
            format!("{} is an SQLite database of another program; name another file", self.path);
        Err(StoreError::Invalid { why })
    }

    fn prepare(&mut self, how: Use) -> Result<(), StoreError> {
        self.pragma("journal_mode = WAL")?;
        self.pragma(if how.durable { "synchronous = FULL" } else { "synchronous = NORMAL" })?;
        self.pragma("foreign_keys = ON")?;
        self.pragma("secure_delete = ON")?;
        // What is read from the file is not trusted with functions.
        self.pragma("trusted_schema = OFF")?;
        if let Some(bytes) = how.bytes_max {
            let page = self.number("page_size")?.max(512).cast_unsigned();
            self.pragma(&format!("max_page_count = {}", (bytes / page).max(1)))?;
        }
        if how.read_only {
            self.pragma("query_only = ON")?;
        }
        Ok(())
    }

    /// Whether the file is whole: its structure, or with `fully` each index entry too.
    pub(crate) fn check(&mut self, fully: bool) -> Result<(), StoreError> {
        let check = if fully { "integrity_check(1)" } else { "quick_check(1)" };
        let rows = self.query(&format!("PRAGMA {check}"), &[])?;
        match rows.first().map(Vec::as_slice) {
            Some([Value::Text(word)]) if word == "ok" => Ok(()),
            Some([Value::Text(what)]) => Err(damaged(&self.path, what)),
            Some(_) | None => Err(damaged(&self.path, "no answer to the check")),
        }
    }

    fn pragma(&mut self, what: &str) -> Result<(), StoreError> {
        self.query(&format!("PRAGMA {what}"), &[]).map(|_| ())
    }

    fn number(&mut self, pragma: &str) -> Result<i64, StoreError> {
        let rows = self.query(&format!("PRAGMA {pragma}"), &[])?;
        match rows.first().map(Vec::as_slice) {
            Some([Value::Int(number)]) => Ok(*number),
            Some(_) | None => Err(damaged(&self.path, &format!("no {pragma}"))),
        }
    }

    fn wait_until(&self, deadline: Instant) -> Result<(), StoreError> {
        let set = self.connection.busy_timeout(patience(deadline));
        set.map_err(|error| translate(&error, &self.path))
    }
}

impl Engine for Sqlite {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn begin(&mut self, mode: Mode, deadline: Instant) -> Result<(), StoreError> {
        self.wait_until(deadline)?;
        // One that was left open is not of use to anybody.
        self.rollback();
        match mode {
            Mode::Read => self.batch("BEGIN DEFERRED"),
            Mode::Write => self.batch("BEGIN IMMEDIATE"),
        }
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let done = self.batch("COMMIT");
        if done.is_err() {
            self.rollback();
        }
        done
    }

    fn rollback(&mut self) {
        if !self.connection.is_autocommit() {
            // Nothing can be done if this fails, and nothing is kept either way.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, StoreError> {
        let run = || {
            let mut statement = self.connection.prepare(&numbered(sql))?;
            statement.execute(rusqlite::params_from_iter(parameters))
        };
        let count = run().map_err(|error| translate(&error, &self.path))?;
        Ok(u64::try_from(count).unwrap_or(u64::MAX))
    }

    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, StoreError> {
        let run = || -> Result<Vec<Row>, rusqlite::Error> {
            let mut statement = self.connection.prepare(&numbered(sql))?;
            let columns = statement.column_count();
            let mut rows = statement.query(rusqlite::params_from_iter(parameters))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let column = |index| row.get_ref(index).map(owned);
                found.push((0..columns).map(column).collect::<Result<Row, _>>()?);
            }
            Ok(found)
        };
        run().map_err(|error| translate(&error, &self.path))
    }

    fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.connection.execute_batch(sql).map_err(|error| translate(&error, &self.path))
    }

    fn forget(&mut self) {
        /// Longest wait for readers that still need the log: who asked waits for the answer.
        const PATIENCE: Duration = Duration::from_millis(200);
        let emptied = self
            .connection
            .busy_timeout(PATIENCE)
            .and_then(|()| self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"));
        if let Err(error) = emptied {
            tracing::debug!(%error, "the log is emptied later");
        }
    }

    fn is_alive(&self) -> bool {
        // The file that is open is the one under its name: it was neither removed nor replaced.
        self.file.is_at(Path::new(&self.path))
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn owned(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Int(number),
        // No column holds one; the reader of the record says what it expected.
        ValueRef::Real(number) => Value::Text(number.to_string()),
        ValueRef::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

/// Makes a store without records. It appears with its mark in it, so that a file of no bytes is
/// always a damaged one; another gateway may be faster.
fn make(path: &Path) -> Result<(), StoreError> {
    let draft = Draft::new(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let write = || {
        let connection = Connection::open_with_flags(draft.path(), flags)?;
        connection.execute_batch(&format!("PRAGMA application_id = {APPLICATION_ID}"))?;
        connection.close().map_err(|(_, error)| error)
    };
    write().map_err(|error| translate(&error, &path.display().to_string()))?;
    draft.publish(path, false).map(|_| ())
}

/// SQLite takes `$1` for a name and `?1` for a number.
fn numbered(sql: &str) -> String {
    sql.replace('$', "?")
}

pub(super) fn damaged(path: &str, what: &str) -> StoreError {
    StoreError::Corrupt {
        why: format!(
            "{path}: {what}. Stop the gateway, keep a copy of the file and of {path}-wal for \
             inspection, and restore the last backup"
        ),
    }
}

/// What an error of SQLite means for the store in `path`.
pub(super) fn translate(error: &rusqlite::Error, path: &str) -> StoreError {
    let rusqlite::Error::SqliteFailure(failure, message) = error else {
        return StoreError::Invalid { why: format!("{path}: {error}") };
    };
    let text = message.clone().unwrap_or_else(|| failure.to_string());
    match failure.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Busy {
            why: format!(
                "another process has locked {path} (find it with \"fuser {path}\"): {text}"
            ),
        },
        ErrorCode::DiskFull => StoreError::Full {
            why: format!(
                "there is no room for {path}; nothing was changed. Make room on its disk, or raise \
                 the limit on its size"
            ),
        },
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => damaged(path, &text),
        ErrorCode::OperationInterrupted | ErrorCode::OperationAborted => {
            StoreError::Timeout { why: format!("{path}: {text}") }
        }
        ErrorCode::ConstraintViolation => violated(failure.extended_code, &text),
        ErrorCode::OutOfMemory
        | ErrorCode::ReadOnly
        | ErrorCode::SystemIoFailure
        | ErrorCode::CannotOpen
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::NoLargeFileSupport
        | ErrorCode::PermissionDenied => StoreError::Unavailable {
            why: format!("{path}: {text}; look at its disk, its folder and who owns it"),
        },
        // Mistakes in a statement of ours, or codes that come with a later SQLite.
        ErrorCode::InternalMalfunction
        | ErrorCode::NotFound
        | ErrorCode::SchemaChanged
        | ErrorCode::TooBig
        | ErrorCode::TypeMismatch
        | ErrorCode::ApiMisuse
        | ErrorCode::AuthorizationForStatementDenied
        | ErrorCode::ParameterOutOfRange
        | ErrorCode::Unknown
        | _ => StoreError::Invalid { why: format!("{path}: {text}") },
    }
}

fn violated(code: i32, text: &str) -> StoreError {
    match code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY => {
            conflict(text.rsplit_once("failed: ").map_or(text, |(_, columns)| columns))
        }
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => StoreError::Invalid {
            why: "a record refers to one that does not exist, or is still referred to".to_owned(),
        },
        _ => StoreError::Invalid { why: text.to_owned() },
    }
}
