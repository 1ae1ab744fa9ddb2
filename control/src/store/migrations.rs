//! Numbered steps from an empty store to the present one, written once for both engines.
//!
//! Words in braces stand for types that the engines call differently. Each step is a transaction,
//! and the write lock keeps gateways of a fleet from doing the same step twice. A step that has
//! been in a release is never changed: what is wrong with it is mended by the next one. This module
//! must not know records beyond those that a new store begins with.

use std::time::Instant;

use super::db::Db;
use super::engine::{Dialect, Engine, Mode, Value};
use super::error::StoreError;
use super::records::Timestamp;

mod fifth;
mod first;
mod fourth;
mod second;
mod sixth;
mod third;

/// A step.
struct Step {
    /// Statements, with types in braces.
    sql: &'static str,
    /// Rows that the store has from then on.
    fill: fn(&mut Db<'_>, Timestamp) -> Result<(), StoreError>,
}

/// All steps; the version of a store is how many of them it has.
const STEPS: &[Step] = &[
    Step { sql: first::SQL, fill: first::fill },
    Step { sql: second::SQL, fill: |_, _| Ok(()) },
    Step { sql: third::SQL, fill: |_, _| Ok(()) },
    Step { sql: fourth::SQL, fill: |_, _| Ok(()) },
    Step { sql: fifth::SQL, fill: |_, _| Ok(()) },
    Step { sql: sixth::SQL, fill: |_, _| Ok(()) },
];

/// The version that this program knows.
pub(crate) fn known() -> u32 {
    u32::try_from(STEPS.len()).unwrap_or(u32::MAX)
}

/// Brings the store up to date, each step being kept or not at all.
pub(crate) fn migrate(
    engine: &mut dyn Engine,
    now: Timestamp,
    deadline: Instant,
) -> Result<(), StoreError> {
    migrate_by(STEPS, engine, now, deadline)
}

/// The version of a store, 0 for an empty one.
pub(crate) fn version(engine: &mut dyn Engine) -> Result<u32, StoreError> {
    let tables = match engine.dialect() {
        Dialect::Sqlite => {
            "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'migrations'"
        }
        Dialect::Postgres => {
            "SELECT COUNT(*) FROM pg_catalog.pg_tables WHERE tablename = 'migrations' \
             AND schemaname = current_schema()"
        }
    };
    if number(engine, tables)? == 0 {
        return Ok(0);
    }
    let version = number(engine, "SELECT COALESCE(MAX(version), 0) FROM migrations")?;
    u32::try_from(version).map_err(|_| StoreError::Corrupt {
        why: format!("its version is {version}; restore the last backup"),
    })
}

fn migrate_by(
    steps: &[Step],
    engine: &mut dyn Engine,
    now: Timestamp,
    deadline: Instant,
) -> Result<(), StoreError> {
    loop {
        // The common case needs no lock.
        engine.begin(Mode::Read, deadline)?;
        let found = version(engine);
        engine.rollback();
        if is_current(found?, steps)? {
            return Ok(());
        }
        engine.begin(Mode::Write, deadline)?;
        let done = next_step(steps, engine, now, deadline);
        if done.is_err() {
            engine.rollback();
            return done;
        }
        engine.commit()?;
    }
}

fn is_current(found: u32, steps: &[Step]) -> Result<bool, StoreError> {
    let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    Ok(found == known)
}

fn next_step(
    steps: &[Step],
    engine: &mut dyn Engine,
    now: Timestamp,
    deadline: Instant,
) -> Result<(), StoreError> {
    // Another gateway may have been faster.
    let found = version(engine)?;
    if is_current(found, steps)? {
        return Ok(());
    }
    let Some(step) = steps.get(usize::try_from(found).unwrap_or(usize::MAX)) else {
        return Ok(());
    };
    let dialect = engine.dialect();
    if found == 0 {
        let sql = "CREATE TABLE migrations (version {int} PRIMARY KEY, at {int} NOT NULL){table};";
        engine.batch(&spell(sql, dialect))?;
    }
    engine.batch(&spell(step.sql, dialect))?;
    let mut db = Db::new(engine, Mode::Write, deadline);
    (step.fill)(&mut db, now)?;
    db.finish()?;
    let sql = "INSERT INTO migrations (version, at) VALUES ($1, $2)";
    engine.execute(sql, &[Value::from(found + 1), now.into()])?;
    tracing::info!(version = found + 1, "brought the store up to date");
    Ok(())
}

fn spell(sql: &str, dialect: Dialect) -> String {
    // Texts are compared byte by byte on both, so that lists have one order; SQLite checks types
    // only if it is told to, and finds rows by their own key without a second look-up.
    let [int, text, blob, table] = match dialect {
        Dialect::Sqlite => ["INTEGER", "TEXT", "BLOB", " STRICT, WITHOUT ROWID"],
        Dialect::Postgres => ["BIGINT", "TEXT COLLATE \"C\"", "BYTEA", ""],
    };
    sql.replace("{int}", int)
        .replace("{text}", text)
        .replace("{blob}", blob)
        .replace("{table}", table)
}

fn number(engine: &mut dyn Engine, sql: &str) -> Result<i64, StoreError> {
    match engine.query(sql, &[])?.first().and_then(|row| row.first()) {
        Some(Value::Int(number)) => Ok(*number),
        Some(Value::Null | Value::Text(_) | Value::Blob(_)) | None => {
            Err(StoreError::corrupt("its version cannot be read; restore the last backup"))
        }
    }
}
