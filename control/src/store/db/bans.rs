//! Who is kept out for a while. This module must not know why anybody is.

use super::super::error::StoreError;
use super::super::records::{Ban, Timestamp};
use super::Db;

impl Db<'_> {
    /// Keeps somebody out, in place of an earlier ban of the same.
    ///
    /// # Errors
    /// Those of the store.
    pub fn put_ban(&mut self, ban: &Ban) -> Result<(), StoreError> {
        let sql = "INSERT INTO bans (subject, until, score, reason) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (subject) DO UPDATE SET until = excluded.until, \
                   score = excluded.score, reason = excluded.reason";
        let values =
            [(&ban.subject).into(), ban.until.into(), ban.score.into(), (&ban.reason).into()];
        self.execute(sql, &values)?;
        Ok(())
    }

    /// All bans that have not ended at `now`, by subject.
    ///
    /// # Errors
    /// Those of the store.
    pub fn bans(&mut self, now: Timestamp) -> Result<Vec<Ban>, StoreError> {
        let sql = "SELECT subject, until, score, reason FROM bans WHERE until > $1 \
                   ORDER BY subject";
        let rows = self.query("bans", sql, &[now.into()])?;
        let read = |mut row: super::Columns| {
            Ok(Ban {
                subject: row.text()?,
                until: row.time()?,
                score: row.small()?,
                reason: row.text()?,
            })
        };
        rows.into_iter().map(read).collect()
    }

    /// Lets somebody in again; whether there was a ban.
    ///
    /// # Errors
    /// Those of the store.
    pub fn remove_ban(&mut self, subject: &str) -> Result<bool, StoreError> {
        Ok(self.execute("DELETE FROM bans WHERE subject = $1", &[subject.into()])? > 0)
    }

    /// Forgets bans that have ended at `now`, and says how many.
    ///
    /// # Errors
    /// Those of the store.
    pub fn purge_bans(&mut self, now: Timestamp) -> Result<u64, StoreError> {
        self.execute("DELETE FROM bans WHERE until <= $1", &[now.into()])
    }
}
