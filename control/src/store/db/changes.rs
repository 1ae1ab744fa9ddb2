//! What changed, in the order in which it was kept: what other gateways and the live projection
//! follow.
//!
//! One write runs at a time, so a revision never becomes visible after a later one. Each record is
//! noted once, at its latest revision, so the table grows with the records and not with the writes.
//! This module must not know what a record holds.

use super::super::engine::Value;
use super::super::error::StoreError;
use super::super::query::{Change, Changes, PAGE_ROWS_MAX};
use super::Db;

impl Db<'_> {
    /// The last revision; 0 before the first change.
    ///
    /// # Errors
    /// Those of the store.
    pub fn revision(&mut self) -> Result<u64, StoreError> {
        self.flush_revision()?;
        self.counter("revision").map(i64::cast_unsigned)
    }

    /// Changes after `revision`, at most `limit` (1 to [`PAGE_ROWS_MAX`]).
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for another limit, and those of the store.
    pub fn changes_since(&mut self, revision: u64, limit: u32) -> Result<Changes, StoreError> {
        if limit == 0 || limit > PAGE_ROWS_MAX {
            let why = format!("changes are read 1 to {PAGE_ROWS_MAX} at a time, not {limit}");
            return Err(StoreError::Invalid { why });
        }
        let lost = u64::try_from(self.counter("changes_trimmed")?).unwrap_or(0) > revision;
        let sql = "SELECT revision, kind, id FROM changes WHERE revision > $1 \
                   ORDER BY revision LIMIT $2";
        let rows = self.query("changes", sql, &[revision.into(), limit.into()])?;
        let read = |mut row: super::Columns| {
            Ok(Change { revision: row.count()?, kind: row.text()?, id: row.text()? })
        };
        let items: Result<Vec<Change>, StoreError> = rows.into_iter().map(read).collect();
        Ok(Changes { items: items?, lost })
    }

    /// Forgets changes up to a revision, and says how many. Who has not read them yet is told that
    /// some are lost.
    ///
    /// # Errors
    /// Those of the store.
    pub fn trim_changes(&mut self, until: u64) -> Result<u64, StoreError> {
        let until = until.min(self.revision()?);
        let count = self.execute("DELETE FROM changes WHERE revision <= $1", &[until.into()])?;
        if count > 0 {
            let sql = "UPDATE counters SET value = $1 WHERE name = 'changes_trimmed' \
                       AND value < $1";
            self.execute(sql, &[until.into()])?;
        }
        Ok(count)
    }

    /// Notes that a record was written or removed.
    pub(super) fn changed(
        &mut self,
        kind: &'static str,
        id: impl Into<Value>,
    ) -> Result<(), StoreError> {
        let last = match self.revision {
            Some(last) => last,
            None => self.counter("revision")?,
        };
        self.revision = Some(last + 1);
        let sql = "INSERT INTO changes (kind, id, revision) VALUES ($1, $2, $3) \
                   ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision";
        self.execute(sql, &[kind.into(), id.into(), (last + 1).into()])?;
        Ok(())
    }

    /// Writes back the last revision that was given out.
    pub(super) fn flush_revision(&mut self) -> Result<(), StoreError> {
        let Some(last) = self.revision.take() else { return Ok(()) };
        self.set_counter("revision", last)
    }

    pub(super) fn counter(&mut self, name: &'static str) -> Result<i64, StoreError> {
        let sql = "SELECT value FROM counters WHERE name = $1";
        let Some(mut row) = self.first("counters", sql, &[name.into()])? else {
            let why = format!("counter {name} is missing; restore the last backup");
            return Err(StoreError::Corrupt { why });
        };
        row.int()
    }

    pub(super) fn set_counter(&mut self, name: &'static str, value: i64) -> Result<(), StoreError> {
        let sql = "UPDATE counters SET value = $2 WHERE name = $1";
        self.execute(sql, &[name.into(), value.into()])?;
        Ok(())
    }
}
