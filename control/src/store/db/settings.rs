//! Small things that have no table of their own: a name and bytes. This module must not know what
//! they mean.

use super::super::error::StoreError;
use super::Db;

impl Db<'_> {
    /// The bytes under `name`.
    ///
    /// # Errors
    /// Those of the store.
    pub fn setting(&mut self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT value FROM settings WHERE name = $1";
        let row = self.first("settings", sql, &[name.into()])?;
        row.map_or(Ok(None), |mut row| row.maybe_blob())
    }

    /// Puts bytes under `name`, in place of what was there.
    ///
    /// # Errors
    /// Those of the store.
    pub fn put_setting(&mut self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        let sql = "INSERT INTO settings (name, value) VALUES ($1, $2) \
                   ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.execute(sql, &[name.into(), value.into()])?;
        Ok(())
    }

    /// The next `limit` names that begin with `prefix` after one, in order, and their bytes. A
    /// prefix has neither `%` nor `_`.
    ///
    /// # Errors
    /// Those of the store.
    pub fn settings_after(
        &mut self,
        prefix: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let sql = "SELECT name, value FROM settings WHERE name LIKE $1 AND name > $2 \
                   ORDER BY name LIMIT $3";
        let pattern = format!("{prefix}%");
        let rows =
            self.query("settings", sql, &[pattern.as_str().into(), after.into(), limit.into()])?;
        rows.into_iter().map(|mut row| Ok((row.text()?, row.blob()?))).collect()
    }

    /// Forgets what is under `name`, if anything is.
    ///
    /// # Errors
    /// Those of the store.
    pub fn remove_setting(&mut self, name: &str) -> Result<(), StoreError> {
        self.execute("DELETE FROM settings WHERE name = $1", &[name.into()])?;
        Ok(())
    }
}
